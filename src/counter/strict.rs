use std::{fmt, slice, sync::Arc};

use async_trait::async_trait;

use super::{CounterOptions, CounterTrait, Keyed};
use crate::{
    DistkitError, RedisKey,
    answers::{counted, keyed, named, only},
    backend::{Backend, Outcome, Space, Write, Written},
    parts::in_parts,
};

/// A counter whose every call is one atomic operation in the store.
///
/// Each call takes one round trip, and so does a batch; one of more than 500 items is sent in
/// parts. Calls on one key are linearizable on the store's primary. Nothing is kept in
/// the process, and nothing is ever sent twice.
///
/// ```
/// use distkit::{
///     RedisKey,
///     backend::memory::MemoryBackend,
///     counter::{CounterOptions, CounterTrait, StrictCounter},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), distkit::DistkitError> {
/// let prefix = RedisKey::try_from("shop")?;
/// let counter = StrictCounter::new(CounterOptions::new(prefix, MemoryBackend::new()));
///
/// let orders = RedisKey::try_from("orders")?;
/// assert_eq!(counter.inc(&orders, 2).await?, 2);
/// assert_eq!(counter.dec(&orders, 1).await?, 1);
/// # Ok(())
/// # }
/// ```
pub struct StrictCounter<B: Backend + ?Sized = dyn Backend> {
    backend: Arc<B>,
    space: Space,
}

impl<B: Backend + ?Sized> StrictCounter<B> {
    /// A counter with these options. No I/O.
    pub fn new(options: CounterOptions<B>) -> Arc<Self> {
        Arc::new(Self { backend: options.backend().clone(), space: options.space().clone() })
    }

    /// The store.
    pub fn store(&self) -> &B {
        &self.backend
    }

    async fn apply(&self, writes: &[Write]) -> Result<Vec<Outcome<Written>>, DistkitError> {
        let outcomes = self.backend.apply(&self.space, writes, None).await?.outcomes;
        counted(writes.len(), outcomes)
    }

    async fn write_part(
        &self,
        writes: &[Write],
    ) -> Result<Vec<Result<Written, DistkitError>>, DistkitError> {
        let outcomes = self.apply(writes).await?;
        Ok(named(writes.iter().map(|write| &write.key), outcomes))
    }

    async fn read_part(
        &self,
        keys: &[RedisKey],
    ) -> Result<Vec<Result<i64, DistkitError>>, DistkitError> {
        let outcomes = counted(keys.len(), self.backend.read(&self.space, keys).await?)?;
        Ok(named(keys.iter(), outcomes))
    }

    async fn apply_one(&self, write: Write) -> Result<Written, DistkitError> {
        let outcomes = self.apply(slice::from_ref(&write)).await?;
        only_outcome(&write.key, outcomes)
    }
}

#[async_trait]
impl<B: Backend + ?Sized> CounterTrait for StrictCounter<B> {
    async fn write_all(
        &self,
        writes: &[Write],
    ) -> Result<Vec<Result<Written, DistkitError>>, DistkitError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        in_parts!(writes, part => self.write_part(part).await)
    }

    async fn get_all<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let owned: Vec<RedisKey> = keys.iter().map(|&key| key.clone()).collect();
        let answers = in_parts!(&*owned, part => self.read_part(part).await)?;
        Ok(keyed(keys.iter().copied(), answers, |total| total))
    }

    async fn del(&self, key: &RedisKey) -> Result<i64, DistkitError> {
        let outcomes = self.backend.remove(&self.space, slice::from_ref(key)).await?;
        only_outcome(key, outcomes)
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        Ok(self.backend.clear(&self.space).await?)
    }

    async fn inc(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        Ok(self.apply_one(Write::add(key.clone(), count)).await?.new)
    }

    async fn get(&self, key: &RedisKey) -> Result<i64, DistkitError> {
        let outcomes = self.backend.read(&self.space, slice::from_ref(key)).await?;
        only_outcome(key, outcomes)
    }
}

impl<B: Backend + ?Sized> Clone for StrictCounter<B> {
    fn clone(&self) -> Self {
        Self { backend: Arc::clone(&self.backend), space: self.space.clone() }
    }
}

impl<B: Backend + ?Sized> fmt::Debug for StrictCounter<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictCounter").field("prefix", self.space.prefix()).finish_non_exhaustive()
    }
}

fn only_outcome<T>(key: &RedisKey, outcomes: Vec<Outcome<T>>) -> Result<T, DistkitError> {
    only(named(std::iter::once(key), counted(1, outcomes)?))
}
