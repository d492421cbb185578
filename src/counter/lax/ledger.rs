//! The plain counters of a space, as buffering needs them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    CounterComparator, DistkitError, RedisKey, Token,
    answers::{named, only},
    backend::{
        AddedOnce, Backend, Change, Outcome, ReplayGuard, Resolved, Scope, TokenAdd, Write, Written,
    },
    counts::Counts,
    lax::{Cell, Committed, Delta, Known, Ledger, Promise},
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
        let applied = self.store.apply(&writes, Some(guard)).await?;
        let outcomes = applied.outcomes.into_iter();
        Ok(Committed {
            replayed: applied.replayed,
            outcomes: outcomes.map(|outcome| outcome.map(|w| known(w.new))).collect(),
        })
    }

    async fn read(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, DistkitError> {
        let keys: Vec<_> = cells.iter().map(|cell| cell.key.clone()).collect();
        let totals = self.store.read(&keys).await?;
        Ok(totals.into_iter().map(|total| total.map(known)).collect())
    }

    type Write = Write;
    type Written = Written;

    async fn write(
        &self,
        writes: &[Write],
        guard: &ReplayGuard,
    ) -> Result<Vec<Outcome<Written>>, DistkitError> {
        Ok(self.store.apply(writes, Some(guard)).await?.outcomes)
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

    async fn clear(&self, _: Scope) -> Result<(), DistkitError> {
        Ok(self.store.clear().await?)
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
