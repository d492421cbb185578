//! Which calls the strict counter makes, one by one.

#[allow(dead_code, reason = "other tests need the rest")]
#[path = "support/mock_store.rs"]
mod mock_store;

use std::{future::Future, sync::Arc};

use distkit::{
    CounterComparator, DistkitError, RedisKey,
    backend::{Applied, BackendError, Outcome, Refusal, Write, Written},
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use mock_store::{MockStore, PREFIX};
use mockall::Sequence;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn counter(store: MockStore) -> Arc<StrictCounter> {
    StrictCounter::new(CounterOptions::new(key(PREFIX), store))
}

fn written(old: i64, new: i64) -> Outcome<Written> {
    Ok(Written { old, new, condition_met: old != new })
}

fn applied(outcomes: Vec<Outcome<Written>>) -> Result<Applied, BackendError> {
    Ok(Applied { replayed: false, record: None, outcomes })
}

/// A store that takes these writes, once, without a guard, and nothing else.
fn store_for(writes: Vec<Write>, answer: Result<Applied, BackendError>) -> MockStore {
    let mut store = MockStore::new();
    store
        .expect_apply()
        .withf(move |got, guard| *got == writes && guard.is_none())
        .times(1)
        .return_once(move |_, _| answer);
    store
}

#[tokio::test]
async fn each_write_is_one_call_of_the_store() {
    let k = key("k");

    let store = store_for(vec![Write::add(k.clone(), 3)], applied(vec![written(4, 7)]));
    assert_eq!(counter(store).inc(&k, 3).await.unwrap(), 7);

    let store = store_for(vec![Write::add(k.clone(), -3)], applied(vec![written(4, 1)]));
    assert_eq!(counter(store).dec(&k, 3).await.unwrap(), 1);

    let store = store_for(vec![Write::set(k.clone(), 9)], applied(vec![written(4, 9)]));
    assert_eq!(counter(store).set(&k, 9).await.unwrap(), 9);

    let lt = CounterComparator::Lt(5);
    let write = Write::add(k.clone(), 3).only_if(lt);
    let store = store_for(vec![write], applied(vec![written(4, 7)]));
    assert_eq!(counter(store).inc_if(&k, lt, 3).await.unwrap(), (7, 4));

    let write = Write::set(k.clone(), 3).only_if(lt);
    let store = store_for(vec![write], applied(vec![written(6, 6)]));
    assert_eq!(counter(store).set_if(&k, lt, 3).await.unwrap(), (6, 6));
}

#[tokio::test]
async fn a_batch_is_one_call_of_the_store_in_the_order_given() {
    let (a, b) = (key("a"), key("b"));
    let writes = vec![Write::add(b.clone(), 1), Write::add(a.clone(), 2), Write::add(b.clone(), 3)];
    let answer = applied(vec![written(0, 1), Err(Refusal::Overflow), written(1, 4)]);
    let answers =
        counter(store_for(writes, answer)).inc_all(&[(&b, 1), (&a, 2), (&b, 3)]).await.unwrap();

    let names: Vec<_> = answers.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["b", "a", "b"]);
    assert_eq!(*answers[0].1.as_ref().unwrap(), 1);
    assert_eq!(*answers[2].1.as_ref().unwrap(), 4);
    let Err(DistkitError::CounterError { key: refused, refusal: Refusal::Overflow }) =
        &answers[1].1
    else {
        panic!("not the refusal of one item: {:?}", answers[1]);
    };
    assert_eq!(*refused, a);
}

#[tokio::test]
async fn reads_removals_and_clear_are_one_call_each() {
    let (a, b) = (key("a"), key("b"));
    let mut store = MockStore::new();
    let mut order = Sequence::new();
    store
        .expect_read()
        .withf(|keys| *keys == [key("a")])
        .times(1)
        .in_sequence(&mut order)
        .return_once(|_| Ok(vec![Ok(5)]));
    store
        .expect_read()
        .withf(|keys| *keys == [key("b"), key("a")])
        .times(1)
        .in_sequence(&mut order)
        .return_once(|_| Ok(vec![Ok(0), Ok(5)]));
    store
        .expect_apply()
        .withf(|writes, guard| *writes == [Write::remove(key("a"))] && guard.is_none())
        .times(1)
        .in_sequence(&mut order)
        .return_once(|_, _| applied(vec![written(5, 0)]));
    store.expect_clear().times(1).in_sequence(&mut order).return_once(|| Ok(()));

    let counter = counter(store);
    assert_eq!(counter.get(&a).await.unwrap(), 5);
    let totals = counter.get_all(&[&b, &a]).await.unwrap();
    assert_eq!((totals[0].0.as_str(), totals[1].0.as_str()), ("b", "a"));
    assert_eq!(*totals[1].1.as_ref().unwrap(), 5);
    assert_eq!(counter.del(&a).await.unwrap(), 5);
    counter.clear().await.unwrap();
}

#[tokio::test]
async fn what_needs_no_store_asks_none() {
    // A mock without expectations panics at any call.
    let counter = counter(MockStore::new());
    assert!(counter.inc_all(&[]).await.unwrap().is_empty());
    assert!(counter.set_all(&[]).await.unwrap().is_empty());
    assert!(counter.inc_all_if(&[]).await.unwrap().is_empty());
    assert!(counter.set_all_if(&[]).await.unwrap().is_empty());
    assert!(counter.get_all(&[]).await.unwrap().is_empty());
    let error = counter.dec(&key("k"), i64::MIN).await.unwrap_err();
    assert!(
        matches!(error, DistkitError::CounterError { refusal: Refusal::Overflow, .. }),
        "{error}"
    );
}

/// Runs every kind of call against a store that fails each with `error`, and counts the calls.
async fn failures(error: BackendError) -> Vec<DistkitError> {
    async fn one<T>(
        error: &BackendError,
        call: impl AsyncFnOnce(&StrictCounter) -> Result<T, DistkitError>,
    ) -> DistkitError {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut store = MockStore::new();
        let fail = || {
            let (calls, error) = (calls.clone(), error.clone());
            move || {
                calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                error.clone()
            }
        };
        let f = fail();
        store.expect_apply().returning(move |_, _| Err(f()));
        let f = fail();
        store.expect_read().returning(move |_| Err(f()));
        let f = fail();
        store.expect_clear().returning(move || Err(f()));
        let Err(failure) = call(&counter(store)).await else { panic!("the failure was hidden") };
        assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1, "sent again");
        failure
    }
    let k = key("k");
    let eq = CounterComparator::Eq(1);
    vec![
        one(&error, async |c| c.inc(&k, 1).await).await,
        one(&error, async |c| c.dec(&k, 1).await).await,
        one(&error, async |c| c.get(&k).await).await,
        one(&error, async |c| c.set(&k, 1).await).await,
        one(&error, async |c| c.del(&k).await).await,
        one(&error, async |c| c.clear().await).await,
        one(&error, async |c| c.inc_if(&k, eq, 1).await).await,
        one(&error, async |c| c.set_if(&k, eq, 1).await).await,
        one(&error, async |c| c.get_all(&[&k, &k]).await).await,
        one(&error, async |c| c.inc_all(&[(&k, 1), (&k, 2)]).await).await,
        one(&error, async |c| c.set_all(&[(&k, 1), (&k, 2)]).await).await,
        one(&error, async |c| c.inc_all_if(&[(&k, eq, 1)]).await).await,
        one(&error, async |c| c.set_all_if(&[(&k, eq, 1)]).await).await,
    ]
}

#[tokio::test]
async fn an_unknown_outcome_is_told_and_not_sent_again() {
    for failure in failures(BackendError::outcome_unknown("cut off")).await {
        assert!(failure.may_have_happened());
        assert!(matches!(failure, DistkitError::OutcomeUnknown(_)), "{failure}");
        assert!(distkit_testkit::chain(&failure).contains("cut off"), "{failure}");
    }
}

#[tokio::test]
async fn what_was_not_applied_is_told_apart() {
    let corrupt = BackendError::Corrupt("a list".to_owned());
    for error in [BackendError::not_applied("refused"), corrupt] {
        for failure in failures(error).await {
            assert!(!failure.may_have_happened());
            assert!(matches!(failure, DistkitError::NotApplied(_)), "{failure}");
        }
    }
}

#[tokio::test]
async fn a_store_that_miscounts_is_not_trusted() {
    let k = key("k");
    let store = store_for(vec![Write::add(k.clone(), 1)], applied(vec![]));
    assert!(counter(store).inc(&k, 1).await.unwrap_err().may_have_happened());

    let writes = vec![Write::add(k.clone(), 1), Write::add(k.clone(), 2)];
    let store = store_for(writes, applied(vec![written(0, 1)]));
    let error = counter(store).inc_all(&[(&k, 1), (&k, 2)]).await.unwrap_err();
    assert!(
        distkit_testkit::chain(&error).contains("1 answer to") && error.may_have_happened(),
        "{error}"
    );
}

#[tokio::test]
async fn a_dropped_call_asks_the_store_for_nothing() {
    fn assert_send<F: Future + Send>(future: F) -> F {
        future
    }
    // Futures are lazy and can move between threads; a mock without expectations panics at any call.
    drop(assert_send(counter(MockStore::new()).inc(&key("k"), 1)));
}
