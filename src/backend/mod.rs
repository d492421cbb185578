//! The stores that counters live in, and the contract that every store keeps.
//!
//! Counters know nothing but [`Backend`]. This crate has three stores: [`memory`], which is always
//! there, and one for each of the Redis clients `redis-rs` and `fred`, behind the features of those
//! names. [`connect`] picks one by URL; [`IntoBackend`] takes a connection that a service already has.

mod connect;
mod error;
#[cfg(feature = "fred")]
mod fred;
#[cfg(any(feature = "redis-rs", feature = "fred"))]
pub(crate) mod lua;
pub mod memory;
mod operation;
#[cfg(feature = "redis-rs")]
mod redis_rs;

use std::sync::Arc;

use async_trait::async_trait;

use crate::RedisKey;

pub use connect::connect;
pub use error::{BackendError, Cause};
#[cfg(feature = "fred")]
#[cfg_attr(docsrs, doc(cfg(feature = "fred")))]
pub use fred::{FredClient, FredStore};
pub use operation::{
    Applied, Change, CounterComparator, Outcome, Refusal, ReplayGuard, Space, Write, Written,
};
#[cfg(feature = "redis-rs")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-rs")))]
pub use redis_rs::{RedisConnection, RedisStore};

/// A store of counters.
///
/// Implement it to keep counters somewhere else; the suite behind the feature `conformance` checks an
/// implementation against this contract, one test for each rule.
///
/// # Contract
///
/// 1. **Atomic writes.** No reader sees half of a write. A batch need not be atomic as a whole.
/// 2. **Order.** The writes of a batch happen in its order; a key named twice is written twice.
///    Answers come in the order of the input.
/// 3. **Outcomes are per item.** A refused item, or one whose condition fails, changes nothing and
///    stops no other item.
/// 4. **Exact.** Arithmetic is exact on the whole range of `i64`. A result outside of it is refused as
///    [`Refusal::Overflow`].
/// 5. **A missing key reads 0**, and 0 is what conditions compare with.
/// 6. **Foreign data is named, never overwritten by an addition.** A value that is not a decimal `i64`
///    is refused as [`Refusal::NotANumber`] where it is read or added to; an unconditional assignment
///    replaces it, and a removal deletes it but is refused, for there is no number to answer with.
/// 7. **Replay guard.** A batch whose [`ReplayGuard::sequence`] is not above the highest one applied for
///    its writer changes nothing and answers with the values as they stand
///    ([`Applied::replayed`]); items that the latest batch refused are refused again. Also an empty batch uses up its
///    sequence. What the store remembers of a writer expires a day after its last batch.
/// 8. **Time** is the store's, never the caller's.
/// 9. **Spaces are apart.** Any valid prefix and any valid key work, and none reaches into another.
/// 10. **Errors tell.** [`BackendError::NotApplied`] means that nothing happened or will;
///     [`BackendError::OutcomeUnknown`] that all, a part, or nothing may have. A store never sends a
///     request a second time by itself unless the first one cannot take effect twice.
/// 11. **Cancel safety.** Dropping a returned future may leave its outcome unknown, and breaks nothing
///     else.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Adds to or sets each key, in order.
    ///
    /// An empty batch without a guard does nothing. One round trip.
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError>;

    /// Reads each key. One round trip.
    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError>;

    /// Deletes each key and answers what it held. One round trip.
    async fn remove(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError>;

    /// Deletes every plain counter of the space. What the store remembers of replay guards stays.
    async fn clear(&self, space: &Space) -> Result<(), BackendError>;

    /// An id that nobody else has: random, except in a store that simulates. No I/O.
    fn fresh_id(&self) -> Arc<str> {
        #[expect(clippy::disallowed_methods, reason = "the one place where random ids are made")]
        let id = uuid::Uuid::new_v4();
        id.to_string().into()
    }
}

#[async_trait]
impl<B: Backend + ?Sized> Backend for Arc<B> {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        (**self).apply(space, writes, guard).await
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        (**self).read(space, keys).await
    }

    async fn remove(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        (**self).remove(space, keys).await
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        (**self).clear(space).await
    }

    fn fresh_id(&self) -> Arc<str> {
        (**self).fresh_id()
    }
}

/// What the options of a counter take as their store: any [`Backend`], or a connection of a Redis
/// client that a service already has.
pub trait IntoBackend {
    /// The store behind this. No I/O.
    fn into_backend(self) -> Arc<dyn Backend>;
}

impl<B: Backend> IntoBackend for B {
    fn into_backend(self) -> Arc<dyn Backend> {
        Arc::new(self)
    }
}
