//! The cells of a counter, how many of them have something pending, and the lock on their totals.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::{
    apart::Apart,
    cell::{ByKey, Cell, Totals, TotalsLock},
    pending::Pending,
};
use crate::{DistkitError, RedisKey};

pub(super) struct Table {
    cells: DashMap<ByKey, (), foldhash::fast::RandomState>,
    /// Those of earlier windows that something is to be done with.
    earlier: Mutex<Vec<Arc<Cell>>>,
    totals: TotalsLock,
    pending: Apart<Pending>,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            cells: DashMap::with_hasher(foldhash::fast::RandomState::default()),
            earlier: Mutex::default(),
            totals: TotalsLock::default(),
            pending: Apart::default(),
        }
    }

    /// Takes the lock on totals.
    pub(super) fn totals(&self) -> Totals<'_> {
        self.totals.hold()
    }

    /// The key's cell of the window, which a sweep may have dropped or may drop again before it is read. Takes the
    /// place of that of another window, whose total is then taken as 0 since then: 0 for as unknown.
    pub(super) fn cell(&self, key: &RedisKey, window: u64, zero_since: u64) -> Arc<Cell> {
        let mut zero_at = 0;
        if let Some(entry) = self.cells.get(key.as_str()) {
            if entry.key().0.window == window {
                entry.key().0.touch();
                return Arc::clone(&entry.key().0);
            }
            zero_at = zero_since;
        }
        let mut earlier = None;
        self.cells.remove_if(key.as_str(), |cell, ()| {
            let of_another = cell.0.window != window;
            earlier = of_another.then(|| Arc::clone(&cell.0));
            of_another
        });
        // A count of 1 means that nobody else has the cell or can get it.
        if let Some(cell) = earlier
            && (Arc::strong_count(&cell) > 1 || cell.tally.is_dirty())
        {
            self.earlier.lock().push(cell);
        }
        let new = ByKey(Arc::new(Cell::new(key.clone(), window, zero_at)));
        let entry = self.cells.entry(new).or_default();
        Arc::clone(&entry.key().0)
    }

    /// The cells of the key in that window, several where the clock has gone back and forth.
    pub(super) fn all_in(&self, key: &RedisKey, window: u64) -> Vec<Arc<Cell>> {
        let of_window = |cell: &Arc<Cell>| (cell.window == window).then(|| Arc::clone(cell));
        let in_use = self.with(key, of_window);
        let earlier = self.earlier.lock();
        let earlier = earlier.iter().filter(|cell| cell.key == *key).filter_map(of_window);
        in_use.into_iter().chain(earlier).collect()
    }

    /// Works on a key's cell, if there is one.
    #[inline]
    pub(super) fn with<T>(
        &self,
        key: &RedisKey,
        work: impl FnOnce(&Arc<Cell>) -> Option<T>,
    ) -> Option<T> {
        let entry = self.cells.get(key.as_str())?;
        work(&entry.key().0)
    }

    pub(super) fn all(&self) -> Vec<Arc<Cell>> {
        let mut all: Vec<_> = self.cells.iter().map(|entry| Arc::clone(&entry.key().0)).collect();
        all.extend_from_slice(&self.earlier.lock());
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Drops the cells that were not used since the last sweep. False when there is no use in another sweep
    /// before somebody uses the counter again; and how many were dropped.
    pub(super) fn sweep(&self) -> (bool, usize) {
        let (mut more, mut dropped) = (false, 0);
        self.cells.retain(|cell, ()| {
            let cell = &cell.0;
            // The shard is locked, so a count of 1 means that nobody else has the cell or can get it.
            let used = cell.untouch() || cell.tally.is_dirty();
            more |= used;
            let stays = used || Arc::strong_count(cell) > 1;
            dropped += usize::from(!stays);
            stays
        });
        if self.cells.is_empty() {
            self.cells.shrink_to_fit();
        }
        let mut earlier = self.earlier.lock();
        earlier.retain(|cell| Arc::strong_count(cell) > 1 || cell.tally.is_dirty());
        earlier.shrink_to_fit();
        more |= !earlier.is_empty();
        (more, dropped)
    }

    /// Counts a cell that is about to be dirty, if there is room.
    pub(super) fn try_count(&self, cell: &Cell, limit: usize) -> Result<(), DistkitError> {
        if self.pending.0.try_count(cell, limit) {
            Ok(())
        } else {
            Err(DistkitError::TooManyPending { limit })
        }
    }

    /// Counts a cell that is dirty.
    pub(super) fn count(&self, cell: &Cell) {
        self.pending.0.count(cell);
    }

    /// For the committer: the cell has nothing pending, unless it is dirty again.
    pub(super) fn uncount(&self, cell: &Cell) {
        if !cell.tally.is_dirty() {
            self.pending.0.uncount(cell);
        }
    }

    /// How many keys have writes that the store has not acknowledged.
    pub(super) fn number_pending(&self) -> usize {
        self.pending.0.number()
    }

    pub(super) fn has_pending(&self) -> bool {
        self.number_pending() != 0
    }
}
