use std::sync::Arc;

use async_trait::async_trait;

use super::cell::Cell;
use crate::backend::{BackendError, Outcome, ReplayGuard};

/// How a key stands in the store: this process's part of the total, and the rest of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) own: i64,
    pub(crate) others: i64,
}

/// What the buffering needs of a store, whichever family of counters it is for.
#[async_trait]
pub(crate) trait Ledger: Send + Sync + 'static {
    /// Adds each delta, in one guarded batch.
    async fn commit(
        &self,
        deltas: &[(Arc<Cell>, i64)],
        guard: &ReplayGuard,
    ) -> Result<Vec<Outcome<Known>>, BackendError>;

    /// Uses up the guard's sequence. True when the batch under that guard had been applied.
    async fn fence(&self, guard: &ReplayGuard) -> Result<bool, BackendError>;

    async fn read(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, BackendError>;

    fn fresh_id(&self) -> Arc<str>;
}
