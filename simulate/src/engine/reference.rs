//! What must be in the store, from nothing but what callers were told: one small type for each way in which
//! a counter is used.

use std::collections::{BTreeMap, BTreeSet};

/// An instance's part of a key that is only added to, through a lax counter: exactly the sum of what was
/// acknowledged, as it was a moment ago.
#[derive(Default)]
pub(crate) struct Buffered {
    /// The sum, and since when it is that.
    sums: Vec<(u64, i64)>,
}

impl Buffered {
    pub(crate) fn sum(&self) -> i64 {
        self.sums.last().map_or(0, |(_, sum)| *sum)
    }

    pub(crate) fn add(&mut self, now: u64, count: i64) {
        if self.sums.is_empty() {
            self.sums.push((0, 0));
        }
        self.sums.push((now, self.sum() + count));
    }

    /// Whether the sum was `value` at any time from `since` on.
    pub(crate) fn was(&self, value: i64, since: u64) -> bool {
        let ended = self.sums.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
        self.sums.is_empty() && value == 0
            || self.sums.iter().zip(ended).any(|((_, sum), end)| *sum == value && end >= since)
    }

    pub(crate) fn forget_before(&mut self, time: u64) {
        let current = self.sums.iter().rposition(|(at, _)| *at < time).unwrap_or(0);
        self.sums.drain(..current);
    }
}

/// An instance's part of a key that is only added to, through a strict counter.
#[derive(Debug)]
pub(crate) struct Direct {
    possible: BTreeSet<i64>,
    under_way: Option<i64>,
}

impl Default for Direct {
    fn default() -> Self {
        Self { possible: BTreeSet::from([0]), under_way: None }
    }
}

impl Direct {
    pub(crate) fn begin(&mut self, count: i64) {
        self.under_way = Some(count);
    }

    /// The caller was told that the slice is now `slice`. False when that cannot be.
    pub(crate) fn answered(&mut self, slice: i64) -> bool {
        let count = self.under_way.take().unwrap_or(0);
        let right = self.possible.iter().any(|value| value + count == slice);
        self.possible = BTreeSet::from([slice]);
        right
    }

    pub(crate) fn failed(&mut self, may_have_happened: bool) {
        if let Some(count) = self.under_way.take()
            && may_have_happened
        {
            self.possible.extend(self.possible.clone().iter().map(|value| value + count));
        }
    }

    pub(crate) fn may_be(&self, value: i64) -> bool {
        let sum = self.under_way.map(|count| value - count);
        self.possible.contains(&value) || sum.is_some_and(|sum| self.possible.contains(&sum))
    }
}

/// One write to a part of a key that others may set or delete.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Add(i64),
    Replace(i64),
    /// Its outcome is unknown.
    MaybeAdd(i64),
    MaybeReplace(i64),
}

/// An instance's part of a key that everybody also sets, deletes and clears.
#[derive(Debug)]
pub(crate) struct Contended {
    /// Whether writes may reach the store after they were acknowledged, and so after another's `set`.
    buffers: bool,
    /// What the part may have been before the steps.
    bases: BTreeSet<i64>,
    steps: Vec<Step>,
    /// Somebody's `set` or `del` may have taken what the store held before any of the steps.
    wiped: bool,
    pub(crate) used_at: u64,
    /// Whatever the store holds next is right.
    pub(crate) adopts: bool,
}

impl Contended {
    pub(crate) fn new(buffers: bool) -> Self {
        let (bases, steps) = (BTreeSet::from([0]), Vec::new());
        Self { buffers, bases, steps, wiped: false, used_at: 0, adopts: false }
    }

    pub(crate) fn is(&mut self, value: i64) {
        self.bases = BTreeSet::from([value]);
        self.steps.clear();
        self.wiped = false;
        self.adopts = false;
    }

    pub(crate) fn step(&mut self, step: Step) {
        if let Step::Replace(_) = step {
            self.is(0);
        }
        self.steps.push(step);
    }

    /// Another instance's `set`, `del` or `clear`.
    pub(crate) fn wipe(&mut self, certainly: bool) {
        self.wiped = true;
        if certainly {
            self.bases.clear();
            if !self.buffers {
                self.is(0);
            }
        }
    }

    pub(crate) fn values(&self) -> BTreeSet<i64> {
        let mut values = run(self.bases.clone(), &self.steps);
        if self.wiped {
            for from in 0..=self.steps.len() {
                values.extend(run(BTreeSet::from([0]), &self.steps[from..]));
            }
        }
        values
    }

    /// All steps are known to be in the store, which holds `value`. What the caller was not told of stays
    /// in doubt: it is not what the instance brings when it comes back.
    pub(crate) fn seen(&mut self, value: i64) {
        if self.steps.iter().all(|step| matches!(step, Step::Add(_) | Step::Replace(_))) {
            self.is(value);
        }
    }
}

fn run(bases: BTreeSet<i64>, steps: &[Step]) -> BTreeSet<i64> {
    steps.iter().fold(bases, |values, step| match *step {
        Step::Add(count) => values.iter().map(|value| value + count).collect(),
        Step::MaybeAdd(count) => values.iter().flat_map(|value| [*value, value + count]).collect(),
        Step::Replace(_) if values.is_empty() => values,
        Step::Replace(count) => BTreeSet::from([count]),
        Step::MaybeReplace(count) => values.iter().flat_map(|value| [*value, count]).collect(),
    })
}

/// The total of a plain counter to which everybody adds positive numbers.
#[derive(Default)]
pub(crate) struct Plain {
    /// What is certainly in the store.
    least: i64,
    /// What may be in the store, beyond that: the last writes of crashed processes, and those whose reply got lost.
    doubtful: i64,
    under_way: i64,
    /// What was acknowledged by a lax counter and may be on its way, for each process.
    pending: BTreeMap<u32, Vec<Pending>>,
}

struct Pending {
    at: u64,
    count: i64,
    /// The store lost its data since, and perhaps this with it.
    doubtful: bool,
}

impl Plain {
    pub(crate) fn buffer(&mut self, process: u32, now: u64, count: i64) {
        let write = Pending { at: now, count, doubtful: false };
        self.pending.entry(process).or_default().push(write);
    }

    /// What the process wrote before `time` is in the store.
    pub(crate) fn arrived(&mut self, process: u32, time: u64) {
        let Some(pending) = self.pending.get_mut(&process) else { return };
        let arrived = pending.partition_point(|write| write.at < time);
        for write in pending.drain(..arrived) {
            let sum = if write.doubtful { &mut self.doubtful } else { &mut self.least };
            *sum += write.count;
        }
    }

    /// Nobody will know what became of the process's last writes.
    pub(crate) fn died(&mut self, process: u32) {
        let pending = self.pending.remove(&process).unwrap_or_default();
        self.doubtful += pending.iter().map(|write| write.count).sum::<i64>();
    }

    pub(crate) fn begin(&mut self, count: i64) {
        self.under_way += count;
    }

    /// `None` when nobody knows whether it happened.
    pub(crate) fn end(&mut self, count: i64, happened: Option<bool>) {
        self.under_way -= count;
        match happened {
            Some(true) => self.least += count,
            Some(false) => {}
            None => self.doubtful += count,
        }
    }

    /// The store lost its data.
    pub(crate) fn lost(&mut self) {
        self.pending.values_mut().flatten().for_each(|write| write.doubtful = true);
        self.doubtful = 0;
        self.least = 0;
    }

    /// The least and the greatest that the store may hold.
    pub(crate) fn range(&self) -> (i64, i64) {
        (self.least, self.least + self.doubtful + self.moving())
    }

    /// The store holds `total`, which is in range: what is in doubt has arrived or never will.
    pub(crate) fn seen(&mut self, total: i64) {
        let most = self.doubtful.min(total - self.least);
        let least = (total - self.least - self.moving()).max(0);
        self.least += least;
        self.doubtful = most - least;
    }

    fn moving(&self) -> i64 {
        self.under_way + self.pending.values().flatten().map(|write| write.count).sum::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_counts_for_as_long_as_it_was_current() {
        let mut part = Buffered::default();
        part.add(10, 5);
        part.add(20, 2);
        assert!(part.was(0, 10) && !part.was(0, 11));
        assert!(part.was(5, 20) && !part.was(5, 21) && part.was(7, 1000));
        part.forget_before(20);
        assert!(!part.was(0, 0) && part.was(5, 0));
    }

    #[test]
    fn a_buffered_write_may_come_after_anothers_set() {
        let mut part = Contended::new(true);
        part.is(100);
        part.step(Step::Add(1));
        part.step(Step::Add(2));
        assert_eq!(part.values(), BTreeSet::from([103]));
        part.wipe(true);
        assert_eq!(part.values(), BTreeSet::from([0, 2, 3]));
        part.step(Step::Replace(50));
        assert_eq!(part.values(), BTreeSet::from([50]));
    }

    #[test]
    fn a_write_of_unknown_outcome_leaves_two_values_until_it_is_answered() {
        let mut part = Direct::default();
        part.begin(5);
        part.failed(true);
        assert!(part.may_be(0) && part.may_be(5) && !part.may_be(10));
        part.begin(1);
        assert!(part.answered(6) && part.may_be(6) && !part.may_be(1));
    }

    #[test]
    fn what_a_crashed_process_did_not_flush_is_in_doubt() {
        let mut total = Plain::default();
        total.buffer(1, 10, 5);
        total.buffer(2, 10, 7);
        assert_eq!(total.range(), (0, 12));
        total.arrived(1, 20);
        total.died(2);
        assert_eq!(total.range(), (5, 12));
        total.seen(9);
        assert_eq!(total.range(), (9, 9));
    }
}
