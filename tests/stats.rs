//! What `stats()` counts: each field has a test that fails when nothing counts it.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    RedisKey, Stats,
    backend::{
        Space,
        memory::{ManualClock, MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use futures_util::future::join_all;
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn prefix() -> RedisKey {
    key("shop")
}

struct Bed {
    store: MemoryBackend,
    link: MemoryLink,
    lax: Arc<LaxCounter>,
    strict: Arc<StrictCounter>,
}

fn bed_with(change: impl FnOnce(CounterOptions) -> CounterOptions) -> Bed {
    let store = MemoryBackend::new();
    let link = store.link();
    let options = change(CounterOptions::new(prefix(), link.clone()));
    let (lax, strict) = (LaxCounter::new(options.clone()), StrictCounter::new(options));
    Bed { store, link, lax, strict }
}

fn bed() -> Bed {
    bed_with(|options| options)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_before_the_first_request() {
    let bed = bed();
    assert_eq!(bed.lax.stats(), Stats::default());
    assert_eq!(bed.strict.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn pending_keys_are_counted_until_they_are_acknowledged() {
    let bed = bed();
    for name in ["a", "b", "a"] {
        bed.lax.inc(&key(name), 1).await.unwrap();
    }
    assert_eq!(bed.lax.stats().pending_keys, 2);
    bed.lax.flush().await.unwrap();
    assert_eq!((bed.lax.stats().pending_keys, bed.lax.stats().flushes), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_oldest_write_grows_through_failed_flushes_and_ends_with_them() {
    let bed = bed();
    let k = key("k");
    bed.lax.inc(&k, 1).await.unwrap();
    bed.lax.flush().await.unwrap();
    assert_eq!(bed.lax.stats().oldest_pending, None);
    bed.link.cut();
    bed.lax.inc(&k, 1).await.unwrap();
    assert_eq!(bed.lax.stats().oldest_pending, Some(Duration::ZERO));
    sleep(10 * MS).await;
    assert_eq!(bed.lax.stats().oldest_pending, Some(10 * MS), "before the first attempt");
    sleep(60 * SECOND).await;
    // A later write is not the oldest.
    bed.lax.inc(&key("other"), 1).await.unwrap_err();
    bed.lax.inc(&k, 1).await.unwrap();
    assert_eq!(bed.lax.stats().oldest_pending, Some(60 * SECOND + 10 * MS));
    bed.link.restore();
    sleep(2 * SECOND).await;
    assert_eq!(bed.lax.stats().oldest_pending, None);
    // The next one is as old as itself.
    bed.lax.inc(&k, 1).await.unwrap();
    sleep(5 * MS).await;
    assert_eq!(bed.lax.stats().oldest_pending, Some(5 * MS));
}

#[tokio::test(start_paused = true)]
async fn a_write_in_flight_is_pending_and_grows_older() {
    let bed = bed();
    bed.lax.inc(&key("k"), 1).await.unwrap();
    bed.link.set_latency(10 * SECOND);
    sleep(4 * SECOND).await;
    let stats = bed.lax.stats();
    assert_eq!((stats.pending_keys, stats.oldest_pending), (1, Some(4 * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_by_when_it_began_and_how_long_it_took() {
    let bed = bed();
    let k = key("k");
    bed.strict.inc(&k, 1).await.unwrap();
    sleep(7 * SECOND).await;
    let stats = bed.strict.stats();
    assert_eq!((stats.reachable_for, stats.unreachable_for), (Some(7 * SECOND), None));
    assert_eq!((stats.requests, stats.failed_requests, stats.outages), (1, 0, 0));

    bed.link.cut();
    bed.strict.inc(&k, 1).await.unwrap_err();
    sleep(3 * SECOND).await;
    bed.strict.get(&k).await.unwrap_err();
    let stats = bed.strict.stats();
    assert_eq!((stats.reachable_for, stats.unreachable_for), (None, Some(3 * SECOND)));
    assert_eq!((stats.requests, stats.failed_requests, stats.outages), (3, 2, 1));
    assert_eq!(stats.last_outage, None);

    bed.link.restore();
    bed.strict.get(&k).await.unwrap();
    sleep(SECOND).await;
    let stats = bed.strict.stats();
    assert_eq!((stats.reachable_for, stats.unreachable_for), (Some(SECOND), None));
    assert_eq!((stats.last_outage, stats.outages), (Some(3 * SECOND), 1));
}

#[tokio::test(start_paused = true)]
async fn a_lax_counter_finds_an_outage_by_itself() {
    let bed = bed();
    bed.lax.inc(&key("k"), 1).await.unwrap();
    bed.link.cut();
    sleep(10 * SECOND).await;
    let stats = bed.lax.stats();
    assert_eq!((stats.reachable_for, stats.outages), (None, 1));
    assert!(stats.unreachable_for.unwrap() > 9 * SECOND, "{stats:?}");
    assert!(stats.failed_requests > 5, "{stats:?}");
    bed.link.restore();
    sleep(10 * SECOND).await;
    let stats = bed.lax.stats();
    assert_eq!((stats.unreachable_for, stats.pending_keys, stats.outages), (None, 0, 1));
    assert!(stats.last_outage.unwrap() > 9 * SECOND, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_until_the_deadline_is_unreachable() {
    let bed = bed_with(|options| options.unknown_after(SECOND));
    bed.link.set_latency(60 * SECOND);
    bed.strict.inc(&key("k"), 1).await.unwrap_err();
    let stats = bed.strict.stats();
    // Since the request was sent, not since it was given up.
    assert_eq!(stats.unreachable_for, Some(SECOND), "{stats:?}");
    assert_eq!((stats.unknown, stats.outages), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_clear_dates_the_outage_from_when_it_was_sent() {
    let bed = bed_with(|options| options.unknown_after(SECOND));
    bed.link.set_latency(60 * SECOND);
    bed.strict.clear().await.unwrap_err();
    assert_eq!(bed.strict.stats().unreachable_for, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_among_others_that_are_answered_is_no_outage_of_its_whole_length() {
    let bed = bed_with(|options| options.unknown_after(10 * SECOND));
    let k = key("k");
    bed.link.set_latency(60 * SECOND);
    let strict = bed.strict.clone();
    let hangs = tokio::spawn(async move { strict.inc(&key("k"), 1).await });
    sleep(SECOND).await;
    bed.link.set_latency(Duration::ZERO);
    sleep(7 * SECOND).await;
    bed.strict.get(&k).await.unwrap();
    hangs.await.unwrap().unwrap_err();
    assert_eq!(bed.strict.stats().unreachable_for, Some(2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn writes_that_did_not_happen_are_counted() {
    let bed = bed();
    let k = key("k");
    bed.link.cut();
    bed.strict.inc(&k, 1).await.unwrap_err();
    bed.strict.set(&k, 1).await.unwrap_err();
    bed.lax.set(&k, 1).await.unwrap_err();
    bed.link.restore();
    bed.strict.inc(&k, 1).await.unwrap();
    assert_eq!((bed.strict.stats().not_applied, bed.lax.stats().not_applied), (2, 1));
}

/// A full disk: reads are answered all the time.
#[tokio::test(start_paused = true)]
async fn refused_writes_are_told_from_an_outage_from_their_beginning_to_their_end() {
    let bed = bed();
    let k = key("k");
    bed.strict.inc(&k, 1).await.unwrap();
    bed.lax.inc(&k, 1).await.unwrap();
    bed.lax.flush().await.unwrap();
    bed.link.set_writes_refused(true);
    bed.lax.inc(&k, 1).await.unwrap();
    for _ in 0..30 {
        bed.strict.inc(&k, 1).await.unwrap_err();
        bed.strict.get(&k).await.unwrap();
        sleep(SECOND).await;
    }
    let stats = bed.strict.stats();
    assert_eq!(stats.writes_refused_for, Some(30 * SECOND));
    assert_eq!((stats.unreachable_for, stats.outages), (None, 0));
    assert_eq!((stats.failed_requests, stats.not_applied), (30, 30));
    let stats = bed.lax.stats();
    assert!(stats.writes_refused_for.unwrap() > 29 * SECOND, "{stats:?}");
    assert!(stats.oldest_pending.unwrap() > 29 * SECOND, "{stats:?}");
    assert_eq!((stats.unreachable_for, stats.outages), (None, 0));

    bed.link.set_writes_refused(false);
    bed.strict.get(&k).await.unwrap();
    assert!(bed.strict.stats().writes_refused_for.is_some(), "a read does not tell");
    bed.strict.inc(&k, 1).await.unwrap();
    assert_eq!(bed.strict.stats().writes_refused_for, None);
    sleep(2 * SECOND).await;
    assert_eq!(bed.lax.stats().writes_refused_for, None);
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_writes_are_refused_says_so() {
    let link = MemoryBackend::new().link();
    let counter = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
        prefix(),
        link.clone(),
    ));
    counter.inc(&key("k"), 1).await.unwrap();
    link.set_writes_refused(true);
    counter.inc(&key("k"), 1).await.unwrap_err();
    sleep(SECOND).await;
    let stats = counter.stats();
    assert_eq!((stats.writes_refused_for, stats.outages), (Some(SECOND), 0));
}

/// A key that is added to while an attempt fails goes back to where new additions are.
#[tokio::test(start_paused = true)]
async fn what_is_pending_does_not_grow_younger_when_it_is_added_to_amid_a_failing_attempt() {
    let bed = bed();
    let k = key("k");
    bed.lax.inc(&k, 1).await.unwrap();
    bed.lax.flush().await.unwrap();
    // An attempt takes a second, and is then turned down.
    bed.link.set_latency(SECOND);
    bed.link.set_denied(true);
    for _ in 0..100 {
        bed.lax.inc(&k, 1).await.unwrap();
        sleep(SECOND / 10).await;
    }
    let stats = bed.lax.stats();
    assert!(stats.oldest_pending.unwrap() >= 10 * SECOND, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn strict_writes_that_are_sent_again_are_counted() {
    let bed = bed();
    let k = key("k");
    bed.link.lose_next_replies(3);
    assert_eq!(bed.strict.inc(&k, 1).await.unwrap(), 1);
    let stats = bed.strict.stats();
    assert_eq!((stats.requests, stats.resent, stats.failed_requests), (4, 3, 3));
    assert_eq!((stats.unknown, stats.flushes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_sent_again_are_counted() {
    let bed = bed();
    bed.lax.inc(&key("k"), 1).await.unwrap();
    bed.link.lose_next_replies(2);
    sleep(SECOND).await;
    let stats = bed.lax.stats();
    assert_eq!((stats.resent, stats.flushes), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn calls_whose_outcome_stays_unknown_are_counted() {
    let bed = bed_with(|options| options.unknown_after(SECOND));
    let k = key("k");
    bed.link.lose_next_replies(usize::MAX);
    bed.strict.inc(&k, 1).await.unwrap_err();
    bed.strict.set(&k, 1).await.unwrap_err();
    bed.strict.clear().await.unwrap_err();
    assert_eq!(bed.strict.stats().unknown, 3);
    bed.lax.set(&k, 1).await.unwrap_err();
    bed.link.lose_next_replies(0);
    bed.lax.flush().await.unwrap();
    bed.link.lose_next_replies(1);
    bed.lax.clear().await.unwrap_err();
    assert_eq!(bed.lax.stats().unknown, 2);
}

#[tokio::test(start_paused = true)]
async fn calls_that_share_a_request_are_counted() {
    let bed = bed();
    let k = key("k");
    bed.link.set_latency(MS);
    bed.strict.inc(&k, 1).await.unwrap();
    assert_eq!(bed.strict.stats().joined_calls, 0, "alone");
    // Clones of one options value count together, and so do counters made of them.
    join_all((0..20).map(|_| bed.strict.inc(&k, 1))).await;
    let stats = bed.strict.stats();
    assert!((2..20).contains(&stats.joined_calls), "{stats:?}");
    assert!(stats.requests < 10, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn refused_items_are_counted() {
    let bed = bed();
    let k = key("k");
    bed.strict.set(&k, i64::MAX).await.unwrap();
    bed.strict.inc(&k, 1).await.unwrap_err();
    let batch = [(&k, 1), (&key("fine"), 1), (&k, 2)];
    bed.strict.inc_all(&batch).await.unwrap();
    assert_eq!(bed.strict.stats().refused, 3);

    // Unknown to the lax counter, which took the key for a smaller one.
    bed.strict.set(&k, 5).await.unwrap();
    bed.lax.inc(&k, 1).await.unwrap();
    bed.strict.set(&k, i64::MAX).await.unwrap();
    bed.lax.flush().await.unwrap_err();
    assert_eq!((bed.lax.stats().refused, bed.lax.stats().given_up), (1, 0));
    bed.lax.inc_if(&k, distkit::CounterComparator::Gt(0), 1).await.unwrap_err();
    assert_eq!(bed.lax.stats().refused, 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_without_a_number_is_refused_again_and_again_and_stays_pending() {
    let bed = bed();
    let k = key("k");
    bed.lax.inc(&k, 1).await.unwrap();
    bed.store.corrupt(&Space::new(prefix()), &k, "abc");
    sleep(10 * SECOND).await;
    let stats = bed.lax.stats();
    assert_eq!(stats.pending_keys, 1);
    assert!((5..=12).contains(&stats.refused), "{stats:?}");
    assert!(stats.oldest_pending.unwrap() > 9 * SECOND, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn writes_that_a_shutdown_leaves_are_given_up() {
    let bed = bed();
    for name in ["a", "b", "c"] {
        bed.lax.inc(&key(name), 1).await.unwrap();
    }
    bed.link.cut();
    bed.lax.shutdown(SECOND).await.unwrap_err();
    sleep(SECOND).await;
    let stats = bed.lax.stats();
    assert_eq!((stats.given_up, stats.pending_keys, stats.oldest_pending), (3, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_guard_is_forgotten_is_given_up() {
    let bed = bed();
    bed.lax.inc(&key("k"), 1).await.unwrap();
    bed.lax.flush().await.unwrap();
    bed.lax.inc(&key("k"), 1).await.unwrap();
    bed.link.lose_next_replies(1);
    bed.lax.flush().await.unwrap_err();
    bed.store.lose_guards(&Space::new(prefix()));
    sleep(SECOND).await;
    let stats = bed.lax.stats();
    assert_eq!((stats.given_up, stats.pending_keys), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn keys_that_nobody_uses_are_evicted() {
    let bed = bed_with(|options| options.evict_after(SECOND));
    for name in ["a", "b"] {
        bed.lax.inc(&key(name), 1).await.unwrap();
    }
    sleep(10 * SECOND).await;
    assert_eq!(bed.lax.stats().evicted, 2);
}

#[tokio::test(start_paused = true)]
async fn joins_and_that_an_instance_was_collected_are_counted() {
    let clock = ManualClock::new();
    let store = MemoryBackend::with_clock(clock.clone());
    let link = store.link();
    let strict = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
        prefix(),
        link.clone(),
    ));
    let lax =
        LaxInstanceAwareCounter::new(LaxInstanceAwareCounterOptions::new(prefix(), link.clone()));
    let k = key("k");
    strict.inc(&k, 1).await.unwrap();
    lax.inc(&k, 1).await.unwrap();
    lax.flush().await.unwrap();
    assert_eq!((strict.stats().joins, strict.stats().collected), (1, 0));
    assert_eq!((lax.stats().joins, lax.stats().collected), (1, 0));
    assert_eq!(lax.stats().flushes, 1);

    store.lose_members(&Space::new(prefix()));
    link.set_latency(MS);
    // Several calls are turned away, and one joins for all of them.
    for added in join_all((0..5).map(|_| strict.inc(&k, 1))).await {
        added.unwrap();
    }
    lax.inc(&k, 1).await.unwrap();
    lax.flush().await.unwrap();
    assert_eq!((strict.stats().joins, strict.stats().collected), (2, 1));
    assert_eq!((lax.stats().joins, lax.stats().collected), (2, 1));

    store.lose_members(&Space::new(prefix()));
    strict.clear().await.unwrap();
    assert_eq!((strict.stats().joins, strict.stats().collected), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_was_replaced_gives_up_what_is_pending() {
    let store = MemoryBackend::new();
    let link = store.link();
    let named = |link: &MemoryLink| {
        let options = LaxInstanceAwareCounterOptions::new(prefix(), link.clone());
        LaxInstanceAwareCounter::new(options.instance_name(key("pod")))
    };
    let (older, newer) = (named(&link), named(&store.link()));
    older.inc(&key("k"), 1).await.unwrap();
    older.flush().await.unwrap();
    link.cut();
    older.inc(&key("k"), 1).await.unwrap();
    newer.inc(&key("k"), 1).await.unwrap();
    link.restore();
    sleep(5 * SECOND).await;
    assert_eq!(older.stats().given_up, 1);
}

#[test]
fn merged_numbers_are_sums_and_the_worse_of_both() {
    let stats = |pending_keys, oldest: u64, up: u64, down: u64, flushes| {
        let some = |secs| (secs != 0).then(|| Duration::from_secs(secs));
        let mut stats = Stats::default();
        (stats.pending_keys, stats.flushes, stats.outages) = (pending_keys, flushes, flushes);
        (stats.oldest_pending, stats.last_outage) = (some(oldest), some(oldest));
        stats.writes_refused_for = some(oldest);
        (stats.reachable_for, stats.unreachable_for) = (some(up), some(down));
        stats
    };
    let both = stats(1, 5, 10, 0, 7).merge(stats(2, 3, 4, 0, 8));
    assert_eq!(both, stats(3, 5, 4, 0, 15));
    let both = stats(1, 0, 10, 0, 7).merge(stats(2, 3, 0, 9, 8));
    assert_eq!(both, stats(3, 3, 0, 9, 15));
    let idle = Stats::default().merge(stats(1, 0, 10, 0, 7));
    assert_eq!(idle, stats(1, 0, 10, 0, 7), "one that was never used does not count");
}
