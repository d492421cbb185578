//! limitador, with a limit that nobody reaches and a window that nobody outlives.

use std::{collections::HashMap, fmt, time::Duration};

use limitador::{
    AsyncRateLimiter,
    limit::{Context, Expression, Limit, Namespace, Predicate},
    storage::{
        AsyncCounterStorage,
        redis::{AsyncRedisStorage, CachedRedisStorageBuilder},
    },
};

use super::{Adds, Names, Told};

const NAMESPACE: &str = "peers";
/// The variable that tells the counters of the limit apart.
pub(crate) const VARIABLE: &str = "counter";
const DAY: u64 = 24 * 60 * 60;
/// More than any work has. When as many counters wait for the flush as may be cached, an addition waits
/// with a shard of the map locked, which the flush needs.
const CACHED: usize = 200_000;
/// As many as this crate sends in one request. Each batch walks over all counters that wait.
const BATCH: usize = 1000;

/// A rate limiter and the values of its variable.
pub struct Limiter {
    limiter: AsyncRateLimiter,
    namespace: Namespace,
    names: Names,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl Limiter {
    fn new(storage: Box<dyn AsyncCounterStorage>, names: &Names) -> Self {
        let limiter = AsyncRateLimiter::new_with_storage(storage);
        let variable = Expression::try_from(VARIABLE).expect("it is a variable");
        let most = u64::try_from(i64::MAX).expect("it is positive");
        limiter.add_limit(Limit::new(NAMESPACE, most, DAY, Vec::<Predicate>::new(), [variable]));
        Self { limiter, namespace: NAMESPACE.into(), names: names.clone() }
    }

    pub(super) async fn plain(url: &str, names: &Names) -> Self {
        let storage = AsyncRedisStorage::new(url).await.expect("the server is there");
        Self::new(Box::new(storage), names)
    }

    /// Flushed that often, or as by default.
    pub(super) async fn cached(url: &str, names: &Names, period: Option<Duration>) -> Self {
        let mut builder = CachedRedisStorageBuilder::new(url);
        if let Some(period) = period {
            builder = builder.flushing_period(period).batch_size(BATCH).max_cached_counters(CACHED);
        }
        Self::new(Box::new(builder.build().await.expect("the server is there")), names)
    }
}

impl Adds for Limiter {
    /// The unconditional addition. `check_rate_limited_and_update` compares with the limit too.
    async fn add(&self, key: usize) -> Told {
        let values = HashMap::from([(VARIABLE.to_owned(), self.names[key].clone())]);
        let context = Context::from(values);
        let result = self.limiter.update_counters(&self.namespace, &context, 1).await;
        result.map_or(Told::Unknown, |()| Told::Counted)
    }
}
