//! Counters whose task is on a runtime that lives but is not driven any longer, while another one is.
//!
//! Here the time is real: a runtime that is not driven has none. Each test waits for what must happen.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    RedisKey,
    backend::{
        Backend, Space,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep, timeout},
};

const MS: Duration = Duration::from_millis(1);
/// For what takes a tenth of a second on a machine that has nothing else to do.
const AT_LAST: Duration = Duration::from_secs(20);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

struct Bed {
    store: MemoryBackend,
    link: MemoryLink,
    counter: Arc<LaxCounter>,
    k: RedisKey,
    first: Runtime,
}

/// The first runtime has counted to 1, and is kept.
fn bed() -> Bed {
    let store = MemoryBackend::new();
    let link = store.link();
    let counter = LaxCounter::new(CounterOptions::new(key("lax"), link.clone()));
    let (k, first) = (key("k"), runtime());
    assert_eq!(first.block_on(counter.inc(&k, 1)).unwrap(), 1);
    Bed { store, link, counter, k, first }
}

async fn stored(store: &MemoryBackend, key: &RedisKey) -> i64 {
    let space = Space::new(RedisKey::try_from("lax").unwrap());
    store.read(&space, std::slice::from_ref(key)).await.unwrap()[0].clone().unwrap()
}

async fn until_stored(store: &MemoryBackend, key: &RedisKey, total: i64) {
    let deadline = Instant::now() + AT_LAST;
    while stored(store, key).await != total {
        let held = stored(store, key).await;
        assert!(Instant::now() < deadline, "holds {held}, not {total}");
        sleep(MS).await;
    }
}

async fn at_last<T>(call: impl Future<Output = T>) -> T {
    timeout(AT_LAST, call).await.expect("an answer")
}

/// A runtime that another thread drives, until this is dropped.
struct Driven {
    handle: tokio::runtime::Handle,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Driven {
    fn new(runtime: Runtime) -> Self {
        let (handle, ends) = (runtime.handle().clone(), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                while !until.load(SeqCst) {
                    sleep(MS).await;
                }
            });
        });
        Self { handle, ends, thread: Some(thread) }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.ends.store(true, SeqCst);
        _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn unknown_keys_are_read_from_another_runtime() {
    let bed = bed();
    runtime().block_on(async {
        assert_eq!(at_last(bed.counter.get(&key("cold"))).await.unwrap(), 0);
        assert_eq!(at_last(bed.counter.inc(&key("cold too"), 3)).await.unwrap(), 3);
        until_stored(&bed.store, &key("cold too"), 3).await;
        until_stored(&bed.store, &bed.k, 1).await;
    });
}

#[test]
fn additions_to_a_known_key_reach_the_store_from_another_runtime() {
    let bed = bed();
    runtime().block_on(async {
        let deadline = Instant::now() + AT_LAST;
        let mut total = 1;
        while stored(&bed.store, &bed.k).await == 0 {
            total += 1;
            assert_eq!(at_last(bed.counter.inc(&bed.k, 1)).await.unwrap(), total);
            assert!(Instant::now() < deadline, "nothing arrives");
            sleep(MS).await;
        }
        until_stored(&bed.store, &bed.k, total).await;
    });
}

#[test]
fn a_counter_that_is_dropped_on_another_runtime_flushes() {
    let Bed { store, link, counter, k, first: _first } = bed();
    runtime().block_on(async {
        drop((counter, link));
        until_stored(&store, &k, 1).await;
    });
}

#[test]
fn what_acts_at_once_is_answered_on_another_runtime() {
    for call in 0..4 {
        let bed = bed();
        runtime().block_on(async {
            match call {
                0 => at_last(bed.counter.flush()).await.unwrap(),
                1 => assert_eq!(at_last(bed.counter.set(&bed.k, 5)).await.unwrap(), 5),
                2 => at_last(bed.counter.clear()).await.unwrap(),
                _ => at_last(bed.counter.shutdown(AT_LAST)).await.unwrap(),
            }
            let total = [1, 5, 0, 1][call];
            assert_eq!(stored(&bed.store, &bed.k).await, total);
            if call < 3 {
                assert_eq!(at_last(bed.counter.inc(&bed.k, 1)).await.unwrap(), total + 1);
                until_stored(&bed.store, &bed.k, total + 1).await;
            }
        });
    }
}

/// On its way to the store, and with the answer on its way back.
#[test]
fn a_batch_in_flight_counts_once() {
    for arrived in [false, true] {
        let bed = bed();
        bed.link.set_latency(200 * MS);
        bed.first.block_on(async {
            let before = bed.link.requests();
            while bed.link.requests() == before {
                sleep(MS).await;
            }
            if arrived {
                until_stored(&bed.store, &bed.k, 1).await;
            }
        });
        bed.link.set_latency(Duration::ZERO);
        runtime().block_on(async {
            assert_eq!(at_last(bed.counter.inc(&key("cold"), 3)).await.unwrap(), 3);
            assert_eq!(at_last(bed.counter.inc(&bed.k, 1)).await.unwrap(), 2);
            at_last(bed.counter.flush()).await.unwrap();
            assert_eq!(stored(&bed.store, &bed.k).await, 2);
        });
        // The former owner's answer comes, and is ignored.
        bed.first.block_on(async {
            sleep(250 * MS).await;
            assert_eq!(at_last(bed.counter.inc(&bed.k, 1)).await.unwrap(), 3);
        });
        runtime().block_on(async {
            at_last(bed.counter.flush()).await.unwrap();
            assert_eq!(stored(&bed.store, &bed.k).await, 3);
        });
    }
}

/// Each of them is left with a call that it had begun.
#[test]
fn one_runtime_after_another_is_left() {
    let bed = bed();
    let left: Vec<_> = (0..4)
        .map(|n| {
            let next = runtime();
            next.block_on(async {
                assert_eq!(at_last(bed.counter.get(&key(&format!("cold {n}")))).await.unwrap(), 0);
                at_last(bed.counter.inc(&bed.k, 1)).await.unwrap();
                let counter = Arc::clone(&bed.counter);
                tokio::spawn(async move { counter.flush().await });
                tokio::task::yield_now().await;
            });
            next
        })
        .collect();
    runtime().block_on(async {
        at_last(bed.counter.flush()).await.unwrap();
        assert_eq!(stored(&bed.store, &bed.k).await, 5);
    });
    drop(left);
}

#[test]
fn a_counter_that_is_dropped_on_another_runtime_lets_go_of_its_store() {
    let store = Arc::new(MemoryBackend::new().link());
    let held = Arc::downgrade(&store);
    let counter = LaxCounter::new(CounterOptions::with_store(key("lax"), store));
    let first = runtime();
    first.block_on(async {
        counter.inc(&key("k"), 1).await.unwrap();
        counter.flush().await.unwrap();
    });
    runtime().block_on(async {
        drop(counter);
        at_last(async {
            while held.strong_count() > 0 {
                sleep(MS).await;
            }
        })
        .await;
    });
}

/// The last one that asked is left, too.
#[test]
fn of_two_runtimes_that_ask_the_driven_one_is_answered() {
    let bed = bed();
    let third = Driven::new(runtime());
    let (asked, has_asked) = std::sync::mpsc::channel();
    let counter = Arc::clone(&bed.counter);
    let answer = third.handle.spawn(async move {
        let cold = key("cold");
        let mut get = std::pin::pin!(counter.get(&cold));
        assert!(timeout(Duration::ZERO, &mut get).await.is_err());
        asked.send(()).unwrap();
        at_last(get).await.unwrap()
    });
    has_asked.recv().unwrap();
    let second = runtime();
    second.block_on(async {
        let counter = Arc::clone(&bed.counter);
        tokio::spawn(async move { counter.get(&key("cold too")).await });
        tokio::task::yield_now().await;
    });
    assert_eq!(third.handle.block_on(answer).unwrap(), 0);
}

/// A request that hangs is sent once, whoever asks meanwhile from wherever.
#[test]
fn a_task_that_waits_for_the_store_is_left_alone() {
    let Bed { store, link, counter, k, first } = bed();
    let driven = Driven::new(first);
    runtime().block_on(async {
        until_stored(&store, &k, 1).await;
        at_last(counter.flush()).await.unwrap();
        link.set_latency(600 * MS);
        let before = link.requests();
        at_last(counter.inc(&k, 1)).await.unwrap();
        let deadline = Instant::now() + 500 * MS;
        while Instant::now() < deadline {
            assert!(counter.inc(&k, 1).await.is_ok());
            _ = timeout(MS, counter.get(&key("cold"))).await;
            sleep(MS).await;
        }
        assert!(link.requests() - before <= 3, "{} requests", link.requests() - before);
        link.set_latency(Duration::ZERO);
        at_last(counter.flush()).await.unwrap();
    });
    drop(driven);
}

#[cfg(feature = "instance-aware-counter")]
mod instances {
    use distkit::icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    };

    use super::*;

    const LEASE_MS: u64 = 1_000;
    const LEASE: Duration = Duration::from_millis(LEASE_MS);

    #[test]
    fn heartbeats_go_on_from_another_runtime() {
        for lax in [false, true] {
            let (store, k, first) = (MemoryBackend::new(), key("k"), runtime());
            let other = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
                key("lax"),
                store.clone(),
            ));
            let counter: Arc<dyn InstanceAwareCounterTrait> = if lax {
                let options = LaxInstanceAwareCounterOptions::new(key("lax"), store.clone());
                LaxInstanceAwareCounter::new(options.dead_instance_threshold_ms(LEASE_MS))
            } else {
                let options = StrictInstanceAwareCounterOptions::new(key("lax"), store.clone());
                StrictInstanceAwareCounter::new(options.dead_instance_threshold_ms(LEASE_MS))
            };
            first.block_on(async {
                at_last(counter.inc(&k, 1)).await.unwrap();
                while other.get(&k).await.unwrap().0 != 1 {
                    sleep(MS).await;
                }
            });
            // Past the lease since the last operation, which finds that a heartbeat is overdue.
            runtime().block_on(async {
                sleep(LEASE * 6 / 10).await;
                at_last(counter.get(&key("cold"))).await.unwrap();
                for _ in 0..25 {
                    sleep(LEASE / 10).await;
                    assert_eq!(other.get(&k).await.unwrap().0, 1, "the instance expired");
                }
            });
        }
    }

    /// The first runtime is left while it joins, or with a strict call under way.
    #[test]
    fn what_the_first_runtime_had_begun_keeps_nobody_out() {
        for begun in 0..3 {
            let (store, k, first) = (MemoryBackend::new(), key("k"), runtime());
            let link = store.link();
            let options = StrictInstanceAwareCounterOptions::new(key("lax"), link.clone());
            let counter = StrictInstanceAwareCounter::new(options);
            first.block_on(async {
                if begun > 0 {
                    counter.inc(&k, 1).await.unwrap();
                }
                link.set_latency(50 * MS);
                let (counter, k) = (Arc::clone(&counter), k.clone());
                tokio::spawn(async move {
                    match begun {
                        0 => drop(counter.inc(&k, 1).await),
                        1 => drop(counter.clear().await),
                        _ => drop(counter.inc(&k, 1).await),
                    }
                });
                sleep(10 * MS).await;
            });
            runtime().block_on(async {
                at_last(counter.get(&k)).await.unwrap();
                at_last(counter.clear()).await.unwrap();
                assert_eq!(at_last(counter.inc(&k, 5)).await.unwrap(), (5, 5));
            });
        }
    }
}
