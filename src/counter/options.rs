use std::{fmt, sync::Arc};

use crate::{
    RedisKey,
    backend::{Backend, IntoBackend},
    lax::{Settings, buffering_options},
    shards::Shards,
    space_store::{SpaceStore, sharding_option},
    strict::{self, Queues, Sender, strict_options},
};

/// Where counters live, and how a lax one buffers.
///
/// Cloning is cheap, and clones share the store's connection: build the options once and give a clone
/// to each counter. Strict counters of clones join their concurrent additions.
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
    pub(super) stores: Shards<SpaceStore<B>>,
    pub(super) settings: Settings,
    pub(super) strict: strict::Settings,
    pub(super) sending: Arc<Shards<Sending>>,
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
    /// Options over a store whose type the counter keeps.
    pub fn with_store(prefix: RedisKey, store: Arc<B>) -> Self {
        Self::over(SpaceStore::shards(store, prefix, 1, "strict"))
    }

    fn over(stores: Shards<SpaceStore<B>>) -> Self {
        Self {
            sending: Arc::new(stores.map(|_| Sending::default())),
            stores,
            settings: Settings::default(),
            strict: strict::Settings::default(),
        }
    }

    sharding_option!("strict");

    fn in_shards(self, stores: Shards<SpaceStore<B>>) -> Self {
        let Self { settings, strict, .. } = self;
        Self { settings, strict, ..Self::over(stores) }
    }

    strict_options!();
    buffering_options!();
}

impl<B: Backend + ?Sized> Clone for CounterOptions<B> {
    fn clone(&self) -> Self {
        Self { stores: self.stores.clone(), sending: Arc::clone(&self.sending), ..*self }
    }
}

impl<B: Backend + ?Sized> fmt::Debug for CounterOptions<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CounterOptions")
            .field("prefix", self.stores.first().prefix())
            .field("shards", &self.stores.number())
            .field("strict", &self.strict)
            .field("buffering", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What the strict counters of clones of one options value send to a shard with.
#[derive(Default)]
pub(super) struct Sending {
    pub(super) sender: Arc<Sender>,
    pub(super) queues: Queues<i64>,
}
