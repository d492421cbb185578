//! The lax counter on the memory store, mostly under paused time.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, RedisKey,
    backend::{
        Backend, Refusal, Space, Write,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use tokio::time::{Instant, sleep};

const LAG: Duration = Duration::from_millis(20);
const MS: Duration = Duration::from_millis(1);

struct Bed {
    store: MemoryBackend,
    link: MemoryLink,
    counter: Arc<LaxCounter>,
}

fn prefix() -> RedisKey {
    RedisKey::try_from("lax").unwrap()
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn bed() -> Bed {
    bed_with(|options| options)
}

fn bed_with(change: impl FnOnce(CounterOptions) -> CounterOptions) -> Bed {
    let store = MemoryBackend::new();
    let link = store.link();
    let counter = LaxCounter::new(change(CounterOptions::new(prefix(), link.clone())));
    Bed { store, link, counter }
}

impl Bed {
    fn other(&self) -> Arc<LaxCounter> {
        LaxCounter::new(CounterOptions::new(prefix(), self.store.link()))
    }

    fn strict(&self) -> Arc<StrictCounter> {
        StrictCounter::new(CounterOptions::new(prefix(), self.store.clone()))
    }

    async fn stored(&self, key: &RedisKey) -> i64 {
        let space = Space::new(prefix());
        self.store.read(&space, std::slice::from_ref(key)).await.unwrap()[0].clone().unwrap()
    }

    /// Waits, in simulated time, until the store holds `total`.
    async fn until_stored(&self, key: &RedisKey, total: i64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.stored(key).await != total {
            assert!(Instant::now() < deadline, "holds {}, not {total}", self.stored(key).await);
            sleep(MS).await;
        }
    }
}

/// A small generator with a seed, so that a run repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[test]
fn can_be_made_outside_of_a_runtime() {
    let store = MemoryBackend::new();
    let counter = LaxCounter::new(CounterOptions::new(prefix(), store));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        assert_eq!(counter.inc(&key("a"), 3).await.unwrap(), 3);
        counter.flush().await.unwrap();
    });
    drop(runtime);
    // Another runtime: the task of the first is gone, and is started again.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        assert_eq!(counter.inc(&key("a"), 1).await.unwrap(), 4);
        assert_eq!(counter.inc(&key("b"), 1).await.unwrap(), 1);
        counter.flush().await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_batch_on_unknown_keys_reads_them_in_one_request() {
    let bed = bed();
    let names: Vec<_> = (0..100).map(|n| key(&format!("k{n}"))).collect();
    let updates: Vec<_> = names.iter().map(|name| (name, 2)).chain([(&names[0], 3)]).collect();
    let answers = bed.counter.inc_all(&updates).await.unwrap();
    assert_eq!(bed.link.requests(), 1);
    assert!(answers[..100].iter().all(|(_, total)| *total.as_ref().unwrap() == 2));
    assert_eq!(answers[100].1.as_ref().unwrap(), &5);
}

#[tokio::test(start_paused = true)]
async fn own_writes_are_visible_at_once() {
    let bed = bed();
    bed.link.set_latency(4 * MS);
    let a = key("a");
    for n in 1..200 {
        assert_eq!(bed.counter.inc(&a, 1).await.unwrap(), n);
        assert_eq!(bed.counter.get(&a).await.unwrap(), n);
        sleep(MS).await;
    }
    assert_eq!(bed.counter.dec(&a, 100).await.unwrap(), 99);
    assert_eq!(bed.counter.get(&a).await.unwrap(), 99);
}

#[tokio::test(start_paused = true)]
async fn the_warm_path_does_no_io() {
    let bed = bed();
    let a = key("a");
    bed.counter.inc(&a, 1).await.unwrap();
    bed.counter.get(&a).await.unwrap();
    bed.counter.flush().await.unwrap();
    let before = bed.link.requests();
    for _ in 0..1000 {
        bed.counter.inc(&a, 1).await.unwrap();
        bed.counter.get(&a).await.unwrap();
    }
    assert_eq!(bed.link.requests(), before);
    bed.counter.flush().await.unwrap();
    assert_eq!(bed.link.requests(), before + 1, "one batch");
    assert_eq!(bed.stored(&a).await, 1001);
}

/// Every write is in the store within the lag and a round trip, whatever the rhythm of the writes.
async fn keeps_the_lag(pause: impl Fn(u64) -> Duration, simulated: Duration) {
    let bed = bed();
    let round_trip = 4 * MS;
    bed.link.set_latency(round_trip);
    let (a, b) = (key("a"), key("b"));
    // Warm, so that no write waits for a read.
    bed.counter.inc(&a, 0).await.unwrap();
    bed.counter.inc(&b, 0).await.unwrap();
    let mut written = std::collections::VecDeque::new();
    let end = Instant::now() + simulated;
    let (mut total, mut turn, mut next) = (0, 0, Instant::now());
    while Instant::now() < end || !written.is_empty() {
        if Instant::now() >= next && Instant::now() < end {
            bed.counter.inc(if turn % 2 == 0 { &a } else { &b }, 1).await.unwrap();
            total += 1;
            written.push_back((Instant::now() + LAG + round_trip, total));
            next = Instant::now() + pause(turn);
            turn += 1;
        }
        let stored = bed.stored(&a).await + bed.stored(&b).await;
        while written.front().is_some_and(|&(_, total)| total <= stored) {
            written.pop_front();
        }
        if let Some((due, total)) = written.front() {
            assert!(Instant::now() < *due, "write {total} of turn {turn} is late: {stored}");
            sleep(MS).await;
        } else {
            tokio::time::sleep_until(next.max(Instant::now() + MS)).await;
        }
    }
    assert!(total > 30);
}

#[tokio::test(start_paused = true)]
async fn the_lag_holds_under_steady_load() {
    keeps_the_lag(|_| MS, Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn the_lag_holds_for_bursts_over_an_hour() {
    let pause = |turn| if turn % 50 == 49 { Duration::from_secs(7) } else { Duration::ZERO };
    keeps_the_lag(pause, Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn the_lag_holds_for_sparse_writes_over_an_hour() {
    let pause = |turn| Duration::from_millis(1000 + 977 * (turn % 97));
    keeps_the_lag(pause, Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_after_an_hour_of_silence_is_in_time() {
    let bed = bed_with(|options| options.evict_after(Duration::from_secs(7200)));
    let a = key("a");
    bed.counter.inc(&a, 1).await.unwrap();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(bed.counter.inc(&a, 1).await.unwrap(), 2);
    sleep(LAG).await;
    assert_eq!(bed.stored(&a).await, 2);
}

#[tokio::test(start_paused = true)]
async fn sets_cannot_hold_up_a_flush() {
    let bed = bed();
    bed.link.set_latency(4 * MS);
    let (a, b) = (key("a"), key("b"));
    bed.counter.inc(&a, 0).await.unwrap();
    let setters: Vec<_> = (0..100)
        .map(|n| {
            let (counter, b) = (Arc::clone(&bed.counter), b.clone());
            tokio::spawn(async move { counter.set(&b, n).await.unwrap() })
        })
        .collect();
    sleep(MS).await;
    bed.counter.inc(&a, 7).await.unwrap();
    sleep(LAG + 8 * MS).await;
    assert_eq!(bed.stored(&a).await, 7);
    for setter in setters {
        setter.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_write_counts_once_whatever_gets_lost() {
    for seed in 0..30 {
        let bed = bed();
        let mut dice = Dice(seed);
        bed.link.set_latency(2 * MS);
        let keys: Vec<_> = (0..5).map(|n| key(&format!("k{n}"))).collect();
        let mut sums = [0; 5];
        for _ in 0..600 {
            match dice.below(40) {
                0 => bed.link.lose_next_requests(dice.below(3) as usize),
                1 => bed.link.lose_next_replies(dice.below(3) as usize),
                2 => bed.link.cut(),
                3..=6 => bed.link.restore(),
                7 => _ = bed.counter.flush().await,
                _ => {}
            }
            let at = dice.below(5) as usize;
            let count = dice.below(20) as i64 - 5;
            if bed.counter.inc(&keys[at], count).await.is_ok() {
                sums[at] += count;
            }
            sleep(dice.below(15) as u32 * MS).await;
        }
        bed.link.restore();
        bed.link.lose_next_requests(0);
        bed.link.lose_next_replies(0);
        bed.counter.shutdown(Duration::from_secs(60)).await.unwrap();
        for (key, sum) in keys.iter().zip(sums) {
            assert_eq!(bed.stored(key).await, sum, "seed {seed}, {key}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_sum_is_reported_and_holds_up_nobody() {
    let bed = bed();
    let (full, free) = (key("full"), key("free"));
    bed.counter.inc(&full, 0).await.unwrap();
    bed.counter.inc(&free, 0).await.unwrap();
    bed.counter.flush().await.unwrap();
    bed.strict().set(&full, i64::MAX).await.unwrap();
    bed.counter.inc(&full, 5).await.unwrap();
    bed.counter.inc(&free, 5).await.unwrap();
    let error = bed.counter.flush().await.unwrap_err();
    assert!(
        matches!(&error, DistkitError::CounterError { key, refusal: Refusal::Overflow } if *key == full),
        "{error}"
    );
    assert_eq!(bed.stored(&free).await, 5);
    assert_eq!(bed.stored(&full).await, i64::MAX);
    bed.counter.flush().await.unwrap();
    sleep(10 * LAG).await;
    assert_eq!(bed.counter.get(&full).await.unwrap(), i64::MAX, "the refused sum is gone");
    assert!(bed.counter.inc(&full, 1).await.is_err());
    assert_eq!(bed.counter.dec(&full, 1).await.unwrap(), i64::MAX - 1);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_key_keeps_its_sum_and_holds_up_nobody() {
    let bed = bed();
    let (bad, good) = (key("bad"), key("good"));
    bed.counter.inc(&bad, 1).await.unwrap();
    bed.counter.flush().await.unwrap();
    bed.store.corrupt(&Space::new(prefix()), &bad, "what");
    bed.counter.inc(&bad, 4).await.unwrap();
    bed.counter.inc(&good, 3).await.unwrap();
    let error = bed.counter.flush().await.unwrap_err();
    assert!(
        matches!(&error, DistkitError::CounterError { key, refusal: Refusal::NotANumber { .. } } if *key == bad),
        "{error}"
    );
    assert_eq!(bed.stored(&good).await, 3);
    sleep(2 * LAG).await;
    assert!(bed.counter.get(&bad).await.is_err());
    bed.counter.inc(&bad, 1).await.unwrap();
    let before = bed.link.requests();
    sleep(Duration::from_secs(10)).await;
    assert!(bed.link.requests() - before < 25, "it is tried at a slow pace");
    bed.strict().set(&bad, 100).await.unwrap();
    bed.until_stored(&bad, 105).await;
    bed.counter.flush().await.unwrap();
    let left = bed.counter.shutdown(MS).await;
    assert!(left.is_ok(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_set_mends_a_corrupt_key_at_once() {
    for lost in [false, true] {
        let bed = bed();
        let bad = key("bad");
        bed.counter.inc(&bad, 4).await.unwrap();
        bed.store.corrupt(&Space::new(prefix()), &bad, "what");
        bed.counter.flush().await.unwrap_err();
        if lost {
            bed.link.lose_next_replies(1);
            assert!(bed.counter.set(&bad, 100).await.unwrap_err().may_have_happened());
            // Finds out what became of it.
            bed.counter.get(&key("other")).await.unwrap();
        } else {
            bed.counter.set(&bad, 100).await.unwrap();
        }
        bed.counter.inc(&bad, 1).await.unwrap();
        sleep(LAG).await;
        assert_eq!(bed.stored(&bad).await, 101, "lost: {lost}");
    }
}

#[tokio::test(start_paused = true)]
async fn del_of_a_corrupt_key_takes_its_sum_along() {
    let bed = bed();
    let bad = key("bad");
    bed.counter.inc(&bad, 1).await.unwrap();
    bed.counter.flush().await.unwrap();
    bed.store.corrupt(&Space::new(prefix()), &bad, "what");
    bed.counter.inc(&bad, 4).await.unwrap();
    assert!(matches!(bed.counter.del(&bad).await, Err(DistkitError::CounterError { .. })));
    assert_eq!(bed.counter.inc(&bad, 2).await.unwrap(), 2);
    bed.until_stored(&bad, 2).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bed.stored(&bad).await, 2);
}

#[tokio::test(start_paused = true)]
async fn set_absorbs_what_was_written_before() {
    let bed = bed();
    let a = key("a");
    bed.counter.inc(&a, 5).await.unwrap();
    assert_eq!(bed.counter.set(&a, 100).await.unwrap(), 100);
    assert_eq!(bed.stored(&a).await, 100, "at once");
    assert_eq!(bed.counter.get(&a).await.unwrap(), 100);
    bed.counter.inc(&a, 1).await.unwrap();
    sleep(10 * LAG).await;
    assert_eq!(bed.stored(&a).await, 101);
    let writes = [Write::add(a.clone(), 1), Write::set(a.clone(), 7), Write::add(a.clone(), 1)];
    let outcomes = bed.counter.write_all(&writes).await.unwrap();
    let outcomes: Vec<_> =
        outcomes.into_iter().map(|o| o.map(|w| (w.old, w.new)).unwrap()).collect();
    assert_eq!(outcomes, [(101, 102), (102, 7), (7, 8)]);
    assert_eq!(bed.counter.get(&a).await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn conditions_see_what_was_written_before() {
    let bed = bed();
    let a = key("a");
    bed.counter.inc(&a, 5).await.unwrap();
    assert_eq!(bed.counter.inc_if(&a, CounterComparator::Eq(5), 2).await.unwrap(), (7, 5));
    bed.counter.inc(&a, 1).await.unwrap();
    assert_eq!(bed.counter.set_if(&a, CounterComparator::Lt(8), 0).await.unwrap(), (8, 8));
    assert_eq!(bed.counter.set_if(&a, CounterComparator::Gt(7), 3).await.unwrap(), (3, 8));
    bed.counter.inc(&a, 1).await.unwrap();
    let old = bed.counter.write_all(&[Write::set(a.clone(), 0)]).await.unwrap();
    assert_eq!(old[0].as_ref().unwrap().old, 4);
    sleep(10 * LAG).await;
    assert_eq!(bed.stored(&a).await, 0);
}

#[tokio::test(start_paused = true)]
async fn del_gives_what_was_held_and_clear_drops_what_is_pending() {
    let bed = bed();
    let (a, b) = (key("a"), key("b"));
    bed.strict().set(&a, 10).await.unwrap();
    assert_eq!(bed.counter.del(&a).await.unwrap(), 10, "never used here");
    bed.counter.inc(&a, 3).await.unwrap();
    assert_eq!(bed.counter.del(&a).await.unwrap(), 3);
    assert_eq!(bed.counter.get(&a).await.unwrap(), 0);
    bed.counter.inc(&a, 3).await.unwrap();
    bed.counter.inc(&b, 4).await.unwrap();
    bed.counter.clear().await.unwrap();
    assert_eq!(bed.counter.get(&a).await.unwrap(), 0);
    assert_eq!(bed.counter.inc(&b, 1).await.unwrap(), 1);
    sleep(10 * LAG).await;
    assert_eq!((bed.stored(&a).await, bed.stored(&b).await), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn set_del_and_clear_change_nothing_when_the_store_is_away() {
    let bed = bed();
    let a = key("a");
    bed.counter.inc(&a, 5).await.unwrap();
    bed.link.cut();
    for error in [
        bed.counter.set(&a, 1).await.unwrap_err(),
        bed.counter.del(&a).await.unwrap_err(),
        bed.counter.clear().await.unwrap_err(),
        bed.counter.inc_if(&a, CounterComparator::Gt(0), 1).await.unwrap_err(),
    ] {
        assert!(matches!(error, DistkitError::NotApplied(_)), "{error}");
    }
    assert_eq!(bed.counter.inc(&a, 1).await.unwrap(), 6, "still known");
    bed.link.restore();
    bed.until_stored(&a, 6).await;
}

/// Increments race with set, del and clear; afterwards what the counter says is what the store has.
async fn races(counter: Arc<LaxCounter>, store: MemoryBackend) {
    let a = key("a");
    let adders: Vec<_> = (0..4)
        .map(|_| {
            let (counter, a) = (Arc::clone(&counter), a.clone());
            tokio::spawn(async move {
                for turn in 0..500 {
                    counter.inc(&a, 1).await.unwrap();
                    if turn % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    let mut removed = 0;
    for _ in 0..50 {
        removed += counter.del(&a).await.unwrap();
        tokio::task::yield_now().await;
    }
    for adder in adders {
        adder.await.unwrap();
    }
    counter.flush().await.unwrap();
    let space = Space::new(prefix());
    let left = store.read(&space, std::slice::from_ref(&a)).await.unwrap()[0].clone().unwrap();
    assert_eq!(removed + left, 2000, "each increment is deleted once or left");

    let adder = {
        let (counter, a) = (Arc::clone(&counter), a.clone());
        tokio::spawn(async move {
            for turn in 0..2000 {
                counter.inc(&a, 1).await.unwrap();
                if turn % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    for turn in 0..100 {
        match turn % 3 {
            0 => _ = counter.set(&a, 1_000_000).await.unwrap(),
            1 => counter.clear().await.unwrap(),
            _ => _ = counter.inc_if(&a, CounterComparator::Lt(10), 1).await.unwrap(),
        }
        tokio::task::yield_now().await;
    }
    adder.await.unwrap();
    counter.set(&a, 5).await.unwrap();
    counter.inc(&a, 1).await.unwrap();
    counter.flush().await.unwrap();
    let left = store.read(&space, &[a]).await.unwrap()[0].clone().unwrap();
    assert_eq!(left, 6);
}

#[tokio::test(start_paused = true)]
async fn races_on_one_thread_lose_nothing() {
    let bed = bed();
    bed.link.set_latency(2 * MS);
    races(bed.counter, bed.store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn races_on_many_threads_lose_nothing() {
    for _ in 0..5 {
        let bed = bed_with(|options| options.allowed_lag(MS));
        races(bed.counter, bed.store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_of_unknown_outcome_is_never_applied_later() {
    for applied in [false, true] {
        let bed = bed();
        bed.link.set_latency(2 * MS);
        let a = key("a");
        bed.counter.inc(&a, 5).await.unwrap();
        if applied {
            bed.link.lose_next_replies(1);
        } else {
            bed.link.lose_next_requests(1);
        }
        let error = bed.counter.set(&a, 100).await.unwrap_err();
        assert!(error.may_have_happened());
        // Somebody else writes after the error was reported; the set must not undo it.
        bed.strict().inc(&a, 1000).await.unwrap();
        let expected = if applied { 1100 } else { 1005 };
        bed.counter.flush().await.unwrap();
        assert_eq!(bed.stored(&a).await, expected);
        sleep(2 * LAG).await;
        assert_eq!(bed.counter.inc(&a, 1).await.unwrap(), expected + 1);
        bed.until_stored(&a, expected + 1).await;
    }
}

/// Who reads to find out whether it happened must not be answered with what was known before.
#[tokio::test(start_paused = true)]
async fn a_read_after_a_write_of_unknown_outcome_tells_whether_it_happened() {
    for applied in [false, true] {
        let bed = bed();
        let a = key("a");
        bed.counter.inc(&a, 5).await.unwrap();
        bed.counter.flush().await.unwrap();
        if applied {
            bed.link.lose_next_replies(1);
        } else {
            bed.link.lose_next_requests(1);
        }
        let error = bed.counter.inc_if(&a, CounterComparator::Eq(5), 1).await.unwrap_err();
        assert!(error.may_have_happened());
        assert_eq!(bed.counter.get(&a).await.unwrap(), if applied { 6 } else { 5 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_after_a_cancelled_write_tells_whether_it_happened() {
    let bed = bed();
    let a = key("a");
    bed.counter.inc(&a, 5).await.unwrap();
    bed.counter.flush().await.unwrap();
    bed.link.set_latency(10 * MS);
    let write = bed.counter.set(&a, 9);
    tokio::time::timeout(8 * MS, write).await.unwrap_err();
    assert_eq!(bed.counter.get(&a).await.unwrap(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_set_of_unknown_outcome_absorbs_what_was_before_it_also_when_nobody_can_be_asked_at_first()
 {
    let bed = bed();
    let a = key("a");
    bed.counter.inc(&a, 5).await.unwrap();
    bed.link.lose_next_replies(1);
    assert!(bed.counter.set(&a, 100).await.unwrap_err().may_have_happened());
    bed.link.cut();
    bed.counter.flush().await.unwrap_err();
    bed.link.restore();
    bed.counter.flush().await.unwrap();
    assert_eq!(bed.stored(&a).await, 100);
}

#[tokio::test(start_paused = true)]
async fn additions_after_a_set_of_unknown_outcome_count_from_what_it_made() {
    for pending in [0, 5] {
        let bed = bed();
        let (a, unknown) = (key("a"), key("unknown"));
        let handle = bed.counter.handle(&a).await.unwrap();
        handle.inc(pending).unwrap();
        bed.link.lose_next_replies(1);
        assert!(bed.counter.set(&a, 100).await.unwrap_err().may_have_happened());
        if pending == 0 {
            // What is read for the one key finds out about the other.
            let answers = bed.counter.inc_all(&[(&unknown, 1), (&a, 1)]).await.unwrap();
            let totals: Vec<_> = answers.into_iter().map(|(_, total)| total.unwrap()).collect();
            assert_eq!(totals, [1, 101]);
        } else {
            // Without anything pending a handle knows what it knew.
            bed.counter.flush().await.unwrap();
            assert_eq!(handle.inc(1).unwrap(), 101);
        }
        bed.counter.flush().await.unwrap();
        assert_eq!(bed.stored(&a).await, 101);
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_never_arrived_costs_no_write_whatever_else_gets_lost() {
    for lost_answers in 0..4 {
        let bed = bed();
        let k = key("k");
        bed.counter.inc(&k, 0).await.unwrap();
        bed.counter.inc(&k, 3).await.unwrap();
        bed.link.lose_next_requests(1);
        assert!(bed.counter.set(&k, 50).await.unwrap_err().may_have_happened());
        bed.link.lose_next_replies(lost_answers);
        bed.counter.inc(&k, 1).await.unwrap();
        bed.until_stored(&k, 4).await;
        assert_eq!(bed.counter.get(&k).await.unwrap(), 4, "{lost_answers} lost answers");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_leaves_nothing_behind() {
    for cancel_at in 0..10 {
        let bed = bed();
        bed.link.set_latency(4 * MS);
        let a = key("a");
        bed.counter.inc(&a, 5).await.unwrap();
        let cut_short = cancel_at * MS;
        _ = tokio::time::timeout(cut_short, bed.counter.flush()).await;
        bed.counter.inc(&a, 2).await.unwrap();
        let set =
            tokio::time::timeout(cut_short, bed.counter.set_if(&a, CounterComparator::Nil, 50))
                .await;
        bed.counter.flush().await.unwrap();
        let stored = bed.stored(&a).await;
        assert!(stored == 50 || (stored == 7 && set.is_err()), "{stored} at {cancel_at}");
        assert_eq!(bed.counter.inc(&a, 1).await.unwrap(), stored + 1);
        bed.counter.shutdown(Duration::from_secs(5)).await.unwrap();
        assert_eq!(bed.stored(&a).await, stored + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn reads_never_go_back_while_all_add() {
    let bed = bed();
    bed.link.set_latency(4 * MS);
    let other = bed.other();
    let a = key("a");
    let mut dice = Dice(1);
    let (mut seen, mut seen_by_other) = (0, 0);
    for turn in 0..5000 {
        bed.counter.inc(&a, dice.below(3) as i64).await.unwrap();
        other.inc(&a, dice.below(3) as i64).await.unwrap();
        if turn % 100 == 50 {
            bed.link.lose_next_replies(1);
        }
        if let Ok(total) = bed.counter.get(&a).await {
            assert!(total >= seen, "{total} after {seen}");
            seen = total;
        }
        let total = other.get(&a).await.unwrap();
        assert!(total >= seen_by_other, "{total} after {seen_by_other}");
        seen_by_other = total;
        sleep(dice.below(4) as u32 * MS).await;
    }
    bed.counter.flush().await.unwrap();
    other.flush().await.unwrap();
    sleep(2 * LAG).await;
    assert_eq!(bed.counter.get(&a).await.unwrap(), other.get(&a).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_busy_reader_is_fresh_and_never_waits() {
    let bed = bed();
    bed.link.set_latency(4 * MS);
    let strict = bed.strict();
    let a = key("a");
    bed.counter.get(&a).await.unwrap();
    let mut history = Vec::new();
    for n in 1..1000 {
        strict.set(&a, n).await.unwrap();
        history.push((Instant::now(), n));
        let before = Instant::now();
        let seen = bed.counter.get(&a).await.unwrap();
        assert_eq!(Instant::now(), before, "no wait");
        let old_enough = history.iter().rev().find(|(at, _)| at.elapsed() > LAG);
        assert!(old_enough.is_none_or(|&(_, n)| seen >= n), "{seen} is too old");
        sleep(MS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn cold_reads_share_a_request() {
    let bed = bed();
    bed.link.set_latency(4 * MS);
    let keys: Vec<_> = (0..100).map(|n| key(&format!("k{n}"))).collect();
    let keys: Vec<_> = keys.iter().collect();
    let totals = bed.counter.get_all(&keys).await.unwrap();
    assert!(
        totals.iter().zip(&keys).all(|((k, total), key)| k == key && *total.as_ref().unwrap() == 0)
    );
    assert!(bed.link.requests() <= 2, "{}", bed.link.requests());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_flushes() {
    let bed = bed();
    let a = key("a");
    let handle = bed.counter.handle(&a).await.unwrap();
    handle.inc(3).unwrap();
    bed.link.cut();
    let Bed { store, link, counter } = bed;
    drop(counter);
    sleep(Duration::from_secs(40)).await;
    handle.inc(4).unwrap();
    drop(handle);
    sleep(Duration::from_secs(10)).await;
    link.restore();
    let space = Space::new(prefix());
    let deadline = Instant::now() + Duration::from_secs(5);
    while store.read(&space, std::slice::from_ref(&a)).await.unwrap()[0] != Ok(7) {
        assert!(Instant::now() < deadline);
        sleep(MS).await;
    }
    let requests = link.requests();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(link.requests(), requests, "the task has ended");
}

#[tokio::test(start_paused = true)]
async fn shutdown_flushes_and_takes_no_more() {
    let bed = bed();
    let a = key("a");
    let handle = bed.counter.handle(&a).await.unwrap();
    bed.counter.inc(&a, 3).await.unwrap();
    bed.link.cut();
    let link = bed.link.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(2)).await;
        link.restore();
    });
    bed.counter.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(bed.stored(&a).await, 3);
    assert!(matches!(bed.counter.inc(&a, 1).await, Err(DistkitError::ShutDown)));
    assert!(matches!(bed.counter.set(&a, 1).await, Err(DistkitError::ShutDown)));
    assert!(matches!(bed.counter.del(&a).await, Err(DistkitError::ShutDown)));
    assert!(matches!(handle.inc(1), Err(DistkitError::ShutDown)));
    bed.strict().inc(&a, 1).await.unwrap();
    sleep(2 * LAG).await;
    assert_eq!(bed.counter.get(&a).await.unwrap(), 4, "reads go on");
}

#[tokio::test(start_paused = true)]
async fn shutdown_reports_what_is_left_and_gives_it_up() {
    let bed = bed();
    let (a, b) = (key("a"), key("b"));
    bed.counter.inc(&a, 1).await.unwrap();
    bed.counter.inc(&b, 1).await.unwrap();
    bed.counter.flush().await.unwrap();
    bed.counter.inc(&b, 2).await.unwrap();
    bed.counter.inc(&a, 2).await.unwrap();
    bed.link.cut();
    let left = bed.counter.shutdown(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(left.pending, [(a.clone(), 2), (b.clone(), 2)]);
    assert!(left.unknown.is_empty() && left.cause.is_some(), "{left}");
    bed.link.restore();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.stored(&a).await, 1, "not sent later");
    assert_eq!(bed.counter.get(&a).await.unwrap(), 1);
    bed.counter.shutdown(Duration::from_secs(3)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_a_request_that_hangs() {
    let bed = bed();
    let a = key("a");
    bed.counter.inc(&a, 1).await.unwrap();
    bed.link.set_latency(Duration::from_secs(3600));
    sleep(2 * LAG).await;
    let start = Instant::now();
    let left = bed.counter.shutdown(Duration::from_secs(3)).await.unwrap_err();
    assert!(start.elapsed() <= Duration::from_secs(3) + MS, "{:?}", start.elapsed());
    assert_eq!(left.unknown, [(a.clone(), 1)]);
    bed.link.set_latency(Duration::ZERO);
    assert_eq!(bed.counter.get(&a).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_pending_keys_is_bounded() {
    let bed = bed_with(|options| options.max_pending_keys(3));
    let keys: Vec<_> = (0..5).map(|n| key(&format!("k{n}"))).collect();
    for key in &keys {
        bed.counter.get(key).await.unwrap();
    }
    bed.link.cut();
    for key in &keys[..3] {
        bed.counter.inc(key, 1).await.unwrap();
    }
    sleep(5 * LAG).await;
    for key in &keys[..3] {
        assert_eq!(bed.counter.inc(key, 1).await.unwrap(), 2, "they take more");
    }
    let error = bed.counter.inc(&keys[3], 1).await.unwrap_err();
    assert!(matches!(error, DistkitError::TooManyPending { limit: 3 }), "{error}");
    bed.link.restore();
    bed.counter.flush().await.unwrap();
    for key in &keys[2..] {
        bed.counter.inc(key, 1).await.unwrap();
    }
    bed.counter.flush().await.unwrap();
    assert_eq!(bed.stored(&keys[3]).await, 1);
    assert_eq!(bed.stored(&keys[2]).await, 3);
}

#[tokio::test(start_paused = true)]
async fn long_unused_keys_are_forgotten_and_a_handle_pins_one() {
    let idle = Duration::from_secs(10);
    let bed = bed_with(|options| options.evict_after(idle));
    let (a, b) = (key("a"), key("b"));
    bed.counter.inc(&a, 1).await.unwrap();
    let handle = bed.counter.handle(&b).await.unwrap();
    handle.inc(1).unwrap();
    sleep(3 * idle).await;
    let before = bed.link.requests();
    assert_eq!(bed.counter.inc(&b, 1).await.unwrap(), 2);
    assert_eq!(bed.link.requests(), before, "pinned: still known");
    assert_eq!(bed.counter.inc(&a, 1).await.unwrap(), 2);
    assert_eq!(bed.link.requests(), before + 1, "forgotten: read again");
    assert_eq!(handle.inc(1).unwrap(), 3, "the same key");
    drop(handle);
    sleep(3 * idle).await;
    let before = bed.link.requests();
    assert_eq!(bed.counter.inc(&b, 1).await.unwrap(), 4);
    assert_eq!(bed.link.requests(), before + 1, "no longer pinned");
}

#[tokio::test(start_paused = true)]
async fn a_pending_key_is_never_forgotten() {
    let idle = Duration::from_secs(10);
    let bed = bed_with(|options| options.evict_after(idle));
    let a = key("a");
    bed.counter.get(&a).await.unwrap();
    bed.link.cut();
    bed.counter.inc(&a, 5).await.unwrap();
    sleep(10 * idle).await;
    bed.link.restore();
    bed.until_stored(&a, 5).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_counter_does_nothing() {
    let bed = bed();
    let a = key("a");
    bed.counter.inc(&a, 1).await.unwrap();
    bed.counter.get(&a).await.unwrap();
    sleep(Duration::from_secs(120)).await;
    let before = bed.link.requests();
    // Under paused time the runtime parks when a timer fires, and a few times for a long sleep's own sake.
    let parks = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
    let parked = parks();
    sleep(Duration::from_secs(86_400)).await;
    assert_eq!(bed.link.requests(), before);
    assert!(parks() - parked < 10, "{} wake-ups in a day", parks() - parked);
}

/// Bounds are those of the true total: what is pending goes first.
#[tokio::test(start_paused = true)]
async fn an_addition_within_bounds_acts_at_once_and_after_what_is_pending() {
    let bed = bed();
    let (seats, other) = (key("seats"), bed.other());
    bed.counter.inc(&seats, 3).await.unwrap();
    assert_eq!(bed.counter.add_within(&seats, 4, 0..=5).await.unwrap(), (5, 2));
    assert_eq!(bed.stored(&seats).await, 5);
    assert_eq!(other.add_within(&seats, 4, 0..=5).await.unwrap(), (5, 0));
    assert_eq!(other.add_within(&seats, -9, 0..=5).await.unwrap(), (0, -5));
    assert_eq!(
        bed.counter.add_within(&seats, 1, RangeInclusive::new(5, 0)).await.unwrap(),
        (0, 0),
        "empty bounds"
    );
    bed.link.lose_next_replies(1);
    let error = bed.counter.add_within(&seats, 4, 0..=5).await.unwrap_err();
    assert!(error.may_have_happened());
    sleep(Duration::from_secs(5)).await;
    // Once, or not at all, and not later.
    let left = bed.stored(&seats).await;
    assert!(left == 0 || left == 4, "{left}");
    assert_eq!(bed.counter.get(&seats).await.unwrap(), left);
}

/// What comes to nothing is not sent, so no answer to a flush makes its total known.
#[tokio::test(start_paused = true)]
async fn a_read_beside_additions_that_come_to_nothing_asks_the_store() {
    let bed = bed();
    let (k, cold) = (key("k"), key("cold"));
    bed.counter.inc(&k, 1).await.unwrap();
    bed.counter.flush().await.unwrap();
    // The total gets too old to be answered, and keeping it fresh ends.
    sleep(Duration::from_secs(1)).await;
    bed.strict().inc(&k, 10).await.unwrap();
    bed.link.set_latency(50 * MS);
    // Holds the task up until the additions are due.
    let busy = bed.counter.get(&cold);
    let read = async {
        sleep(MS).await;
        bed.counter.inc(&k, 1).await.unwrap();
        bed.counter.inc(&k, -1).await.unwrap();
        bed.counter.get(&k).await.unwrap()
    };
    let (_, total) = tokio::join!(busy, read);
    assert_eq!(total, 11);
}
