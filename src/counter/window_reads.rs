//! What the counters read of windows other than the current one.

use crate::{
    DistkitError, RedisKey, Window,
    answers::{named, only},
    backend::{Backend, BackendError, Refusal},
    space_store::SpaceStore,
};

/// What the store holds for a key in a window.
pub(super) async fn total_of<B: Backend + ?Sized>(
    store: &SpaceStore<B>,
    window: Window,
    key: &RedisKey,
) -> Result<i64, DistkitError> {
    let keys = std::slice::from_ref(key);
    only(named(keys, store.read_in(Some(window), keys).await?))
}

/// The current window of a store.
pub(super) async fn window_of<B: Backend + ?Sized>(
    store: &SpaceStore<B>,
) -> Result<Window, DistkitError> {
    store.window().await?.ok_or_else(|| {
        let text = "the counter has no windows: set `CounterOptions::windows`";
        BackendError::not_applied(text).into()
    })
}

/// The sum of totals.
pub(super) fn sum(
    key: &RedisKey,
    totals: impl IntoIterator<Item = i64>,
) -> Result<i64, DistkitError> {
    // Of some 10 000 at most.
    let sum: i128 = totals.into_iter().map(i128::from).sum();
    i64::try_from(sum).map_err(|_| DistkitError::refused(key, Refusal::Overflow))
}

/// The methods that read windows, of a counter with `store_of`, `stores` and `total_in`.
macro_rules! window_reads {
    () => {
        /// Returns the current window, by the store's clock, of several shards by that of the first one. No I/O where
        /// the store has told its time in the last 10 s.
        ///
        /// Cancel-safe.
        ///
        /// # Errors
        ///
        /// [`NotApplied`](DistkitError::NotApplied) where the store does not answer, or the counter has no
        /// [windows](super::CounterOptions::windows).
        pub async fn current_window(&self) -> Result<Window, DistkitError> {
            let store = self.stores().next();
            window_of(store.ok_or_else(|| BackendError::not_applied("there is no shard"))?).await
        }

        /// Returns what the key holds in that window. One that was not counted in it reads 0, and so does every key
        /// of a window that is no longer [kept](crate::Windows::keep).
        ///
        /// The window may be one of other [`Windows`](crate::Windows) of the prefix, too.
        ///
        /// One round trip. Cancel-safe.
        ///
        /// # Errors
        ///
        /// [`NotApplied`](DistkitError::NotApplied) where the store does not answer or has
        /// [lost](crate::backend::BackendError::WindowLost) the window, and
        /// [`CounterError`](DistkitError::CounterError) where it holds a non-integer value.
        ///
        /// ```
        /// # use distkit::{RedisKey, Windows, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
        /// # use std::time::Duration;
        /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
        /// # async fn main() -> Result<(), distkit::DistkitError> {
        /// # let options = CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new());
        /// const HOUR: Duration = Duration::from_secs(3600);
        /// let hours = Windows::every(HOUR).keep(24);
        /// let counter = StrictCounter::new(options.windows(hours));
        /// let hits = RedisKey::try_from("hits")?;
        /// counter.inc(&hits, 3).await?;
        /// let first = counter.current_window().await?;
        /// tokio::time::sleep(2 * HOUR).await;
        /// assert_eq!(counter.get_in(first, &hits).await?, 3);
        /// # Ok(()) }
        /// ```
        pub async fn get_in(&self, window: Window, key: &RedisKey) -> Result<i64, DistkitError> {
            self.total_in(window, key).await
        }

        /// Returns what the key holds in the window before the current one.
        ///
        /// One round trip. Cancel-safe.
        ///
        /// # Errors
        ///
        /// Those of [`get_in`](Self::get_in).
        pub async fn get_previous(&self, key: &RedisKey) -> Result<i64, DistkitError> {
            match window_of(self.store_of(key)).await?.previous() {
                Some(window) => self.total_in(window, key).await,
                None => Ok(0),
            }
        }

        /// Returns what the key holds in each of the last `n` windows, the current one included, the oldest first.
        /// Fewer only where the store's time has not had as many.
        ///
        /// One request for each, all at once. At most [`Windows::kept`](crate::Windows::kept) and the current one can
        /// hold anything.
        ///
        /// Cancel-safe.
        ///
        /// # Errors
        ///
        /// Those of [`get_in`](Self::get_in), of any of them.
        ///
        /// ```
        /// # use distkit::{RedisKey, Windows, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
        /// # use std::time::Duration;
        /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
        /// # async fn main() -> Result<(), distkit::DistkitError> {
        /// # let options = CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new());
        /// const MINUTE: Duration = Duration::from_secs(60);
        /// let minutes = Windows::every(MINUTE).keep(60);
        /// let counter = StrictCounter::new(options.windows(minutes));
        /// let hits = RedisKey::try_from("hits")?;
        /// for count in [5, 0, 2] {
        ///     counter.inc(&hits, count).await?;
        ///     tokio::time::sleep(MINUTE).await;
        /// }
        /// let series = counter.get_last(&hits, 3).await?;
        /// let counts: Vec<i64> = series.iter().map(|(_, count)| *count).collect();
        /// assert_eq!(counts, [0, 2, 0]);
        /// assert_eq!(counter.sum_last(&hits, 60).await?, 7);
        /// # Ok(()) }
        /// ```
        pub async fn get_last(
            &self,
            key: &RedisKey,
            n: usize,
        ) -> Result<Vec<(Window, i64)>, DistkitError> {
            let mut next = Some(window_of(self.store_of(key)).await?);
            let mut windows = Vec::new();
            while windows.len() < n
                && let Some(window) = next
            {
                windows.push(window);
                next = window.previous();
            }
            windows.reverse();
            let totals = windows.iter().map(|window| self.total_in(*window, key));
            let totals = futures_util::future::try_join_all(totals).await?;
            Ok(windows.into_iter().zip(totals).collect())
        }

        /// Returns the sum of [`get_last`](Self::get_last).
        ///
        /// As many requests. Cancel-safe.
        ///
        /// # Errors
        ///
        /// Those of [`get_in`](Self::get_in), and [`CounterError`](DistkitError::CounterError) where the sum does not fit
        /// into an `i64`.
        pub async fn sum_last(&self, key: &RedisKey, n: usize) -> Result<i64, DistkitError> {
            let totals = self.get_last(key, n).await?;
            sum(key, totals.into_iter().map(|(_, total)| total))
        }

        /// Returns an estimate of what was counted in the last [`length`](crate::Windows::length) of a window until
        /// now: what the current window holds, and of the one before the part that overlaps, as if that had been
        /// counted evenly. To the nearest whole number.
        ///
        /// One round trip; two requests. Cancel-safe.
        ///
        /// # Errors
        ///
        /// Those of [`sum_last`](Self::sum_last).
        ///
        /// ```
        /// # use distkit::{RedisKey, Windows, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
        /// # use std::time::Duration;
        /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
        /// # async fn main() -> Result<(), distkit::DistkitError> {
        /// # let options = CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new());
        /// let minutes = Windows::every(Duration::from_secs(60));
        /// let counter = StrictCounter::new(options.windows(minutes));
        /// let hits = RedisKey::try_from("hits")?;
        /// counter.inc(&hits, 100).await?;
        /// tokio::time::sleep(Duration::from_secs(75)).await;
        /// counter.inc(&hits, 10).await?;
        /// assert_eq!(counter.sliding(&hits).await?, 75 + 10);
        /// # Ok(()) }
        /// ```
        pub async fn sliding(&self, key: &RedisKey) -> Result<i64, DistkitError> {
            let store = self.store_of(key);
            let window = window_of(store).await?;
            let now = store.clock().and_then(|clock| clock.now()).unwrap_or(window.start());
            let previous = async {
                match window.previous() {
                    Some(previous) => self.total_in(previous, key).await,
                    None => Ok(0),
                }
            };
            let current = self.total_in(window, key);
            let (previous, current) = futures_util::future::try_join(previous, current).await?;
            sum(key, [window.overlap(previous, now), current])
        }

        /// Lists what a window holds, as [`list`](CounterTrait::list) does the current one.
        ///
        /// ```
        /// # use distkit::{KeyFilter, RedisKey, Windows, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
        /// # use std::time::Duration;
        /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
        /// # async fn main() -> Result<(), distkit::DistkitError> {
        /// # let options = CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new());
        /// let hours = Windows::every(Duration::from_secs(3600));
        /// let counter = StrictCounter::new(options.windows(hours));
        /// let (home, news) = (RedisKey::try_from("page home")?, RedisKey::try_from("page news")?);
        /// counter.inc(&home, 2).await?;
        /// counter.inc(&news, 7).await?;
        /// tokio::time::sleep(Duration::from_secs(3600)).await;
        ///
        /// let last_hour = counter.current_window().await?.previous().unwrap();
        /// let pages = counter.list_in(last_hour, &KeyFilter::prefix("page "));
        /// assert_eq!(pages.greatest(1).await?, [(news, 7)]);
        /// # Ok(()) }
        /// ```
        pub fn list_in(&self, window: Window, filter: &KeyFilter) -> Listing<(RedisKey, i64)> {
            Listing::of_shards(self.stores().map(|store| totals_of(store, Some(window), filter)))
        }
    };
}
pub(super) use window_reads;
