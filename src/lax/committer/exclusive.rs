//! What acts on the store at once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{Committer, not_applied};
use crate::{
    DistkitError, RedisKey,
    answers::Item,
    backend::{BackendError, Outcome, Scope},
    lax::{
        atomic::{AtomicBool, Ordering::SeqCst},
        cell::{Cell, Known, Totals, address},
        ledger::Ledger,
        table::Table,
    },
    stats::Count,
};

impl<'c, L: Ledger> Committer<'c, L> {
    /// Does each write, in order, after what was written before to the same keys. Sets `sent` before it sends
    /// what is not to be sent twice.
    pub(in crate::lax) async fn write(
        &mut self,
        writes: &[L::Write],
        sent: &AtomicBool,
    ) -> Result<Vec<Outcome<L::Written>>, DistkitError> {
        self.prepare().await?;
        let shared = self.shared;
        let window = self.current_window()?;
        let (affected, place_of) = self.affected(window, writes).await?;
        let guard = {
            let totals = shared.table.totals();
            self.begin_writes(affected.absorb(), &totals)
        };
        sent.store(true, SeqCst);
        let at = shared.now();
        let outcomes = match shared.ledger.write(window, writes, &guard).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                if error.may_have_happened() {
                    self.writer.schedule.pause(Instant::now());
                } else {
                    self.end_writes();
                    affected.stay();
                }
                return Err(error);
            }
        };
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        shared.ledger.counts().add(Count::Refused, refused);
        let (left, outcomes) = affected.take_in::<L>(writes, &place_of, outcomes);
        {
            let totals = shared.table.totals();
            self.end_writes();
            affected.settle(&left, at, &totals);
        }
        self.mend_known_since(at);
        Ok(outcomes)
    }

    /// The window in which something acts at once.
    fn current_window(&self) -> Result<u64, DistkitError> {
        self.shared.use_clock();
        match self.shared.window() {
            (window, true) => Ok(window),
            _ => Err(BackendError::not_applied("the store has not told its time").into()),
        }
    }

    /// Each key once, in order, and where the key of each write is among them. What is pending on those whose
    /// outcome depends on it is in the store then.
    async fn affected(
        &mut self,
        window: u64,
        writes: &[L::Write],
    ) -> Result<(Affected<'c>, Vec<usize>), DistkitError> {
        let shared = self.shared;
        let mut places: HashMap<&RedisKey, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut cells: Vec<(Arc<Cell>, bool)> = Vec::new();
        let place_of = writes.iter().map(|write| {
            *places.entry(write.key()).or_insert_with(|| {
                cells.push((shared.cell_in(write.key(), window), L::replaces(write)));
                cells.len() - 1
            })
        });
        let place_of = place_of.collect();
        let all: HashSet<_, foldhash::fast::RandomState> =
            cells.iter().map(|(cell, _)| address(cell)).collect();
        let promises = self.send_promises_of(|cell| all.contains(&address(cell)));
        promises.await.map_err(not_applied)?;
        let first = {
            let totals = shared.table.totals();
            let depended_on =
                cells.iter().filter(|(cell, replaced)| !replaced && cell.is_pending(&totals));
            depended_on.map(|(cell, _)| Arc::clone(cell)).collect()
        };
        self.commit(first).await.map_err(not_applied)?;
        // What the store does not take was written before, too: it goes where the rest went.
        let cells = cells.into_iter().map(|(cell, replaced)| {
            let all = replaced || self.is_corrupt(&cell);
            (cell, all)
        });
        Ok((Affected::new::<L>(&shared.table, cells), place_of))
    }

    /// Removes all keys, or the own parts of them, and with them what is pending. Sets `sent` before it sends
    /// what is not to be sent twice.
    pub(in crate::lax) async fn clear(
        &mut self,
        scope: Scope,
        sent: &AtomicBool,
    ) -> Result<(), DistkitError> {
        self.prepare().await?;
        self.send_all_promises().await.map_err(not_applied)?;
        let shared = self.shared;
        let window = self.current_window()?;
        let mut cells = shared.table.all();
        cells.retain(|cell| cell.window == window);
        let known_at: Vec<_> = cells.iter().map(|cell| cell.forget_total()).collect();
        let affected =
            Affected::new::<L>(&shared.table, cells.into_iter().map(|cell| (cell, true)));
        sent.store(true, SeqCst);
        let at = shared.now();
        if let Err(error) = shared.ledger.clear(window, scope).await {
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
        let totals = shared.table.totals();
        for (affected, (known, at)) in affected.end().into_iter().zip(left) {
            affected.cell.settle(affected.pending, known, at, &totals);
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
    table: &'c Table,
    cells: Vec<AffectedCell>,
    adds_in_doubt: bool,
}

impl<'c> Affected<'c> {
    /// Takes all that is pending of each cell that comes with `true`.
    fn new<L: Ledger>(
        table: &'c Table,
        cells: impl IntoIterator<Item = (Arc<Cell>, bool)>,
    ) -> Self {
        let totals = table.totals();
        let take = |(cell, all): (Arc<Cell>, bool)| {
            let (pending, replaced) = if all {
                (cell.pending(&totals), cell.set_replaces(false, &totals))
            } else {
                (0, false)
            };
            AffectedCell { cell, pending, replaced }
        };
        let cells = cells.into_iter().map(take).collect();
        Self { table, cells, adds_in_doubt: L::ADDS_IN_DOUBT }
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

    /// The request succeeded.
    fn settle(self, left: &[Option<Known>], at: u64, totals: &Totals<'_>) {
        for (affected, left) in self.end().into_iter().zip(left) {
            match left {
                Some(known) => affected.cell.settle(affected.pending, *known, at, totals),
                None => affected.stays(totals),
            }
        }
    }

    /// The request certainly did not happen.
    fn stay(self) {
        let totals = self.table.totals();
        self.end().iter().for_each(|affected| affected.stays(&totals));
    }

    fn end(mut self) -> Vec<AffectedCell> {
        std::mem::take(&mut self.cells)
    }
}

impl AffectedCell {
    /// What was pending still is.
    fn stays(&self, totals: &Totals<'_>) {
        if self.replaced {
            self.cell.set_replaces(true, totals);
        }
    }
}

impl Drop for Affected<'_> {
    fn drop(&mut self) {
        if !self.cells.is_empty() {
            let totals = self.table.totals();
            for affected in &self.cells {
                affected.stays(&totals);
                if self.adds_in_doubt {
                    affected.cell.outdate();
                } else {
                    affected.cell.forget_total();
                }
            }
        }
    }
}
