//! Listings of counters on the memory store: what comes, what ends them, and what they cost.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/plain_only.rs"]
mod plain_only;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use distkit::{
    DistkitError, KeyFilter, Listing, RedisKey,
    backend::{
        Around, Backend, BackendError, Layered, Op, Refusal, Space, Write, Written,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, Keyed, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};

use plain_only::PlainOnly;

const LEASE_MS: u64 = 3000;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn keys(count: usize) -> Vec<RedisKey> {
    (0..count).map(|n| key(&format!("key-{n}"))).collect()
}

fn options(link: &MemoryLink, shards: u16) -> CounterOptions {
    CounterOptions::new(key("shop"), link.clone()).shards(shards)
}

fn strict_instance(link: &MemoryLink, shards: u16) -> Arc<StrictInstanceAwareCounter> {
    let options = StrictInstanceAwareCounterOptions::new(key("shop"), link.clone())
        .shards(shards)
        .dead_instance_threshold_ms(LEASE_MS);
    StrictInstanceAwareCounter::new(options)
}

/// Writes so many counters, each with its number as its total.
async fn fill(store: &MemoryBackend, shards: u16, number: usize) -> BTreeMap<RedisKey, i64> {
    let totals: BTreeMap<_, _> = keys(number).into_iter().zip(0..).collect();
    let spaces = Space::shards_of(key("shop"), shards);
    for (key, total) in &totals {
        let space = &spaces[usize::from(Space::shard_of(key, shards))];
        store.apply(space, &[Write::set(key.clone(), *total)], None).await.unwrap();
    }
    totals
}

/// All items, in the order in which they came.
async fn all<T: Send + 'static>(mut listing: Listing<T>) -> Vec<Result<T, DistkitError>> {
    let mut items = Vec::new();
    while let Some(item) = listing.next().await {
        items.push(item);
    }
    assert!(listing.next().await.is_none(), "a listing that has ended stays so");
    items
}

fn names(map: BTreeMap<RedisKey, i64>) -> Vec<String> {
    map.into_keys().map(|key| key.to_string()).collect()
}

#[tokio::test]
async fn all_shards_are_listed_counted_and_ranked() {
    for shards in [1, 7, 48] {
        let link = MemoryBackend::new().link();
        let expected = fill(link.store(), shards, 2500).await;
        for counter in [
            StrictCounter::new(options(&link, shards)) as Arc<dyn CounterTrait>,
            LaxCounter::new(options(&link, shards)),
        ] {
            let items = all(counter.list(&KeyFilter::all())).await;
            assert_eq!(items.len(), 2500, "without writers each comes once");
            assert_eq!(counter.list(&KeyFilter::all()).into_map().await.unwrap(), expected);
            assert_eq!(counter.len().await.unwrap(), 2500);
            assert!(!counter.is_empty().await.unwrap());
            let top = counter.top(3, &KeyFilter::all()).await.unwrap();
            assert_eq!(top, [2499, 2498, 2497].map(|n| (key(&format!("key-{n}")), n)));
            let top = counter.top(2, &KeyFilter::glob("key-1?")).await.unwrap();
            assert_eq!(top, [19, 18].map(|n| (key(&format!("key-{n}")), n)));
            assert_eq!(counter.top(9999, &KeyFilter::all()).await.unwrap().len(), 2500);
            let some = counter.list(&KeyFilter::prefix("key-249")).into_map().await.unwrap();
            assert_eq!(some.len(), 11);
            counter.clear().await.unwrap();
            assert!(counter.is_empty().await.unwrap());
            assert!(all(counter.list(&KeyFilter::all())).await.is_empty());
            fill(link.store(), shards, 2500).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lax_counter_lists_what_it_has_flushed() {
    let link = MemoryBackend::new().link();
    let lax = LaxCounter::new(options(&link, 3).allowed_lag(Duration::from_secs(60)));
    lax.inc(&key("flushed"), 1).await.unwrap();
    lax.flush().await.unwrap();
    lax.inc(&key("flushed"), 1).await.unwrap();
    lax.inc(&key("pending"), 1).await.unwrap();
    let listed = lax.list(&KeyFilter::all()).into_map().await.unwrap();
    assert_eq!(listed, BTreeMap::from([(key("flushed"), 1)]));
    assert_eq!(lax.len().await.unwrap(), 1);
    lax.flush().await.unwrap();
    let listed = lax.list(&KeyFilter::all()).into_map().await.unwrap();
    assert_eq!(listed, BTreeMap::from([(key("flushed"), 2), (key("pending"), 1)]));
    lax.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(lax.len().await.unwrap(), 2, "reads go on after a shutdown");
}

#[tokio::test(start_paused = true)]
async fn instances_list_totals_and_slices_of_the_living() {
    for shards in [1, 5] {
        let store = MemoryBackend::new();
        let (to_a, to_b) = (store.link(), store.link());
        let (a, b) = (strict_instance(&to_a, shards), strict_instance(&to_b, shards));
        let lax = LaxInstanceAwareCounterOptions::new(key("shop"), to_a.clone()).shards(shards);
        let lax = LaxInstanceAwareCounter::new(lax);
        for (n, name) in (1..).zip(keys(1200)) {
            a.inc(&name, n).await.unwrap();
            if n % 2 == 0 {
                b.inc(&name, 1000).await.unwrap();
            }
        }
        b.inc(&key("of b"), 9999).await.unwrap();
        lax.inc(&key("key-0"), 5).await.unwrap();
        let before = lax.list(&KeyFilter::glob("key-0")).into_map().await.unwrap();
        assert_eq!(before[&key("key-0")], 1, "what is pending is not listed");
        lax.flush().await.unwrap();

        for counter in [&*a as &dyn InstanceAwareCounterTrait, &*lax] {
            assert_eq!(counter.len().await.unwrap(), 1201);
            let totals = counter.list(&KeyFilter::all()).into_map().await.unwrap();
            assert_eq!(totals.len(), 1201);
            assert_eq!((totals[&key("key-0")], totals[&key("key-1")]), (6, 1002));
            let top = counter.top(2, &KeyFilter::all()).await.unwrap();
            assert_eq!(top, [(key("of b"), 9999), (key("key-1199"), 2200)]);
            let held = counter.list_slices(&KeyFilter::all()).into_map().await.unwrap();
            assert_eq!(held.len(), 1201);
            for (name, held) in &held {
                assert_eq!(held.total, totals[name], "{name}");
                assert_eq!(held.slices, counter.slices(name).await.unwrap(), "{name}");
            }
            let ids: Vec<_> =
                held[&key("key-1")].slices.iter().map(|s| s.instance_id.clone()).collect();
            assert_eq!(ids.len(), 2);
            assert!(ids.contains(&a.instance_id().to_owned()));
        }

        // Nobody has collected the one that is cut off.
        to_b.cut();
        tokio::time::sleep(Duration::from_millis(LEASE_MS + 1)).await;
        let filter = KeyFilter::glob("of b");
        let held = a.list_slices(&filter).into_map().await.unwrap();
        assert!(held.is_empty(), "{held:?}");
        let totals = a.list(&filter).into_map().await.unwrap();
        assert!(totals.into_values().all(|total| total == 0));

        a.leave().await.unwrap();
        for item in all(a.list(&KeyFilter::all())).await {
            assert!(matches!(item, Err(DistkitError::ShutDown)), "{item:?}");
        }
        assert!(matches!(a.len().await, Err(DistkitError::ShutDown)));
    }
}

/// A counter of a user's own, from before there were listings.
struct Mock;

#[async_trait]
impl CounterTrait for Mock {
    async fn write_all(
        &self,
        _: &[Write],
    ) -> Result<Vec<Result<Written, DistkitError>>, DistkitError> {
        Ok(Vec::new())
    }

    async fn get_all<'k>(&self, _: &[&'k RedisKey]) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        Ok(Vec::new())
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        Ok(())
    }
}

#[tokio::test]
async fn without_the_capability_a_listing_says_so() {
    let plain = || CounterOptions::new(key("shop"), PlainOnly(MemoryBackend::new()));
    let counters: [Arc<dyn CounterTrait>; 3] =
        [StrictCounter::new(plain()), LaxCounter::new(plain().shards(2)), Arc::new(Mock)];
    for (counter, errors) in counters.iter().zip([1, 2, 1]) {
        let items = all(counter.list(&KeyFilter::all())).await;
        assert_eq!(items.len(), errors, "one for each shard");
        let failures = [items.into_iter().next().unwrap().map(drop), counter.len().await.map(drop)];
        let top = counter.top(1, &KeyFilter::all()).await.map(drop);
        for failure in failures.into_iter().chain([top]) {
            let Err(DistkitError::NotApplied(cause)) = failure else { panic!("{failure:?}") };
            let text = std::error::Error::source(&cause).unwrap().to_string();
            assert_eq!(text, "the store does not support listing");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_does_not_answer_is_an_error_and_the_others_are_listed() {
    let link = MemoryBackend::new().link();
    fill(link.store(), 4, 4000).await;
    let counter = StrictCounter::new(options(&link, 4));
    link.shard(2).cut();
    let items = all(counter.list(&KeyFilter::all())).await;
    let (listed, errors): (Vec<_>, Vec<_>) = items.into_iter().partition(Result::is_ok);
    assert_eq!(errors.len(), 1);
    assert!(matches!(errors[0], Err(DistkitError::NotApplied(_))), "{:?}", errors[0]);
    let of_others = keys(4000).iter().filter(|key| Space::shard_of(key, 4) != 2).count();
    assert_eq!(listed.len(), of_others);
    for failed in [
        counter.list(&KeyFilter::all()).into_map().await.map(drop),
        counter.top(1, &KeyFilter::all()).await.map(drop),
        counter.len().await.map(drop),
    ] {
        assert!(matches!(failed, Err(DistkitError::NotApplied(_))), "{failed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_amid_a_listing_ends_it() {
    let link = MemoryBackend::new().link();
    fill(link.store(), 1, 2500).await;
    let mut listing = StrictCounter::new(options(&link, 1)).list(&KeyFilter::all());
    for _ in 0..1000 {
        listing.next().await.unwrap().unwrap();
    }
    link.cut();
    let error = listing.next().await.unwrap().unwrap_err();
    assert!(matches!(error, DistkitError::NotApplied(_)), "{error:?}");
    assert!(listing.next().await.is_none());
}

#[tokio::test]
async fn foreign_values_are_named_and_end_nothing() {
    let link = MemoryBackend::new().link();
    fill(link.store(), 1, 100).await;
    link.store().corrupt(&Space::new(key("shop")), &key("key-50"), "abc");
    let counter = StrictCounter::new(options(&link, 1));
    let items = all(counter.list(&KeyFilter::all())).await;
    assert_eq!(items.len(), 100);
    let errors: Vec<_> = items.into_iter().filter_map(Result::err).collect();
    let [DistkitError::CounterError { key: bad, refusal: Refusal::NotANumber { found } }] =
        &*errors
    else {
        panic!("{errors:?}")
    };
    assert_eq!((&**bad, &**found), ("key-50", "abc"));
    assert_eq!(counter.len().await.unwrap(), 100);
    assert!(counter.top(3, &KeyFilter::all()).await.is_err(), "it is not hidden");
    assert!(counter.top(3, &KeyFilter::glob("key-9?")).await.is_ok(), "of others it is no matter");
}

/// Requests by their names.
#[derive(Debug, Clone, Default)]
struct Requests(Arc<Mutex<Vec<&'static str>>>);

impl Around for Requests {
    async fn around<T: Send>(
        &self,
        op: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        assert!(op.is_read(), "a listing changes nothing");
        self.0.lock().unwrap().push(op.name());
        call.await
    }
}

#[tokio::test]
async fn a_listing_asks_for_a_page_when_it_is_needed() {
    let store = MemoryBackend::new();
    let expected = fill(&store, 1, 50_000).await;
    let requests = Requests::default();
    let asked = || requests.0.lock().unwrap().len();
    let layered = Layered::new(Arc::new(store), requests.clone());
    let counter = StrictCounter::new(CounterOptions::with_store(key("shop"), Arc::new(layered)));
    let mut listing = counter.list(&KeyFilter::all());
    assert_eq!(asked(), 0, "before the first poll");
    let mut found = BTreeSet::new();
    for number in 1..=50_000_usize {
        found.insert(listing.next().await.unwrap().unwrap().0);
        // So no more than one page is ever held.
        assert_eq!(asked(), number.div_ceil(500), "after {number} counters");
    }
    assert!(listing.next().await.is_none());
    assert_eq!(found, expected.into_keys().collect());

    let mut dropped = counter.list(&KeyFilter::all());
    dropped.next().await.unwrap().unwrap();
    drop(dropped);
    tokio::task::yield_now().await;
    assert_eq!(asked(), 101, "a dropped listing asks for nothing");
    assert!(counter.top(0, &KeyFilter::all()).await.unwrap().is_empty());
    assert_eq!(asked(), 101, "the 0 greatest are known");
    counter.len().await.unwrap();
    assert_eq!(requests.0.lock().unwrap()[100..], ["page", "count"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_next_loses_nothing() {
    let link = MemoryBackend::new().link();
    let expected = fill(link.store(), 3, 3000).await;
    link.set_latency(Duration::from_millis(20));
    let mut listing = StrictCounter::new(options(&link, 3)).list(&KeyFilter::all());
    let (mut found, mut dropped) = (BTreeMap::new(), 0);
    loop {
        match tokio::time::timeout(Duration::from_millis(3), listing.next()).await {
            Err(_) => dropped += 1,
            Ok(Some(item)) => found.extend([item.unwrap()]),
            Ok(None) => break,
        }
    }
    assert!(dropped > 3, "{dropped} were dropped");
    assert_eq!(found, expected);
}

#[tokio::test]
async fn losing_the_space_ends_a_listing() {
    let link = MemoryBackend::new().link();
    fill(link.store(), 1, 5000).await;
    let mut listing = StrictCounter::new(options(&link, 1)).list(&KeyFilter::all());
    listing.next().await.unwrap().unwrap();
    link.store().wipe_space(&Space::new(key("shop")));
    let left = all(listing).await;
    assert_eq!(left.len(), 499, "the page that was read");
    assert!(left.iter().all(Result::is_ok));
}

/// Random histories beside listings: what stays comes, nothing comes that was never there, and each total is one that
/// the counter had meanwhile.
#[tokio::test]
async fn random_histories_agree_with_a_model() {
    for seed in 0..60 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let link = MemoryBackend::new().link();
        let shards = [1, 3][dice.usize(..2)];
        let counter = StrictCounter::new(options(&link, shards));
        let names = keys(3000);
        let mut model: BTreeMap<RedisKey, i64> = BTreeMap::new();
        for _ in 0..dice.usize(..4000) {
            step(&counter, &names, &mut dice, &mut model).await;
        }
        // What was there all the time, and all totals that were.
        let mut stayed: BTreeSet<_> = model.keys().cloned().collect();
        let mut had: BTreeSet<_> = model.clone().into_iter().collect();
        let mut listing = counter.list(&KeyFilter::all());
        let mut found = Vec::new();
        while let Some(item) = listing.next().await {
            found.push(item.unwrap());
            if dice.usize(..4) == 0 {
                let written = step(&counter, &names, &mut dice, &mut model).await;
                match model.get(&written) {
                    Some(total) => drop(had.insert((written, *total))),
                    None => drop(stayed.remove(&written)),
                }
            }
        }
        for item in &found {
            assert!(had.contains(item), "seed {seed}: {item:?} never was");
        }
        let found: BTreeSet<_> = found.into_iter().map(|(key, _)| key).collect();
        let missing: Vec<_> = stayed.difference(&found).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        let total = counter.list(&KeyFilter::all()).into_map().await.unwrap();
        assert_eq!(total, model, "seed {seed}");
        assert_eq!(counter.len().await.unwrap(), model.len() as u64, "seed {seed}");
    }
}

/// One write, of a key that it gives.
async fn step(
    counter: &StrictCounter,
    names: &[RedisKey],
    dice: &mut fastrand::Rng,
    model: &mut BTreeMap<RedisKey, i64>,
) -> RedisKey {
    let name = &names[dice.usize(..names.len())];
    if dice.usize(..3) == 0 {
        counter.del(name).await.unwrap();
        model.remove(name);
    } else {
        let total = counter.inc(name, dice.i64(-3..4)).await.unwrap();
        model.insert(name.clone(), total);
    }
    name.clone()
}

#[tokio::test]
async fn a_listing_outlives_the_counter_and_moves_to_another_task() {
    let link = MemoryBackend::new().link();
    fill(link.store(), 2, 10).await;
    let counter = StrictCounter::new(options(&link, 2));
    let listing = counter.list(&KeyFilter::glob("key-[1]"));
    let other = counter.list(&KeyFilter::glob("key-1"));
    drop(counter);
    assert!(listing.into_map().await.unwrap().is_empty(), "brackets mean nothing");
    let listed = tokio::spawn(other.into_map()).await.unwrap().unwrap();
    assert_eq!(names(listed), ["key-1"]);
}
