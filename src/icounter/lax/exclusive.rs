//! What acts on the store at once, under the writer lock.

use std::{collections::HashMap, sync::Arc};

use super::ledger::{Slices, known};
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Outcome, Scope, SliceWrite, Standing, Written},
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

impl Core<Slices> {
    fn failed(&self, bystanders: Vec<Bystander>, error: &DistkitError) {
        let _replacing = self.replacing.lock();
        for bystander in bystanders {
            bystander.stays(error.may_have_happened());
        }
    }

    /// Flushes the keys, and gives what the store does not take of them: it was written before, so it
    /// goes where the rest went.
    async fn step_aside(
        self: &Arc<Self>,
        session: &mut Session<'_, Slices>,
        cells: Vec<Arc<Cell>>,
    ) -> Result<Vec<Bystander>, DistkitError> {
        session.commit(cells.clone()).await.map_err(not_applied)?;
        let corrupt: Vec<_> = cells.iter().map(|cell| session.is_corrupt(cell)).collect();
        let _replacing = self.replacing.lock();
        Ok(cells.into_iter().zip(corrupt).map(|(cell, bad)| Bystander::new(cell, bad)).collect())
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

        let absorbed = bystanders.iter().map(|by| (Arc::clone(&by.cell), by.pending)).collect();
        let guard = session.begin_writes(absorbed);
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
        let outcomes = match answer.and_then(|outcomes| counted(outcomes, writes.len())) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                if !error.may_have_happened() {
                    session.end_writes();
                }
                self.failed(bystanders, &error);
                return Err(error);
            }
        };
        session.end_writes();

        let mut standings = vec![None; bystanders.len()];
        for (&place, outcome) in place_of.iter().zip(&outcomes) {
            if let Ok(written) = outcome {
                standings[place] = Some(written.new);
            }
        }
        let _replacing = self.replacing.lock();
        for (bystander, standing) in bystanders.into_iter().zip(standings) {
            match standing {
                Some(standing) => bystander.cell.settle(bystander.pending, known(&standing), at),
                None => bystander.stays(false),
            }
        }
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
        match answer.and_then(|outcomes| counted(outcomes, 1)) {
            Ok(mut outcomes) => match outcomes.remove(0) {
                Ok(written) => {
                    let _replacing = self.replacing.lock();
                    for bystander in bystanders {
                        bystander.cell.settle(bystander.pending, known(&written.new), at);
                    }
                    Ok(written)
                }
                Err(refusal) => {
                    let error = DistkitError::refused(key, refusal);
                    // Something that is no number may have been removed: read it again.
                    let _replacing = self.replacing.lock();
                    bystanders.into_iter().for_each(|bystander| bystander.stays(true));
                    Err(error)
                }
            },
            Err(error) => {
                self.failed(bystanders, &error);
                Err(error)
            }
        }
    }

    /// Removes all keys, or this instance's slices of them, and with them what is pending.
    pub(super) async fn clear(self: &Arc<Self>, scope: Scope) -> Result<(), DistkitError> {
        let _session = self.session().await?;
        let bystanders: Vec<_> = {
            let _replacing = self.replacing.lock();
            self.all_cells().into_iter().map(|cell| Bystander::new(cell, true)).collect()
        };
        let at = self.now();
        let cleared = match self.ledger.membership.exclusive().await {
            Ok(exclusive) => exclusive.clear(scope).await,
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            self.failed(bystanders, &error);
            return Err(error);
        }
        let _replacing = self.replacing.lock();
        for Bystander { cell, pending, known_at, .. } in bystanders {
            let (others, at) = match scope {
                Scope::Total => (0, at),
                Scope::Slice => (cell.others(), known_at),
            };
            cell.settle(pending, Known { own: 0, others }, at);
        }
        Ok(())
    }
}

fn counted<T>(answers: Vec<T>, asked: usize) -> Result<Vec<T>, DistkitError> {
    if answers.len() == asked {
        return Ok(answers);
    }
    let (given, error) = (answers.len(), BackendError::outcome_unknown);
    Err(error(format!("the store gave {given} answers to a request for {asked} items")).into())
}
