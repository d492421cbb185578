use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::cell::Cell;
use crate::{
    DistkitError,
    backend::{Outcome, ReplayGuard},
};

/// How a key stands in the store: this process's part of the total, and the rest of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) own: i64,
    pub(crate) others: i64,
}

/// What a flush is to do to one key.
pub(crate) struct Delta {
    pub(crate) cell: Arc<Cell>,
    /// What is added by it to the own part.
    pub(crate) count: i64,
    /// What the own part becomes, where it is to be replaced instead.
    pub(crate) replace: Option<i64>,
}

/// The answer to a batch.
pub(crate) struct Committed {
    /// A batch under this guard had been applied before: nothing was changed.
    pub(crate) replayed: bool,
    pub(crate) outcomes: Vec<Outcome<Known>>,
}

/// What the buffering needs of a store, whichever family of counters it is for.
#[async_trait]
pub(crate) trait Ledger: Send + Sync + 'static {
    /// How many keys go into one batch: a batch of this size costs the store little more per key than a
    /// bigger one, and does not hold up its other clients.
    const BATCH: usize;

    /// How long the store surely remembers a guard; `None` for as long as it matters.
    const GUARD_LASTS: Option<Duration>;

    /// Does each delta, in one guarded batch. Also one without deltas uses up the guard's sequence.
    async fn commit(
        &self,
        deltas: &[Delta],
        guard: &ReplayGuard,
    ) -> Result<Committed, DistkitError>;

    async fn read(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, DistkitError>;

    fn fresh_id(&self) -> Arc<str>;

    /// The prefix of the counters, for the log.
    fn prefix(&self) -> &str;
}
