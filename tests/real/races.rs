//! `set`, `del` and `clear` against increments under way, in the same process and in others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    CounterComparator,
    counter::{CounterTrait, LaxCounter},
};
use tokio::task::JoinSet;

use crate::support::{Bench, Client, NEVER, eventually_reads, key, over_both_clients};

over_both_clients!(
    set_is_exact_under_increments_from_another_process,
    conditional_writes_are_exact_under_concurrent_increments,
);

const LAG: Duration = Duration::from_millis(3);

/// Far more than all increments of a test together.
const ROUND: i64 = 1_000_000;

async fn set_is_exact_under_increments_from_another_process(client: Client) {
    let bench = Bench::new(client).await;
    let (setter, other) = (bench.lax(NEVER).await, bench.strict().await);
    let hits = key("hits");
    let over = Arc::new(AtomicBool::new(false));
    let increments = tokio::spawn({
        let (hits, over) = (hits.clone(), over.clone());
        async move {
            let mut last = other.inc(&hits, 1).await.unwrap();
            while !over.load(SeqCst) {
                let now = other.inc(&hits, 1).await.unwrap();
                let next = now == last + 1;
                let after_a_set = now / ROUND > last / ROUND && now % ROUND == 1;
                assert!(next || after_a_set, "{now} after {last}");
                last = now;
            }
            last
        }
    });
    for round in 1..=50 {
        // Own writes before a set are absorbed by it: the other process would see them come late.
        for _ in 0..10 {
            setter.inc(&hits, 1).await.unwrap();
        }
        assert_eq!(setter.set(&hits, round * ROUND).await.unwrap(), round * ROUND);
        setter.flush().await.unwrap();
        assert!(setter.get(&hits).await.unwrap() >= round * ROUND);
    }
    over.store(true, SeqCst);
    let last = increments.await.unwrap();
    let held = bench.held(&hits).await;
    assert!(held == last || held == 50 * ROUND && last / ROUND < 50, "{held}, last saw {last}");
}

async fn conditional_writes_are_exact_under_concurrent_increments(client: Client) {
    const SEATS: i64 = 500;
    let bench = Bench::new(client).await;
    let seats = key("seats");
    let taken = Arc::new(AtomicI64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let counter = bench.lax(LAG).await;
        for _ in 0..2 {
            let (counter, seats, taken) = (counter.clone(), seats.clone(), taken.clone());
            tasks.spawn(async move {
                loop {
                    // A seat given back through the buffer is there for the next condition.
                    let full = CounterComparator::Lt(SEATS);
                    let (new, old) = counter.inc_if(&seats, full, 2).await.unwrap();
                    if new == old {
                        assert!(old >= SEATS);
                        return;
                    }
                    assert_eq!(new, old + 2);
                    assert!(old < SEATS, "a seat was taken beyond the last one: {old}");
                    counter.inc(&seats, -1).await.unwrap();
                    taken.fetch_add(1, SeqCst);
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // Each of the tasks has gone; what they had buffered arrives.
    let taken = taken.load(SeqCst);
    let strict = bench.strict().await;
    eventually_reads(&*strict, &seats, taken).await;
}

/// Runs a body on both kinds of runtime, over both clients.
fn on(client: Client, threads: usize, body: impl AsyncFnOnce(Client)) {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().unwrap().block_on(body(client));
}

macro_rules! on_both_runtimes {
    ($($body:ident),+ $(,)?) => {$(
        mod $body {
            use crate::support::Client;

            #[test]
            fn redis_rs_on_one_thread() {
                super::on(Client::Redis, 1, super::$body);
            }

            #[test]
            fn redis_rs_on_threads() {
                super::on(Client::Redis, 3, super::$body);
            }

            #[test]
            fn fred_on_one_thread() {
                super::on(Client::Fred, 1, super::$body);
            }

            #[test]
            fn fred_on_threads() {
                super::on(Client::Fred, 3, super::$body);
            }
        }
    )+};
}

on_both_runtimes!(del_against_increments, clear_against_increments);

/// Adds until told to stop; gives how much was acknowledged.
fn adding(tasks: &mut JoinSet<i64>, counter: &Arc<LaxCounter>, over: &Arc<AtomicBool>) {
    let (counter, over) = (counter.clone(), over.clone());
    tasks.spawn(async move {
        let hits = key("hits");
        let mut sum = 0;
        while !over.load(SeqCst) {
            for _ in 0..5 {
                counter.inc(&hits, 1).await.unwrap();
                sum += 1;
            }
            tokio::task::yield_now().await;
        }
        sum
    });
}

/// Each increment is in the answer of exactly one deletion, or still there.
async fn del_against_increments(client: Client) {
    let bench = Bench::new(client).await;
    let counters = [bench.lax(LAG).await, bench.lax(LAG).await];
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for counter in counters.iter().chain(&counters) {
        adding(&mut tasks, counter, &over);
    }
    let hits = key("hits");
    let mut deleted = 0;
    for n in 0..100 {
        deleted += counters[n % 2].del(&hits).await.unwrap();
        tokio::task::yield_now().await;
    }
    over.store(true, SeqCst);
    let added: i64 = tasks.join_all().await.into_iter().sum();
    for counter in &counters {
        counter.flush().await.unwrap();
    }
    assert!(deleted > 0, "the deletions met no increments");
    assert_eq!(bench.held(&hits).await + deleted, added);
    for counter in &counters {
        eventually_reads(&**counter, &hits, added - deleted).await;
    }
}

/// What was acknowledged before a clear began is gone; what began after it returned is there.
async fn clear_against_increments(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(LAG).await;
    let hits = key("hits");
    let over = Arc::new(AtomicBool::new(false));
    let (begun, acknowledged) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let (counter, hits, over) = (counter.clone(), hits.clone(), over.clone());
        let (begun, acknowledged) = (begun.clone(), acknowledged.clone());
        tasks.spawn(async move {
            while !over.load(SeqCst) {
                begun.fetch_add(1, SeqCst);
                counter.inc(&hits, 1).await.unwrap();
                acknowledged.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
        });
    }
    let (mut before, mut after) = (0, 0);
    for _ in 0..50 {
        before = acknowledged.load(SeqCst);
        counter.clear().await.unwrap();
        after = begun.load(SeqCst);
        let seen = counter.get(&hits).await.unwrap();
        assert!(seen <= begun.load(SeqCst) - before, "{seen} right after a clear");
        tokio::task::yield_now().await;
    }
    over.store(true, SeqCst);
    tasks.join_all().await;
    counter.flush().await.unwrap();

    let all = acknowledged.load(SeqCst);
    let held = bench.held(&hits).await;
    assert!(all > 50, "there was next to no load");
    assert!((all - after..=all - before).contains(&held), "{held} of {all}, {before}..{after}");
    assert_eq!(counter.get(&hits).await.unwrap(), held);

    counter.clear().await.unwrap();
    assert_eq!(counter.get(&hits).await.unwrap(), 0);
    assert_eq!(counter.inc(&hits, 7).await.unwrap(), 7);
    counter.flush().await.unwrap();
    assert_eq!(bench.held(&hits).await, 7);
}
