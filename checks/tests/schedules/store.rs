use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use shuttle::{
    future::yield_now,
    rand::{Rng, thread_rng},
};

use crate::{
    CounterComparator, DistkitError, RedisKey, Token,
    backend::{
        AddedOnce, Applied, BackendError, Change, Outcome, ReplayGuard, Scope, Write, Written,
    },
    counter::lax::{Plain, known},
    counts::Counts,
    lax::{Cell, Committed, Delta, Known, Ledger, Promise},
};

/// A store that is far away, and loses a few messages.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    totals: BTreeMap<RedisKey, i64>,
    tokens: BTreeMap<(RedisKey, Token), i64>,
    sequence: u64,
    faults_left: u32,
    requests: u32,
}

impl Store {
    pub(crate) fn losing(faults_left: u32) -> Self {
        Self(Arc::new(Mutex::new(State { faults_left, ..State::default() })))
    }

    pub(crate) fn total(&self, key: &RedisKey) -> i64 {
        self.0.lock().unwrap().totals.get(key).copied().unwrap_or(0)
    }

    /// Somebody else's addition.
    pub(crate) fn add(&self, key: &RedisKey, count: i64) {
        *self.0.lock().unwrap().totals.entry(key.clone()).or_default() += count;
    }

    pub(crate) fn requests(&self) -> u32 {
        self.0.lock().unwrap().requests
    }

    async fn ask<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, BackendError> {
        yield_now().await;
        let fault = {
            let mut state = self.0.lock().unwrap();
            state.requests += 1;
            let fault = if state.faults_left > 0 { thread_rng().gen_range(0..6) } else { 6 };
            state.faults_left -= u32::from(fault < 3);
            fault
        };
        if fault == 0 {
            return Err(BackendError::not_applied("refused"));
        }
        if fault == 1 {
            return Err(BackendError::outcome_unknown("request lost"));
        }
        let answer = work(&mut self.0.lock().unwrap());
        yield_now().await;
        if fault == 2 { Err(BackendError::outcome_unknown("reply lost")) } else { Ok(answer) }
    }

    pub(crate) async fn apply(
        &self,
        (): &(),
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        self.ask(|state| {
            let replayed = guard.is_some_and(|guard| guard.sequence <= state.sequence);
            if let Some(guard) = guard {
                state.sequence = state.sequence.max(guard.sequence);
            }
            let outcomes = writes.iter().map(|write| {
                let total = state.totals.entry(write.key.clone()).or_default();
                let old = *total;
                match write.change {
                    _ if replayed => {}
                    Change::Add(count) => *total += count,
                    Change::Set(count) => *total = count,
                    Change::Remove => *total = 0,
                    change => *total = change.applied_to(*total).unwrap_or(*total),
                }
                Ok(Written { old, new: *total, condition_met: true })
            });
            Applied { replayed, record: None, outcomes: outcomes.collect() }
        })
        .await
    }

    pub(crate) async fn clear(&self, (): &()) -> Result<(), BackendError> {
        self.ask(|state| state.totals.clear()).await
    }
}

#[async_trait]
impl<B: crate::backend::Backend + ?Sized> Ledger for Plain<B> {
    /// Small, so that batches follow one another.
    const BATCH: usize = 2;
    const GUARD_LASTS: Option<Duration> = None;

    async fn commit(
        &self,
        deltas: &[Delta],
        guard: &ReplayGuard,
    ) -> Result<Committed, DistkitError> {
        let write = |delta: &Delta| {
            let key = delta.cell.key.clone();
            delta.replace.map_or(Write::add(key.clone(), delta.count), |own| Write::set(key, own))
        };
        let writes: Vec<_> = deltas.iter().map(write).collect();
        let applied = self.backend.apply(&self.space, &writes, Some(guard)).await?;
        let outcomes = applied.outcomes.into_iter().map(|outcome| Ok(known(outcome?.new)));
        Ok(Committed { replayed: applied.replayed, outcomes: outcomes.collect() })
    }

    async fn read(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, DistkitError> {
        let totals = |state: &mut State| {
            cells.iter().map(|cell| state.totals.get(&cell.key).copied().unwrap_or(0)).collect()
        };
        let totals: Vec<i64> = self.backend.ask(totals).await?;
        Ok(totals.into_iter().map(|total| Ok(known(total))).collect())
    }

    type Write = Write;
    type Written = Written;

    async fn write(
        &self,
        _: u64,
        writes: &[Write],
        guard: &ReplayGuard,
    ) -> Result<Vec<Outcome<Written>>, DistkitError> {
        Ok(self.backend.apply(&self.space, writes, Some(guard)).await?.outcomes)
    }

    fn replaces(write: &Write) -> bool {
        matches!(write.change, Change::Set(_) | Change::Remove)
            && write.condition == CounterComparator::Nil
    }

    fn left_by(_: &Write, outcome: &Outcome<Written>) -> Option<Known> {
        outcome.as_ref().ok().map(|written| known(written.new))
    }

    const ADDS_IN_DOUBT: bool = true;

    async fn add_promised(
        &self,
        promises: &[Promise],
        _resent: bool,
    ) -> Result<Vec<Outcome<AddedOnce>>, DistkitError> {
        let add = |state: &mut State| {
            let outcomes = promises.iter().map(|Promise { cell, token, count }| {
                let known = state.tokens.entry((cell.key.clone(), token.clone()));
                let replayed = matches!(known, Entry::Occupied(_));
                let total = *known.or_insert_with(|| {
                    let total = state.totals.entry(cell.key.clone()).or_default();
                    *total += count;
                    *total
                });
                Ok(AddedOnce { total, replayed })
            });
            outcomes.collect()
        };
        Ok(self.backend.ask(add).await?)
    }

    fn held_besides(written: &mut Written, pending: i64) {
        written.old = written.old.saturating_add(pending);
    }

    async fn clear(&self, _: u64, _: Scope) -> Result<(), DistkitError> {
        Ok(self.backend.clear(&self.space).await?)
    }

    fn end(&self) {}

    fn fresh_id(&self) -> Arc<str> {
        "writer".into()
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn prefix(&self) -> &str {
        "models"
    }
}
