use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use super::once::Once;
use crate::{
    RedisKey, Windows,
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
        let first = self.stores.first();
        let clock = first.clock().map(|clock| clock.windows());
        let stores = match first.space().idle() {
            Some(idle) => stores.map(|store| store.expiring_after(idle)),
            None => stores,
        };
        let Self { settings, strict, keep_tokens, .. } = self;
        let options = Self { settings, strict, keep_tokens, ..Self::over(stores) };
        match clock {
            Some(windows) => options.windows(windows),
            None => options,
        }
    }

    /// Counts in windows of time: in each, every counter starts from 0. Default: none.
    ///
    /// All methods of the counters act on the current window; that includes conditions, listings and `clear`. The time
    /// is the store's, of each shard its node's. [`get_in`](super::StrictCounter::get_in) and its neighbours read
    /// other windows, for as long as they are [kept](Windows::keep).
    ///
    /// - A strict write counts in the window in which the store applies it, also where its answer was lost and it is
    ///   sent again: then it gets its original answer, of the window in which it was applied.
    /// - A lax write counts in the window in which it was made, by this process's estimate of the store's clock, which
    ///   is off by half a round trip at most and by what the clocks have drifted in some seconds. That holds however late
    ///   the write comes to the store; where it comes after the window is closed, it is lost and reported.
    ///
    /// Windows of another length or offset are other counters, and so are those of the same prefix without windows.
    /// A store of a third party may not support windows: then all calls fail, as
    /// [`NotApplied`](crate::DistkitError::NotApplied).
    ///
    /// A window whose counters the server evicted is not a new one: calls in it fail as
    /// [`WindowLost`](crate::backend::BackendError::WindowLost) until the next one begins. What a lax counter had taken for
    /// it, or for a window that is closed, is reported by `flush` and `shutdown` as refused, with
    /// [`Refusal::WindowLost`](crate::backend::Refusal::WindowLost) or
    /// [`Refusal::WindowClosed`](crate::backend::Refusal::WindowClosed).
    ///
    /// ```
    /// use std::time::Duration;
    /// use distkit::{RedisKey, Windows, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// let hours = Windows::every(Duration::from_secs(3600));
    /// let options = CounterOptions::new(RedisKey::try_from("calls")?, MemoryBackend::new());
    /// let counter = StrictCounter::new(options.windows(hours));
    /// let user = RedisKey::try_from("user 7")?;
    ///
    /// // At most 100 in this hour.
    /// assert_eq!(counter.add_within(&user, 1, 0..=100).await?, (1, 1));
    /// tokio::time::sleep(Duration::from_secs(3600)).await;
    /// assert_eq!(counter.get(&user).await?, 0);
    /// assert_eq!(counter.get_previous(&user).await?, 1);
    /// # Ok(()) }
    /// ```
    pub fn windows(self, windows: Windows) -> Self {
        let stores = self.stores.map(|store| store.in_windows(windows));
        let Self { settings, strict, keep_tokens, .. } = self;
        Self { settings, strict, keep_tokens, ..Self::over(stores) }
    }

    /// Sets for how long the store remembers a token at least: see [`CounterTrait::inc_once`]. Default: a day. It
    /// counts in whole even seconds, rounded up, at least 2.
    ///
    /// Choose it longer than an attempt may be repeated. A token takes about 35 bytes of the server for up to 1.5
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

    /// Lets the counters of the prefix expire when none of them was written for so long, of several shards each
    /// shard's by itself. Default: never. In whole milliseconds, at least 1 s.
    ///
    /// Every write renews all of them, also one that is refused; a read does not, nor do writes of a lax counter that
    /// cancel each other out. They go together, with what the store
    /// remembers of requests, and at most a few seconds late. Afterwards they read 0, and the next write begins anew.
    ///
    /// It is for ever, and the same in all processes of the prefix, those of instance-aware counters included, which have
    /// none: another one fails as [`ShapeMismatch`](crate::backend::BackendError::ShapeMismatch) before anything is
    /// written. [Windows](Self::windows) go by their own time, and what the store remembers of requests goes with the last
    /// of them.
    ///
    /// A server that evicts keys with a TTL (`volatile-*`) may evict these; use `noeviction`. One that has
    /// `lazyfree-lazy-expire no`, the default of Redis, stops while it frees a hash that expires: for 0.6 to 0.8 s at a
    /// million counters. So a process that wrote to the prefix, and still has one of its counters, asks for it to be
    /// freed in the background, by one request when it was idle for long enough, from a task of tokio's. Where there
    /// may be more than some ten thousand counters and no such process, set it to `yes`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// let options = CounterOptions::new(RedisKey::try_from("cart 7")?, MemoryBackend::new());
    /// let cart = StrictCounter::new(options.expire_after(Duration::from_secs(1800)));
    /// let apples = RedisKey::try_from("apples")?;
    /// cart.inc(&apples, 3).await?;
    /// tokio::time::sleep(Duration::from_secs(1700)).await;
    /// assert_eq!(cart.inc(&apples, 1).await?, 4);
    /// tokio::time::sleep(Duration::from_secs(1810)).await;
    /// assert_eq!(cart.get(&apples).await?, 0);
    /// # Ok(()) }
    /// ```
    pub fn expire_after(self, idle: Duration) -> Self {
        let clock = self.stores.first().clock().map(|clock| clock.windows());
        let stores = self.stores.map(|store| store.expiring_after(idle));
        let Self { settings, strict, keep_tokens, .. } = self;
        let options = Self { settings, strict, keep_tokens, ..Self::over(stores) };
        match clock {
            Some(windows) => options.windows(windows),
            None => options,
        }
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
            .field("expires_after", &self.stores.first().space().idle())
            .field("windows", &self.stores.first().clock().map(|clock| clock.windows()))
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
    /// Of calls with tokens, and the number of the next one.
    pub(super) once: Queues<i64, Once>,
    pub(super) numbers: AtomicU64,
}
