//! Strict counters in windows of time, under simulated time: each write counts once, in the window that applies it.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/windows.rs"]
mod windows;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, KeyFilter, RedisKey, Window, Windows,
    backend::{
        BackendError, Space, Write,
        memory::{ManualClock, MemoryBackend},
    },
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use tokio::time::sleep;
use windows::{HOUR, SECOND, key, ms, options, stage};

/// What the store holds of `hits` in the window that begins then.
async fn held(store: &MemoryBackend, windows: Windows, start: Duration) -> i64 {
    let counter = StrictCounter::new(options(&store.link(), windows));
    counter.get_in(windows.at(start), &key("hits")).await.unwrap()
}

/// How long the current window still lasts.
fn until_end(store: &MemoryBackend, windows: Windows) -> Duration {
    windows.at(store.now()).end() - store.now()
}

#[tokio::test(start_paused = true)]
async fn each_window_starts_from_zero() {
    let (_, _, counter) = stage(Windows::every(HOUR).keep(2), StrictCounter::new);
    let hits = key("hits");
    for hour in 1..4 {
        assert_eq!(counter.get(&hits).await.unwrap(), 0);
        assert_eq!(counter.inc(&hits, hour).await.unwrap(), hour);
        assert_eq!(
            counter.set_if(&hits, CounterComparator::Eq(hour), 10 * hour).await.unwrap().0,
            10 * hour
        );
        assert_eq!(counter.get(&hits).await.unwrap(), 10 * hour);
        assert_eq!(counter.get_previous(&hits).await.unwrap(), 10 * (hour - 1));
        assert_eq!(counter.len().await.unwrap(), 1);
        sleep(HOUR).await;
    }
    // The first one is no longer kept.
    let series = counter.get_last(&hits, 10).await.unwrap();
    let counts: Vec<_> = series.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [0, 20, 30, 0]);
    assert_eq!(counter.sum_last(&hits, 2).await.unwrap(), 30);
    assert_eq!(counter.len().await.unwrap(), 0);
    assert_eq!(counter.list(&KeyFilter::all()).into_map().await.unwrap(), BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn a_write_on_its_way_at_the_boundary_counts_where_it_arrives() {
    let windows = Windows::every(SECOND);
    let (store, link, counter) = stage(windows, StrictCounter::new);
    let hits = key("hits");
    counter.inc(&hits, 1).await.unwrap();
    link.set_latency(ms(20));
    sleep(ms(995)).await;
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1, "the first of its window");
    assert_eq!(counter.get(&hits).await.unwrap(), 1);
    assert_eq!(held(&store, windows, Duration::ZERO).await, 1);
    // Reads, too.
    sleep(until_end(&store, windows) - ms(5)).await;
    assert_eq!(counter.get(&hits).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_at_the_boundary_is_the_one_of_its_window() {
    let windows = Windows::every(SECOND);
    let (store, link, counter) = stage(windows, StrictCounter::new);
    let hits = key("hits");
    assert_eq!(counter.inc(&hits, 5).await.unwrap(), 5);
    sleep(ms(998)).await;
    link.lose_next_replies(3);
    assert_eq!(counter.inc(&hits, 2).await.unwrap(), 7, "the original answer");
    assert!(store.now() > SECOND);
    assert_eq!(held(&store, windows, Duration::ZERO).await, 7);
    assert_eq!(counter.get(&hits).await.unwrap(), 0);
    // One that did not arrive counts where it arrives.
    sleep(until_end(&store, windows) - ms(2)).await;
    link.lose_next_requests(2);
    assert_eq!(counter.inc(&hits, 3).await.unwrap(), 3);
    assert_eq!(held(&store, windows, SECOND).await, 0);
    assert_eq!(counter.get(&hits).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn joined_calls_count_once_each_across_boundaries() {
    let windows = Windows::every(ms(50)).keep(1000);
    let (store, link, counter) = stage(windows, StrictCounter::new);
    let hits = key("hits");
    counter.inc(&hits, 0).await.unwrap();
    link.set_latency(ms(6));
    let mut calls = tokio::task::JoinSet::new();
    for task in 0..64 {
        let (counter, hits, link) = (Arc::clone(&counter), hits.clone(), link.clone());
        calls.spawn(async move {
            for call in 0..20 {
                if task == 0 {
                    link.lose_next_replies(call % 3);
                } else if task == 1 {
                    link.lose_next_requests(call % 2);
                }
                counter.inc(&hits, 1).await.unwrap();
            }
        });
    }
    calls.join_all().await;
    let last = windows.at(store.now());
    assert!(last.start() > ms(100), "some windows passed");
    let mut sum = 0;
    let mut used = 0;
    let mut next = Some(last);
    while let Some(window) = next {
        let held = held(&store, windows, window.start()).await;
        (sum, used) = (sum + held, used + i32::from(held > 0));
        next = window.previous();
    }
    assert_eq!(sum, 64 * 20);
    assert!(used > 2, "they are in several windows: {used}");
}

#[tokio::test(start_paused = true)]
async fn the_windows_are_those_of_the_stores_clock_whatever_it_does() {
    let clock = ManualClock::new();
    clock.advance(100 * HOUR);
    let store = MemoryBackend::with_clock(clock.clone());
    let windows = Windows::every(HOUR).keep(3);
    let counter = StrictCounter::new(options(&store.link(), windows));
    let hits = key("hits");
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1);
    // The timers of the process stand still.
    clock.advance(HOUR);
    assert_eq!(counter.inc(&hits, 10).await.unwrap(), 10);
    store.set_clock_back(HOUR);
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 2, "the window before goes on");
    assert_eq!(counter.get(&hits).await.unwrap(), 2);
    store.set_clock_forward(HOUR);
    assert_eq!(counter.get(&hits).await.unwrap(), 10);
    // Past what is kept, and back again.
    store.set_clock_forward(10 * HOUR);
    assert_eq!(counter.inc(&hits, 3).await.unwrap(), 3);
    store.set_clock_back(10 * HOUR);
    let error = counter.inc(&hits, 1).await.unwrap_err();
    assert!(matches!(error, DistkitError::NotApplied(BackendError::WindowClosed)), "{error:?}");
    assert_eq!(counter.get(&hits).await.unwrap(), 0);
    clock.advance(HOUR);
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1, "a window that was never used");
}

#[tokio::test(start_paused = true)]
async fn a_lost_window_fails_until_the_next_one() {
    let windows = Windows::every(HOUR);
    let (store, link, counter) = stage(windows, StrictCounter::new);
    let hits = key("hits");
    counter.inc(&hits, 99).await.unwrap();
    store.lose_window(&Space::new(key("shop")).in_window(windows.at(Duration::ZERO)));
    let lost = |error: DistkitError| {
        assert!(matches!(error, DistkitError::NotApplied(BackendError::WindowLost)), "{error:?}");
        assert!(!error.may_have_happened());
    };
    lost(counter.inc(&hits, 1).await.unwrap_err());
    lost(counter.add_within(&hits, 1, 0..=100).await.unwrap_err());
    lost(counter.get(&hits).await.unwrap_err());
    lost(counter.clear().await.unwrap_err());
    // Whatever became of the first attempt, the records say that it did not happen.
    link.lose_next_requests(1);
    lost(counter.inc(&hits, 1).await.unwrap_err());
    sleep(HOUR).await;
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn clear_is_of_the_current_window() {
    let windows = Windows::every(SECOND);
    let (store, link, counter) = stage(windows, StrictCounter::new);
    let hits = key("hits");
    counter.inc(&hits, 1).await.unwrap();
    sleep(SECOND).await;
    counter.inc(&hits, 2).await.unwrap();
    sleep(ms(990)).await;
    link.set_latency(ms(20));
    counter.clear().await.unwrap();
    assert_eq!(held(&store, windows, Duration::ZERO).await, 0, "it was kept for a second");
    assert_eq!(held(&store, windows, SECOND).await, 2, "it arrived in the next one");
    counter.inc(&hits, 4).await.unwrap();
    counter.clear().await.unwrap();
    assert_eq!(counter.get(&hits).await.unwrap(), 0);
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn windows_spread_over_shards_and_take_unguarded_writes() {
    let store = MemoryBackend::new();
    let windows = Windows::every(SECOND).keep(5);
    for options in [
        options(&store.link(), windows).shards(8),
        // In either order.
        CounterOptions::new(key("shop"), store.link()).shards(8).windows(windows).unguarded(),
    ] {
        let counter = StrictCounter::new(options);
        let keys: Vec<_> = (0..50).map(|n| key(&format!("k{n}"))).collect();
        let writes: Vec<_> =
            keys.iter().zip(1..).map(|(key, n)| Write::add(key.clone(), n)).collect();
        for _ in 0..3 {
            let answers = counter.write_all(&writes).await.unwrap();
            assert!(answers.iter().zip(1..).all(|(answer, n)| answer.as_ref().unwrap().new == n));
            counter.inc(&keys[0], 1).await.unwrap();
            assert_eq!(counter.len().await.unwrap(), 50);
            sleep(SECOND).await;
        }
        assert_eq!(counter.sum_last(&keys[0], 4).await.unwrap(), 6);
        assert_eq!(counter.get_previous(&keys[49]).await.unwrap(), 50);
        let last = counter.current_window().await.unwrap().previous().unwrap();
        let top = counter.list_in(last, &KeyFilter::all()).greatest(2).await.unwrap();
        assert_eq!(top, [(keys[49].clone(), 50), (keys[48].clone(), 49)]);
        sleep(10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_keep_of_those_that_write_holds() {
    let store = MemoryBackend::new();
    let (short, long) = (Windows::every(HOUR), Windows::every(HOUR).keep(4));
    let hits = key("hits");
    let brief = StrictCounter::new(options(&store.link(), short));
    let patient = StrictCounter::new(options(&store.link(), long));
    brief.inc(&hits, 1).await.unwrap();
    assert_eq!(patient.inc(&hits, 1).await.unwrap(), 2, "they are the same counters");
    let first = patient.current_window().await.unwrap();
    sleep(4 * HOUR).await;
    brief.inc(&hits, 1).await.unwrap();
    assert_eq!(brief.get_in(first, &hits).await.unwrap(), 2);
    sleep(HOUR).await;
    assert_eq!(brief.get_in(first, &hits).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_counter_without_windows_says_so() {
    let store = MemoryBackend::new();
    let counter = StrictCounter::new(CounterOptions::new(key("shop"), store));
    let hits = key("hits");
    for error in [
        counter.current_window().await.map(drop).unwrap_err(),
        counter.get_previous(&hits).await.map(drop).unwrap_err(),
        counter.sliding(&hits).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(&error, DistkitError::NotApplied(_)), "{error:?}");
        let cause = std::error::Error::source(&error).and_then(|cause| cause.source()).unwrap();
        assert!(cause.to_string().contains("CounterOptions::windows"), "{cause}");
    }
    // Other windows of the prefix can be read through it.
    let windows = Windows::every(HOUR);
    assert_eq!(counter.get_in(windows.at(Duration::ZERO), &hits).await.unwrap(), 0);
}

/// What must be in the store, by window and key.
type Model = BTreeMap<(Window, RedisKey), i64>;

#[tokio::test(start_paused = true)]
async fn random_histories_agree_with_a_model() {
    for seed in 0..80 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let windows =
            Windows::every(ms(dice.u64(50..2000))).keep(5_000).offset(ms(dice.u64(0..50)));
        let (store, link, counter) = stage(windows, StrictCounter::new);
        let keys = [key("a"), key("b")];
        let mut model = Model::new();
        let steps = seed % 2 == 1;
        for step in 0..150 {
            let key = keys[dice.usize(0..2)].clone();
            sleep(ms([0, 1, 7, 60, 700][dice.usize(0..5)])).await;
            let lost = dice.usize(0..4).saturating_sub(1);
            if steps && dice.u8(0..8) == 0 {
                let step = ms(dice.u64(0..3000));
                match dice.bool() {
                    true => store.set_clock_back(step),
                    false => store.set_clock_forward(step),
                }
            }
            // So that the counter knows the window: an attempt that is lost would have been for another one.
            if steps {
                counter.inc(&key, 0).await.unwrap();
            }
            // The memory store answers at once: a write that arrives is applied when it is sent.
            let arrives_later = dice.bool() && lost > 0;
            if arrives_later {
                link.lose_next_requests(lost)
            } else {
                link.lose_next_replies(lost)
            }
            let sent = windows.at(store.now());
            let write = match dice.u8(0..4) {
                0 => Write::set(key.clone(), dice.i64(-5..5)),
                1 => Write::add(key.clone(), 3).only_if(CounterComparator::Le(4)),
                2 => Write::remove(key.clone()),
                _ => Write::add(key.clone(), dice.i64(-3..9)),
            };
            let written = counter.write(write.clone()).await.unwrap();
            link.lose_next_requests(0);
            link.lose_next_replies(0);
            let window = if arrives_later { windows.at(store.now()) } else { sent };
            let total = model.entry((window, key.clone())).or_default();
            assert_eq!(written.old, *total, "seed {seed}, step {step}: {write:?}");
            if write.condition.matches(*total) {
                *total = write.change.applied_to(*total).unwrap();
            }
            assert_eq!(written.new, *total, "seed {seed}, step {step}: {write:?}");
        }
        for ((window, key), total) in model {
            assert_eq!(
                counter.get_in(window, &key).await.unwrap(),
                total,
                "seed {seed}, {window:?}"
            );
        }
    }
}
