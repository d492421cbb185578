//! What acts on the store at once, under the writer lock.

use std::{collections::HashMap, sync::Arc};

use super::{Plain, known};
use crate::{
    CounterComparator, DistkitError, RedisKey,
    answers::miscounted,
    backend::{Backend, Change, Write, Written},
    lax::{Cell, Core, not_applied},
};

impl<B: Backend + ?Sized> Core<Plain<B>> {
    pub(super) async fn write_all(
        self: &Arc<Self>,
        writes: &[Write],
    ) -> Result<Vec<Result<Written, DistkitError>>, DistkitError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session().await?;

        // Each key once, in order, with whether its first write replaces whatever is there.
        let mut places: HashMap<&RedisKey, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut cells: Vec<(Arc<Cell>, bool)> = Vec::new();
        let place_of: Vec<usize> = writes
            .iter()
            .map(|write| {
                *places.entry(&write.key).or_insert_with(|| {
                    cells.push((self.cell(&write.key), replaces(write)));
                    cells.len() - 1
                })
            })
            .collect();

        let depended_on = cells.iter().filter(|(cell, replaced)| !replaced && cell.is_pending());
        let first: Vec<_> = depended_on.map(|(cell, _)| Arc::clone(cell)).collect();
        session.commit(first).await.map_err(not_applied)?;

        let (absorbed, guard) = {
            let _replacing = self.replacing.lock();
            let absorbed: Vec<_> = cells
                .iter()
                .map(|(cell, replaced)| {
                    let delta = if *replaced { cell.tally.pending() } else { 0 };
                    (Arc::clone(cell), delta)
                })
                .collect();
            (absorbed.clone(), session.begin_writes(absorbed))
        };
        let doubt = Doubt { cells: &cells };
        let at = self.now();
        let applied =
            match self.ledger.backend.apply(&self.ledger.space, writes, Some(&guard)).await {
                Ok(applied) if applied.outcomes.len() == writes.len() => applied,
                Ok(applied) => return Err(miscounted(writes.len(), applied.outcomes.len())),
                Err(error) => {
                    if !error.may_have_happened() {
                        session.end_writes();
                        doubt.ends();
                    }
                    return Err(error.into());
                }
            };
        doubt.ends();

        let mut started = vec![false; cells.len()];
        let mut totals = vec![None; cells.len()];
        let mut outcomes = Vec::with_capacity(writes.len());
        for ((write, &place), outcome) in writes.iter().zip(&place_of).zip(applied.outcomes) {
            let outcome = outcome.map(|mut written| {
                totals[place] = Some(written.new);
                if !started[place] {
                    // What was absorbed was written before, so the total was that much higher.
                    written.old = written.old.saturating_add(absorbed[place].1);
                }
                written
            });
            started[place] = true;
            outcomes.push(outcome.map_err(|refusal| DistkitError::refused(&write.key, refusal)));
        }
        let replacing = self.replacing.lock();
        session.end_writes();
        for ((cell, delta), total) in absorbed.into_iter().zip(totals) {
            if let Some(total) = total {
                cell.settle(delta, known(total), at);
            }
        }
        drop(replacing);
        session.mend_known_since(at);
        Ok(outcomes)
    }

    pub(super) async fn del(self: &Arc<Self>, key: &RedisKey) -> Result<i64, DistkitError> {
        let mut session = self.session().await?;
        let cell = self.cell(key);
        session.commit(vec![Arc::clone(&cell)]).await.map_err(not_applied)?;
        // Left only when it was refused; it was written before, so it goes with the key.
        let refused = if session.is_corrupt(&cell) { cell.tally.pending() } else { 0 };
        let at = self.now();
        // Until the answer is here the total is anybody's guess, also when nobody waits for it.
        let known_at = cell.forget_total();
        let held =
            match self.ledger.backend.remove(&self.ledger.space, std::slice::from_ref(key)).await {
                Ok(held) => held,
                Err(error) => {
                    if !error.may_have_happened() {
                        cell.total_stands(known_at);
                    }
                    return Err(error.into());
                }
            };
        let Some(held) = held.into_iter().next() else { return Err(miscounted(1, 0)) };
        {
            let _replacing = self.replacing.lock();
            cell.settle(refused, known(0), at);
        }
        held.map_err(|refusal| DistkitError::refused(key, refusal))
    }

    pub(super) async fn clear(self: &Arc<Self>) -> Result<(), DistkitError> {
        let _session = self.session().await?;
        let cells: Vec<_> = self
            .all_cells()
            .into_iter()
            .map(|cell| {
                let (pending, known_at) = (cell.tally.pending(), cell.forget_total());
                (cell, pending, known_at)
            })
            .collect();
        let at = self.now();
        if let Err(error) = self.ledger.backend.clear(&self.ledger.space).await {
            if !error.may_have_happened() {
                for (cell, _, known_at) in cells {
                    cell.total_stands(known_at);
                }
            }
            return Err(error.into());
        }
        let _replacing = self.replacing.lock();
        for (cell, pending, _) in cells {
            cell.settle(pending, known(0), at);
        }
        Ok(())
    }
}

/// Cells whose totals are anybody's guess when it is dropped, also with a future that nobody waits for any
/// longer. A `get` reads them, and finds out what became of the writes first; additions go on.
struct Doubt<'a> {
    cells: &'a [(Arc<Cell>, bool)],
}

impl Doubt<'_> {
    fn ends(mut self) {
        self.cells = &[];
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        for (cell, _) in self.cells {
            cell.outdate();
        }
    }
}

/// Whether the write leaves nothing of what its key held.
fn replaces(write: &Write) -> bool {
    matches!(write.change, Change::Set(_)) && write.condition == CounterComparator::Nil
}
