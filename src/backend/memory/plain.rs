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
        Applied, BackendError, Change, Cursor, GuardRecord, Outcome, Page, Refusal, ReplayGuard,
        Space, Write, Written,
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
    /// Which life of the totals each space has, once they were counted in.
    lives: BTreeMap<Space, Life>,
    /// The number of the latest life of anything. It outlives a loss.
    latest: u64,
}

/// The life of a space's totals.
#[derive(Debug, Clone, Copy)]
struct Life {
    number: u64,
    /// There are none, or a single one that is 0: no count would be missed.
    holds_nothing: bool,
    /// It began with a token, after a loss, of which nobody was told yet.
    untold: bool,
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
            let outcomes = self.write_all(space, writes);
            return Ok(Applied { replayed: false, record: None, outcomes });
        };
        let whole = space.home();
        if let Some(records) = self.writers.get(&*whole)
            && let Some(refused) = match records.of(guard) {
                Remembered::Nothing => None,
                Remembered::Latest(refused) => Some(refused.clone()),
                Remembered::Older => Some(Refusals::new()),
            }
        {
            let (generation, sequence) = (records.generation, records.sequence(guard));
            let outcomes = self.stand_all(space, writes, &refused);
            let record = self.record(space, generation, sequence);
            return Ok(Applied { replayed: true, record, outcomes });
        }
        // First: of a request that a window refuses nothing is remembered.
        self.enter(now, space, Takes::Open)?;
        let latest = &mut self.latest;
        let records = self.writers.entry(whole.clone().into_owned());
        let records =
            records.or_insert_with(|| numbered(Records::kept_for(REMEMBERED, now), latest));
        let (generation, sequence) = (records.generation, records.sequence(guard));
        records.admit(now, guard)?;
        let found_none = self.len(space) == 0;
        let outcomes = self.write_all(space, writes);
        let record = self.told(space, guard, found_none, generation, sequence);
        if let Some(records) = self.writers.get_mut(&*whole) {
            records.keep(guard, refusals(&outcomes));
        }
        Ok(Applied { replayed: false, record, outcomes })
    }

    /// What a server tells of a guard where that is not the record of the batch before, or there were no totals.
    fn told(
        &mut self,
        space: &Space,
        guard: &ReplayGuard,
        found_none: bool,
        generation: u64,
        sequence: u64,
    ) -> Option<GuardRecord> {
        let life = self.lives.get_mut(&*space.home()).filter(|_| space.window().is_none());
        let untold = life.is_some_and(|life| std::mem::take(&mut life.untold));
        if sequence != 0 && sequence + 1 == guard.sequence && !found_none && !untold {
            return None;
        }
        self.record(space, generation, sequence)
    }

    /// What expires is not lost, and windows have no life: what tells of their loss is their index.
    fn record(&self, space: &Space, generation: u64, sequence: u64) -> Option<GuardRecord> {
        let totals = if space.window().is_some() { 0 } else { self.life(space) };
        space.idle().is_none().then_some(GuardRecord { generation, totals, sequence })
    }

    fn life(&self, space: &Space) -> u64 {
        self.lives.get(&*space.home()).map_or(0, |life| life.number)
    }

    /// Notes which life the totals are of, after a batch that found so many of them.
    fn note_life(&mut self, space: &Space, had: usize) {
        if space.window().is_some() {
            return;
        }
        let space = &*space.home();
        let number = match self.lives.get(space) {
            None if had > 0 => 0,
            Some(life) if had > 0 || life.holds_nothing => life.number,
            _ => {
                self.latest += 1;
                self.latest
            }
        };
        let zero = |value: &Value| value.number() == Ok(0);
        let holds_nothing = self.spaces.get(space).is_none_or(|counters| {
            counters.is_empty() || counters.len() == 1 && counters.values().all(zero)
        });
        let untold = self.lives.get(space).is_some_and(|life| life.untold);
        self.lives.insert(space.clone(), Life { number, holds_nothing, untold });
    }

    pub(super) fn apply_recorded(
        &mut self,
        now: Duration,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError> {
        let answer = self.answer_once(now, space, lane, |plain, [generation, sequence]| {
            let found_none = plain.len(space) == 0;
            let outcomes = plain.write_all(space, writes);
            let record = plain.told(space, lane, found_none, generation, sequence);
            Answer::Applied(Applied { replayed: false, record, outcomes })
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
        let answer = self.answer_once(now, space, lane, |plain, _| {
            plain.remove_all(space);
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
        run: impl FnOnce(&mut Self, [u64; 2]) -> Answer,
    ) -> Result<Answer, BackendError> {
        let whole = space.home();
        if let Some(lanes) = self.lanes.get(&*whole)
            && let Some(answer) = lanes.first_answer(lane)
        {
            return answer;
        }
        // First: of a request that a window refuses nothing is remembered.
        self.enter(now, space, Takes::Current)?;
        let latest = &mut self.latest;
        let lanes = self.lanes.entry(whole.clone().into_owned());
        let lanes = lanes.or_insert_with(|| numbered(Lanes::lanes(now), latest));
        lanes.admit(now, lane)?;
        let found = [lanes.generation, lanes.sequence(lane)];
        let answer = run(self, found);
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
            self.latest += 1;
            writers.generation = self.latest;
        }
    }

    pub(super) fn has_lanes(&self, space: &Space) -> bool {
        self.lanes.contains_key(space)
    }

    /// Loses what the lanes were answered, and nothing else.
    pub(super) fn lose_lanes(&mut self, now: Duration, space: &Space) {
        let lanes = self.lanes.entry(space.clone()).or_insert_with(|| Lanes::lanes(now));
        lanes.lose(now);
        self.latest += 1;
        lanes.generation = self.latest;
    }

    /// Loses the totals of a space, and nothing else.
    pub(super) fn lose_totals(&mut self, space: &Space) {
        self.spaces.remove(space);
    }

    /// Loses all that is in all spaces.
    pub(super) fn wipe(&mut self) {
        *self = Self { latest: self.latest, ..Self::default() };
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
        self.remove_all(space);
        Ok(())
    }

    fn remove_all(&mut self, space: &Space) {
        let had = self.len(space);
        self.spaces.remove(&*space.place());
        self.note_life(space, had);
    }

    /// Loses all that is in a space.
    pub(super) fn wipe_space(&mut self, space: &Space) {
        self.spaces.retain(|of, _| *of.home() != *space);
        self.windows.wipe_space(space);
        self.lives.remove(space);
        self.writers.remove(space);
        self.lanes.remove(space);
    }

    /// Whether a space has windows that are not over.
    pub(super) fn any_open(&self, now: Duration, space: &Space) -> bool {
        self.windows.any_open(now, &space.home())
    }

    /// Removes what a space that expires holds, and what is remembered. Windows go by their own time; while there are
    /// any, their writers are remembered, and the answer is false.
    pub(super) fn expire_space(&mut self, now: Duration, space: &Space) -> bool {
        self.spaces.remove(space);
        self.lives.remove(space);
        let whole = !self.windows.any_open(now, space);
        if whole {
            self.wipe_space(space);
        }
        whole
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

    /// An addition under a token. It leaves no space that is empty.
    pub(super) fn add(&mut self, space: &Space, key: &RedisKey, count: i64) -> Outcome<Written> {
        let had = self.len(space);
        let counters = self.spaces.entry(space.clone()).or_default();
        let written = write_one(counters, &Write::add(key.clone(), count))?;
        if had < 2 {
            let before = self.lives.get(space).map(|life| life.number);
            self.note_life(space, had);
            if let Some(life) = self.lives.get_mut(space) {
                life.untold |= before.is_some_and(|before| before != life.number);
            }
        }
        Ok(written)
    }

    fn write_all(&mut self, space: &Space, writes: &[Write]) -> Vec<Outcome<Written>> {
        let had = self.len(space);
        let place = space.place();
        let counters = self.spaces.entry(place.clone().into_owned()).or_default();
        let outcomes = writes.iter().map(|write| write_one(counters, write)).collect();
        if counters.is_empty() {
            self.spaces.remove(&*place);
        }
        if had < 2 || writes.iter().any(|write| write.change == Change::Remove) {
            self.note_life(space, had);
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

/// Records that begin a life of their own.
fn numbered<T>(mut records: Records<T>, latest: &mut u64) -> Records<T> {
    *latest += 1;
    records.generation = *latest;
    records
}

fn number(value: Option<&Value>) -> Outcome<i64> {
    value.map_or(Ok(0), Value::number)
}

fn refusals<T>(outcomes: &[Outcome<T>]) -> Refusals {
    let refusal =
        |(index, outcome): (usize, &Outcome<T>)| Some((index, outcome.as_ref().err()?.clone()));
    outcomes.iter().enumerate().filter_map(refusal).collect()
}
