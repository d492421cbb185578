//! Lax counters with tokens, under simulated time.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "support/log.rs"]
mod log;

use std::{collections::HashMap, sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, RedisKey, Token,
    backend::{
        BackendError, Refusal, Resolved, Space,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter, TokenFate, UnflushedToken},
};
use log::Log;
use tokio::time::{Instant, sleep};

const LAG: Duration = Duration::from_millis(20);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn token(name: &str) -> Token {
    Token::new(name).unwrap()
}

fn options(link: &MemoryLink) -> CounterOptions {
    CounterOptions::new(key("shop"), link.clone())
}

struct Bed {
    store: MemoryBackend,
    link: MemoryLink,
    counter: Arc<LaxCounter>,
    /// Another process.
    strict: Arc<StrictCounter>,
    sold: RedisKey,
}

fn bed() -> Bed {
    let store = MemoryBackend::new();
    let link = store.link();
    let strict = StrictCounter::new(options(&store.link()));
    let counter = LaxCounter::new(options(&link));
    Bed { store, link, counter, strict, sold: key("sold") }
}

fn entry(name: &str, count: i64, fate: TokenFate) -> (String, i64, TokenFate) {
    (name.to_owned(), count, fate)
}

fn told(tokens: &[UnflushedToken]) -> Vec<(String, i64, TokenFate)> {
    tokens.iter().map(|one| (one.token.to_string(), one.count, one.fate.clone())).collect()
}

/// The refusal of a call.
#[track_caller]
fn refusal<T: std::fmt::Debug>(answer: Result<T, DistkitError>) -> Refusal {
    match answer {
        Err(DistkitError::CounterError { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_addition_is_accepted_at_once_and_sent_within_the_lag() {
    let Bed { link, counter, strict, sold, .. } = bed();
    counter.inc(&sold, 1).await.unwrap();
    counter.flush().await.unwrap();
    let before = link.requests();
    for n in 0..5 {
        let order = token(&format!("order {n}"));
        assert_eq!(counter.inc_once(&sold, 2, &order).await.unwrap(), 3 + 2 * n);
    }
    assert_eq!(counter.inc(&sold, 100).await.unwrap(), 111);
    assert_eq!(counter.get(&sold).await.unwrap(), 111);
    assert_eq!(link.requests(), before, "no I/O");
    assert_eq!(counter.stats().pending_keys, 6, "a key with a sum, and five additions");
    sleep(LAG).await;
    assert_eq!(strict.get(&sold).await.unwrap(), 111);
    assert_eq!(link.requests(), before + 2, "the additions in one request, the sum in another");
    assert_eq!(counter.stats().pending_keys, 0);
    assert_eq!(counter.stats().oldest_pending, None);
    let done = Resolved::Done { amount: 2, answer: 7 };
    assert_eq!(strict.resolve(&sold, &token("order 2")).await.unwrap(), done);
}

#[tokio::test(start_paused = true)]
async fn additions_of_zero_and_below_are_additions() {
    let Bed { counter, strict, sold, .. } = bed();
    assert_eq!(counter.inc_once(&sold, -3, &token("a")).await.unwrap(), -3);
    assert_eq!(counter.inc_once(&sold, 0, &token("b")).await.unwrap(), -3);
    counter.flush().await.unwrap();
    assert_eq!(strict.get(&sold).await.unwrap(), -3);
    let done = Resolved::Done { amount: 0, answer: -3 };
    assert_eq!(strict.resolve(&sold, &token("b")).await.unwrap(), done);
}

#[tokio::test(start_paused = true)]
async fn a_replay_puts_the_estimate_right_and_is_told() {
    let Bed { counter, strict, sold, .. } = bed();
    strict.inc_once(&sold, 5, &token("a")).await.unwrap();
    strict.inc(&sold, 1).await.unwrap();
    assert_eq!(counter.inc_once(&sold, 5, &token("a")).await.unwrap(), 11);
    assert_eq!(counter.inc_once(&sold, 7, &token("b")).await.unwrap(), 18);
    assert_eq!(counter.inc_once(&sold, 7, &token("b")).await.unwrap(), 25, "twice by itself");
    counter.flush().await.unwrap();
    assert_eq!(counter.get(&sold).await.unwrap(), 13);
    assert_eq!(counter.inc(&sold, 1).await.unwrap(), 14);
    let replayed = counter.take_replayed();
    let expected = [
        entry("a", 5, TokenFate::Replayed { answer: 5 }),
        entry("b", 7, TokenFate::Replayed { answer: 13 }),
    ];
    assert_eq!(told(&replayed), expected);
    assert_eq!(replayed[0].key, sold);
    assert!(counter.take_replayed().is_empty(), "told once");
    assert_eq!(counter.stats().replayed, 2);
    counter.shutdown(LAG).await.unwrap();
    assert_eq!(strict.get(&sold).await.unwrap(), 14);
}

#[tokio::test(start_paused = true)]
async fn refusals_put_the_estimate_right_and_are_told_by_a_flush() {
    let Bed { store, counter, strict, sold, .. } = bed();
    strict.inc_once(&sold, 5, &token("used")).await.unwrap();
    strict.resolve_or_forbid(&sold, &token("late")).await.unwrap();
    strict.set(&key("top"), i64::MAX - 1).await.unwrap();
    assert_eq!(counter.get(&key("top")).await.unwrap(), i64::MAX - 1);
    strict.set(&key("top"), i64::MAX).await.unwrap();

    counter.inc_once(&sold, 6, &token("used")).await.unwrap();
    assert_eq!(refusal(counter.flush().await), Refusal::TokenUsed { amount: 5 });
    counter.flush().await.unwrap();
    counter.inc_once(&sold, 6, &token("late")).await.unwrap();
    assert_eq!(refusal(counter.flush().await), Refusal::TokenForbidden);
    counter.inc_once(&key("top"), 1, &token("a")).await.unwrap();
    assert_eq!(refusal(counter.flush().await), Refusal::Overflow);
    assert_eq!(counter.get(&sold).await.unwrap(), 5);
    assert_eq!(counter.get(&key("top")).await.unwrap(), i64::MAX);
    assert_eq!(counter.stats().refused, 3);

    assert_eq!(counter.inc_once(&sold, 6, &token("used")).await.unwrap(), 11);
    sleep(LAG).await;
    store.lose_tokens(&Space::new(key("shop")));
    counter.inc_once(&sold, 1, &token("new")).await.unwrap();
    let report = counter.shutdown(Duration::from_secs(1)).await.unwrap_err();
    let expected = [
        entry("used", 6, TokenFate::Refused(Refusal::TokenUsed { amount: 5 })),
        entry("new", 1, TokenFate::Refused(Refusal::TokenForgotten)),
    ];
    assert_eq!(told(&report.tokens), expected);
    assert!(report.pending.is_empty() && report.unknown.is_empty(), "{report}");
}

#[tokio::test(start_paused = true)]
async fn an_estimate_that_does_not_fit_is_refused_at_once() {
    let Bed { counter, strict, sold, .. } = bed();
    strict.set(&sold, i64::MAX - 10).await.unwrap();
    assert_eq!(counter.inc_once(&sold, 7, &token("a")).await.unwrap(), i64::MAX - 3);
    assert_eq!(refusal(counter.inc_once(&sold, 7, &token("b")).await), Refusal::Overflow);
    assert_eq!(counter.inc_once(&sold, 3, &token("c")).await.unwrap(), i64::MAX);
    assert_eq!(counter.get(&sold).await.unwrap(), i64::MAX);
    // Others come first: what is promised no longer fits, and no answer wraps.
    strict.inc(&sold, 5).await.unwrap();
    assert_eq!(refusal(counter.flush().await), Refusal::Overflow);
    assert_eq!(counter.get(&sold).await.unwrap(), i64::MAX - 2);
    assert_eq!(strict.get(&sold).await.unwrap(), i64::MAX - 2);
}

#[tokio::test(start_paused = true)]
async fn lost_messages_add_nothing_twice_and_no_estimate_goes_down() {
    let Bed { link, counter, strict, sold, .. } = bed();
    link.set_latency(Duration::from_millis(2));
    let (mut latest, mut sum) = (0, 0);
    for n in 0..400_i64 {
        match n % 40 {
            7 => link.lose_next_replies(2),
            19 => link.lose_next_requests(1),
            31 => link.lose_next_replies(1),
            _ => {}
        }
        let total = counter.inc_once(&sold, 1, &token(&format!("t{n}"))).await.unwrap();
        assert!(total > latest, "{total} after {latest}");
        latest = total;
        sum += 1;
        if n % 3 == 0 {
            let total = counter.inc(&sold, 2).await.unwrap();
            assert!(total > latest, "{total} after {latest}");
            latest = total;
            sum += 2;
        }
        // A read may get lost, too.
        if n % 5 == 0
            && let Ok(total) = counter.get(&sold).await
        {
            assert!(total >= latest, "{total} after {latest}");
            latest = total;
        }
        sleep(Duration::from_millis(3)).await;
    }
    sleep(Duration::from_secs(3)).await;
    counter.flush().await.unwrap();
    assert_eq!(strict.get(&sold).await.unwrap(), sum);
    assert_eq!(counter.get(&sold).await.unwrap(), sum);
    assert!(counter.take_replayed().is_empty(), "its own attempts are no replays");
    assert!(counter.stats().resent > 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_written_before_a_set_arrives_after_it() {
    let Bed { link, counter, strict, sold, .. } = bed();
    counter.inc_once(&sold, 5, &token("a")).await.unwrap();
    assert_eq!(counter.set(&sold, 100).await.unwrap(), 100);
    sleep(5 * LAG).await;
    assert_eq!(strict.get(&sold).await.unwrap(), 100);
    let done = Resolved::Done { amount: 5, answer: 5 };
    assert_eq!(strict.resolve(&sold, &token("a")).await.unwrap(), done, "it was used");

    counter.inc_once(&sold, 5, &token("b")).await.unwrap();
    assert_eq!(counter.del(&sold).await.unwrap(), 105);
    counter.inc_once(&sold, 5, &token("c")).await.unwrap();
    counter.clear().await.unwrap();
    assert_eq!(counter.get(&sold).await.unwrap(), 0);
    counter.inc_once(&sold, 1, &token("d")).await.unwrap();
    let at_least = CounterComparator::Ge(1);
    assert_eq!(counter.inc_if(&sold, at_least, 10).await.unwrap(), (11, 1));
    sleep(5 * LAG).await;
    assert_eq!(strict.get(&sold).await.unwrap(), 11);

    // In doubt: the set waits until it is known, or does not happen.
    link.lose_next_replies(1);
    counter.inc_once(&sold, 5, &token("e")).await.unwrap();
    sleep(LAG).await;
    assert_eq!(counter.set(&sold, 50).await.unwrap(), 50);
    link.lose_next_replies(usize::MAX);
    counter.inc_once(&sold, 5, &token("f")).await.unwrap();
    let refused = counter.set(&sold, 60).await.unwrap_err();
    assert!(matches!(refused, DistkitError::NotApplied(_)), "{refused:?}");
    link.lose_next_replies(0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(strict.get(&sold).await.unwrap(), 55);
    assert_eq!(counter.get(&sold).await.unwrap(), 55);
}

/// The store has the addition, and nobody knows the total: it stays in the estimate until somebody does.
#[tokio::test(start_paused = true)]
async fn an_addition_stays_in_the_estimate_until_its_total_is_read() {
    let (log, _guard) = Log::start();
    let Bed { link, counter, strict, sold, .. } = bed();
    strict.inc_once(&sold, 5, &token("a")).await.unwrap();
    assert_eq!(counter.inc_once(&sold, 5, &token("a")).await.unwrap(), 10, "not sent yet");
    link.set_latency(Duration::from_millis(2));
    let flush = tokio::spawn({
        let counter = counter.clone();
        async move { counter.flush().await }
    });
    sleep(Duration::from_millis(1)).await;
    // The addition is on its way; the question for the total is lost.
    link.lose_next_requests(1);
    let unread = flush.await.unwrap().unwrap_err();
    assert!(matches!(unread, DistkitError::OutcomeUnknown(_)), "{unread:?}");
    assert_eq!(counter.stats().pending_keys, 1);
    assert_eq!(log.lines("WARN", "distkit::lax").len(), 1);
    let before = link.requests();
    counter.flush().await.unwrap();
    assert_eq!(link.requests(), before + 1, "the total alone: the addition was answered");
    let ends = log.lines("INFO", "distkit::lax");
    assert!(ends.len() == 1 && ends[0].contains("flushing again"), "{ends:?}");
    assert_eq!(counter.stats().pending_keys, 0);
    assert_eq!(counter.get(&sold).await.unwrap(), 5);
    assert_eq!(strict.get(&sold).await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn pending_additions_are_limited_and_reported_by_a_shutdown() {
    let store = MemoryBackend::new();
    let link = store.link();
    let counter = LaxCounter::new(options(&link).max_pending_keys(3));
    let sold = key("sold");
    counter.get(&sold).await.unwrap();
    link.cut();
    for n in 0..3 {
        counter.inc_once(&sold, 1, &token(&format!("t{n}"))).await.unwrap();
    }
    let full = counter.inc_once(&sold, 1, &token("t3")).await.unwrap_err();
    assert!(matches!(full, DistkitError::TooManyPending { limit: 3 }), "{full:?}");
    sleep(Duration::from_secs(1)).await;
    assert!(counter.stats().oldest_pending.unwrap() >= Duration::from_secs(1));
    assert_eq!(counter.get(&sold).await.ok(), None, "too old to answer with");
    let report = counter.shutdown(Duration::from_secs(1)).await.unwrap_err();
    let pending = |name| entry(name, 1, TokenFate::Pending);
    assert_eq!(told(&report.tokens), [pending("t0"), pending("t1"), pending("t2")]);
    assert!(report.cause.is_some());
    link.restore();
    sleep(Duration::from_secs(5)).await;
    let strict = StrictCounter::new(options(&store.link()));
    assert_eq!(strict.get(&sold).await.unwrap(), 0, "given up");
    assert_eq!(counter.get(&sold).await.unwrap(), 0);
    let refused = counter.inc_once(&sold, 1, &token("t4")).await.unwrap_err();
    assert!(matches!(refused, DistkitError::ShutDown), "{refused:?}");
    assert_eq!(counter.stats().given_up, 3);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_what_may_have_arrived() {
    let Bed { link, counter, strict, sold, .. } = bed();
    counter.get(&sold).await.unwrap();
    link.lose_next_replies(usize::MAX);
    counter.inc_once(&sold, 1, &token("sent")).await.unwrap();
    sleep(2 * LAG).await;
    counter.inc_once(&sold, 1, &token("late")).await.unwrap();
    let report = counter.shutdown(Duration::from_millis(500)).await.unwrap_err();
    let expected = [entry("sent", 1, TokenFate::Unknown), entry("late", 1, TokenFate::Pending)];
    assert_eq!(told(&report.tokens), expected);
    assert_eq!(strict.get(&sold).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_with_pending_additions_stay_in_memory_and_a_dropped_counter_sends_them() {
    let store = MemoryBackend::new();
    let link = store.link();
    let strict = StrictCounter::new(options(&store.link()));
    let counter = LaxCounter::new(options(&link).evict_after(Duration::from_millis(50)));
    let sold = key("sold");
    counter.get(&sold).await.unwrap();
    link.cut();
    counter.inc_once(&sold, 4, &token("a")).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(counter.inc(&sold, 1).await.unwrap(), 5, "it is still known");
    drop(counter);
    sleep(Duration::from_secs(2)).await;
    link.restore();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(strict.get(&sold).await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_the_store_turns_down_hold_up_no_sum() {
    let Bed { link, strict, sold, store, .. } = bed();
    strict.inc_once(&sold, 1, &token("a")).await.unwrap();
    let counter = LaxCounter::new(options(&link).keep_tokens(Duration::from_secs(3600)));
    assert_eq!(counter.inc_once(&sold, 5, &token("b")).await.unwrap(), 6);
    let refused = counter.flush().await.unwrap_err();
    let DistkitError::NotApplied(BackendError::ShapeMismatch { ours, stored }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!([ours, stored], ["tokens kept for 3600 s", "tokens kept for 86400 s"]);
    for n in 0..100 {
        counter.inc(&sold, 1).await.unwrap();
        sleep(2 * LAG).await;
        assert_eq!(strict.get(&sold).await.unwrap(), 2 + n, "sums arrive within the lag");
    }
    assert_eq!(counter.get(&sold).await.unwrap(), 106);
    assert!(counter.stats().failed_requests < 110, "{:?}", counter.stats());
    let report = counter.shutdown(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(told(&report.tokens), [entry("b", 5, TokenFate::Pending)]);
    drop(store);
}

#[tokio::test(start_paused = true)]
async fn a_question_sends_what_is_pending_before() {
    let Bed { link, counter, sold, .. } = bed();
    counter.inc_once(&sold, 5, &token("a")).await.unwrap();
    let done = Resolved::Done { amount: 5, answer: 5 };
    assert_eq!(counter.resolve(&sold, &token("a")).await.unwrap(), done);
    counter.inc_once(&sold, 6, &token("b")).await.unwrap();
    let done = Resolved::Done { amount: 6, answer: 11 };
    assert_eq!(counter.resolve_or_forbid(&sold, &token("b")).await.unwrap(), done);
    let forbidden = counter.resolve_or_forbid(&sold, &token("c")).await.unwrap();
    assert_eq!(forbidden, Resolved::Forbidden);
    link.cut();
    let refused = counter.resolve(&sold, &token("a")).await.unwrap_err();
    assert!(matches!(refused, DistkitError::NotApplied(_)), "{refused:?}");
}

/// The store may have forgotten the tokens by then: to send them again could add twice.
#[tokio::test(start_paused = true)]
async fn additions_in_doubt_for_longer_than_keep_are_given_up() {
    let store = MemoryBackend::new();
    let link = store.link();
    let minute = Duration::from_secs(60);
    let counter = LaxCounter::new(options(&link).keep_tokens(10 * minute));
    let sold = key("sold");
    counter.get(&sold).await.unwrap();
    link.lose_next_replies(usize::MAX);
    counter.inc_once(&sold, 1, &token("a")).await.unwrap();
    sleep(9 * minute).await;
    link.lose_next_replies(0);
    counter.inc_once(&sold, 1, &token("b")).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(counter.get(&sold).await.unwrap(), 2, "it was added");
    let unknown = counter.flush().await.unwrap_err();
    assert!(unknown.may_have_happened(), "{unknown:?}");
    counter.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_pending_additions_arrive_beside_sums() {
    let Bed { link, counter, strict, sold, .. } = bed();
    link.set_latency(Duration::from_millis(2));
    let began = Instant::now();
    for n in 0..7000 {
        counter.inc_once(&sold, 1, &token(&format!("t{n}"))).await.unwrap();
    }
    counter.inc(&key("plain"), 1).await.unwrap();
    sleep(2 * LAG).await;
    assert_eq!(strict.get(&key("plain")).await.unwrap(), 1, "after four requests of additions");
    assert!(strict.get(&sold).await.unwrap() < 7000);
    counter.flush().await.unwrap();
    assert_eq!(strict.get(&sold).await.unwrap(), 7000);
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn shards_have_tokens_of_their_own() {
    let store = MemoryBackend::new();
    let link = store.link();
    let counter = LaxCounter::new(options(&link).shards(4));
    let strict = StrictCounter::new(options(&store.link()).shards(4));
    let keys: Vec<_> = (0..20).map(|n| key(&format!("k{n}"))).collect();
    let same = token("same");
    let items: Vec<_> = keys.iter().map(|key| (key, 2, &same)).collect();
    for _ in 0..2 {
        let answers = counter.inc_once_all(&items).await.unwrap();
        assert!(answers.iter().all(|(_, total)| total.is_ok()));
        counter.flush().await.unwrap();
    }
    for key in &keys {
        assert_eq!(strict.get(key).await.unwrap(), 2);
    }
    assert_eq!(counter.take_replayed().len(), 20);
    counter.get_all(&keys.iter().collect::<Vec<_>>()).await.unwrap();
    link.cut();
    let answers = counter.inc_once_all(&items).await.unwrap();
    assert!(answers.iter().all(|(_, total)| total.is_ok()));
    let report = counter.shutdown(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(report.tokens.len(), 20);
    assert_eq!(report.shards.iter().map(|shard| shard.tokens).sum::<usize>(), 20);
}

/// What one process does in a random run.
struct Process {
    link: MemoryLink,
    lax: Arc<LaxCounter>,
    strict: Arc<StrictCounter>,
}

/// Processes replay each other's tokens while messages get lost, links are cut, and counters are dropped: every event
/// counts once, with its first amount.
#[test]
fn random_runs_count_each_event_once() {
    for seed in 0..60 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(random_run(seed));
    }
}

async fn random_run(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let store = MemoryBackend::new();
    let shards = if seed.is_multiple_of(3) { 3 } else { 1 };
    let started = || {
        let link = store.link();
        link.set_latency(Duration::from_millis(2));
        let options = options(&link).shards(shards);
        Process { lax: LaxCounter::new(options.clone()), strict: StrictCounter::new(options), link }
    };
    let mut processes: Vec<_> = (0..3).map(|_| started()).collect();
    let keys: Vec<_> = (0..4).map(|n| key(&format!("k{n}"))).collect();
    // Each event has one amount, and is asked for by anybody, again and again.
    let mut events: HashMap<(usize, u64), i64> = HashMap::new();
    let mut plain = vec![0_i64; keys.len()];
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..150 {
        let process = &processes[dice.usize(..3)];
        let (place, event) = (dice.usize(..4), dice.u64(..30));
        let amount = *events.entry((place, event)).or_insert_with(|| dice.i64(-5..20));
        let (key, under) = (keys[place].clone(), token(&format!("event {event}")));
        match dice.u8(..10) {
            0..4 => {
                let lax = process.lax.clone();
                calls.spawn(async move { _ = lax.inc_once(&key, amount, &under).await });
            }
            4 | 5 => {
                let strict = process.strict.clone();
                calls.spawn(async move { _ = strict.inc_once(&key, amount, &under).await });
            }
            6 => {
                if process.lax.inc(&key, 1).await.is_ok() {
                    plain[place] += 1;
                }
            }
            7 => process.link.lose_next_replies(dice.usize(..4)),
            8 => process.link.lose_next_requests(dice.usize(..4)),
            _ if dice.bool() => process.link.cut(),
            _ => process.link.restore(),
        }
        sleep(Duration::from_millis(dice.u64(..30))).await;
    }
    while calls.join_next().await.is_some() {}
    for process in &processes {
        process.link.restore();
        process.link.lose_next_replies(0);
        process.link.lose_next_requests(0);
    }
    sleep(Duration::from_secs(5)).await;
    for process in &processes {
        _ = process.lax.flush().await;
        process.lax.flush().await.unwrap();
        assert_eq!(process.lax.stats().pending_keys, 0);
    }
    // Whatever did not arrive is asked for again, by one of them.
    let last = processes.pop().unwrap();
    for ((place, event), amount) in &events {
        let under = token(&format!("event {event}"));
        last.strict.inc_once(&keys[*place], *amount, &under).await.unwrap();
    }
    for (place, key) in keys.iter().enumerate() {
        let counted = events.iter().filter(|((of, _), _)| *of == place);
        let sum = counted.map(|(_, amount)| amount).sum::<i64>() + plain[place];
        assert_eq!(last.strict.get(key).await.unwrap(), sum, "seed {seed}, {key}");
        sleep(2 * LAG).await;
        for process in &processes {
            assert_eq!(process.lax.get(key).await.unwrap(), sum, "seed {seed}, {key}");
        }
    }
}
