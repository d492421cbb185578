//! Strict writes share requests, are sent again until they are answered, and are applied once.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{future::Future, pin::pin, sync::Arc, task::Poll, time::Duration};

use distkit::{
    CounterComparator::Lt,
    DistkitError, RedisKey,
    backend::{
        Backend, Refusal, Space, Write,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

struct Bed {
    store: MemoryBackend,
    link: MemoryLink,
    options: CounterOptions<MemoryLink>,
}

fn bed() -> Bed {
    let store = MemoryBackend::new();
    let link = store.link();
    let options = CounterOptions::with_store(key("p"), Arc::new(link.clone()));
    Bed { store, link, options }
}

impl Bed {
    fn counter(&self) -> Arc<StrictCounter<MemoryLink>> {
        StrictCounter::new(self.options.clone())
    }

    async fn total(&self, name: &str) -> i64 {
        let totals = self.store.read(&Space::new(key("p")), &[key(name)]).await.unwrap();
        *totals[0].as_ref().unwrap()
    }

    fn instance(&self) -> Arc<StrictInstanceAwareCounter<MemoryLink>> {
        let store = Arc::new(self.link.clone());
        let options = StrictInstanceAwareCounterOptions::with_store(key("p"), store);
        StrictInstanceAwareCounter::new(options)
    }
}

/// Polls it once.
async fn start<F: Future + Unpin>(future: &mut F) {
    std::future::poll_fn(|context| {
        assert!(std::pin::Pin::new(&mut *future).poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_additions_share_requests_and_each_gets_its_own_total() {
    let bed = bed();
    bed.link.set_latency(10 * MS);
    let counter = bed.counter();
    let k = key("k");
    let mut totals: Vec<_> = join_all((0..100).map(|_| counter.inc(&k, 1)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    totals.sort_unstable();
    assert_eq!(totals, (1..=100).collect::<Vec<_>>());
    assert!(bed.link.requests() <= 4, "{} requests", bed.link.requests());
}

#[tokio::test(start_paused = true)]
async fn clones_of_one_options_value_share_requests() {
    let bed = bed();
    bed.link.set_latency(10 * MS);
    let counters: Vec<_> = (0..50).map(|_| bed.counter()).collect();
    let (k, l) = (key("k"), key("l"));
    let keys = [&k, &l];
    let calls = counters.iter().enumerate().map(|(n, counter)| counter.inc(keys[n % 2], 2));
    join_all(calls).await.into_iter().for_each(|total| assert!(total.unwrap() > 0));
    assert_eq!((bed.total("k").await, bed.total("l").await), (50, 50));
    assert!(bed.link.requests() <= 4, "{} requests", bed.link.requests());
}

#[tokio::test(start_paused = true)]
async fn a_call_alone_waits_for_nobody() {
    let bed = bed();
    bed.link.set_latency(10 * MS);
    let (counter, k) = (bed.counter(), key("k"));
    let began = Instant::now();
    for n in 1..=5 {
        assert_eq!(counter.inc(&k, 1).await.unwrap(), n);
    }
    assert_eq!(began.elapsed(), 50 * MS);
    // Nor do a few: as many requests are in flight.
    let began = Instant::now();
    join_all((0..3).map(|_| counter.inc(&k, 1))).await;
    assert_eq!(began.elapsed(), 10 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_given_again_and_applied_once() {
    let bed = bed();
    let counter = bed.counter();
    let k = key("k");
    for lose in [MemoryLink::lose_next_replies, MemoryLink::lose_next_requests] {
        bed.store.apply(&Space::new(key("p")), &[Write::set(k.clone(), 10)], None).await.unwrap();
        let lose = |count| lose(&bed.link, count);
        lose(3);
        assert_eq!(counter.inc(&k, 5).await.unwrap(), 15);
        lose(2);
        assert_eq!(counter.inc_if(&k, Lt(20), 1).await.unwrap(), (16, 15));
        lose(1);
        assert_eq!(counter.set(&k, 7).await.unwrap(), 7);
        lose(2);
        let l = key("l");
        let all = counter.inc_all(&[(&k, 1), (&l, 1)]).await.unwrap();
        assert_eq!(*all[0].1.as_ref().unwrap(), 8);
        lose(1);
        assert_eq!(counter.del(&k).await.unwrap(), 8);
        lose(1);
        counter.clear().await.unwrap();
        assert_eq!((bed.total("k").await, bed.total("l").await), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_the_original_one() {
    let bed = bed();
    let (counter, k) = (bed.counter(), key("k"));
    bed.link.lose_next_replies(1);
    let others = async {
        sleep(5 * MS).await;
        bed.store.apply(&Space::new(key("p")), &[Write::add(k.clone(), 100)], None).await.unwrap();
    };
    let (mine, ()) = tokio::join!(counter.inc(&k, 1), others);
    assert_eq!(mine.unwrap(), 1, "not 101, which it was by the second attempt");
    assert_eq!(bed.total("k").await, 101);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_unknown_after_the_deadline_only() {
    let bed = bed();
    let options = bed.options.clone().unknown_after(Duration::from_secs(2));
    let (counter, k) = (StrictCounter::new(options), key("k"));
    bed.link.lose_next_replies(1000);
    let began = Instant::now();
    let error = counter.inc(&k, 1).await.unwrap_err();
    assert!(error.may_have_happened(), "{error}");
    let text = distkit_testkit::chain(&error);
    assert!(text.contains("no answer came in time"), "{text}");
    assert!(began.elapsed() <= Duration::from_secs(2) && began.elapsed() > Duration::from_secs(1));
    bed.link.lose_next_replies(0);
    assert_eq!(counter.inc(&k, 1).await.unwrap(), 2, "the lane goes on");
    assert_eq!(bed.total("k").await, 2, "once");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_fails_at_once() {
    let bed = bed();
    let (counter, k) = (bed.counter(), key("k"));
    bed.link.cut();
    let began = Instant::now();
    for _ in 0..2 {
        let errors = join_all((0..10).map(|_| counter.inc(&k, 1))).await;
        for error in errors {
            assert!(matches!(error, Err(DistkitError::NotApplied(_))), "{error:?}");
        }
    }
    assert!(matches!(counter.set(&k, 1).await, Err(DistkitError::NotApplied(_))));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_behind_an_outage_ends_by_its_own_deadline() {
    let bed = bed();
    let options = bed.options.clone().unknown_after(Duration::from_secs(1));
    let (counter, k) = (StrictCounter::new(options), key("k"));
    bed.link.lose_next_requests(usize::MAX);
    let began = Instant::now();
    let mut unknown = 0;
    for answer in join_all((0..50).map(|_| counter.inc(&k, 1))).await {
        let error = answer.unwrap_err();
        unknown += usize::from(error.may_have_happened());
    }
    assert!(began.elapsed() <= Duration::from_millis(1100), "{:?}", began.elapsed());
    assert!(unknown >= 3, "one alone, and one for each driver at least: {unknown}");
    assert_eq!(bed.total("k").await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_unguarded_write_is_sent_once() {
    let bed = bed();
    let (counter, k) = (StrictCounter::new(bed.options.clone().unguarded()), key("k"));
    bed.link.lose_next_replies(1);
    assert!(counter.inc(&k, 1).await.unwrap_err().may_have_happened());
    assert_eq!((bed.total("k").await, bed.link.requests()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_concerns_one_call_alone() {
    let bed = bed();
    bed.link.set_latency(10 * MS);
    let (counter, k) = (bed.counter(), key("k"));
    counter.set(&k, i64::MAX - 10).await.unwrap();
    let counts = [1, 20, 2, i64::MAX, 3, i64::MIN, 20, 4];
    let answers = join_all(counts.iter().map(|count| counter.inc(&k, *count))).await;
    let mut sum = i64::MAX - 10;
    for (count, answer) in counts.iter().zip(&answers) {
        match answer {
            Ok(_) => sum = sum.wrapping_add(*count),
            Err(DistkitError::CounterError { refusal: Refusal::Overflow, .. }) => {}
            Err(error) => panic!("{count}: {error}"),
        }
    }
    assert_eq!(bed.total("k").await, sum, "{answers:?}");
    for small in [0, 2, 4, 7] {
        assert!(answers[small].is_ok(), "{answers:?}");
    }
    bed.store.corrupt(&Space::new(key("p")), &key("foreign"), "x");
    let foreign = key("foreign");
    let (bad, good) = tokio::join!(
        join_all((0..3).map(|_| counter.inc(&foreign, 1))),
        join_all((0..3).map(|_| counter.inc(&k, 0))),
    );
    assert!(bad.iter().all(|answer| matches!(answer, Err(DistkitError::CounterError { .. }))));
    assert!(good.iter().all(Result::is_ok), "{good:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_before_it_is_sent_is_not_applied() {
    let bed = bed();
    bed.link.set_latency(10 * MS);
    let (counter, k) = (bed.counter(), key("k"));
    // One alone and two drivers are busy.
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let (counter, k) = (counter.clone(), k.clone());
            tokio::spawn(async move { counter.inc(&k, 1).await })
        })
        .collect();
    sleep(MS).await;
    let mut dropped = pin!(counter.inc(&k, 100));
    start(&mut dropped.as_mut()).await;
    #[expect(clippy::drop_non_drop, reason = "what is pinned is dropped by the replacement")]
    drop(dropped);
    for call in busy {
        call.await.unwrap().unwrap();
    }
    sleep(50 * MS).await;
    assert!(matches!(bed.total("k").await, 3 | 103));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_held_holds_up_nobody() {
    let bed = bed();
    bed.link.set_latency(10 * MS);
    let (counter, k) = (bed.counter(), key("k"));
    let mut held: Vec<_> = (0..20).map(|_| Box::pin(counter.inc(&k, 1))).collect();
    for call in &mut held {
        start(call).await;
    }
    for _ in 0..3 {
        let began = Instant::now();
        counter.inc(&k, 1).await.unwrap();
        assert!(began.elapsed() <= 30 * MS, "{:?}", began.elapsed());
    }
    let answers = join_all(held).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(bed.total("k").await, 23);
}

#[tokio::test(start_paused = true)]
async fn too_many_waiting_calls_are_refused_at_once() {
    let bed = bed();
    bed.link.set_latency(10 * MS);
    let counter = StrictCounter::new(bed.options.clone().max_waiting_calls(5));
    let k = key("k");
    let answers = join_all((0..20).map(|_| counter.inc(&k, 1))).await;
    let refused = answers.iter().filter(|a| matches!(a, Err(DistkitError::NotApplied(_)))).count();
    assert!((1..20).contains(&refused), "{refused}");
    assert_eq!(bed.total("k").await, 20 - refused as i64);
}

#[test]
fn a_runtime_that_ended_holds_up_nobody() {
    let bed = bed();
    let (counter, k) = (bed.counter(), key("k"));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..3 {
        let first = runtime();
        bed.link.set_latency(Duration::from_secs(3600));
        first.block_on(async {
            let mut calls: Vec<_> = (0..10).map(|_| Box::pin(counter.inc(&k, 1))).collect();
            for call in &mut calls {
                start(call).await;
            }
            tokio::task::yield_now().await;
        });
        bed.link.set_latency(Duration::ZERO);
        // While it is not driven, and when it is gone.
        runtime().block_on(counter.inc(&k, 1)).unwrap();
        drop(first);
        runtime().block_on(counter.inc(&k, 1)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn instance_aware_additions_share_requests() {
    let bed = bed();
    let (a, b) = (bed.instance(), bed.instance());
    let k = key("k");
    b.inc(&k, 1000).await.unwrap();
    a.inc(&k, 0).await.unwrap();
    let before = bed.link.requests();
    bed.link.set_latency(10 * MS);
    let answers = join_all((0..100).map(|_| a.inc(&k, 1))).await;
    let mut answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    answers.sort_unstable();
    assert_eq!(answers, (1..=100).map(|n| (1000 + n, n)).collect::<Vec<_>>());
    assert!(bed.link.requests() - before <= 4, "{} requests", bed.link.requests() - before);
}

#[tokio::test(start_paused = true)]
async fn instance_aware_writes_are_applied_once() {
    let bed = bed();
    let (a, b) = (bed.instance(), bed.instance());
    let k = key("k");
    b.inc(&k, 100).await.unwrap();
    a.inc(&k, 1).await.unwrap();
    for lose in [MemoryLink::lose_next_replies, MemoryLink::lose_next_requests] {
        let lose = |count| lose(&bed.link, count);
        lose(3);
        assert_eq!(a.inc(&k, 5).await.unwrap(), (106, 6));
        lose(1);
        assert_eq!(a.set_on_instance(&k, 1).await.unwrap(), (101, 1));
        lose(1);
        assert_eq!(a.del_on_instance(&k).await.unwrap(), (100, 1));
        lose(2);
        assert_eq!(a.set(&k, 7).await.unwrap(), (7, 7));
        lose(1);
        assert_eq!(a.del(&k).await.unwrap(), (7, 7));
        lose(1);
        a.clear_on_instance().await.unwrap();
        lose(1);
        a.clear().await.unwrap();
        b.inc(&k, 100).await.unwrap();
        a.inc(&k, 1).await.unwrap();
    }
}

/// The set happened, its answer was lost, the instance was collected, and another one counted on.
#[tokio::test(start_paused = true)]
async fn a_set_whose_answer_is_lost_while_the_instance_is_collected_erases_nothing() {
    let bed = bed();
    let options =
        StrictInstanceAwareCounterOptions::with_store(key("p"), Arc::new(bed.link.clone()))
            .dead_instance_threshold_ms(500)
            .unknown_after(Duration::from_secs(60));
    let a = StrictInstanceAwareCounter::new(options);
    let other = bed.store.link();
    let options = StrictInstanceAwareCounterOptions::with_store(key("p"), Arc::new(other));
    let b = StrictInstanceAwareCounter::new(options);
    let k = key("k");
    a.inc(&k, 1).await.unwrap();
    // Long enough for the lease to run out.
    bed.link.lose_next_replies(8);
    let set = a.set(&k, 50);
    let others = async {
        sleep(Duration::from_millis(1500)).await;
        b.inc(&k, 7).await.unwrap()
    };
    let (set, counted) = tokio::join!(set, others);
    assert_eq!(set.unwrap(), (50, 50), "its original answer");
    assert_eq!(counted.1, 7);
    let total = b.get(&k).await.unwrap().0;
    assert!(matches!(total, 7 | 57), "{total}: what the other one counted stays");
}
