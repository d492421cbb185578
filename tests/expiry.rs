//! Prefixes that expire when nobody writes to them, in the simulator and on servers.
#![cfg(all(feature = "counter", feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey, Windows,
    backend::{Backend, BackendError, ReplayGuard, Space, Write, connect, memory::MemoryBackend},
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

const MINUTE: Duration = Duration::from_secs(60);

/// A batch of a writer's that was applied in a window, and is sent again when the prefix has long been idle.
async fn a_batch_of_a_window_counts_once(
    store: &dyn Backend,
    at: Duration,
    pass: impl Fn(Duration),
) {
    let space = Space::new(key("cart")).expiring_after(MINUTE);
    let hours = Windows::every(HOUR).keep(5);
    let (first, second) = (space.in_window(hours.at(at)), space.in_window(hours.at(at).next()));
    let items = [Write::add(key("items"), 4)];
    let guard = |writer: &str| ReplayGuard { writer: writer.into(), sequence: 1, resent: false };
    let mut guards = ["one", "two"].map(guard);
    for guard in &guards {
        store.apply(&first, &items, Some(guard)).await.unwrap();
    }
    pass(HOUR);
    // Known by its guard in the window of before, whatever was written since to the one after and beside windows.
    guards.iter_mut().for_each(|guard| guard.resent = true);
    assert!(store.apply(&first, &items, Some(&guards[0])).await.unwrap().replayed);
    let lane = guard("lane");
    let recorded = store.capabilities().recorded.unwrap();
    recorded.apply_recorded(&second, &items, &lane).await.unwrap();
    store.apply(&space, &items, None).await.unwrap();
    pass(4 * HOUR - MINUTE);
    assert!(store.apply(&first, &items, Some(&guards[1])).await.unwrap().replayed);
    assert_eq!(store.read(&first, &[key("items")]).await.unwrap(), [Ok(8)]);
    assert_eq!(store.read(&space, &[key("items")]).await.unwrap(), [Ok(0)], "it was idle");
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_outlives_the_windows_it_is_of_in_memory() {
    let store = MemoryBackend::new();

    a_batch_of_a_window_counts_once(&store, Duration::ZERO, |step| store.set_clock_forward(step))
        .await;
}

#[tokio::test]
async fn what_is_remembered_outlives_the_windows_it_is_of() {
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().manual_clock().start();
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            a_batch_of_a_window_counts_once(&*store, server.now(), |step| server.advance(step))
                .await;
            // Of a prefix that expires nothing stays, and no key of a window without a time of its own.
            let names = server.cli(&["KEYS", "*"]);
            for name in names.lines() {
                assert_ne!(server.cli(&["TTL", name]), "-1", "{name}");
            }
            server.advance(20 * HOUR);
            assert_eq!(server.cli(&["KEYS", "*"]), "");
        }
    }
}

#[tokio::test]
async fn counters_do_not_outlive_what_is_remembered_of_their_writers() {
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().manual_clock().start();
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            let options = CounterOptions::new(key("cart"), store).expire_after(MINUTE);
            let (strict, items) = (StrictCounter::new(options), key("items"));
            for _ in 0..3 {
                strict.inc(&items, 1).await.unwrap();
                server.advance(Duration::from_millis(300));
            }
            let [totals, lanes, shape] = ["totals", "lanes", "shape"]
                .map(|name| server.cli(&["PTTL", &format!("distkit:{{cart}}:{name}")]));
            assert_eq!((&totals, &shape), (&lanes, &lanes));
        }
    }
}

/// Counters with and without windows, of which some records were made after the window was opened.
#[tokio::test]
async fn windows_and_other_counters_of_a_prefix_expire_after_their_records() {
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().manual_clock().start();
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            let space = Space::new(key("cart")).expiring_after(MINUTE);
            let window = space.in_window(Windows::every(HOUR).at(server.now()));
            let items = [Write::add(key("items"), 4)];
            let guard = |writer: &str, sequence| ReplayGuard {
                writer: writer.into(),
                sequence,
                resent: false,
            };
            let recorded = store.capabilities().recorded.unwrap();
            let ttl = |name: &str| -> i64 {
                server.cli(&["PTTL", &format!("distkit:{{cart}}:{name}")]).parse().unwrap()
            };
            // The window before the lanes, which a write beside windows makes, and all in one second.
            store.apply(&window, &items, Some(&guard("one", 1))).await.unwrap();
            recorded.apply_recorded(&space, &items, &guard("lane", 1)).await.unwrap();
            recorded.apply_recorded(&window, &items, &guard("lane", 2)).await.unwrap();
            let closed = (2 * HOUR).as_millis() as i64;
            assert!(ttl("lanes") >= closed && ttl("writers") >= closed && ttl("shape") >= closed);
            server.advance(Duration::from_millis(1500));
            // Renewed by a window's write, which is none to the counters beside it; the next one is.
            recorded.apply_recorded(&window, &items, &guard("lane", 3)).await.unwrap();
            server.advance(Duration::from_millis(300));
            recorded.apply_recorded(&space, &items, &guard("lane", 4)).await.unwrap();
            assert!(ttl("totals") >= MINUTE.as_millis() as i64, "{}", ttl("totals"));
        }
    }
}
