//! Joins concurrent additions under tokens.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    DistkitError, RedisKey, Token,
    answers::Item,
    backend::{Backend, Outcome, TokenAdd},
    space_store::SpaceStore,
    stats::Count,
    strict::Joint,
};

/// A call with a token. No two are the same: under one token nothing is summed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Once {
    pub(super) key: RedisKey,
    pub(super) token: Token,
    pub(super) number: u64,
}

impl Item for Once {
    fn key(&self) -> &RedisKey {
        &self.key
    }
}

/// What joined calls with tokens are for.
pub(super) struct Events<B: ?Sized> {
    pub(super) store: SpaceStore<B>,
    pub(super) keep: Duration,
}

#[async_trait]
impl<B: Backend + ?Sized> Joint<i64, Once> for Events<B> {
    async fn add(
        &self,
        items: &[(Once, i64)],
        deadline: Option<Instant>,
    ) -> Result<Vec<Outcome<i64>>, DistkitError> {
        let additions = items.iter().map(|(once, count)| TokenAdd {
            key: once.key.clone(),
            count: *count,
            token: once.token.clone(),
        });
        let additions: Vec<_> = additions.collect();
        let added = self.store.add_tokens_once(&additions, self.keep, deadline).await?;
        Ok(added.into_iter().map(|one| one.map(|one| one.total)).collect())
    }

    fn note_joined(&self, calls: usize) {
        self.store.counts().add(Count::JoinedCalls, calls);
    }
}
