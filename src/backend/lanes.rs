//! Guards for requests that may be sent a second time.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::backend::ReplayGuard;

/// A lane that was idle for longer is not used again: the store keeps its record for an hour only.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// The lanes of one store. A lane carries one operation at a time and numbers what it carries, so that
/// the server recognises an operation that it has already answered.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    process: OnceLock<Arc<str>>,
    opened: AtomicU64,
    /// The one that was acknowledged last is the last, and the next to be used: where a replica that was behind takes
    /// a server's place, the first answer then tells of it.
    idle: Mutex<Vec<Lane>>,
}

#[derive(Debug)]
struct Lane {
    id: Arc<str>,
    sequence: u64,
    acknowledged: Option<Acknowledged>,
    used: Instant,
}

/// The latest operation of a lane that the server acknowledged.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "counter"), allow(dead_code, reason = "plain counters look for losses"))]
pub(crate) struct Acknowledged {
    pub(crate) sequence: u64,
    /// When it was sent.
    pub(crate) sent: Instant,
}

/// A lane in use for one operation; it is free again when this is dropped.
///
/// It is free also after an operation whose outcome stayed unknown: should the client still send that
/// one, the server either applies it once or finds a later operation in the record and skips it.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    lanes: &'a Lanes,
    id: Arc<str>,
    sequence: u64,
    acknowledged: Option<Acknowledged>,
}

impl Lanes {
    pub(crate) fn take(&self, fresh_id: impl FnOnce() -> Arc<str>) -> Ticket<'_> {
        let idle = {
            let mut idle = self.idle.lock();
            // Those that were used since were not acknowledged.
            if idle.last().is_some_and(|lane| lane.used.elapsed() > IDLE) {
                idle.clear();
            }
            idle.pop()
        };
        let (id, sequence, acknowledged) = match idle {
            Some(lane) => (lane.id, lane.sequence, lane.acknowledged),
            None => {
                let process = self.process.get_or_init(fresh_id);
                let number = self.opened.fetch_add(1, Ordering::Relaxed);
                (format!("{process}:{number}").into(), 0, None)
            }
        };
        Ticket { lanes: self, id, sequence: sequence + 1, acknowledged }
    }
}

impl Ticket<'_> {
    /// What guards the operation. That it is sent again is up to the client.
    pub(crate) fn guard(&self) -> ReplayGuard {
        ReplayGuard { writer: Arc::clone(&self.id), sequence: self.sequence, resent: false }
    }
}

#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
impl Ticket<'_> {
    /// The operation was sent then, and answered. Gives the one that was before it.
    pub(crate) fn acknowledge(&mut self, sent: Instant) -> Option<Acknowledged> {
        self.acknowledged.replace(Acknowledged { sequence: self.sequence, sent })
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let id = Arc::clone(&self.id);
        let (sequence, acknowledged) = (self.sequence, self.acknowledged);
        let lane = Lane { id, sequence, acknowledged, used: Instant::now() };
        let since = |lane: &Lane| lane.acknowledged.map(|acknowledged| acknowledged.sent);
        let mut idle = self.lanes.idle.lock();
        let place = idle.partition_point(|other| since(other) <= since(&lane));
        idle.insert(place, lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_was_idle_for_long_is_not_used_again() {
        let lanes = Lanes::default();
        let take = || lanes.take(|| "p".into());
        drop((take(), take()));
        tokio::time::advance(IDLE).await;
        assert_eq!(&*take().id, "p:1");
        tokio::time::advance(IDLE + Duration::from_millis(1)).await;
        let ticket = take();
        assert_eq!((&*ticket.id, ticket.sequence), ("p:2", 1), "the other one is not used either");
    }

    #[tokio::test(start_paused = true)]
    async fn the_lane_that_was_acknowledged_last_goes_first() {
        let lanes = Lanes::default();
        let take = || lanes.take(|| "p".into());
        let (mut first, mut second) = (take(), take());
        first.acknowledge(Instant::now());
        tokio::time::advance(Duration::from_millis(1)).await;
        second.acknowledge(Instant::now());
        drop(second);
        drop(first);
        // Neither fails in the order of their acknowledgements.
        let (second, first) = (take(), take());
        assert_eq!((&*second.id, &*first.id), ("p:1", "p:0"));
        drop(second);
        drop(first);
        assert_eq!(&*take().id, "p:1");
    }

    #[test]
    fn a_lane_carries_one_operation_at_a_time_and_never_the_same_number_twice() {
        let lanes = Lanes::default();
        let take = || lanes.take(|| "p".into());
        let (first, second) = (take(), take());
        assert_ne!(first.id, second.id);
        drop(first);
        let third = take();
        assert_eq!((&*third.id, third.sequence), ("p:0", 2));
    }
}
