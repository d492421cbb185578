//! What becomes of the writes of lax counters when a runtime, a shutdown's time, or a store's memory ends.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::{
        Backend, Refusal, Space,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::{sleep, timeout},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

struct Bed {
    store: MemoryBackend,
    link: MemoryLink,
    counter: Arc<LaxCounter>,
}

fn bed_with(change: impl FnOnce(CounterOptions) -> CounterOptions) -> Bed {
    let store = MemoryBackend::new();
    let link = store.link();
    let counter = LaxCounter::new(change(CounterOptions::new(key("lax"), link.clone())));
    Bed { store, link, counter }
}

fn bed() -> Bed {
    bed_with(|options| options)
}

impl Bed {
    async fn stored(&self, key: &RedisKey) -> i64 {
        let space = Space::new(RedisKey::try_from("lax").unwrap());
        self.store.read(&space, std::slice::from_ref(key)).await.unwrap()[0].clone().unwrap()
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn the_next_runtime_flushes_what_the_last_one_left() {
    for away in [false, true] {
        let bed = bed();
        let k = key("k");
        runtime().block_on(async {
            bed.counter.inc(&k, 1).await.unwrap();
            if away {
                bed.link.cut();
                sleep(SECOND).await;
            }
        });
        bed.link.restore();
        runtime().block_on(async {
            assert_eq!(bed.counter.inc(&k, 1).await.unwrap(), 2);
            sleep(2 * SECOND).await;
            assert_eq!(bed.stored(&k).await, 2, "the store was away: {away}");
        });
    }
}

#[test]
fn a_reader_does_not_wait_for_a_task_whose_runtime_ended() {
    let bed = bed();
    let k = key("k");
    let first = runtime();
    first.block_on(async { bed.counter.inc(&k, 1).await.unwrap() });
    runtime().block_on(async {
        let get = bed.counter.get(&k);
        tokio::pin!(get);
        // It has asked the task, which has no chance to answer.
        sleep(SECOND).await;
        assert!(timeout(MS, &mut get).await.is_err());
        first.shutdown_background();
        assert_eq!(timeout(SECOND, get).await.expect("somebody answers").unwrap(), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn durations_may_be_as_long_or_short_as_they_like() {
    for (lag, evict) in [
        (20 * MS, Duration::MAX),
        (20 * MS, Duration::ZERO),
        (Duration::MAX, Duration::MAX),
        (Duration::ZERO, Duration::ZERO),
    ] {
        let bed = bed_with(|options| options.allowed_lag(lag).evict_after(evict));
        let k = key("k");
        for n in 1..=3 {
            assert_eq!(bed.counter.inc(&k, 1).await.unwrap(), n);
            sleep(50 * MS).await;
        }
        assert_eq!(bed.counter.get(&k).await.unwrap(), 3);
        bed.counter.shutdown(Duration::MAX).await.unwrap();
        assert_eq!(bed.stored(&k).await, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_shutdown_reports_as_pending_is_not_sent_by_a_flush_under_way() {
    let bed = bed();
    let keys: Vec<_> = (0..3000).map(|n| key(&format!("k{n}"))).collect();
    for key in &keys {
        bed.counter.inc(key, 0).await.unwrap();
    }
    bed.counter.flush().await.unwrap();
    for key in &keys {
        bed.counter.inc(key, 1).await.unwrap();
    }
    bed.link.set_latency(100 * MS);
    let counter = Arc::clone(&bed.counter);
    let flush = tokio::spawn(async move { counter.flush().await });
    tokio::task::yield_now().await;
    let left = bed.counter.shutdown(50 * MS).await.unwrap_err();
    assert!(!left.pending.is_empty() && !left.unknown.is_empty(), "{left}");
    assert!(matches!(flush.await.unwrap(), Err(DistkitError::ShutDown)));
    sleep(10 * SECOND).await;
    for (key, _) in &left.pending {
        assert_eq!(bed.stored(key).await, 0, "{key} was sent although it was given up");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sum_that_a_lost_set_would_have_absorbed_is_reported_as_unknown() {
    let bed = bed();
    let k = key("k");
    bed.counter.inc(&k, 5).await.unwrap();
    bed.link.lose_next_requests(1);
    assert!(bed.counter.set(&k, 10).await.unwrap_err().may_have_happened());
    bed.link.lose_next_replies(1000);
    let left = bed.counter.shutdown(SECOND).await.unwrap_err();
    assert_eq!(bed.stored(&k).await, 5);
    assert_eq!((left.pending, left.unknown), (vec![], vec![(k, 5)]));
}

#[tokio::test(start_paused = true)]
async fn a_sum_whose_answer_was_lost_and_its_opposite_are_both_reported() {
    let bed = bed();
    let k = key("k");
    bed.counter.inc(&k, 0).await.unwrap();
    bed.counter.flush().await.unwrap();
    bed.counter.inc(&k, 1).await.unwrap();
    bed.link.lose_next_replies(1);
    assert!(bed.counter.flush().await.unwrap_err().may_have_happened());
    bed.link.cut();
    assert_eq!(bed.counter.dec(&k, 1).await.unwrap(), 0);
    let left = bed.counter.shutdown(SECOND).await.unwrap_err();
    assert_eq!((left.pending, left.unknown), (vec![(k.clone(), -1)], vec![(k.clone(), 1)]));
    assert_eq!(bed.stored(&k).await, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_reported_although_a_request_hangs() {
    let bed = bed();
    let (full, k) = (key("full"), key("k"));
    bed.counter.inc(&full, 0).await.unwrap();
    bed.counter.inc(&k, 0).await.unwrap();
    let strict = StrictCounter::new(CounterOptions::new(key("lax"), bed.store.clone()));
    strict.set(&full, i64::MAX).await.unwrap();
    bed.counter.inc(&full, 5).await.unwrap();
    sleep(SECOND).await;
    bed.link.set_latency(3600 * SECOND);
    bed.counter.inc(&k, 1).await.unwrap();
    sleep(SECOND).await;
    let left = bed.counter.shutdown(SECOND).await.unwrap_err();
    assert!(matches!(&*left.refused, [(key, 5, Refusal::Overflow)] if *key == full), "{left:?}");
    assert_eq!(left.unknown, [(k, 1)]);
}

/// The task hangs in a request, and another call takes its place when it is ended.
#[test]
fn a_shutdown_that_runs_out_of_time_reports_all_whoever_comes_in_between() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let keys: Arc<[_]> = (0..4000).map(|n| key(&format!("k{n}"))).collect();
    for _ in 0..8 {
        let bed = bed_with(|options| options.allowed_lag(MS));
        let left = runtime.block_on(async {
            let all: Vec<_> = keys.iter().map(|key| (key, 1)).collect();
            bed.counter.inc_all(&all).await.unwrap();
            bed.counter.flush().await.unwrap();
            bed.link.set_latency(3600 * SECOND);
            bed.counter.inc_all(&all).await.unwrap();
            let counter = Arc::clone(&bed.counter);
            let flush = tokio::spawn(async move { counter.flush().await });
            let left = bed.counter.shutdown(20 * MS).await;
            flush.abort();
            left
        });
        let left = left.expect_err("nothing can have been answered");
        assert_eq!(left.pending.len() + left.unknown.len(), keys.len(), "{left}");
    }
}

#[test]
fn a_read_without_any_runtime_is_not_applied() {
    let bed = bed();
    let answer = futures_util::FutureExt::now_or_never(bed.counter.get(&key("k")));
    assert!(matches!(answer, Some(Err(DistkitError::NotApplied(_)))), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flush_after_a_shutdown_that_failed_does_not_say_that_all_is_well() {
    let bed = bed();
    let k = key("k");
    bed.counter.inc(&k, 1).await.unwrap();
    bed.link.cut();
    bed.counter.shutdown(SECOND).await.unwrap_err();
    assert!(matches!(bed.counter.flush().await, Err(DistkitError::ShutDown)));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_given_up_is_reported() {
    let day = Duration::from_secs(86_400);
    for by_flush in [true, false] {
        let bed = bed();
        let k = key("k");
        bed.counter.inc(&k, 5).await.unwrap();
        bed.link.lose_next_requests(usize::MAX);
        sleep(day).await;
        bed.link.lose_next_requests(0);
        sleep(10 * SECOND).await;
        if by_flush {
            assert!(bed.counter.flush().await.unwrap_err().may_have_happened());
            bed.counter.shutdown(SECOND).await.unwrap();
        } else {
            let left = bed.counter.shutdown(SECOND).await.unwrap_err();
            assert_eq!(left.unknown, [(k, 5)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_read_again_as_soon_as_a_number_is_in_its_place() {
    let bed = bed();
    let k = key("k");
    bed.counter.inc(&k, 1).await.unwrap();
    bed.counter.flush().await.unwrap();
    bed.store.corrupt(&Space::new(key("lax")), &k, "x");
    bed.counter.inc(&k, 1).await.unwrap();
    assert!(bed.counter.flush().await.is_err());
    bed.counter.set(&k, 10).await.unwrap();
    for _ in 0..40 {
        sleep(50 * MS).await;
        assert_eq!(bed.counter.get(&k).await.unwrap(), 10);
    }
}

#[test]
fn a_shutdown_says_why_the_attempts_before_the_last_one_failed() {
    let bed = bed();
    let k = key("k");
    runtime().block_on(async {
        bed.counter.inc(&k, 1).await.unwrap();
        bed.counter.flush().await.unwrap();
        bed.counter.inc(&k, 1).await.unwrap();
        bed.link.cut();
        sleep(10 * SECOND).await;
        // The next attempt hangs.
        bed.link.restore();
        bed.link.set_latency(60 * SECOND);
        sleep(2 * SECOND).await;
        let report = bed.counter.shutdown(SECOND).await.unwrap_err();
        assert_eq!(report.unknown, [(k.clone(), 1)]);
        assert!(report.cause.is_some());
    });
}

#[tokio::test(start_paused = true)]
async fn a_set_that_a_shutdown_interrupts_may_have_happened() {
    let bed = bed();
    bed.link.set_latency(100 * MS);
    let counter = Arc::clone(&bed.counter);
    let set = tokio::spawn(async move { counter.set(&key("k"), 5).await });
    sleep(60 * MS).await;
    _ = bed.counter.shutdown(20 * MS).await;
    assert!(set.await.unwrap().unwrap_err().may_have_happened());
    assert_eq!(bed.stored(&key("k")).await, 5);
}
