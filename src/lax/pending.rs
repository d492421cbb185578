//! How many keys have something pending.

use super::{
    atomic::{AtomicUsize, Ordering::SeqCst},
    cell::Cell,
};

/// How many cells have something to commit, or in flight. Never less than are counted, and for a
/// moment more.
///
/// What marks a cell as dirty counts it after that, and who uncounts a cell looks for a mark after that: so
/// one of them sees what the other has done, and a dirty cell is counted in the end.
#[derive(Default)]
pub(super) struct Pending(AtomicUsize);

impl Pending {
    /// Counts a cell that is about to be dirty, unless `limit` others are.
    pub(super) fn try_count(&self, cell: &Cell, limit: usize) -> bool {
        if cell.counted().load(SeqCst) {
            return true;
        }
        let room = self.0.fetch_add(1, SeqCst) < limit;
        if !room || cell.counted().swap(true, SeqCst) {
            self.0.fetch_sub(1, SeqCst);
        }
        room
    }

    /// Counts a cell that is dirty, whether or not there is room.
    pub(super) fn count(&self, cell: &Cell) {
        self.try_count(cell, usize::MAX);
    }

    /// Uncounts a cell, unless it is dirty again.
    pub(super) fn uncount(&self, cell: &Cell) {
        if cell.counted().swap(false, SeqCst) {
            self.0.fetch_sub(1, SeqCst);
        }
        if cell.tally.is_dirty() {
            self.count(cell);
        }
    }

    pub(super) fn number(&self) -> usize {
        self.0.load(SeqCst)
    }
}
