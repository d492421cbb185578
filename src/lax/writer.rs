use std::{collections::HashMap, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::{sync::MutexGuard, time::Instant};

use super::{
    atomic::Ordering::SeqCst,
    batch::{self, Unresolved},
    cell::Cell,
    core::Core,
    ledger::Ledger,
    report::Unflushed,
    request::Interrupted,
    settings::Settings,
};
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Refusal},
    outage::{Chain, Outage, Standing},
};

/// How much earlier than it must a flush starts, in parts of the lag: timers are late.
const HEAD_START: u32 = 10;

/// Why a caller gets no answer although nothing was sent for it.
pub(super) const INTERRUPTED: &str = "the counter's task ended before it came to the request";

/// What the holder of the writer lock works with. Whatever is cancelled at whatever await, this state is
/// one from which the next holder can go on.
pub(super) struct Writer {
    pub(super) id: Arc<str>,
    pub(super) sequence: u64,
    /// Dirty cells that were taken from the list and not sent.
    pub(super) todo: Vec<Arc<Cell>>,
    pub(super) unresolved: Option<Unresolved>,
    /// Cells whose place in the store holds no number, and when to try again.
    pub(super) corrupt: Vec<(Arc<Cell>, Refusal)>,
    pub(super) corrupt_retry: Option<Instant>,
    /// When the last flush began.
    flushed_at: Option<Instant>,
    backoff: ExponentialBackoff,
    /// Set while the store does not take what is sent to it.
    pub(super) retry_at: Option<Instant>,
    outage: Outage,
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
            backoff: backoff(),
            retry_at: None,
            outage: Outage::default(),
        }
    }

    /// Schedules the next attempt. Returns how the outage stands if a line in the log is due.
    fn failed(&mut self) -> Option<Standing> {
        let delay = self.backoff.next().unwrap_or(Duration::from_secs(1));
        self.retry_at = Some(Instant::now() + delay);
        self.outage.failed()
    }

    /// An answer was lost: the store is given a moment before the task finds out what happened.
    pub(super) fn pause(&mut self) {
        self.retry_at.get_or_insert_with(|| Instant::now() + FIRST_DELAY);
    }

    fn succeeded(&mut self) -> Option<Standing> {
        if self.retry_at.take().is_some() {
            self.backoff = backoff();
        }
        self.outage.ended()
    }
}

/// The first delay between attempts to reach the store.
const FIRST_DELAY: Duration = Duration::from_millis(20);

/// The delays between attempts to reach the store.
pub(crate) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(Duration::from_secs(1))
        .without_max_times()
        .build()
}

/// The writer lock, held. All changes of a base happen in a session.
pub(crate) struct Session<'c, L: Ledger> {
    pub(super) core: &'c Arc<Core<L>>,
    pub(super) writer: MutexGuard<'c, Writer>,
}

impl<L: Ledger> Core<L> {
    /// For the task, and for callers where there can be none.
    pub(super) async fn session(self: &Arc<Self>) -> Session<'_, L> {
        let mut session = Session { core: self, writer: self.writer.lock().await };
        session.drop_what_was_given_up();
        session
    }

    /// Everything written before the call is in the store when this returns `Ok`.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), DistkitError> {
        match self.ask_again(|session| Box::pin(session.flush())).await {
            Ok(flushed) => flushed,
            Err(Interrupted) if self.gave_up() => Err(DistkitError::ShutDown),
            Err(Interrupted) => Err(BackendError::not_applied(INTERRUPTED).into()),
        }
    }

    /// Brings what is pending on a key to the store.
    pub(crate) async fn flush_key(self: &Arc<Self>, key: &RedisKey) -> Result<(), DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        let cell = self.cell(key);
        let flushed = self.ask_again(|session| {
            Box::pin(async move {
                session.prepare().await?;
                session.commit(vec![cell]).await.map_err(not_applied)
            })
        });
        let interrupted = |Interrupted| Err(BackendError::not_applied(INTERRUPTED).into());
        flushed.await.unwrap_or_else(interrupted)
    }

    /// Takes no more writes, and flushes until all is in the store or the time is up.
    pub(crate) async fn shutdown(self: &Arc<Self>, within: Duration) -> Result<(), Unflushed> {
        self.close();
        let mut cause = None;
        let flushed = tokio::time::timeout(within, async {
            let mut delays = backoff();
            loop {
                match self.ask(|session| Box::pin(session.flush_and_report())).await {
                    Ok(Ok(report)) => return report,
                    Ok(Err(error)) => cause = Some(error),
                    Err(Interrupted) => {}
                }
                tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
            }
        })
        .await;
        let report = match flushed {
            Ok(report) => report,
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

    /// The instance has left, or a newer one has its place: nothing that is pending can ever reach the store.
    pub(super) fn end_if_replaced(&self, error: &DistkitError) {
        let ended = matches!(error, DistkitError::InstanceReplaced | DistkitError::ShutDown);
        if ended && !self.closed_by_replacement() && self.has_pending() {
            let (prefix, pending_keys) = (self.ledger.prefix(), self.pending.0.number());
            tracing::error!(
                target: "distkit::lax",
                prefix, pending_keys, error = %Chain(error),
                "the pending writes of this instance are dropped"
            );
        }
    }

    pub(crate) fn give_up(self: &Arc<Self>, cause: Option<DistkitError>) -> Unflushed {
        let mut report = {
            let mut losses = self.losses.lock();
            // The attempt that is in flight has not failed yet; those before it have.
            let cause = cause.or_else(|| losses.last_failure.clone());
            Unflushed { cause, ..losses.report() }
        };
        let cells = self.all_cells();
        // Held to the end: who finds that it is given up drops what is pending, and waits for this.
        let _replacing = self.replacing.lock();
        self.given_up.store(true, SeqCst);
        let under_way = self.under_way.lock().clone();
        let sent: HashMap<_, _, foldhash::fast::RandomState> = under_way
            .iter()
            .flat_map(|deltas| deltas.iter())
            .map(|delta| (Arc::as_ptr(&delta.cell) as usize, delta.count))
            .collect();
        for cell in &cells {
            let left = cell.tally.pending();
            let sent = match sent.get(&(Arc::as_ptr(cell) as usize)) {
                Some(sent) => Some(*sent),
                // Just about to be sent, or perhaps not.
                None => cell.is_in_batch().then_some(left),
            };
            if let Some(sent) = sent {
                report.unknown.push((cell.key.clone(), sent));
            }
            let left = left.wrapping_sub(sent.unwrap_or(0));
            if left != 0 || sent.is_none() && cell.is_pending() {
                report.pending.push((cell.key.clone(), left));
            }
        }
        report.pending.sort_unstable();
        report.unknown.sort_unstable();
        if !report.is_empty() {
            self.note_loss();
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
    /// Before what acts on the store at once: nothing is unresolved then, and a flush that is due has been done,
    /// so that no number of callers can hold it up.
    pub(super) async fn prepare(&mut self) -> Result<(), DistkitError> {
        self.resolve().await.map_err(not_applied)?;
        if self.flush_at().is_some_and(|at| at <= Instant::now()) {
            self.collect();
            // What failed is tried again later. It is in this call's way only as far as it is unresolved.
            if let Err(error) = self.commit_todo().await
                && self.writer.unresolved.is_some()
            {
                return Err(not_applied(error));
            }
        }
        Ok(())
    }

    /// A caller's flush, which reports what was lost since the last one.
    async fn flush(&mut self) -> Result<(), DistkitError> {
        let core = self.core;
        let told = core.losses.lock().abandoned.len();
        if let Err(error) = self.flush_all().await {
            // What it found out itself it has told.
            core.losses.lock().abandoned.truncate(told);
            return Err(error);
        }
        if core.gave_up() {
            return Err(DistkitError::ShutDown);
        }
        let mut losses = core.losses.lock();
        if !std::mem::take(&mut losses.abandoned).is_empty() {
            // Refusals are told by the next one.
            return Err(batch::abandoned());
        }
        match std::mem::take(&mut losses.refused).into_iter().next() {
            Some((key, _, refusal)) => Err(DistkitError::CounterError { key, refusal }),
            None => Ok(()),
        }
    }

    async fn flush_and_report(&mut self) -> Result<Unflushed, DistkitError> {
        self.flush_all().await?;
        Ok(self.core.losses.lock().report())
    }

    /// The store did not take a batch: it is sent again later.
    pub(super) fn note_failure(&mut self, error: &DistkitError) {
        let core = self.core;
        core.losses.lock().last_failure = Some(error.clone());
        if let Some(Standing { attempts, lasted }) = self.writer.failed() {
            let (prefix, pending_keys) = (core.ledger.prefix(), core.pending.0.number());
            tracing::warn!(
                target: "distkit::lax",
                prefix, pending_keys, attempts, ?lasted, error = %Chain(error),
                "cannot flush; the writes stay pending and are sent again"
            );
        }
    }

    /// The store took a batch.
    pub(super) fn note_success(&mut self) {
        let core = self.core;
        if let Some(Standing { attempts, lasted }) = self.writer.succeeded() {
            core.losses.lock().last_failure = None;
            let prefix = core.ledger.prefix();
            tracing::info!(
                target: "distkit::lax",
                prefix, failed_attempts = attempts, ?lasted,
                "flushing again"
            );
        }
    }

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

    /// Cells of which one knows that there is a number in their place are sent with the next flush.
    pub(super) fn mend(&mut self, is_mended: impl Fn(&Arc<Cell>) -> bool) {
        let writer = &mut *self.writer;
        let mended = writer.corrupt.extract_if(.., |(cell, _)| is_mended(cell));
        writer.todo.extend(mended.map(|(cell, _)| cell));
    }

    /// The same for those whose total an answer to a request sent `at`, or later, has told.
    pub(crate) fn mend_known_since(&mut self, at: u64) {
        self.mend(|cell| cell.known_at() >= at);
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

    /// After a shutdown that ran out of time: what it reported as left is not sent.
    pub(super) fn drop_what_was_given_up(&mut self) {
        if !self.core.given_up.swap(false, SeqCst) {
            return;
        }
        self.collect();
        self.take_unresolved();
        self.writer.todo.clear();
        self.writer.corrupt.clear();
        self.writer.corrupt_retry = None;
        // No recovery: the store did not take anything.
        self.writer.succeeded();
        let cells = self.core.all_cells();
        let _replacing = self.core.replacing.lock();
        for cell in &cells {
            let was_in_batch = cell.is_in_batch();
            cell.leave_batch();
            match cell.take() {
                (0, None) if !was_in_batch => {}
                (delta, _) => {
                    cell.forget(delta);
                    cell.forget_total();
                }
            }
            self.core.uncount_pending(cell);
        }
    }
}
