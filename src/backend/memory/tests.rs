use futures_util::FutureExt;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    CounterComparator,
    backend::{Refusal, Written},
};

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);

fn key(name: &str) -> RedisKey {
    RedisKey::new(name).unwrap()
}

fn space() -> Space {
    Space::new(key("space"))
}

fn add(count: i64) -> [Write; 1] {
    [Write::add(key("hits"), count)]
}

fn guard(sequence: u64) -> ReplayGuard {
    ReplayGuard { writer: "writer".into(), sequence, resent: false }
}

/// What the store holds, asked past all links.
fn total(store: &MemoryBackend) -> i64 {
    store.locked(|state, now| {
        let read = state.plain.read(now, &space(), &[key("hits")], Takes::Open);
        read.unwrap()[0].clone().unwrap()
    })
}

fn fault<T: fmt::Debug>(result: Result<T, BackendError>) -> (bool, LinkFault) {
    let error = result.unwrap_err();
    let (BackendError::NotApplied(cause) | BackendError::OutcomeUnknown(cause)) = &error else {
        panic!("not a fault of a link: {error}");
    };
    (error.may_have_happened(), *cause.downcast_ref::<LinkFault>().unwrap())
}

#[test]
fn works_outside_of_a_runtime() {
    let store = MemoryBackend::default();
    let link = store.link();
    link.apply(&space(), &add(2), Some(&guard(1))).now_or_never().unwrap().unwrap();
    let read = store.read(&space(), &[key("hits"), key("none")]).now_or_never().unwrap();
    assert_eq!(read.unwrap(), [Ok(2), Ok(0)]);
}

#[tokio::test]
async fn a_clone_is_the_same_store_and_a_new_one_is_empty() {
    let store = MemoryBackend::new();
    store.clone().apply(&space(), &add(1), None).await.unwrap();
    assert_eq!((total(&store), total(&MemoryBackend::new())), (1, 0));
    assert_eq!((store.len(&space()), store.len(&Space::new(key("other")))), (1, 0));
    store.link().clear(&space()).await.unwrap();
    assert_eq!(store.len(&space()), 0);
}

#[tokio::test]
async fn arithmetic_is_exact_up_to_the_limits() {
    let store = MemoryBackend::new();
    for (limit, one) in [(i64::MAX, 1), (i64::MIN, -1)] {
        let hits = key("hits");
        let writes = [
            Write::set(hits.clone(), limit - one),
            Write::add(hits.clone(), one),
            Write::add(hits.clone(), one),
            Write::add(hits.clone(), limit),
            Write::add(hits.clone(), 0),
        ];
        let outcomes = store.apply(&space(), &writes, None).await.unwrap().outcomes;
        let written = |old, new| Ok(Written { old, new, condition_met: true });
        assert_eq!(outcomes[1], written(limit - one, limit));
        assert_eq!(outcomes[2..4], [Err(Refusal::Overflow), Err(Refusal::Overflow)]);
        assert_eq!(outcomes[4], written(limit, limit));
        let removed = store.apply(&space(), &[Write::remove(hits)], None).await.unwrap();
        assert_eq!(removed.outcomes, [written(limit, 0)]);
    }
}

#[tokio::test]
async fn only_an_unconditional_assignment_replaces_foreign_data() {
    let store = MemoryBackend::new();
    let hits = key("hits");
    store.corrupt(&space(), &hits, "abc");
    let refused = Err(Refusal::NotANumber { found: "abc".into() });
    let set = Write::set(hits.clone(), 7);
    let writes = [Write::add(hits.clone(), 1), set.clone().only_if(CounterComparator::Ne(1)), set];
    let outcomes = store.apply(&space(), &writes, None).await.unwrap().outcomes;
    assert_eq!(outcomes[..2], [refused.clone(), refused]);
    assert_eq!(outcomes[2], Ok(Written { old: 0, new: 7, condition_met: true }));
    assert_eq!(total(&store), 7);
}

#[tokio::test]
async fn a_writer_is_forgotten_a_day_after_its_last_batch_and_a_jump_of_the_clock_is_no_day() {
    let clock = ManualClock::new();
    let store = MemoryBackend::with_clock(clock.clone());
    let send = async |writer: &str, sequence| {
        let guard = ReplayGuard { writer: writer.into(), sequence, resent: false };
        store.apply(&space(), &add(1), Some(&guard)).await.unwrap().replayed
    };
    assert!(!send("a", 1).await);
    clock.advance(10 * DAY);
    assert!(!send("b", 1).await);
    assert!(send("a", 1).await);
    for minute in 0..24 * 60 {
        assert!(send("a", 1).await, "minute {minute}");
        clock.advance(Duration::from_secs(60));
        assert!(!send("b", minute + 2).await);
    }
    assert_eq!(store.guarded_writers(), 2);
    assert!(!send("c", 1).await);
    assert_eq!(store.guarded_writers(), 2, "the first one's day is over");
    assert!(!send("a", 1).await);
}

#[tokio::test]
async fn a_batch_in_doubt_whose_guard_was_lost_is_forgotten() {
    let store = MemoryBackend::new();
    let send = async |resent| {
        store.apply(&space(), &add(1), Some(&ReplayGuard { resent, ..guard(1) })).await
    };
    send(false).await.unwrap();
    store.lose_guards(&space());
    assert!(matches!(send(true).await, Err(BackendError::Forgotten)));
    assert_eq!(total(&store), 1);
    send(false).await.unwrap();
    assert!(send(true).await.unwrap().replayed);
    store.lose_guards(&space());
    store.wipe();
    send(true).await.unwrap();
    assert_eq!(total(&store), 1, "what was applied before went with all data");
}

#[tokio::test]
async fn a_writer_is_known_in_its_space_only_and_survives_a_clear() {
    let store = MemoryBackend::new();
    let other = Space::new(key("other"));
    for (space, replayed) in [(space(), false), (other.clone(), false), (space(), true)] {
        let applied = store.apply(&space, &add(1), Some(&guard(1))).await.unwrap();
        assert_eq!(applied.replayed, replayed);
    }
    store.clear(&other).await.unwrap();
    assert!(store.apply(&other, &add(1), Some(&guard(1))).await.unwrap().replayed);
    assert_eq!(store.len(&other), 0);
}

#[tokio::test]
async fn a_wipe_loses_counters_and_writers_but_gives_no_id_twice() {
    let store = MemoryBackend::new();
    store.apply(&space(), &add(1), Some(&guard(1))).await.unwrap();
    let ids = [store.fresh_id(), store.link().fresh_id()];
    store.wipe();
    assert_eq!((store.len(&space()), store.guarded_writers()), (0, 0));
    assert!(!store.apply(&space(), &add(1), Some(&guard(1))).await.unwrap().replayed);
    assert_eq!((&*ids[0], &*ids[1], &*store.fresh_id()), ("id-1", "id-2", "id-3"));
}

#[tokio::test]
async fn a_cut_link_sends_nothing_and_the_others_go_on() {
    let store = MemoryBackend::new();
    let (cut, whole) = (store.link(), store.link());
    cut.clone().cut();
    assert!(cut.is_cut());
    let refused = cut.apply(&space(), &add(1), None).await;
    assert_eq!(fault(refused), (false, LinkFault::Cut));
    assert_eq!(fault(cut.read(&space(), &[]).await), (false, LinkFault::Cut));
    assert_eq!(fault(cut.apply(&space(), &[], None).await), (false, LinkFault::Cut));
    assert_eq!(fault(cut.clear(&space()).await), (false, LinkFault::Cut));
    whole.apply(&space(), &add(10), None).await.unwrap();
    cut.restore();
    cut.apply(&space(), &add(100), None).await.unwrap();
    assert_eq!((total(&store), cut.requests(), whole.requests()), (110, 5, 1));
}

#[tokio::test(start_paused = true)]
async fn half_of_the_latency_passes_before_the_store_applies() {
    let store = MemoryBackend::new();
    let link = store.link();
    link.set_latency(20 * MS);
    let start = Instant::now();
    let sent = tokio::spawn({
        let link = link.clone();
        async move { link.apply(&space(), &add(1), None).await }
    });
    sleep(9 * MS).await;
    assert_eq!(total(&store), 0);
    sleep(2 * MS).await;
    assert_eq!(total(&store), 1);
    assert!(!sent.is_finished());
    sent.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), 20 * MS);
}

/// Sends a request that takes 20 ms, cuts the link after `wait` and, perhaps, restores it at once.
async fn cut_under_way(wait: Duration, restore: bool) -> i64 {
    let store = MemoryBackend::new();
    let link = store.link();
    link.set_latency(20 * MS);
    let start = Instant::now();
    let writes = add(1);
    let space = space();
    let (sent, ()) = tokio::join!(link.apply(&space, &writes, None), async {
        sleep(wait).await;
        link.cut();
        if restore {
            link.restore();
        }
    });
    assert_eq!(fault(sent), (true, LinkFault::CutUnderWay));
    assert_eq!(start.elapsed(), wait, "the caller hears of the cut at once");
    sleep(40 * MS).await;
    total(&store)
}

#[tokio::test(start_paused = true)]
async fn a_cut_loses_what_is_under_way() {
    for restore in [false, true] {
        assert_eq!(cut_under_way(5 * MS, restore).await, 0);
        assert_eq!(cut_under_way(15 * MS, restore).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_requests_in_the_order_in_which_they_were_sent() {
    let link = MemoryBackend::new().link();
    link.set_latency(Duration::from_millis(10));
    let ended = Arc::new(Mutex::new(Vec::new()));
    let mut clients = JoinSet::new();
    for n in 0..100 {
        let (link, ended) = (link.clone(), ended.clone());
        clients.spawn(async move {
            link.read(&space(), &[key("k")]).await.unwrap_err();
            ended.lock().push(n);
        });
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    link.cut();
    clients.join_all().await;
    assert!(ended.lock().is_sorted(), "{:?}", ended.lock());
}

#[tokio::test(start_paused = true)]
async fn lost_requests_are_not_applied_and_lost_replies_are() {
    let store = MemoryBackend::new();
    let link = store.link();
    link.set_latency(10 * MS);
    link.lose_next_replies(1);
    link.lose_next_requests(2);
    let start = Instant::now();
    let mut seen = Vec::new();
    for count in [1, 10] {
        let lost = fault(link.apply(&space(), &add(count), None).await);
        seen.push((lost, total(&store)));
    }
    let lost = fault(link.apply(&space(), &add(100), None).await);
    seen.push((lost, total(&store)));
    link.apply(&space(), &add(1000), None).await.unwrap();
    let expected = [
        ((true, LinkFault::RequestLost), 0),
        ((true, LinkFault::RequestLost), 0),
        ((true, LinkFault::ReplyLost), 100),
    ];
    assert_eq!(seen, expected);
    assert_eq!(total(&store), 1100);
    assert_eq!(start.elapsed(), 40 * MS);
    assert_eq!(link.requests(), 4);
}

/// As with a server: a read has nothing that may have happened.
#[tokio::test]
async fn a_read_that_is_lost_has_changed_nothing() {
    let link = MemoryBackend::new().link();
    link.lose_next_requests(1);
    link.lose_next_replies(1);
    for lost in [LinkFault::RequestLost, LinkFault::ReplyLost] {
        let answer = link.read(&space(), &[key("hits")]).await;
        assert_eq!(fault(answer), (false, lost));
    }
}

#[tokio::test]
async fn losses_wait_for_a_request_that_is_sent_and_can_be_called_off() {
    let store = MemoryBackend::new();
    let link = store.link();
    link.lose_next_requests(1);
    link.cut();
    assert_eq!(fault(link.apply(&space(), &add(1), None).await).1, LinkFault::Cut);
    link.restore();
    assert_eq!(fault(link.apply(&space(), &add(1), None).await).1, LinkFault::RequestLost);
    link.lose_next_requests(5);
    link.lose_next_replies(5);
    link.lose_next_requests(0);
    link.lose_next_replies(0);
    link.apply(&space(), &add(1), None).await.unwrap();
    assert_eq!(total(&store), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_is_applied_only_if_it_had_arrived() {
    for (wait, expected) in [(5, 0), (15, 1)] {
        let store = MemoryBackend::new();
        let link = store.link();
        link.set_latency(20 * MS);
        let dropped = tokio::time::timeout(wait * MS, link.apply(&space(), &add(1), None)).await;
        assert!(dropped.is_err());
        sleep(40 * MS).await;
        assert_eq!(total(&store), expected);
        link.set_latency(Duration::ZERO);
        link.apply(&space(), &add(1), None).await.unwrap();
        assert_eq!(total(&store), expected + 1);
    }
}

/// Four clients with different faults write to shared keys; what each of them saw, and when.
fn simulate() -> Vec<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let store = MemoryBackend::new();
        let trace = Arc::new(Mutex::new(Vec::new()));
        let mut clients = JoinSet::new();
        for client in 1..=4_u32 {
            let (store, trace) = (store.clone(), trace.clone());
            clients.spawn(async move {
                let link = store.link();
                link.set_latency(2 * client * MS);
                let writer = link.fresh_id();
                for sequence in 1..=20_u64 {
                    match (sequence + u64::from(client)) % 5 {
                        0 => link.lose_next_requests(1),
                        1 => link.lose_next_replies(1),
                        2 => link.cut(),
                        _ => link.restore(),
                    }
                    let guard = ReplayGuard { writer: writer.clone(), sequence, resent: false };
                    let writes =
                        [Write::add(key("hits"), 1), Write::add(key(&format!("k{client}")), 1)];
                    let result = link.apply(&space(), &writes, Some(&guard)).await;
                    let line = format!("{:?} {writer} {sequence} {result:?}", store.now());
                    trace.lock().push(line);
                    sleep(client * MS).await;
                }
            });
        }
        clients.join_all().await;
        let state = format!("{store:?}");
        let mut trace = std::mem::take(&mut *trace.lock());
        trace.push(state.split_once("state").unwrap().1.to_owned());
        trace
    })
}

#[test]
fn the_same_simulation_runs_the_same_way() {
    let first = simulate();
    assert_eq!(first.len(), 81);
    for outcome in ["replayed: false", "Cut", "RequestLost", "ReplyLost"] {
        assert!(first.iter().any(|line| line.contains(outcome)), "{outcome} never happened");
    }
    for _ in 0..5 {
        assert_eq!(simulate(), first);
    }
}

#[test]
fn a_name_is_one_store() {
    let first = MemoryBackend::named("tests::a_name_is_one_store");
    first.corrupt(&space(), &key("hits"), "3");
    assert_eq!(total(&MemoryBackend::named("tests::a_name_is_one_store")), 3);
    assert_eq!(total(&MemoryBackend::named("tests::another")), 0);
}
