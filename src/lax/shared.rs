//! What callers and the committer of a counter share.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
    cell::{Cell, Totals},
    gate::Gate,
    inbox::Inbox,
    ledger::{Delta, Ledger},
    promises::Promises,
    report::{Losses, TokenFate, Unflushed, UnflushedToken},
    settings::Settings,
    table::Table,
};
use crate::{DistkitError, RedisKey, gauges::Level, outage::Chain, stats::Count};

/// The number of no window: the store has not told its time.
const NO_WINDOW: u64 = u64::MAX;

pub(crate) struct Shared<L> {
    pub(crate) ledger: L,
    pub(super) settings: Settings,
    pub(super) table: Table,
    pub(super) inbox: Inbox,
    pub(super) promises: Promises,
    pub(super) gate: Gate,
    pub(super) has_windows: bool,
    /// The number of the current window.
    window: AtomicU64,
    /// When that was found to begin, within a lag of its beginning; 0 where it was later.
    began_at: AtomicU64,
    /// The clock was read since the store was asked for its time.
    uses_clock: AtomicBool,
    /// What is in the batch in flight.
    pub(super) under_way: Mutex<Option<Arc<Vec<Delta>>>>,
    pub(super) losses: Mutex<Losses>,
    /// How old the oldest write is, at most, that the committer has taken from the inbox and not brought to the store.
    pub(super) taken_since: Mutex<Option<Instant>>,
    /// Its number among those that count together.
    pub(super) engine: usize,
    epoch: OnceLock<Instant>,
}

impl<L: Ledger> Shared<L> {
    pub(super) fn new(ledger: L, settings: Settings) -> Self {
        let engine = ledger.counts().next_engine();
        let has_windows = ledger.has_windows();
        Self {
            has_windows,
            window: AtomicU64::new(if has_windows { NO_WINDOW } else { 0 }),
            began_at: AtomicU64::new(0),
            uses_clock: AtomicBool::new(false),
            ledger,
            settings: settings.within_bounds(),
            table: Table::new(),
            inbox: Inbox::default(),
            promises: Promises::default(),
            gate: Gate::default(),
            under_way: Mutex::default(),
            losses: Mutex::default(),
            taken_since: Mutex::default(),
            engine,
            epoch: OnceLock::new(),
        }
    }

    /// Microseconds since a moment before the first call, longer before it than the lag.
    pub(super) fn now(&self) -> u64 {
        let before = micros(self.settings.lag).saturating_add(2);
        micros(self.epoch.get_or_init(Instant::now).elapsed()).saturating_add(before)
    }

    /// Whether a cell is of the current window.
    #[inline]
    pub(super) fn is_current(&self, cell: &Cell) -> bool {
        cell.window == self.window.load(Relaxed)
    }

    /// The number of the current window, and whether it is known.
    pub(super) fn window(&self) -> (u64, bool) {
        let window = self.window.load(SeqCst);
        (window, window != NO_WINDOW)
    }

    /// The key's cell of the current window.
    pub(super) fn cell(&self, key: &RedisKey) -> Arc<Cell> {
        let (window, _) = self.window();
        self.cell_in(key, window)
    }

    pub(super) fn cell_in(&self, key: &RedisKey, window: u64) -> Arc<Cell> {
        let began_at = self.began_at.load(SeqCst);
        // A key that was not used for so long is read.
        let long_ago = self.now().saturating_sub(began_at) > micros(self.settings.evict_after);
        self.table.cell(key, window, if long_ago { 0 } else { began_at })
    }

    /// Moves to the window that is current by the clock.
    pub(super) fn look_at_clock(&self) {
        let Some(current) = self.ledger.current_window() else { return };
        if self.window.load(SeqCst) != current.number {
            let has_just_begun = current.since <= self.settings.lag;
            self.began_at.store(if has_just_begun { self.now() } else { 0 }, SeqCst);
            self.window.store(current.number, SeqCst);
        }
    }

    /// The same for a caller, who finds out about the window that its write belongs to.
    #[inline]
    pub(super) fn use_clock(&self) {
        if self.has_windows {
            self.uses_clock.store(true, Relaxed);
            self.look_at_clock();
        }
    }

    pub(super) fn takes_use_of_clock(&self) -> bool {
        self.uses_clock.swap(false, SeqCst)
    }

    /// Finds out about the current window; asks the store for its time, if it was not asked yet.
    pub(super) async fn find_window(&self) -> Result<(), DistkitError> {
        self.use_clock();
        if !self.window().1 {
            self.ledger.ask_time().await?;
            self.use_clock();
        }
        Ok(())
    }

    /// Whether a total that was asked for at `known_at` may be answered.
    #[inline]
    pub(super) fn is_fresh(&self, known_at: u64) -> bool {
        known_at != 0 && self.now().saturating_sub(known_at) <= micros(self.settings.lag)
    }

    /// What is pending, and for how long.
    pub(super) fn level(&self) -> Level {
        let pending_keys = self.number_pending();
        if pending_keys == 0 {
            return Level::default();
        }
        let sums = [*self.taken_since.lock(), self.inbox.dirty_since()];
        let since = sums.into_iter().chain([self.promises.since()]).flatten().min();
        Level {
            pending_keys: u64::try_from(pending_keys).unwrap_or(u64::MAX),
            oldest: since.map(|since| since.elapsed()),
        }
    }

    /// How many keys, and additions under tokens, the store has not acknowledged.
    pub(super) fn number_pending(&self) -> usize {
        self.table.number_pending() + self.promises.number()
    }

    pub(super) fn has_pending(&self) -> bool {
        self.number_pending() != 0
    }

    /// Whether the task has something to do for anybody.
    pub(super) fn is_waited_for(&self) -> bool {
        self.has_pending() || self.inbox.is_waited_for() || self.gate.is_orphaned()
    }

    /// The instance has left, or a newer one has its place: nothing that is pending can ever reach the store.
    pub(super) fn end_if_replaced(&self, error: &DistkitError) {
        if !matches!(error, DistkitError::InstanceReplaced | DistkitError::ShutDown) {
            return;
        }
        self.gate.give_up();
        if !self.gate.close() && self.table.has_pending() {
            self.ledger.counts().add(Count::GivenUp, self.table.number_pending());
            let (prefix, pending_keys) = (self.ledger.prefix(), self.table.number_pending());
            let shard = self.ledger.counts().shard();
            tracing::error!(
                target: "distkit::lax",
                prefix, shard, pending_keys, error = %Chain(error),
                "the pending writes of this instance are dropped"
            );
        }
    }

    /// Reports all that the store has not acknowledged, and has it dropped.
    pub(super) fn give_up(&self, cause: Option<DistkitError>) -> Unflushed {
        let mut report = {
            let mut losses = self.losses.lock();
            // The attempt that is in flight has not failed yet; those before it have.
            let cause = cause.or_else(|| losses.last_failure.clone());
            Unflushed { cause, ..losses.report() }
        };
        let cells = self.table.all();
        // Keep the lock until the report is complete: the committer takes it before it drops pending sums.
        let totals = self.table.totals();
        self.gate.give_up();
        let under_way = self.under_way.lock().clone();
        let sent: HashMap<_, _, foldhash::fast::RandomState> = under_way
            .iter()
            .flat_map(|deltas| deltas.iter())
            .map(|delta| (Arc::as_ptr(&delta.cell), delta.count))
            .collect();
        for cell in &cells {
            report_cell(cell, sent.get(&Arc::as_ptr(cell)).copied(), &mut report, &totals);
        }
        report.pending.sort_unstable();
        report.unknown.sort_unstable();
        let (sent, unsent) = self.promises.list();
        let left = sent.len() + unsent.len();
        let fates = sent.iter().map(|promise| (promise, TokenFate::Unknown));
        let fates = fates.chain(unsent.iter().map(|promise| (promise, TokenFate::Pending)));
        report.tokens.extend(fates.map(|(promise, fate)| UnflushedToken::of(promise, fate)));
        if !report.is_empty() {
            let keys = report.pending.len() + report.unknown.len() + left;
            self.ledger.counts().add(Count::GivenUp, keys);
            self.gate.note_loss();
        }
        report
    }
}

fn report_cell(cell: &Cell, sent: Option<i64>, report: &mut Unflushed, totals: &Totals<'_>) {
    let left = cell.pending(totals);
    // Just about to be sent, or perhaps not.
    let sent = sent.or_else(|| cell.is_in_batch().then_some(left));
    if let Some(sent) = sent {
        report.unknown.push((cell.key.clone(), sent));
    }
    let left = left.wrapping_sub(sent.unwrap_or(0));
    if left != 0 || sent.is_none() && cell.is_pending(totals) {
        report.pending.push((cell.key.clone(), left));
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
