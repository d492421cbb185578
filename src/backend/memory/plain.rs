//! The plain counters of a store, and what it remembers of guarded writers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::value::Value;
use crate::{
    CounterComparator, RedisKey,
    backend::{
        Applied, BackendError, Change, Outcome, Refusal, ReplayGuard, Space, Write, Written,
    },
};

/// How long a writer is remembered after its last batch that was applied, by the age of its space's guards.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// By how much one step of the clock moves that age at most.
const LONGEST_STEP: Duration = Duration::from_secs(60);
/// How many expired writers a new one removes.
const SWEPT: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Plain {
    spaces: BTreeMap<Space, Counters>,
    guards: BTreeMap<Space, Guards>,
}

type Counters = BTreeMap<RedisKey, Value>;

/// The replay guards of one space.
#[derive(Debug, Default)]
struct Guards {
    writers: BTreeMap<Arc<str>, Writer>,
    /// When the age was last looked at.
    seen: Duration,
    age: Duration,
    /// Whether earlier writers were lost.
    lost: bool,
}

#[derive(Debug)]
struct Writer {
    sequence: u64,
    /// The items that the batch of that sequence refused, by index.
    refused: BTreeMap<usize, Refusal>,
    /// The guards' age then.
    used: Duration,
}

impl Guards {
    fn tick(&mut self, now: Duration) {
        self.age += now.saturating_sub(self.seen).min(LONGEST_STEP);
        self.seen = now;
        self.lost &= self.age <= REMEMBERED;
    }

    fn sweep(&mut self) {
        let limit = self.age;
        let expired = self.writers.iter().filter(|(_, writer)| limit - writer.used > REMEMBERED);
        let expired: Vec<_> = expired.map(|(id, _)| Arc::clone(id)).take(SWEPT).collect();
        expired.iter().for_each(|id| drop(self.writers.remove(id)));
    }
}

impl Plain {
    pub(super) fn apply(
        &mut self,
        now: Duration,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        let Some(guard) = guard else {
            return Ok(Applied { replayed: false, outcomes: self.write_all(space, writes) });
        };
        let counts = self.spaces.contains_key(space);
        let guards = self
            .guards
            .entry(space.clone())
            .or_insert_with(|| Guards { seen: now, ..Guards::default() });
        if let Some(writer) = guards.writers.get(&guard.writer)
            && guard.sequence <= writer.sequence
        {
            let refused = (guard.sequence == writer.sequence).then(|| writer.refused.clone());
            let outcomes = self.stand_all(space, writes, refused.as_ref());
            return Ok(Applied { replayed: true, outcomes });
        }
        guards.tick(now);
        if !guards.writers.contains_key(&guard.writer) {
            if guards.lost && guard.resent && counts {
                return Err(BackendError::Forgotten);
            }
            guards.sweep();
        }
        let used = guards.age;
        let outcomes = self.write_all(space, writes);
        if let Some(guards) = self.guards.get_mut(space) {
            let writer = Writer { sequence: guard.sequence, refused: refusals(&outcomes), used };
            guards.writers.insert(Arc::clone(&guard.writer), writer);
        }
        Ok(Applied { replayed: false, outcomes })
    }

    /// Loses the guards of a space, and nothing else.
    pub(super) fn lose_guards(&mut self, now: Duration, space: &Space) {
        if let Some(guards) = self.guards.get_mut(space) {
            *guards = Guards { seen: now, lost: true, ..Guards::default() };
        }
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

    pub(super) fn writers(&self) -> usize {
        self.guards.values().map(|guards| guards.writers.len()).sum()
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
