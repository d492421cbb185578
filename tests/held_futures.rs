//! A future that was polled once and is then held, neither polled nor dropped, holds up nobody.
#![cfg(feature = "instance-aware-counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::memory::{MemoryBackend, MemoryLink},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use tokio::time::{sleep, timeout};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

type Held<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

fn boxed<'a, T>(call: impl Future<Output = T> + 'a) -> Held<'a> {
    Box::pin(async { drop(call.await) })
}

/// Polls the future a few times, as a `select!` in a loop does.
async fn poll_a_little(future: &mut Held<'_>, time: Duration) {
    _ = timeout(time, future).await;
}

#[test]
fn the_futures_of_all_calls_can_be_sent_to_other_threads() {
    fn sent(_: impl Send) {}
    let (Instances { lax, strict, .. }, k) = (instances(), key("k"));
    let store = MemoryBackend::new();
    let counter = LaxCounter::new(CounterOptions::new(key("held"), store));
    sent((counter.get(&k), counter.inc(&k, 1), counter.handle(&k)));
    sent((counter.flush(), counter.shutdown(SECOND)));
    sent((lax.get(&k), lax.inc(&k, 1), lax.handle(&k)));
    sent((lax.flush(), lax.shutdown(SECOND), lax.leave(), strict.leave()));
}

struct Plain {
    link: MemoryLink,
    counter: Arc<LaxCounter>,
    strict: Arc<StrictCounter>,
}

async fn plain() -> Plain {
    let store = MemoryBackend::new();
    let link = store.link();
    let counter = LaxCounter::new(CounterOptions::new(key("held"), link.clone()));
    let strict = StrictCounter::new(CounterOptions::new(key("held"), store));
    counter.inc(&key("known"), 1).await.unwrap();
    link.set_latency(10 * MS);
    Plain { link, counter, strict }
}

fn plain_calls(counter: &LaxCounter) -> Vec<(&'static str, Held<'_>)> {
    let k = || key("known");
    vec![
        ("set", boxed(async move { counter.set(&k(), 5).await })),
        ("del", boxed(async move { counter.del(&k()).await })),
        ("clear", boxed(counter.clear())),
        ("flush", boxed(counter.flush())),
        ("cold get", boxed(async move { counter.get(&key("cold")).await })),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_held_future_holds_up_no_other_call_of_a_lax_counter() {
    // Before it is sent, on its way, and with the answer on its way back.
    for polled_for in [Duration::ZERO, 2 * MS, 7 * MS] {
        for call in 0..5 {
            let bed = plain().await;
            let (name, mut held) = plain_calls(&bed.counter).swap_remove(call);
            poll_a_little(&mut held, polled_for).await;
            let others = async {
                bed.counter.set(&key("other"), 7).await.unwrap();
                assert_eq!(bed.counter.get(&key("new")).await.unwrap(), 0);
                bed.counter.inc(&key("known"), 100).await.unwrap();
                bed.counter.flush().await.unwrap();
                bed.counter.del(&key("other")).await.unwrap();
                bed.counter.inc(&key("other"), 1).await.unwrap();
            };
            timeout(SECOND, others).await.unwrap_or_else(|_| panic!("held up by {name}"));
            sleep(SECOND).await;
            assert!(bed.strict.get(&key("known")).await.unwrap() >= 100, "{name}");
            assert_eq!(bed.strict.get(&key("other")).await.unwrap(), 1, "{name}");
            // It may be polled again, and has its answer.
            timeout(SECOND, held).await.unwrap_or_else(|_| panic!("{name} is not answered"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_shutdown_holds_up_nobody() {
    let bed = plain().await;
    bed.counter.inc(&key("known"), 1).await.unwrap();
    let mut held = boxed(bed.counter.shutdown(SECOND));
    poll_a_little(&mut held, 2 * MS).await;
    timeout(SECOND, bed.counter.flush()).await.expect("held up").unwrap();
    assert_eq!(bed.strict.get(&key("known")).await.unwrap(), 2);
}

/// A dropped future is not one that is held: what it asked for ends.
#[tokio::test(start_paused = true)]
async fn a_dropped_future_ends_a_request_that_hangs() {
    for call in 0..4 {
        let bed = plain().await;
        bed.link.set_latency(3600 * SECOND);
        let (name, mut held) = plain_calls(&bed.counter).swap_remove(call);
        poll_a_little(&mut held, 10 * MS).await;
        drop(held);
        bed.link.set_latency(10 * MS);
        let others = async { bed.counter.set(&key("other"), 7).await.unwrap() };
        timeout(SECOND, others).await.unwrap_or_else(|_| panic!("held up by {name}"));
    }
}

struct Instances {
    link: MemoryLink,
    lax: Arc<LaxInstanceAwareCounter>,
    strict: Arc<StrictInstanceAwareCounter>,
    other: Arc<StrictInstanceAwareCounter>,
}

fn instances() -> Instances {
    let store = MemoryBackend::new();
    let link = store.link();
    let options = StrictInstanceAwareCounterOptions::new(key("held"), link.clone());
    let other = StrictInstanceAwareCounterOptions::new(key("held"), store.clone());
    let lax = LaxInstanceAwareCounterOptions::new(key("held"), link.clone());
    link.set_latency(10 * MS);
    Instances {
        link,
        lax: LaxInstanceAwareCounter::new(lax),
        strict: StrictInstanceAwareCounter::new(options),
        other: StrictInstanceAwareCounter::new(other),
    }
}

fn instance_calls<'c>(
    counter: &'c dyn InstanceAwareCounterTrait,
    k: &'c RedisKey,
) -> Vec<(&'static str, Held<'c>)> {
    vec![
        ("clear", boxed(counter.clear())),
        ("clear_on_instance", boxed(counter.clear_on_instance())),
        ("set", boxed(counter.set(k, 5))),
        ("slices", boxed(counter.slices(k))),
        // What needs to be joined first.
        ("inc", boxed(counter.inc(k, 5))),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_held_future_holds_up_no_other_call_of_an_instance() {
    for polled_for in [Duration::ZERO, 2 * MS, 7 * MS] {
        for (call, strict) in (0..5).flat_map(|call| [(call, false), (call, true)]) {
            let bed = instances();
            let (k, new) = (key("k"), key("new"));
            let counter: &dyn InstanceAwareCounterTrait =
                if strict { &*bed.strict } else { &*bed.lax };
            if call < 4 {
                counter.inc(&k, 1).await.unwrap();
            }
            let (name, mut held) = instance_calls(counter, &k).swap_remove(call);
            poll_a_little(&mut held, polled_for).await;
            let others = async {
                assert_eq!(counter.get(&new).await.unwrap(), (0, 0));
                counter.inc(&new, 3).await.unwrap();
                counter.set_on_instance(&new, 4).await.unwrap();
                counter.clear().await.unwrap();
                counter.inc(&new, 3).await.unwrap();
            };
            // A strict operation keeps its membership until it does not answer those that wait.
            timeout(5 * SECOND, others).await.unwrap_or_else(|_| panic!("held up by {name}"));
            sleep(SECOND).await;
            assert_eq!(bed.other.get(&new).await.unwrap().0, 3, "{name}");
            timeout(SECOND, held).await.unwrap_or_else(|_| panic!("{name} is not answered"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_leave_holds_up_nobody() {
    for lax in [false, true] {
        let bed = instances();
        let k = key("k");
        let counter: &dyn InstanceAwareCounterTrait = if lax { &*bed.lax } else { &*bed.strict };
        counter.inc(&k, 1).await.unwrap();
        let mut held = if lax { boxed(bed.lax.leave()) } else { boxed(bed.strict.leave()) };
        poll_a_little(&mut held, 2 * MS).await;
        _ = timeout(SECOND, counter.get(&k)).await.expect("held up");
        _ = timeout(SECOND, counter.clear()).await.expect("held up");
        bed.link.set_latency(Duration::ZERO);
        timeout(SECOND, held).await.expect("left");
        assert_eq!(bed.other.get(&k).await.unwrap().0, 0);
    }
}

/// Dropping the future ends the task that serves it, and outside of a runtime nobody starts another one.
#[test]
fn a_future_that_is_dropped_outside_of_its_runtime_leaves_no_write_behind() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.unwrap();
    let Plain { link, counter, strict } = runtime.block_on(plain());
    let known = key("known");
    let mut held = boxed(async { counter.set(&key("other"), 5).await });
    runtime.block_on(async {
        counter.flush().await.unwrap();
        poll_a_little(&mut held, 2 * MS).await;
        // Pending, so that the next addition finds the key marked.
        counter.inc(&known, 1).await.unwrap();
    });
    drop(held);
    runtime.block_on(async {
        counter.inc(&known, 1).await.unwrap();
        link.set_latency(Duration::ZERO);
        sleep(10 * SECOND).await;
        assert_eq!(strict.get(&known).await.unwrap(), 3);
    });
}
