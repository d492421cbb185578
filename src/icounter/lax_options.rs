use std::{fmt, sync::Arc, time::Duration};

use super::StrictInstanceAwareCounterOptions;
use crate::{
    RedisKey,
    backend::{InstanceBackend, IntoBackend, Space},
};

/// The resolution of tokio's timer.
const SHORTEST: Duration = Duration::from_millis(1);

/// Options of a [`LaxInstanceAwareCounter`](super::LaxInstanceAwareCounter).
#[must_use = "options do nothing until a counter is made of them"]
pub struct LaxInstanceAwareCounterOptions<B: InstanceBackend + ?Sized = dyn InstanceBackend> {
    pub(super) instance: StrictInstanceAwareCounterOptions<B>,
    pub(super) flush_interval: Duration,
    pub(super) allowed_lag: Duration,
    pub(super) max_pending_keys: usize,
    pub(super) evict_after: Duration,
}

impl LaxInstanceAwareCounterOptions {
    /// Counters under `prefix` in `store`. No I/O.
    pub fn new(prefix: RedisKey, store: impl IntoBackend<dyn InstanceBackend>) -> Self {
        Self::with_store(prefix, store.into_backend())
    }
}

impl<B: InstanceBackend + ?Sized> LaxInstanceAwareCounterOptions<B> {
    /// Counters over a store whose type the counter keeps.
    pub fn with_store(prefix: RedisKey, store: Arc<B>) -> Self {
        Self {
            instance: StrictInstanceAwareCounterOptions::with_store(prefix, store),
            flush_interval: Duration::from_millis(20),
            allowed_lag: Duration::from_millis(20),
            max_pending_keys: 1_000_000,
            evict_after: Duration::from_secs(30),
        }
    }

    /// How many milliseconds after its last operation or heartbeat the instance may be taken for dead.
    ///
    /// 30 000 unless told otherwise; at least 1. Keep it well above the time that the store may be out
    /// of reach in ordinary operation.
    pub fn dead_instance_threshold_ms(mut self, threshold_ms: u64) -> Self {
        self.instance = self.instance.dead_instance_threshold_ms(threshold_ms);
        self
    }

    /// Gives the instance a name that only one living instance of the prefix holds, such as a host's or
    /// a pod's.
    ///
    /// A new process takes the place of an older one of the same name at once; the older one, if it
    /// still lives, gets [`DistkitError::InstanceReplaced`](crate::DistkitError::InstanceReplaced).
    pub fn instance_name(mut self, name: RedisKey) -> Self {
        self.instance = self.instance.instance_name(name);
        self
    }

    /// After how long an absence the slices of an instance are not put back any more. Default: 7 days.
    ///
    /// See [`StrictInstanceAwareCounterOptions::max_absence`].
    pub fn max_absence(mut self, max_absence: Duration) -> Self {
        self.instance = self.instance.max_absence(max_absence);
        self
    }

    /// How far apart the background's flushes are at least. Default: 20 ms; at least 1 ms.
    ///
    /// A flush starts when a write is [`allowed_lag`](Self::allowed_lag) old, but not sooner than this
    /// after the flush before it.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.flush_interval = interval.max(SHORTEST);
        self
    }

    /// How long a write may wait for a flush, and how old the numbers of an answer may be. Default:
    /// 20 ms; at least 1 ms.
    pub fn allowed_lag(mut self, lag: Duration) -> Self {
        self.allowed_lag = lag.max(SHORTEST);
        self
    }

    /// How many keys may have writes that the store has not taken yet. Default: 1 000 000.
    ///
    /// A write to one more key fails with
    /// [`TooManyPending`](crate::DistkitError::TooManyPending); keys that already have pending writes
    /// take more of them.
    pub fn max_pending_keys(mut self, limit: usize) -> Self {
        self.max_pending_keys = limit;
        self
    }

    /// How long the numbers of a key that nobody uses are kept. Default: 30 s.
    ///
    /// A key with pending writes is never forgotten, nor is an acknowledged slice, which the instance
    /// may have to put back. The first use of a forgotten key reads it from the store.
    pub fn evict_after(mut self, idle: Duration) -> Self {
        self.evict_after = idle;
        self
    }

    pub(super) fn space(&self) -> &Space {
        &self.instance.space
    }
}

impl<B: InstanceBackend + ?Sized> Clone for LaxInstanceAwareCounterOptions<B> {
    fn clone(&self) -> Self {
        Self { instance: self.instance.clone(), ..*self }
    }
}

impl<B: InstanceBackend + ?Sized> fmt::Debug for LaxInstanceAwareCounterOptions<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaxInstanceAwareCounterOptions")
            .field("prefix", self.space().prefix())
            .field("name", &self.instance.name)
            .field("dead_instance_threshold_ms", &self.instance.threshold_ms)
            .field("max_absence", &self.instance.max_absence)
            .field("flush_interval", &self.flush_interval)
            .field("allowed_lag", &self.allowed_lag)
            .field("max_pending_keys", &self.max_pending_keys)
            .field("evict_after", &self.evict_after)
            .finish_non_exhaustive()
    }
}
