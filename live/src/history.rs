//! The samples of the last minutes, for pages that are opened later.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde::Serialize;

use crate::roster::Event;

/// What one poll of the store found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// When, in milliseconds of Unix time, by this process's clock.
    pub(crate) at_ms: u64,
    /// The connections of all living instances; `None` where the store did not answer.
    pub(crate) total: Option<i64>,
    /// Those of each instance, by its name or id.
    pub(crate) slices: BTreeMap<String, i64>,
    /// What happened since the previous poll that succeeded.
    pub(crate) events: Vec<Event>,
    /// Why there is no total.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// A ring of samples, numbered from 0 on.
#[derive(Debug)]
pub(crate) struct History {
    samples: VecDeque<Arc<Sample>>,
    capacity: usize,
    /// The number of the next sample.
    next: u64,
}

impl History {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { samples: VecDeque::new(), capacity: capacity.max(1), next: 0 }
    }

    /// Adds a sample. A full ring drops its oldest one.
    pub(crate) fn push(&mut self, sample: Sample) {
        if self.samples.len() == self.capacity {
            self.samples.pop_front();
        }
        self.samples.push_back(Arc::new(sample));
        self.next += 1;
    }

    pub(crate) fn latest(&self) -> Option<&Arc<Sample>> {
        self.samples.back()
    }

    /// The samples from this number on that are still there, and the number to ask with next time.
    /// A slow reader gets everything it missed, and delays no other reader.
    pub(crate) fn since(&self, number: u64) -> (Vec<Arc<Sample>>, u64) {
        let fresh = usize::try_from(self.next.saturating_sub(number)).unwrap_or(usize::MAX);
        let skipped = self.samples.len().saturating_sub(fresh);
        (self.samples.iter().skip(skipped).cloned().collect(), self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64) -> Sample {
        let (slices, events) = (BTreeMap::new(), Vec::new());
        Sample { at_ms, total: Some(0), slices, events, error: None }
    }

    fn times(samples: &[Arc<Sample>]) -> Vec<u64> {
        samples.iter().map(|sample| sample.at_ms).collect()
    }

    #[test]
    fn a_reader_gets_each_sample_once_and_the_oldest_are_dropped() {
        let mut history = History::new(3);
        assert_eq!(history.since(0), (Vec::new(), 0));
        history.push(sample(10));
        history.push(sample(20));
        let (samples, next) = history.since(0);
        assert_eq!(times(&samples), [10, 20]);
        assert_eq!(history.since(next), (Vec::new(), 2));

        for at_ms in [30, 40, 50] {
            history.push(sample(at_ms));
        }
        let (samples, next) = history.since(next);
        assert_eq!((&*times(&samples), next), (&[30, 40, 50][..], 5));
        history.push(sample(60));
        // Slower than the ring is long: what the ring still has.
        let (samples, _) = history.since(1);
        assert_eq!(times(&samples), [40, 50, 60]);
        assert_eq!(history.latest().unwrap().at_ms, 60);
    }
}
