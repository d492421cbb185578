//! What the lax instance-aware counter promises beyond the strict one, on the memory store.
#![cfg(feature = "instance-aware-counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::memory::{MemoryBackend, MemoryLink},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const THRESHOLD_MS: u64 = 1_000;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

struct Bed {
    store: MemoryBackend,
    link: MemoryLink,
    lax: Arc<LaxInstanceAwareCounter>,
    other: Arc<StrictInstanceAwareCounter>,
}

fn bed() -> Bed {
    bed_with(|options| options)
}

fn bed_with(
    change: impl FnOnce(LaxInstanceAwareCounterOptions) -> LaxInstanceAwareCounterOptions,
) -> Bed {
    let store = MemoryBackend::new();
    let link = store.link();
    let options = LaxInstanceAwareCounterOptions::new(key("lax"), link.clone())
        .dead_instance_threshold_ms(THRESHOLD_MS);
    let other = StrictInstanceAwareCounterOptions::new(key("lax"), store.clone());
    Bed {
        link,
        lax: LaxInstanceAwareCounter::new(change(options)),
        other: StrictInstanceAwareCounter::new(other),
        store,
    }
}

impl Bed {
    async fn until_total(&self, key: &RedisKey, total: i64) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let seen = self.other.get(key).await.unwrap().0;
            if seen == total {
                return;
            }
            assert!(Instant::now() < deadline, "{seen}, still not {total}");
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

#[tokio::test(start_paused = true)]
async fn the_warm_path_does_no_io_and_answers_both_numbers() {
    let bed = bed();
    let k = key("k");
    bed.other.inc(&k, 10).await.unwrap();
    assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (11, 1));
    bed.lax.flush().await.unwrap();
    let before = bed.link.requests();
    for n in 2..500 {
        assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (10 + n, n));
        assert_eq!(bed.lax.get(&k).await.unwrap(), (10 + n, n));
    }
    assert_eq!(bed.lax.set_on_instance(&k, 7).await.unwrap(), (17, 7));
    assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (18, 8));
    assert_eq!(bed.link.requests(), before);
    bed.lax.flush().await.unwrap();
    assert_eq!(bed.link.requests(), before + 1, "one batch");
    assert_eq!(bed.other.get(&k).await.unwrap(), (18, 10));
}

#[tokio::test(start_paused = true)]
async fn writes_reach_the_store_within_the_lag() {
    let bed = bed();
    let k = key("k");
    bed.lax.inc(&k, 0).await.unwrap();
    for n in 1..300 {
        bed.lax.inc(&k, 1).await.unwrap();
        let due = Instant::now() + 22 * MS;
        bed.until_total(&k, n).await;
        assert!(Instant::now() <= due, "write {n}");
        sleep(Duration::from_millis(n as u64 % 50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_write_counts_once_whatever_gets_lost() {
    for seed in 0..20 {
        let bed = bed();
        let mut dice = Dice(seed);
        let keys: Vec<_> = (0..5).map(|n| key(&format!("k{n}"))).collect();
        let mut sums = [0; 5];
        for k in &keys {
            bed.lax.inc(k, 0).await.unwrap();
            bed.other.inc(k, 1000).await.unwrap();
        }
        for _ in 0..400 {
            match dice.below(30) {
                0 => bed.link.lose_next_replies(1 + dice.below(3) as usize),
                1 => bed.link.lose_next_requests(1 + dice.below(3) as usize),
                2 => bed.link.set_latency(4 * MS * dice.below(3) as u32),
                3 => bed.link.cut(),
                4 if dice.below(3) == 0 => {
                    bed.link.lose_next_replies(1);
                    sleep(25 * MS).await;
                    bed.link.cut();
                    sleep(Duration::from_millis(THRESHOLD_MS + 1)).await;
                    // Collects it.
                    for k in &keys {
                        bed.other.get(k).await.unwrap();
                    }
                    bed.link.restore();
                }
                5..10 => bed.link.restore(),
                _ => {}
            }
            let n = dice.below(5) as usize;
            let count = dice.below(20) as i64 - 5;
            if bed.lax.inc(&keys[n], count).await.is_ok() {
                sums[n] += count;
            }
            sleep(Duration::from_millis(dice.below(12))).await;
        }
        bed.link.restore();
        bed.link.lose_next_replies(0);
        bed.link.lose_next_requests(0);
        for (k, sum) in keys.iter().zip(sums) {
            bed.until_total(k, 1000 + sum).await;
            sleep(50 * MS).await;
            assert_eq!(bed.lax.get(k).await.unwrap(), (1000 + sum, sum), "seed {seed}");
        }
    }
}

async fn sets_and_incs_on_new_keys(link: MemoryLink) {
    let options = LaxInstanceAwareCounterOptions::new(key("lax"), link);
    let counter = LaxInstanceAwareCounter::new(options);
    let setter = tokio::spawn({
        let counter = counter.clone();
        async move {
            for n in 0..200 {
                counter.set(&key(&format!("k{}", n % 50)), n).await.unwrap();
            }
        }
    });
    let adders: Vec<_> = (0..4)
        .map(|_| {
            let counter = counter.clone();
            tokio::spawn(async move {
                for n in 0..300 {
                    counter.inc(&key(&format!("k{}", n % 100)), 1).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let all = async {
        setter.await.unwrap();
        for adder in adders {
            adder.await.unwrap();
        }
        counter.flush().await.unwrap();
        // Nobody set these.
        for n in 50..100 {
            assert_eq!(counter.get(&key(&format!("k{n}"))).await.unwrap(), (12, 12));
        }
    };
    timeout(Duration::from_secs(60), all).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sets_and_incs_on_new_keys_on_one_thread() {
    let link = MemoryBackend::new().link();
    link.set_latency(2 * MS);
    sets_and_incs_on_new_keys(link).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sets_and_incs_on_new_keys_on_many_threads() {
    sets_and_incs_on_new_keys(MemoryBackend::new().link()).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_keeps_what_was_pending() {
    let bed = bed();
    let (k, l) = (key("k"), key("l"));
    bed.lax.inc(&k, 1).await.unwrap();
    bed.lax.inc(&l, 1).await.unwrap();
    bed.lax.flush().await.unwrap();
    bed.lax.inc(&k, 4).await.unwrap();
    bed.lax.set_on_instance(&l, 9).await.unwrap();
    bed.link.cut();
    for failed in [
        bed.lax.set(&k, 100).await.err(),
        bed.lax.del(&k).await.err(),
        bed.lax.del_on_instance(&l).await.err(),
        bed.lax.clear().await.err(),
        bed.lax.clear_on_instance().await.err(),
        bed.lax.flush().await.err(),
    ] {
        assert!(matches!(failed, Some(DistkitError::NotApplied(_))), "{failed:?}");
    }
    assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (6, 6));
    bed.link.restore();
    bed.lax.flush().await.unwrap();
    assert_eq!(bed.other.get(&k).await.unwrap(), (6, 0));
    assert_eq!(bed.other.get(&l).await.unwrap(), (9, 0));
}

#[tokio::test(start_paused = true)]
async fn additions_go_on_when_what_acts_at_once_cannot_join_again() {
    for del in [false, true] {
        let (bed, k) = (bed(), key("k"));
        bed.lax.inc(&k, 10).await.unwrap();
        bed.lax.flush().await.unwrap();
        bed.link.cut();
        bed.until_total(&k, 0).await;
        // It is back for one exchange: the store says "not joined", and then the join fails.
        bed.link.restore();
        bed.link.set_latency(10 * MS);
        let (lax, name) = (bed.lax.clone(), k.clone());
        let acting = tokio::spawn(async move {
            match del {
                true => lax.del(&name).await,
                false => lax.set(&name, 5).await,
            }
        });
        sleep(12 * MS).await;
        bed.link.cut();
        let failed = acting.await.unwrap();
        assert!(matches!(failed, Err(DistkitError::NotApplied(_))), "{failed:?}");
        assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (11, 11));
        bed.link.restore();
        bed.lax.flush().await.unwrap();
        assert_eq!(bed.other.get(&k).await.unwrap(), (11, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_buffered_slice_stands_although_another_sets_in_between() {
    for slice in [7, 10] {
        for reads in [false, true] {
            let bed = bed_with(|options| options.allowed_lag(500 * MS));
            let k = key("k");
            bed.lax.inc(&k, 10).await.unwrap();
            bed.lax.flush().await.unwrap();
            assert_eq!(bed.lax.set_on_instance(&k, slice).await.unwrap(), (slice, slice));
            bed.other.set(&k, 100).await.unwrap();
            if reads {
                sleep(400 * MS).await;
                assert_eq!(bed.lax.get(&k).await.unwrap().1, slice);
            }
            bed.lax.inc(&k, 1).await.unwrap();
            bed.lax.flush().await.unwrap();
            assert_eq!(bed.other.get(&k).await.unwrap(), (101 + slice, 100));
            assert_eq!(bed.lax.get(&k).await.unwrap(), (101 + slice, slice + 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_buffered_slice_stands_although_a_clear_is_cancelled() {
    for own in [false, true] {
        // Before the request has reached the store, or when it has.
        for (wait, cleared) in [(30 * MS, false), (70 * MS, true)] {
            let (bed, k) = (bed(), key("k"));
            bed.lax.inc(&k, 10).await.unwrap();
            bed.lax.flush().await.unwrap();
            assert_eq!(bed.lax.set_on_instance(&k, 12).await.unwrap(), (12, 12));
            bed.link.set_latency(100 * MS);
            let clear = async {
                match own {
                    true => bed.lax.clear_on_instance().await,
                    false => bed.lax.clear().await,
                }
            };
            timeout(wait, clear).await.unwrap_err();
            assert_eq!(bed.other.get(&k).await.unwrap().0, if cleared { 0 } else { 10 });
            bed.other.set(&k, 100).await.unwrap();
            bed.link.set_latency(Duration::ZERO);
            bed.lax.flush().await.unwrap();
            assert_eq!(bed.other.get(&k).await.unwrap(), (112, 100));
            assert_eq!(bed.lax.get(&k).await.unwrap(), (112, 12));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_of_unknown_outcome_is_never_applied_later() {
    let bed = bed();
    let k = key("k");
    bed.lax.inc(&k, 1).await.unwrap();
    bed.lax.flush().await.unwrap();
    bed.link.lose_next_requests(1);
    assert!(bed.lax.set(&k, 50).await.unwrap_err().may_have_happened());
    assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (2, 2));
    bed.lax.flush().await.unwrap();
    bed.link.lose_next_replies(1);
    assert!(bed.lax.set(&k, 60).await.unwrap_err().may_have_happened());
    assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (61, 61));
    bed.lax.flush().await.unwrap();
    assert_eq!(bed.other.get(&k).await.unwrap(), (61, 0));
}

#[tokio::test(start_paused = true)]
async fn set_del_and_clear_act_after_what_was_written_before() {
    let bed = bed();
    let (k, l) = (key("k"), key("l"));
    bed.other.inc(&k, 5).await.unwrap();
    bed.lax.inc(&k, 3).await.unwrap();
    assert_eq!(bed.lax.set(&k, 20).await.unwrap(), (20, 20));
    bed.lax.inc(&k, 2).await.unwrap();
    assert_eq!(bed.lax.del(&k).await.unwrap(), (22, 22));
    bed.lax.inc(&k, 1).await.unwrap();
    bed.lax.inc(&l, 1).await.unwrap();
    bed.other.inc(&l, 4).await.unwrap();
    assert_eq!(bed.lax.del_on_instance(&k).await.unwrap(), (0, 1));
    bed.lax.clear_on_instance().await.unwrap();
    assert_eq!(bed.other.get(&l).await.unwrap(), (4, 4));
    bed.lax.inc(&l, 1).await.unwrap();
    bed.lax.clear().await.unwrap();
    bed.lax.flush().await.unwrap();
    assert_eq!(bed.other.get(&l).await.unwrap(), (0, 0));
    assert_eq!(bed.lax.inc(&l, 1).await.unwrap(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn dropping_flushes_and_ends_the_heartbeat() {
    let bed = bed();
    let k = key("k");
    bed.lax.inc(&k, 3).await.unwrap();
    let Bed { store, link, lax, other } = bed;
    drop(lax);
    let rest = Bed {
        lax: LaxInstanceAwareCounter::new(LaxInstanceAwareCounterOptions::new(
            key("unused"),
            store.clone(),
        )),
        store,
        link,
        other,
    };
    rest.until_total(&k, 3).await;
    let before = rest.link.requests();
    rest.until_total(&k, 0).await;
    assert_eq!(rest.link.requests(), before, "no heartbeat");
}

#[tokio::test(start_paused = true)]
async fn shutdown_leaves_or_reports_what_is_left() {
    let bed = bed();
    let k = key("k");
    bed.other.inc(&k, 1).await.unwrap();
    bed.lax.inc(&k, 3).await.unwrap();
    bed.lax.shutdown(Duration::from_secs(1)).await.unwrap();
    assert_eq!(bed.other.get(&k).await.unwrap(), (1, 1));
    assert!(matches!(bed.lax.inc(&k, 1).await, Err(DistkitError::ShutDown)));
    assert!(matches!(bed.lax.get(&k).await, Err(DistkitError::ShutDown)));

    let options = LaxInstanceAwareCounterOptions::new(key("lax"), bed.link.clone());
    let cut = LaxInstanceAwareCounter::new(options);
    cut.inc(&k, 2).await.unwrap();
    bed.link.cut();
    let report = cut.shutdown(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(report.pending, [(k, 2)]);
    assert_eq!(bed.store.link().requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_tries_to_leave_until_its_time_is_over() {
    for lose in [MemoryLink::lose_next_requests, MemoryLink::lose_next_replies] {
        let (bed, k) = (bed(), key("k"));
        bed.lax.inc(&k, 3).await.unwrap();
        bed.lax.flush().await.unwrap();
        lose(&bed.link, 3);
        bed.lax.shutdown(Duration::from_secs(10)).await.unwrap();
        assert_eq!(bed.other.get(&k).await.unwrap(), (0, 0), "no lease has to run out");
    }
}

/// Hands the store a flush that hangs, and shuts down before it is answered.
async fn shutdown_beside_a_request_that_hangs(bed: &Bed, k: &RedisKey) {
    bed.lax.inc(k, 1).await.unwrap();
    bed.lax.flush().await.unwrap();
    bed.link.set_latency(400 * MS);
    bed.lax.inc(k, 1).await.unwrap();
    sleep(30 * MS).await;
    let report = bed.lax.shutdown(100 * MS).await.unwrap_err();
    assert_eq!(report.unknown, [(k.clone(), 1)]);
    bed.link.set_latency(Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_runs_out_of_time_lets_the_lease_run_out() {
    let (bed, k) = (bed(), key("k"));
    shutdown_beside_a_request_that_hangs(&bed, &k).await;
    sleep(Duration::from_millis(THRESHOLD_MS) + 500 * MS).await;
    assert_eq!(bed.other.get(&k).await.unwrap(), (0, 0));
    let before = bed.link.requests();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.link.requests(), before, "no heartbeat");
}

#[tokio::test(start_paused = true)]
async fn a_counter_can_leave_after_a_shutdown_that_ran_out_of_time() {
    let (bed, k) = (bed(), key("k"));
    shutdown_beside_a_request_that_hangs(&bed, &k).await;
    bed.lax.leave().await.unwrap();
    assert_eq!(bed.other.get(&k).await.unwrap(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_may_take_for_ever() {
    let (bed, k) = (bed(), key("k"));
    bed.lax.inc(&k, 1).await.unwrap();
    bed.lax.shutdown(Duration::MAX).await.unwrap();
    assert_eq!(bed.other.get(&k).await.unwrap(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_instance_does_not_say_that_its_writes_are_in_the_store() {
    for in_the_background in [true, false] {
        let bed = bed_with(|options| options.instance_name(key("pod")));
        let k = key("k");
        bed.lax.inc(&k, 1).await.unwrap();
        bed.lax.flush().await.unwrap();
        let options = StrictInstanceAwareCounterOptions::new(key("lax"), bed.store.clone());
        let new = StrictInstanceAwareCounter::new(options.instance_name(key("pod")));
        assert_eq!(new.inc(&k, 100).await.unwrap(), (100, 100));
        assert_eq!(bed.lax.inc(&k, 10).await.unwrap(), (11, 11));
        if in_the_background {
            sleep(100 * MS).await;
            for _ in 0..2 {
                let flushed = bed.lax.flush().await;
                assert!(matches!(flushed, Err(DistkitError::InstanceReplaced)), "{flushed:?}");
            }
        }
        for _ in 0..2 {
            let report = bed.lax.shutdown(Duration::from_secs(1)).await.unwrap_err();
            let cause = report.cause;
            assert!(matches!(cause, Some(DistkitError::InstanceReplaced)), "{cause:?}");
        }
        assert_eq!(new.get(&k).await.unwrap(), (100, 100));
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_pending_keys_is_bounded() {
    let bed = bed_with(|options| options.max_pending_keys(2));
    let names = [key("a"), key("b"), key("c")];
    for name in &names {
        bed.lax.get(name).await.unwrap();
    }
    bed.link.cut();
    bed.lax.inc(&names[0], 1).await.unwrap();
    bed.lax.set_on_instance(&names[1], 1).await.unwrap();
    let refused = bed.lax.inc(&names[2], 1).await;
    assert!(matches!(refused, Err(DistkitError::TooManyPending { limit: 2 })), "{refused:?}");
    let refused = bed.lax.set_on_instance(&names[2], 1).await;
    assert!(matches!(refused, Err(DistkitError::TooManyPending { limit: 2 })), "{refused:?}");
    bed.link.restore();
    bed.lax.flush().await.unwrap();
    bed.lax.inc(&names[2], 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn forgotten_keys_come_back_after_a_collection() {
    let bed = bed_with(|options| options.evict_after(100 * MS));
    let k = key("k");
    bed.lax.inc(&k, 5).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    bed.link.cut();
    bed.until_total(&k, 0).await;
    bed.link.restore();
    // Nothing but its heartbeat.
    bed.until_total(&k, 5).await;
    assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (6, 6));
}

/// What comes to nothing is not sent, so the answer to a flush does not bring its key up to date.
#[tokio::test(start_paused = true)]
async fn a_key_whose_total_was_forgotten_is_read_although_it_has_nothing_to_send() {
    let bed = bed();
    let jobs = key("jobs");
    bed.lax.inc(&jobs, 0).await.unwrap();
    bed.link.lose_next_requests(1);
    assert!(bed.lax.set(&jobs, 0).await.unwrap_err().may_have_happened());
    assert_eq!(bed.lax.get(&jobs).await.unwrap(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handle_counts_as_its_counter_does() {
    let bed = bed();
    let k = key("k");
    bed.other.inc(&k, 10).await.unwrap();
    let handle = bed.lax.handle(&k).await.unwrap();
    assert_eq!((handle.key(), handle.estimate()), (&k, (10, 0)));
    let before = bed.link.requests();
    assert_eq!(handle.inc(5).unwrap(), (15, 5));
    assert_eq!(handle.clone().dec(2).unwrap(), (13, 3));
    assert_eq!(handle.set_on_instance(7).unwrap(), (17, 7));
    assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (18, 8));
    assert_eq!(handle.estimate(), (18, 8));
    assert_eq!(bed.link.requests(), before, "no I/O");
    bed.lax.flush().await.unwrap();
    assert_eq!(bed.other.get(&k).await.unwrap(), (18, 10));

    let refusals = [
        handle.dec(i64::MIN),
        handle.inc(i64::MAX),
        handle.set_on_instance(i64::MIN),
        handle.set_on_instance(i64::MAX - 10),
    ];
    for refused in refusals {
        let Err(DistkitError::CounterError { key, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(key, k);
    }
    assert_eq!(handle.estimate(), (18, 8), "what is refused changes nothing");
    bed.lax.flush().await.unwrap();
    assert_eq!(bed.other.get(&k).await.unwrap(), (18, 10));
    assert_eq!(
        bed.lax.set_on_instance(&k, i64::MAX - 10).await.unwrap(),
        (i64::MAX, i64::MAX - 10)
    );
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_does_not_fit_beside_the_others_is_refused_at_once() {
    let (bed, k) = (bed(), key("k"));
    bed.lax.dec(&k, 10).await.unwrap();
    bed.lax.flush().await.unwrap();
    // The sum of the others, without the slice of -10, does not fit into an `i64`.
    let options = StrictInstanceAwareCounterOptions::new(key("lax"), bed.store.clone());
    let third = StrictInstanceAwareCounter::new(options);
    bed.other.inc(&k, i64::MAX).await.unwrap();
    third.inc(&k, 10).await.unwrap();
    sleep(100 * MS).await;
    assert_eq!(bed.lax.get(&k).await.unwrap(), (i64::MAX, -10));
    let handle = bed.lax.handle(&k).await.unwrap();
    for count in [-9, 0, 10] {
        for refused in [bed.lax.set_on_instance(&k, count).await, handle.set_on_instance(count)] {
            assert!(matches!(refused, Err(DistkitError::CounterError { .. })), "{refused:?}");
        }
    }
    let fits = (i64::MAX - 5, -15);
    assert_eq!(bed.lax.set_on_instance(&k, -15).await.unwrap(), fits);
    assert_eq!(handle.set_on_instance(-15).unwrap(), fits);
    bed.lax.flush().await.unwrap();
    assert_eq!(bed.lax.get(&k).await.unwrap(), fits);
}

#[tokio::test(start_paused = true)]
async fn a_handle_keeps_its_counter_alive() {
    let Bed { store: _store, link, lax, other } = bed();
    let k = key("k");
    let handle = lax.handle(&k).await.unwrap();
    drop(lax);
    for n in 1..=5 {
        assert_eq!(handle.inc(1).unwrap(), (n, n));
        sleep(Duration::from_millis(3 * THRESHOLD_MS)).await;
        assert_eq!(other.get(&k).await.unwrap(), (n, 0), "flushed, and its heartbeat goes on");
    }
    handle.inc(1).unwrap();
    drop(handle);
    sleep(MS).await;
    assert_eq!(other.get(&k).await.unwrap(), (6, 0), "the drop flushes");
    let before = link.requests();
    sleep(Duration::from_millis(2 * THRESHOLD_MS)).await;
    assert_eq!(other.get(&k).await.unwrap(), (0, 0));
    assert_eq!(link.requests(), before, "no heartbeat");
}

#[tokio::test(start_paused = true)]
async fn a_handle_says_why_its_counter_has_ended() {
    let shut_down = |answer| matches!(answer, Err(DistkitError::ShutDown));
    let k = key("k");
    for leave in [true, false] {
        let bed = bed();
        let handle = bed.lax.handle(&k).await.unwrap();
        handle.inc(2).unwrap();
        match leave {
            true => bed.lax.leave().await.unwrap(),
            false => bed.lax.shutdown(Duration::from_secs(1)).await.unwrap(),
        }
        assert!(shut_down(handle.inc(1)) && shut_down(handle.dec(1)));
        assert!(shut_down(handle.set_on_instance(1)));
        assert!(matches!(bed.lax.handle(&k).await, Err(DistkitError::ShutDown)));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(bed.other.get(&k).await.unwrap(), (0, 0));
    }

    let replaced = |answer| matches!(answer, Err(DistkitError::InstanceReplaced));
    let old = bed_with(|options| options.instance_name(key("pod")));
    let handle = old.lax.handle(&k).await.unwrap();
    handle.inc(2).unwrap();
    let options = StrictInstanceAwareCounterOptions::new(key("lax"), old.store.clone());
    let new = StrictInstanceAwareCounter::new(options.instance_name(key("pod")));
    assert_eq!(new.inc(&k, 40).await.unwrap(), (40, 40));
    // It learns of it by its next flush.
    let deadline = Instant::now() + Duration::from_secs(1);
    while !replaced(handle.inc(1)) {
        assert!(Instant::now() < deadline, "still takes writes");
        sleep(MS).await;
    }
    assert!(replaced(handle.dec(1)) && replaced(handle.set_on_instance(1)));
    assert!(matches!(old.lax.handle(&k).await, Err(DistkitError::InstanceReplaced)));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(new.get(&k).await.unwrap(), (40, 40));
}

#[tokio::test(start_paused = true)]
async fn a_handle_pins_its_key_and_comes_back_after_a_collection() {
    let bed = bed_with(|options| options.evict_after(100 * MS));
    let k = key("k");
    let handle = bed.lax.handle(&k).await.unwrap();
    handle.inc(5).unwrap();
    sleep(Duration::from_secs(2)).await;
    let before = bed.link.requests();
    assert_eq!(bed.lax.inc(&k, 1).await.unwrap(), (6, 6));
    assert_eq!(handle.estimate(), (6, 6), "the same key");
    assert_eq!(bed.link.requests(), before, "it was not read again");
    bed.lax.flush().await.unwrap();
    bed.link.cut();
    bed.until_total(&k, 0).await;
    assert_eq!(handle.inc(1).unwrap(), (7, 7));
    bed.link.restore();
    bed.until_total(&k, 7).await;
}

/// The store has taken the instance in again, and the answer is under way.
#[tokio::test(start_paused = true)]
async fn an_instance_that_leaves_while_it_joins_again_is_gone() {
    let bed = bed();
    let k = key("k");
    bed.lax.inc(&k, 7).await.unwrap();
    bed.lax.flush().await.unwrap();
    bed.link.cut();
    bed.until_total(&k, 0).await;
    bed.link.restore();
    bed.link.set_latency(200 * MS);
    bed.until_total(&k, 7).await;
    bed.lax.leave().await.unwrap();
    assert_eq!(bed.other.get(&k).await.unwrap().0, 0);
}
