use std::{fmt, sync::Arc, time::Duration};

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
    pub(super) keep_tokens: Duration,
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
            keep_tokens: KEEP_TOKENS,
        }
    }

    sharding_option!("strict");

    fn in_shards(self, stores: Shards<SpaceStore<B>>) -> Self {
        let Self { settings, strict, keep_tokens, .. } = self;
        Self { settings, strict, keep_tokens, ..Self::over(stores) }
    }

    /// Sets for how long the store remembers a token at least: see [`CounterTrait::inc_once`]. Default: a day. It
    /// counts in whole even seconds, rounded up, at least 2.
    ///
    /// Choose it longer than anybody may repeat an attempt. A token takes about 35 bytes of the server for up to 1.5
    /// times as long. That is counted by a clock of the prefix that grows by at most a minute between two requests with
    /// tokens: where they are rare, tokens are kept longer.
    ///
    /// It is the same in all processes that use tokens under the prefix, from their first use on: with another value,
    /// calls with tokens fail as [`ShapeMismatch`](crate::backend::BackendError::ShapeMismatch), which names both, and
    /// change nothing.
    ///
    /// [`CounterTrait::inc_once`]: super::CounterTrait::inc_once
    pub fn keep_tokens(mut self, keep: Duration) -> Self {
        self.keep_tokens = keep;
        self
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
            .field("keep_tokens", &self.keep_tokens)
            .finish_non_exhaustive()
    }
}

const KEEP_TOKENS: Duration = Duration::from_secs(24 * 60 * 60);

/// What the strict counters of clones of one options value send to a shard with.
#[derive(Default)]
pub(super) struct Sending {
    pub(super) sender: Arc<Sender>,
    pub(super) queues: Queues<i64>,
}
