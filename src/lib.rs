// The README's examples use these features; as doctests they keep it true.
#![cfg_attr(all(feature = "counter", feature = "redis-rs"), doc = include_str!("../README.md"))]
#![cfg_attr(
    not(all(feature = "counter", feature = "redis-rs")),
    doc = "Distributed counters for tokio services that share a Redis or Valkey server."
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

#[cfg(feature = "trypema")]
#[cfg_attr(docsrs, doc(cfg(feature = "trypema")))]
pub mod trypema;

#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod answers;
#[cfg(any(feature = "counter", feature = "instance-aware-counter", feature = "redis-rs"))]
mod backoff;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
#[cfg_attr(
    not(feature = "instance-aware-counter"),
    allow(dead_code, reason = "only the heartbeat asks whether it has ended")
)]
mod detached;
mod error;
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
mod outage;
#[cfg(all(test, any(feature = "counter", feature = "instance-aware-counter")))]
mod outage_tests;
mod parse_key;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod parts;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod shards;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod space_store;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod strict;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
mod watch;

pub use backend::CounterComparator;
pub use error::DistkitError;
pub use key::{DistkitRedisKey, RedisKey};
pub use key_filter::KeyFilter;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "counter", feature = "instance-aware-counter"))))]
pub use listing::Listing;
