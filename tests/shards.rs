//! Prefixes of several shards, on the memory store under paused time: what one shard does to the others.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, RedisKey,
    backend::{
        BackendError, SliceChange, SliceWrite, Space, Write,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter, copy_prefix},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use tokio::time::{Instant, sleep};

const LAG: Duration = Duration::from_millis(20);
const LEASE_MS: u64 = 3000;

fn prefix() -> RedisKey {
    key("shop")
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn keys(count: usize) -> Vec<RedisKey> {
    (0..count).map(|n| key(&format!("key-{n}"))).collect()
}

/// One key of each shard.
fn one_of_each(shards: u16) -> Vec<RedisKey> {
    let of = |shard| move |key: &RedisKey| Space::shard_of(key, shards) == shard;
    let all = keys(1000);
    (0..shards).map(|shard| all.iter().find(|key| of(shard)(key)).unwrap().clone()).collect()
}

fn options(link: &MemoryLink, shards: u16) -> CounterOptions {
    CounterOptions::new(prefix(), link.clone()).shards(shards).allowed_lag(LAG)
}

fn strict_instance(link: &MemoryLink, shards: u16) -> Arc<StrictInstanceAwareCounter> {
    let options = StrictInstanceAwareCounterOptions::new(prefix(), link.clone())
        .shards(shards)
        .dead_instance_threshold_ms(LEASE_MS);
    StrictInstanceAwareCounter::new(options)
}

fn lax_instance(link: &MemoryLink, shards: u16) -> Arc<LaxInstanceAwareCounter> {
    let options = LaxInstanceAwareCounterOptions::new(prefix(), link.clone())
        .shards(shards)
        .dead_instance_threshold_ms(LEASE_MS);
    LaxInstanceAwareCounter::new(options)
}

fn failed_shards(error: &DistkitError) -> Vec<u16> {
    match error {
        DistkitError::InShards { failed, .. } => failed.iter().map(|(shard, _)| *shard).collect(),
        other => panic!("{other:?}"),
    }
}

async fn no_difference_with(shards: u16) {
    let store = MemoryBackend::new();
    let mut dice = fastrand::Rng::with_seed(u64::from(shards));
    let names = keys(40);
    let counters: [Arc<dyn CounterTrait>; 2] = [
        StrictCounter::new(options(&store.link(), shards)),
        LaxCounter::new(options(&store.link(), shards)),
    ];
    let mut totals: BTreeMap<&RedisKey, i64> = BTreeMap::new();
    for step in 0..400 {
        // What one of them has buffered, or has known for a while, is what the other one does not see.
        sleep(3 * LAG).await;
        let who = dice.usize(..2);
        let counter = &counters[who];
        match dice.u8(..8) {
            0..4 => {
                let some: Vec<_> =
                    (0..dice.usize(1..30)).map(|_| dice.choice(&names).unwrap()).collect();
                let writes = some.iter().map(|&key| match dice.u8(..4) {
                    0 => Write::set(key.clone(), dice.i64(-50..50)),
                    1 => Write::remove(key.clone()),
                    2 => Write::add(key.clone(), 3).only_if(CounterComparator::Gt(0)),
                    _ => Write::add(key.clone(), dice.i64(-50..50)),
                });
                let writes: Vec<_> = writes.collect();
                let answers = counter.write_all(&writes).await.unwrap();
                // What a lax counter answers to additions is an estimate.
                let exact = who == 0 || writes.iter().any(|w| w.unconditional_addition().is_none());
                for ((write, answer), name) in writes.iter().zip(answers).zip(some) {
                    let total = totals.entry(name).or_default();
                    let old = *total;
                    if write.condition.matches(old) {
                        *total = match write.change {
                            distkit::backend::Change::Add(count) => old + count,
                            distkit::backend::Change::Set(count) => count,
                            _ => 0,
                        };
                    }
                    let answer = answer.unwrap();
                    if exact {
                        let found = (answer.old, answer.new);
                        assert_eq!(found, (old, *total), "step {step}: {write:?}");
                    }
                }
            }
            4..6 => {
                let some: Vec<_> =
                    (0..dice.usize(1..30)).map(|_| dice.choice(&names).unwrap()).collect();
                let updates: Vec<_> = some.iter().map(|&key| (key, dice.i64(-9..9))).collect();
                for ((name, answer), (asked, count)) in
                    counter.inc_all(&updates).await.unwrap().into_iter().zip(&updates)
                {
                    let total = totals.entry(asked).or_default();
                    *total += count;
                    assert_eq!(name, *asked);
                    assert!(answer.unwrap() == *total || who == 1, "step {step}");
                }
            }
            6 => {
                let asked: Vec<_> = names.iter().collect();
                for (name, total) in counter.get_all(&asked).await.unwrap() {
                    assert_eq!(total.unwrap(), totals.get(name).copied().unwrap_or(0), "{step}");
                }
            }
            _ if dice.u8(..6) == 0 => {
                counter.clear().await.unwrap();
                totals.clear();
            }
            _ => {}
        }
    }
    let used: u16 =
        Space::shards_of(prefix(), shards).iter().map(|s| u16::from(store.len(s) > 0)).sum();
    assert!(used > shards / 4, "{used} of {shards} shards hold something");
}

#[tokio::test(start_paused = true)]
async fn plain_counters_answer_the_same_with_any_number_of_shards() {
    for shards in [1, 3, 7, 64] {
        no_difference_with(shards).await;
    }
}

async fn no_difference_for_instances(shards: u16) {
    let store = MemoryBackend::new();
    let mut dice = fastrand::Rng::with_seed(u64::from(shards));
    let names = keys(40);
    let instances: [Arc<dyn InstanceAwareCounterTrait>; 2] =
        [strict_instance(&store.link(), shards), lax_instance(&store.link(), shards)];
    // The slices of both.
    let mut slices: BTreeMap<&RedisKey, [i64; 2]> = BTreeMap::new();
    for step in 0..400 {
        sleep(3 * LAG).await;
        let who = dice.usize(..2);
        let counter = &instances[who];
        match dice.u8(..8) {
            0..4 => {
                let some: Vec<_> =
                    (0..dice.usize(1..30)).map(|_| dice.choice(&names).unwrap()).collect();
                let writes = some.iter().map(|&key| {
                    let change = match dice.u8(..5) {
                        0 => SliceChange::SetTotal(dice.i64(-50..50)),
                        1 => SliceChange::Remove,
                        2 => SliceChange::SetSlice(dice.i64(-50..50)),
                        3 => SliceChange::RemoveSlice,
                        _ => SliceChange::Add(dice.i64(-50..50)),
                    };
                    SliceWrite::new(key.clone(), change)
                });
                let writes: Vec<_> = writes.collect();
                let answers = counter.write_all(&writes).await.unwrap();
                let at_once = |w: &SliceWrite| {
                    !matches!(w.change, SliceChange::Add(_) | SliceChange::SetSlice(_))
                };
                let exact = who == 0 || writes.iter().any(at_once);
                for ((write, answer), name) in writes.iter().zip(answers).zip(some) {
                    let own = slices.entry(name).or_default();
                    match write.change {
                        SliceChange::Add(count) => own[who] += count,
                        SliceChange::SetSlice(count) => own[who] = count,
                        SliceChange::RemoveSlice => own[who] = 0,
                        SliceChange::Remove => *own = [0, 0],
                        SliceChange::SetTotal(count) => {
                            *own = [0, 0];
                            own[who] = count;
                        }
                        _ => unreachable!(),
                    }
                    let new = answer.unwrap().new;
                    let expected = (own[0] + own[1], own[who]);
                    assert!(!exact || (new.total, new.slice) == expected, "step {step}: {write:?}");
                }
            }
            4..7 => {
                let asked: Vec<_> = names.iter().collect();
                for (name, numbers) in counter.get_all(&asked).await.unwrap() {
                    let own = slices.get(name).copied().unwrap_or_default();
                    assert_eq!(numbers.unwrap(), (own[0] + own[1], own[who]), "step {step}");
                }
                let name = dice.choice(&names).unwrap();
                let own = slices.get(name).copied().unwrap_or_default();
                let sum: i64 = counter.slices(name).await.unwrap().iter().map(|s| s.value).sum();
                assert_eq!(sum, own[0] + own[1], "step {step}");
            }
            _ if dice.u8(..6) == 0 => {
                counter.clear().await.unwrap();
                slices.clear();
            }
            _ => {
                counter.clear_on_instance().await.unwrap();
                slices.values_mut().for_each(|own| own[who] = 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn instances_answer_the_same_with_any_number_of_shards() {
    for shards in [1, 3, 7, 64] {
        no_difference_for_instances(shards).await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_number_of_shards_is_refused_before_anything_is_written() {
    let store = MemoryBackend::new();
    StrictCounter::new(options(&store.link(), 3)).inc(&key("a"), 1).await.unwrap();
    let spaces =
        [Space::shards_of(prefix(), 3), Space::shards_of(prefix(), 7), vec![Space::new(prefix())]];
    let held = || spaces.iter().flatten().map(|space| store.len(space)).sum::<usize>();
    assert_eq!(held(), 1);
    for shards in [1, 7] {
        let link = store.link();
        let strict = StrictCounter::new(options(&link, shards));
        let lax = LaxCounter::new(options(&link, shards));
        let refusals = [
            strict.inc(&key("b"), 1).await.unwrap_err(),
            strict.set(&key("b"), 1).await.unwrap_err(),
            strict.get(&key("b")).await.unwrap_err(),
            lax.inc(&key("b"), 1).await.unwrap_err(),
            lax.set(&key("b"), 1).await.unwrap_err(),
            strict_instance(&link, shards).inc(&key("b"), 1).await.unwrap_err(),
            lax_instance(&link, shards).inc(&key("b"), 1).await.unwrap_err(),
        ];
        for error in refusals {
            let DistkitError::NotApplied(BackendError::ShapeMismatch { ours, stored }) = error
            else {
                panic!("{error:?}");
            };
            assert!(ours.contains(&shards.to_string()) && stored.contains('3'), "{ours}, {stored}");
        }
        let error = strict.clear().await.unwrap_err();
        assert!(!error.may_have_happened(), "{error:?}");
        assert_eq!(held(), 1);
    }
    // A store that lost everything takes any number again.
    store.wipe();
    StrictCounter::new(options(&store.link(), 7)).inc(&key("a"), 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_holds_up_its_own_shards_only() {
    let (store, shards) = (MemoryBackend::new(), 6);
    let spaces = Space::shards_of(prefix(), shards);
    let (here, there) = (store.link(), store.link());
    let lax = LaxCounter::new(options(&here, shards));
    let reader = LaxCounter::new(options(&there, shards));
    let strict = StrictCounter::new(options(&here, shards));
    let names = one_of_each(shards);
    for name in &names {
        lax.inc(name, 1).await.unwrap();
        reader.get(name).await.unwrap();
    }
    lax.flush().await.unwrap();

    // The second of three nodes: shards 2 and 3.
    here.cut_node(&spaces, 1, 3);
    for second in 1..=10 {
        for name in &names {
            lax.inc(name, 1).await.unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        for (shard, name) in names.iter().enumerate() {
            let seen = reader.get(name).await.unwrap();
            let down = [2, 3].contains(&shard);
            assert_eq!(seen, if down { 1 } else { 1 + second }, "shard {shard}");
            assert_eq!(lax.get(name).await.is_err(), down, "healthy shards are read");
        }
    }
    assert_eq!(failed_shards(&lax.flush().await.unwrap_err()), [2, 3]);
    let error = strict.clear().await.unwrap_err();
    assert_eq!(failed_shards(&error), [2, 3]);
    assert!(error.may_have_happened());
    let updates: Vec<_> = names.iter().map(|name| (name, 5)).collect();
    for (shard, (_, answer)) in strict.inc_all(&updates).await.unwrap().into_iter().enumerate() {
        match answer {
            Ok(total) => assert_eq!(total, 5, "cleared before"),
            Err(error) => {
                assert!([2, 3].contains(&shard));
                assert!(!error.may_have_happened(), "{error:?}");
            }
        }
    }

    here.restore_node(&spaces, 1, 3);
    lax.flush().await.unwrap();
    for (shard, name) in names.iter().enumerate() {
        let expected = if [2, 3].contains(&shard) { 11 } else { 5 };
        assert_eq!(strict.get(name).await.unwrap(), expected, "shard {shard}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_shard_slows_no_other() {
    let (store, shards) = (MemoryBackend::new(), 4);
    let link = store.link();
    let (lax, strict) =
        (LaxCounter::new(options(&link, shards)), StrictCounter::new(options(&link, shards)));
    let names = one_of_each(shards);
    for name in &names {
        lax.inc(name, 1).await.unwrap();
    }
    lax.flush().await.unwrap();
    link.shard(2).set_latency(Duration::from_secs(3));
    for name in &names {
        lax.inc(name, 1).await.unwrap();
    }
    sleep(2 * LAG).await;
    let began = Instant::now();
    for name in [&names[0], &names[1], &names[3]] {
        assert_eq!(strict.get(name).await.unwrap(), 2);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    // A batch takes as long as its slowest shard.
    let all: Vec<_> = names.iter().collect();
    let totals = strict.get_all(&all).await.unwrap();
    assert!(totals.iter().all(|(_, total)| *total.as_ref().unwrap() == 2));
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn joined_calls_of_a_shard_wait_for_no_other() {
    let (store, shards) = (MemoryBackend::new(), 4);
    let link = store.link();
    let strict = StrictCounter::new(options(&link, shards));
    let names = one_of_each(shards);
    link.shard(1).set_latency(Duration::from_secs(1));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..50 {
        for (shard, name) in names.iter().cloned().enumerate() {
            let strict = strict.clone();
            tasks.push(tokio::spawn(async move {
                strict.inc(&name, 1).await.unwrap();
                (shard, began.elapsed())
            }));
        }
    }
    for task in tasks {
        let (shard, took) = task.await.unwrap();
        assert_eq!(took.is_zero(), shard != 1, "{took:?}");
    }
    for name in &names {
        assert_eq!(strict.get(name).await.unwrap(), 50);
    }
    assert!(link.shard(1).requests() < 50, "they shared requests");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_down_takes_no_room_from_the_others() {
    let (store, shards) = (MemoryBackend::new(), 4);
    let link = store.link();
    let lax = LaxCounter::new(options(&link, shards).max_pending_keys(40));
    let names = keys(400);
    for name in &names {
        lax.get(name).await.unwrap();
    }
    link.shard(0).cut();
    let of = |shard| names.iter().filter(move |name| Space::shard_of(name, 4) == shard);
    let mut taken = 0;
    for name in of(0) {
        match lax.inc(name, 1).await {
            Ok(_) => taken += 1,
            Err(error) => assert!(matches!(error, DistkitError::TooManyPending { limit: 10 })),
        }
    }
    assert_eq!(taken, 10);
    for round in of(1).collect::<Vec<_>>().chunks(10) {
        for name in round {
            lax.inc(name, 1).await.unwrap();
        }
        sleep(2 * LAG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_names_what_is_left_by_shard() {
    let (store, shards) = (MemoryBackend::new(), 4);
    let names = one_of_each(shards);
    let link = store.link();
    let lax = LaxCounter::new(options(&link, shards));
    for name in &names {
        lax.inc(name, 1).await.unwrap();
    }
    lax.flush().await.unwrap();
    link.shard(1).cut();
    link.shard(3).lose_next_requests(usize::MAX);
    for name in &names {
        lax.inc(name, 7).await.unwrap();
    }
    let began = Instant::now();
    let report = lax.shutdown(Duration::from_secs(2)).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3), "they are waited for together");
    assert_eq!(report.pending, [(names[1].clone(), 7)]);
    assert_eq!(report.unknown, [(names[3].clone(), 7)]);
    let left: Vec<_> = report.shards.iter().map(|s| (s.shard, s.pending, s.unknown)).collect();
    assert_eq!(left, [(1, 1, 0), (3, 0, 1)]);
    assert!(report.shards.iter().all(|shard| shard.cause.is_some()));
    assert!(report.to_string().ends_with("in shards 1, 3"), "{report}");
    let strict = StrictCounter::new(options(&store.link(), shards));
    for (shard, name) in names.iter().enumerate() {
        let expected = if shard % 2 == 0 { 8 } else { 1 };
        assert_eq!(strict.get(name).await.unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_joins_a_shard_when_it_first_writes_there() {
    let (store, shards) = (MemoryBackend::new(), 4);
    let spaces = Space::shards_of(prefix(), shards);
    let names = one_of_each(shards);
    for counter in [
        strict_instance(&store.link(), shards) as Arc<dyn InstanceAwareCounterTrait>,
        lax_instance(&store.link(), shards),
    ] {
        let joined = || -> Vec<bool> {
            let in_it = |space| {
                store.living_instances(space).iter().any(|id| &**id == counter.instance_id())
            };
            spaces.iter().map(in_it).collect()
        };
        counter.inc(&names[2], 1).await.unwrap();
        // The lax one's is sent a lag later.
        sleep(3 * LAG).await;
        assert_eq!(joined(), [false, false, true, false]);
        counter.get(&names[1]).await.unwrap();
        counter.slices(&names[1]).await.unwrap();
        counter.clear_on_instance().await.unwrap();
        assert_eq!(joined(), [false, false, true, false], "nothing is its own elsewhere");
        counter.inc(&names[0], 1).await.unwrap();
        // Its heartbeat keeps it alive in both.
        sleep(Duration::from_millis(10 * LEASE_MS)).await;
        assert_eq!(joined(), [true, false, true, false]);
        counter.clear().await.unwrap();
        assert_eq!(joined(), [true; 4]);
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_of_all_shards_are_one_task_and_no_shard_waits_for_another() {
    let (store, shards) = (MemoryBackend::new(), 7);
    let spaces = Space::shards_of(prefix(), shards);
    let link = store.link();
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let counter = strict_instance(&link, shards);
    for name in &one_of_each(shards) {
        counter.inc(name, 1).await.unwrap();
    }
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before + 1);
    // A node that answers after the lease only.
    link.shard(5).set_latency(Duration::from_millis(4 * LEASE_MS));
    for _ in 0..100 {
        sleep(Duration::from_millis(LEASE_MS / 10)).await;
        for space in spaces.iter().filter(|space| space.shard() != 5) {
            assert_eq!(store.living_instances(space).len(), 1, "{space:?}");
        }
    }
    link.shard(5).set_latency(Duration::ZERO);
    sleep(Duration::from_millis(5 * LEASE_MS)).await;
    assert_eq!(store.living_instances(&spaces[5]).len(), 1);
    drop(counter);
    let requests = link.requests();
    sleep(Duration::from_millis(5 * LEASE_MS)).await;
    assert_eq!(link.requests(), requests, "no heartbeat");
}

#[tokio::test(start_paused = true)]
async fn leases_expire_by_shard_and_slices_are_put_back() {
    let (store, shards) = (MemoryBackend::new(), 3);
    let names = one_of_each(shards);
    let (link, other_link) = (store.link(), store.link());
    let (counter, other) = (lax_instance(&link, shards), strict_instance(&other_link, shards));
    for name in &names {
        counter.inc(name, 3).await.unwrap();
        other.inc(name, 4).await.unwrap();
    }
    counter.flush().await.unwrap();
    link.shard(1).cut();
    sleep(Duration::from_millis(2 * LEASE_MS)).await;
    let mut totals = Vec::new();
    for name in &names {
        totals.push(other.get(name).await.unwrap().0);
    }
    assert_eq!(totals, [7, 4, 7], "unreachable in one shard only");
    counter.inc(&names[1], 1).await.unwrap();
    link.shard(1).restore();
    sleep(Duration::from_millis(LEASE_MS)).await;
    assert_eq!(other.get(&names[1]).await.unwrap(), (8, 4));
    counter.leave().await.unwrap();
    for name in &names {
        assert_eq!(other.get(name).await.unwrap(), (4, 4));
        assert!(matches!(counter.inc(name, 1).await, Err(DistkitError::ShutDown)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_data_is_lost_heals_and_the_others_stay() {
    let (store, shards) = (MemoryBackend::new(), 3);
    let spaces = Space::shards_of(prefix(), shards);
    let names = one_of_each(shards);
    let counter = strict_instance(&store.link(), shards);
    let plain = StrictCounter::new(options(&store.link(), shards));
    for name in &names {
        counter.inc(name, 3).await.unwrap();
        plain.inc(name, 2).await.unwrap();
    }
    store.wipe_space(&spaces[1]);
    sleep(Duration::from_millis(LEASE_MS)).await;
    for (shard, name) in names.iter().enumerate() {
        assert_eq!(counter.get(name).await.unwrap(), (3, 3), "living instances put it back");
        assert_eq!(plain.get(name).await.unwrap(), if shard == 1 { 0 } else { 2 });
    }
}

/// Of two processes with one name, the newer one holds it in every shard, whoever comes to a shard first.
#[tokio::test(start_paused = true)]
async fn a_namesake_is_newer_in_all_shards() {
    let (store, shards) = (MemoryBackend::new(), 4);
    let names = one_of_each(shards);
    let named = || {
        let options = StrictInstanceAwareCounterOptions::new(prefix(), store.link());
        StrictInstanceAwareCounter::new(options.shards(shards).instance_name(key("pod")))
    };
    let (older, newer) = (named(), named());
    older.inc(&names[0], 1).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    newer.inc(&names[1], 1).await.unwrap();
    // It comes second to the shard of the newer one, and is the older one all the same.
    let error = older.inc(&names[1], 1).await.unwrap_err();
    assert!(matches!(error, DistkitError::InstanceReplaced), "{error:?}");
    let error = older.inc(&names[2], 1).await.unwrap_err();
    assert!(matches!(error, DistkitError::InstanceReplaced), "it has ended everywhere: {error:?}");
    for name in &names {
        newer.inc(name, 1).await.unwrap();
    }
    let total = newer.get(&names[0]).await.unwrap();
    assert_eq!(total, (1, 1), "the older one's slice went with its name");
}

#[tokio::test(start_paused = true)]
async fn a_handle_keeps_its_own_shard_alive() {
    let (store, shards) = (MemoryBackend::new(), 4);
    let names = one_of_each(shards);
    let lax = LaxCounter::new(options(&store.link(), shards));
    let handle = lax.handle(&names[3]).await.unwrap();
    lax.inc(&names[0], 2).await.unwrap();
    drop(lax);
    handle.inc(5).unwrap();
    sleep(3 * LAG).await;
    let strict = StrictCounter::new(options(&store.link(), shards));
    assert_eq!(strict.get(&names[3]).await.unwrap(), 5);
    assert_eq!(strict.get(&names[0]).await.unwrap(), 2, "flushed when it was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_copy_gets_another_number_of_shards_and_is_exact() {
    let store = MemoryBackend::new();
    let of = |name: &str, shards| CounterOptions::new(key(name), store.clone()).shards(shards);
    let names = keys(3000);
    let strict = StrictCounter::new(of("old", 1));
    let sets: Vec<_> = (-1500..).zip(&names).map(|(n, name)| Write::set(name.clone(), n)).collect();
    strict.write_all(&sets).await.unwrap();
    assert_eq!(copy_prefix(&of("old", 1), &of("new", 7)).await.unwrap().counters, 3000);
    assert_eq!(copy_prefix(&of("new", 7), &of("third", 3)).await.unwrap().counters, 3000);
    let third = StrictCounter::new(of("third", 3));
    for (n, (_, total)) in
        (-1500..).zip(third.get_all(&names.iter().collect::<Vec<_>>()).await.unwrap())
    {
        assert_eq!(total.unwrap(), n);
    }
    // A copy of a copy that is complete changes nothing; one that is not is completed.
    assert_eq!(copy_prefix(&of("new", 7), &of("third", 3)).await.unwrap().counters, 3000);
    third.del(&names[5]).await.unwrap();
    assert_eq!(copy_prefix(&of("new", 7), &of("third", 3)).await.unwrap().counters, 3000);
    // Whatever else is in the target stays, and is named.
    for (name, total) in [(&names[5], 77), (&key("stranger"), 1)] {
        third.set(name, total).await.unwrap();
        let error = copy_prefix(&of("new", 7), &of("third", 3)).await.unwrap_err();
        assert!(!error.may_have_happened());
        let cause = std::error::Error::source(&error).and_then(|e| e.source()).unwrap();
        assert!(cause.to_string().contains(&format!("`{name}` is {total}")), "{cause}");
        assert_eq!(third.get(name).await.unwrap(), total);
        third.set(&names[5], -1495).await.unwrap();
    }
    store.corrupt(&Space::new(key("old")), &names[0], "abc");
    let error = copy_prefix(&of("old", 1), &of("fourth", 3)).await.unwrap_err();
    assert!(matches!(error, DistkitError::CounterError { key, .. } if key == names[0]));
}

/// A process that only reads in a shard needs no lease there, and sees what the others count.
#[tokio::test(start_paused = true)]
async fn of_several_shards_a_read_joins_none() {
    let (store, shards) = (MemoryBackend::new(), 4);
    let names = one_of_each(shards);
    let (writer, link) = (strict_instance(&store.link(), shards), store.link());
    let reader = strict_instance(&link, shards);
    for name in &names {
        writer.inc(name, 7).await.unwrap();
    }
    let all: Vec<_> = names.iter().collect();
    for (_, total) in reader.get_all(&all).await.unwrap() {
        assert_eq!(total.unwrap(), (7, 0));
    }
    assert_eq!(reader.stats().joins, 0);
    assert_eq!(reader.inc(&names[1], 1).await.unwrap(), (8, 1));
    assert_eq!(reader.stats().joins, 1);
    let requests = |shard| link.shard(shard).requests();
    let before = [requests(0), requests(1)];
    sleep(Duration::from_millis(3 * LEASE_MS)).await;
    assert_eq!(requests(0), before[0], "no heartbeat where there is no slice");
    assert!(requests(1) > before[1]);
    // Joined once, it reads as a member, which it is no longer if nobody heard of it: its slice comes back.
    store.lose_members(&Space::shards_of(prefix(), shards)[1]);
    assert_eq!(reader.get(&names[1]).await.unwrap().1, 1);
    assert_eq!(reader.get(&names[0]).await.unwrap(), (7, 0));
    // With one shard the first operation joins, whatever it is.
    let alone = MemoryBackend::new();
    let only = strict_instance(&alone.link(), 1);
    assert_eq!(only.get(&names[0]).await.unwrap(), (0, 0));
    assert_eq!(only.stats().joins, 1);
}

/// Answers get lost, and the copy is begun again until it succeeds.
#[tokio::test(start_paused = true)]
async fn an_interrupted_copy_is_completed_by_another_one() {
    let store = MemoryBackend::new();
    let link = store.link();
    let from = CounterOptions::new(key("old"), store.clone()).shards(3);
    let to = CounterOptions::new(key("new"), link.clone()).shards(7);
    let names = keys(2000);
    let sets: Vec<_> = names.iter().map(|name| Write::set(name.clone(), 5)).collect();
    StrictCounter::new(from.clone()).write_all(&sets).await.unwrap();
    let mut dice = fastrand::Rng::with_seed(3);
    let mut failed = 0;
    let copied = loop {
        link.shard(dice.u16(..7)).lose_next_requests(dice.usize(..2));
        link.shard(dice.u16(..7)).lose_next_replies(dice.usize(..2));
        match copy_prefix(&from, &to).await {
            Ok(copied) => break copied.counters,
            Err(_) => failed += 1,
        }
    };
    assert!(failed > 2, "{failed}");
    assert_eq!(copied, 2000);
    let held: usize = Space::shards_of(key("new"), 7).iter().map(|space| store.len(space)).sum();
    assert_eq!(held, 2000);
}
