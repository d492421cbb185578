//! What the handles of both families are made of.

use std::sync::Arc;

use super::{
    cell::Cell,
    engine::{Engine, Owner},
    ledger::Ledger,
};
use crate::{DistkitError, backend::Refusal};

/// A user's hold on one cell: it stays in memory, and its counter alive. What the handles of both
/// families are made of.
pub(crate) struct Hold<L: Ledger> {
    pub(crate) cell: Arc<Cell>,
    owner: Arc<Owner<L>>,
}

impl<L: Ledger> Hold<L> {
    pub(crate) fn new(owner: &Arc<Owner<L>>, cell: Arc<Cell>) -> Self {
        Self { cell, owner: Arc::clone(owner) }
    }

    #[inline]
    pub(crate) fn engine(&self) -> &Arc<Engine<L>> {
        &self.owner.0
    }

    /// What to add to subtract `count`.
    #[inline]
    pub(crate) fn negated(&self, count: i64) -> Result<i64, DistkitError> {
        count.checked_neg().ok_or_else(|| DistkitError::refused(&self.cell.key, Refusal::Overflow))
    }
}

impl<L: Ledger> Clone for Hold<L> {
    fn clone(&self) -> Self {
        Self { cell: Arc::clone(&self.cell), owner: Arc::clone(&self.owner) }
    }
}

impl<L: Ledger> Drop for Hold<L> {
    fn drop(&mut self) {
        // The key may be forgotten from now on; the task plans a sweep whenever it is woken.
        self.engine().wake_task();
    }
}
