use std::{future::Future, sync::Arc, time::Duration};

use shuttle::future::{block_on, spawn, yield_now};

use crate::{
    DistkitError, RedisKey,
    backend::Write,
    counter::lax::Plain,
    lax::{Core, Owner, Settings},
    store::Store,
};

const SETTINGS: Settings = Settings {
    lag: Duration::from_millis(20),
    interval: Duration::from_millis(1),
    max_pending: 100,
    evict_after: Duration::from_millis(1),
};

fn check<F: Future<Output = ()> + 'static>(model: impl Fn() -> F + Send + Sync + 'static) {
    let schedules = std::env::var("DISTKIT_SCHEDULES").map_or(400, |n| n.parse().unwrap());
    let run = Arc::new(move || block_on(model()));
    // Half of them with few switches in unlikely places, half with many.
    let again = Arc::clone(&run);
    shuttle::check_pct(move || again(), schedules / 2, 3);
    shuttle::check_random(move || run(), schedules / 2);
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn counter(store: &Store, settings: Settings) -> Owner<Plain> {
    Owner(Core::new(Plain { backend: store.clone(), space: () }, settings))
}

/// Until it succeeds: the store loses only so much.
async fn flush(core: &Arc<Core<Plain>>) {
    while core.flush().await.is_err() {
        yield_now().await;
    }
}

/// Adds `count` as often as `times` says, whatever reads fail meanwhile. Answers never go down.
async fn add(core: Arc<Core<Plain>>, key: RedisKey, count: i64, times: usize) {
    let mut last = 0;
    for _ in 0..times {
        let sum = loop {
            match core.add(&key, count).await {
                Ok(sum) => break sum,
                Err(DistkitError::NotApplied(_)) => yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(sum >= last + count, "{sum} after {last}");
        last = sum;
        yield_now().await;
    }
}

/// Nothing is pending, and nothing is counted as pending, once all is flushed.
fn assert_idle(core: &Arc<Core<Plain>>) {
    assert!(!core.has_pending(), "the count of pending keys has drifted");
    assert!(core.all_cells().iter().all(|cell| !cell.is_pending() && !cell.tally.is_dirty()));
}

#[test]
fn every_addition_reaches_the_store_once() {
    check(|| async {
        let store = Store::losing(3);
        let owner = counter(&store, SETTINGS);
        let (a, b) = (key("a"), key("b"));
        let adders = [(&a, 1), (&a, 10), (&b, 100)]
            .map(|(key, count)| spawn(add(owner.0.clone(), key.clone(), count, 3)));
        store.add(&a, 1000);
        flush(&owner.0).await;
        for adder in adders {
            adder.await.unwrap();
        }
        flush(&owner.0).await;
        assert_eq!((store.total(&a), store.total(&b)), (1033, 300));
        assert_idle(&owner.0);
    });
}

#[test]
fn the_task_flushes_without_being_asked() {
    check(|| async {
        let store = Store::losing(2);
        let owner = counter(&store, SETTINGS);
        let a = key("a");
        let adders = [1, 10].map(|count| spawn(add(owner.0.clone(), a.clone(), count, 2)));
        for adder in adders {
            adder.await.unwrap();
        }
        // A cell that nobody will flush keeps this going until shuttle loses its patience.
        while owner.0.has_pending() {
            yield_now().await;
        }
        assert_eq!(store.total(&a), 22);
    });
}

#[test]
fn a_dropped_counter_flushes_and_its_task_ends() {
    check(|| async {
        let store = Store::losing(2);
        let owner = counter(&store, SETTINGS);
        let (a, core) = (key("a"), Arc::downgrade(&owner.0));
        add(owner.0.clone(), a.clone(), 5, 2).await;
        drop(owner);
        while core.strong_count() > 0 {
            yield_now().await;
        }
        assert_eq!(store.total(&a), 10);
    });
}

#[test]
fn reads_do_not_go_back() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let a = key("a");
        let adder = spawn(add(owner.0.clone(), a.clone(), 1, 4));
        let reader = spawn({
            let (core, a) = (owner.0.clone(), a.clone());
            async move {
                let mut last = 0;
                for _ in 0..6 {
                    let total = core.get(&a).await.unwrap();
                    assert!(total >= last, "{total} after {last}");
                    last = total;
                    yield_now().await;
                }
            }
        });
        store.add(&a, 100);
        adder.await.unwrap();
        store.add(&a, 100);
        reader.await.unwrap();
        assert!(owner.0.get(&a).await.unwrap() >= 4);
        flush(&owner.0).await;
        assert_eq!(store.total(&a), 204);
    });
}

/// What a `set` or `del` found, and what was added after it, is all that was ever added.
#[test]
fn what_set_and_del_take_and_what_they_leave_is_everything() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let a = key("a");
        let adders = [1, 10].map(|count| spawn(add_anyhow(owner.0.clone(), a.clone(), count, 3)));
        yield_now().await;
        let found = owner.0.set(Write::set(a.clone(), 1000)).await;
        let held = owner.0.delete(&a).await;
        assert!(held >= 1000, "{held}");
        for adder in adders {
            adder.await.unwrap();
        }
        flush(&owner.0).await;
        assert_eq!(found + held - 1000 + store.total(&a), 33);
        assert_idle(&owner.0);
    });
}

/// Additions beside a `set`: their answers may go down.
async fn add_anyhow(core: Arc<Core<Plain>>, key: RedisKey, count: i64, times: usize) {
    for _ in 0..times {
        core.add(&key, count).await.unwrap();
        yield_now().await;
    }
}

#[test]
#[cfg(feature = "instance-aware-counter")]
fn a_replacement_takes_what_came_before_and_leaves_what_comes_after() {
    check(|| async {
        let store = Store::losing(2);
        let owner = counter(&store, SETTINGS);
        let a = key("a");
        add(owner.0.clone(), a.clone(), 7, 1).await;
        let adder = spawn({
            let (core, a) = (owner.0.clone(), a.clone());
            async move {
                let mut after = Vec::new();
                for _ in 0..3 {
                    after.push(core.add(&a, 1).await);
                    yield_now().await;
                }
                after
            }
        });
        let cell = owner.0.cell(&a);
        owner.0.replace(&cell, 100).unwrap();
        let answers = adder.await.unwrap();
        // An answer of 100 or more was given after the replacement, and stays.
        let after = answers.iter().filter(|answer| matches!(answer, Ok(sum) if *sum > 100)).count();
        flush(&owner.0).await;
        assert_eq!(store.total(&a), 100 + i64::try_from(after).unwrap(), "{answers:?}");
        assert_idle(&owner.0);
    });
}

#[test]
fn no_addition_goes_to_a_cell_that_was_evicted() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let keys = [key("a"), key("b")];
        let adders = keys.clone().map(|key| {
            let core = owner.0.clone();
            spawn(async move {
                for _ in 0..3 {
                    core.add(&key, 1).await.unwrap();
                    // Long enough for a flush and two sweeps, in some schedules.
                    for _ in 0..12 {
                        yield_now().await;
                    }
                }
            })
        });
        for adder in adders {
            adder.await.unwrap();
        }
        flush(&owner.0).await;
        assert_eq!(keys.map(|key| store.total(&key)), [3, 3]);
        assert_idle(&owner.0);
    });
}

#[test]
fn the_count_of_pending_keys_is_exact() {
    check(|| async {
        let store = Store::losing(1);
        let owner = counter(&store, Settings { max_pending: 1, ..SETTINGS });
        let keys = [key("a"), key("b")];
        let adders = keys.clone().map(|key| {
            let core = owner.0.clone();
            spawn(async move {
                let mut taken = 0;
                for _ in 0..4 {
                    match core.add(&key, 1).await {
                        Ok(_) => taken += 1,
                        Err(DistkitError::TooManyPending { .. } | DistkitError::NotApplied(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                    yield_now().await;
                }
                taken
            })
        });
        let mut taken = Vec::new();
        for adder in adders {
            taken.push(adder.await.unwrap());
        }
        flush(&owner.0).await;
        assert_eq!(keys.clone().map(|key| store.total(&key)).to_vec(), taken);
        assert_idle(&owner.0);
        // There is room again.
        add(owner.0.clone(), keys[0].clone(), 1, 1).await;
    });
}
