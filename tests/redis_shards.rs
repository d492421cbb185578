//! How prefixes of several shards lie in a server, and what keeps processes apart that do not agree on their number.
#![cfg(all(feature = "redis-rs", feature = "fred", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use distkit::counter::{CounterOptions, CounterTrait, StrictCounter, copy_prefix};
use distkit::{
    RedisKey,
    backend::{BackendError, Instance, ReplayGuard, Space, Store, Write, connect},
};
use distkit_testkit::Server;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn shards(prefix: &str, shards: u16) -> Vec<Space> {
    Space::shards_of(key(prefix), shards)
}

/// A process of its own: it has not looked at any shape.
async fn process(server: &Server, fred: bool) -> Arc<dyn Store> {
    let url = server.url();
    let scheme = if fred { "redis+fred://" } else { "redis://" };
    connect(&url.replacen("redis://", scheme, 1)).await.unwrap()
}

fn guard(writer: &str, sequence: u64) -> ReplayGuard {
    ReplayGuard { writer: writer.into(), sequence, resent: false }
}

fn one() -> [Write; 1] {
    [Write::add(key("n"), 1)]
}

fn instance(store: &dyn Store) -> Instance {
    Instance::new(store.fresh_id(), Duration::from_secs(60))
}

/// What each operation that writes gives.
async fn attempts(store: &dyn Store, space: &Space) -> Vec<Result<(), BackendError>> {
    let lanes = store.capabilities().recorded.unwrap();
    vec![
        store.apply(space, &one(), Some(&guard(&store.fresh_id(), 1))).await.map(drop),
        lanes.apply_recorded(space, &one(), &guard(&store.fresh_id(), 1)).await.map(drop),
        store.join(space, &instance(store), &[]).await.map(drop),
    ]
}

async fn are_refused(store: &dyn Store, space: &Space, stored: u16) {
    for attempt in attempts(store, space).await {
        let error = attempt.unwrap_err();
        assert!(!error.may_have_happened());
        let BackendError::ShapeMismatch { ours, stored: held } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*ours, format!("layout 1, {} shards", space.shards()));
        assert_eq!(*held, format!("layout 1, {stored} shards"));
    }
}

async fn are_done(store: &dyn Store, space: &Space) {
    for attempt in attempts(store, space).await {
        attempt.unwrap();
    }
}

async fn over_both(test: impl AsyncFn(&Server, bool)) {
    for server in [Server::redis().start(), Server::valkey().start()] {
        for fred in [false, true] {
            server.cli(&["FLUSHALL"]);
            test(&server, fred).await;
        }
    }
}

#[tokio::test]
async fn each_shard_has_keys_of_its_own_and_the_prefix_a_mark() {
    over_both(async |server, fred| {
        let store = process(server, fred).await;
        let spaces = shards("a{b}", 3);
        for space in &spaces {
            let applied = store.apply(space, &one(), Some(&guard("w", 1))).await.unwrap();
            assert_eq!(applied.outcomes[0].as_ref().unwrap().new, 1, "each has its own");
        }
        let mut names: Vec<_> = server.cli(&["KEYS", "*"]).lines().map(str::to_owned).collect();
        names.sort_unstable();
        let mut expected: Vec<_> =
            ["i:meta", "shape", "totals"].map(|name| format!("distkit:{{a%7Bb%7D}}:{name}")).into();
        for tag in ["0.506", "1.1", "2.0"] {
            for name in ["shape", "totals", "writers"] {
                expected.push(format!("distkit:{{a%7Bb%7D:{tag}}}:{name}"));
            }
        }
        expected.sort_unstable();
        assert_eq!(names, expected);
        for name in &names {
            assert_eq!(server.cli(&["TTL", name]), "-1", "{name}");
        }
        for mark in ["totals", "i:meta"] {
            let text = server.cli(&["GET", &format!("distkit:{{a%7Bb%7D}}:{mark}")]);
            assert_eq!(text, "layout 1, 3 shards");
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_shape_lets_no_other_number_in() {
    over_both(async |server, fred| {
        let (three, seven) = (shards("p", 3), shards("p", 7));
        let whole = Space::new(key("p"));
        are_done(&*process(server, fred).await, &three[2]).await;
        are_done(&*process(server, fred).await, &three[0]).await;
        // The marks tell.
        for space in [&whole, &seven[3]] {
            server.cli(&["DEL", "distkit:{p}:shape"]);
            are_refused(&*process(server, fred).await, space, 3).await;
        }
        // Where all is lost that is under the prefix's own tag, the first shard tells.
        for space in [&whole, &seven[3]] {
            server.cli(&["DEL", "distkit:{p}:shape", "distkit:{p}:totals", "distkit:{p}:i:meta"]);
            are_refused(&*process(server, fred).await, space, 3).await;
        }
        // The right number mends it.
        are_done(&*process(server, fred).await, &three[1]).await;
        assert_eq!(server.cli(&["GET", "distkit:{p}:totals"]), "layout 1, 3 shards");
        are_refused(&*process(server, fred).await, &whole, 3).await;
    })
    .await;
}

#[tokio::test]
async fn unsharded_data_lets_no_other_number_in() {
    over_both(async |server, fred| {
        let store = process(server, fred).await;
        for (prefix, family) in [("plain", 0), ("instances", 1)] {
            let whole = Space::new(key(prefix));
            if family == 0 {
                store.apply(&whole, &one(), None).await.unwrap();
            } else {
                store.join(&whole, &instance(&*store), &[]).await.unwrap();
            }
            let seven = shards(prefix, 7);
            are_refused(&*process(server, fred).await, &seven[4], 1).await;
            server.cli(&["DEL", &format!("distkit:{{{prefix}}}:shape")]);
            are_refused(&*process(server, fred).await, &seven[4], 1).await;
            are_done(&*process(server, fred).await, &whole).await;
        }
    })
    .await;
}

/// Everything is lost while processes run; the first to come decides, and the others find out before they write.
#[tokio::test]
async fn running_processes_find_another_number_after_a_loss() {
    over_both(async |server, fred| {
        let (three, seven) = (shards("p", 3), shards("p", 7));
        let whole = Space::new(key("p"));
        let [a, b] = [process(server, fred).await, process(server, fred).await];
        for space in &three {
            are_done(&*a, space).await;
        }
        server.cli(&["FLUSHALL"]);
        are_done(&*b, &seven[6]).await;
        let keys = server.cli(&["DBSIZE"]);
        for space in &three {
            are_refused(&*a, space, 7).await;
        }
        assert_eq!(server.cli(&["DBSIZE"]), keys, "nothing was written");

        // The other way round: who runs already makes it anew.
        server.cli(&["FLUSHALL"]);
        are_done(&*b, &seven[2]).await;
        are_refused(&*process(server, fred).await, &three[0], 7).await;

        // One that has one shard, and has looked before the loss, finds a wrong type.
        server.cli(&["FLUSHALL"]);
        let unsharded = process(server, fred).await;
        are_done(&*unsharded, &whole).await;
        server.cli(&["FLUSHALL"]);
        are_done(&*process(server, fred).await, &seven[2]).await;
        let keys = server.cli(&["DBSIZE"]);
        let plain = unsharded.apply(&whole, &one(), None).await.unwrap_err();
        assert!(matches!(plain, BackendError::Corrupt(_)), "{plain:?}");
        for attempt in attempts(&*unsharded, &whole).await {
            let error = attempt.unwrap_err();
            let told =
                matches!(error, BackendError::Corrupt(_) | BackendError::ShapeMismatch { .. });
            assert!(told, "{error:?}");
        }
        assert_eq!(server.cli(&["DBSIZE"]), keys, "nothing was written");
    })
    .await;
}

#[tokio::test]
async fn reads_of_another_number_are_refused() {
    over_both(async |server, fred| {
        let store = process(server, fred).await;
        let seven = shards("p", 7);
        assert_eq!(store.read(&seven[0], &[key("n")]).await.unwrap(), [Ok(0)]);
        are_done(&*store, &seven[0]).await;
        for space in [&Space::new(key("p")), &shards("p", 3)[0]] {
            let store = process(server, fred).await;
            for error in [
                store.read(space, &[key("n")]).await.unwrap_err(),
                store.totals(space, &[key("n")]).await.unwrap_err(),
                store.slices(space, &key("n")).await.unwrap_err(),
                store.clear(space).await.unwrap_err(),
            ] {
                assert!(matches!(error, BackendError::ShapeMismatch { .. }), "{error:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_copy_in_a_server_is_exact() {
    over_both(async |server, fred| {
        let store = process(server, fred).await;
        let of = |name, shards| CounterOptions::new(key(name), store.clone()).shards(shards);
        let names: Vec<_> = (0..5000).map(|n| key(&format!("key {n}"))).collect();
        let ends = [i64::MAX, i64::MIN, 0, -1, 1 << 53];
        let sets: Vec<_> = names
            .iter()
            .zip(ends.into_iter().cycle())
            .map(|(n, e)| Write::set(n.clone(), e))
            .collect();
        StrictCounter::new(of("old", 1)).write_all(&sets).await.unwrap();
        assert_eq!(copy_prefix(&of("old", 1), &of("new", 12)).await.unwrap().counters, 5000);
        assert_eq!(copy_prefix(&of("new", 12), &of("back", 1)).await.unwrap().counters, 5000);
        let back = StrictCounter::new(of("back", 1));
        let totals = back.get_all(&names.iter().collect::<Vec<_>>()).await.unwrap();
        for (write, (_, total)) in sets.iter().zip(totals) {
            assert_eq!(distkit::backend::Change::Set(total.unwrap()), write.change);
        }
    })
    .await;
}
