//! A store that does nothing passes no rule of the suite.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/faults.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "made for other tests besides")]
mod faults;

use std::{future::Future, sync::Arc, time::Duration};

use distkit::{
    backend::{Around, BackendError, Layered, Op, memory::MemoryBackend},
    conformance::{self as rules, Fixture},
};

/// Fails each call in one way.
struct Failing(fn() -> BackendError);

impl std::fmt::Debug for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failing").finish_non_exhaustive()
    }
}

impl Around for Failing {
    async fn around<T: Send>(
        &self,
        _: Op<'_>,
        _: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        Err(self.0())
    }
}

fn not_applied() -> BackendError {
    BackendError::not_applied("it always fails")
}

fn unknown() -> BackendError {
    BackendError::outcome_unknown("it always fails")
}

fn not_joined() -> BackendError {
    BackendError::NotJoined
}

/// With every ability that a rule may ask for, so that each rule can check what it is about.
fn able(failure: fn() -> BackendError) -> Fixture {
    let fixture = Fixture::new(Layered::new(Arc::new(MemoryBackend::new()), Failing(failure)))
        .advance_with(|_: Duration| {});
    fixture.wipe_with(|_| async {}).plant_with(|_, _, _| async {}).lose_records_with(|_| async {})
}

type Rule = fn(Fixture) -> faults::Run;

macro_rules! table {
    ($($rule:ident)+) => {
        const RULES: &[(&str, Rule)] = &[$((stringify!($rule), |fixture| {
            Box::pin(async move { rules::$rule(&fixture).await })
        })),+];
    };
}
distkit::conformance_rules! { [table] }

/// Those that a fixture passes.
fn passed(fixture: impl Fn() -> Fixture) -> Vec<&'static str> {
    let passes = |(_, rule): &&(&str, Rule)| faults::complaint(fixture(), *rule).is_none();
    RULES.iter().filter(passes).map(|(name, _)| *name).collect()
}

/// Asks no store at all but for ids.
const ABOUT_IDS: &str = "fresh_ids_are_unique";

#[test]
fn a_store_that_fails_each_call_passes_nothing() {
    for failure in [not_applied, unknown, not_joined] {
        assert_eq!(passed(|| able(failure)), [ABOUT_IDS], "{}", failure());
    }
}

#[test]
fn a_rule_that_cannot_check_fails() {
    let memory = || Fixture::new(distkit::backend::memory::MemoryBackend::new());
    let passed = passed(memory);
    for rule in ["foreign_data_is_named_and_kept", "leases_run_exactly", "lost_data_heals"] {
        assert!(!passed.contains(&rule), "{rule}");
    }
}
