//! The numbers of one key, shared without a lock between callers and the one who commits.
//!
//! This file uses nothing but atomics, so that `checks/tests/loom_lax.rs` can explore its interleavings.

use super::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

/// A value and a base within this, plus an `i32`, cannot wrap. Sums beyond it are checked.
const FAST: i64 = 1 << 62;

/// A value found beyond this makes all further additions checked: long before additions of an `i32` each that
/// have begun can leave `FAST`.
const NEAR_LIMIT: i64 = 1 << 61;

/// A total that callers add to while a committer moves the additions to the store.
///
/// `value` is the last acknowledged total plus everything added here that is not acknowledged. There is no
/// separate "pending" number: a reader would see it change apart from the total.
pub(crate) struct Tally<R = ()> {
    value: AtomicI64,
    /// The last acknowledged total. Only the committer writes it.
    base: AtomicI64,
    /// Whether additions may be waiting that no task was asked to commit.
    dirty: AtomicBool,
    /// Whether additions are to be checked.
    near_limit: AtomicBool,
    /// What the owner keeps in the 6 bytes that are left of the last word.
    pub(crate) rest: R,
}

impl<R> Tally<R> {
    pub(crate) fn new(rest: R) -> Self {
        Self {
            value: AtomicI64::new(0),
            base: AtomicI64::new(0),
            dirty: AtomicBool::new(false),
            near_limit: AtomicBool::new(false),
            rest,
        }
    }

    /// Adds in one step, where that can be done, and gives the new estimate; else `None`, and nothing changed:
    /// [`add_checked`](Self::add_checked) then. Follow both with [`mark`](Self::mark).
    #[inline]
    pub(crate) fn add_fast(&self, count: i64) -> Option<i64> {
        if self.near_limit.load(SeqCst) || i32::try_from(count).is_err() {
            return None;
        }
        let value = self.value.fetch_add(count, SeqCst).wrapping_add(count);
        if within(value, NEAR_LIMIT) { Some(value) } else { self.beyond_near_limit(value, count) }
    }

    #[cold]
    fn beyond_near_limit(&self, value: i64, count: i64) -> Option<i64> {
        self.set_near_limit();
        if in_fast_range(value) {
            return Some(value);
        }
        // A large count was added by a checked addition after this one had begun.
        self.value.fetch_sub(count, SeqCst);
        None
    }

    #[cold]
    fn set_near_limit(&self) {
        self.near_limit.swap(true, SeqCst);
    }

    /// Adds a count of any size where the sum stays near; else `None`, and nothing changed.
    #[cold]
    pub(crate) fn add_near(&self, count: i64) -> Option<i64> {
        let mut value = self.value.load(SeqCst);
        loop {
            let sum = value.checked_add(count).filter(|sum| within(*sum, NEAR_LIMIT))?;
            if self.near_limit.load(SeqCst) {
                return None;
            }
            match self.value.compare_exchange(value, sum, SeqCst, SeqCst) {
                Ok(_) => return Some(sum),
                Err(now) => value = now,
            }
        }
    }

    /// Adds, and gives the new estimate; `None`, and nothing changed, when the sum or what is pending would not
    /// fit. Not while the base moves.
    #[cold]
    pub(crate) fn add_checked(&self, count: i64) -> Option<i64> {
        let mut value = self.value.load(SeqCst);
        loop {
            let base = self.base.load(SeqCst);
            let pending = value.wrapping_sub(base).checked_add(count)?;
            let estimate = base.checked_add(pending)?;
            let sum = value.wrapping_add(count);
            if !within(sum, NEAR_LIMIT) {
                self.set_near_limit();
            }
            match self.value.compare_exchange(value, sum, SeqCst, SeqCst) {
                Ok(_) => return Some(estimate),
                Err(now) => value = now,
            }
        }
    }

    /// Makes the estimate `value`, whatever it was; `value` must be in the fast range. Follow it with
    /// [`mark`](Self::mark).
    pub(crate) fn replace(&self, value: i64) {
        debug_assert!(in_fast_range(value));
        if !within(value, NEAR_LIMIT) {
            self.set_near_limit();
        }
        self.value.store(value, SeqCst);
    }

    /// For the committer: the store holds `total`; the estimate stays, because it is to replace it.
    pub(crate) fn rebase(&self, total: i64) {
        self.moving_to(total);
        self.base.store(total, SeqCst);
        self.moved_to(total);
    }

    /// For the committer: the last acknowledged total.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.base.load(SeqCst)
    }

    /// The last known total plus what is pending, held within `i64`.
    #[inline]
    pub(crate) fn estimate(&self) -> i64 {
        let value = self.value.load(SeqCst);
        if !self.near_limit.load(SeqCst) {
            return value;
        }
        // Others may have moved the total so far that the sum has wrapped; the difference has not.
        let base = self.base.load(SeqCst);
        base.saturating_add(value.wrapping_sub(base))
    }

    #[inline]
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(SeqCst)
    }

    /// Says that something was added. True when the caller must hand the tally to the committer.
    ///
    /// The load before the swap keeps a hot key's line shared. It is enough: if it still sees the mark,
    /// the committer has yet to clear it, and reads `value` after that.
    #[inline]
    pub(crate) fn mark(&self) -> bool {
        !self.dirty.load(SeqCst) && !self.dirty.swap(true, SeqCst)
    }

    /// For the committer: clears the mark, then gives what is pending.
    pub(crate) fn take(&self) -> i64 {
        self.dirty.swap(false, SeqCst);
        self.pending()
    }

    /// For the committer: what is added and not acknowledged.
    pub(crate) fn pending(&self) -> i64 {
        self.value.load(SeqCst).wrapping_sub(self.base.load(SeqCst))
    }

    /// For the committer: `taken` of what was pending is part of `total` now, which the store holds.
    pub(crate) fn settle(&self, taken: i64, total: i64) {
        self.moving_to(total);
        let base = self.base.load(SeqCst);
        self.value.fetch_add(total.wrapping_sub(base).wrapping_sub(taken), SeqCst);
        self.base.store(total, SeqCst);
        self.moved_to(total);
    }

    /// For the committer, before the base changes.
    fn moving_to(&self, total: i64) {
        if !within(total, NEAR_LIMIT) {
            self.set_near_limit();
        }
    }

    /// For the committer, after the base has changed. Checked additions are excluded meanwhile. If a concurrent fast
    /// addition passes the limit unseen, the next one sets the flag.
    fn moved_to(&self, total: i64) {
        if self.near_limit.load(SeqCst)
            && within(total, NEAR_LIMIT)
            && within(self.value.load(SeqCst), NEAR_LIMIT)
        {
            self.near_limit.swap(false, SeqCst);
        }
    }

    /// For the committer: `taken` of what was pending will never reach the store.
    pub(crate) fn forget(&self, taken: i64) {
        self.value.fetch_sub(taken, SeqCst);
    }
}

/// Whether sums with `n` need no care.
#[inline]
pub(crate) fn in_fast_range(n: i64) -> bool {
    within(n, FAST)
}

#[inline]
fn within(n: i64, bound: i64) -> bool {
    (-bound..bound).contains(&n)
}
