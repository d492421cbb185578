//! A batch in flight, and what becomes of its cells.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use super::{Batch, Committer, Unresolved, abandoned};
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Outcome, Refusal, ReplayGuard},
    lax::{
        cell::{Cell, Known, Totals},
        ledger::{Committed, Delta, Ledger},
    },
    stats::Count,
};

/// Of how many keys a refusal, or that they were given up, is kept for the next flush.
pub(super) const MAX_REPORTS: usize = 1000;

impl Batch {
    fn deltas(&self) -> &Arc<Vec<Delta>> {
        let (Self::Deltas(deltas) | Self::Fence { absorbed: deltas, .. }) = self;
        deltas
    }
}

impl<L: Ledger> Committer<'_, L> {
    /// Sends what is pending on these cells. On failure they are back on the list of what to send, or
    /// frozen in the unresolved batch.
    pub(super) async fn commit(&mut self, cells: Vec<Arc<Cell>>) -> Result<(), DistkitError> {
        self.resolve().await?;
        let mut deltas = Vec::with_capacity(cells.len());
        for cell in cells {
            if cell.is_in_batch() {
                continue; // named twice
            }
            let taken = {
                let totals = self.shared.table.totals();
                let taken = cell.take(&totals);
                if taken != (0, None) {
                    cell.enter_batch(taken.0, &totals);
                }
                taken
            };
            match taken {
                (0, None) => self.shared.table.uncount(&cell),
                (count, replace) => {
                    deltas.push(Delta { cell, count, replace });
                }
            }
        }
        if deltas.is_empty() {
            return Ok(());
        }
        // Pairs with `Shared::give_up`: publish the batch first, then check `given_up`.
        if self.shared.gate.is_given_up() {
            self.drop_what_was_given_up();
            return Err(DistkitError::ShutDown);
        }
        self.begin(Batch::Deltas(Arc::new(deltas)));
        self.resolve().await
    }

    fn begin(&mut self, what: Batch) -> ReplayGuard {
        self.writer.sequence += 1;
        let sequence = self.writer.sequence;
        *self.shared.under_way.lock() = Some(Arc::clone(what.deltas()));
        // What a fence is about is sent by the caller, whatever becomes of the fence.
        let sent = matches!(what, Batch::Fence { .. });
        self.writer.unresolved =
            Some(Unresolved { sequence, first_sent: Instant::now(), sent, what });
        ReplayGuard { writer: Arc::clone(&self.writer.id), sequence, resent: false }
    }

    /// Announces writes that are about to be sent under the guard, and that absorb `deltas`. Until
    /// [`end_writes`](Self::end_writes) their outcome counts as unknown.
    pub(super) fn begin_writes(
        &mut self,
        deltas: Vec<(Arc<Cell>, i64)>,
        totals: &Totals<'_>,
    ) -> ReplayGuard {
        let (mut absorbed, mut others) = (Vec::new(), Vec::new());
        for (cell, count) in deltas {
            match count {
                0 => others.push(cell),
                _ => {
                    cell.enter_batch(count, totals);
                    absorbed.push(Delta { cell, count, replace: None });
                }
            }
        }
        self.begin(Batch::Fence { absorbed: Arc::new(absorbed), others })
    }

    /// The batch is resolved.
    pub(super) fn take_unresolved(&mut self) -> Option<Batch> {
        *self.shared.under_way.lock() = None;
        self.writer.unresolved.take().map(|batch| batch.what)
    }

    /// The announced writes were answered, or certainly did not happen.
    pub(super) fn end_writes(&mut self) {
        if let Some(what) = self.take_unresolved() {
            what.deltas().iter().for_each(|delta| delta.cell.leave_batch());
        }
        self.note_success();
    }

    /// Finds out about what was sent and whose outcome is not known.
    pub(super) async fn resolve(&mut self) -> Result<(), DistkitError> {
        self.resolve_batch().await?;
        self.resolve_promises().await
    }

    async fn resolve_batch(&mut self) -> Result<(), DistkitError> {
        let shared = self.shared;
        let writer = &mut *self.writer;
        let Some(batch) = &mut writer.unresolved else { return Ok(()) };
        if L::GUARD_LASTS.is_some_and(|lasts| batch.first_sent.elapsed() > lasts) {
            return Err(self.abandon());
        }
        let guard = ReplayGuard {
            writer: Arc::clone(&writer.id),
            sequence: batch.sequence,
            // Set before the await: when this future is dropped in it, the batch may have been sent.
            resent: std::mem::replace(&mut batch.sent, true),
        };
        let first = !guard.resent;
        shared.ledger.counts().add(Count::Resent, usize::from(guard.resent));
        let at = shared.now();
        let deltas = batch.what.deltas();
        let span = tracing::debug_span!(
            target: "distkit::lax",
            "flush",
            prefix = shared.ledger.prefix(),
            shard = shared.ledger.counts().shard(),
            keys = deltas.len(),
            sequence = guard.sequence,
            resent = guard.resent
        );
        let begun = Instant::now();
        let answer = shared.ledger.commit(deltas, &guard).instrument(span).await;
        match answer {
            Ok(Committed { replayed, outcomes }) => {
                self.note_success();
                shared.ledger.counts().add(Count::Flushes, 1);
                match self.take_unresolved() {
                    Some(Batch::Deltas(deltas)) => self.settle(&deltas, outcomes, at),
                    Some(Batch::Fence { absorbed, others }) if replayed => {
                        self.give_way(&absorbed, outcomes, &others, at);
                    }
                    Some(Batch::Fence { absorbed, .. }) => self.settle(&absorbed, outcomes, at),
                    None => {}
                }
                Ok(())
            }
            Err(error) => {
                self.note_failure(begun, &error);
                if matches!(error, DistkitError::OutcomeUnknown(BackendError::Forgotten)) {
                    return Err(self.abandon());
                }
                if first && !error.may_have_happened() {
                    self.put_back();
                }
                shared.end_if_replaced(&error);
                Err(error)
            }
        }
    }

    fn settle(&mut self, deltas: &[Delta], outcomes: Vec<Outcome<Known>>, at: u64) {
        let shared = self.shared;
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        shared.ledger.counts().add(Count::Refused, refused);
        let totals = shared.table.totals();
        for (Delta { cell, count, replace }, outcome) in deltas.iter().zip(outcomes) {
            let delta = *count;
            cell.leave_batch();
            match outcome {
                Ok(known) => {
                    cell.settle(delta, known, at, &totals);
                    self.shared.table.uncount(cell);
                }
                Err(refusal @ Refusal::NotANumber { .. }) => {
                    tracing::error!(
                        target: "distkit::lax",
                        prefix = shared.ledger.prefix(), shard = shared.ledger.counts().shard(),
                        key = %cell.key, delta, %refusal,
                        "a sum is kept until it fits"
                    );
                    self.writer.schedule.found_corrupt(Instant::now());
                    // Marked, so that later additions do not bring it back before its time.
                    cell.tally.mark();
                    if replace.is_some() {
                        cell.set_replaces(true, &totals);
                    }
                    self.writer.corrupt.push((Arc::clone(cell), refusal));
                }
                Err(refusal) => {
                    tracing::error!(
                        target: "distkit::lax",
                        prefix = shared.ledger.prefix(), shard = shared.ledger.counts().shard(),
                        key = %cell.key, delta, %refusal,
                        "a sum is lost"
                    );
                    cell.forget(delta, &totals);
                    // The total is not what it was thought to be: the next use reads it.
                    cell.forget_total();
                    self.shared.table.uncount(cell);
                    self.report(&cell.key, delta, refusal);
                }
            }
        }
    }

    /// Keeps a refusal for the next flush. One key gives one report, so that they do not pile up.
    fn report(&mut self, key: &RedisKey, delta: i64, refusal: Refusal) {
        let reports = &mut self.shared.losses.lock().refused;
        if let Some((_, sum, _)) = reports.iter_mut().find(|(known, _, _)| known == key) {
            *sum = sum.saturating_add(delta);
        } else if reports.len() < MAX_REPORTS {
            reports.push((key.clone(), delta, refusal));
        }
    }

    /// The batch certainly did not happen: its cells are dirty again.
    fn put_back(&mut self) {
        let Some(Batch::Deltas(deltas)) = self.take_unresolved() else { return };
        for Delta { cell, replace, .. } in &*deltas {
            cell.leave_batch();
            if replace.is_some() {
                cell.set_replaces(true, &self.shared.table.totals());
            }
            if cell.tally.mark() {
                self.writer.todo.push(Arc::clone(cell));
            } else if let Some(since) = *self.shared.taken_since.lock() {
                // An addition came meanwhile, and the cell is in the inbox: what is put back is older.
                self.shared.inbox.holds_since(since);
            }
        }
    }

    /// The writes happened, or a fence before this one did: what they absorb is disposed of.
    fn give_way(
        &mut self,
        absorbed: &[Delta],
        outcomes: Vec<Outcome<Known>>,
        others: &[Arc<Cell>],
        at: u64,
    ) {
        let shared = self.shared;
        let totals = shared.table.totals();
        for (Delta { cell, count, .. }, outcome) in absorbed.iter().zip(outcomes) {
            cell.leave_batch();
            match outcome {
                Ok(known) => cell.settle(*count, known, at, &totals),
                // As a rule of another item, which had its place in the batch that was applied.
                Err(_) => {
                    cell.forget(*count, &totals);
                    cell.forget_total();
                }
            }
        }
        for cell in others {
            cell.forget_total();
        }
        self.mend_known_since(at);
    }

    /// The store no longer remembers the batch: to send it again could apply it twice.
    fn abandon(&mut self) -> DistkitError {
        if let Some(what) = self.take_unresolved() {
            let totals = self.shared.table.totals();
            let mut losses = self.shared.losses.lock();
            self.shared.ledger.counts().add(Count::GivenUp, what.deltas().len());
            for Delta { cell, count, .. } in what.deltas().iter() {
                tracing::error!(
                    target: "distkit::lax",
                    prefix = self.shared.ledger.prefix(), shard = self.shared.ledger.counts().shard(),
                    key = %cell.key, delta = count,
                    "it is unknown whether the store has this sum; it is not sent again"
                );
                cell.leave_batch();
                cell.forget(*count, &totals);
                cell.forget_total();
                self.shared.table.uncount(cell);
                if losses.abandoned.len() < MAX_REPORTS {
                    losses.abandoned.push((cell.key.clone(), *count));
                }
            }
        }
        abandoned()
    }
}
