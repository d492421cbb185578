//! What acts on the store at once, under the writer lock.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::ledger::{Slices, known};
use crate::{
    DistkitError, RedisKey,
    answers::counted,
    backend::{InstanceBackend, Outcome, Scope, SliceWrite, Standing, Written},
    icounter::membership::as_member,
    lax::{Cell, Core, Known, Session, not_applied},
};

/// A cell in the way of a request, and what is given up of it when the request succeeds.
struct Bystander {
    cell: Arc<Cell>,
    pending: i64,
    replaces: bool,
    known_at: u64,
}

impl Bystander {
    /// Takes all that is pending, if `pending` says so. For the holder of the `replacing` lock.
    fn new(cell: Arc<Cell>, pending: bool) -> Self {
        // Until the answer is here the total is anybody's guess, also when nobody waits for it.
        let known_at = cell.forget_total();
        let (pending, replaces) =
            if pending { (cell.tally.pending(), cell.set_replaces(false)) } else { (0, false) };
        Self { cell, pending, replaces, known_at }
    }

    /// The request failed: what was pending still is.
    fn stays(self, may_have_happened: bool) {
        if self.replaces {
            self.cell.set_replaces(true);
        }
        if !may_have_happened {
            self.cell.total_stands(self.known_at);
        }
    }
}

/// The cells in the way of one request. When they are dropped, as with a future that nobody waits for any
/// longer, what was pending still is, and the totals are anybody's guess.
struct Bystanders<'c> {
    replacing: &'c Mutex<()>,
    cells: Vec<Bystander>,
}

impl<'c> Bystanders<'c> {
    /// Takes all that is pending of each cell that comes with `true`.
    fn new(replacing: &'c Mutex<()>, cells: impl IntoIterator<Item = (Arc<Cell>, bool)>) -> Self {
        let _replacing = replacing.lock();
        let cells = cells.into_iter().map(|(cell, pending)| Bystander::new(cell, pending));
        Self { replacing, cells: cells.collect() }
    }

    /// Ends each, in order, under the `replacing` lock.
    fn end(mut self, end_one: impl FnMut(Bystander)) {
        let cells = std::mem::take(&mut self.cells);
        let _replacing = self.replacing.lock();
        cells.into_iter().for_each(end_one);
    }

    /// The request failed.
    fn stay(self, may_have_happened: bool) {
        self.end(|bystander| bystander.stays(may_have_happened));
    }
}

impl Drop for Bystanders<'_> {
    fn drop(&mut self) {
        if !self.cells.is_empty() {
            let _replacing = self.replacing.lock();
            self.cells.drain(..).for_each(|bystander| bystander.stays(true));
        }
    }
}

impl<B: InstanceBackend + ?Sized> Core<Slices<B>> {
    /// Flushes the keys, and gives what the store does not take of them: it was written before, so it
    /// goes where the rest went.
    async fn step_aside<'c>(
        self: &'c Arc<Self>,
        session: &mut Session<'_, Slices<B>>,
        cells: Vec<Arc<Cell>>,
    ) -> Result<Bystanders<'c>, DistkitError> {
        session.commit(cells.clone()).await.map_err(not_applied)?;
        let corrupt = cells.into_iter().map(|cell| {
            let corrupt = session.is_corrupt(&cell);
            (cell, corrupt)
        });
        Ok(Bystanders::new(&self.replacing, corrupt))
    }

    pub(super) async fn write_now(
        self: &Arc<Self>,
        writes: &[SliceWrite],
    ) -> Result<Vec<Outcome<Written<Standing>>>, DistkitError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = self.session().await?;
        let mut places: HashMap<&RedisKey, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut cells = Vec::new();
        let place_of: Vec<usize> = writes
            .iter()
            .map(|write| {
                *places.entry(&write.key).or_insert_with(|| {
                    cells.push(self.cell(&write.key));
                    cells.len() - 1
                })
            })
            .collect();
        let bystanders = self.step_aside(&mut session, cells).await?;

        let absorbed = bystanders.cells.iter().map(|by| (Arc::clone(&by.cell), by.pending));
        let guard = session.begin_writes(absorbed.collect());
        let membership = &self.ledger.membership;
        let at = self.now();
        let answer = as_member!(
            membership,
            member => membership.backend().apply_on(
                membership.space(), member, writes, Some(guard.sequence)
            ),
            ordered => {
                let outcomes = ordered.answer.outcomes;
                for (write, outcome) in writes.iter().zip(&outcomes) {
                    if let Ok(written) = outcome {
                        membership.note(&write.key, ordered.version, &written.new);
                    }
                }
                outcomes
            }
        );
        let outcomes = match answer.and_then(|outcomes| counted(writes.len(), outcomes)) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                if !error.may_have_happened() {
                    session.end_writes();
                }
                bystanders.stay(error.may_have_happened());
                return Err(error);
            }
        };
        session.end_writes();

        let mut standings = vec![None; bystanders.cells.len()];
        for (&place, outcome) in place_of.iter().zip(&outcomes) {
            if let Ok(written) = outcome {
                standings[place] = Some(written.new);
            }
        }
        let mut standings = standings.into_iter();
        bystanders.end(|bystander| match standings.next().flatten() {
            Some(standing) => bystander.cell.settle(bystander.pending, known(&standing), at),
            None => bystander.stays(false),
        });
        Ok(outcomes)
    }

    pub(super) async fn remove(
        self: &Arc<Self>,
        key: &RedisKey,
        scope: Scope,
    ) -> Result<Written<Standing>, DistkitError> {
        let mut session = self.session().await?;
        let bystanders = self.step_aside(&mut session, vec![self.cell(key)]).await?;
        let membership = &self.ledger.membership;
        let keys = std::slice::from_ref(key);
        let at = self.now();
        let answer = as_member!(
            membership,
            member => membership.backend().remove_on(membership.space(), member, keys, scope),
            ordered => {
                if let Some(Ok(written)) = ordered.answer.first() {
                    membership.note(key, ordered.version, &written.new);
                }
                ordered.answer
            }
        );
        match answer.and_then(|outcomes| counted(1, outcomes)) {
            Ok(mut outcomes) => match outcomes.remove(0) {
                Ok(written) => {
                    bystanders.end(|Bystander { cell, pending, .. }| {
                        cell.settle(pending, known(&written.new), at);
                    });
                    Ok(written)
                }
                Err(refusal) => {
                    // Something that is no number may have been removed: read it again.
                    bystanders.stay(true);
                    Err(DistkitError::refused(key, refusal))
                }
            },
            Err(error) => {
                bystanders.stay(error.may_have_happened());
                Err(error)
            }
        }
    }

    /// Removes all keys, or this instance's slices of them, and with them what is pending.
    pub(super) async fn clear(self: &Arc<Self>, scope: Scope) -> Result<(), DistkitError> {
        let _session = self.session().await?;
        let all = self.all_cells().into_iter().map(|cell| (cell, true));
        let bystanders = Bystanders::new(&self.replacing, all);
        let at = self.now();
        let cleared = match self.ledger.membership.exclusive().await {
            Ok(exclusive) => exclusive.clear(scope).await,
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            bystanders.stay(error.may_have_happened());
            return Err(error);
        }
        bystanders.end(|Bystander { cell, pending, known_at, .. }| {
            let (others, at) = match scope {
                Scope::Total => (0, at),
                Scope::Slice => (cell.others(), known_at),
            };
            cell.settle(pending, Known { own: 0, others }, at);
        });
        Ok(())
    }
}
