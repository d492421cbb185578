use std::{fmt, sync::Arc, time::Duration};

use super::StrictInstanceAwareCounterOptions;
use crate::{
    RedisKey,
    backend::{InstanceBackend, IntoBackend},
    lax::{SHORTEST_LAG, Settings, buffering_options},
};

/// Options of a [`LaxInstanceAwareCounter`](super::LaxInstanceAwareCounter).
#[must_use = "options do nothing until a counter is made of them"]
pub struct LaxInstanceAwareCounterOptions<B: InstanceBackend + ?Sized = dyn InstanceBackend> {
    pub(super) instance: StrictInstanceAwareCounterOptions<B>,
    pub(super) settings: Settings,
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
            settings: Settings { interval: Duration::from_millis(20), ..Settings::default() },
        }
    }

    /// Sets how many milliseconds after its last operation or heartbeat the instance may be taken for expired.
    ///
    /// Default: 30 000; at least 1. Keep it well above the time that the store may be out
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

    /// Sets after how long an absence the slices of an instance are not put back any more. Default: 7 days.
    ///
    /// See [`StrictInstanceAwareCounterOptions::max_absence`].
    pub fn max_absence(mut self, max_absence: Duration) -> Self {
        self.instance = self.instance.max_absence(max_absence);
        self
    }

    /// Spreads the prefix's counters over so many shards. Default: 1. See
    /// [`StrictInstanceAwareCounterOptions::shards`].
    pub fn shards(mut self, shards: u16) -> Self {
        self.instance = self.instance.shards(shards);
        self
    }

    /// Sets how far apart the background's flushes are at least. Default: 20 ms; at least 1 ms.
    ///
    /// A flush starts when a write is [`allowed_lag`](Self::allowed_lag) old, but not sooner than this
    /// after the flush before it.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.settings.interval = interval.max(SHORTEST_LAG);
        self
    }

    buffering_options!();
}

impl<B: InstanceBackend + ?Sized> Clone for LaxInstanceAwareCounterOptions<B> {
    fn clone(&self) -> Self {
        Self { instance: self.instance.clone(), settings: self.settings }
    }
}

impl<B: InstanceBackend + ?Sized> fmt::Debug for LaxInstanceAwareCounterOptions<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaxInstanceAwareCounterOptions")
            .field("prefix", self.instance.stores.first().prefix())
            .field("shards", &self.instance.stores.number())
            .field("name", &self.instance.name)
            .field("dead_instance_threshold_ms", &self.instance.threshold_ms)
            .field("max_absence", &self.instance.max_absence)
            .field("buffering", &self.settings)
            .finish_non_exhaustive()
    }
}
