use std::collections::BTreeMap;

use super::fixture::{kept, wrote};
use crate::{
    CounterComparator, RedisKey,
    backend::{Change, Outcome, Refusal, Write, Written},
};

const P53: i64 = 1 << 53;

/// Values at which stores get arithmetic, comparison or formatting wrong: the ends of the range, both
/// sides of where doubles stop telling integers apart, and where `%.14g` starts to round.
pub(super) const EDGES: [i64; 22] = [
    i64::MIN,
    i64::MIN + 1,
    -(1 << 62) - 1,
    -P53 - 2,
    -P53 - 1,
    -P53,
    -P53 + 1,
    -100_000_000_000_001,
    -1,
    0,
    1,
    99_999_999_999_999,
    100_000_000_000_000,
    1_000_000_000_000_001,
    P53 - 1,
    P53,
    P53 + 1,
    P53 + 2,
    123_456_789_012_345_678,
    (1 << 62) + 1,
    i64::MAX - 1,
    i64::MAX,
];

/// The contract's arithmetic on one space.
#[derive(Default)]
pub(super) struct Model {
    values: BTreeMap<RedisKey, i64>,
}

impl Model {
    pub(super) fn total(&self, key: &RedisKey) -> i64 {
        self.values.get(key).copied().unwrap_or(0)
    }

    pub(super) fn apply(&mut self, writes: &[Write]) -> Vec<Outcome<Written>> {
        writes.iter().map(|write| self.write(write)).collect()
    }

    fn write(&mut self, write: &Write) -> Outcome<Written> {
        let old = self.total(&write.key);
        let met = match write.condition {
            CounterComparator::Eq(operand) => old == operand,
            CounterComparator::Ne(operand) => old != operand,
            CounterComparator::Lt(operand) => old < operand,
            CounterComparator::Gt(operand) => old > operand,
            CounterComparator::Le(operand) => old <= operand,
            CounterComparator::Ge(operand) => old >= operand,
            CounterComparator::Nil => true,
        };
        if !met {
            return kept(old);
        }
        let new = match write.change {
            Change::Add(count) => old.checked_add(count).ok_or(Refusal::Overflow)?,
            Change::Set(count) => count,
            Change::AddWithin { least, most, .. } if least > most => old,
            Change::AddWithin { count, most, .. } if count > 0 => {
                old.saturating_add(count).min(most).max(old)
            }
            Change::AddWithin { count, least, .. } => old.saturating_add(count).max(least).min(old),
            Change::Remove => {
                self.values.remove(&write.key);
                return wrote(old, 0);
            }
        };
        if new != old || !matches!(write.change, Change::AddWithin { .. }) {
            self.values.insert(write.key.clone(), new);
        }
        wrote(old, new)
    }

    pub(super) fn remove(&mut self, keys: &[RedisKey]) -> Vec<i64> {
        keys.iter().map(|key| self.values.remove(key).unwrap_or(0)).collect()
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
    }
}

/// The same numbers on every run, so that a failure repeats.
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit` (splitmix64).
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
