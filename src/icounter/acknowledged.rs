use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use foldhash::fast::RandomState;

use crate::{
    RedisKey,
    backend::{Epoch, Outcome, Slice, Standing},
};

/// The slices of an instance as the store has last acknowledged them: what it brings when it joins again.
///
/// An empty slice is kept for a while, because an answer that the store gave before it became empty may yet
/// come in, and would be taken for the latest.
#[derive(Default)]
pub(super) struct Acknowledged {
    slices: HashMap<RedisKey, Known, RandomState>,
    /// Held by the operations in flight that have begun since the slices were last marked.
    later: UnderWay,
    /// Held by those that had begun before.
    earlier: Weak<()>,
}

/// Held by an operation until its answer is noted.
pub(super) type UnderWay = Arc<()>;

#[derive(Clone, Copy)]
struct Known {
    epoch: Epoch,
    value: i64,
    version: u64,
    /// It has been empty since the slices were last marked.
    marked: bool,
}

impl Acknowledged {
    /// An operation begins.
    pub(super) fn begin(&self) -> UnderWay {
        Arc::clone(&self.later)
    }

    pub(super) fn note(&mut self, key: &RedisKey, version: u64, standing: &Standing) {
        let (epoch, value) = (standing.epoch, standing.slice);
        let seen = Known { epoch, value, version, marked: false };
        match self.slices.get_mut(key) {
            Some(known) if known.version <= version => *known = seen,
            Some(_) => {}
            None => {
                self.slices.insert(key.clone(), seen);
            }
        }
    }

    pub(super) fn note_read(&mut self, key: &RedisKey, version: u64, standing: &Standing) {
        if standing.slice != 0 || self.slices.contains_key(key) {
            self.note(key, version, standing);
        }
    }

    pub(super) fn claim(&self) -> Vec<Slice> {
        let mut claim: Vec<_> = self
            .slices
            .iter()
            .filter(|(_, known)| known.value != 0)
            .map(|(key, known)| Slice { key: key.clone(), epoch: known.epoch, value: known.value })
            .collect();
        // A simulation must not show the order of a hash map.
        claim.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        claim
    }

    /// Takes in the answer to a claim, with no operation in flight.
    pub(super) fn restored(&mut self, claim: &[Slice], standings: &[Outcome<Standing>]) {
        self.slices.clear();
        for (slice, standing) in claim.iter().zip(standings) {
            let (epoch, value) = match standing {
                Ok(standing) => (standing.epoch, standing.slice),
                Err(_) => (slice.epoch, slice.value),
            };
            if value != 0 {
                let known = Known { epoch, value, version: 0, marked: false };
                self.slices.insert(slice.key.clone(), known);
            }
        }
    }

    /// Forgets all slices, with no operation in flight.
    pub(super) fn clear(&mut self) {
        self.slices.clear();
    }

    /// Drops the slices that have been empty since they were marked, once all operations from before that
    /// have ended, and marks those that are empty now. To be called again and again.
    pub(super) fn forget_empty(&mut self) {
        if self.earlier.strong_count() > 0 {
            return;
        }
        self.slices.retain(|_, known| !known.marked);
        for known in self.slices.values_mut() {
            known.marked = known.value == 0;
        }
        self.earlier = Arc::downgrade(&std::mem::take(&mut self.later));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(slice: i64) -> Standing {
        Standing { total: slice, slice, epoch: Epoch(1) }
    }

    #[test]
    fn empty_slices_are_forgotten_although_operations_are_always_under_way() {
        let mut slices = Acknowledged::default();
        let held = RedisKey::try_from("held").unwrap();
        slices.note(&held, 1, &standing(7));
        let mut under_way = slices.begin();
        for version in 2..1000 {
            let next = slices.begin();
            let key = RedisKey::try_from(format!("job-{version}")).unwrap();
            slices.note(&key, version, &standing(0));
            drop(std::mem::replace(&mut under_way, next));
            slices.forget_empty();
            assert!(slices.slices.len() <= 4, "{}", slices.slices.len());
        }
        let claim = slices.claim();
        assert_eq!(claim, [Slice { key: held, epoch: Epoch(1), value: 7 }]);
    }

    #[test]
    fn an_answer_however_late_does_not_bring_an_old_slice_back() {
        let mut slices = Acknowledged::default();
        let key = RedisKey::try_from("job").unwrap();
        for marks_before in 0..3 {
            (0..marks_before).for_each(|_| slices.forget_empty());
            let late = slices.begin();
            let in_time = slices.begin();
            slices.note(&key, 8, &standing(0));
            drop(in_time);
            (0..5).for_each(|_| slices.forget_empty());
            slices.note(&key, 7, &standing(3));
            assert_eq!(slices.claim(), []);
            drop(late);
            (0..3).for_each(|_| slices.forget_empty());
            assert_eq!(slices.slices.len(), 0);
        }
    }

    #[test]
    fn a_slice_that_is_no_longer_empty_is_not_forgotten() {
        let mut slices = Acknowledged::default();
        let key = RedisKey::try_from("job").unwrap();
        slices.note(&key, 1, &standing(0));
        slices.forget_empty();
        slices.note(&key, 2, &standing(5));
        (0..3).for_each(|_| slices.forget_empty());
        assert_eq!(slices.claim(), [Slice { key, epoch: Epoch(1), value: 5 }]);
    }
}
