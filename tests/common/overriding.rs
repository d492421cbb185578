//! A store that does some things in another way than a sound one: the only place of the tests that forwards the rest.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use distkit::{
    RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Instance, InstanceBackend, InstanceSlice,
        Joined, Member, Ordered, Outcome, ReplayGuard, Scope, Slice, SliceWrite, Space, Standing,
        Write, memory::MemoryBackend,
    },
};

/// What differs from [`sound`](Self::sound). What is not written here is asked of that store; capabilities are not.
#[async_trait]
pub(crate) trait Override: fmt::Debug + Send + Sync + 'static {
    fn sound(&self) -> &MemoryBackend;

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none()
    }

    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        self.sound().apply(space, writes, guard).await
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.sound().read(space, keys).await
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        self.sound().clear(space).await
    }

    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        self.sound().join(space, instance, slices).await
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        self.sound().apply_on(space, member, writes, sequence).await
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        self.sound().read_on(space, member, keys).await
    }
}

/// The store of an [`Override`].
#[derive(Debug)]
pub(crate) struct Overriding<T>(pub(crate) T);

#[async_trait]
impl<T: Override> Backend for Overriding<T> {
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
        self.0.capabilities()
    }

    fn fresh_id(&self) -> Arc<str> {
        self.0.sound().fresh_id()
    }
}

#[async_trait]
impl<T: Override> InstanceBackend for Overriding<T> {
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        self.0.join(space, instance, slices).await
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        self.0.apply_on(space, member, writes, sequence).await
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        self.0.read_on(space, member, keys).await
    }

    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        self.0.sound().clear_on(space, member, scope).await
    }

    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.0.sound().heartbeat(space, member).await
    }

    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.0.sound().leave(space, member).await
    }

    async fn totals(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.0.sound().totals(space, keys).await
    }

    async fn slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        self.0.sound().slices(space, key).await
    }
}
