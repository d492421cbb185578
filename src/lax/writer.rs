use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::{sync::MutexGuard, time::Instant};

use super::{
    atomic::Ordering::{Relaxed, SeqCst},
    cell::Cell,
    core::{Core, Settings},
    ledger::{Committed, Delta, Known, Ledger},
    report::Unflushed,
};
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Outcome, Refusal, ReplayGuard},
};

/// Of how many keys a refusal is kept for the next flush.
const MAX_REPORTS: usize = 1000;
/// How often a key is tried whose place in the store holds something else than a number.
const CORRUPT_RETRY: Duration = Duration::from_secs(1);
/// How much earlier than it must a flush starts, in parts of the lag: timers are late.
const HEAD_START: u32 = 10;

/// What the holder of the writer lock works with. Whatever is cancelled at whatever await, this state is
/// one from which the next holder can go on.
pub(super) struct Writer {
    id: Arc<str>,
    sequence: u64,
    /// Dirty cells that were taken from the list and not sent.
    pub(super) todo: Vec<Arc<Cell>>,
    pub(super) unresolved: Option<Unresolved>,
    /// Cells whose place in the store holds no number, and when to try again.
    pub(super) corrupt: Vec<(Arc<Cell>, Refusal)>,
    pub(super) corrupt_retry: Option<Instant>,
    /// When the last flush began.
    flushed_at: Option<Instant>,
    pub(super) refused: Vec<(RedisKey, i64, Refusal)>,
    backoff: ExponentialBackoff,
    /// Set while the store does not take what is sent to it.
    pub(super) retry_at: Option<Instant>,
}

/// A batch whose outcome is not known. Nothing else is written before it is.
pub(super) struct Unresolved {
    sequence: u64,
    first_sent: Instant,
    /// Whether it may have reached the store.
    sent: bool,
    what: Batch,
}

enum Batch {
    /// Sent again, as it is, until it is answered.
    Deltas(Vec<Delta>),
    /// Writes whose caller has been told that their outcome is unknown. They are never sent again; another
    /// batch under their sequence finds out whether they happened, and else prevents that they will.
    ///
    /// That batch is `absorbed`: what the writes replace, if they happened. So a batch under the sequence has
    /// disposed of it in either case, and it does not matter which one did when an answer is lost.
    Fence { absorbed: Vec<Delta>, others: Vec<Arc<Cell>> },
}

impl Writer {
    pub(super) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            sequence: 0,
            todo: Vec::new(),
            unresolved: None,
            corrupt: Vec::new(),
            corrupt_retry: None,
            flushed_at: None,
            refused: Vec::new(),
            backoff: backoff(),
            retry_at: None,
        }
    }

    fn failed(&mut self) {
        let delay = self.backoff.next().unwrap_or(Duration::from_secs(1));
        self.retry_at = Some(Instant::now() + delay);
    }

    fn succeeded(&mut self) {
        if self.retry_at.take().is_some() {
            self.backoff = backoff();
        }
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(1))
        .without_max_times()
        .build()
}

/// The writer lock, held. All changes of a base happen in a session.
pub(crate) struct Session<'c, L: Ledger> {
    pub(super) core: &'c Arc<Core<L>>,
    pub(super) writer: MutexGuard<'c, Writer>,
    /// Whether the task is to look at what is left when the session ends.
    wakes: bool,
}

impl<L: Ledger> Drop for Session<'_, L> {
    fn drop(&mut self) {
        if self.wakes {
            self.core.ensure_task();
            self.core.wake.notify_one();
        }
    }
}

impl<L: Ledger> Core<L> {
    /// For the task.
    pub(super) async fn own_session(self: &Arc<Self>) -> Session<'_, L> {
        let mut session = Session { core: self, writer: self.writer.lock().await, wakes: false };
        session.drop_what_was_given_up();
        session
    }

    /// For a caller's own request: nothing is unresolved in it, and a flush that is due has been done, so
    /// that no number of callers can hold it up.
    pub(crate) async fn session(self: &Arc<Self>) -> Result<Session<'_, L>, DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        let mut session = self.own_session().await;
        session.wakes = true;
        session.resolve().await.map_err(not_applied)?;
        if session.flush_at().is_some_and(|at| at <= Instant::now()) {
            session.collect();
            // What failed is tried again by the task. It is in this call's way only as far as it is
            // unresolved.
            if let Err(error) = session.commit_todo().await
                && session.writer.unresolved.is_some()
            {
                return Err(not_applied(error));
            }
        }
        Ok(session)
    }

    /// Everything written before the call is in the store when this returns `Ok`.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), DistkitError> {
        let mut session = self.own_session().await;
        session.wakes = true;
        let result = session.flush_all().await;
        result?;
        match std::mem::take(&mut session.writer.refused).into_iter().next() {
            Some((key, _, refusal)) => Err(DistkitError::CounterError { key, refusal }),
            None => Ok(()),
        }
    }

    /// Takes no more writes, and flushes until all is in the store or the time is up.
    pub(crate) async fn shutdown(self: &Arc<Self>, within: Duration) -> Result<(), Unflushed> {
        self.close();
        let mut cause = None;
        let flushed = tokio::time::timeout(within, async {
            let mut delays = backoff();
            loop {
                let mut session = self.own_session().await;
                session.wakes = true;
                match session.flush_all().await {
                    Ok(()) => return std::mem::take(&mut session.writer.refused),
                    Err(error) => cause = Some(error),
                }
                drop(session);
                tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
            }
        })
        .await;
        let report = match flushed {
            Ok(refused) => Unflushed { refused, ..Unflushed::default() },
            Err(_) => {
                // It may hang in a request with the lock in its hand: that is not waited for.
                self.abort_task();
                let report = self.give_up(cause);
                self.ensure_task();
                report
            }
        };
        if report.is_empty() { Ok(()) } else { Err(report) }
    }

    /// A newer instance has this one's place: nothing that is pending can ever reach the store.
    pub(super) fn end_if_replaced(&self, error: &DistkitError) {
        if matches!(error, DistkitError::InstanceReplaced) && !self.closed_by_replacement() {
            tracing::error!(%error, "what this instance had not flushed is dropped");
        }
    }

    pub(crate) fn give_up(self: &Arc<Self>, cause: Option<DistkitError>) -> Unflushed {
        let mut report = Unflushed { cause, ..Unflushed::default() };
        for entry in self.cells.iter() {
            let cell = &entry.key().0;
            match cell.tally.pending() {
                0 if !cell.is_pending() => {}
                n if cell.in_batch.load(SeqCst) => report.unknown.push((cell.key.clone(), n)),
                n => report.pending.push((cell.key.clone(), n)),
            }
        }
        report.pending.sort_unstable();
        report.unknown.sort_unstable();
        self.given_up.store(true, SeqCst);
        if let Ok(mut writer) = self.writer.try_lock() {
            report.refused = std::mem::take(&mut writer.refused);
        }
        report
    }
}

/// An error that stopped a request before it was sent itself.
pub(crate) fn not_applied(error: DistkitError) -> DistkitError {
    match error {
        DistkitError::OutcomeUnknown(cause) => DistkitError::NotApplied(cause),
        other => other,
    }
}

impl<L: Ledger> Session<'_, L> {
    /// Moves all that is dirty to the list of what to send.
    pub(super) fn collect(&mut self) {
        let mut dirty = self.core.dirty.0.lock();
        dirty.since = None;
        self.writer.flushed_at = Some(Instant::now());
        self.writer.todo.append(&mut dirty.cells);
    }

    /// When the next flush must start; `None` when nothing is waiting for one.
    pub(super) fn flush_at(&self) -> Option<Instant> {
        let since = self.core.dirty.0.lock().since;
        if since.is_none() && self.writer.todo.is_empty() && self.writer.unresolved.is_none() {
            return None;
        }
        if let Some(at) = self.writer.retry_at {
            return Some(at);
        }
        if !self.writer.todo.is_empty() || self.writer.unresolved.is_some() {
            return Some(Instant::now());
        }
        let Settings { lag, interval, .. } = self.core.settings;
        let next = self.writer.flushed_at.map(|at| at + interval);
        since.map(|since| (since + lag - lag / HEAD_START).max(next.unwrap_or(since)))
    }

    pub(super) async fn flush_all(&mut self) -> Result<(), DistkitError> {
        self.resolve().await?;
        self.retry_corrupt();
        self.collect();
        self.commit_todo().await?;
        match self.writer.corrupt.first() {
            Some((cell, refusal)) => Err(DistkitError::refused(&cell.key, refusal.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn is_corrupt(&self, cell: &Arc<Cell>) -> bool {
        self.writer.corrupt.iter().any(|(known, _)| Arc::ptr_eq(known, cell))
    }

    /// Why a cell is among the corrupt ones.
    pub(super) fn corruption(&self, cell: &Cell) -> Refusal {
        let mut corrupt = self.writer.corrupt.iter();
        let found = corrupt.find(|(known, _)| known.key == cell.key);
        found.map_or(Refusal::NotANumber { found: String::new() }, |(_, refusal)| refusal.clone())
    }

    pub(super) fn retry_corrupt(&mut self) {
        self.writer.corrupt_retry = None;
        let writer = &mut *self.writer;
        writer.todo.extend(writer.corrupt.drain(..).map(|(cell, _)| cell));
    }

    /// Sends what is to be sent, one guarded batch after another.
    pub(super) async fn commit_todo(&mut self) -> Result<(), DistkitError> {
        while !self.writer.todo.is_empty() {
            // Before anything is taken off the list: `commit` then does not wait with it in hand.
            self.resolve().await?;
            let chunk = self.writer.todo.len().min(L::BATCH);
            let cells: Vec<_> = self.writer.todo.drain(..chunk).collect();
            self.commit(cells).await?;
        }
        Ok(())
    }

    /// Sends what is pending on these cells. On failure they are back on the list of what to send, or
    /// frozen in the unresolved batch.
    pub(crate) async fn commit(&mut self, cells: Vec<Arc<Cell>>) -> Result<(), DistkitError> {
        self.resolve().await?;
        let mut deltas = Vec::with_capacity(cells.len());
        for cell in cells {
            if cell.in_batch.load(Relaxed) {
                continue; // named twice
            }
            let taken = {
                let _replacing = self.core.replacing.lock();
                cell.take()
            };
            match taken {
                (0, None) => self.core.uncount_pending(&cell),
                (count, replace) => {
                    cell.in_batch.store(true, Relaxed);
                    deltas.push(Delta { cell, count, replace });
                }
            }
        }
        if deltas.is_empty() {
            return Ok(());
        }
        self.begin(Batch::Deltas(deltas));
        self.resolve().await
    }

    fn begin(&mut self, what: Batch) -> ReplayGuard {
        self.writer.sequence += 1;
        let sequence = self.writer.sequence;
        // What a fence is about is sent by the caller, whatever becomes of the fence.
        let sent = matches!(what, Batch::Fence { .. });
        self.writer.unresolved =
            Some(Unresolved { sequence, first_sent: Instant::now(), sent, what });
        ReplayGuard { writer: Arc::clone(&self.writer.id), sequence }
    }

    /// Announces writes that are about to be sent under the guard, and that absorb `deltas`. Until
    /// [`end_writes`](Self::end_writes) their outcome counts as unknown.
    pub(crate) fn begin_writes(&mut self, deltas: Vec<(Arc<Cell>, i64)>) -> ReplayGuard {
        let (mut absorbed, mut others) = (Vec::new(), Vec::new());
        for (cell, count) in deltas {
            match count {
                0 => others.push(cell),
                _ => absorbed.push(Delta { cell, count, replace: None }),
            }
        }
        self.begin(Batch::Fence { absorbed, others })
    }

    /// The announced writes were answered, or certainly did not happen.
    pub(crate) fn end_writes(&mut self) {
        self.writer.unresolved = None;
        self.writer.succeeded();
    }

    /// Finds out about the batch whose outcome is not known.
    pub(crate) async fn resolve(&mut self) -> Result<(), DistkitError> {
        let core = self.core;
        let writer = &mut *self.writer;
        let Some(batch) = &mut writer.unresolved else { return Ok(()) };
        if L::GUARD_LASTS.is_some_and(|lasts| batch.first_sent.elapsed() > lasts) {
            return Err(self.abandon());
        }
        let guard = ReplayGuard { writer: Arc::clone(&writer.id), sequence: batch.sequence };
        let at = core.now();
        // Set before the await: when this future is dropped in it, the batch may have been sent.
        let first = !std::mem::replace(&mut batch.sent, true);
        let (Batch::Deltas(deltas) | Batch::Fence { absorbed: deltas, .. }) = &batch.what;
        let answer = core.ledger.commit(deltas, &guard).await;
        let answer = answer.and_then(|Committed { replayed, outcomes }| {
            Ok((replayed, counted(outcomes, deltas.len())?))
        });
        match answer {
            Ok((replayed, outcomes)) => {
                writer.succeeded();
                match writer.unresolved.take().map(|batch| batch.what) {
                    Some(Batch::Deltas(deltas)) => self.settle(deltas, outcomes, at),
                    Some(Batch::Fence { absorbed, others }) if replayed => {
                        self.give_way(absorbed, others);
                    }
                    Some(Batch::Fence { absorbed, .. }) => self.settle(absorbed, outcomes, at),
                    None => {}
                }
                Ok(())
            }
            Err(error) => {
                writer.failed();
                tracing::warn!(%error, "a lax counter's batch failed; it is kept and sent again");
                if first && !error.may_have_happened() {
                    self.put_back();
                }
                core.end_if_replaced(&error);
                Err(error)
            }
        }
    }

    fn settle(&mut self, deltas: Vec<Delta>, outcomes: Vec<Outcome<Known>>, at: u64) {
        let core = self.core;
        let _replacing = core.replacing.lock();
        for (Delta { cell, count: delta, replace }, outcome) in deltas.into_iter().zip(outcomes) {
            cell.in_batch.store(false, Relaxed);
            match outcome {
                Ok(known) => {
                    cell.settle(delta, known, at);
                    self.core.uncount_pending(&cell);
                }
                Err(refusal @ Refusal::NotANumber { .. }) => {
                    tracing::error!(key = %cell.key, delta, %refusal, "a sum is kept until it fits");
                    self.writer.corrupt_retry = Some(Instant::now() + CORRUPT_RETRY);
                    // Marked, so that later additions do not bring it back before its time.
                    cell.tally.mark();
                    if replace.is_some() {
                        cell.set_replaces(true);
                    }
                    self.writer.corrupt.push((cell, refusal));
                }
                Err(refusal) => {
                    tracing::error!(key = %cell.key, delta, %refusal, "a sum is lost");
                    cell.forget(delta);
                    // The total is not what it was thought to be: the next use reads it.
                    cell.forget_total();
                    self.core.uncount_pending(&cell);
                    self.report(&cell.key, delta, refusal);
                }
            }
        }
    }

    /// Keeps a refusal for the next flush. One key gives one report, so that they do not pile up.
    fn report(&mut self, key: &RedisKey, delta: i64, refusal: Refusal) {
        let reports = &mut self.writer.refused;
        if let Some((_, sum, _)) = reports.iter_mut().find(|(known, _, _)| known == key) {
            *sum = sum.saturating_add(delta);
        } else if reports.len() < MAX_REPORTS {
            reports.push((key.clone(), delta, refusal));
        }
    }

    /// The batch certainly did not happen: its cells are dirty again.
    fn put_back(&mut self) {
        let Some(Batch::Deltas(deltas)) = self.writer.unresolved.take().map(|batch| batch.what)
        else {
            return;
        };
        for Delta { cell, replace, .. } in deltas {
            cell.in_batch.store(false, Relaxed);
            if replace.is_some() {
                let _replacing = self.core.replacing.lock();
                cell.set_replaces(true);
            }
            if cell.tally.mark() {
                self.writer.todo.push(cell);
            }
        }
    }

    /// The writes happened, or a fence before this one did: what they absorb is disposed of.
    fn give_way(&self, absorbed: Vec<Delta>, others: Vec<Arc<Cell>>) {
        let _replacing = self.core.replacing.lock();
        for Delta { cell, count, .. } in &absorbed {
            cell.forget(*count);
        }
        for cell in absorbed.iter().map(|delta| &delta.cell).chain(&others) {
            cell.forget_total();
        }
    }

    /// The store no longer remembers the batch: to send it again could apply it twice.
    fn abandon(&mut self) -> DistkitError {
        let what = self.writer.unresolved.take().map(|batch| batch.what);
        if let Some(Batch::Deltas(deltas) | Batch::Fence { absorbed: deltas, .. }) = what {
            let _replacing = self.core.replacing.lock();
            for Delta { cell, count: delta, .. } in deltas {
                tracing::error!(key = %cell.key, delta, "the store was away for so long that nobody \
                    can find out whether it has this sum; it is not sent again");
                cell.in_batch.store(false, Relaxed);
                cell.forget(delta);
                cell.forget_total();
                self.core.uncount_pending(&cell);
            }
        }
        DistkitError::OutcomeUnknown(BackendError::outcome_unknown(
            "a batch was not answered for longer than the store remembers its guard",
        ))
    }

    /// After a shutdown that ran out of time: what it reported as left is not sent.
    fn drop_what_was_given_up(&mut self) {
        if !self.core.given_up.swap(false, SeqCst) {
            return;
        }
        self.collect();
        self.writer.unresolved = None;
        self.writer.todo.clear();
        self.writer.corrupt.clear();
        self.writer.corrupt_retry = None;
        self.writer.succeeded();
        let _replacing = self.core.replacing.lock();
        for entry in self.core.cells.iter() {
            let cell = &entry.key().0;
            cell.in_batch.store(false, Relaxed);
            match cell.take() {
                (0, None) => {}
                (delta, _) => {
                    cell.forget(delta);
                    cell.forget_total();
                }
            }
            self.core.uncount_pending(cell);
        }
    }
}

pub(super) fn counted<T>(answers: Vec<T>, asked: usize) -> Result<Vec<T>, BackendError> {
    if answers.len() == asked {
        return Ok(answers);
    }
    Err(BackendError::outcome_unknown(format!(
        "the store gave {} answers to a request for {asked} items",
        answers.len()
    )))
}
