//! A store of the plain contract, and no more.

use async_trait::async_trait;
use distkit::{
    RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Outcome, ReplayGuard, Space, Write,
        memory::MemoryBackend,
    },
};

/// A memory store without its other half and its capabilities.
#[derive(Debug, Default)]
pub(crate) struct PlainOnly(pub(crate) MemoryBackend);

#[async_trait]
impl Backend for PlainOnly {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        self.0.apply(space, writes, guard).await
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.0.read(space, keys).await
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        self.0.clear(space).await
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none()
    }
}
