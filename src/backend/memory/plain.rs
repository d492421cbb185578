//! The plain counters of a store, and what it remembers of guarded writers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::value::Value;
use crate::{
    CounterComparator, RedisKey,
    backend::{Applied, Change, Outcome, Refusal, ReplayGuard, Space, Write, Written},
};

/// How long a writer is remembered after its last batch that was applied.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Default)]
pub(super) struct Plain {
    spaces: BTreeMap<Space, Counters>,
    writers: BTreeMap<WriterId, Writer>,
    /// The writers by the time at which they are forgotten.
    expiries: BTreeSet<(Duration, WriterId)>,
}

type Counters = BTreeMap<RedisKey, Value>;
type WriterId = (Space, Arc<str>);

#[derive(Debug)]
struct Writer {
    sequence: u64,
    /// The items that the batch of that sequence refused, by index.
    refused: BTreeMap<usize, Refusal>,
    expiry: Duration,
}

impl Plain {
    pub(super) fn apply(
        &mut self,
        now: Duration,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Applied {
        self.forget_writers(now);
        let Some(guard) = guard else {
            return Applied { replayed: false, outcomes: self.write_all(space, writes) };
        };
        let id = (space.clone(), guard.writer.clone());
        if let Some(writer) = self.writers.get(&id)
            && guard.sequence <= writer.sequence
        {
            let refused = (guard.sequence == writer.sequence).then_some(&writer.refused);
            return Applied { replayed: true, outcomes: self.stand_all(space, writes, refused) };
        }
        let outcomes = self.write_all(space, writes);
        let expiry = now.saturating_add(REMEMBERED);
        let writer = Writer { sequence: guard.sequence, refused: refusals(&outcomes), expiry };
        if let Some(before) = self.writers.insert(id.clone(), writer) {
            self.expiries.remove(&(before.expiry, id.clone()));
        }
        self.expiries.insert((expiry, id));
        Applied { replayed: false, outcomes }
    }

    pub(super) fn read(&self, space: &Space, keys: &[RedisKey]) -> Vec<Outcome<i64>> {
        let counters = self.spaces.get(space);
        keys.iter().map(|key| number(counters.and_then(|counters| counters.get(key)))).collect()
    }

    pub(super) fn remove(&mut self, space: &Space, keys: &[RedisKey]) -> Vec<Outcome<i64>> {
        let Some(counters) = self.spaces.get_mut(space) else {
            return vec![Ok(0); keys.len()];
        };
        let held = keys.iter().map(|key| number(counters.remove(key).as_ref())).collect();
        if counters.is_empty() {
            self.spaces.remove(space);
        }
        held
    }

    pub(super) fn clear(&mut self, space: &Space) {
        self.spaces.remove(space);
    }

    pub(super) fn plant(&mut self, space: &Space, key: &RedisKey, text: &str) {
        self.spaces.entry(space.clone()).or_default().insert(key.clone(), Value::parse(text));
    }

    pub(super) fn len(&self, space: &Space) -> usize {
        self.spaces.get(space).map_or(0, BTreeMap::len)
    }

    pub(super) fn writers(&mut self, now: Duration) -> usize {
        self.forget_writers(now);
        self.writers.len()
    }

    fn write_all(&mut self, space: &Space, writes: &[Write]) -> Vec<Outcome<Written>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let counters = self.spaces.entry(space.clone()).or_default();
        let outcomes = writes.iter().map(|write| write_one(counters, write)).collect();
        if counters.is_empty() {
            self.spaces.remove(space);
        }
        outcomes
    }

    /// The answers to a batch that was applied before.
    fn stand_all(
        &self,
        space: &Space,
        writes: &[Write],
        refused: Option<&BTreeMap<usize, Refusal>>,
    ) -> Vec<Outcome<Written>> {
        let counters = self.spaces.get(space);
        let stand = |(index, write): (usize, &Write)| {
            if let Some(refusal) = refused.and_then(|refused| refused.get(&index)) {
                return Err(refusal.clone());
            }
            let value = number(counters.and_then(|counters| counters.get(&write.key)))?;
            Ok(Written { old: value, new: value, condition_met: true })
        };
        writes.iter().enumerate().map(stand).collect()
    }

    fn forget_writers(&mut self, now: Duration) {
        // Like a server's keys, they outlast the millisecond in which they expire.
        while self.expiries.first().is_some_and(|(expiry, _)| *expiry < now) {
            if let Some((_, id)) = self.expiries.pop_first() {
                self.writers.remove(&id);
            }
        }
    }
}

fn write_one(counters: &mut Counters, write: &Write) -> Outcome<Written> {
    let found = number(counters.get(&write.key));
    let old = match (&found, write.change, write.condition) {
        // There is no old number to tell, and an assignment needs none.
        (Err(_), Change::Set(_), CounterComparator::Nil) => 0,
        _ => found?,
    };
    if !write.condition.matches(old) {
        return Ok(Written { old, new: old, condition_met: false });
    }
    let new = match write.change {
        Change::Add(count) => old.checked_add(count).ok_or(Refusal::Overflow)?,
        Change::Set(count) => count,
    };
    counters.insert(write.key.clone(), Value::Number(new));
    Ok(Written { old, new, condition_met: true })
}

fn number(value: Option<&Value>) -> Outcome<i64> {
    value.map_or(Ok(0), Value::number)
}

fn refusals<T>(outcomes: &[Outcome<T>]) -> BTreeMap<usize, Refusal> {
    let refusal =
        |(index, outcome): (usize, &Outcome<T>)| Some((index, outcome.as_ref().err()?.clone()));
    outcomes.iter().enumerate().filter_map(refusal).collect()
}
