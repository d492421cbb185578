//! How a counter buffers, and the options that say so.

use std::time::Duration;

/// The resolution of tokio's timer.
pub(crate) const SHORTEST_LAG: Duration = Duration::from_millis(1);

/// Longer than any process runs, and far from the end of any clock.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How a lax counter of either family buffers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) lag: Duration,
    /// How far apart flushes are at least.
    pub(crate) interval: Duration,
    pub(crate) max_pending: usize,
    pub(crate) evict_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lag: Duration::from_millis(20),
            interval: Duration::ZERO,
            max_pending: 1_000_000,
            evict_after: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// How long the task may show no progress before another one takes its place: two lags, within
    /// what a busy runtime may need and what a caller can wait.
    pub(super) fn patience(&self) -> Duration {
        self.lag.saturating_mul(2).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }

    /// The same, within what clocks and timers can do.
    pub(super) fn within_bounds(self) -> Self {
        Self {
            lag: self.lag.clamp(SHORTEST_LAG, LONGEST),
            interval: self.interval.min(LONGEST),
            // A sweep more often than this finds nothing more.
            evict_after: self.evict_after.clamp(SHORTEST_LAG, LONGEST),
            ..self
        }
    }
}

/// The setters of options whose field `settings` is a [`Settings`].
macro_rules! buffering_options {
    () => {
        /// Sets how long a lax counter may keep a write to itself, and how old the numbers of an answer may be.
        /// Default: 20 ms; at least 1 ms, the resolution of tokio's timer.
        pub fn allowed_lag(mut self, lag: std::time::Duration) -> Self {
            self.settings.lag = lag;
            self
        }

        /// Sets how many keys of a lax counter may have writes that the store has not acknowledged. Default:
        /// 1 000 000.
        ///
        /// The limit bounds the memory of a process whose store is unreachable. A write to one more key fails with
        /// [`TooManyPending`](crate::DistkitError::TooManyPending); keys that already have pending writes
        /// take more of them. As many additions under tokens may be pending besides: they are not summed.
        pub fn max_pending_keys(mut self, limit: usize) -> Self {
            self.settings.max_pending = limit;
            self
        }

        /// Sets how long a lax counter remembers the numbers of an unused key. Default: 30 s.
        ///
        /// A key with pending writes is never forgotten, nor is an acknowledged slice, which the instance may have to
        /// put back. The first use of a forgotten key reads it from the store.
        pub fn evict_after(mut self, idle: std::time::Duration) -> Self {
            self.settings.evict_after = idle;
            self
        }
    };
}
pub(crate) use buffering_options;
