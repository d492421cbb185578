//! The suite can fail: a store with one fault at a time must be caught by the rule for that fault. These
//! faults are in the plain counters; those of the others are in `conformance_broken_instances`.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used)]

#[path = "common/faults.rs"]
mod faults;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use distkit::{
    CounterComparator, RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Change, Outcome, Refusal, ReplayGuard, Space,
        Write, Written, memory::ManualClock,
    },
    conformance::{self as rules, Fixture},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    AddsInTwoSteps,
    ChecksConditionsBeforehand,
    WritesInTwoHalves,
    DropsWritesToAKeyNamedTwice,
    AnswersInOrderOfKeys,
    StopsAtARefusal,
    ConditionsSkipMissingKeys,
    FailsOnEmptyBatches,
    FailsOnBigBatches,
    FailsOnBigGuardedBatches,
    FailsOnBigRemovals,
    AnswersThroughDoubles,
    StoresThroughDoubles,
    ComparesThroughDoubles,
    WrapsAround,
    SaturatesBelow,
    LeavesMinimaAlone,
    AddsAllOrNothingWithinBounds,
    OverwritesForeignData,
    RemovalAnswersWhatIsLeft,
    RemovalsHeedNoCondition,
    ClearTakesPrefixes,
    ClearKeepsTheLast,
    ClearForgetsGuards,
    AppliesReplaysAgain,
    ReplaysAnswerWithTheFirstAnswer,
    ForgetsRefusals,
    ForgetsThatItForgot,
    AppliesLowerSequences,
    ComparesSequencesAsText,
    GuardsOneWriterOnly,
    EmptyBatchesUseNothingUp,
    GuardsAdditionsOnly,
    ChecksGuardsBeforehand,
    JoinsPrefixAndKey,
    MixesUpShards,
    TakesAnyNumberOfShards,
    LowersKeys,
    CutsKeysAtNul,
    RepeatsIds,
    AnswersTheCallBefore,
    HoldsALockWhenDropped,
    TakesTheGuardFirst,
    ForgetsWritersEarly,
    NewBatchesProlongNoGuard,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Default)]
struct Writer {
    sequence: u64,
    first: Vec<Outcome<Written>>,
    forgotten_at: Duration,
}

/// A store in a map, right but for its fault.
struct Broken {
    fault: Fault,
    values: Mutex<BTreeMap<(String, String), String>>,
    shapes: Mutex<BTreeMap<RedisKey, u16>>,
    writers: Mutex<BTreeMap<(String, String), Writer>>,
    ids: AtomicU64,
    locked: AtomicBool,
    /// Whether records were lost.
    lost: AtomicBool,
    turn: tokio::sync::Mutex<()>,
    pending_answer: Mutex<Option<Vec<Outcome<i64>>>>,
    clock: ManualClock,
}

type Address = (String, String);

impl Broken {
    fn new(fault: Fault) -> Arc<Self> {
        let clock = ManualClock::new();
        Arc::new(Self {
            fault,
            values: Mutex::default(),
            shapes: Mutex::default(),
            writers: Mutex::default(),
            ids: AtomicU64::new(1),
            locked: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
            pending_answer: Mutex::default(),
            clock,
        })
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn name(&self, space: &Space) -> String {
        match space.shard() {
            0 => space.prefix().to_string(),
            _ if self.is(Fault::MixesUpShards) => space.prefix().to_string(),
            shard => format!("{}:{shard}", space.prefix()),
        }
    }

    fn check(&self, space: &Space) -> Result<(), BackendError> {
        let mut shapes = self.shapes.lock().unwrap();
        let held = *shapes.entry(space.prefix().clone()).or_insert(space.shards());
        if held == space.shards() || self.is(Fault::TakesAnyNumberOfShards) {
            return Ok(());
        }
        let (ours, stored) = (space.shards().to_string(), held.to_string());
        Err(BackendError::ShapeMismatch { ours, stored })
    }

    fn address(&self, space: &Space, key: &RedisKey) -> Address {
        let (prefix, key) = (self.name(space), key.to_string());
        match self.fault {
            Fault::JoinsPrefixAndKey => (String::new(), prefix + &key),
            Fault::LowersKeys => (prefix, key.to_lowercase()),
            Fault::CutsKeysAtNul => (prefix, key.split('\0').next().unwrap().to_owned()),
            _ => (prefix, key),
        }
    }

    fn get(&self, address: &Address) -> Outcome<i64> {
        match self.values.lock().unwrap().get(address) {
            None => Ok(0),
            Some(text) => match text.parse::<i64>().ok().filter(|value| value.to_string() == *text)
            {
                Some(value) if self.is(Fault::AnswersThroughDoubles) => Ok(value as f64 as i64),
                Some(value) => Ok(value),
                None if self.is(Fault::OverwritesForeignData) => Ok(0),
                None => Err(Refusal::NotANumber { found: text.clone() }),
            },
        }
    }

    fn put(&self, address: &Address, value: i64) {
        let value = if self.is(Fault::StoresThroughDoubles) { value as f64 as i64 } else { value };
        self.values.lock().unwrap().insert(address.clone(), value.to_string());
    }

    fn matches(&self, condition: CounterComparator, value: i64) -> bool {
        match self.fault {
            Fault::ComparesThroughDoubles => faults::matches_through_doubles(condition, value),
            _ => condition.matches(value),
        }
    }

    async fn write(&self, space: &Space, write: &Write) -> Outcome<Written> {
        let address = self.address(space, &write.key);
        let unconditional = write.condition == CounterComparator::Nil;
        let removes = write.change == Change::Remove;
        if removes && (unconditional || self.is(Fault::RemovalsHeedNoCondition)) {
            let held = self.get(&address);
            self.values.lock().unwrap().remove(&address);
            let answers_late = self.is(Fault::RemovalAnswersWhatIsLeft);
            let old = if answers_late { self.get(&address)? } else { held? };
            return Ok(Written { old, new: 0, condition_met: true });
        }
        let old = match (self.get(&address), write.change) {
            (Err(_), Change::Set(_)) if unconditional => 0,
            (old, _) => old?,
        };
        let absent = !self.values.lock().unwrap().contains_key(&address);
        let skipped = absent && !unconditional && self.is(Fault::ConditionsSkipMissingKeys);
        if skipped || !self.matches(write.condition, old) {
            return Ok(Written { old, new: old, condition_met: false });
        }
        if self.is(Fault::ChecksConditionsBeforehand) && !unconditional {
            tokio::task::yield_now().await;
        }
        let new = match write.change {
            Change::Set(count) => count,
            Change::Add(count) => match self.fault {
                Fault::WrapsAround => old.wrapping_add(count),
                Fault::SaturatesBelow if count < 0 => old.saturating_add(count),
                Fault::LeavesMinimaAlone if count == i64::MIN => return Err(Refusal::Overflow),
                _ => old.checked_add(count).ok_or(Refusal::Overflow)?,
            },
            Change::Remove => 0,
            Change::AddWithin { count, .. } if self.is(Fault::AddsAllOrNothingWithinBounds) => {
                let new = old.saturating_add(count);
                if write.change.applied_to(old)? == new { new } else { old }
            }
            change => change.applied_to(old)?,
        };
        if removes {
            self.values.lock().unwrap().remove(&address);
            return Ok(Written { old, new: 0, condition_met: true });
        }
        match self.fault {
            Fault::AddsInTwoSteps => tokio::task::yield_now().await,
            Fault::WritesInTwoHalves => {
                self.put(&address, (old & 0xffff_ffff) | (new & !0xffff_ffff));
                tokio::task::yield_now().await;
            }
            _ => {}
        }
        self.put(&address, new);
        Ok(Written { old, new, condition_met: true })
    }

    async fn write_all(&self, space: &Space, writes: &[Write]) -> Vec<Outcome<Written>> {
        let mut order: Vec<_> = writes.iter().collect();
        if self.is(Fault::AnswersInOrderOfKeys) {
            order.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let mut outcomes = Vec::new();
        let mut seen = BTreeMap::new();
        for write in order {
            if self.is(Fault::DropsWritesToAKeyNamedTwice)
                && let Some(outcome) = seen.get(&write.key)
            {
                outcomes.push(Outcome::clone(outcome));
                continue;
            }
            let stopped = outcomes.iter().any(Outcome::is_err);
            let outcome = if stopped && self.is(Fault::StopsAtARefusal) {
                Err(Refusal::Overflow)
            } else {
                self.write(space, write).await
            };
            seen.insert(write.key.clone(), outcome.clone());
            outcomes.push(outcome);
        }
        outcomes
    }

    fn standing(&self, space: &Space, writes: &[Write], first: &[Outcome<Written>]) -> Applied {
        let outcomes = writes
            .iter()
            .enumerate()
            .map(|(i, write)| {
                match first.get(i) {
                    Some(Err(refusal)) if !self.is(Fault::ForgetsRefusals) => {
                        return Err(refusal.clone());
                    }
                    Some(Ok(first)) if self.is(Fault::ReplaysAnswerWithTheFirstAnswer) => {
                        return Ok(*first);
                    }
                    _ => {}
                }
                let value = self.get(&self.address(space, &write.key))?;
                Ok(Written { old: value, new: value, condition_met: true })
            })
            .collect();
        Applied { replayed: true, record: None, outcomes }
    }

    /// The first sending's outcomes when the batch is not new.
    fn replayed(&self, space: &Space, guard: &ReplayGuard) -> Option<Vec<Outcome<Written>>> {
        let mut writers = self.writers.lock().unwrap();
        let writer = writers.entry(self.writer(space, guard)).or_default();
        if writer.forgotten_at <= self.clock.now() {
            *writer = Writer::default();
        }
        let old = match self.fault {
            Fault::AppliesReplaysAgain => false,
            Fault::AppliesLowerSequences => guard.sequence == writer.sequence,
            Fault::ComparesSequencesAsText => {
                guard.sequence.to_string() <= writer.sequence.to_string()
            }
            _ => guard.sequence <= writer.sequence,
        };
        if old && guard.sequence < writer.sequence {
            return Some(Vec::new());
        }
        old.then(|| writer.first.clone())
    }

    fn writer(&self, space: &Space, guard: &ReplayGuard) -> Address {
        let name = if self.is(Fault::GuardsOneWriterOnly) { "" } else { &*guard.writer }.to_owned();
        (self.name(space), name)
    }

    fn remember(&self, space: &Space, guard: &ReplayGuard, first: Vec<Outcome<Written>>) {
        let mut writers = self.writers.lock().unwrap();
        let writer = writers.entry(self.writer(space, guard)).or_default();
        let forgotten_at = match self.fault {
            Fault::ForgetsWritersEarly => self.clock.now() + DAY - Duration::from_secs(1),
            Fault::NewBatchesProlongNoGuard if writer.sequence > 0 => writer.forgotten_at,
            _ => self.clock.now() + DAY,
        };
        *writer = Writer { sequence: guard.sequence, first, forgotten_at };
    }

    fn limit(&self, fault: Fault, len: usize) -> Result<(), BackendError> {
        if self.fault == fault && len > 8000 {
            return Err(BackendError::not_applied("too many results to unpack"));
        }
        if self.is(Fault::FailsOnEmptyBatches) && len == 0 {
            return Err(BackendError::not_applied("wrong number of arguments"));
        }
        Ok(())
    }

    /// One call at a time, but for the faults that consist in letting others in. Dropping the call
    /// gives the turn back.
    async fn turn(&self) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, BackendError> {
        if self.is(Fault::HoldsALockWhenDropped) {
            if self.locked.swap(true, Ordering::SeqCst) {
                return Err(BackendError::not_applied("a dropped call still holds the connection"));
            }
            tokio::task::yield_now().await;
            self.locked.store(false, Ordering::SeqCst);
        }
        let lets_others_in = matches!(
            self.fault,
            Fault::AddsInTwoSteps
                | Fault::ChecksConditionsBeforehand
                | Fault::WritesInTwoHalves
                | Fault::ChecksGuardsBeforehand
        );
        Ok(if lets_others_in { None } else { Some(self.turn.lock().await) })
    }
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broken").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Broken {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        let _turn = self.turn().await?;
        self.check(space)?;
        self.limit(Fault::FailsOnBigBatches, writes.len())?;
        if writes.iter().any(|write| write.change == Change::Remove) {
            self.limit(Fault::FailsOnBigRemovals, writes.len())?;
        }
        let Some(guard) = guard else {
            return Ok(Applied {
                replayed: false,
                record: None,
                outcomes: self.write_all(space, writes).await,
            });
        };
        self.limit(Fault::FailsOnBigGuardedBatches, writes.len())?;
        let known = self.writers.lock().unwrap().contains_key(&self.writer(space, guard));
        let lost = self.lost.load(Ordering::SeqCst) && !self.is(Fault::ForgetsThatItForgot);
        if lost && guard.resent && !known {
            return Err(BackendError::Forgotten);
        }
        if let Some(first) = self.replayed(space, guard) {
            if self.is(Fault::GuardsAdditionsOnly) {
                for write in writes.iter().filter(|w| matches!(w.change, Change::Set(_))) {
                    let _ = self.write(space, write).await;
                }
            }
            return Ok(self.standing(space, writes, &first));
        }
        if self.is(Fault::ChecksGuardsBeforehand) {
            tokio::task::yield_now().await;
        }
        if self.is(Fault::TakesTheGuardFirst) {
            self.remember(space, guard, Vec::new());
            tokio::task::yield_now().await;
        }
        let outcomes = self.write_all(space, writes).await;
        if !(self.is(Fault::EmptyBatchesUseNothingUp) && writes.is_empty()) {
            self.remember(space, guard, outcomes.clone());
        }
        Ok(Applied { replayed: false, record: None, outcomes })
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let _turn = self.turn().await?;
        self.check(space)?;
        let answer: Vec<_> = keys.iter().map(|key| self.get(&self.address(space, key))).collect();
        if self.is(Fault::AnswersTheCallBefore) {
            if let Some(earlier) = self.pending_answer.lock().unwrap().take() {
                return Ok(earlier);
            }
            *self.pending_answer.lock().unwrap() = Some(answer.clone());
            tokio::task::yield_now().await;
            *self.pending_answer.lock().unwrap() = None;
        }
        Ok(answer)
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        let _turn = self.turn().await?;
        self.check(space)?;
        let prefix = &*self.name(space);
        let mut values = self.values.lock().unwrap();
        let last = values.keys().rfind(|(found, _)| found == prefix).cloned();
        values.retain(|(found, key), _| match self.fault {
            Fault::ClearTakesPrefixes => !found.starts_with(prefix),
            Fault::JoinsPrefixAndKey => !key.starts_with(prefix),
            Fault::ClearKeepsTheLast => {
                found != prefix || last.as_ref().is_some_and(|last| last.1 == *key)
            }
            _ => found != prefix,
        });
        drop(values);
        if self.is(Fault::ClearForgetsGuards) {
            self.writers.lock().unwrap().retain(|(found, _), _| found != prefix);
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none()
    }

    fn fresh_id(&self) -> Arc<str> {
        let id = self.ids.fetch_add(1, Ordering::SeqCst);
        let id = if self.is(Fault::RepeatsIds) { id % 5000 } else { id };
        format!("id{id}").into()
    }
}

fn fixture(fault: Fault) -> Fixture {
    let store = Broken::new(fault);
    let (clock, forgetful) = (store.clock.clone(), store.clone());
    let fixture = Fixture::plain(store.clone()).advance_with(move |step| clock.advance(step));
    fixture
        .plant_with(move |space, key, text| {
            let address = store.address(&space, &key);
            store.values.lock().unwrap().insert(address, text);
            async {}
        })
        .lose_records_with(move |_| {
            forgetful.writers.lock().unwrap().clear();
            forgetful.lost.store(true, Ordering::SeqCst);
            async {}
        })
        .without_wiping()
}

async fn sound() -> Fixture {
    fixture(Fault::None)
}

// Without a fault this store passes, so what fails below fails because of the fault.
distkit::plain_conformance_suite!(sound);

faults::caught! {
    in "atomic.rs" "batches.rs" "bounds.rs" "exact.rs" "foreign.rs" "handles.rs" "removal.rs" "replay.rs" "shards.rs" "spaces.rs";
    AddsInTwoSteps by concurrent_adds_sum_exactly,
    ChecksConditionsBeforehand by
        of_concurrent_conditional_sets_one_wins
        a_compare_and_set_loop_loses_no_update,
    WritesInTwoHalves by readers_see_whole_values_only,
    DropsWritesToAKeyNamedTwice by a_key_named_twice_is_written_twice_in_order,
    AnswersInOrderOfKeys by answers_come_in_the_order_of_the_input,
    StopsAtARefusal by refused_items_stop_no_neighbour,
    ConditionsSkipMissingKeys by a_missing_key_reads_zero,
    FailsOnEmptyBatches by empty_batches_do_nothing,
    FailsOnBigBatches by big_batches_are_one_call,
    FailsOnBigGuardedBatches by big_guarded_batches_are_one_call,
    FailsOnBigRemovals by big_removals_and_clears_are_one_call,
    AnswersThroughDoubles by
        additions_are_exact_on_the_whole_range
        assignments_are_exact_on_the_whole_range,
    StoresThroughDoubles by
        additions_are_exact_on_the_whole_range
        assignments_are_exact_on_the_whole_range
        a_replayed_batch_changes_nothing,
    ComparesThroughDoubles by conditions_compare_exactly,
    WrapsAround by overflow_is_refused_in_both_directions refused_items_stop_no_neighbour,
    SaturatesBelow by overflow_is_refused_in_both_directions refused_items_stop_no_neighbour,
    LeavesMinimaAlone by
        additions_are_exact_on_the_whole_range
        long_mixed_runs_agree_with_a_reference,
    AddsAllOrNothingWithinBounds by additions_within_bounds_are_exact,
    OverwritesForeignData by foreign_data_is_named_and_kept,
    RemovalAnswersWhatIsLeft by removal_answers_what_was_held,
    RemovalsHeedNoCondition by a_removal_is_a_write_like_any_other,
    ClearTakesPrefixes by clear_removes_its_own_space_only,
    ClearKeepsTheLast by clear_removes_its_own_space_only big_removals_and_clears_are_one_call,
    ClearForgetsGuards by guards_survive_removal_and_clear,
    AppliesReplaysAgain by
        a_replayed_batch_changes_nothing
        cancelled_guarded_batches_happen_once
        sequences_are_exact_to_two_to_the_53,
    ReplaysAnswerWithTheFirstAnswer by a_replayed_batch_changes_nothing,
    ForgetsThatItForgot by a_batch_whose_record_is_lost_is_not_applied,
    ForgetsRefusals by refused_items_are_refused_again big_guarded_batches_are_one_call,
    AppliesLowerSequences by a_lower_sequence_changes_nothing,
    ComparesSequencesAsText by a_lower_sequence_changes_nothing,
    GuardsOneWriterOnly by writers_are_independent,
    EmptyBatchesUseNothingUp by an_empty_batch_uses_up_its_sequence,
    GuardsAdditionsOnly by guarded_sets_and_conditions_happen_once,
    ChecksGuardsBeforehand by concurrent_copies_of_a_guarded_batch_happen_once,
    JoinsPrefixAndKey by any_prefix_works_and_none_reaches_into_another,
    MixesUpShards by shards_are_apart,
    TakesAnyNumberOfShards by another_number_of_shards_is_refused,
    LowersKeys by any_key_works,
    CutsKeysAtNul by any_key_works,
    RepeatsIds by fresh_ids_are_unique,
    AnswersTheCallBefore by cancelled_calls_break_nothing_else,
    HoldsALockWhenDropped by cancelled_calls_break_nothing_else,
    TakesTheGuardFirst by cancelled_guarded_batches_happen_once,
    ForgetsWritersEarly by guards_last_a_day_after_the_last_batch,
    NewBatchesProlongNoGuard by guards_last_a_day_after_the_last_batch,
}
