//! What acts on the store at once, in a session.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::{
    atomic::{AtomicBool, Ordering::SeqCst},
    cell::Cell,
    core::Core,
    ledger::{Known, Ledger},
    request::Interrupted,
    writer::{INTERRUPTED, Session, not_applied},
};
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Outcome, Scope},
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
        let writes = writes.to_vec();
        self.act(|session, sent| {
            Box::pin(async move {
                let outcomes = session.write(&writes, &sent).await?;
                Ok(named(&writes, outcomes))
            })
        })
        .await
    }

    /// Removes all keys, or the own parts of them, and with them what is pending.
    pub(crate) async fn clear(self: &Arc<Self>, scope: Scope) -> Result<(), DistkitError> {
        self.act(move |session, sent| Box::pin(session.clear(scope, sent))).await
    }

    /// Has the task do `work`, which sets the flag before it sends what is not to be sent twice.
    async fn act<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'s> FnOnce(
            &'s mut Session<'_, L>,
            Arc<AtomicBool>,
        ) -> BoxFuture<'s, Result<T, DistkitError>>
        + Send
        + 'static,
    ) -> Result<T, DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        let sent = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&sent);
        match self.ask(|session| work(session, asked)).await {
            Ok(done) => done,
            Err(Interrupted) if sent.load(SeqCst) => {
                let cause = "the counter's task ended before the store answered";
                Err(BackendError::outcome_unknown(cause).into())
            }
            Err(Interrupted) => Err(BackendError::not_applied(INTERRUPTED).into()),
        }
    }
}

impl<'c, L: Ledger> Session<'c, L> {
    async fn write(
        &mut self,
        writes: &[L::Write],
        sent: &AtomicBool,
    ) -> Result<Vec<Outcome<L::Written>>, DistkitError> {
        self.prepare().await?;
        let core = self.core;
        let (affected, place_of) = self.affected(writes).await?;
        let guard = {
            let _replacing = core.replacing.lock();
            self.begin_writes(affected.absorb())
        };
        sent.store(true, SeqCst);
        let at = core.now();
        let outcomes = match core.ledger.write(writes, &guard).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                if error.may_have_happened() {
                    self.writer.pause();
                } else {
                    self.end_writes();
                    affected.stay();
                }
                return Err(error);
            }
        };
        let (left, outcomes) = affected.take_in::<L>(writes, &place_of, outcomes);
        {
            let _replacing = core.replacing.lock();
            self.end_writes();
            affected.settle(&left, at);
        }
        self.mend_known_since(at);
        Ok(outcomes)
    }

    /// Each key once, in order, and where the key of each write is among them. What is pending on those whose
    /// outcome depends on it is in the store then.
    async fn affected(
        &mut self,
        writes: &[L::Write],
    ) -> Result<(Affected<'c>, Vec<usize>), DistkitError> {
        let core = self.core;
        let mut places: HashMap<&RedisKey, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut cells: Vec<(Arc<Cell>, bool)> = Vec::new();
        let place_of = writes.iter().map(|write| {
            *places.entry(write.key()).or_insert_with(|| {
                cells.push((core.cell(write.key()), L::replaces(write)));
                cells.len() - 1
            })
        });
        let place_of = place_of.collect();
        let depended_on = cells.iter().filter(|(cell, replaced)| !replaced && cell.is_pending());
        let first = depended_on.map(|(cell, _)| Arc::clone(cell)).collect();
        self.commit(first).await.map_err(not_applied)?;
        // What the store does not take was written before, too: it goes where the rest went.
        let cells = cells.into_iter().map(|(cell, replaced)| {
            let all = replaced || self.is_corrupt(&cell);
            (cell, all)
        });
        Ok((Affected::new::<L>(&core.replacing, cells), place_of))
    }

    async fn clear(&mut self, scope: Scope, sent: Arc<AtomicBool>) -> Result<(), DistkitError> {
        self.prepare().await?;
        let core = self.core;
        let cells = core.all_cells();
        let known_at: Vec<_> = cells.iter().map(|cell| cell.forget_total()).collect();
        let affected =
            Affected::new::<L>(&core.replacing, cells.into_iter().map(|cell| (cell, true)));
        sent.store(true, SeqCst);
        let at = core.now();
        if let Err(error) = core.ledger.clear(scope).await {
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
        let _replacing = core.replacing.lock();
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
