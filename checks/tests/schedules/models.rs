use std::marker::PhantomData;
use std::{future::Future, sync::Arc, time::Duration};

use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::{Rng, thread_rng},
};

use crate::{
    DistkitError, RedisKey, Token,
    backend::Write,
    counter::lax::Plain,
    counts::Counts,
    gauges::Gauges,
    lax::{Engine, Owner, Settings, TokenFate},
    runtime::Handle,
    store::Store,
};

const SETTINGS: Settings = Settings {
    lag: Duration::from_millis(20),
    interval: Duration::from_millis(1),
    max_pending: 100,
    evict_after: Duration::from_millis(1),
};

fn check<F: Future<Output = ()> + 'static>(model: impl Fn() -> F + Send + Sync + 'static) {
    let schedules = std::env::var("DISTKIT_SCHEDULES").map_or(700, |n| n.parse().unwrap());
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
    let counts = Counts::new("lax", "models", None, &Gauges::new("lax", "models"));
    let ledger = Plain { backend: store.clone(), space: (), of: PhantomData, counts };
    Owner(Engine::new(ledger, settings))
}

/// Until it succeeds: the store loses only so much.
async fn flush(engine: &Arc<Engine<Plain>>) {
    while engine.flush().await.is_err() {
        yield_now().await;
    }
}

/// Waits for the task to flush all. A cell that nobody will flush keeps this going until shuttle loses its
/// patience.
async fn until_flushed(engine: &Arc<Engine<Plain>>, store: &Store, key: &RedisKey, total: i64) {
    while store.total(key) != total || engine.has_pending() {
        yield_now().await;
    }
}

/// Adds `count` as often as `times` says, whatever reads fail meanwhile. Answers never go down.
async fn add(engine: Arc<Engine<Plain>>, key: RedisKey, count: i64, times: usize) {
    let mut last = 0;
    for _ in 0..times {
        let sum = loop {
            match engine.add(&key, count).await {
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
fn assert_idle(engine: &Arc<Engine<Plain>>) {
    assert!(!engine.has_pending(), "the count of pending keys has drifted");
    assert!(engine.is_clean());
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
        until_flushed(&owner.0, &store, &a, 22).await;
    });
}

#[test]
fn a_dropped_counter_flushes_and_its_task_ends() {
    check(|| async {
        let store = Store::losing(1);
        let owner = counter(&store, SETTINGS);
        let (a, engine) = (key("a"), Arc::downgrade(&owner.0));
        let adders = [1, 10].map(|count| spawn(add(owner.0.clone(), a.clone(), count, 3)));
        for adder in adders {
            adder.await.unwrap();
        }
        drop(owner);
        while engine.strong_count() > 0 {
            yield_now().await;
        }
        assert_eq!(store.total(&a), 33);
    });
}

/// A counter whose cells were not counted would end without its last flush when it is dropped.
#[test]
fn a_cell_that_is_dirty_again_when_its_batch_ends_counts_as_pending() {
    check(|| async {
        let owner = counter(&Store::default(), SETTINGS);
        let cell = owner.0.known(&key("a")).await.unwrap();
        owner.0.add_to(&cell, 1).unwrap();
        let flusher = spawn({
            let engine = owner.0.clone();
            async move { engine.flush().await }
        });
        yield_now().await;
        owner.0.add_to(&cell, 1).unwrap();
        assert!(owner.0.counts_what_is_dirty().await);
        flusher.await.unwrap().unwrap();
    });
}

/// One that is turned away does not take back the count on which another one has relied.
#[test]
fn a_cell_counts_as_pending_when_only_one_of_two_additions_found_room() {
    check(|| async {
        let owner = counter(&Store::default(), Settings { max_pending: 1, ..SETTINGS });
        let [cell, other] = [key("a"), key("b")].map(|key| owner.0.cell(&key));
        owner.0.add_to(&other, 1).unwrap();
        let adder = spawn({
            let (engine, cell) = (owner.0.clone(), cell.clone());
            async move { engine.add_to(&cell, 1).is_ok() }
        });
        _ = owner.0.add_to(&cell, 1);
        adder.await.unwrap();
        assert!(owner.0.counts_what_is_dirty().await);
    });
}

/// Counted and uncounted at the same time, one key does not look like many: others have room.
#[test]
fn one_key_never_counts_as_more_than_two() {
    check(|| async {
        let owner = counter(&Store::default(), SETTINGS);
        let cell = owner.0.known(&key("a")).await.unwrap();
        owner.0.add_to(&cell, 1).unwrap();
        let flusher = spawn({
            let engine = owner.0.clone();
            async move { engine.flush().await }
        });
        let adder = spawn({
            let (engine, cell) = (owner.0.clone(), cell.clone());
            async move { engine.add_to(&cell, 1) }
        });
        for _ in 0..30 {
            assert!(owner.0.number_pending() <= 2);
        }
        adder.await.unwrap().unwrap();
        flusher.await.unwrap().unwrap();
        assert!(owner.0.counts_what_is_dirty().await);
    });
}

#[test]
fn an_addition_during_a_flush_is_in_it_or_in_the_next() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let a = key("a");
        owner.0.add(&a, 1).await.unwrap();
        let adder = spawn(add_anyhow(owner.0.clone(), a.clone(), 10, 1));
        flush(&owner.0).await;
        adder.await.unwrap();
        until_flushed(&owner.0, &store, &a, 11).await;
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
            let (engine, a) = (owner.0.clone(), a.clone());
            async move {
                let cell = engine.known(&a).await.unwrap();
                let mut last = 0;
                for n in 0..40 {
                    // Mostly without asking the store, which would let the task go first.
                    let total =
                        if n % 10 == 0 { engine.get(&a).await.unwrap() } else { cell.estimate() };
                    assert!(total >= last, "{total} after {last}");
                    last = total;
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

/// What a `set` or `del` found and what was added after it is all that was ever added; what the same
/// caller had added before is not among the latter.
#[test]
fn set_and_del_take_what_came_before_and_leave_what_comes_after() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let a = key("a");
        let adders =
            [100, 1000].map(|count| spawn(add_anyhow(owner.0.clone(), a.clone(), count, 2)));
        owner.0.add(&a, 7).await.unwrap();
        let found = owner.0.set(Write::set(a.clone(), 50)).await;
        owner.0.add(&a, 3).await.unwrap();
        let held = owner.0.delete(&a).await;
        owner.0.add(&a, 1).await.unwrap();
        for adder in adders {
            adder.await.unwrap();
        }
        flush(&owner.0).await;
        let left = store.total(&a);
        assert_eq!([found % 100, held % 100, left % 100], [7, 53, 1], "{found} {held} {left}");
        assert_eq!(found + held + left, 2200 + 7 + 53 + 1);
        assert_idle(&owner.0);
    });
}

/// Additions beside a `set`: their answers may go down.
async fn add_anyhow(engine: Arc<Engine<Plain>>, key: RedisKey, count: i64, times: usize) {
    for _ in 0..times {
        engine.add(&key, count).await.unwrap();
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
            let (engine, a) = (owner.0.clone(), a.clone());
            async move {
                let mut after = Vec::new();
                for _ in 0..3 {
                    after.push(engine.add(&a, 1).await);
                    yield_now().await;
                }
                after
            }
        });
        let reader = spawn({
            let (engine, a) = (owner.0.clone(), a.clone());
            async move { engine.read_again(&a).await.map(drop) }
        });
        let cell = owner.0.cell(&a);
        yield_now().await;
        // What the replaced part is in the store by then, and whether this process knows, is all one.
        store.add(&a, 1_000_000);
        owner.0.replace(&cell, 100).unwrap();
        let answers = adder.await.unwrap();
        _ = reader.await.unwrap();
        // These were given after the replacement, and stay.
        let after = answers.iter().filter(|answer| matches!(answer, Ok(101..=103))).count();
        flush(&owner.0).await;
        assert_eq!(store.total(&a), 100 + i64::try_from(after).unwrap(), "{answers:?}");
        assert_idle(&owner.0);
    });
}

/// Whoever holds a cell keeps it in the map, so that others find it there, with all that is pending.
#[test]
fn no_addition_goes_to_a_cell_that_was_evicted() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let a = key("a");
        let holder = spawn({
            let (engine, a) = (owner.0.clone(), a.clone());
            async move {
                let cell = engine.known(&a).await.unwrap();
                for _ in 0..2 {
                    pause().await;
                    let sum = engine.add_to(&cell, 1).unwrap();
                    assert!(engine.get(&a).await.unwrap() >= sum, "the addition is out of sight");
                }
            }
        });
        let user = spawn({
            let (engine, a) = (owner.0.clone(), a.clone());
            async move {
                for _ in 0..3 {
                    let sum = engine.add(&a, 10).await.unwrap();
                    assert!(engine.get(&a).await.unwrap() >= sum, "the addition is out of sight");
                    pause().await;
                }
            }
        });
        holder.await.unwrap();
        user.await.unwrap();
        flush(&owner.0).await;
        assert_eq!(store.total(&a), 32);
        assert_idle(&owner.0);
    });
}

/// Long enough for a flush and several sweeps, in some schedules.
async fn pause() {
    for _ in 0..40 {
        yield_now().await;
    }
}

#[test]
fn the_count_of_pending_keys_is_exact() {
    check(|| async {
        let store = Store::losing(1);
        let owner = counter(&store, Settings { max_pending: 1, ..SETTINGS });
        let keys = [key("a"), key("b")];
        let adders = keys.clone().map(|key| {
            let engine = owner.0.clone();
            spawn(async move {
                let mut taken = 0;
                for _ in 0..4 {
                    match engine.add(&key, 1).await {
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

/// A flush, and a shutdown, find what was answered before them, also when another addition to the key has not ended.
#[test]
fn a_flush_or_shutdown_takes_all_that_was_answered_before_it() {
    check(|| async {
        for shutdown in [false, true] {
            let store = Store::default();
            let owner = counter(&store, SETTINGS);
            let a = key("a");
            let cell = owner.0.known(&a).await.unwrap();
            let adder = spawn({
                let (engine, cell) = (owner.0.clone(), cell.clone());
                async move { engine.add_to(&cell, 1).is_ok() }
            });
            owner.0.add_to(&cell, 10).unwrap();
            if shutdown {
                owner.0.shutdown(Duration::from_secs(1)).await.unwrap();
            } else {
                owner.0.flush().await.unwrap();
            }
            assert!(store.total(&a) >= 10, "{} of 10 are in the store", store.total(&a));
            adder.await.unwrap();
        }
    });
}

#[test]
fn sums_stay_exact_at_the_end_of_the_range_while_the_base_moves() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let cell = owner.0.known(&key("a")).await.unwrap();
        // Beyond the bound where care begins, and back.
        owner.0.add_to(&cell, 1 << 61).unwrap();
        owner.0.add_to(&cell, -(1 << 61)).unwrap();
        let adder = spawn({
            let (engine, cell) = (owner.0.clone(), cell.clone());
            async move {
                assert_eq!(engine.add_to(&cell, i64::MAX).unwrap(), i64::MAX);
                engine.add_to(&cell, 1).unwrap_err();
            }
        });
        owner.0.flush().await.unwrap();
        adder.await.unwrap();
        owner.0.flush().await.unwrap();
        assert_eq!(store.total(&key("a")), i64::MAX);
    });
}

/// Who finds no room does not leave a count behind on which others rely for a moment.
#[test]
fn what_is_under_way_counts_as_pending() {
    check(|| async {
        let store = Store::losing(2);
        let owner = counter(&store, Settings { max_pending: 1, ..SETTINGS });
        let [cell, other] = [key("a"), key("b")].map(|key| owner.0.cell(&key));
        owner.0.add_to(&other, 1).unwrap();
        let adder = spawn({
            let (engine, cell) = (owner.0.clone(), cell.clone());
            async move { engine.add_to(&cell, 1).is_ok() }
        });
        let taken = [owner.0.add_to(&cell, 1).is_ok(), adder.await.unwrap()];
        let engine = Arc::downgrade(&owner.0);
        drop(owner);
        while engine.strong_count() > 0 {
            yield_now().await;
        }
        let expected = taken.into_iter().filter(|taken| *taken).count();
        assert_eq!(store.total(&key("a")), i64::try_from(expected).unwrap());
    });
}

/// A caller's future that is polled a little and then held, or dropped, is in nobody's way, and what it asked for
/// happens once or not at all.
#[test]
fn a_held_or_dropped_request_holds_up_nobody() {
    check(|| async {
        let store = Store::losing(1);
        let owner = counter(&store, SETTINGS);
        let (a, b) = (key("a"), key("b"));
        let adder = spawn(add(owner.0.clone(), a.clone(), 1, 3));
        let writes = [Write::set(b.clone(), 50)];
        let mut held = Box::pin(owner.0.write_now(&writes));
        let mut answer = None;
        for _ in 0..thread_rng().gen_range(0..3) {
            answer = answer.or_else(|| futures_util::FutureExt::now_or_never(&mut held));
            yield_now().await;
        }
        let held = if answer.is_none() && thread_rng().gen_bool(0.5) { Some(held) } else { None };
        add(owner.0.clone(), a.clone(), 10, 1).await;
        flush(&owner.0).await;
        adder.await.unwrap();
        flush(&owner.0).await;
        assert_eq!(store.total(&a), 13);
        let before = store.total(&b);
        match held {
            None if answer.is_none() => assert!([0, 50].contains(&before), "{before}"),
            held => match if let Some(held) = held { held.await } else { answer.unwrap() } {
                Ok(_) => assert_eq!(store.total(&b), 50),
                Err(error) => assert!(error.may_have_happened() || store.total(&b) == 0),
            },
        }
        add(owner.0.clone(), b.clone(), 1, 1).await;
        flush(&owner.0).await;
        assert!([1, 51].contains(&store.total(&b)), "{}", store.total(&b));
        assert_idle(&owner.0);
    });
}

/// A runtime is left with a counter's task, and a caller, at some point of what they do. Calls from elsewhere are
/// answered, and each addition counts once, also when the former task goes on.
#[test]
fn a_task_whose_runtime_is_left_is_replaced_from_another() {
    check(|| async {
        let store = Store::losing(1);
        let owner = counter(&store, SETTINGS);
        let (a, b) = (key("a"), key("b"));
        let first = Handle::that_may_be_left();
        let adder = first.spawn(add(owner.0.clone(), a.clone(), 1, 3));
        for _ in 0..thread_rng().gen_range(0..40) {
            yield_now().await;
        }
        first.leave();
        // It may be interrupted; nobody else writes to the key.
        while owner.0.write_now(&[Write::set(b.clone(), 5)]).await.is_err() {
            yield_now().await;
        }
        add(owner.0.clone(), b.clone(), 10, 2).await;
        flush(&owner.0).await;
        assert_eq!(store.total(&b), 25);
        first.come_back();
        adder.await.unwrap();
        add(owner.0.clone(), b.clone(), 10, 1).await;
        flush(&owner.0).await;
        assert_eq!((store.total(&a), store.total(&b)), (3, 35));
        assert_idle(&owner.0);
    });
}

/// The last user of a counter is on another runtime than its task.
#[test]
fn a_counter_whose_task_was_left_is_flushed_when_it_is_dropped_elsewhere() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let (a, engine) = (key("a"), Arc::downgrade(&owner.0));
        let first = Handle::that_may_be_left();
        first.spawn(add(owner.0.clone(), a.clone(), 1, 2)).await.unwrap();
        first.leave();
        drop(owner);
        while engine.strong_count() > 0 {
            yield_now().await;
        }
        assert_eq!(store.total(&a), 2);
        first.come_back();
    });
}

/// What is cancelled with a dropped request is that request alone.
#[test]
fn a_dropped_request_interrupts_no_other() {
    check(|| async {
        let store = Store::default();
        let owner = counter(&store, SETTINGS);
        let (a, b) = (key("a"), key("b"));
        let other = spawn({
            let (core, a) = (owner.0.clone(), a.clone());
            async move {
                core.set(Write::set(a.clone(), 7)).await;
                core.set(Write::set(a, 8)).await;
            }
        });
        for _ in 0..2 {
            let writes = [Write::set(b.clone(), 50)];
            let mut request = Box::pin(owner.0.write_now(&writes));
            _ = futures_util::FutureExt::now_or_never(&mut request);
            yield_now().await;
        }
        other.await.unwrap();
        flush(&owner.0).await;
        assert_eq!(store.total(&a), 8);
        assert_idle(&owner.0);
    });
}

/// Accepts `count` under each token, whatever reads fail meanwhile. Answers never go down.
async fn promise(engine: Arc<Engine<Plain>>, key: RedisKey, count: i64, tokens: [&'static str; 2]) {
    let mut last = 0;
    for token in tokens {
        let token = Token::new(token).unwrap();
        let sum = loop {
            let promised = match engine.with_known(&key, |cell| engine.promise(cell, count, &token))
            {
                Some(promised) => promised,
                None => match engine.known(&key).await {
                    Ok(cell) => engine.promise(&cell, count, &token),
                    Err(error) => Err(error),
                },
            };
            match promised {
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

#[test]
fn additions_under_tokens_reach_the_store_once_beside_sums() {
    check(|| async {
        let store = Store::losing(3);
        let owner = counter(&store, SETTINGS);
        let a = key("a");
        let promisers = [(10, ["1", "2"]), (100, ["3", "4"])]
            .map(|(count, tokens)| spawn(promise(owner.0.clone(), a.clone(), count, tokens)));
        let adder = spawn(add(owner.0.clone(), a.clone(), 1, 3));
        store.add(&a, 1000);
        flush(&owner.0).await;
        for promiser in promisers {
            promiser.await.unwrap();
        }
        adder.await.unwrap();
        until_flushed(&owner.0, &store, &a, 1223).await;
        assert_idle(&owner.0);
        assert!(owner.0.take_replayed().is_empty(), "its own attempts are no replays");
        let total = loop {
            match owner.0.get(&a).await {
                Ok(total) => break total,
                Err(_) => yield_now().await,
            }
        };
        assert_eq!(total, 1223);
    });
}

#[test]
fn a_set_comes_after_the_additions_under_tokens_that_came_before() {
    check(|| async {
        let store = Store::losing(0);
        let owner = counter(&store, SETTINGS);
        let (engine, a) = (&owner.0, key("a"));
        promise(engine.clone(), a.clone(), 10, ["1", "2"]).await;
        let later = spawn(promise(engine.clone(), key("b"), 1, ["1", "2"]));
        assert_eq!(engine.set(Write::set(a.clone(), 500)).await, 20);
        promise(engine.clone(), a.clone(), 1, ["3", "4"]).await;
        later.await.unwrap();
        flush(engine).await;
        assert_eq!((store.total(&a), store.total(&key("b"))), (502, 2));
        assert_idle(engine);
    });
}

/// What was accepted is in the store after a shutdown, or in its report, and not both.
#[test]
fn a_shutdown_sends_or_reports_each_addition_under_a_token() {
    check(|| async {
        let store = Store::losing(4);
        let owner = counter(&store, SETTINGS);
        let (engine, a) = (&owner.0, key("a"));
        promise(engine.clone(), a.clone(), 10, ["1", "2"]).await;
        let report = engine.shutdown(Duration::from_millis(10)).await.err().unwrap_or_default();
        let left = |fate| report.tokens.iter().filter(|token| token.fate == fate).count() as i64;
        let (pending, unknown) = (left(TokenFate::Pending), left(TokenFate::Unknown));
        yield_now().await;
        let sent = store.total(&a);
        assert!(sent <= 20 - 10 * pending, "{sent}: {report:?}");
        assert!(sent >= 20 - 10 * (pending + unknown), "{sent}: {report:?}");
        assert!(!engine.has_pending() || pending + unknown > 0);
    });
}
