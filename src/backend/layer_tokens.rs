//! A layer around a store that has [`Tokens`].

use std::time::Duration;

use async_trait::async_trait;

use super::{
    AddedOnce, Around, Backend, BackendError, Layered, Op, Outcome, Resolved, Space, TokenAdd,
    Tokens, capability::missing,
};
use crate::{RedisKey, Token};

#[async_trait]
impl<B: Backend + ?Sized, A: Around> Tokens for Layered<B, A> {
    async fn add_once(
        &self,
        space: &Space,
        items: &[TokenAdd],
        keep: Duration,
    ) -> Result<Vec<Outcome<AddedOnce>>, BackendError> {
        let store = self.store().capabilities().tokens.ok_or_else(no_tokens)?;
        let op = Op::AddOnce { space, items, keep };
        self.layer().around(op, store.add_once(space, items, keep)).await
    }

    async fn resolve(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        let store = self.store().capabilities().tokens.ok_or_else(no_tokens)?;
        let op = Op::Resolve { space, tokens, keep };
        let answer = self.layer().around(op, store.resolve(space, tokens, keep)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }

    async fn forbid(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        let store = self.store().capabilities().tokens.ok_or_else(no_tokens)?;
        let op = Op::Forbid { space, tokens, keep };
        self.layer().around(op, store.forbid(space, tokens, keep)).await
    }
}

fn no_tokens() -> BackendError {
    missing("tokens")
}
