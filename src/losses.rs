//! Finds out, from what a store answers, that it lost data.
//!
//! A server that was emptied, that evicted a part of a space, or whose place a replica took that was behind, answers
//! as if nothing had happened. Its records tell: each has the life that it is of, and the latest sequence of its guard.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::backend::{GuardRecord, ReplayGuard, lanes::Acknowledged};

/// What a store lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The totals of a space and its records.
    Everything,
    Totals,
    /// Those of guards, and perhaps more.
    Records,
    /// As in a failover to a replica that was behind.
    LatestWrites,
    /// Those of a space of instance-aware counters, or a part of them.
    Slices,
}

impl Lost {
    /// For the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Totals => "totals",
            Self::Records => "records",
            Self::LatestWrites => "latest writes",
            Self::Slices => "slices",
        }
    }
}

/// A loss, and since when it can have happened, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) what: Lost,
    pub(crate) since: Option<Instant>,
}

/// A store keeps the records of lanes for an hour, those of writers for a day. One that is missing for less than half
/// of that was lost.
const LANE: Duration = Duration::from_secs(30 * 60);
const WRITER: Duration = Duration::from_secs(12 * 60 * 60);

/// Writers of more engines than this are looked through for some that have ended.
const MANY: usize = 64;

/// What is known of a space's records.
#[derive(Default)]
pub(crate) struct Losses(Mutex<Known>);

#[derive(Default)]
struct Known {
    generation: Option<u64>,
    totals: Option<u64>,
    born: Option<u64>,
    writers: HashMap<Arc<str>, Acknowledged>,
    /// When the latest loss was noticed. What was acknowledged before it is of the same one.
    noticed: Option<Instant>,
}

impl Losses {
    /// Looks at what an answer in a lane tells, in which `before` was acknowledged last.
    pub(crate) fn in_lane(
        &self,
        record: Option<&GuardRecord>,
        before: Option<Acknowledged>,
    ) -> Option<Loss> {
        // Nothing to tell: no lock on the way that most requests take.
        self.0.lock().look(record?, before, LANE)
    }

    /// The same for a writer's batch that was sent then.
    pub(crate) fn of_writer(
        &self,
        guard: &ReplayGuard,
        sent: Instant,
        record: Option<&GuardRecord>,
    ) -> Option<Loss> {
        let mut known = self.0.lock();
        if known.writers.len() > MANY {
            known.writers.retain(|_, acknowledged| acknowledged.sent.elapsed() < WRITER);
        }
        let acknowledged = Acknowledged { sequence: guard.sequence, sent };
        let before = known.writers.insert(Arc::clone(&guard.writer), acknowledged);
        known.look(record?, before, WRITER)
    }

    /// The store has no record of a request that it may have answered before.
    pub(crate) fn forgotten(&self) -> Option<Loss> {
        let mut known = self.0.lock();
        // Once for all that was in doubt: the next answer tells of another generation.
        let counts = known.generation.take().is_some() || known.noticed.is_none();
        counts.then(|| known.noticed(Lost::Records, None))
    }

    /// The instance joined a space of that life. What was sent then was the last that it was answered.
    pub(crate) fn joined(&self, born: Option<u64>, since: Option<Instant>) -> Option<Loss> {
        let mut known = self.0.lock();
        let before = known.born;
        known.born = before.max(born);
        (before.is_some() && born > before).then(|| known.noticed(Lost::Slices, since))
    }

    /// The store took back what it had answered an instance, which sent the last of that then.
    pub(crate) fn went_back(&self, since: Option<Instant>) -> Loss {
        self.0.lock().noticed(Lost::LatestWrites, since)
    }
}

impl Known {
    fn look(
        &mut self,
        record: &GuardRecord,
        before: Option<Acknowledged>,
        kept: Duration,
    ) -> Option<Loss> {
        // Lives are numbered upwards. An answer that is overtaken by others is of an older one.
        let records = newer(&mut self.generation, record.generation);
        let totals = newer(&mut self.totals, record.totals);
        let behind = before.filter(|before| {
            let missing = record.sequence == 0;
            record.sequence < before.sequence
                && !(missing && before.sent.elapsed() > kept)
                && self.noticed.is_none_or(|noticed| before.sent > noticed)
        });
        let what = match (records, totals) {
            (true, true) => Lost::Everything,
            (false, true) => Lost::Totals,
            (true, false) => Lost::Records,
            (false, false) if behind.is_some() => Lost::LatestWrites,
            (false, false) => return None,
        };
        Some(self.noticed(what, before.map(|before| before.sent)))
    }

    fn noticed(&mut self, what: Lost, since: Option<Instant>) -> Loss {
        self.noticed = Some(Instant::now());
        Loss { what, since }
    }
}

/// Notes the life that an answer tells of. Whether it is newer than the one that was known.
fn newer(known: &mut Option<u64>, told: u64) -> bool {
    let before = *known;
    *known = before.max(Some(told));
    before.is_some_and(|before| told > before)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn record(generation: u64, totals: u64, sequence: u64) -> GuardRecord {
        GuardRecord { generation, totals, sequence }
    }

    fn acknowledged(sequence: u64) -> Option<Acknowledged> {
        Some(Acknowledged { sequence, sent: Instant::now() })
    }

    fn what(loss: Option<Loss>) -> Option<Lost> {
        loss.map(|loss| loss.what)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_of_a_process_tells_of_no_loss() {
        let losses = Losses::default();
        assert_eq!(losses.in_lane(Some(&record(7, 3, 0)), None), None);
        assert_eq!(losses.in_lane(Some(&record(7, 3, 0)), None), None, "another lane");
        assert_eq!(losses.joined(Some(4), None), None);
        assert_eq!(losses.joined(Some(4), None), None, "it was collected");
    }

    #[tokio::test(start_paused = true)]
    async fn each_loss_is_noticed_once_however_many_lanes_there_are() {
        let losses = Losses::default();
        let lanes = [3, 8, 2].map(acknowledged);
        assert_eq!(losses.in_lane(Some(&record(7, 3, 0)), None), None);
        tokio::time::advance(SECOND).await;
        let first = losses.in_lane(Some(&record(9, 9, 0)), lanes[0]).unwrap();
        assert_eq!(first, Loss { what: Lost::Everything, since: lanes[0].map(|lane| lane.sent) });
        for lane in &lanes[1..] {
            assert_eq!(losses.in_lane(Some(&record(9, 9, 0)), *lane), None);
        }
        // An answer that was overtaken.
        assert_eq!(losses.in_lane(Some(&record(7, 3, 2)), acknowledged(2)), None);
        tokio::time::advance(SECOND).await;
        let lanes = [9, 1].map(acknowledged);
        tokio::time::advance(SECOND).await;
        assert_eq!(
            what(losses.in_lane(Some(&record(9, 9, 8)), lanes[0])),
            Some(Lost::LatestWrites)
        );
        assert_eq!(losses.in_lane(Some(&record(9, 9, 0)), lanes[1]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_told_from_the_whole() {
        let losses = Losses::default();
        losses.in_lane(Some(&record(7, 3, 0)), None);
        assert_eq!(what(losses.in_lane(Some(&record(8, 3, 0)), None)), Some(Lost::Records));
        assert_eq!(what(losses.in_lane(Some(&record(8, 4, 5)), None)), Some(Lost::Totals));
        assert_eq!(what(losses.joined(Some(4), None)), None);
        assert_eq!(what(losses.joined(Some(6), None)), Some(Lost::Slices));
    }

    #[tokio::test(start_paused = true)]
    async fn totals_of_unknown_life_are_lost_for_those_alone_that_knew_them() {
        let losses = Losses::default();
        losses.in_lane(Some(&record(7, 0, 0)), None);
        assert_eq!(what(losses.in_lane(Some(&record(7, 4, 0)), None)), Some(Lost::Totals));
        // The shape was lost, and not the totals.
        assert_eq!(losses.in_lane(Some(&record(7, 0, 0)), None), None);
        assert_eq!(what(losses.in_lane(Some(&record(7, 5, 0)), None)), Some(Lost::Totals));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_was_swept_was_not_lost() {
        let losses = Losses::default();
        losses.in_lane(Some(&record(7, 3, 0)), None);
        let old = acknowledged(4);
        tokio::time::advance(LANE + SECOND).await;
        assert_eq!(losses.in_lane(Some(&record(7, 3, 0)), old), None);
        let guard = ReplayGuard { writer: "w".into(), sequence: 1, resent: false };
        assert_eq!(losses.of_writer(&guard, Instant::now(), None), None);
        tokio::time::advance(WRITER + SECOND).await;
        assert_eq!(losses.of_writer(&guard, Instant::now(), Some(&record(7, 3, 0))), None);
        tokio::time::advance(SECOND).await;
        let lost = losses.of_writer(&guard, Instant::now(), Some(&record(7, 3, 0)));
        assert_eq!(what(lost), Some(Lost::LatestWrites));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_in_doubt_are_one_loss_with_the_records_that_are_gone() {
        let losses = Losses::default();
        losses.in_lane(Some(&record(7, 3, 0)), None);
        let before = acknowledged(4);
        tokio::time::advance(SECOND).await;
        assert_eq!(what(losses.forgotten()), Some(Lost::Records));
        assert_eq!(losses.forgotten(), None);
        assert_eq!(losses.in_lane(Some(&record(9, 3, 0)), before), None);
        assert_eq!(what(losses.forgotten()), Some(Lost::Records), "a later one");
    }
}
