//! Spaces of which a part is lost, as an eviction under `allkeys-*` or a stranger's DEL leaves them.
#![cfg(all(feature = "instance-aware-counter", feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "support/removals.rs"]
mod removals;

use std::{sync::Arc, time::Duration};

use distkit::{
    CounterComparator, RedisKey,
    backend::{
        BackendError, Instance, Member, ReplayGuard, Scope, Slice, SliceChange, SliceWrite, Space,
        Standing, Store, Write, connect,
    },
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
                counters[2].get(&b).await.unwrap();
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

/// What expired instances left is found without the records of them.
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
            // Its expiry is detected, and a first portion of what it left is swept.
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

/// From a review: each was wrong before.
mod found_by_review {
    use super::*;

    async fn two(server: &Server, prefix: &str) -> (Arc<dyn Store>, Space) {
        (connect(&server.url()).await.unwrap(), Space::new(key(prefix)))
    }

    async fn join(store: &dyn Store, space: &Space, claims: &[Slice]) -> Member {
        let lease = Duration::from_millis(LEASE_MS);
        let instance = Instance::new(store.fresh_id(), lease);
        let joined = store.join(space, &instance, claims).await.unwrap();
        Member { incarnation: joined.incarnation, lease }
    }

    fn set(key: &RedisKey, count: i64, condition: CounterComparator) -> SliceWrite {
        SliceWrite { key: key.clone(), change: SliceChange::SetTotal(count), condition }
    }

    async fn standing(store: &dyn Store, space: &Space, me: &Member, k: &RedisKey) -> Standing {
        let read = store.read_on(space, me, std::slice::from_ref(k)).await.unwrap();
        read.answer[0].clone().unwrap()
    }

    /// A batch that set one key and then finds another lost must not be told as not applied.
    #[tokio::test]
    async fn a_set_beside_a_lost_key_is_not_called_not_joined() {
        let server = Server::redis().start();
        let (store, space) = two(&server, "p").await;
        let (a, b) = (key("a"), key("b"));
        let (x, y) = (join(&*store, &space, &[]).await, join(&*store, &space, &[]).await);
        store.apply_on(&space, &y, &[add(&a, 5)], None).await.unwrap();
        store.apply_on(&space, &x, &[add(&b, 3)], None).await.unwrap();
        lose(&server, "p", &["k:b"]);
        let batch = [set(&a, 7, CounterComparator::Eq(5)), add(&b, 1)];
        let answer = store.apply_on(&space, &x, &batch, None).await;
        assert!(matches!(answer, Err(BackendError::AnswerLost(_))), "{answer:?}");
        let answer = removals::remove_on(&*store, &space, &y, &[a, b], Scope::Total).await;
        assert!(matches!(answer, Err(BackendError::NotJoined)), "nothing was done yet: {answer:?}");
    }

    /// What is refused must not use up its sequence.
    #[tokio::test]
    async fn a_denied_batch_of_one_is_applied_when_it_is_sent_again() {
        for start in [Server::redis, Server::valkey] {
            let server = start().start();
            server.cli(&["ACL", "SETUSER", "app", "on", ">pass", "~*", "+@all"]);
            let url = format!("redis://app:pass@127.0.0.1:{}", server.port());
            let (store, space) = (connect(&url).await.unwrap(), Space::new(key("p")));
            let k = key("k");
            let x = join(&*store, &space, &[]).await;
            for sequence in 1..=2 {
                store.apply_on(&space, &x, &[add(&k, 5)], Some(sequence)).await.unwrap();
            }
            server.cli(&["ACL", "SETUSER", "app", "-hincrby"]);
            let denied = store.apply_on(&space, &x, &[add(&k, 10)], Some(3)).await;
            assert!(matches!(denied, Err(BackendError::NotApplied(_))), "{denied:?}");
            server.cli(&["ACL", "SETUSER", "app", "+hincrby"]);
            let again = store.apply_on(&space, &x, &[add(&k, 10)], Some(3)).await.unwrap();
            assert!(!again.answer.replayed);
            assert_eq!(standing(&*store, &space, &x, &k).await.total, 20);
        }
    }

    /// Lost epochs of keys without slices: as after a loss of all data, claims tell what they were.
    #[tokio::test]
    async fn lost_epochs_are_noticed() {
        let server = Server::redis().start();
        let (store, space) = two(&server, "p").await;
        let (set_key, other) = (key("set"), key("other"));
        let x = join(&*store, &space, &[]).await;
        let y = join(&*store, &space, &[]).await;
        let write = set(&set_key, 4, CounterComparator::Nil);
        store.apply_on(&space, &x, &[write], None).await.unwrap();
        let Standing { epoch, .. } = standing(&*store, &space, &x, &set_key).await;
        store.leave(&space, &x).await.unwrap();
        lose(&server, "p", &["tombs"]);
        let claim = Slice { key: set_key.clone(), epoch, value: 4 };
        let back = join(&*store, &space, &[claim]).await;
        assert_eq!(standing(&*store, &space, &back, &set_key).await.total, 4);
        // The other one rejoins, and counts on.
        let told = store.read_on(&space, &y, std::slice::from_ref(&other)).await;
        assert!(matches!(told, Err(BackendError::NotJoined)), "{told:?}");
    }

    /// Epochs that survive the loss of `meta` count.
    #[tokio::test]
    async fn deleted_keys_stay_deleted_without_meta() {
        let server = Server::redis().start();
        let (store, space) = two(&server, "p").await;
        let k = key("k");
        let (x, y) = (join(&*store, &space, &[]).await, join(&*store, &space, &[]).await);
        store.apply_on(&space, &x, &[add(&k, 5)], None).await.unwrap();
        let Standing { epoch, .. } = standing(&*store, &space, &x, &k).await;
        removals::remove_on(&*store, &space, &y, std::slice::from_ref(&k), Scope::Total)
            .await
            .unwrap();
        lose(&server, "p", &["meta"]);
        let stale = Slice { key: k.clone(), epoch, value: 5 };
        let back = join(&*store, &space, &[stale]).await;
        assert_eq!(standing(&*store, &space, &back, &k).await.total, 0);
    }

    /// Who had a slice of a key that is lost with its entry in the index still is listed.
    #[tokio::test]
    async fn a_key_that_is_lost_with_its_index_is_noticed() {
        let server = Server::redis().start();
        let counters = [instance(&server.url(), "p").await, instance(&server.url(), "p").await];
        let k = key("k");
        counters[0].inc(&k, 5).await.unwrap();
        counters[1].inc(&k, 2).await.unwrap();
        lose(&server, "p", &["k:k", "index"]);
        assert_eq!(counters[0].inc(&k, 1).await.unwrap(), (6, 6));
        until_total(&counters, &k, 8).await;
    }

    /// Totals that are empty are no sign that all is lost: somebody may have deleted the last of them.
    #[tokio::test]
    async fn a_request_in_doubt_whose_answer_is_lost_is_not_applied_after_a_clear() {
        let server = Server::redis().start();
        for client in ["redis", "redis+fred"] {
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            let space = Space::new(key(client));
            let me = join(&*store, &space, &[]).await;
            let k = key("k");
            let recorded = store.capabilities().recorded.unwrap();
            let recorded_slices = store.capabilities().recorded_slices.unwrap();
            let lane = || ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: true };
            let (plain, sliced) = (lane(), lane());
            let (writes, slices) = ([Write::add(k.clone(), 5)], [add(&k, 3)]);
            recorded.apply_recorded(&space, &writes, &plain).await.unwrap();
            recorded_slices.apply_on_recorded(&space, &me, &slices, &sliced).await.unwrap();
            store.clear(&space).await.unwrap();
            server.cli(&["DEL", &format!("distkit:{{{client}}}:lanes")]);
            let again = recorded.apply_recorded(&space, &writes, &plain).await;
            assert!(matches!(again, Err(BackendError::Forgotten)), "{again:?}");
            let again = recorded_slices.apply_on_recorded(&space, &me, &slices, &sliced).await;
            assert!(matches!(again, Err(BackendError::Forgotten)), "{again:?}");
            assert_eq!(store.read(&space, std::slice::from_ref(&k)).await.unwrap(), [Ok(0)]);
            assert_eq!(standing(&*store, &space, &me, &k).await.total, 3);
        }
    }
}
