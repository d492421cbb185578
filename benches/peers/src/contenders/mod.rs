//! The contenders.

mod limiter;
mod map;
mod old;
mod ours;
mod raw;

use std::{sync::Arc, time::Duration};

use redis::aio::ConnectionManager;

use crate::server::Place;

/// The names of the counters; works speak of their places in this list.
pub type Names = Arc<[String]>;

/// The names of that many counters.
pub fn names(count: usize) -> Names {
    (0..count).map(|n| format!("user-{n}-views")).collect()
}

/// How often those that count in the process send their sums: the default of both versions of distkit.
const LAG: Duration = Duration::from_millis(20);

/// What a caller is told about an addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It counts.
    Counted,
    /// It failed, and does certainly not count.
    NotApplied,
    /// It failed. Whether it counts is not said.
    Unknown,
}

/// What all contenders do.
pub(crate) trait Adds: Send + Sync + 'static {
    /// Adds 1 to the counter at this place in the list of names.
    fn add(&self, key: usize) -> impl Future<Output = Told> + Send;
}

/// A contender that is connected to a server.
#[derive(Debug)]
pub enum Subject {
    /// `LaxCounter` of this crate.
    Lax(ours::Lax),
    /// `StrictCounter` of this crate.
    Strict(ours::Strict),
    /// `LaxCounter` of 0.7.1.
    OldLax(old::Lax),
    /// `StrictCounter` of 0.7.1.
    OldStrict(old::Strict),
    /// limitador, over either storage.
    Limiter(limiter::Limiter),
    /// The hand-written loop.
    Map(Arc<map::Map>),
    /// One `HINCRBY` for each call.
    Raw(raw::Raw),
}

/// Runs `$body` with the contender inside, of its own type: what takes nanoseconds is not called through
/// a table of functions or a box.
macro_rules! with {
    ($subject:expr, $contender:ident => $body:expr) => {
        match $subject {
            $crate::contenders::Subject::Lax($contender) => $body,
            $crate::contenders::Subject::Strict($contender) => $body,
            $crate::contenders::Subject::OldLax($contender) => $body,
            $crate::contenders::Subject::OldStrict($contender) => $body,
            $crate::contenders::Subject::Limiter($contender) => $body,
            $crate::contenders::Subject::Map($contender) => $body,
            $crate::contenders::Subject::Raw($contender) => $body,
        }
    };
}
pub(crate) use with;

/// A contender and its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `LaxCounter` of this crate.
    Lax,
    /// `StrictCounter` of this crate.
    Strict,
    /// `LaxCounter` of 0.7.1.
    OldLax,
    /// `StrictCounter` of 0.7.1.
    OldStrict,
    /// limitador over its cached storage, flushed as often as the others.
    Cached,
    /// The same with its own defaults.
    CachedDefault,
    /// limitador over its plain Redis storage.
    Limiter,
    /// The hand-written loop, which sends again what failed.
    Retried,
    /// The hand-written loop, which forgets what failed.
    Dropped,
    /// One `HINCRBY` for each call.
    Raw,
}

impl Kind {
    /// All, in the order of the tables.
    pub const ALL: [Self; 10] = [
        Self::Lax,
        Self::OldLax,
        Self::Retried,
        Self::Dropped,
        Self::Cached,
        Self::CachedDefault,
        Self::Strict,
        Self::OldStrict,
        Self::Limiter,
        Self::Raw,
    ];

    /// What the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lax => "distkit lax",
            Self::Strict => "distkit strict",
            Self::OldLax => "0.7.1 lax",
            Self::OldStrict => "0.7.1 strict",
            Self::Cached => "limitador cached",
            Self::CachedDefault => "limitador cached, defaults",
            Self::Limiter => "limitador Redis",
            Self::Retried => "map and pipeline, retried",
            Self::Dropped => "map and pipeline, dropped",
            Self::Raw => "raw HINCRBY",
        }
    }

    /// What it is, with which settings, and what it does not claim to do.
    pub fn about(self) -> &'static str {
        match self {
            Self::Lax => {
                "`LaxCounter::inc`, default options, over `ReconnectingConnection`; answers an estimate of \
                 the total"
            }
            Self::Strict => {
                "`StrictCounter::inc`, default options, over `ReconnectingConnection`; answers the total"
            }
            Self::OldLax => {
                "`LaxCounter::inc` of `distkit` 0.7.1, default options, over `ConnectionManager`; answers an \
                 estimate of the total, for which it reads a key that was not read in the last 20 ms"
            }
            Self::OldStrict => {
                "`StrictCounter::inc` of `distkit` 0.7.1 over `ConnectionManager`; answers the total"
            }
            Self::Cached => {
                "`AsyncRateLimiter::update_counters` of limitador 0.14 over `CachedRedisStorage` with \
                 `flushing_period` 20 ms, `batch_size` 1000 and `max_cached_counters` 200 000, to be like \
                 the others"
            }
            Self::CachedDefault => "the same with its defaults: 1 s, 100 and 10 000",
            Self::Limiter => {
                "`AsyncRateLimiter::update_counters` of limitador 0.14 over `AsyncRedisStorage`, which has no \
                 time-out"
            }
            Self::Retried => {
                "a `Mutex<HashMap<String, i64>>`, and a task that takes it every 20 ms and sends a pipeline \
                 of `HINCRBY` over `ConnectionManager`; when the pipeline fails, its amounts go back into \
                 the map. It answers nothing and cannot read"
            }
            Self::Dropped => "the same, but the amounts of a pipeline that failed are dropped",
            Self::Raw => "one `HINCRBY` a call over `ConnectionManager`; answers the total",
        }
    }

    /// How long it may keep an addition without a failure, while it is in use.
    pub(crate) fn longest_lag(self) -> Duration {
        match self {
            // Its flush stops for the second half of each period of 15 s.
            Self::OldLax => Duration::from_secs(16),
            _ => Duration::from_secs(3),
        }
    }

    /// Whether it counts in the process first.
    pub(crate) fn buffers(self) -> bool {
        !matches!(self, Self::Strict | Self::OldStrict | Self::Limiter | Self::Raw)
    }

    /// Whether it differs from the one before only in what happens after a failure or after a while.
    pub(crate) fn is_variant(self) -> bool {
        matches!(self, Self::Dropped | Self::CachedDefault)
    }

    pub(crate) fn place(self) -> Place {
        match self {
            Self::Lax | Self::Strict => Place::Hash(ours::HASH),
            Self::OldLax => Place::Hash(old::LAX_HASH),
            Self::OldStrict => Place::Hash(old::STRICT_HASH),
            Self::Cached | Self::CachedDefault | Self::Limiter => Place::Limiter,
            Self::Retried | Self::Dropped => Place::Hash(map::HASH),
            Self::Raw => Place::Hash(raw::HASH),
        }
    }

    /// Connects it as its documentation says.
    ///
    /// # Panics
    ///
    /// When the server is not there.
    pub async fn connect(self, url: &str, names: &Names) -> Subject {
        match self {
            Self::Lax => Subject::Lax(ours::Lax::connect(url, names).await),
            Self::Strict => Subject::Strict(ours::Strict::connect(url, names).await),
            Self::OldLax => Subject::OldLax(old::Lax::new(manager(url).await, names)),
            Self::OldStrict => Subject::OldStrict(old::Strict::new(manager(url).await, names)),
            Self::Cached => Subject::Limiter(limiter::Limiter::cached(url, names, Some(LAG)).await),
            Self::CachedDefault => {
                Subject::Limiter(limiter::Limiter::cached(url, names, None).await)
            }
            Self::Limiter => Subject::Limiter(limiter::Limiter::plain(url, names).await),
            Self::Retried | Self::Dropped => {
                let retries = self == Self::Retried;
                Subject::Map(map::Map::start(manager(url).await, names, LAG, retries))
            }
            Self::Raw => Subject::Raw(raw::Raw::new(manager(url).await, names)),
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("there is no contender {name:?}"))
    }
}

async fn manager(url: &str) -> ConnectionManager {
    let client = redis::Client::open(url).expect("a valid URL");
    client.get_connection_manager().await.expect("the server is there")
}
