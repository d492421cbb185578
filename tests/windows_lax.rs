//! Lax counters in windows of time, under simulated time: each write counts once, in the window in which it was made,
//! however late it comes to the store.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/windows.rs"]
mod windows;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, KeyFilter, RedisKey, Window, Windows,
    backend::{
        Refusal, Space, Write,
        memory::{ManualClock, MemoryBackend, MemoryLink},
    },
    counter::{CounterTrait, LaxCounter, LaxHandle, StrictCounter},
};
use tokio::time::sleep;
use windows::{HOUR, SECOND, key, ms, options, stage};

/// What the store holds of `hits` in the windows from the first one on.
async fn held(store: &MemoryBackend, windows: Windows, number: usize) -> Vec<i64> {
    let counter = StrictCounter::new(options(&store.link(), windows));
    let mut window = windows.at(Duration::ZERO);
    let mut all = Vec::new();
    for _ in 0..number {
        all.push(counter.get_in(window, &key("hits")).await.unwrap());
        window = window.next();
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_late_flush_counts_where_the_write_was_made() {
    let windows = Windows::every(SECOND).keep(5);
    let (store, _, counter) = stage(windows, LaxCounter::new);
    let hits = key("hits");
    sleep(ms(500)).await;
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1);
    sleep(ms(490)).await;
    assert_eq!(counter.inc(&hits, 2).await.unwrap(), 3);
    assert_eq!(held(&store, windows, 2).await, [1, 0], "not flushed");
    sleep(ms(15)).await;
    assert_eq!(counter.inc(&hits, 10).await.unwrap(), 10, "of the next window");
    assert_eq!(counter.get(&hits).await.unwrap(), 10);
    sleep(ms(50)).await;
    assert_eq!(held(&store, windows, 2).await, [3, 10]);
    assert_eq!(counter.get_previous(&hits).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_outage_over_boundaries_books_each_write_to_its_window() {
    for lost in [false, true] {
        let windows = Windows::every(SECOND).keep(20);
        let (store, link, counter) = stage(windows, LaxCounter::new);
        let hits = key("hits");
        counter.inc(&hits, 0).await.unwrap();
        if lost {
            link.lose_next_replies(usize::MAX)
        } else {
            link.cut()
        }
        for _ in 0..100 {
            sleep(ms(50)).await;
            // At 50, 100, ... and so on the boundaries themselves: the last one of each is of the next window or not.
            if store.now().subsec_millis() != 0 {
                counter.inc(&hits, 1).await.unwrap();
            }
        }
        if lost {
            link.lose_next_replies(0)
        } else {
            link.restore()
        }
        sleep(3 * SECOND).await;
        assert_eq!(held(&store, windows, 6).await, [19, 19, 19, 19, 19, 0]);
        assert_eq!(counter.stats().pending_keys, 0);
        counter.flush().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_keeps_no_write_from_the_next_window() {
    let windows = Windows::every(SECOND).keep(20);
    let (store, link, counter) = stage(windows, LaxCounter::new);
    let hits = key("hits");
    counter.inc(&hits, 1).await.unwrap();
    sleep(ms(100)).await;
    link.set_latency(4 * SECOND);
    counter.inc(&hits, 1).await.unwrap();
    // The flush is on its way, and what is added meanwhile is dirty all the time.
    for second in 0..4 {
        sleep(ms(500)).await;
        counter.inc(&hits, 10).await.unwrap();
        counter.inc(&hits, second).await.unwrap();
        sleep(ms(500)).await;
    }
    link.set_latency(Duration::ZERO);
    sleep(10 * SECOND).await;
    assert_eq!(held(&store, windows, 5).await, [12, 11, 12, 13, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_its_window_is_closed_is_reported_and_counts_nowhere() {
    let windows = Windows::every(SECOND);
    let (store, link, counter) = stage(windows, LaxCounter::new);
    let hits = key("hits");
    counter.inc(&hits, 1).await.unwrap();
    sleep(ms(500)).await;
    link.cut();
    counter.inc(&hits, 4).await.unwrap();
    sleep(3 * SECOND).await;
    counter.inc(&hits, 7).await.unwrap();
    link.restore();
    sleep(SECOND).await;
    let error = counter.flush().await.unwrap_err();
    let DistkitError::CounterError { key: lost, refusal: Refusal::WindowClosed } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*lost, hits);
    assert_eq!(counter.stats().refused, 1);
    counter.flush().await.unwrap();
    assert_eq!(held(&store, windows, 4).await, [0, 0, 0, 7]);
    // In the report of a shutdown, too.
    link.cut();
    counter.inc(&hits, 2).await.unwrap();
    sleep(5 * SECOND).await;
    link.restore();
    let report = counter.shutdown(SECOND).await.unwrap_err();
    assert_eq!(report.refused, [(hits, 2, Refusal::WindowClosed)]);
}

#[tokio::test(start_paused = true)]
async fn what_a_shutdown_leaves_is_of_all_windows() {
    let windows = Windows::every(SECOND).keep(20);
    let (store, link, counter) = stage(windows, LaxCounter::new);
    let (hits, other) = (key("hits"), key("other"));
    counter.inc(&hits, 1).await.unwrap();
    counter.inc(&other, 1).await.unwrap();
    sleep(ms(500)).await;
    link.cut();
    counter.inc(&hits, 4).await.unwrap();
    counter.inc(&other, 6).await.unwrap();
    sleep(SECOND).await;
    counter.inc(&hits, 5).await.unwrap();
    let report = counter.shutdown(ms(100)).await.unwrap_err();
    assert_eq!(report.pending, [(hits.clone(), 4), (hits, 5), (other, 6)]);
    link.restore();
    sleep(SECOND).await;
    assert_eq!(held(&store, windows, 3).await, [1, 0, 0], "it was given up");
    assert_eq!(counter.stats().pending_keys, 0);
}

#[tokio::test(start_paused = true)]
async fn a_handle_counts_in_the_current_window() {
    let windows = Windows::every(SECOND).keep(20);
    let (store, link, counter) = stage(windows, LaxCounter::new);
    let handle = counter.handle(&key("hits")).await.unwrap();
    for second in 1..5 {
        assert_eq!(handle.estimate(), 0);
        assert_eq!(handle.inc(second).unwrap(), second);
        // Also between flushes, and while the store does not answer.
        if second == 2 {
            link.cut();
        }
        sleep(ms(985)).await;
        assert_eq!(handle.inc(10).unwrap(), 10 + second);
        sleep(ms(15)).await;
    }
    link.restore();
    sleep(SECOND).await;
    assert_eq!(held(&store, windows, 5).await, [11, 12, 13, 14, 0]);
}

#[tokio::test(start_paused = true)]
async fn immediate_operations_act_on_the_current_window() {
    let windows = Windows::every(SECOND).keep(20);
    let (store, link, counter) = stage(windows, LaxCounter::new);
    let hits = key("hits");
    counter.inc(&hits, 5).await.unwrap();
    assert_eq!(counter.inc_if(&hits, CounterComparator::Eq(5), 1).await.unwrap(), (6, 5));
    sleep(ms(995)).await;
    counter.inc(&hits, 1).await.unwrap();
    sleep(ms(10)).await;
    assert_eq!(counter.set_if(&hits, CounterComparator::Eq(0), 3).await.unwrap(), (3, 0));
    assert_eq!(counter.set(&hits, 30).await.unwrap(), 30);
    assert_eq!(counter.get_previous(&hits).await.unwrap(), 7);
    assert_eq!(counter.len().await.unwrap(), 1);
    sleep(SECOND).await;
    assert_eq!(counter.add_within(&hits, 5, 0..=2).await.unwrap(), (2, 2));
    counter.inc(&hits, 1).await.unwrap();
    assert_eq!(counter.del(&hits).await.unwrap(), 3);
    counter.inc(&hits, 8).await.unwrap();
    counter.clear().await.unwrap();
    assert_eq!(counter.get(&hits).await.unwrap(), 0);
    assert_eq!(held(&store, windows, 3).await, [7, 30, 0]);

    // A `set` whose answer is lost at the boundary is never applied to the next window.
    let now = store.now();
    sleep(windows.at(now).end() - now - ms(5)).await;
    let last = windows.at(store.now());
    counter.inc(&hits, 1).await.unwrap();
    link.lose_next_requests(1);
    assert!(counter.set(&hits, 100).await.unwrap_err().may_have_happened());
    sleep(ms(100)).await;
    counter.inc(&hits, 2).await.unwrap();
    counter.flush().await.unwrap();
    assert_eq!(counter.get_in(last, &hits).await.unwrap(), 1);
    assert_eq!(counter.get(&hits).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn reads_of_other_windows_hold_what_was_written_here() {
    let windows = Windows::every(SECOND).keep(20);
    let (_, link, counter) = stage(windows, LaxCounter::new);
    let hits = key("hits");
    let strict = StrictCounter::new(options(&link, windows));
    sleep(ms(100)).await;
    strict.inc(&hits, 100).await.unwrap();
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 101);
    sleep(ms(895)).await;
    counter.inc(&hits, 1).await.unwrap();
    let first = counter.current_window().await.unwrap();
    sleep(ms(6)).await;
    // Before the flush.
    assert_eq!(counter.get_previous(&hits).await.unwrap(), 102);
    counter.inc(&hits, 3).await.unwrap();
    assert_eq!(counter.get_in(first, &hits).await.unwrap(), 102);
    let series = counter.get_last(&hits, 5).await.unwrap();
    assert_eq!(series.iter().map(|(_, total)| *total).collect::<Vec<_>>(), [102, 3]);
    assert_eq!(counter.sum_last(&hits, 5).await.unwrap(), 105);
    sleep(ms(249)).await;
    assert_eq!(counter.sliding(&hits).await.unwrap(), (102 * 3 + 2) / 4 + 3);
    let listed = counter.list_in(first, &KeyFilter::all()).into_map().await.unwrap();
    assert_eq!(listed, BTreeMap::from([(hits, 102)]));
}

#[tokio::test(start_paused = true)]
async fn others_are_seen_in_the_new_window_within_the_lag() {
    let windows = Windows::every(SECOND).keep(20);
    let (_, link, counter) = stage(windows, LaxCounter::new);
    let other = LaxCounter::new(options(&link, windows));
    let hits = key("hits");
    for _ in 0..3 {
        assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1);
        other.inc(&hits, 5).await.unwrap();
        sleep(ms(60)).await;
        assert_eq!(counter.get(&hits).await.unwrap(), 6);
        assert_eq!(other.get(&hits).await.unwrap(), 6);
        sleep(ms(940)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_in_use_is_not_read_at_a_boundary() {
    let windows = Windows::every(SECOND).keep(20);
    let (_, link, counter) = stage(windows, LaxCounter::new);
    let keys: Vec<_> = (0..100).map(|n| key(&format!("k{n}"))).collect();
    for key in &keys {
        counter.inc(key, 1).await.unwrap();
    }
    sleep(ms(500)).await;
    let before = link.requests();
    for _ in 0..8 {
        sleep(SECOND).await;
        for key in &keys {
            assert_eq!(counter.inc(key, 1).await.unwrap(), 1);
        }
    }
    sleep(ms(100)).await;
    assert_eq!(link.requests() - before, 8, "a flush for each window, and nothing else");
}

#[tokio::test(start_paused = true)]
async fn steps_of_the_stores_clock_are_followed_within_seconds() {
    let clock = ManualClock::new();
    let windows = Windows::every(HOUR).keep(20);
    let store = MemoryBackend::with_clock(clock.clone());
    clock.advance(10 * HOUR);
    let counter = LaxCounter::new(options(&store.link(), windows));
    let (hits, mut expected) = (key("hits"), vec![0; 16]);
    for (to, count) in [(10, 1), (12, 20), (11, 300), (15, 4000), (10, 50000)] {
        match Duration::from_secs(to * 3600).checked_sub(store.now()) {
            Some(step) => store.set_clock_forward(step),
            None => store.set_clock_back(store.now() - Duration::from_secs(to * 3600)),
        }
        // In use meanwhile; the first of these may still count where the clock was before.
        for _ in 0..12 {
            counter.inc(&hits, 0).await.unwrap();
            sleep(SECOND).await;
        }
        counter.inc(&hits, count).await.unwrap();
        sleep(ms(100)).await;
        expected[usize::try_from(to).unwrap()] += count;
    }
    assert_eq!(held(&store, windows, 16).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_lost_window_is_reported_and_holds_up_no_other() {
    let windows = Windows::every(HOUR);
    let (store, _, counter) = stage(windows, LaxCounter::new);
    let hits = key("hits");
    counter.inc(&hits, 99).await.unwrap();
    counter.flush().await.unwrap();
    sleep(HOUR - ms(5)).await;
    store.lose_window(&Space::new(key("shop")).in_window(windows.at(Duration::ZERO)));
    counter.inc(&hits, 1).await.unwrap_err();
    sleep(ms(10)).await;
    counter.inc(&hits, 2).await.unwrap();
    counter.flush().await.unwrap();
    assert_eq!(counter.get(&hits).await.unwrap(), 2);
    // One that is lost while it is in use.
    store.lose_window(&Space::new(key("shop")).in_window(windows.at(HOUR)));
    counter.inc(&hits, 3).await.unwrap();
    let error = counter.flush().await.unwrap_err();
    let lost = matches!(&error, DistkitError::CounterError { refusal: Refusal::WindowLost, .. });
    assert!(lost, "{error:?}");
    sleep(HOUR).await;
    counter.inc(&hits, 4).await.unwrap();
    counter.flush().await.unwrap();
    assert_eq!(counter.get(&hits).await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_at_first_takes_nothing() {
    let windows = Windows::every(SECOND);
    let (_, link, counter) = stage(windows, LaxCounter::new);
    let hits = key("hits");
    link.cut();
    for error in [
        counter.inc(&hits, 1).await.unwrap_err(),
        counter.set(&hits, 1).await.unwrap_err(),
        counter.clear().await.unwrap_err(),
        counter.get(&hits).await.unwrap_err(),
    ] {
        assert!(matches!(error, DistkitError::NotApplied(_)), "{error:?}");
    }
    counter.flush().await.unwrap();
    link.restore();
    assert_eq!(counter.inc(&hits, 1).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn several_shards_have_windows_each() {
    let windows = Windows::every(SECOND).keep(20);
    let store = MemoryBackend::new();
    let link = store.link();
    let counter = LaxCounter::new(options(&link, windows).shards(4));
    let keys: Vec<_> = (0..40).map(|n| key(&format!("k{n}"))).collect();
    // Not at the boundary itself: a timer of the process may fire before or after.
    sleep(ms(5)).await;
    for second in 1..4 {
        // One of them is unreachable over the boundary.
        if second > 1 {
            link.shard(2).cut();
        }
        for (key, n) in keys.iter().zip(0..) {
            counter.inc(key, n).await.unwrap();
        }
        sleep(ms(980)).await;
        link.shard(2).restore();
        sleep(ms(20)).await;
    }
    sleep(ms(500)).await;
    let strict = StrictCounter::new(options(&link, windows).shards(4));
    for (key, n) in keys.iter().zip(0..) {
        assert_eq!(strict.sum_last(key, 4).await.unwrap(), 3 * n, "{key}");
        assert_eq!(strict.get_previous(key).await.unwrap(), n, "{key}");
    }
}

/// What was counted in each window.
type Model = BTreeMap<(Window, RedisKey), i64>;

/// What happens in a history besides lost messages and cuts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    None,
    Denials,
    /// They are noticed within seconds, so that a write may count in any window.
    ClockSteps,
    /// The store restarts empty, while nothing is on its way.
    Wipes,
}

#[tokio::test(start_paused = true)]
async fn random_histories_of_several_processes_add_up_in_each_window() {
    for seed in 0..40 {
        for trouble in [Trouble::None, Trouble::Denials, Trouble::ClockSteps, Trouble::Wipes] {
            random_history(seed, trouble).await;
        }
    }
}

/// A process, its way to the store, and a handle of the first of the keys.
type Process = (MemoryLink, Arc<LaxCounter>, LaxHandle);

/// Restores the ways to the store, and flushes until nothing is on its way.
async fn settle(processes: &[Process]) {
    for (link, counter, _) in processes {
        link.restore();
        link.set_denied(false);
        link.lose_next_replies(0);
        link.lose_next_requests(0);
        sleep(2 * SECOND).await;
        counter.flush().await.unwrap();
    }
}

async fn random_history(seed: u64, trouble: Trouble) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let length = 50 * dice.u64(1..30);
    let windows = Windows::every(ms(length)).keep(10_000);
    let store = MemoryBackend::new();
    let keys = [key("a"), key("b"), key("c")];
    let mut processes: Vec<Process> = Vec::new();
    for _ in 0..3 {
        let link = store.link();
        let counter = LaxCounter::new(options(&link, windows).allowed_lag(ms(dice.u64(1..80))));
        let handle = counter.handle(&keys[0]).await.unwrap();
        processes.push((link, counter, handle));
    }
    let (mut model, mut latest) = (Model::new(), Duration::ZERO);
    // Never at a boundary: a timer of the process may fire before or after.
    sleep(ms(5)).await;
    for _ in 0..300 {
        let (link, counter, handle) = &processes[dice.usize(0..3)];
        sleep(ms(10 * [0, 0, 0, 1, 3, 20][dice.usize(0..6)])).await;
        match dice.u8(0..12) {
            0 => link.cut(),
            1 | 2 => link.restore(),
            3 => link.lose_next_replies(dice.usize(0..4)),
            4 => link.lose_next_requests(dice.usize(0..4)),
            5 | 6 if trouble == Trouble::Denials => link.set_denied(dice.bool()),
            5 if trouble == Trouble::ClockSteps => store.set_clock_forward(ms(dice.u64(0..5000))),
            6 if trouble == Trouble::ClockSteps => store.set_clock_back(ms(dice.u64(0..5000))),
            5 if trouble == Trouble::Wipes && dice.u8(0..4) == 0 => {
                settle(&processes).await;
                store.wipe();
                model.clear();
            }
            _ => {}
        }
        latest = latest.max(store.now());
        let (key, count) = (&keys[dice.usize(0..3)], dice.i64(-5..9));
        let window = windows.at(store.now());
        let counted = match dice.u8(0..8) {
            0..4 => counter.inc(key, count).await.map(|_| (key, count)),
            4 => handle.inc(count).map(|_| (&keys[0], count)),
            5 => {
                let written = counter.write_all(&[Write::add(key.clone(), count)]).await;
                written.and_then(|mut each| each.remove(0)).map(|_| (key, count))
            }
            6 => counter.get_in(window, key).await.map(|_| (key, 0)),
            _ => counter.get_previous(key).await.map(|_| (key, 0)),
        };
        if let Ok((key, count)) = counted {
            // An error tells that nothing was counted.
            *model.entry((window, key.clone())).or_default() += count;
        }
        assert_eq!(windows.at(store.now()), window, "no call takes time");
    }
    settle(&processes).await;
    let strict = StrictCounter::new(options(&store.link(), windows));
    if trouble == Trouble::ClockSteps {
        for key in &keys {
            let (mut sum, mut window) = (0, windows.at(Duration::ZERO));
            while window.start() <= latest + 20 * SECOND {
                sum += strict.get_in(window, key).await.unwrap();
                window = window.next();
            }
            let counted = model.iter().filter(|((_, of), _)| of == key);
            let expected: i64 = counted.map(|(_, count)| count).sum();
            assert_eq!(sum, expected, "seed {seed}, {trouble:?}, {key} in all windows");
        }
        return;
    }
    for ((window, key), total) in model {
        let held = strict.get_in(window, &key).await.unwrap();
        assert_eq!(held, total, "seed {seed}, {trouble:?}, {key} in {window:?}");
    }
}
