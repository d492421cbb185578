use std::{fmt, sync::Arc, time::Duration};

use crate::{
    RedisKey,
    backend::{Backend, IntoBackend, Space},
};

/// Where counters live, and how a lax one buffers.
///
/// Cloning is cheap, and clones share the store's connection: build the options once and give a clone
/// to each counter. A strict counter has no use for anything but the prefix and the store.
///
/// ```
/// use std::time::Duration;
///
/// use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, StrictCounter}};
///
/// let options = CounterOptions::new(RedisKey::try_from("shop")?, MemoryBackend::new())
///     .allowed_lag(Duration::from_millis(50))
///     .max_pending_keys(10_000);
/// let counter = StrictCounter::new(options.clone());
/// # Ok::<(), distkit::DistkitError>(())
/// ```
#[must_use = "options do nothing until a counter is made of them"]
pub struct CounterOptions<B: Backend + ?Sized = dyn Backend> {
    space: Space,
    backend: Arc<B>,
    allowed_lag: Duration,
    max_pending_keys: usize,
    evict_after: Duration,
}

impl CounterOptions {
    /// Options for the counters under `prefix` in `store`, with the defaults that each setter names.
    ///
    /// `store` is a connection of one of the Redis clients or any [`Backend`]. No I/O happens here.
    pub fn new(prefix: RedisKey, store: impl IntoBackend) -> Self {
        Self::with_store(prefix, store.into_backend())
    }
}

impl<B: Backend + ?Sized> CounterOptions<B> {
    const SHORTEST_LAG: Duration = Duration::from_millis(1);

    /// Options over a store whose type the counter keeps.
    pub fn with_store(prefix: RedisKey, store: Arc<B>) -> Self {
        Self {
            space: Space::new(prefix),
            backend: store,
            allowed_lag: Duration::from_millis(20),
            max_pending_keys: 1_000_000,
            evict_after: Duration::from_secs(30),
        }
    }

    /// How long a lax counter may keep a write to itself, and how old a total it may answer with.
    /// Default: 20 ms.
    ///
    /// The shortest lag is 1 ms, the resolution of tokio's timer: a shorter one, zero included, is
    /// taken as 1 ms.
    pub fn allowed_lag(mut self, lag: Duration) -> Self {
        self.allowed_lag = lag.max(Self::SHORTEST_LAG);
        self
    }

    /// How many keys of a lax counter may have writes that the store has not taken yet. Default:
    /// 1 000 000.
    ///
    /// The limit bounds the memory of a process whose store is away. A write to one more key fails with
    /// [`TooManyPending`](crate::DistkitError::TooManyPending); keys that already have pending writes
    /// take more of them.
    pub fn max_pending_keys(mut self, limit: usize) -> Self {
        self.max_pending_keys = limit;
        self
    }

    /// How long a lax counter remembers a key that nobody uses. Default: 30 s.
    ///
    /// A key with pending writes is never forgotten. The first use of a forgotten key reads it from the
    /// store.
    pub fn evict_after(mut self, idle: Duration) -> Self {
        self.evict_after = idle;
        self
    }

    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    pub(crate) fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    pub(crate) fn lag(&self) -> Duration {
        self.allowed_lag
    }

    pub(crate) fn pending_limit(&self) -> usize {
        self.max_pending_keys
    }

    pub(crate) fn idle_limit(&self) -> Duration {
        self.evict_after
    }
}

impl<B: Backend + ?Sized> Clone for CounterOptions<B> {
    fn clone(&self) -> Self {
        Self { space: self.space.clone(), backend: Arc::clone(&self.backend), ..*self }
    }
}

impl<B: Backend + ?Sized> fmt::Debug for CounterOptions<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CounterOptions")
            .field("prefix", self.space().prefix())
            .field("allowed_lag", &self.lag())
            .field("max_pending_keys", &self.pending_limit())
            .field("evict_after", &self.idle_limit())
            .finish_non_exhaustive()
    }
}
