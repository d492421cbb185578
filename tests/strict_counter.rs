//! What the strict counter promises, on every store.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)]

#[macro_use]
#[path = "common/stores.rs"]
mod stores;

use std::{collections::BTreeSet, sync::Arc};

use distkit::{
    CounterComparator::{Eq, Gt, Lt, Ne, Nil},
    DistkitError,
    backend::{Refusal, Write},
    counter::{CounterTrait, Keyed, StrictCounter},
};
use stores::{Stage, key};
use tokio::task::JoinSet;

on_every_store!(
    each_operation_answers_with_exact_totals,
    conditions_look_at_the_value_before_the_write,
    a_batch_keeps_its_order_and_every_repetition,
    a_refused_item_stops_no_other,
    the_ends_of_i64_are_exact,
    counters_of_one_prefix_share_and_others_do_not,
    clear_forgets_every_key_of_the_prefix_only,
    concurrent_increments_are_each_counted_once,
    a_condition_admits_no_more_than_it_says,
    works_as_a_trait_object,
);

fn values<T: Copy>(answers: &[Keyed<'_, T>]) -> Vec<T> {
    answers.iter().map(|(_, answer)| *answer.as_ref().unwrap()).collect()
}

fn is_overflow<T>(result: Result<T, DistkitError>, name: &str) -> bool {
    matches!(
        result,
        Err(DistkitError::CounterError { key, refusal: Refusal::Overflow }) if *key == *name
    )
}

async fn each_operation_answers_with_exact_totals(stage: Stage) {
    let counter = StrictCounter::new(stage.options.clone());
    let k = key("k");
    assert_eq!(counter.get(&k).await.unwrap(), 0);
    assert_eq!(counter.del(&k).await.unwrap(), 0);
    assert_eq!(counter.inc(&k, 5).await.unwrap(), 5);
    assert_eq!(counter.inc(&k, -7).await.unwrap(), -2);
    assert_eq!(counter.dec(&k, 3).await.unwrap(), -5);
    assert_eq!(counter.dec(&k, -6).await.unwrap(), 1);
    assert_eq!(counter.inc(&k, 0).await.unwrap(), 1);
    assert_eq!(counter.set(&k, 100).await.unwrap(), 100);
    assert_eq!(counter.get(&k).await.unwrap(), 100);
    assert_eq!(counter.del(&k).await.unwrap(), 100);
    assert_eq!(counter.get(&k).await.unwrap(), 0);
    assert_eq!(counter.inc(&k, 1).await.unwrap(), 1);
}

async fn conditions_look_at_the_value_before_the_write(stage: Stage) {
    let counter = StrictCounter::new(stage.options.clone());
    let k = key("k");
    for (condition, holds) in [
        (Eq(5), true),
        (Eq(4), false),
        (Ne(4), true),
        (Ne(5), false),
        (Lt(6), true),
        (Lt(5), false),
        (Gt(4), true),
        (Gt(5), false),
        (Nil, true),
    ] {
        counter.set(&k, 5).await.unwrap();
        let new = if holds { 7 } else { 5 };
        assert_eq!(counter.inc_if(&k, condition, 2).await.unwrap(), (new, 5), "{condition:?}");
        assert_eq!(counter.get(&k).await.unwrap(), new, "{condition:?}");

        counter.set(&k, 5).await.unwrap();
        let new = if holds { -1 } else { 5 };
        assert_eq!(counter.set_if(&k, condition, -1).await.unwrap(), (new, 5), "{condition:?}");
        assert_eq!(counter.get(&k).await.unwrap(), new, "{condition:?}");
    }
    let missing = key("missing");
    assert_eq!(counter.set_if(&missing, Gt(0), 9).await.unwrap(), (0, 0));
    assert_eq!(counter.inc_if(&missing, Eq(0), 9).await.unwrap(), (9, 0));
}

async fn a_batch_keeps_its_order_and_every_repetition(stage: Stage) {
    let counter = StrictCounter::new(stage.options.clone());
    let (a, b) = (key("a"), key("b"));

    let answers = counter.inc_all(&[(&b, 1), (&a, 10), (&b, 2), (&b, -5)]).await.unwrap();
    assert_eq!(
        answers.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["b", "a", "b", "b"]
    );
    assert_eq!(values(&answers), [1, 10, 3, -2]);
    assert_eq!(values(&counter.set_all(&[(&a, 1), (&b, 2), (&a, 3)]).await.unwrap()), [1, 2, 3]);
    assert_eq!(values(&counter.get_all(&[&b, &a, &b, &key("c")]).await.unwrap()), [2, 3, 2, 0]);

    let answers = counter
        .inc_all_if(&[(&a, Eq(3), 1), (&a, Eq(3), 1), (&b, Nil, 1), (&a, Gt(3), -9)])
        .await
        .unwrap();
    assert_eq!(values(&answers), [(4, 3), (4, 4), (3, 2), (-5, 4)]);
    let answers =
        counter.set_all_if(&[(&a, Lt(0), 8), (&a, Lt(0), 9), (&a, Ne(9), 10)]).await.unwrap();
    assert_eq!(values(&answers), [(8, -5), (8, 8), (10, 8)]);

    let writes = [Write::add(a.clone(), 1), Write::set(b.clone(), 7), Write::add(b.clone(), 1)];
    let outcomes = counter.write_all(&writes).await.unwrap();
    let pairs: Vec<_> =
        outcomes.iter().map(|o| o.as_ref().map(|w| (w.old, w.new)).unwrap()).collect();
    assert_eq!(pairs, [(10, 11), (3, 7), (7, 8)]);
}

async fn a_refused_item_stops_no_other(stage: Stage) {
    let counter = StrictCounter::new(stage.options.clone());
    let (full, free) = (key("full"), key("free"));
    counter.set(&full, i64::MAX).await.unwrap();

    let mut answers = counter.inc_all(&[(&free, 1), (&full, 1), (&free, 1)]).await.unwrap();
    assert_eq!(*answers[2].1.as_ref().unwrap(), 2);
    assert!(is_overflow(answers.remove(1).1, "full"));

    let mut answers =
        counter.inc_all_if(&[(&free, Nil, 1), (&full, Gt(0), 1), (&free, Nil, 1)]).await.unwrap();
    assert_eq!(*answers[2].1.as_ref().unwrap(), (4, 3));
    assert!(is_overflow(answers.remove(1).1, "full"));
    assert_eq!(values(&counter.get_all(&[&full, &free]).await.unwrap()), [i64::MAX, 4]);
}

async fn the_ends_of_i64_are_exact(stage: Stage) {
    let counter = StrictCounter::new(stage.options.clone());
    let k = key("k");
    let beyond_doubles = (1 << 53) + 1;
    assert_eq!(counter.set(&k, beyond_doubles).await.unwrap(), beyond_doubles);
    assert_eq!(counter.inc(&k, 2).await.unwrap(), beyond_doubles + 2);
    let pair = (beyond_doubles + 4, beyond_doubles + 2);
    assert_eq!(counter.inc_if(&k, Eq(beyond_doubles + 2), 2).await.unwrap(), pair);
    assert_eq!(counter.inc_if(&k, Eq(beyond_doubles + 3), 2).await.unwrap(), (pair.0, pair.0));
    assert_eq!(counter.del(&k).await.unwrap(), pair.0);

    assert_eq!(counter.inc(&k, i64::MAX).await.unwrap(), i64::MAX);
    assert!(is_overflow(counter.inc(&k, 1).await, "k"));
    assert_eq!(counter.get(&k).await.unwrap(), i64::MAX);
    assert_eq!(counter.dec(&k, i64::MAX).await.unwrap(), 0);

    assert_eq!(counter.inc(&k, i64::MIN).await.unwrap(), i64::MIN);
    assert!(is_overflow(counter.dec(&k, 1).await, "k"));
    assert!(is_overflow(counter.dec(&k, i64::MIN).await, "k"));
    assert_eq!(counter.set_if(&k, Eq(i64::MIN), i64::MAX).await.unwrap(), (i64::MAX, i64::MIN));
    assert_eq!(counter.inc(&k, i64::MIN).await.unwrap(), -1);
}

async fn counters_of_one_prefix_share_and_others_do_not(stage: Stage) {
    let one = StrictCounter::new(stage.options.clone());
    let other = StrictCounter::new(stage.options.clone());
    let stranger = StrictCounter::new(stage.elsewhere.clone());
    let k = key("k");
    assert_eq!(one.inc(&k, 1).await.unwrap(), 1);
    assert_eq!(other.inc(&k, 1).await.unwrap(), 2);
    assert_eq!(stranger.get(&k).await.unwrap(), 0);
}

async fn clear_forgets_every_key_of_the_prefix_only(stage: Stage) {
    let one = StrictCounter::new(stage.options.clone());
    let other = StrictCounter::new(stage.options.clone());
    let stranger = StrictCounter::new(stage.elsewhere.clone());
    let (a, b) = (key("a"), key("b"));
    one.set(&a, 1).await.unwrap();
    other.set(&b, 2).await.unwrap();
    stranger.set(&a, 3).await.unwrap();
    one.clear().await.unwrap();
    one.clear().await.unwrap();
    assert_eq!(values(&other.get_all(&[&a, &b]).await.unwrap()), [0, 0]);
    assert_eq!(stranger.get(&a).await.unwrap(), 3);
    assert_eq!(other.inc(&a, 1).await.unwrap(), 1);
}

async fn concurrent_increments_are_each_counted_once(stage: Stage) {
    const TASKS: i64 = 64;
    const EACH: i64 = 20;
    let counter = StrictCounter::new(stage.options.clone());
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let counter = counter.clone();
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..EACH {
                seen.push(counter.inc(&key("k"), 1).await.unwrap());
            }
            assert!(seen.is_sorted(), "a later increment answered with an earlier total");
            seen
        });
    }
    // Atomic increments answer with each total exactly once.
    let seen: Vec<i64> = tasks.join_all().await.concat();
    let distinct: BTreeSet<i64> = seen.iter().copied().collect();
    assert!(distinct.into_iter().eq(1..=TASKS * EACH), "{} answers", seen.len());
}

async fn a_condition_admits_no_more_than_it_says(stage: Stage) {
    let counter = StrictCounter::new(stage.options.clone());
    let mut tasks = JoinSet::new();
    for _ in 0..64 {
        let counter = counter.clone();
        tasks.spawn(async move {
            let (new, old) = counter.inc_if(&key("seats"), Lt(10), 1).await.unwrap();
            new != old
        });
    }
    let admitted = tasks.join_all().await.into_iter().filter(|admitted| *admitted).count();
    assert_eq!(admitted, 10);
    assert_eq!(counter.get(&key("seats")).await.unwrap(), 10);
}

async fn works_as_a_trait_object(stage: Stage) {
    let counter: Arc<dyn CounterTrait> = StrictCounter::new(stage.options.clone());
    let k = key("k");
    assert_eq!(counter.inc(&k, 2).await.unwrap(), 2);
    assert_eq!(values(&counter.set_all(&[(&k, 1)]).await.unwrap()), [1]);
}
