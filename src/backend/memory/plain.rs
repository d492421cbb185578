//! The plain counters of a store, and what it remembers of guarded writers.

use std::{collections::BTreeMap, time::Duration};

use super::{
    paging,
    records::{Lanes, Records, Remembered, reused},
    value::Value,
    windows::{Takes, Windows},
};
use crate::{
    CounterComparator, KeyFilter, RedisKey,
    backend::{
        Applied, BackendError, Change, Cursor, Outcome, Page, Refusal, ReplayGuard, Space, Write,
        Written,
    },
};

/// How long a writer is remembered after its last batch.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Default)]
pub(super) struct Plain {
    spaces: BTreeMap<Space, Counters>,
    /// What the latest batch of each writer refused, by index.
    writers: BTreeMap<Space, Records<Refusals>>,
    lanes: BTreeMap<Space, Lanes<Answer>>,
    windows: Windows,
}

type Counters = BTreeMap<RedisKey, Value>;
type Refusals = BTreeMap<usize, Refusal>;

/// What a request in a lane was answered.
#[derive(Debug, Clone)]
enum Answer {
    Applied(Applied),
    Cleared,
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
            self.enter(now, space, Takes::Current)?;
            return Ok(Applied { replayed: false, outcomes: self.write_all(space, writes) });
        };
        let whole = space.home();
        let records = self.writers.entry(whole.clone().into_owned());
        let records = records.or_insert_with(|| Records::kept_for(REMEMBERED, now));
        let refused = match records.of(guard) {
            Remembered::Nothing => None,
            Remembered::Latest(refused) => Some(refused.clone()),
            Remembered::Older => Some(Refusals::new()),
        };
        if let Some(refused) = refused {
            let outcomes = self.stand_all(space, writes, &refused);
            return Ok(Applied { replayed: true, outcomes });
        }
        self.enter(now, space, Takes::Open)?;
        if let Some(records) = self.writers.get_mut(&*whole) {
            records.admit(now, guard)?;
        }
        let outcomes = self.write_all(space, writes);
        if let Some(records) = self.writers.get_mut(&*whole) {
            records.keep(guard, refusals(&outcomes));
        }
        Ok(Applied { replayed: false, outcomes })
    }

    pub(super) fn apply_recorded(
        &mut self,
        now: Duration,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError> {
        let answer = self.answer_once(now, space, lane, |plain| {
            let outcomes = plain.write_all(space, writes);
            Answer::Applied(Applied { replayed: false, outcomes })
        })?;
        match answer {
            Answer::Applied(applied) => Ok(applied),
            Answer::Cleared => Err(reused()),
        }
    }

    pub(super) fn clear_recorded(
        &mut self,
        now: Duration,
        space: &Space,
        lane: &ReplayGuard,
    ) -> Result<(), BackendError> {
        let answer = self.answer_once(now, space, lane, |plain| {
            plain.spaces.remove(&*space.place());
            Answer::Cleared
        })?;
        match answer {
            Answer::Cleared => Ok(()),
            Answer::Applied(_) => Err(reused()),
        }
    }

    fn answer_once(
        &mut self,
        now: Duration,
        space: &Space,
        lane: &ReplayGuard,
        run: impl FnOnce(&mut Self) -> Answer,
    ) -> Result<Answer, BackendError> {
        let whole = space.home();
        let lanes = self.lanes.entry(whole.clone().into_owned());
        let lanes = lanes.or_insert_with(|| Lanes::lanes(now));
        if let Some(answer) = lanes.first_answer(lane) {
            return answer;
        }
        self.enter(now, space, Takes::Current)?;
        if let Some(lanes) = self.lanes.get_mut(&*whole) {
            lanes.admit(now, lane)?;
        }
        let answer = run(self);
        if let Some(lanes) = self.lanes.get_mut(&*whole) {
            lanes.keep(lane, answer.clone());
        }
        Ok(answer)
    }

    /// Lets in a write to a window, and closes those that are over.
    fn enter(&mut self, now: Duration, space: &Space, takes: Takes) -> Result<(), BackendError> {
        for closed in self.windows.enter(now, space, takes)? {
            self.spaces.remove(&*space.in_window(closed).place());
        }
        Ok(())
    }

    /// Loses the counters of an open window.
    pub(super) fn lose_window(&mut self, space: &Space) {
        if self.windows.lose(space) {
            self.spaces.remove(&*space.place());
        }
    }

    /// Loses the writers of a space, and nothing else.
    pub(super) fn lose_writers(&mut self, now: Duration, space: &Space) {
        if let Some(writers) = self.writers.get_mut(space) {
            writers.lose(now);
        }
    }

    pub(super) fn has_lanes(&self, space: &Space) -> bool {
        self.lanes.contains_key(space)
    }

    /// Loses what the lanes were answered, and nothing else.
    pub(super) fn lose_lanes(&mut self, now: Duration, space: &Space) {
        self.lanes.entry(space.clone()).or_insert_with(|| Lanes::lanes(now)).lose(now);
    }

    pub(super) fn read(
        &self,
        now: Duration,
        space: &Space,
        keys: &[RedisKey],
        takes: Takes,
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let counters = self.readable(now, space, takes)?;
        let held = |key| number(counters.and_then(|counters| counters.get(key)));
        Ok(keys.iter().map(held).collect())
    }

    /// What a read of a space finds.
    fn readable(
        &self,
        now: Duration,
        space: &Space,
        takes: Takes,
    ) -> Result<Option<&Counters>, BackendError> {
        let nothing = self.windows.reads_nothing(now, space, takes)?;
        Ok(self.spaces.get(&*space.place()).filter(|_| !nothing))
    }

    pub(super) fn page(
        &self,
        now: Duration,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<(RedisKey, Outcome<i64>)>, BackendError> {
        let Some(counters) = self.readable(now, space, Takes::Open)? else {
            return Ok(Page::new(Vec::new(), None));
        };
        let entry = |key: &RedisKey, value: &Value| (key.clone(), value.number());
        Ok(paging::page(counters, from, filter, count, entry))
    }

    pub(super) fn count(&self, now: Duration, space: &Space) -> Result<usize, BackendError> {
        Ok(self.readable(now, space, Takes::Open)?.map_or(0, BTreeMap::len))
    }

    pub(super) fn clear(&mut self, now: Duration, space: &Space) -> Result<(), BackendError> {
        self.enter(now, space, Takes::Open)?;
        self.spaces.remove(&*space.place());
        Ok(())
    }

    /// Loses all that is in a space.
    pub(super) fn wipe_space(&mut self, space: &Space) {
        self.spaces.retain(|of, _| *of.home() != *space);
        self.windows.wipe_space(space);
        self.writers.remove(space);
        self.lanes.remove(space);
    }

    /// Removes what a space that expires holds, and all that is remembered. Windows go by their own time.
    pub(super) fn expire_space(&mut self, space: &Space) {
        self.spaces.remove(space);
        self.writers.remove(space);
        self.lanes.remove(space);
    }

    pub(super) fn plant(&mut self, space: &Space, key: &RedisKey, text: &str) {
        let counters = self.spaces.entry(space.place().into_owned()).or_default();
        counters.insert(key.clone(), Value::parse(text));
    }

    pub(super) fn len(&self, space: &Space) -> usize {
        self.spaces.get(&*space.place()).map_or(0, BTreeMap::len)
    }

    pub(super) fn writers(&self) -> usize {
        self.writers.values().map(Records::len).sum()
    }

    fn write_all(&mut self, space: &Space, writes: &[Write]) -> Vec<Outcome<Written>> {
        if writes.is_empty() {
            return Vec::new();
        }
        let place = space.place();
        let counters = self.spaces.entry(place.clone().into_owned()).or_default();
        let outcomes = writes.iter().map(|write| write_one(counters, write)).collect();
        if counters.is_empty() {
            self.spaces.remove(&*place);
        }
        outcomes
    }

    /// The answers to a batch that was applied before.
    fn stand_all(
        &self,
        space: &Space,
        writes: &[Write],
        refused: &Refusals,
    ) -> Vec<Outcome<Written>> {
        let counters = self.spaces.get(&*space.place());
        let stand = |(index, write): (usize, &Write)| {
            if let Some(refusal) = refused.get(&index) {
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
    if found.is_err() && write.change == Change::Remove && write.condition == CounterComparator::Nil
    {
        counters.remove(&write.key);
    }
    let old = match (&found, write.change, write.condition) {
        // There is no old number to tell, and an assignment needs none.
        (Err(_), Change::Set(_), CounterComparator::Nil) => 0,
        _ => found?,
    };
    if !write.condition.matches(old) {
        return Ok(Written { old, new: old, condition_met: false });
    }
    let new = write.change.applied_to(old)?;
    match write.change {
        Change::Remove => drop(counters.remove(&write.key)),
        Change::AddWithin { .. } if new == old => {}
        _ => drop(counters.insert(write.key.clone(), Value::Number(new))),
    }
    Ok(Written { old, new, condition_met: true })
}

fn number(value: Option<&Value>) -> Outcome<i64> {
    value.map_or(Ok(0), Value::number)
}

fn refusals<T>(outcomes: &[Outcome<T>]) -> Refusals {
    let refusal =
        |(index, outcome): (usize, &Outcome<T>)| Some((index, outcome.as_ref().err()?.clone()));
    outcomes.iter().enumerate().filter_map(refusal).collect()
}
