//! A store that does nothing passes no rule of the suite.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/faults.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "made for other tests besides")]
mod faults;

use std::time::Duration;

use async_trait::async_trait;
use distkit::{
    RedisKey,
    backend::{
        Applied, Backend, BackendError, Instance, InstanceBackend, InstanceSlice, Joined, Member,
        Ordered, Outcome, ReplayGuard, Scope, Slice, SliceWrite, Space, Standing, Write, Written,
    },
    conformance::{self as rules, Fixture},
};

/// Fails each call in one way.
struct Failing(fn() -> BackendError);

impl std::fmt::Debug for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failing").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Failing {
    async fn apply(
        &self,
        _: &Space,
        _: &[Write],
        _: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        Err(self.0())
    }

    async fn read(&self, _: &Space, _: &[RedisKey]) -> Result<Vec<Outcome<i64>>, BackendError> {
        Err(self.0())
    }

    async fn remove(&self, _: &Space, _: &[RedisKey]) -> Result<Vec<Outcome<i64>>, BackendError> {
        Err(self.0())
    }

    async fn clear(&self, _: &Space) -> Result<(), BackendError> {
        Err(self.0())
    }
}

#[async_trait]
impl InstanceBackend for Failing {
    async fn join(&self, _: &Space, _: &Instance, _: &[Slice]) -> Result<Joined, BackendError> {
        Err(self.0())
    }

    async fn apply_on(
        &self,
        _: &Space,
        _: &Member,
        _: &[SliceWrite],
        _: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        Err(self.0())
    }

    async fn read_on(
        &self,
        _: &Space,
        _: &Member,
        _: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        Err(self.0())
    }

    async fn remove_on(
        &self,
        _: &Space,
        _: &Member,
        _: &[RedisKey],
        _: Scope,
    ) -> Result<Ordered<Vec<Outcome<Written<Standing>>>>, BackendError> {
        Err(self.0())
    }

    async fn clear_on(&self, _: &Space, _: &Member, _: Scope) -> Result<(), BackendError> {
        Err(self.0())
    }

    async fn heartbeat(&self, _: &Space, _: &Member) -> Result<(), BackendError> {
        Err(self.0())
    }

    async fn leave(&self, _: &Space, _: &Member) -> Result<(), BackendError> {
        Err(self.0())
    }

    async fn slices_on(
        &self,
        _: &Space,
        _: &Member,
        _: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
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
    let fixture = Fixture::new(Failing(failure)).advance_with(|_: Duration| {});
    fixture.wipe_with(|_| async {}).plant_with(|_, _, _| async {})
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
