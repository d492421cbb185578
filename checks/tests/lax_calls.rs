//! Which calls the lax counter makes, one by one.

#[allow(dead_code, reason = "other tests need the rest")]
#[path = "support/mock_store.rs"]
mod mock_store;

use std::{sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{Applied, BackendError, Change, ReplayGuard, Write, Written},
    counter::{CounterOptions, CounterTrait, LaxCounter},
};
use mock_store::{ID, MockStore, PREFIX};
use mockall::Sequence;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn guard(sequence: u64) -> Option<ReplayGuard> {
    Some(ReplayGuard { writer: ID.into(), sequence, resent: false })
}

/// The guard of an attempt after another one whose answer was lost.
fn again(sequence: u64) -> Option<ReplayGuard> {
    guard(sequence).map(|guard| ReplayGuard { resent: true, ..guard })
}

/// The store's answer when all keys held 0.
fn applied(writes: &[Write]) -> Applied {
    let written = |write: &Write| {
        let (Change::Add(new) | Change::Set(new)) = write.change else {
            panic!("{:?} is new", write.change)
        };
        Ok(Written { old: 0, new, condition_met: true })
    };
    Applied { replayed: false, record: None, outcomes: writes.iter().map(written).collect() }
}

fn lost() -> BackendError {
    BackendError::outcome_unknown("lost")
}

fn counter(calls: MockStore) -> Arc<LaxCounter> {
    LaxCounter::new(CounterOptions::new(key(PREFIX), calls))
}

fn reads_zero(calls: &mut MockStore, times: usize) {
    calls.expect_read().times(times).returning(|keys| Ok(keys.iter().map(|_| Ok(0)).collect()));
}

#[tokio::test(start_paused = true)]
async fn a_flush_is_one_guarded_batch() {
    let mut calls = MockStore::new();
    reads_zero(&mut calls, 3);
    calls
        .expect_apply()
        .withf(|writes, g| {
            let expected = [("a", 11), ("b", 2), ("c", 3)].map(|(k, n)| Write::add(key(k), n));
            *writes == expected && *g == guard(1)
        })
        .times(1)
        .returning(|writes, _| Ok(applied(&writes)));
    let counter = counter(calls);
    for (name, count) in [("a", 1), ("b", 2), ("c", 3), ("a", 10)] {
        counter.inc(&key(name), count).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(start_paused = true)]
async fn the_warm_path_makes_no_call() {
    let mut calls = MockStore::new();
    reads_zero(&mut calls, 1);
    calls.expect_apply().times(1).returning(|writes, _| Ok(applied(&writes)));
    let counter = counter(calls);
    let a = key("a");
    counter.inc(&a, 1).await.unwrap();
    counter.flush().await.unwrap();
    // Nothing but the read and the batch is expected, and no time passes for a flush.
    for n in 2..100 {
        assert_eq!(counter.inc(&a, 1).await.unwrap(), n);
        assert_eq!(counter.get(&a).await.unwrap(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_sent_again_as_it_was() {
    let mut calls = MockStore::new();
    reads_zero(&mut calls, 1);
    let mut order = Sequence::new();
    let first = [Write::add(key("a"), 5)];
    for (resent, times) in [(false, 1), (true, 2)] {
        let (first, expected) = (first.clone(), if resent { again(1) } else { guard(1) });
        calls
            .expect_apply()
            .withf(move |writes, g| *writes == first && *g == expected)
            .times(times)
            .in_sequence(&mut order)
            .returning(|_, _| Err(lost()));
    }
    calls
        .expect_apply()
        .withf(move |writes, g| *writes == first && *g == again(1))
        .times(1)
        .in_sequence(&mut order)
        .returning(|writes, _| Ok(Applied { replayed: true, ..applied(&writes) }));
    calls
        .expect_apply()
        .withf(|writes, g| *writes == [Write::add(key("a"), 7)] && *g == guard(2))
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _| {
            let written = Written { old: 5, new: 12, condition_met: true };
            Ok(Applied { replayed: false, record: None, outcomes: vec![Ok(written)] })
        });
    let counter = counter(calls);
    let a = key("a");
    counter.inc(&a, 5).await.unwrap();
    assert!(counter.flush().await.unwrap_err().may_have_happened());
    assert_eq!(counter.inc(&a, 7).await.unwrap(), 12);
    tokio::time::sleep(Duration::from_secs(5)).await;
    counter.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_set_is_sent_once_and_then_fenced() {
    let mut calls = MockStore::new();
    reads_zero(&mut calls, 2);
    let mut order = Sequence::new();
    calls
        .expect_apply()
        .withf(|writes, g| *writes == [Write::set(key("a"), 9)] && *g == guard(1))
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _| Err(lost()));
    calls
        .expect_apply()
        .withf(|writes, g| writes.is_empty() && *g == again(1))
        .times(2)
        .in_sequence(&mut order)
        .returning(|_, _| Err(lost()));
    calls
        .expect_apply()
        .withf(|writes, g| writes.is_empty() && *g == again(1))
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _| Ok(Applied { replayed: true, record: None, outcomes: Vec::new() }));
    let counter = counter(calls);
    let a = key("a");
    counter.inc(&a, 0).await.unwrap();
    assert!(counter.set(&a, 9).await.unwrap_err().may_have_happened());
    tokio::time::sleep(Duration::from_secs(5)).await;
    counter.inc(&a, 0).await.unwrap();
    counter.flush().await.unwrap();
}
