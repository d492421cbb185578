//! What a process knows of one key.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    tally::{Tally, in_fast_range},
};
use crate::RedisKey;

/// For how many refreshes a key is kept fresh after it was read.
const REFRESHES: u8 = 4;

/// Longer ago than any lag, on a counter's clock.
const LONG_AGO: u64 = 1;

const NOT_IN_BATCH: u8 = 0;
const IN_BATCH: u8 = 1;
const IN_BATCH_WITH_MUCH: u8 = 2;

/// How a key stands in the store: this process's part of the total, and the rest of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) own: i64,
    pub(crate) others: i64,
}

/// The lock on the totals of a counter's cells, held: while a base moves, and while an estimate and whether it
/// replaces what the store holds change together.
pub(crate) struct Totals<'t> {
    _lock: MutexGuard<'t, ()>,
}

#[derive(Default)]
pub(crate) struct TotalsLock(Mutex<()>);

impl TotalsLock {
    pub(crate) fn hold(&self) -> Totals<'_> {
        Totals { _lock: self.0.lock() }
    }
}

/// What a process knows of one key.
pub(crate) struct Cell {
    pub(crate) key: RedisKey,
    /// The number of the window that it counts in; 0 without windows.
    pub(crate) window: u64,
    pub(crate) tally: Tally<Flags>,
    /// What others hold of the total, modulo 2^64; 0 for a plain counter.
    others: AtomicI64,
    /// How much of what is in the tally was promised: additions under tokens, which are not sent with the rest. Changed
    /// with the lock on totals only.
    promised: AtomicI64,
    /// When the known total was asked for, in microseconds of the counter's clock; 0 when it is not known.
    known_at: AtomicU64,
}

/// What else there is to a cell, in a byte each.
pub(crate) struct Flags {
    /// The estimate replaces what the store holds instead of being added to.
    replaces: AtomicBool,
    /// Used since the last sweep.
    touched: AtomicBool,
    /// Counted among the keys with pending writes.
    counted: AtomicBool,
    /// Whether it is in the batch in flight, and with how much. Changed by the holder of the writer lock.
    batch: AtomicU8,
    /// Scratch of a pass over cells. Only the holder of the writer lock looks.
    seen: AtomicBool,
    /// How many more refreshes the key gets; 0 when it is not on the refresh list.
    refreshes: AtomicU8,
}

impl Cell {
    /// Nothing is known of its total, unless it was 0 at that time.
    pub(crate) fn new(key: RedisKey, window: u64, zero_at: u64) -> Self {
        Self {
            key,
            window,
            tally: Tally::new(Flags {
                replaces: AtomicBool::new(false),
                touched: AtomicBool::new(true),
                counted: AtomicBool::new(false),
                batch: AtomicU8::new(NOT_IN_BATCH),
                seen: AtomicBool::new(false),
                refreshes: AtomicU8::new(0),
            }),
            others: AtomicI64::new(0),
            promised: AtomicI64::new(0),
            known_at: AtomicU64::new(zero_at),
        }
    }

    #[inline]
    fn flags(&self) -> &Flags {
        &self.tally.rest
    }

    #[inline]
    pub(crate) fn counted(&self) -> &AtomicBool {
        &self.flags().counted
    }

    pub(crate) fn seen(&self) -> &AtomicBool {
        &self.flags().seen
    }

    #[inline]
    pub(crate) fn known_at(&self) -> u64 {
        self.known_at.load(SeqCst)
    }

    /// The total is no longer known: the next use reads it. Gives when it was known.
    pub(crate) fn forget_total(&self) -> u64 {
        self.known_at.swap(0, SeqCst)
    }

    /// Takes back a [`forget_total`](Self::forget_total): nothing had happened.
    pub(crate) fn total_stands(&self, known_at: u64) {
        self.known_at.store(known_at, SeqCst);
    }

    /// The total is known, but from too long ago to be read.
    pub(crate) fn outdate(&self) {
        if self.known_at() != 0 {
            self.known_at.store(LONG_AGO, SeqCst);
        }
    }

    /// `taken` of what was pending is part of what the store answered to a request sent `at`.
    pub(crate) fn settle(&self, taken: i64, known: Known, at: u64, _: &Totals<'_>) {
        if self.flags().replaces.load(SeqCst) {
            self.tally.rebase(known.own);
        } else {
            self.tally.settle(taken, known.own);
        }
        self.others.store(known.others, SeqCst);
        self.known_at.store(at, SeqCst);
    }

    /// `taken` of what was pending will never reach the store.
    pub(crate) fn forget(&self, taken: i64, _: &Totals<'_>) {
        if !self.flags().replaces.load(SeqCst) {
            self.tally.forget(taken);
        }
    }

    /// For the committer: what to send, and no longer dirty.
    pub(crate) fn take(&self, _: &Totals<'_>) -> (i64, Option<i64>) {
        let delta = self.tally.take().wrapping_sub(self.promised.load(SeqCst));
        let replaces = self.flags().replaces.swap(false, SeqCst);
        (delta, replaces.then(|| self.tally.acknowledged().wrapping_add(delta)))
    }

    /// Sets whether the estimate replaces what the store holds, and gives whether it did.
    pub(crate) fn set_replaces(&self, replaces: bool, _: &Totals<'_>) -> bool {
        self.flags().replaces.swap(replaces, SeqCst)
    }

    /// What is added and not acknowledged, but what was promised.
    pub(crate) fn pending(&self, _: &Totals<'_>) -> i64 {
        self.tally.pending().wrapping_sub(self.promised.load(SeqCst))
    }

    pub(crate) fn is_pending(&self, totals: &Totals<'_>) -> bool {
        self.pending(totals) != 0 || self.flags().replaces.load(SeqCst)
    }

    /// Adds what is to be sent by itself, and gives the estimate; `None`, and nothing changed, when that would not fit.
    pub(crate) fn promise(&self, count: i64, totals: &Totals<'_>) -> Option<i64> {
        if !self.has_room_beside_batch(count, totals) {
            return None;
        }
        let estimate = self.tally.add_checked(count)?;
        self.promised.fetch_add(count, SeqCst);
        Some(estimate)
    }

    /// `promised` of it is part of `total`, which the store answered to a request sent `at`. For plain counters.
    pub(crate) fn settle_promised(&self, promised: i64, total: i64, at: u64, totals: &Totals<'_>) {
        self.promised.fetch_sub(promised, SeqCst);
        self.settle(promised, Known { own: total, others: 0 }, at, totals);
    }

    /// `promised` of it will never reach the store, or is in the total already. The next use reads that.
    pub(crate) fn forget_promised(&self, promised: i64, totals: &Totals<'_>) {
        self.promised.fetch_sub(promised, SeqCst);
        self.forget(promised, totals);
        self.forget_total();
    }

    /// So much of what is pending is in flight from now on.
    pub(crate) fn enter_batch(&self, count: i64, _: &Totals<'_>) {
        self.flags()
            .batch
            .store(if in_fast_range(count) { IN_BATCH } else { IN_BATCH_WITH_MUCH }, SeqCst);
    }

    pub(crate) fn leave_batch(&self) {
        self.flags().batch.store(NOT_IN_BATCH, SeqCst);
    }

    pub(crate) fn is_in_batch(&self) -> bool {
        self.flags().batch.load(SeqCst) != NOT_IN_BATCH
    }

    /// Whether `count` leaves a sum that fits also when what is in flight leaves it. Refuses too much rather than
    /// too little.
    pub(crate) fn has_room_beside_batch(&self, count: i64, _: &Totals<'_>) -> bool {
        match self.flags().batch.load(SeqCst) {
            NOT_IN_BATCH => true,
            IN_BATCH => self.tally.pending().checked_add(count).is_some_and(in_fast_range),
            _ => false,
        }
    }

    #[inline]
    pub(crate) fn others(&self) -> i64 {
        self.others.load(Relaxed)
    }

    #[inline]
    pub(crate) fn estimate(&self) -> i64 {
        self.with_others(self.tally.estimate())
    }

    #[inline]
    pub(crate) fn with_others(&self, own: i64) -> i64 {
        let others = self.others();
        match own.checked_add(others) {
            Some(total) if in_fast_range(own) => total,
            _ => self.with_others_checked(own, others),
        }
    }

    /// `others` may have wrapped; the acknowledged total has not, and what is pending counts from there.
    #[cold]
    fn with_others_checked(&self, own: i64, others: i64) -> i64 {
        let base = self.tally.acknowledged();
        base.wrapping_add(others).saturating_add(own.wrapping_sub(base))
    }

    /// Protects the cell from the next sweep.
    #[inline]
    pub(crate) fn touch(&self) {
        // A store only when it changes something: the line stays shared between readers.
        if !self.flags().touched.load(Relaxed) {
            self.flags().touched.store(true, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn is_touched(&self) -> bool {
        self.flags().touched.load(Relaxed)
    }

    /// For the sweep: whether the cell was used since the last one.
    pub(crate) fn untouch(&self) -> bool {
        self.flags().touched.swap(false, Relaxed)
    }

    /// Says that the total was read. True when the caller must put the cell on the refresh list.
    #[inline]
    pub(crate) fn keep_fresh(&self) -> bool {
        self.flags().refreshes.load(SeqCst) != REFRESHES
            && self.flags().refreshes.swap(REFRESHES, SeqCst) == 0
    }

    /// For the committer: whether the cell stays on the list.
    pub(crate) fn use_up_refresh(&self) -> bool {
        self.flags().refreshes.fetch_sub(1, SeqCst) > 1
    }
}

/// Tells a cell from others as long as somebody has it.
pub(crate) fn address(cell: &Arc<Cell>) -> usize {
    Arc::as_ptr(cell) as usize
}

/// A cell in the map, found by its key: the map need not hold the key a second time.
pub(crate) struct ByKey(pub(crate) Arc<Cell>);

impl Borrow<str> for ByKey {
    #[inline]
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.as_str().hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}
