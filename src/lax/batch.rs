//! A batch that is under way, and what becomes of its cells.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    atomic::Ordering::SeqCst,
    cell::Cell,
    ledger::{Committed, Delta, Known, Ledger},
    writer::Session,
};
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Outcome, Refusal, ReplayGuard},
};

/// Of how many keys a refusal, or that they were given up, is kept for the next flush.
const MAX_REPORTS: usize = 1000;
/// How often a key is tried whose place in the store holds something else than a number.
const CORRUPT_RETRY: Duration = Duration::from_secs(1);

/// A batch whose outcome is not known. Nothing else is written before it is.
pub(super) struct Unresolved {
    sequence: u64,
    first_sent: Instant,
    /// Whether it may have reached the store.
    sent: bool,
    what: Batch,
}

pub(super) enum Batch {
    /// Sent again, as it is, until it is answered.
    Deltas(Arc<Vec<Delta>>),
    /// Writes whose caller has been told that their outcome is unknown. They are never sent again; another
    /// batch under their sequence finds out whether they happened, and else prevents that they will.
    ///
    /// That batch is `absorbed`: what the writes replace, if they happened. So a batch under the sequence has
    /// disposed of it in either case, and it does not matter which one did when an answer is lost.
    Fence { absorbed: Arc<Vec<Delta>>, others: Vec<Arc<Cell>> },
}

impl Batch {
    fn deltas(&self) -> &Arc<Vec<Delta>> {
        let (Self::Deltas(deltas) | Self::Fence { absorbed: deltas, .. }) = self;
        deltas
    }
}

impl<L: Ledger> Session<'_, L> {
    /// Sends what is pending on these cells. On failure they are back on the list of what to send, or
    /// frozen in the unresolved batch.
    pub(crate) async fn commit(&mut self, cells: Vec<Arc<Cell>>) -> Result<(), DistkitError> {
        self.resolve().await?;
        let mut deltas = Vec::with_capacity(cells.len());
        for cell in cells {
            if cell.is_in_batch() {
                continue; // named twice
            }
            let taken = {
                let _replacing = self.core.replacing.lock();
                let taken = cell.take();
                if taken != (0, None) {
                    cell.enter_batch(taken.0);
                }
                taken
            };
            match taken {
                (0, None) => self.core.uncount_pending(&cell),
                (count, replace) => {
                    deltas.push(Delta { cell, count, replace });
                }
            }
        }
        if deltas.is_empty() {
            return Ok(());
        }
        // Who gives up looks at who is in a batch after having said so: one of the two sees the other.
        if self.core.given_up.load(SeqCst) {
            self.drop_what_was_given_up();
            return Err(DistkitError::ShutDown);
        }
        self.begin(Batch::Deltas(Arc::new(deltas)));
        self.resolve().await
    }

    fn begin(&mut self, what: Batch) -> ReplayGuard {
        self.writer.sequence += 1;
        let sequence = self.writer.sequence;
        *self.core.under_way.lock() = Some(Arc::clone(what.deltas()));
        // What a fence is about is sent by the caller, whatever becomes of the fence.
        let sent = matches!(what, Batch::Fence { .. });
        self.writer.unresolved =
            Some(Unresolved { sequence, first_sent: Instant::now(), sent, what });
        ReplayGuard { writer: Arc::clone(&self.writer.id), sequence, resent: false }
    }

    /// Announces writes that are about to be sent under the guard, and that absorb `deltas`. Until
    /// [`end_writes`](Self::end_writes) their outcome counts as unknown.
    pub(crate) fn begin_writes(&mut self, deltas: Vec<(Arc<Cell>, i64)>) -> ReplayGuard {
        let (mut absorbed, mut others) = (Vec::new(), Vec::new());
        for (cell, count) in deltas {
            match count {
                0 => others.push(cell),
                _ => {
                    cell.enter_batch(count);
                    absorbed.push(Delta { cell, count, replace: None });
                }
            }
        }
        self.begin(Batch::Fence { absorbed: Arc::new(absorbed), others })
    }

    /// The batch is resolved.
    pub(super) fn take_unresolved(&mut self) -> Option<Batch> {
        *self.core.under_way.lock() = None;
        self.writer.unresolved.take().map(|batch| batch.what)
    }

    /// The announced writes were answered, or certainly did not happen.
    pub(crate) fn end_writes(&mut self) {
        if let Some(what) = self.take_unresolved() {
            what.deltas().iter().for_each(|delta| delta.cell.leave_batch());
        }
        self.note_success();
    }

    /// Finds out about the batch whose outcome is not known.
    pub(crate) async fn resolve(&mut self) -> Result<(), DistkitError> {
        let core = self.core;
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
        let at = core.now();
        let deltas = batch.what.deltas();
        let answer = core.ledger.commit(deltas, &guard).await;
        match answer {
            Ok(Committed { replayed, outcomes }) => {
                self.note_success();
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
                self.note_failure(&error);
                if matches!(error, DistkitError::OutcomeUnknown(BackendError::Forgotten)) {
                    return Err(self.abandon());
                }
                if first && !error.may_have_happened() {
                    self.put_back();
                }
                core.end_if_replaced(&error);
                Err(error)
            }
        }
    }

    fn settle(&mut self, deltas: &[Delta], outcomes: Vec<Outcome<Known>>, at: u64) {
        let core = self.core;
        let _replacing = core.replacing.lock();
        for (Delta { cell, count, replace }, outcome) in deltas.iter().zip(outcomes) {
            let delta = *count;
            cell.leave_batch();
            match outcome {
                Ok(known) => {
                    cell.settle(delta, known, at);
                    self.core.uncount_pending(cell);
                }
                Err(refusal @ Refusal::NotANumber { .. }) => {
                    tracing::error!(
                        target: "distkit::lax",
                        prefix = core.ledger.prefix(), key = %cell.key, delta, %refusal,
                        "a sum is kept until it fits"
                    );
                    self.writer.corrupt_retry = Some(Instant::now() + CORRUPT_RETRY);
                    // Marked, so that later additions do not bring it back before its time.
                    cell.tally.mark();
                    if replace.is_some() {
                        cell.set_replaces(true);
                    }
                    self.writer.corrupt.push((Arc::clone(cell), refusal));
                }
                Err(refusal) => {
                    tracing::error!(
                        target: "distkit::lax",
                        prefix = core.ledger.prefix(), key = %cell.key, delta, %refusal,
                        "a sum is lost"
                    );
                    cell.forget(delta);
                    // The total is not what it was thought to be: the next use reads it.
                    cell.forget_total();
                    self.core.uncount_pending(cell);
                    self.report(&cell.key, delta, refusal);
                }
            }
        }
    }

    /// Keeps a refusal for the next flush. One key gives one report, so that they do not pile up.
    fn report(&mut self, key: &RedisKey, delta: i64, refusal: Refusal) {
        let reports = &mut self.core.losses.lock().refused;
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
                let _replacing = self.core.replacing.lock();
                cell.set_replaces(true);
            }
            if cell.tally.mark() {
                self.writer.todo.push(Arc::clone(cell));
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
        let core = self.core;
        let _replacing = core.replacing.lock();
        for (Delta { cell, count, .. }, outcome) in absorbed.iter().zip(outcomes) {
            cell.leave_batch();
            match outcome {
                Ok(known) => cell.settle(*count, known, at),
                // As a rule of another item, which had its place in the batch that was applied.
                Err(_) => {
                    cell.forget(*count);
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
            let _replacing = self.core.replacing.lock();
            let mut losses = self.core.losses.lock();
            for Delta { cell, count, .. } in what.deltas().iter() {
                tracing::error!(
                    target: "distkit::lax",
                    prefix = self.core.ledger.prefix(), key = %cell.key, delta = count,
                    "it is unknown whether the store has this sum; it is not sent again"
                );
                cell.leave_batch();
                cell.forget(*count);
                cell.forget_total();
                self.core.uncount_pending(cell);
                if losses.abandoned.len() < MAX_REPORTS {
                    losses.abandoned.push((cell.key.clone(), *count));
                }
            }
        }
        abandoned()
    }
}

/// What became of a batch that was given up.
pub(super) fn abandoned() -> DistkitError {
    DistkitError::OutcomeUnknown(BackendError::outcome_unknown(
        "a batch was not answered for longer than the store remembers its guard",
    ))
}
