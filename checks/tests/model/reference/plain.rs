use std::collections::{BTreeMap, BTreeSet};

use distkit::backend::Change;

use super::{Item, Outcomes, Overflow, Wrote};
use crate::cast::Key;

/// Plain counters: a number for each key. Writers are remembered: a day of their space's clock, whose steps are a
/// minute at most, is longer than any history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Plain {
    values: BTreeMap<Key, i64>,
    writers: BTreeMap<String, Writer>,
    /// Whether a guarded batch was ever applied, and whether writers were lost since.
    guarded: bool,
    lost: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Writer {
    sequence: u64,
    refused: BTreeSet<usize>,
}

impl Plain {
    pub(crate) fn get(&self, key: Key) -> i64 {
        self.values.get(&key).copied().unwrap_or(0)
    }

    pub(crate) fn remove(&mut self, key: Key) -> i64 {
        self.values.remove(&key).unwrap_or(0)
    }

    pub(crate) fn clear(&mut self) {
        self.values.clear();
    }

    pub(crate) fn lose_guards(&mut self) {
        self.writers.clear();
        self.lost |= self.guarded;
    }

    /// A batch that may have been applied by one whom the store does not know any more.
    pub(crate) fn has_forgotten(&self, writer: &str, resent: bool) -> bool {
        self.lost && resent && !self.writers.contains_key(writer)
    }

    /// A batch, and whether it had been applied before.
    pub(crate) fn write(
        &mut self,
        items: &[Item<Change>],
        guard: Option<(&str, u64)>,
    ) -> (bool, Outcomes<i64>) {
        let Some((writer, sequence)) = guard else {
            return (false, items.iter().map(|item| self.write_one(item)).collect());
        };
        self.guarded = true;
        if let Some(known) = self.writers.get(writer)
            && sequence <= known.sequence
        {
            let stands = |(at, item): (usize, &Item<Change>)| {
                if sequence == known.sequence && known.refused.contains(&at) {
                    return Err(Overflow);
                }
                let value = self.get(item.key);
                Ok(Wrote { old: value, new: value, met: true })
            };
            return (true, items.iter().enumerate().map(stands).collect());
        }
        let outcomes: Outcomes<i64> = items.iter().map(|item| self.write_one(item)).collect();
        let refused = (0..items.len()).filter(|at| outcomes[*at].is_err()).collect();
        self.writers.insert(writer.to_owned(), Writer { sequence, refused });
        (false, outcomes)
    }

    fn write_one(&mut self, item: &Item<Change>) -> Result<Wrote<i64>, Overflow> {
        let old = self.get(item.key);
        if !item.condition.matches(old) {
            return Ok(Wrote { old, new: old, met: false });
        }
        let new = match item.change {
            Change::Add(count) => old.checked_add(count).ok_or(Overflow)?,
            Change::Set(count) => count,
            Change::AddWithin { count, least, most } => match room(count, least, most, old) {
                0 => return Ok(Wrote { old, new: old, met: true }),
                fits => old + fits,
            },
            other => panic!("{other:?} is new"),
        };
        self.values.insert(item.key, new);
        Ok(Wrote { old, new, met: true })
    }
}

/// How much of `count` may be added to `total`, step by step towards the bound.
pub(super) fn room(count: i64, least: i64, most: i64, total: i64) -> i64 {
    if least > most || count > 0 && total >= most || count < 0 && total <= least {
        return 0;
    }
    let bound = if count > 0 { most } else { least };
    match bound.checked_sub(total) {
        Some(left) if left.unsigned_abs() < count.unsigned_abs() => left,
        _ => count,
    }
}
