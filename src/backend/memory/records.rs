//! What a space remembers of guarded requests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::backend::{BackendError, ReplayGuard};

/// By how much one step of the clock moves the age of the records at most.
const LONGEST_STEP: Duration = Duration::from_secs(60);
/// How many expired records a new one removes.
const SWEPT: usize = 4;

/// The latest request of each writer, or lane, and `T` of it.
#[derive(Debug)]
pub(super) struct Records<T> {
    /// How long a record is kept after its last use, by the age of the records.
    life: Duration,
    records: BTreeMap<Arc<str>, Record<T>>,
    /// When the age was last looked at.
    seen: Duration,
    age: Duration,
    /// Whether earlier records were lost.
    lost: bool,
    /// Numbers the lives of a store's records.
    pub(super) generation: u64,
}

#[derive(Debug)]
struct Record<T> {
    sequence: u64,
    /// `None` where nothing was kept of it.
    what: Option<T>,
    /// The age of the records then.
    used: Duration,
}

/// What is remembered of a request.
pub(super) enum Remembered<'r, T> {
    Nothing,
    /// It was the latest one.
    Latest(&'r T),
    /// A later one came since.
    Older,
}

impl<T> Records<T> {
    pub(super) fn kept_for(life: Duration, now: Duration) -> Self {
        Self {
            life,
            records: BTreeMap::new(),
            seen: now,
            age: Duration::ZERO,
            lost: false,
            generation: 0,
        }
    }

    pub(super) fn of(&self, guard: &ReplayGuard) -> Remembered<'_, T> {
        match self.records.get(&guard.writer) {
            Some(record) if guard.sequence > record.sequence => Remembered::Nothing,
            Some(record) if guard.sequence == record.sequence => {
                record.what.as_ref().map_or(Remembered::Older, Remembered::Latest)
            }
            Some(_) => Remembered::Older,
            None => Remembered::Nothing,
        }
    }

    /// The latest sequence of its writer; 0 where it is not known.
    pub(super) fn sequence(&self, guard: &ReplayGuard) -> u64 {
        self.records.get(&guard.writer).map_or(0, |record| record.sequence)
    }

    /// Lets in a request of which nothing is remembered.
    pub(super) fn admit(&mut self, now: Duration, guard: &ReplayGuard) -> Result<(), BackendError> {
        self.age += now.saturating_sub(self.seen).min(LONGEST_STEP);
        self.seen = now;
        self.lost &= self.age <= self.life;
        if self.records.contains_key(&guard.writer) {
            return Ok(());
        }
        if self.lost && guard.resent {
            return Err(BackendError::Forgotten);
        }
        let expired = self.records.iter().filter(|(_, kept)| self.age - kept.used > self.life);
        let expired: Vec<_> = expired.map(|(id, _)| Arc::clone(id)).take(SWEPT).collect();
        expired.iter().for_each(|id| drop(self.records.remove(id)));
        Ok(())
    }

    pub(super) fn keep(&mut self, guard: &ReplayGuard, what: T) {
        let record = Record { sequence: guard.sequence, what: Some(what), used: self.age };
        self.records.insert(Arc::clone(&guard.writer), record);
    }

    /// The request failed, and uses up no sequence; but its writer is known from now on.
    pub(super) fn keep_failed(&mut self, guard: &ReplayGuard) {
        let record =
            Record { sequence: guard.sequence.saturating_sub(1), what: None, used: self.age };
        self.records.entry(Arc::clone(&guard.writer)).or_insert(record);
    }

    /// Loses all of them, and knows so.
    pub(super) fn lose(&mut self, now: Duration) {
        *self = Self { lost: true, ..Self::kept_for(self.life, now) };
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }
}

/// The answers of a space's lanes.
pub(super) type Lanes<T> = Records<T>;

/// How long the answer of a lane is kept after its last use.
const LANE_LIFE: Duration = Duration::from_secs(60 * 60);

impl<T: Clone> Lanes<T> {
    pub(super) fn lanes(now: Duration) -> Self {
        Self::kept_for(LANE_LIFE, now)
    }

    /// The answer that the request got first, if it is the latest one of its lane.
    pub(super) fn first_answer(&self, lane: &ReplayGuard) -> Option<Result<T, BackendError>> {
        match self.of(lane) {
            Remembered::Nothing => None,
            Remembered::Latest(answer) => Some(Ok(answer.clone())),
            Remembered::Older => {
                Some(Err(BackendError::answer_lost("the answer is not kept any more")))
            }
        }
    }
}

/// The lane had carried another kind of request under this sequence.
pub(super) fn reused() -> BackendError {
    BackendError::answer_lost("the sequence was used for another request")
}
