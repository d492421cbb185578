//! Prefixes that expire when nobody writes to them, in the simulator and on servers.
#![cfg(all(feature = "counter", feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey, Windows,
    backend::{Backend, BackendError, connect, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use distkit_testkit::Server;
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(3600);
const LATE: Duration = Duration::from_secs(5);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn lax_and_strict_counters_expire_together_and_begin_anew() {
    for shards in [1, 4] {
        let store = MemoryBackend::new();
        let options =
            CounterOptions::new(key("cart"), store.clone()).shards(shards).expire_after(HOUR);
        let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
        let items = key("items");
        assert_eq!(strict.inc(&items, 5).await.unwrap(), 5);
        for _ in 0..3 {
            sleep(HOUR - LATE).await;
            assert_eq!(lax.get(&items).await.unwrap(), 5);
            lax.inc(&items, 1).await.unwrap();
            lax.flush().await.unwrap();
            lax.dec(&items, 1).await.unwrap();
            lax.flush().await.unwrap();
        }
        sleep(HOUR + LATE).await;
        assert_eq!((strict.get(&items).await.unwrap(), lax.get(&items).await.unwrap()), (0, 0));
        assert_eq!(strict.len().await.unwrap(), 0);
        lax.dec(&items, 1).await.unwrap();
        lax.flush().await.unwrap();
        assert_eq!(strict.get(&items).await.unwrap(), -1);
        sleep(HOUR + LATE).await;
        assert_eq!(strict.get(&items).await.unwrap(), 0);
        assert_eq!(store.guarded_writers(), 0, "its records went, too");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_was_in_doubt_counts_once_beside_what_expired() {
    let link = MemoryBackend::new().link();
    let lax = LaxCounter::new(CounterOptions::new(key("cart"), link.clone()).expire_after(HOUR));
    let items = key("items");
    lax.inc(&items, 1).await.unwrap();
    lax.flush().await.unwrap();
    link.lose_next_replies(1);
    lax.inc(&items, 4).await.unwrap();
    sleep(Duration::from_millis(25)).await;
    // It was applied, and expires before it is asked for again.
    link.cut();
    sleep(HOUR + LATE).await;
    link.restore();
    sleep(LATE).await;
    lax.flush().await.unwrap();
    assert_eq!(lax.get(&items).await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn another_idle_time_is_refused_and_both_are_named() {
    let store = MemoryBackend::new();
    let options = CounterOptions::new(key("cart"), store);
    let hourly = StrictCounter::new(options.clone().expire_after(HOUR));
    hourly.inc(&key("items"), 1).await.unwrap();
    for other in [options.clone().expire_after(2 * HOUR), options] {
        let error = StrictCounter::new(other).inc(&key("items"), 1).await.unwrap_err();
        let DistkitError::NotApplied(BackendError::ShapeMismatch { stored, .. }) = &error else {
            panic!("{error:?}")
        };
        assert!(stored.contains("3600000"), "{stored}");
    }
    assert_eq!(hourly.get(&key("items")).await.unwrap(), 1);
}

#[tokio::test]
async fn all_keys_of_a_prefix_on_a_server_expire_together() {
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            for shards in [1, 3] {
                let server = start().manual_clock().start();
                let store: Arc<dyn Backend> =
                    connect(&server.url().replacen("redis", client, 1)).await.unwrap() as _;
                let options =
                    CounterOptions::new(key("cart"), store).shards(shards).expire_after(HOUR);
                let (strict, lax) = (
                    StrictCounter::new(options.clone()),
                    LaxCounter::new(options.clone().allowed_lag(Duration::from_millis(1))),
                );
                let unguarded = StrictCounter::new(options.unguarded());
                let items = key("items");
                for second in 0..3 {
                    strict.inc(&items, 5).await.unwrap();
                    unguarded.inc(&items, 1).await.unwrap();
                    // In a lane that is known, right after the last counter was deleted.
                    strict.del(&items).await.unwrap();
                    strict.inc(&items, 5).await.unwrap();
                    lax.inc(&items, 1).await.unwrap();
                    lax.flush().await.unwrap();
                    strict.set(&items, second).await.unwrap();
                    let names = server.cli(&["KEYS", "*"]);
                    let mut times: Vec<_> = names
                        .lines()
                        // Of several shards, what the prefix itself has stays.
                        .filter(|name| shards == 1 || !name.contains("{cart}"))
                        .map(|name| (server.cli(&["PTTL", name]), name))
                        .collect();
                    times.sort();
                    assert_eq!(times.len(), 4, "totals, writers, lanes and shape: {names}");
                    assert!(times.iter().all(|(time, _)| *time == "3601000"), "{times:?}");
                    server.advance(Duration::from_millis(700));
                }
                server.advance(HOUR + LATE);
                assert_eq!(strict.get(&items).await.unwrap(), 0);
                let left = server.cli(&["KEYS", "*:totals"]);
                assert_eq!(left.lines().count(), usize::from(shards > 1), "{left}");
                assert_eq!(strict.dec(&items, 1).await.unwrap(), -1);
                server.advance(HOUR + LATE);
                assert_eq!(strict.get(&items).await.unwrap(), 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn windows_go_by_their_own_time() {
    let store = MemoryBackend::new();
    let windows = Windows::every(HOUR).keep(5);
    let options = CounterOptions::new(key("cart"), store).windows(windows).expire_after(HOUR / 2);
    let counter = StrictCounter::new(options);
    let items = key("items");
    counter.inc(&items, 7).await.unwrap();
    let first = counter.current_window().await.unwrap();
    sleep(3 * HOUR).await;
    assert_eq!(counter.get_in(first, &items).await.unwrap(), 7);
    assert_eq!(counter.inc(&items, 1).await.unwrap(), 1);
    sleep(4 * HOUR).await;
    assert_eq!(counter.get_in(first, &items).await.unwrap(), 0);
}
