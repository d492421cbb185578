//! Which calls the instance-aware counters make, one by one.

#[allow(dead_code, reason = "other tests need the rest")]
#[path = "support/mock_store.rs"]
mod mock_store;

use std::{sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, RedisKey,
    backend::{
        Applied, BackendError, Epoch, Incarnation, Instance, Joined, Member, Ordered, Outcome,
        Scope, Slice, SliceChange, SliceWrite, Standing, Written, memory::MemoryBackend,
    },
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use mock_store::{ID, MockStore, PREFIX};
use mockall::Sequence;

const LEASE: Duration = Duration::from_secs(30);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn strict(store: MockStore) -> Arc<StrictInstanceAwareCounter> {
    StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(key(PREFIX), store))
}

fn lax(store: MockStore) -> Arc<LaxInstanceAwareCounter> {
    LaxInstanceAwareCounter::new(LaxInstanceAwareCounterOptions::new(key(PREFIX), store))
}

fn write(name: &str, change: SliceChange) -> SliceWrite {
    SliceWrite { key: key(name), change, condition: CounterComparator::Nil }
}

fn standing(total: i64, slice: i64) -> Standing {
    Standing { total, slice, epoch: Epoch(7) }
}

fn ordered<T>(version: u64, answer: T) -> Ordered<T> {
    Ordered { version, answer }
}

fn written(new: Standing) -> Written<Standing> {
    Written { old: Standing::default(), new, condition_met: true }
}

fn applied(version: u64, slices: &[i64]) -> Ordered<Applied<Standing>> {
    let outcomes = slices.iter().map(|n| Ok(written(standing(*n, *n)))).collect();
    ordered(version, Applied { replayed: false, record: None, outcomes })
}

fn lost() -> BackendError {
    BackendError::outcome_unknown("lost")
}

fn is(member: &Member, incarnation: u64) -> bool {
    *member == Member { incarnation: Incarnation(incarnation), lease: LEASE }
}

/// The first join: of an instance that the store has never seen, and that has nothing.
fn joins(store: &mut MockStore, order: &mut Sequence) {
    let newcomer = Instance::new(ID.into(), LEASE);
    store
        .expect_join()
        .withf(move |instance, slices| *instance == newcomer && slices.is_empty())
        .times(1)
        .in_sequence(order)
        .returning(|_, _| {
            Ok(Joined { incarnation: Incarnation(1), born: None, standings: Vec::new() })
        });
}

/// A later join, which brings `claims` as it is told and gets them all back.
fn joins_again(store: &mut MockStore, order: &mut Sequence, incarnation: u64, claims: Vec<Slice>) {
    store
        .expect_join()
        .withf(move |instance, slices| {
            instance.first_joined == Some(Incarnation(1)) && *slices == claims
        })
        .times(1)
        .in_sequence(order)
        .returning(move |_, slices| {
            let standings = slices.iter().map(|s| Ok(standing(s.value, s.value))).collect();
            Ok(Joined { incarnation: Incarnation(incarnation), born: None, standings })
        });
}

fn claim(name: &str, value: i64) -> Slice {
    Slice { key: key(name), epoch: Epoch(7), value }
}

fn applies(
    store: &mut MockStore,
    order: &mut Sequence,
    incarnation: u64,
    writes: Vec<SliceWrite>,
    sequence: Option<u64>,
    answer: Result<Ordered<Applied<Standing>>, BackendError>,
) {
    store
        .expect_apply_on()
        .withf(move |member, w, s| is(member, incarnation) && *w == writes && *s == sequence)
        .times(1)
        .in_sequence(order)
        .return_once(move |_, _, _| answer);
}

#[tokio::test(start_paused = true)]
async fn each_strict_operation_is_one_call() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    for (version, change, n) in [
        (1, SliceChange::Add(2), 2),
        (2, SliceChange::SetTotal(9), 9),
        (3, SliceChange::SetSlice(4), 4),
    ] {
        let answer = Ok(applied(version, &[n]));
        applies(&mut store, &mut order, 1, vec![write("a", change)], None, answer);
    }
    store
        .expect_read_on()
        .withf(|member, keys| is(member, 1) && *keys == [key("b"), key("a")])
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _| Ok(ordered(4, vec![Ok(standing(0, 0)), Ok(standing(4, 4))])));
    for (version, change) in [(5, SliceChange::RemoveSlice), (6, SliceChange::Remove)] {
        store
            .expect_apply_on()
            .withf(move |member, writes, sequence| {
                is(member, 1) && *writes == [write("a", change)] && sequence.is_none()
            })
            .times(1)
            .in_sequence(&mut order)
            .returning(move |_, _, _| {
                let removed = Ok(Written { old: standing(4, 4), ..written(standing(0, 0)) });
                Ok(ordered(
                    version,
                    Applied { replayed: false, record: None, outcomes: vec![removed] },
                ))
            });
    }
    for scope in [Scope::Slice, Scope::Total] {
        store
            .expect_clear_on()
            .withf(move |member, s| is(member, 1) && *s == scope)
            .times(1)
            .in_sequence(&mut order)
            .returning(|_, _| Ok(()));
    }
    store.expect_leave().withf(|m| is(m, 1)).times(1).in_sequence(&mut order).returning(|_| Ok(()));

    let counter = strict(store);
    let (a, b) = (key("a"), key("b"));
    assert_eq!(counter.inc(&a, 2).await.unwrap(), (2, 2));
    assert_eq!(counter.set(&a, 9).await.unwrap(), (9, 9));
    assert_eq!(counter.set_on_instance(&a, 4).await.unwrap(), (4, 4));
    assert_eq!(*counter.get_all(&[&b, &a]).await.unwrap()[1].1.as_ref().unwrap(), (4, 4));
    assert_eq!(counter.del_on_instance(&a).await.unwrap(), (0, 4));
    assert_eq!(counter.del(&a).await.unwrap(), (4, 4));
    counter.clear_on_instance().await.unwrap();
    counter.clear().await.unwrap();
    counter.leave().await.unwrap();
    assert!(matches!(counter.inc(&a, 1).await, Err(DistkitError::ShutDown)));
}

#[tokio::test(start_paused = true)]
async fn a_strict_write_whose_reply_is_lost_is_not_sent_again() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    for change in [SliceChange::Add(2), SliceChange::SetTotal(9), SliceChange::SetSlice(4)] {
        applies(&mut store, &mut order, 1, vec![write("a", change)], None, Err(lost()));
    }
    store.expect_apply_on().times(2).in_sequence(&mut order).returning(|_, _, _| Err(lost()));
    let counter = strict(store);
    let a = key("a");
    assert!(counter.inc(&a, 2).await.unwrap_err().may_have_happened());
    assert!(counter.set(&a, 9).await.unwrap_err().may_have_happened());
    assert!(counter.set_on_instance(&a, 4).await.unwrap_err().may_have_happened());
    assert!(counter.del(&a).await.unwrap_err().may_have_happened());
    assert!(counter.del_on_instance(&a).await.unwrap_err().may_have_happened());
    // Nor later, as long as the first heartbeat is not due.
    tokio::time::sleep(LEASE / 4).await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_not_joined_joins_once_and_does_the_operation() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    let add = |count| vec![write("a", SliceChange::Add(count))];
    applies(&mut store, &mut order, 1, add(2), None, Ok(applied(1, &[2])));
    applies(&mut store, &mut order, 1, add(3), None, Err(BackendError::NotJoined));
    joins_again(&mut store, &mut order, 5, vec![claim("a", 2)]);
    applies(&mut store, &mut order, 5, add(3), None, Ok(applied(1, &[5])));
    // A lost write is not part of what the instance brings.
    applies(&mut store, &mut order, 5, add(10), None, Err(lost()));
    applies(&mut store, &mut order, 5, add(1), None, Err(BackendError::NotJoined));
    joins_again(&mut store, &mut order, 6, vec![claim("a", 5)]);
    applies(&mut store, &mut order, 6, add(1), None, Ok(applied(1, &[6])));

    let counter = strict(store);
    let a = key("a");
    assert_eq!(counter.inc(&a, 2).await.unwrap(), (2, 2));
    assert_eq!(counter.inc(&a, 3).await.unwrap(), (5, 5));
    assert!(counter.inc(&a, 10).await.unwrap_err().may_have_happened());
    assert_eq!(counter.inc(&a, 1).await.unwrap(), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn an_operation_joins_a_bounded_number_of_times() {
    let mut store = MockStore::new();
    store.expect_join().times(1 + 4).returning(|_, _| {
        Ok(Joined { incarnation: Incarnation(1), born: None, standings: Vec::new() })
    });
    store.expect_apply_on().times(1 + 4).returning(|_, _, _| Err(BackendError::NotJoined));
    let error = strict(store).inc(&key("a"), 1).await.unwrap_err();
    assert!(matches!(error, DistkitError::NotApplied(BackendError::NotJoined)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_sends_a_heartbeat_each_third_of_its_lease_and_nothing_else() {
    for is_lax in [false, true] {
        let (mut store, mut order) = (MockStore::new(), Sequence::new());
        joins(&mut store, &mut order);
        // A lax counter refreshes what was just read a few times.
        let reads = if is_lax { 1..=5 } else { 1..=1 };
        store.expect_read_on().times(reads).returning(zeros());
        let (beats, mut heard) = tokio::sync::mpsc::unbounded_channel();
        store.expect_heartbeat().withf(|member| is(member, 1)).times(10).returning(move |_| {
            beats.send(tokio::time::Instant::now()).unwrap();
            Ok(())
        });
        let counter: Arc<dyn InstanceAwareCounterTrait> =
            if is_lax { lax(store) } else { strict(store) };
        let began = tokio::time::Instant::now();
        counter.get(&key("a")).await.unwrap();
        tokio::time::sleep(LEASE * 10 / 3 + LEASE / 6).await;
        drop(counter);
        // The task is gone with its counter.
        tokio::time::sleep(LEASE * 10).await;
        for n in 1..=10 {
            let late = heard.try_recv().unwrap() - (began + LEASE / 3 * n);
            assert!(late < Duration::from_millis(100), "beat {n} was {late:?} late");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missed_heartbeat_is_repeated_at_once_and_then_well_within_the_lease() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    store.expect_read_on().times(1).returning(|_, _| Ok(ordered(1, vec![Ok(standing(0, 0))])));
    store.expect_heartbeat().times(2).in_sequence(&mut order).returning(|_| Err(lost()));
    store.expect_heartbeat().times(1).in_sequence(&mut order).returning(|_| Ok(()));
    let counter = strict(store);
    counter.get(&key("a")).await.unwrap();
    tokio::time::sleep(LEASE / 3 + LEASE / 10 + Duration::from_secs(1)).await;
}

/// The keys that the first use of each reads.
fn reads_zero(store: &mut MockStore, times: usize) {
    store.expect_read_on().times(times).returning(zeros());
}

type Read = Result<Ordered<Vec<Outcome<Standing>>>, BackendError>;

/// Answers of reads, numbered 10, 20, ...
fn zeros() -> impl FnMut(Member, Vec<RedisKey>) -> Read {
    let mut version = 0;
    move |_, keys| {
        version += 10;
        Ok(ordered(version, keys.iter().map(|_| Ok(standing(0, 0))).collect()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_lax_flush_is_one_guarded_batch() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    reads_zero(&mut store, 3);
    let batch = [("a", 11), ("b", 2)].map(|(name, n)| write(name, SliceChange::Add(n)));
    let batch = batch.into_iter().chain([write("c", SliceChange::SetSlice(5))]).collect();
    applies(&mut store, &mut order, 1, batch, Some(1), Ok(applied(100, &[11, 2, 5])));
    let counter = lax(store);
    for (name, count) in [("a", 1), ("b", 2), ("c", 3), ("a", 10)] {
        counter.inc(&key(name), count).await.unwrap();
    }
    assert_eq!(counter.set_on_instance(&key("c"), 5).await.unwrap(), (5, 5));
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(start_paused = true)]
async fn the_warm_lax_path_makes_no_call() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    reads_zero(&mut store, 1);
    let batch = vec![write("a", SliceChange::Add(1))];
    applies(&mut store, &mut order, 1, batch, Some(1), Ok(applied(100, &[1])));
    let counter = lax(store);
    let a = key("a");
    counter.inc(&a, 1).await.unwrap();
    counter.flush().await.unwrap();
    // Nothing but the above is expected, and no time passes for a flush.
    for n in 2..100 {
        assert_eq!(counter.inc(&a, 1).await.unwrap(), (n, n));
        assert_eq!(counter.get(&a).await.unwrap(), (n, n));
        assert_eq!(counter.set_on_instance(&a, n).await.unwrap(), (n, n));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lax_batch_is_sent_again_as_it_was_also_as_another_incarnation() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    reads_zero(&mut store, 1);
    let five = || vec![write("a", SliceChange::Add(5))];
    applies(&mut store, &mut order, 1, five(), Some(1), Err(lost()));
    applies(&mut store, &mut order, 1, five(), Some(1), Err(lost()));
    applies(&mut store, &mut order, 1, five(), Some(1), Err(BackendError::NotJoined));
    // Nothing was acknowledged, so there is nothing to bring.
    joins_again(&mut store, &mut order, 5, vec![]);
    applies(&mut store, &mut order, 5, five(), Some(1), Ok(applied(1, &[5])));
    let seven = vec![write("a", SliceChange::Add(7))];
    applies(&mut store, &mut order, 5, seven, Some(2), Ok(applied(2, &[12])));
    let counter = lax(store);
    let a = key("a");
    counter.inc(&a, 5).await.unwrap();
    assert!(counter.flush().await.unwrap_err().may_have_happened());
    assert_eq!(counter.inc(&a, 7).await.unwrap(), (12, 12));
    tokio::time::sleep(Duration::from_secs(5)).await;
    counter.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lax_set_is_sent_once_and_then_fenced() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    // The second one because nobody knows what the first `set` did.
    reads_zero(&mut store, 2);
    let set = vec![write("a", SliceChange::SetTotal(9))];
    applies(&mut store, &mut order, 1, set, Some(1), Err(lost()));
    applies(&mut store, &mut order, 1, vec![], Some(1), Err(lost()));
    let fenced = Applied { replayed: true, record: None, outcomes: Vec::new() };
    applies(&mut store, &mut order, 1, vec![], Some(1), Ok(ordered(15, fenced)));
    let counter = lax(store);
    let a = key("a");
    // Not with `get`, after which the key would be kept fresh.
    counter.inc(&a, 0).await.unwrap();
    assert!(counter.set(&a, 9).await.unwrap_err().may_have_happened());
    tokio::time::sleep(Duration::from_secs(5)).await;
    counter.inc(&a, 0).await.unwrap();
    counter.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_acknowledged_operations_gets_them_back() {
    let (mut store, mut order) = (MockStore::new(), Sequence::new());
    joins(&mut store, &mut order);
    let add = || vec![write("a", SliceChange::Add(1))];
    applies(&mut store, &mut order, 1, add(), None, Ok(applied(8, &[5])));
    // A replica took over that was behind by one operation.
    applies(&mut store, &mut order, 1, add(), None, Ok(applied(8, &[5])));
    joins_again(&mut store, &mut order, 2, vec![claim("a", 5)]);
    applies(&mut store, &mut order, 2, add(), None, Ok(applied(1, &[6])));
    let counter = strict(store);
    for slice in [5, 6] {
        assert_eq!(counter.inc(&key("a"), 1).await.unwrap(), (slice, slice));
    }
}

#[tokio::test(start_paused = true)]
async fn operations_that_are_turned_away_together_join_again_once() {
    let store = MemoryBackend::new();
    let link = store.link();
    let options = StrictInstanceAwareCounterOptions::new(key(PREFIX), link.clone());
    let away = StrictInstanceAwareCounter::new(options);
    let options = StrictInstanceAwareCounterOptions::new(key(PREFIX), store);
    let stays = StrictInstanceAwareCounter::new(options);
    let a = key("a");
    away.inc(&a, 1).await.unwrap();
    link.cut();
    tokio::time::sleep(2 * LEASE).await;
    assert_eq!(stays.get(&a).await.unwrap(), (0, 0));

    link.restore();
    link.set_latency(Duration::from_millis(2));
    let before = link.requests();
    // With a condition, so that they do not share a request.
    let add = || away.inc_if(&a, CounterComparator::Ge(0), 1);
    let (one, two, three) = tokio::join!(add(), add(), add());
    let mut totals = [one, two, three].map(|answer| answer.unwrap().0.0);
    totals.sort_unstable();
    assert_eq!(totals, [2, 3, 4]);
    assert_eq!(link.requests() - before, 3 + 1 + 3, "each twice, and one join");
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_overtaken_by_a_leave_does_not_bring_the_instance_back() {
    for waits in [true, false] {
        let store = MemoryBackend::new();
        let link = store.link();
        link.set_latency(Duration::from_millis(100));
        let counter = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
            key(PREFIX),
            link.clone(),
        ));
        let adding = tokio::spawn({
            let counter = counter.clone();
            async move { counter.inc(&key("a"), 1).await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        if waits {
            counter.leave().await.unwrap();
        } else {
            let soon = Duration::from_millis(10);
            tokio::time::timeout(soon, counter.leave()).await.unwrap_err();
        }
        let answer = adding.await.unwrap();
        assert!(matches!(answer, Err(DistkitError::ShutDown)), "{answer:?}");
        tokio::time::sleep(10 * LEASE).await;
        assert_eq!(link.requests(), if waits { 2 } else { 1 }, "a join, and no heartbeat");
        counter.leave().await.unwrap();
        assert_eq!(link.requests(), 2);
    }
}
