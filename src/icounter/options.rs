use std::{fmt, sync::Arc, time::Duration};

use crate::{
    RedisKey,
    backend::{Backend, IntoBackend, Space},
};

const DEFAULT_THRESHOLD_MS: u64 = 30_000;

/// Options of a [`StrictInstanceAwareCounter`](super::StrictInstanceAwareCounter).
#[derive(Clone)]
#[must_use]
pub struct StrictInstanceAwareCounterOptions {
    pub(super) space: Space,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) name: Option<RedisKey>,
    pub(super) threshold_ms: u64,
}

impl StrictInstanceAwareCounterOptions {
    /// Counters under `prefix` in `store`: a redis-rs connection, a fred client or pool, or any
    /// [`Backend`]. No I/O.
    pub fn new(prefix: RedisKey, store: impl IntoBackend) -> Self {
        Self {
            space: Space::new(prefix),
            backend: store.into_backend(),
            name: None,
            threshold_ms: DEFAULT_THRESHOLD_MS,
        }
    }

    /// How many milliseconds after its last operation or heartbeat the instance may be taken for dead.
    ///
    /// 30 000 unless told otherwise; at least 1. Keep it well above the time that the store may be out
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

    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.threshold_ms)
    }
}

impl fmt::Debug for StrictInstanceAwareCounterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictInstanceAwareCounterOptions")
            .field("prefix", self.space.prefix())
            .field("name", &self.name)
            .field("dead_instance_threshold_ms", &self.threshold_ms)
            .finish_non_exhaustive()
    }
}
