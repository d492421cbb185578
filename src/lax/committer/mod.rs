//! Sends changes to the store and moves totals, under the writer lock.
//!
//! Cancel-safe: at each await the state is one that the next committer can continue from.

mod batch;
mod exchange;
mod exclusive;
mod promises;

use std::sync::Arc;

use tokio::{sync::MutexGuard, time::Instant};

use self::promises::{Promised, told_of};
use super::{
    cell::Cell,
    ledger::{Delta, Ledger},
    report::Unflushed,
    schedule::Schedule,
    shared::Shared,
};
use crate::{
    DistkitError,
    backend::{BackendError, Refusal},
    outage::{Chain, Standing, Told},
};

/// What a committer leaves to the next one.
pub(super) struct Writer {
    id: Arc<str>,
    sequence: u64,
    /// Dirty cells that were taken from the inbox and not sent.
    todo: Vec<Arc<Cell>>,
    unresolved: Option<Unresolved>,
    promised: Option<Promised>,
    /// Cells whose place in the store holds no number.
    corrupt: Vec<(Arc<Cell>, Refusal)>,
    schedule: Schedule,
    outage: Told,
    /// Of additions under tokens that the store turns down.
    promise_outage: Told,
}

/// A batch whose outcome is not known. Nothing else is written before it is.
struct Unresolved {
    sequence: u64,
    first_sent: Instant,
    /// Whether it may have reached the store.
    sent: bool,
    what: Batch,
}

enum Batch {
    /// Sent again, as it is, until it is answered.
    Deltas(Arc<Vec<Delta>>),
    /// Writes whose caller has been told that their outcome is unknown. They are never sent again; another
    /// batch under their sequence finds out whether they happened, and else prevents that they will.
    ///
    /// That batch is `absorbed`: what the writes replace, if they happened. So a batch under the sequence has
    /// disposed of it in either case, and it does not matter which one did when an answer is lost.
    Fence { absorbed: Arc<Vec<Delta>>, others: Vec<Arc<Cell>> },
}

impl Writer {
    pub(super) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            sequence: 0,
            todo: Vec::new(),
            unresolved: None,
            promised: None,
            corrupt: Vec::new(),
            schedule: Schedule::new(),
            outage: Told::default(),
            promise_outage: Told::default(),
        }
    }
}

pub(crate) struct Committer<'c, L: Ledger> {
    shared: &'c Shared<L>,
    writer: MutexGuard<'c, Writer>,
}

impl<'c, L: Ledger> Committer<'c, L> {
    pub(super) fn new(shared: &'c Shared<L>, writer: MutexGuard<'c, Writer>) -> Self {
        let mut committer = Self { shared, writer };
        committer.drop_what_was_given_up();
        committer
    }

    pub(super) fn schedule(&mut self) -> &mut Schedule {
        &mut self.writer.schedule
    }

    /// When the next flush must start; `None` when nothing is waiting for one.
    pub(super) fn flush_at(&self) -> Option<Instant> {
        let begun = !self.writer.todo.is_empty() || self.writer.unresolved.is_some();
        let since = self.shared.inbox.dirty_since();
        self.writer.schedule.flush_at(since, begun, Instant::now(), self.shared.settings)
    }

    /// A caller's flush, which reports what was lost since the last one.
    pub(super) async fn flush(&mut self) -> Result<(), DistkitError> {
        let shared = self.shared;
        let told = shared.losses.lock().abandoned.len();
        if let Err(error) = self.flush_all().await {
            // Already returned to this caller.
            shared.losses.lock().abandoned.truncate(told);
            return Err(error);
        }
        if shared.gate.has_lost() {
            return Err(DistkitError::ShutDown);
        }
        let mut losses = shared.losses.lock();
        if !std::mem::take(&mut losses.abandoned).is_empty() {
            // Refusals are told by the next one.
            return Err(abandoned());
        }
        let replayed = losses.take_replayed();
        let tokens = std::mem::replace(&mut losses.tokens, replayed);
        if let Some((key, _, refusal)) = std::mem::take(&mut losses.refused).into_iter().next() {
            return Err(DistkitError::CounterError { key, refusal });
        }
        tokens.into_iter().try_for_each(told_of)
    }

    pub(super) async fn flush_and_report(&mut self) -> Result<Unflushed, DistkitError> {
        self.flush_all().await?;
        Ok(self.shared.losses.lock().report())
    }

    async fn flush_all(&mut self) -> Result<(), DistkitError> {
        self.resolve().await?;
        // What a store turns down of these does not hold up sums.
        let promises = self.send_all_promises().await;
        self.retry_corrupt();
        self.collect();
        self.commit_todo().await?;
        promises?;
        match self.writer.corrupt.first() {
            Some((cell, refusal)) => Err(DistkitError::refused(&cell.key, refusal.clone())),
            None => Ok(()),
        }
    }

    /// The last flush of a counter without users. Gives when to try what is left again.
    pub(super) async fn flush_for_good(&mut self) -> Option<Instant> {
        if self.flush_all().await.is_ok() {
            return None;
        }
        let again = self.writer.schedule.retry_at();
        Some(again.unwrap_or_else(|| Instant::now() + std::time::Duration::from_secs(1)))
    }

    /// Before what acts on the store at once: nothing is unresolved then, and a flush that is due has been done,
    /// so that no number of callers can hold it up.
    async fn prepare(&mut self) -> Result<(), DistkitError> {
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

    /// Brings what is pending on a key to the store.
    pub(super) async fn flush_key(&mut self, cell: Arc<Cell>) -> Result<(), DistkitError> {
        self.prepare().await?;
        self.flush_promises(Arc::clone(&cell)).await?;
        self.commit(vec![cell]).await.map_err(not_applied)
    }

    /// Moves all that is dirty to the list of what to send.
    fn collect(&mut self) {
        let writer = &mut *self.writer;
        if let Some(since) = self.shared.inbox.take_dirty(&mut writer.todo) {
            self.shared.taken_since.lock().get_or_insert(since);
        }
        writer.schedule.flushes(Instant::now());
    }

    /// Sends what is to be sent, one guarded batch after another.
    async fn commit_todo(&mut self) -> Result<(), DistkitError> {
        while !self.writer.todo.is_empty() {
            // Before anything is taken off the list: `commit` then does not wait with it in hand.
            self.resolve().await?;
            let chunk = self.chunk();
            let cells: Vec<_> = self.writer.todo.drain(..chunk).collect();
            self.commit(cells).await?;
        }
        Ok(())
    }

    /// How many cells of the list go into the next batch, which is for one window.
    fn chunk(&mut self) -> usize {
        let todo = &mut self.writer.todo;
        let most = todo.len().min(L::BATCH);
        if !self.shared.has_windows {
            return most;
        }
        if !todo.is_sorted_by_key(|cell| cell.window) {
            // Stable: that of a key before another of the same window stays before it.
            todo.sort_by_key(|cell| cell.window);
        }
        let window = todo.first().map(|cell| cell.window);
        todo[..most].iter().take_while(|cell| Some(cell.window) == window).count()
    }

    /// The store did not take a batch that was sent then: it is sent again later.
    fn note_failure(&mut self, begun: Instant, error: &DistkitError) {
        let shared = self.shared;
        shared.losses.lock().last_failure = Some(error.clone());
        self.writer.schedule.failed(Instant::now());
        if let Some(Standing { attempts, lasted }) = self.writer.outage.failed(begun) {
            let (prefix, counts) = (shared.ledger.prefix(), shared.ledger.counts());
            let (shard, counter) = (counts.shard(), counts.kind());
            let pending_keys = shared.number_pending();
            tracing::warn!(
                target: "distkit::lax",
                prefix, shard, counter, pending_keys, attempts, ?lasted, error = %Chain(error),
                "cannot flush; the writes stay pending and are sent again"
            );
        }
    }

    /// The store took a batch.
    fn note_success(&mut self) {
        let shared = self.shared;
        self.writer.schedule.succeeded();
        shared.losses.lock().last_failure = None;
        if let Some(Standing { attempts, lasted }) = self.writer.outage.ended() {
            let (prefix, counts) = (shared.ledger.prefix(), shared.ledger.counts());
            let (shard, counter) = (counts.shard(), counts.kind());
            tracing::info!(
                target: "distkit::lax",
                prefix, shard, counter, failed_attempts = attempts, ?lasted,
                "flushing again"
            );
        }
    }

    fn is_corrupt(&self, cell: &Arc<Cell>) -> bool {
        self.writer.corrupt.iter().any(|(known, _)| Arc::ptr_eq(known, cell))
    }

    /// Why a cell is among the corrupt ones.
    fn corruption(&self, cell: &Cell) -> Refusal {
        let mut corrupt = self.writer.corrupt.iter();
        let found = corrupt.find(|(of, _)| of.key == cell.key && of.window == cell.window);
        found.map_or(Refusal::NotANumber { found: String::new() }, |(_, refusal)| refusal.clone())
    }

    /// Cells of which one knows that there is a number in their place are sent with the next flush.
    fn mend(&mut self, is_mended: impl Fn(&Arc<Cell>) -> bool) {
        let writer = &mut *self.writer;
        let mended = writer.corrupt.extract_if(.., |(cell, _)| is_mended(cell));
        writer.todo.extend(mended.map(|(cell, _)| cell));
    }

    /// The same for those whose total an answer to a request sent `at`, or later, has told.
    fn mend_known_since(&mut self, at: u64) {
        self.mend(|cell| cell.known_at() >= at);
    }

    fn retry_corrupt(&mut self) {
        let writer = &mut *self.writer;
        writer.schedule.tries_corrupt();
        writer.todo.extend(writer.corrupt.drain(..).map(|(cell, _)| cell));
    }

    /// After a shutdown that ran out of time: what it reported as left is not sent.
    fn drop_what_was_given_up(&mut self) {
        let shared = self.shared;
        if !shared.gate.take_given_up() {
            return;
        }
        self.collect();
        self.take_unresolved();
        self.drop_promises();
        self.writer.todo.clear();
        self.writer.corrupt.clear();
        self.writer.schedule.tries_corrupt();
        // No recovery: the store did not take anything.
        self.writer.schedule.succeeded();
        self.writer.outage.ended();
        let cells = shared.table.all();
        let totals = shared.table.totals();
        for cell in &cells {
            let was_in_batch = cell.is_in_batch();
            cell.leave_batch();
            match cell.take(&totals) {
                (0, None) if !was_in_batch => {}
                (delta, _) => {
                    cell.forget(delta, &totals);
                    cell.forget_total();
                }
            }
            shared.table.uncount(cell);
        }
    }
}

impl<L: Ledger> Drop for Committer<'_, L> {
    /// What has been done is done: says how much is pending.
    fn drop(&mut self) {
        let Writer { todo, unresolved, corrupt, .. } = &*self.writer;
        if todo.is_empty() && unresolved.is_none() && corrupt.is_empty() {
            self.shared.taken_since.lock().take();
        }
        let shared = self.shared;
        shared.ledger.counts().set_level(shared.engine, || shared.level());
    }
}

/// An error that stopped a request before it was sent itself.
fn not_applied(error: DistkitError) -> DistkitError {
    match error {
        DistkitError::OutcomeUnknown(cause) => DistkitError::NotApplied(cause),
        other => other,
    }
}

/// What became of a batch that was given up.
fn abandoned() -> DistkitError {
    DistkitError::OutcomeUnknown(BackendError::outcome_unknown(
        "a batch was not answered for longer than the store remembers its guard",
    ))
}
