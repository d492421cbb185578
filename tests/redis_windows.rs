//! Windows of time in servers: their keys, how they go, what an eviction leaves, and servers whose clock steps.
#![cfg(all(feature = "counter", feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, RedisKey, Windows,
    backend::{Backend, BackendError, Space, Write, connect},
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use distkit_testkit::Server;
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(20);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// A server whose clock stands in the middle of an hour, and a store on it, by both clients and both kinds of server.
async fn stages() -> Vec<(Server, Arc<dyn Backend>)> {
    let mut all = Vec::new();
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().manual_clock().start();
            let millis = (server.now().as_millis() % HOUR.as_millis()) as u64;
            server.advance(HOUR + HOUR / 2 - Duration::from_millis(millis));
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            all.push((server, store as _));
        }
    }
    all
}

fn counter(store: &Arc<dyn Backend>, windows: Windows) -> Arc<StrictCounter> {
    let options = CounterOptions::new(key("shop"), Arc::clone(store));
    StrictCounter::new(options.windows(windows))
}

/// The documented name of the hash of the window in which the server is.
fn name(server: &Server) -> String {
    let start = server.now().as_millis() / HOUR.as_millis() * HOUR.as_millis();
    format!("distkit:{{shop}}:w:3600000.0:{start}")
}

const INDEX: &str = "distkit:{shop}:w:3600000.0";

fn number(server: &Server, section: &str, name: &str) -> u64 {
    let info = server.cli(&["INFO", section]);
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {info}")).trim().parse().unwrap()
}

/// The clock of the server's process stands still, and so do the timers with which it frees memory in the background.
async fn until(server: &Server, what: &str, mut done: impl FnMut() -> bool) {
    let late = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < late, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
        let _ = server.cli(&["PING"]);
    }
}

#[tokio::test]
async fn a_window_has_a_ttl_from_its_first_write_on_and_the_index_has_none() {
    for (server, store) in stages().await {
        let counter = counter(&store, Windows::every(HOUR));
        counter.inc(&key("hits"), 5).await.unwrap();
        let name = name(&server);
        assert_eq!(server.cli(&["HGET", &name, "hits"]), "5");
        // Half an hour to its end, an hour for which it is kept, and an hour more.
        assert_eq!(server.cli(&["PTTL", &name]), "9000000");
        assert_eq!(server.cli(&["TTL", INDEX]), "-1");
        for call in [counter.del(&key("hits")).await, counter.inc(&key("hits"), 1).await] {
            call.unwrap();
            assert_eq!(server.cli(&["PTTL", &name]), "9000000");
        }
        counter.clear().await.unwrap();
        assert_eq!(server.cli(&["PTTL", &name]), "9000000");
        assert_eq!(counter.inc(&key("hits"), 1).await.unwrap(), 1);
        // Nobody writes any more: it goes by itself.
        server.advance(3 * HOUR);
        assert_eq!(server.cli(&["EXISTS", &name]), "0");
        assert_eq!(counter.get_previous(&key("hits")).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_million_counters_go_without_holding_up_the_server() {
    let server = Server::redis().manual_clock().start();
    let store: Arc<dyn Backend> = connect(&server.url()).await.unwrap() as _;
    let counter = counter(&store, Windows::every(HOUR));
    counter.inc(&key("hits"), 1).await.unwrap();
    let name = name(&server);
    let fill = "for n = 1, 10000 do redis.call('HSET', KEYS[1], ARGV[1] .. 'k' .. n, n) end";
    for part in 0..100 {
        server.cli(&["EVAL", fill, "1", &name, &format!("{part}")]);
    }
    assert_eq!(server.cli(&["HLEN", &name]), "1000002");
    server.advance(2 * HOUR);
    assert_eq!(counter.get_previous(&key("hits")).await.unwrap(), 0);
    assert_eq!(counter.inc(&key("hits"), 1).await.unwrap(), 1);
    assert_eq!(server.cli(&["EXISTS", &name]), "0");
    // Unlinked, and freed by another thread; it did not expire, which would have stopped the server.
    until(&server, "freed in the background", || {
        number(&server, "memory", "lazyfreed_objects") > 0
    })
    .await;
    assert_eq!(number(&server, "stats", "expired_keys"), 0);
    // The index forgets it.
    assert_eq!(server.cli(&["HLEN", INDEX]), "2");
    assert!(!server.cli(&["HGET", INDEX, ":closed"]).is_empty());
}

#[tokio::test]
async fn an_evicted_window_is_an_error_and_not_a_quota_that_starts_again() {
    for (server, store) in stages().await {
        let counter = counter(&store, Windows::every(HOUR));
        counter.inc(&key("hits"), 100).await.unwrap();
        server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        until(&server, "evicted", || number(&server, "stats", "evicted_keys") > 0).await;
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        for call in [
            counter.inc(&key("hits"), 1).await.map(drop),
            counter.add_within(&key("hits"), 1, 0..=100).await.map(drop),
            counter.get(&key("hits")).await.map(drop),
        ] {
            let error = call.unwrap_err();
            assert!(
                matches!(error, DistkitError::NotApplied(BackendError::WindowLost)),
                "{error:?}"
            );
        }
        server.advance(HOUR);
        assert_eq!(counter.inc(&key("hits"), 1).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn steps_of_the_servers_clock_move_the_window_and_reopen_none() {
    for (server, store) in stages().await {
        let windows = Windows::every(HOUR).keep(3);
        let (counter, hits) = (counter(&store, windows), key("hits"));
        assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1);
        server.advance(HOUR);
        assert_eq!(counter.inc(&hits, 10).await.unwrap(), 10);
        server.go_back(HOUR);
        assert_eq!(counter.inc(&hits, 1).await.unwrap(), 2);
        assert_eq!(counter.inc_if(&hits, CounterComparator::Eq(2), 1).await.unwrap(), (3, 2));
        server.advance(11 * HOUR);
        assert_eq!(counter.inc(&hits, 3).await.unwrap(), 3);
        server.go_back(10 * HOUR);
        let error = counter.inc(&hits, 1).await.unwrap_err();
        assert!(matches!(error, DistkitError::NotApplied(BackendError::WindowClosed)), "{error:?}");
        assert_eq!(counter.get(&hits).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_user_who_may_not_set_a_ttl_leaves_nothing_that_stays_for_ever() {
    let server = Server::redis().manual_clock().start();
    let rule = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-pexpireat"];
    assert_eq!(server.cli(&rule), "OK");
    let url = server.url().replacen("redis://", "redis://app:pw@", 1);
    let store: Arc<dyn Backend> = connect(&url).await.unwrap() as _;
    let error = counter(&store, Windows::every(HOUR)).inc(&key("hits"), 1).await.unwrap_err();
    assert!(matches!(error, DistkitError::NotApplied(_)), "{error:?}");
    assert_eq!(server.cli(&["KEYS", "distkit:{shop}:w:*"]), "");
}

#[tokio::test]
async fn a_foreign_key_in_the_place_of_a_window_is_named() {
    for (server, store) in stages().await {
        let (counter, hits) = (counter(&store, Windows::every(HOUR)), key("hits"));
        for name in [name(&server), INDEX.to_owned()] {
            server.cli(&["SET", &name, "text"]);
            for call in [counter.inc(&hits, 1).await, counter.get(&hits).await] {
                let error = call.unwrap_err();
                let DistkitError::NotApplied(BackendError::Corrupt(text)) = &error else {
                    panic!("{error:?}")
                };
                assert!(text.contains(&name), "{text}");
            }
            server.cli(&["DEL", &name]);
        }
        assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_lost_index_is_made_again() {
    for (server, store) in stages().await {
        let windows = Windows::every(HOUR);
        let (counter, hits) = (counter(&store, windows), key("hits"));
        counter.inc(&hits, 1).await.unwrap();
        server.cli(&["DEL", INDEX]);
        assert_eq!(counter.inc(&hits, 1).await.unwrap(), 2);
        // The next window lists itself; what a longer keep opens anew is listed again.
        let space = Space::new(key("shop")).in_window(windows.keep(2).at(server.now()));
        store.apply(&space, &[Write::add(hits.clone(), 1)], None).await.unwrap();
        assert_eq!(server.cli(&["HLEN", INDEX]), "1");
        assert_eq!(counter.get(&hits).await.unwrap(), 3);
    }
}
