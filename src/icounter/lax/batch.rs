//! Batches: buffered where none of their items needs an answer of the store, else sent at once.

use super::{LaxInstanceAwareCounter, Slices, numbers};
use crate::{
    CounterComparator, DistkitError, RedisKey,
    backend::{InstanceBackend, SliceChange, SliceWrite, Standing, Written},
    icounter::TotalAndSlice,
    lax::{Cell, Engine, Owner, in_fast_range},
    parts::in_parts,
    shards::Answers,
};

impl<B: InstanceBackend + ?Sized> LaxInstanceAwareCounter<B> {
    /// A batch that needs no I/O but for unknown keys; `None` when it is one to be sent at once.
    pub(super) async fn write_later(
        &self,
        writes: &[SliceWrite],
    ) -> Result<Option<Vec<Result<Written<Standing>, DistkitError>>>, DistkitError> {
        let Some(writes) = writes.iter().map(buffered).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let keys = writes.iter().map(|(key, _)| (self.engine(key), *key));
        let cells = Engine::all_known(keys).await;
        // Of one shard the batch fails as a whole; of several, others may be well.
        let ends_all = |error: &DistkitError| {
            self.owners.only().is_some() && !matches!(error, DistkitError::CounterError { .. })
        };
        for ((key, _), cell) in writes.iter().zip(&cells) {
            if let Err(error) = cell
                && ends_all(error)
            {
                return Err(self.engine(key).why(error.clone()));
            }
        }
        for ((_, change), cell) in writes.iter().zip(&cells) {
            if let (Buffered::Replace(count), Ok(cell)) = (change, cell)
                && !can_replace(cell, *count)
            {
                return Ok(None);
            }
        }
        let mut outcomes = Vec::with_capacity(writes.len());
        // Nothing is changed when there is no room for all.
        for cell in cells.iter().flatten() {
            self.engine(&cell.key).reserve(cell)?;
        }
        for ((key, change), cell) in writes.into_iter().zip(cells) {
            let engine = self.engine(key);
            let written = cell.and_then(|cell| {
                let old = numbers(&cell);
                let new = match change {
                    Buffered::Add(count) => engine.add_slice(&cell, count)?,
                    Buffered::Replace(count) => engine.replace_slice(&cell, count)?,
                };
                let (old, new) = (estimated(old), estimated(new));
                Ok(Written { old, new, condition_met: true })
            });
            match written {
                Err(error) if ends_all(&error) => return Err(engine.why(error)),
                written => outcomes.push(written.map_err(|error| engine.why(error))),
            }
        }
        Ok(Some(outcomes))
    }
}

/// Does the writes of one shard at once.
pub(super) async fn write_now<B: InstanceBackend + ?Sized>(
    owner: &Owner<Slices<B>>,
    writes: &[SliceWrite],
    size: usize,
) -> Answers<Written<Standing>> {
    in_parts!(writes, size, part => match owner.0.write_now(part).await {
        Err(error) => Err(owner.0.why(error)),
        Ok(outcomes) => Ok(outcomes),
    })
}

/// A change of a slice that needs no answer of the store.
#[derive(Clone, Copy)]
enum Buffered {
    Add(i64),
    Replace(i64),
}

/// What a write is when it is buffered; `None` for one that acts on the store at once.
fn buffered(write: &SliceWrite) -> Option<(&RedisKey, Buffered)> {
    let change = match (write.change, write.condition) {
        (SliceChange::Add(count), CounterComparator::Nil) => Buffered::Add(count),
        (SliceChange::SetSlice(count), CounterComparator::Nil) => Buffered::Replace(count),
        _ => return None,
    };
    Some((&write.key, change))
}

/// Numbers near the ends of `i64` are left to the store.
pub(super) fn can_replace(cell: &Cell, count: i64) -> bool {
    // The others' sum need not fit into an `i64`; the acknowledged total does.
    let base = cell.tally.acknowledged();
    let total = base.wrapping_add(cell.others());
    let others = i128::from(total) - i128::from(base);
    in_fast_range(count) && i64::try_from(others + i128::from(count)).is_ok()
}

fn estimated((total, slice): TotalAndSlice) -> Standing {
    Standing { total, slice, ..Standing::default() }
}
