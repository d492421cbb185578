//! A store of which a test says, call by call, what it may be asked. Any other call fails the test.

use std::sync::Arc;

use async_trait::async_trait;
use distkit::{
    RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Instance, InstanceBackend, InstanceSlice,
        Joined, Member, Ordered, Outcome, ReplayGuard, Scope, Slice, SliceWrite, Space, Standing,
        Write,
    },
};
use mockall::mock;

/// The prefix that every call must concern.
pub(crate) const PREFIX: &str = "prefix";
/// The id that the store gives to whoever asks for one.
pub(crate) const ID: &str = "writer";

// In owned values and without futures, which expectations take more easily than what `Backend` has.
mock! {
    pub(crate) Store {
        pub(crate) fn apply(&self, writes: Vec<Write>, guard: Option<ReplayGuard>)
            -> Result<Applied, BackendError>;
        pub(crate) fn read(&self, keys: Vec<RedisKey>) -> Result<Vec<Outcome<i64>>, BackendError>;
        pub(crate) fn clear(&self) -> Result<(), BackendError>;
        pub(crate) fn join(&self, instance: Instance, slices: Vec<Slice>) -> Result<Joined, BackendError>;
        pub(crate) fn apply_on(&self, member: Member, writes: Vec<SliceWrite>, sequence: Option<u64>)
            -> Result<Ordered<Applied<Standing>>, BackendError>;
        pub(crate) fn read_on(&self, member: Member, keys: Vec<RedisKey>)
            -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError>;
        pub(crate) fn clear_on(&self, member: Member, scope: Scope) -> Result<(), BackendError>;
        pub(crate) fn heartbeat(&self, member: Member) -> Result<(), BackendError>;
        pub(crate) fn leave(&self, member: Member) -> Result<(), BackendError>;
        pub(crate) fn totals(&self, keys: Vec<RedisKey>) -> Result<Vec<Outcome<i64>>, BackendError>;
        pub(crate) fn slices(&self, key: RedisKey) -> Result<Vec<InstanceSlice>, BackendError>;
    }
}

fn check(space: &Space) {
    assert_eq!(space.prefix().as_str(), PREFIX, "a call for somebody else's counters");
}

impl std::fmt::Debug for MockStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for MockStore {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        check(space);
        Self::apply(self, writes.to_vec(), guard.cloned())
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        check(space);
        Self::read(self, keys.to_vec())
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        check(space);
        Self::clear(self)
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none()
    }

    fn fresh_id(&self) -> Arc<str> {
        ID.into()
    }
}

#[async_trait]
impl InstanceBackend for MockStore {
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        check(space);
        Self::join(self, instance.clone(), slices.to_vec())
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        check(space);
        Self::apply_on(self, member.clone(), writes.to_vec(), sequence)
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        check(space);
        Self::read_on(self, member.clone(), keys.to_vec())
    }

    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        check(space);
        Self::clear_on(self, member.clone(), scope)
    }

    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        check(space);
        Self::heartbeat(self, member.clone())
    }

    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        check(space);
        Self::leave(self, member.clone())
    }

    async fn totals(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        check(space);
        Self::totals(self, keys.to_vec())
    }

    async fn slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        check(space);
        Self::slices(self, key.clone())
    }
}
