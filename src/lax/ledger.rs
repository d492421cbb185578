//! What buffering requires of a store. Implementations do not depend on the caller or on timing.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    cell::{Cell, Known},
    promises::Promise,
};
use crate::{
    DistkitError,
    answers::Item,
    backend::{AddedOnce, BackendError, Outcome, ReplayGuard, Scope},
    counts::Counts,
};

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

/// The current window of a ledger's counters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CurrentWindow {
    /// Its number: that of a later one is greater.
    pub(crate) number: u64,
    /// How long ago it began.
    pub(crate) since: Duration,
    /// How long it still lasts.
    pub(crate) left: Duration,
}

/// What the buffering needs of a store, whichever family of counters it is for.
#[async_trait]
pub(crate) trait Ledger: Send + Sync + 'static {
    /// How many keys go into one batch: a batch of this size costs the store little more per key than a
    /// bigger one, and does not hold up its other clients.
    const BATCH: usize;

    /// How long the store surely remembers a guard; `None` for as long as it matters.
    const GUARD_LASTS: Option<Duration>;

    /// Does each delta, in one guarded batch. Also one without deltas uses up the guard's sequence. All cells are of one
    /// window.
    async fn commit(
        &self,
        deltas: &[Delta],
        guard: &ReplayGuard,
    ) -> Result<Committed, DistkitError>;

    async fn read(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, DistkitError>;

    /// A change that acts on the store at once, and what it finds and leaves behind.
    type Write: Item + Clone + Send + Sync + 'static;
    type Written: Send + 'static;

    /// Does each write, in one guarded batch, in that window.
    async fn write(
        &self,
        window: u64,
        writes: &[Self::Write],
        guard: &ReplayGuard,
    ) -> Result<Vec<Outcome<Self::Written>>, DistkitError>;

    /// Whether a write leaves nothing of what its key held, so that what is pending need not be sent before it.
    fn replaces(write: &Self::Write) -> bool;

    /// How a write left its key; `None` where it changed nothing.
    fn left_by(write: &Self::Write, outcome: &Outcome<Self::Written>) -> Option<Known>;

    /// Whether additions go on, from the last known total, to a key of which it is unknown whether a write
    /// happened. Else they read it first.
    const ADDS_IN_DOUBT: bool;

    /// Counts `pending` to what the key held before.
    fn held_besides(written: &mut Self::Written, pending: i64);

    /// Removes every counter of that window, or the own part of each.
    async fn clear(&self, window: u64, scope: Scope) -> Result<(), DistkitError>;

    /// Whether the counters are in windows. Without, the number of the only one is 0.
    fn has_windows(&self) -> bool {
        false
    }

    /// The current window, by an estimate of the store's clock; `None` until the store was asked for its time. No I/O.
    fn current_window(&self) -> Option<CurrentWindow> {
        None
    }

    /// Asks the store for the time, by which windows go.
    async fn ask_time(&self) -> Result<(), DistkitError> {
        Ok(())
    }

    /// Does each addition under its token, once. Also one that is sent again.
    async fn add_promised(
        &self,
        _promises: &[Promise],
        _resent: bool,
    ) -> Result<Vec<Outcome<AddedOnce>>, DistkitError> {
        Err(BackendError::not_applied("these counters have no tokens").into())
    }

    /// How long the store surely remembers a token.
    fn tokens_last(&self) -> Duration {
        Duration::MAX
    }

    /// The counter has ended: nothing is to go on in the background, whoever holds this.
    fn end(&self);

    fn fresh_id(&self) -> Arc<str>;

    /// Where the engine counts what it does.
    fn counts(&self) -> &Counts;

    /// The prefix of the counters, for the log.
    fn prefix(&self) -> &str;
}
