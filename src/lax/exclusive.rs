//! What acts on the store at once, in a session.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::{
    cell::Cell,
    core::Core,
    ledger::{Known, Ledger},
    writer::{Session, not_applied},
};
use crate::{
    DistkitError, RedisKey,
    backend::{Outcome, Scope},
    space_store::{Item, named},
};

impl<L: Ledger> Core<L> {
    /// Does each write, in order, after what was written before to the same keys.
    pub(crate) async fn write_now(
        self: &Arc<Self>,
        writes: &[L::Write],
    ) -> Result<Vec<Result<L::Written, DistkitError>>, DistkitError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session().await?;
        let (affected, place_of) = self.affected(&mut session, writes).await?;
        let guard = {
            let _replacing = self.replacing.lock();
            session.begin_writes(affected.absorb())
        };
        let at = self.now();
        let outcomes = match self.ledger.write(writes, &guard).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                if !error.may_have_happened() {
                    session.end_writes();
                    affected.stay();
                }
                return Err(error);
            }
        };
        let (left, outcomes) = affected.take_in::<L>(writes, &place_of, outcomes);
        {
            let _replacing = self.replacing.lock();
            session.end_writes();
            affected.settle(&left, at);
        }
        session.mend_known_since(at);
        Ok(named(writes, outcomes))
    }

    /// Each key once, in order, and where the key of each write is among them. What is pending on those whose
    /// outcome depends on it is in the store then.
    async fn affected<'c>(
        self: &'c Arc<Self>,
        session: &mut Session<'_, L>,
        writes: &[L::Write],
    ) -> Result<(Affected<'c>, Vec<usize>), DistkitError> {
        let mut places: HashMap<&RedisKey, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut cells: Vec<(Arc<Cell>, bool)> = Vec::new();
        let place_of = writes.iter().map(|write| {
            *places.entry(write.key()).or_insert_with(|| {
                cells.push((self.cell(write.key()), L::replaces(write)));
                cells.len() - 1
            })
        });
        let place_of = place_of.collect();
        let depended_on = cells.iter().filter(|(cell, replaced)| !replaced && cell.is_pending());
        let first = depended_on.map(|(cell, _)| Arc::clone(cell)).collect();
        session.commit(first).await.map_err(not_applied)?;
        // What the store does not take was written before, too: it goes where the rest went.
        let cells = cells.into_iter().map(|(cell, replaced)| {
            let all = replaced || session.is_corrupt(&cell);
            (cell, all)
        });
        Ok((Affected::new::<L>(&self.replacing, cells), place_of))
    }

    /// Removes all keys, or the own parts of them, and with them what is pending.
    pub(crate) async fn clear(self: &Arc<Self>, scope: Scope) -> Result<(), DistkitError> {
        let _session = self.session().await?;
        let cells = self.all_cells();
        let known_at: Vec<_> = cells.iter().map(|cell| cell.forget_total()).collect();
        let affected =
            Affected::new::<L>(&self.replacing, cells.into_iter().map(|cell| (cell, true)));
        let at = self.now();
        if let Err(error) = self.ledger.clear(scope).await {
            if !error.may_have_happened() {
                for (cell, known_at) in affected.cells.iter().zip(known_at) {
                    cell.cell.total_stands(known_at);
                }
                affected.stay();
            }
            return Err(error);
        }
        let left = affected.cells.iter().zip(known_at).map(|(affected, known_at)| match scope {
            Scope::Total => (Known { own: 0, others: 0 }, at),
            Scope::Slice => (Known { own: 0, others: affected.cell.others() }, known_at),
        });
        let left: Vec<_> = left.collect();
        let _replacing = self.replacing.lock();
        for (affected, (known, at)) in affected.end().into_iter().zip(left) {
            affected.cell.settle(affected.pending, known, at);
        }
        Ok(())
    }
}

/// A cell in the way of a request, and what is disposed of when the request succeeds.
struct AffectedCell {
    cell: Arc<Cell>,
    pending: i64,
    /// What was pending was to replace the own part.
    replaced: bool,
}

/// The cells in the way of one request. When they are dropped, as with a future that nobody waits for any longer,
/// what was pending still is, and the totals are unknown.
struct Affected<'c> {
    replacing: &'c Mutex<()>,
    cells: Vec<AffectedCell>,
    adds_in_doubt: bool,
}

impl<'c> Affected<'c> {
    /// Takes all that is pending of each cell that comes with `true`.
    fn new<L: Ledger>(
        replacing: &'c Mutex<()>,
        cells: impl IntoIterator<Item = (Arc<Cell>, bool)>,
    ) -> Self {
        let _replacing = replacing.lock();
        let take = |(cell, all): (Arc<Cell>, bool)| {
            let (pending, replaced) =
                if all { (cell.tally.pending(), cell.set_replaces(false)) } else { (0, false) };
            AffectedCell { cell, pending, replaced }
        };
        let cells = cells.into_iter().map(take).collect();
        Self { replacing, cells, adds_in_doubt: L::ADDS_IN_DOUBT }
    }

    fn absorb(&self) -> Vec<(Arc<Cell>, i64)> {
        self.cells.iter().map(|cell| (Arc::clone(&cell.cell), cell.pending)).collect()
    }

    /// How each key is left, and the outcomes with what was pending before.
    fn take_in<L: Ledger>(
        &self,
        writes: &[L::Write],
        place_of: &[usize],
        mut outcomes: Vec<Outcome<L::Written>>,
    ) -> (Vec<Option<Known>>, Vec<Outcome<L::Written>>) {
        let mut left = vec![None; self.cells.len()];
        let mut started = vec![false; self.cells.len()];
        for ((write, &place), outcome) in writes.iter().zip(place_of).zip(&mut outcomes) {
            left[place] = L::left_by(write, outcome).or(left[place]);
            if let (Ok(written), false) = (outcome, started[place]) {
                L::held_besides(written, self.cells[place].pending);
            }
            started[place] = true;
        }
        (left, outcomes)
    }

    /// The request succeeded. For the holder of the `replacing` lock.
    fn settle(self, left: &[Option<Known>], at: u64) {
        for (affected, left) in self.end().into_iter().zip(left) {
            match left {
                Some(known) => affected.cell.settle(affected.pending, *known, at),
                None => affected.stays(),
            }
        }
    }

    /// The request certainly did not happen.
    fn stay(self) {
        let replacing = self.replacing;
        let _replacing = replacing.lock();
        self.end().iter().for_each(AffectedCell::stays);
    }

    fn end(mut self) -> Vec<AffectedCell> {
        std::mem::take(&mut self.cells)
    }
}

impl AffectedCell {
    /// What was pending still is. For the holder of the `replacing` lock.
    fn stays(&self) {
        if self.replaced {
            self.cell.set_replaces(true);
        }
    }
}

impl Drop for Affected<'_> {
    fn drop(&mut self) {
        if !self.cells.is_empty() {
            let _replacing = self.replacing.lock();
            for affected in &self.cells {
                affected.stays();
                if self.adds_in_doubt {
                    affected.cell.outdate();
                } else {
                    affected.cell.forget_total();
                }
            }
        }
    }
}
