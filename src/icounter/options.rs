use std::{fmt, sync::Arc, time::Duration};

use super::membership::Membership;
use crate::{
    RedisKey,
    backend::{Instance, InstanceBackend, IntoBackend},
    shards::Shards,
    space_store::{SpaceStore, sharding_option},
    strict::{self, strict_options},
};

const DEFAULT_THRESHOLD_MS: u64 = 30_000;

/// Options of a [`StrictInstanceAwareCounter`](super::StrictInstanceAwareCounter).
#[must_use = "options do nothing until a counter is made of them"]
pub struct StrictInstanceAwareCounterOptions<B: InstanceBackend + ?Sized = dyn InstanceBackend> {
    pub(super) stores: Shards<SpaceStore<B>>,
    pub(super) name: Option<RedisKey>,
    pub(super) threshold_ms: u64,
    pub(super) max_absence: Duration,
    pub(super) strict: strict::Settings,
}

impl StrictInstanceAwareCounterOptions {
    /// Counters under `prefix` in `store`: a redis-rs connection, a fred client or pool, or any
    /// [`InstanceBackend`]. No I/O.
    pub fn new(prefix: RedisKey, store: impl IntoBackend<dyn InstanceBackend>) -> Self {
        Self::with_store(prefix, store.into_backend())
    }
}

impl<B: InstanceBackend + ?Sized> StrictInstanceAwareCounterOptions<B> {
    /// Counters under `prefix` in a store whose type the counter keeps. No I/O.
    pub fn with_store(prefix: RedisKey, store: Arc<B>) -> Self {
        Self {
            stores: SpaceStore::shards(store, prefix, 1, "strict_instance_aware"),
            name: None,
            threshold_ms: DEFAULT_THRESHOLD_MS,
            max_absence: Instance::MAX_ABSENCE,
            strict: strict::Settings::default(),
        }
    }

    /// Sets how many milliseconds after its last operation or heartbeat the instance may be taken for expired.
    ///
    /// Default: 30 000; at least 1. Keep it well above the time that the store may be out
    /// of reach in ordinary operation.
    pub fn dead_instance_threshold_ms(mut self, threshold_ms: u64) -> Self {
        self.threshold_ms = threshold_ms.max(1);
        self
    }

    /// Gives the instance a name that only one living instance of the prefix holds, such as a host's or
    /// a pod's.
    ///
    /// A new process takes the place of an older one of the same name at once; the older one, if it
    /// still lives, gets [`DistkitError::InstanceReplaced`](crate::DistkitError::InstanceReplaced).
    pub fn instance_name(mut self, name: RedisKey) -> Self {
        self.name = Some(name);
        self
    }

    /// Sets after how long an absence the slices of an instance are not put back any more. Default: 7 days.
    ///
    /// An instance is absent from the end of its lease until it joins again, by a clock of the store that
    /// makes steps of a minute at most and stands still while no instance is joined. What `del` and `set` leave
    /// behind of a key without slices is kept for up to twice as long. Give all processes of a
    /// prefix the same value: that of the latest join counts.
    pub fn max_absence(mut self, max_absence: Duration) -> Self {
        self.max_absence = max_absence;
        self
    }

    sharding_option!("strict_instance_aware");

    fn in_shards(self, stores: Shards<SpaceStore<B>>) -> Self {
        Self { stores, ..self }
    }

    strict_options!();

    /// A new instance, of a counter of the kind.
    pub(super) fn memberships(self, kind: &'static str) -> Shards<Arc<Membership<B>>> {
        let lease = Duration::from_millis(self.threshold_ms);
        let instance = Instance {
            name: self.name,
            max_absence: self.max_absence,
            ..Instance::new(self.stores.first().store().fresh_id(), lease)
        };
        Membership::in_shards(&SpaceStore::counted_apart(&self.stores, kind), &instance)
    }
}

impl<B: InstanceBackend + ?Sized> Clone for StrictInstanceAwareCounterOptions<B> {
    fn clone(&self) -> Self {
        Self { stores: self.stores.clone(), name: self.name.clone(), ..*self }
    }
}

impl<B: InstanceBackend + ?Sized> fmt::Debug for StrictInstanceAwareCounterOptions<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictInstanceAwareCounterOptions")
            .field("prefix", self.stores.first().prefix())
            .field("shards", &self.stores.number())
            .field("name", &self.name)
            .field("dead_instance_threshold_ms", &self.threshold_ms)
            .field("max_absence", &self.max_absence)
            .finish_non_exhaustive()
    }
}
