//! Guards for what a client may send a second time by itself.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

/// The lanes of one store. A lane carries one operation at a time and numbers what it carries, so that
/// the server recognises an operation that it has already answered.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    process: OnceLock<Arc<str>>,
    opened: AtomicU64,
    idle: Mutex<Vec<Lane>>,
}

#[derive(Debug)]
struct Lane {
    number: u64,
    sequence: u64,
}

/// A lane in use for one operation; it is free again when this is dropped.
///
/// It is free also after an operation whose outcome stayed unknown: should the client still send that
/// one, the server either applies it once or finds a later operation in the record and skips it.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    lanes: &'a Lanes,
    pub(crate) process: Arc<str>,
    pub(crate) number: u64,
    pub(crate) sequence: u64,
}

impl Lanes {
    pub(crate) fn take(&self, fresh_id: impl FnOnce() -> Arc<str>) -> Ticket<'_> {
        let process = self.process.get_or_init(fresh_id).clone();
        let lane = self.idle.lock().pop().unwrap_or_else(|| Lane {
            number: self.opened.fetch_add(1, Ordering::Relaxed),
            sequence: 0,
        });
        Ticket { lanes: self, process, number: lane.number, sequence: lane.sequence + 1 }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.lanes.idle.lock().push(Lane { number: self.number, sequence: self.sequence });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_carries_one_operation_at_a_time_and_never_the_same_number_twice() {
        let lanes = Lanes::default();
        let take = || lanes.take(|| "p".into());
        let (first, second) = (take(), take());
        assert_ne!(first.number, second.number);
        drop(first);
        let third = take();
        assert_eq!((third.number, third.sequence), (0, 2));
    }
}
