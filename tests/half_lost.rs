//! Spaces of which a part is lost, as an eviction under `allkeys-*` or a stranger's DEL leaves them.
#![cfg(all(feature = "instance-aware-counter", feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    CounterComparator, RedisKey,
    backend::{BackendError, Instance, Member, Slice, SliceChange, SliceWrite, Space, connect},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::Server;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(20);
/// A lease long enough that only a loss makes anybody join anew.
const LEASE_MS: u64 = 600_000;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

async fn instance(url: &str, prefix: &str) -> Arc<StrictInstanceAwareCounter> {
    let options = StrictInstanceAwareCounterOptions::new(key(prefix), connect(url).await.unwrap());
    StrictInstanceAwareCounter::new(options.dead_instance_threshold_ms(LEASE_MS))
}

/// Deletes the keys of the space whose names end with one of `parts`, or contain one that ends with `:`.
fn lose(server: &Server, prefix: &str, parts: &[&str]) -> usize {
    let start = format!("distkit:{{{prefix}}}:i:");
    let names = server.cli(&["KEYS", &format!("distkit:{{{prefix}}}:i:*")]);
    let lost: Vec<&str> = names
        .lines()
        .filter(|name| {
            let rest = name.strip_prefix(&start).unwrap_or_default();
            parts.iter().any(|part| match part.ends_with(':') {
                true => rest.starts_with(part),
                false => rest == *part,
            })
        })
        .collect();
    if !lost.is_empty() {
        let mut command = vec!["DEL"];
        command.extend(&lost);
        server.cli(&command);
    }
    lost.len()
}

/// Reads with every instance until all agree on the total.
async fn until_total(counters: &[Arc<StrictInstanceAwareCounter>], k: &RedisKey, total: i64) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut seen = Vec::new();
        for counter in counters {
            // Each looks at its own part, which brings back what it had.
            seen.push(counter.inc(k, 0).await.unwrap().0);
        }
        if seen.iter().all(|seen| *seen == total) {
            return;
        }
        assert!(Instant::now() < deadline, "{seen:?}, still not {total}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_is_left_of_a_space_heals_and_nothing_counts_twice() {
    let parts: &[&[&str]] = &[
        &["leases"],
        &["meta"],
        &["names"],
        &["k:"],
        &["k:a"],
        &["inst:"],
        &["lease:"],
        &["quiet"],
        &["index"],
        &["tombs"],
        &["leases", "k:a"],
        &["meta", "leases"],
        &["meta", "k:"],
        &["leases", "lease:", "quiet"],
        &["meta", "names"],
        &["dead"],
        &["keys:"],
        &["v:"],
        &["gone"],
        &["keys:", "leases"],
        &["v:", "k:a"],
        &["dead", "keys:", "v:"],
        &["meta", "keys:", "inst:"],
        &[""],
    ];
    for server in [Server::redis().start(), Server::valkey().start()] {
        for client in ["redis", "redis+fred"] {
            let url = server.url().replacen("redis", client, 1);
            for (index, parts) in parts.iter().enumerate() {
                let prefix = format!("{client}{index}");
                let mut counters = Vec::new();
                for _ in 0..3 {
                    counters.push(instance(&url, &prefix).await);
                }
                let (a, b, set) = (key("a"), key("b"), key("set"));
                counters[0].set(&set, 5).await.unwrap();
                for (counter, count) in counters.iter().zip(1..) {
                    counter.inc(&a, count).await.unwrap();
                    counter.inc(&b, 10 * count).await.unwrap();
                    counter.inc(&set, 100 * count).await.unwrap();
                }
                lose(&server, &prefix, parts);
                println!("{client}: without {parts:?}");
                // A heartbeat would do: any operation that looks at the leases.
                counters[2].slices(&b).await.unwrap();
                for (k, total) in [(&a, 6), (&b, 60), (&set, 605)] {
                    until_total(&counters, k, total).await;
                }
                for (k, count) in [(&a, 3), (&b, 3), (&set, 3)] {
                    let slices = counters[1].slices(k).await.unwrap();
                    assert_eq!(slices.len(), count, "without {parts:?}: {slices:?}");
                }
                // And it stays so.
                counters[0].inc(&a, 1).await.unwrap();
                until_total(&counters, &a, 7).await;
            }
        }
    }
}

/// What dead instances left is found without what told of them.
#[tokio::test]
async fn slices_of_expired_instances_go_although_their_records_are_lost() {
    let parts: &[&[&str]] = &[
        &["dead"],
        &["keys:"],
        &["inst:"],
        &["names"],
        &["meta"],
        &["leases"],
        &["dead", "keys:"],
        &["dead", "leases"],
        &["dead", "meta"],
        &["dead", "names", "keys:", "inst:"],
        &["leases", "keys:", "inst:", "names"],
    ];
    const KEYS: usize = 1500;
    for server in [Server::redis().manual_clock().start(), Server::valkey().manual_clock().start()]
    {
        for (index, parts) in parts.iter().enumerate() {
            let prefix = format!("p{index}");
            let space = Space::new(key(&prefix));
            let store = connect(&server.url()).await.unwrap();
            let join = async |lease| {
                let instance = Instance::new(store.fresh_id(), lease);
                let joined = store.join(&space, &instance, &[]).await.unwrap();
                Member { incarnation: joined.incarnation, lease }
            };
            let lasting = Duration::from_millis(LEASE_MS);
            let (dead, living) = (join(Duration::from_secs(1)).await, join(lasting).await);
            let names: Vec<_> = (0..KEYS).map(|n| key(&format!("k{n}"))).collect();
            let adds: Vec<_> = names.iter().map(|key| add(key, 5)).collect();
            for adds in adds.chunks(500) {
                store.apply_on(&space, &dead, adds, None).await.unwrap();
                store.apply_on(&space, &living, adds, None).await.unwrap();
            }
            let mut claims = Vec::new();
            for names in names.chunks(500) {
                let read = store.read_on(&space, &living, names).await.unwrap().answer;
                claims.extend(names.iter().zip(read).map(|(key, standing)| Slice {
                    key: key.clone(),
                    epoch: standing.unwrap().epoch,
                    value: 5,
                }));
            }
            server.advance(Duration::from_secs(2));
            // It is found dead, and a first portion of what it left is swept.
            store.heartbeat(&space, &living).await.unwrap();
            let lost = lose(&server, &prefix, parts);
            println!("without {parts:?}: {lost} keys");
            assert!(lost > 0);
            let mut me = living;
            let deadline = Instant::now() + DEADLINE;
            loop {
                let mut totals = Vec::new();
                for names in names.chunks(500) {
                    match store.read_on(&space, &me, names).await {
                        Ok(read) => {
                            totals.extend(read.answer.into_iter().map(|s| s.unwrap().total))
                        }
                        Err(BackendError::NotJoined) => {
                            let instance = Instance::new(store.fresh_id(), lasting);
                            let joined = store.join(&space, &instance, &claims).await.unwrap();
                            me = Member { incarnation: joined.incarnation, lease: lasting };
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                if totals.len() == KEYS && totals.iter().all(|total| *total == 5) {
                    break;
                }
                let wrong = totals.iter().filter(|total| **total != 5).count();
                assert!(Instant::now() < deadline, "{wrong} of {} are wrong", totals.len());
            }
        }
    }
}

fn add(key: &RedisKey, count: i64) -> SliceWrite {
    let (change, condition) = (SliceChange::Add(count), CounterComparator::Nil);
    SliceWrite { key: key.clone(), change, condition }
}
