use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use tokio::task::{JoinSet, yield_now};

use super::fixture::{Fixture, Probe, key, keys, removals};
use crate::backend::Write;

/// Ids are never given twice, to whomever asks.
pub async fn fresh_ids_are_unique(fixture: &Fixture) {
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let backend = fixture.backend().clone();
        tasks.spawn(async move { (0..2_500).map(|_| backend.fresh_id()).collect::<Vec<_>>() });
    }
    let ids: Vec<Arc<str>> = tasks.join_all().await.into_iter().flatten().collect();
    let distinct: BTreeSet<&str> = ids.iter().map(|id| &**id).collect();
    assert_eq!(distinct.len(), ids.len(), "ids that were given twice");
    assert!(!distinct.contains(""), "an id is empty");
}

/// Polls `call` at most `polls` times, then drops it.
async fn cancel_after<F: Future>(call: F, polls: usize) -> Option<F::Output> {
    let mut call = pin!(call);
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        yield_now().await;
    }
    None
}

/// Rule 11: calls that are dropped half way leave the store and the connection in order: later calls
/// get their own answers, and the value is one that the calls can have made.
pub async fn cancelled_calls_break_nothing_else(fixture: &Fixture) {
    let probe = fixture.fresh();
    let Probe { backend, space, .. } = &probe;
    let (hits, fixed) = (key("hits"), keys(3));
    let sets = [1, 2, 3].map(|i| Write::set(fixed[i - 1].clone(), i as i64));
    probe.apply(&sets).await;
    let (mut certain, mut possible) = (0, 0);
    for round in 0..60 {
        let polls = round % 6;
        let add = [Write::add(hits.clone(), 1), Write::add(hits.clone(), 1)];
        match cancel_after(backend.apply(space, &add, None), polls).await {
            Some(Ok(_)) => certain += 2,
            Some(Err(error)) => panic!("a call that was not dropped failed: {error}"),
            None => possible += 2,
        }
        cancel_after(backend.read(space, &fixed[..1]), polls).await;
        let absent = removals(&[key("absent"), key("absent too")]);
        cancel_after(backend.apply(space, &absent, None), polls).await;
        assert_eq!(
            probe.read(&fixed[1..]).await,
            [2, 3],
            "a call after dropped ones got an answer that is not its own"
        );
        let total = probe.total(&hits).await;
        assert!(
            (certain..=certain + possible).contains(&total),
            "the value is {total}; acknowledged were {certain}, dropped half way {possible}"
        );
    }
    for polls in 0..6 {
        cancel_after(backend.clear(space), polls).await;
    }
    probe.clear().await;
    assert_eq!(probe.read(&fixed).await, [0; 3], "a clear after dropped ones");
}

/// Rules 7 and 11: a guarded batch that is dropped half way and sent again happens exactly once.
pub async fn cancelled_guarded_batches_happen_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (hits, big) = (key("hits"), keys(500));
    let mut guard = probe.guard(0);
    for round in 1..=40 {
        guard.sequence += 1;
        let mut writes = vec![Write::add(hits.clone(), 1)];
        if round % 4 == 0 {
            writes.extend(big.iter().map(|key| Write::add(key.clone(), 1)));
        }
        let first = probe.backend.apply(&probe.space, &writes, Some(&guard));
        cancel_after(first, round % 7).await;
        let applied = probe.send(&writes, Some(&guard)).await;
        let new = applied.outcomes[0].as_ref().map(|written| written.new);
        assert_eq!(new, Ok(round as i64), "after {round} batches, each sent again");
    }
    assert_eq!(probe.read(&big).await, vec![10; 500], "batches that were sent again");
}
