//! Rate limiting: the crate [`trypema`](https://docs.rs/trypema), whole, under the name that goes with
//! this crate's version of the Redis client.
//!
//! A limiter counts what each key used in a sliding window and decides on each call. There are three
//! *providers*, which differ in where the counts are:
//!
//! | provider | counts are | one decision costs |
//! | --- | --- | --- |
//! | [`local::LocalRateLimiterProvider`] | in this process | no I/O |
//! | [`redis::RedisRateLimiterProvider`] | in the server, shared by all processes | a round trip |
//! | [`hybrid::HybridRateLimiterProvider`] | in this process, exchanged with the server every few milliseconds | mostly no I/O; processes may together go somewhat over the limit |
//!
//! and each of them has two *strategies*:
//!
//! - `absolute()`: allowed up to the limit, rejected beyond it, with a hint when to try again;
//! - `suppressed()`: beyond the limit, calls are turned down with a probability that grows with the
//!   excess, up to a hard limit (the limit times [`HardLimitFactor`]) beyond which all are.
//!
//! # In one process
//!
//! ```
//! use distkit::trypema::{
//!     RateLimit, RateLimitDecision, RateLimiterBuilder, WindowSize, local::LocalRateLimiterProvider,
//! };
//!
//! # fn main() -> Result<(), distkit::DistkitError> {
//! let limiter = LocalRateLimiterProvider::builder()
//!     .window_size(WindowSize::minutes(1)?)
//!     .disable_cleanup() // It is a task of its own, which this short example has no use for.
//!     .build()?;
//!
//! // Two a second over a window of a minute: 120 in any minute.
//! let rate = RateLimit::per_second(2.0)?;
//! assert!(matches!(limiter.absolute().inc("alice", &rate, 120), RateLimitDecision::Allowed));
//! assert!(matches!(limiter.absolute().inc("alice", &rate, 1), RateLimitDecision::Rejected { .. }));
//! assert!(matches!(limiter.absolute().inc("bob", &rate, 1), RateLimitDecision::Allowed));
//! # Ok(())
//! # }
//! ```
//!
//! # Across processes
//!
//! ```no_run
//! use distkit::trypema::{
//!     RateLimit, RateLimitDecision, RateLimiterBuilder,
//!     hybrid::{HybridRateLimiterProvider, SyncInterval},
//!     redis::{RedisKey, RedisRateLimiterProvider},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = redis::Client::open("redis://127.0.0.1/")?;
//! let connection = client.get_connection_manager().await?;
//!
//! let exact = RedisRateLimiterProvider::builder(connection.clone())
//!     .prefix(RedisKey::try_from("logins")?)
//!     .build()?;
//! let fast = HybridRateLimiterProvider::builder(connection)
//!     .prefix(RedisKey::try_from("requests")?)
//!     .sync_interval(SyncInterval::milliseconds(10)?)
//!     .build()?;
//!
//! let alice = RedisKey::try_from("alice")?;
//! let decision = exact.absolute().inc(&alice, &RateLimit::per_minute(5.0)?, 1).await?;
//! assert!(matches!(decision, RateLimitDecision::Allowed));
//!
//! match fast.suppressed().inc(&alice, &RateLimit::per_second(1_000.0)?, 1).await? {
//!     RateLimitDecision::Allowed => println!("go on"),
//!     RateLimitDecision::Suppressed { is_allowed, .. } => println!("near the limit: {is_allowed}"),
//!     RateLimitDecision::Rejected { .. } => unreachable!("only the absolute strategy rejects"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The directory `examples` has a program, `rate_limit`, that runs all of them.
//!
//! # What is supported
//!
//! The Redis and the hybrid provider take a `redis::aio::ConnectionManager` of redis-rs 1.x to one Redis
//! 7.2 or newer, or one Valkey 8 or newer. They do not work with fred, nor with a cluster, nor with the
//! memory store of this crate; the local provider needs none of them. Their state is apart from the
//! counters': the keys are trypema's own, and so are the types `RedisKey` ([`redis::RedisKey`], not
//! [`crate::RedisKey`]) and [`TrypemaError`], which converts into [`crate::DistkitError`] by `?`.

pub use ::trypema::*;
