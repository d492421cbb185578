//! The re-exported rate limiter works with this crate's client: each provider with each strategy.
#![cfg(feature = "trypema")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError,
    trypema::{
        HardLimitFactor, RateLimit, RateLimitDecision, RateLimiterBuilder, WindowSize,
        hybrid::{HybridRateLimiterProvider, SyncInterval},
        local::LocalRateLimiterProvider,
        redis::{ConnectionManager, RedisKey, RedisRateLimiterProvider},
    },
};
use distkit_testkit::Server;

/// A window so long that nothing leaves it during a test, and how much fits in.
const WINDOW: u64 = 600;
const SOFT: u64 = WINDOW;
const HARD: u64 = 2 * WINDOW;

fn rate() -> RateLimit {
    RateLimit::per_second(1.0).unwrap()
}

fn configured<B: RateLimiterBuilder>(builder: B) -> B {
    builder
        .window_size(WindowSize::seconds(WINDOW).unwrap())
        .hard_limit_factor(HardLimitFactor::try_from(2.0).unwrap())
        .disable_cleanup()
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

async fn valkey() -> (Server, ConnectionManager) {
    let server = tokio::task::spawn_blocking(|| Server::valkey().start()).await.unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_connection_manager().await.unwrap();
    (server, connection)
}

fn over_redis(connection: &ConnectionManager) -> Arc<RedisRateLimiterProvider> {
    configured(RedisRateLimiterProvider::builder(connection.clone())).build().unwrap()
}

fn hybrid(connection: &ConnectionManager) -> Arc<HybridRateLimiterProvider> {
    configured(HybridRateLimiterProvider::builder(connection.clone()))
        .sync_interval(SyncInterval::milliseconds(5).unwrap())
        .build()
        .unwrap()
}

#[track_caller]
fn assert_allowed(decision: RateLimitDecision) {
    assert!(matches!(decision, RateLimitDecision::Allowed), "{decision:?}");
}

#[track_caller]
fn assert_rejected(decision: RateLimitDecision) {
    let RateLimitDecision::Rejected { window_size, retry_after, .. } = decision else {
        panic!("{decision:?}");
    };
    assert_eq!(window_size.as_seconds(), WINDOW);
    assert!(retry_after <= Duration::from_secs(WINDOW), "{retry_after:?}");
}

/// Beyond the hard limit nothing is left to chance.
#[track_caller]
fn assert_suppressed(decision: RateLimitDecision) {
    let RateLimitDecision::Suppressed { is_allowed, suppression_factor, .. } = decision else {
        panic!("{decision:?}");
    };
    assert_eq!((is_allowed, suppression_factor), (false, 1.0));
}

#[test]
fn local_absolute() {
    let provider = configured(LocalRateLimiterProvider::builder()).build().unwrap();
    let limiter = provider.absolute();
    assert_allowed(limiter.inc("a", &rate(), SOFT));
    assert_rejected(limiter.inc("a", &rate(), 1));
    assert_rejected(limiter.is_allowed("a"));
    assert_eq!(limiter.get("a"), SOFT);
    assert_allowed(limiter.inc("b", &rate(), 1));
    assert_eq!(limiter.delete("a"), Some(SOFT));
    assert_allowed(limiter.inc("a", &rate(), 1));
}

#[test]
fn local_suppressed() {
    let provider = configured(LocalRateLimiterProvider::builder()).build().unwrap();
    let limiter = provider.suppressed();
    assert_allowed(limiter.inc("a", &rate(), SOFT));
    assert_suppressed(limiter.inc("a", &rate(), HARD));
    let seen = limiter.get("a");
    assert_eq!((seen.total, seen.total_declined), (SOFT + HARD, HARD));
    assert_allowed(limiter.inc("b", &rate(), 1));
}

#[tokio::test]
async fn redis_absolute_is_shared() -> Result<(), DistkitError> {
    let (_server, connection) = valkey().await;
    let (one, other) = (over_redis(&connection), over_redis(&connection));
    assert_allowed(one.absolute().inc(&key("a"), &rate(), SOFT - 1).await?);
    assert_allowed(other.absolute().inc(&key("a"), &rate(), 1).await?);
    assert_rejected(one.absolute().inc(&key("a"), &rate(), 1).await?);
    assert_rejected(other.absolute().is_allowed(&key("a")).await?);
    assert_eq!(one.absolute().get(&key("a")).await?, SOFT);
    assert_allowed(one.absolute().inc(&key("b"), &rate(), 1).await?);
    Ok(())
}

#[tokio::test]
async fn redis_suppressed_is_shared() -> Result<(), DistkitError> {
    let (_server, connection) = valkey().await;
    let (one, other) = (over_redis(&connection), over_redis(&connection));
    assert_allowed(one.suppressed().inc(&key("a"), &rate(), SOFT).await?);
    assert_suppressed(other.suppressed().inc(&key("a"), &rate(), HARD).await?);
    let seen = one.suppressed().get(&key("a")).await?;
    assert_eq!((seen.total, seen.total_declined), (SOFT + HARD, HARD));
    Ok(())
}

/// Polls, because the processes exchange their counts in the background.
async fn until(
    what: &str,
    condition: impl AsyncFn() -> Result<bool, DistkitError>,
) -> Result<(), DistkitError> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition().await? {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[tokio::test]
async fn hybrid_absolute_reaches_the_others() -> Result<(), DistkitError> {
    let (_server, connection) = valkey().await;
    let (one, other) = (hybrid(&connection), hybrid(&connection));
    for _ in 0..SOFT {
        assert_allowed(one.absolute().inc(&key("a"), &rate(), 1).await?);
    }
    assert_rejected(one.absolute().inc(&key("a"), &rate(), 1).await?);
    until("the other sees all of it", async || Ok(other.absolute().get(&key("a")).await? == SOFT))
        .await?;
    assert_rejected(other.absolute().inc(&key("a"), &rate(), 1).await?);
    assert_allowed(other.absolute().inc(&key("b"), &rate(), 1).await?);
    Ok(())
}

#[tokio::test]
async fn hybrid_suppressed_reaches_the_others() -> Result<(), DistkitError> {
    let (_server, connection) = valkey().await;
    let (one, other) = (hybrid(&connection), hybrid(&connection));
    assert_allowed(one.suppressed().inc(&key("a"), &rate(), SOFT).await?);
    assert_suppressed(one.suppressed().inc(&key("a"), &rate(), HARD).await?);
    until("the other sees all of it", async || {
        let seen = other.suppressed().get(&key("a")).await?;
        Ok((seen.total, seen.total_declined) == (SOFT + HARD, HARD))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_lost_server_is_this_crates_error() {
    let (server, connection) = valkey().await;
    let provider = over_redis(&connection);
    server.kill_9();
    let error = provider.absolute().inc(&key("a"), &rate(), 1).await.unwrap_err();
    let error = DistkitError::from(error);
    assert!(matches!(error, DistkitError::TrypemaError(_)), "{error:?}");
    assert!(
        distkit_testkit::chain(&error).starts_with("the rate limiter failed: redis error"),
        "{error}"
    );
}
