//! The plain counters of a space, as buffering needs them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    CounterComparator, DistkitError, RedisKey, Token, Window,
    answers::{named, only},
    backend::{
        AddedOnce, Backend, BackendError, Change, Outcome, Refusal, ReplayGuard, Resolved, Scope,
        TokenAdd, Write, Written,
    },
    counts::Counts,
    lax::{Cell, Committed, CurrentWindow, Delta, Known, Ledger, Promise},
    space_store::SpaceStore,
    strict,
};

/// The plain counters of a space: the whole total is "own", for nobody's share is told apart.
pub(super) struct Plain<B: ?Sized> {
    pub(super) store: SpaceStore<B>,
    pub(super) keep_tokens: Duration,
    pub(super) strict: strict::Settings,
}

impl<B: Backend + ?Sized> Plain<B> {
    /// The window of that number: its start.
    fn window(&self, number: u64) -> Option<Window> {
        let clock = self.store.clock()?;
        Some(clock.windows().at(Duration::from_millis(number)))
    }

    pub(super) async fn resolve(
        &self,
        asked: &[(RedisKey, Token)],
    ) -> Result<Resolved, DistkitError> {
        only(named(asked, self.store.resolve_tokens(asked, self.keep_tokens).await?))
    }

    pub(super) async fn forbid(
        &self,
        asked: &[(RedisKey, Token)],
    ) -> Result<Resolved, DistkitError> {
        let deadline = self.strict.deadline();
        let known = self.store.forbid_tokens(asked, self.keep_tokens, deadline).await;
        let known = known.map_err(DistkitError::from).and_then(|known| only(named(asked, known)));
        self.store.counts().told(known)
    }
}

/// Why a window takes no sums any more, where that is what the error says.
fn gone(error: BackendError) -> Result<Refusal, DistkitError> {
    match error {
        BackendError::WindowClosed => Ok(Refusal::WindowClosed),
        BackendError::WindowLost => Ok(Refusal::WindowLost),
        error => Err(error.into()),
    }
}

fn known(total: i64) -> Known {
    Known { own: total, others: 0 }
}

#[async_trait]
impl<B: Backend + ?Sized> Ledger for Plain<B> {
    const BATCH: usize = 1000;

    /// The store forgets a guard a day after its last batch.
    const GUARD_LASTS: Option<Duration> = Some(Duration::from_secs(23 * 3600));

    async fn commit(
        &self,
        deltas: &[Delta],
        guard: &ReplayGuard,
    ) -> Result<Committed, DistkitError> {
        let writes: Vec<_> =
            deltas.iter().map(|delta| Write::add(delta.cell.key.clone(), delta.count)).collect();
        // A guard is known in any window; one for nothing is for none.
        let window = deltas.first().and_then(|delta| self.window(delta.cell.window));
        match self.store.apply_in(window, &writes, Some(guard)).await {
            Ok(applied) => {
                let outcomes = applied.outcomes.into_iter();
                Ok(Committed {
                    replayed: applied.replayed,
                    outcomes: outcomes.map(|outcome| outcome.map(|w| known(w.new))).collect(),
                })
            }
            Err(error) => {
                let refusal = gone(error)?;
                let outcomes = deltas.iter().map(|_| Err(refusal.clone())).collect();
                Ok(Committed { replayed: false, outcomes })
            }
        }
    }

    async fn read(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, DistkitError> {
        let mut all = Vec::with_capacity(cells.len());
        // Of one window almost always.
        for cells in cells.chunk_by(|one, next| one.window == next.window) {
            let keys: Vec<_> = cells.iter().map(|cell| cell.key.clone()).collect();
            match self.store.read_in(self.window(cells[0].window), &keys).await {
                Ok(totals) => all.extend(totals.into_iter().map(|total| total.map(known))),
                Err(error) => {
                    let refusal = gone(error)?;
                    all.extend(cells.iter().map(|_| Err(refusal.clone())));
                }
            }
        }
        Ok(all)
    }

    type Write = Write;
    type Written = Written;

    async fn write(
        &self,
        window: u64,
        writes: &[Write],
        guard: &ReplayGuard,
    ) -> Result<Vec<Outcome<Written>>, DistkitError> {
        Ok(self.store.apply_in(self.window(window), writes, Some(guard)).await?.outcomes)
    }

    fn replaces(write: &Write) -> bool {
        matches!(write.change, Change::Set(_) | Change::Remove)
            && write.condition == CounterComparator::Nil
    }

    fn left_by(write: &Write, outcome: &Outcome<Written>) -> Option<Known> {
        match outcome {
            Ok(written) => Some(known(written.new)),
            // What is no number is removed, and refused.
            Err(_) => (write.change == Change::Remove && Self::replaces(write)).then(|| known(0)),
        }
    }

    async fn add_promised(
        &self,
        promises: &[Promise],
        resent: bool,
    ) -> Result<Vec<Outcome<AddedOnce>>, DistkitError> {
        let addition = |promise: &Promise| TokenAdd {
            key: promise.cell.key.clone(),
            count: promise.count,
            token: promise.token.clone(),
        };
        let items: Vec<_> = promises.iter().map(addition).collect();
        Ok(self.store.add_tokens(&items, self.keep_tokens, resent).await?)
    }

    /// A server's clock may be set forward in between, by a minute each time as far as tokens are concerned.
    fn tokens_last(&self) -> Duration {
        self.keep_tokens / 8 * 7
    }

    const ADDS_IN_DOUBT: bool = true;

    fn held_besides(written: &mut Written, pending: i64) {
        written.old = written.old.saturating_add(pending);
    }

    async fn clear(&self, window: u64, _: Scope) -> Result<(), DistkitError> {
        Ok(self.store.clear_in(self.window(window)).await?)
    }

    fn has_windows(&self) -> bool {
        self.store.clock().is_some()
    }

    fn current_window(&self) -> Option<CurrentWindow> {
        let clock = self.store.clock()?;
        let now = clock.now()?;
        let window = clock.windows().at(now);
        Some(CurrentWindow {
            number: window.start_ms(),
            since: now.saturating_sub(window.start()),
            left: window.end().saturating_sub(now),
        })
    }

    async fn ask_time(&self) -> Result<(), DistkitError> {
        Ok(self.store.ask_time().await.map_err(BackendError::with_nothing_applied)?)
    }

    fn end(&self) {}

    fn counts(&self) -> &Counts {
        self.store.counts()
    }

    fn fresh_id(&self) -> Arc<str> {
        self.store.store().fresh_id()
    }

    fn prefix(&self) -> &str {
        self.store.prefix()
    }
}
