#![cfg_attr(feature = "counter", doc = include_str!("lib.md"))]
#![cfg_attr(
    not(feature = "counter"),
    doc = "Distributed counters for tokio services that share a Redis or Valkey server."
)]
// The page links to items of every feature.
#![cfg_attr(
    not(all(
        feature = "counter",
        feature = "instance-aware-counter",
        feature = "trypema",
        feature = "redis-rs-cluster",
        feature = "redis-rs-tls",
        feature = "fred-tls",
        feature = "conformance",
        feature = "metrics"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![warn(missing_docs)]

pub mod backend;
#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
#[cfg(feature = "counter")]
#[cfg_attr(docsrs, doc(cfg(feature = "counter")))]
pub mod counter;
#[cfg(feature = "instance-aware-counter")]
#[cfg_attr(docsrs, doc(cfg(feature = "instance-aware-counter")))]
pub mod icounter;

// Its examples use these features.
#[cfg(all(
    any(doc, doctest),
    feature = "counter",
    feature = "instance-aware-counter",
    feature = "trypema",
    feature = "redis-rs-cluster",
    feature = "redis-rs-tls",
    feature = "fred-tls",
    feature = "conformance"
))]
/// [choosing]: crate::guide::choosing
/// [connecting]: crate::guide::connecting
/// [testing]: crate::guide::testing
/// [errors]: crate::guide::errors
/// [shutdown]: crate::guide::shutdown
/// [instances]: crate::guide::instances
/// [guarantees]: crate::guide::guarantees
/// [recipes]: crate::guide::recipes
/// [store]: crate::guide::store
/// [operating]: crate::guide::operating
/// [clusters]: crate::guide::clusters
/// [migration]: crate::guide::migration
///
#[doc = include_str!("../docs/guide/README.md")]
pub mod guide;

#[cfg(feature = "trypema")]
#[cfg_attr(docsrs, doc(cfg(feature = "trypema")))]
pub mod trypema;

#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod answers;
#[cfg(any(feature = "counter", feature = "instance-aware-counter", feature = "redis-rs"))]
mod backoff;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod counted;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
#[cfg_attr(
    not(all(feature = "counter", feature = "instance-aware-counter")),
    allow(dead_code, reason = "each family has uses for a part of it")
)]
mod counts;
#[cfg(feature = "metrics")]
mod describe;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
#[cfg_attr(
    not(feature = "instance-aware-counter"),
    allow(dead_code, reason = "only the heartbeat asks whether it has ended")
)]
mod detached;
#[cfg(all(test, any(feature = "counter", feature = "instance-aware-counter")))]
mod detached_tests;
mod error;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod gauges;
mod key;
mod key_filter;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
#[cfg_attr(
    not(all(feature = "counter", feature = "instance-aware-counter")),
    allow(dead_code, reason = "each family has uses for a part of it")
)]
mod lax;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod listing;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
#[cfg_attr(
    not(all(feature = "counter", feature = "instance-aware-counter")),
    allow(dead_code, reason = "each family finds losses in its own way")
)]
mod losses;
#[cfg(all(test, feature = "counter", feature = "metrics"))]
mod observability_tests;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod outage;
#[cfg(all(test, any(feature = "counter", feature = "instance-aware-counter")))]
mod outage_tests;
mod parse_key;
mod parse_token;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod parts;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod shards;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod space_store;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod stats;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod strict;
mod token;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod watch;
mod window;
#[cfg(feature = "counter")]
mod window_clock;

/// The version of fred whose clients and pools this crate takes, for services that do not name one themselves.
///
/// ```no_run
/// use distkit::{
///     RedisKey,
///     counter::{CounterOptions, CounterTrait, StrictCounter},
///     fred::{interfaces::ClientLike, types::{Builder, config::{Config, ReconnectPolicy}}},
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::from_url("redis://127.0.0.1/")?;
/// let policy = ReconnectPolicy::new_exponential(0, 20, 2000, 2);
/// let client = Builder::from_config(config).set_policy(policy).build()?;
/// client.init().await?;
/// let options = CounterOptions::new(RedisKey::try_from("shop")?, client);
/// StrictCounter::new(options).inc(&RedisKey::try_from("hits")?, 1).await?;
/// # Ok(()) }
/// ```
#[cfg(feature = "fred")]
#[cfg_attr(docsrs, doc(cfg(feature = "fred")))]
pub use ::fred;
/// The version of redis-rs whose connections this crate takes, for services that do not name one themselves.
///
/// ```no_run
/// use distkit::{
///     RedisKey,
///     backend::ReconnectingConnection,
///     counter::{CounterOptions, CounterTrait, StrictCounter},
///     redis,
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let connection = ReconnectingConnection::connect(client).await?;
/// let options = CounterOptions::new(RedisKey::try_from("shop")?, connection);
/// StrictCounter::new(options).inc(&RedisKey::try_from("hits")?, 1).await?;
/// # Ok(()) }
/// ```
#[cfg(feature = "redis-rs")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-rs")))]
pub use ::redis;

pub use backend::CounterComparator;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use describe::describe_metrics;
pub use error::DistkitError;
pub use key::{DistkitRedisKey, RedisKey};
pub use key_filter::KeyFilter;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "counter", feature = "instance-aware-counter"))))]
pub use listing::Listing;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "counter", feature = "instance-aware-counter"))))]
pub use stats::Stats;
pub use token::Token;
pub use window::{Window, Windows};

/// The examples of README.md, compiled.
#[cfg(all(doctest, feature = "counter", feature = "redis-rs"))]
#[doc = include_str!("../README.md")]
mod readme {}
