//! Strict and lax counters with tokens, on every store; what gets lost on the way, under simulated time.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/plain_only.rs"]
mod plain_only;
#[path = "common/stores.rs"]
#[macro_use]
mod stores;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey, Token, Windows,
    backend::{
        BackendError, Refusal, Resolved, Space,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use futures_util::future::join_all;
use plain_only::PlainOnly;
use stores::{Stage, key};

const MINUTE: Duration = Duration::from_secs(60);

fn token(name: &str) -> Token {
    Token::new(name).unwrap()
}

/// The refusal of a call.
#[track_caller]
fn refusal(answer: Result<i64, DistkitError>) -> Refusal {
    match answer {
        Err(DistkitError::CounterError { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn a_strict_addition_happens_once(stage: Stage) {
    let here = StrictCounter::new(stage.options.clone());
    let there = StrictCounter::new(stage.options.clone());
    let elsewhere = StrictCounter::new(stage.elsewhere.clone());
    let (sold, order) = (key("sold"), token("order 1"));
    assert_eq!(here.resolve(&sold, &order).await.unwrap(), Resolved::Unseen);
    assert_eq!(here.inc_once(&sold, 3, &order).await.unwrap(), 3);
    there.inc(&sold, 10).await.unwrap();
    assert_eq!(there.inc_once(&sold, 3, &order).await.unwrap(), 3, "from another process");
    let used = refusal(there.inc_once(&sold, 4, &order).await);
    assert_eq!(used, Refusal::TokenUsed { amount: 3 });
    assert_eq!(elsewhere.inc_once(&sold, 4, &order).await.unwrap(), 4, "another prefix");
    let done = Resolved::Done { amount: 3, answer: 3 };
    assert_eq!(there.resolve(&sold, &order).await.unwrap(), done);
    assert_eq!(there.resolve_or_forbid(&sold, &order).await.unwrap(), done);
    let late = token("order 2");
    assert_eq!(there.resolve_or_forbid(&sold, &late).await.unwrap(), Resolved::Forbidden);
    assert_eq!(refusal(here.inc_once(&sold, 3, &late).await), Refusal::TokenForbidden);
    here.clear().await.unwrap();
    assert_eq!(here.inc_once(&sold, 3, &order).await.unwrap(), 3, "clear forgets no token");
    assert_eq!(here.get(&sold).await.unwrap(), 0);
    assert_eq!(there.stats().replayed, 2, "clones of one options value count together");
}

/// Windows end, and prefixes that expire forget: a token may be remembered for longer.
async fn tokens_need_counters_that_last(stage: Stage) {
    let (sold, order) = (key("sold"), token("order 1"));
    let hour = Duration::from_secs(3600);
    let options = stage.elsewhere.clone();
    for options in [options.clone().windows(Windows::every(hour)), options.expire_after(hour)] {
        let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
        let answers = [
            strict.inc_once(&sold, 3, &order).await.map(drop),
            strict.resolve(&sold, &order).await.map(drop),
            strict.resolve_or_forbid(&sold, &order).await.map(drop),
            lax.inc_once(&sold, 3, &order).await.map(drop),
            lax.inc_once_all(&[(&sold, 3, &order)]).await.map(drop),
            lax.resolve(&sold, &order).await.map(drop),
        ];
        for answer in answers {
            assert!(matches!(answer, Err(DistkitError::NotApplied(_))), "{answer:?}");
        }
        lax.shutdown(Duration::from_secs(5)).await.unwrap();
        assert_eq!(strict.get(&sold).await.unwrap(), 0);
    }
}

async fn batches_of_any_size_happen_once(stage: Stage) {
    for shards in [1, 3] {
        let options = if shards == 1 { stage.options.clone() } else { stage.elsewhere.clone() };
        let counter = StrictCounter::new(options.shards(shards));
        let keys: Vec<_> = (0..9).map(|n| key(&format!("k{n}"))).collect();
        let tokens: Vec<_> = (0..1300).map(|n| token(&format!("event {n}"))).collect();
        let items: Vec<_> = tokens.iter().enumerate().map(|(n, t)| (&keys[n % 9], 2, t)).collect();
        for _ in 0..2 {
            let answers = counter.inc_once_all(&items).await.unwrap();
            for (n, ((answered, total), (asked, ..))) in answers.into_iter().zip(&items).enumerate()
            {
                assert_eq!(answered, *asked);
                assert_eq!(total.unwrap(), 2 * (n as i64 / 9 + 1), "item {n}");
            }
        }
        let totals = counter.get_all(&keys.iter().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(totals.into_iter().map(|(_, total)| total.unwrap()).sum::<i64>(), 2600);
        assert!(counter.inc_once_all(&[]).await.unwrap().is_empty());
    }
}

/// Each call is answered as if it had been sent alone.
async fn concurrent_calls_are_answered_each_for_itself(stage: Stage) {
    count_at_the_same_time(stage.options).await;
}

async fn count_at_the_same_time(options: CounterOptions) -> Arc<StrictCounter> {
    let counter = StrictCounter::new(options.clone());
    let (sold, full) = (key("sold"), key("full"));
    counter.set(&full, i64::MAX - 1).await.unwrap();
    counter.inc_once(&sold, 5, &token("earlier")).await.unwrap();
    counter.resolve_or_forbid(&sold, &token("forbidden")).await.unwrap();
    let names: Vec<_> = (0..1200).map(|n| token(&format!("event {}", n / 2))).collect();
    let events = join_all(names.iter().map(|name| counter.inc_once(&sold, 1, name)));
    let (earlier, other, forbidden) = (token("earlier"), token("earlier"), token("forbidden"));
    let overflows = ["a", "b", "c"].map(token);
    let refused = async {
        tokio::join!(
            counter.inc_once(&sold, 5, &earlier),
            counter.inc_once(&sold, 6, &other),
            counter.inc_once(&sold, 5, &forbidden),
            join_all(overflows.iter().map(|name| counter.inc_once(&full, 1, name))),
        )
    };
    let (answers, (first, other, forbidden, full_answers)) = tokio::join!(events, refused);
    let mut totals: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    // Each event was named twice, by calls that may have been in one request.
    for pair in totals.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
    totals.sort_unstable();
    totals.dedup();
    assert_eq!(totals, (6..606).collect::<Vec<_>>());
    assert_eq!(first.unwrap(), 5);
    assert_eq!(refusal(other), Refusal::TokenUsed { amount: 5 });
    assert_eq!(refusal(forbidden), Refusal::TokenForbidden);
    let (fits, too_many): (Vec<_>, Vec<_>) = full_answers.into_iter().partition(Result::is_ok);
    assert_eq!((fits.len(), too_many.len()), (1, 2));
    for answer in too_many {
        assert_eq!(refusal(answer), Refusal::Overflow);
    }
    assert_eq!(counter.get(&sold).await.unwrap(), 605);
    // Those of clones with another `keep` are not in their requests, which the store turns down.
    let hour = StrictCounter::new(options.keep_tokens(60 * MINUTE));
    let (a, b) = (token("x"), token("y"));
    let (ours, theirs) = tokio::join!(counter.inc_once(&sold, 1, &a), hour.inc_once(&sold, 1, &b));
    assert_eq!(ours.unwrap(), 606);
    assert!(matches!(theirs, Err(DistkitError::NotApplied(BackendError::ShapeMismatch { .. }))));
    counter
}

async fn another_keep_is_refused_with_both(stage: Stage) {
    let hour = StrictCounter::new(stage.options.clone().keep_tokens(60 * MINUTE));
    let day = StrictCounter::new(stage.options.clone());
    let sold = key("sold");
    day.inc(&sold, 1).await.unwrap();
    hour.inc_once(&sold, 1, &token("a")).await.unwrap();
    let refused = day.inc_once(&sold, 1, &token("b")).await.unwrap_err();
    let DistkitError::NotApplied(BackendError::ShapeMismatch { ours, stored }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!([ours, stored], ["tokens kept for 86400 s", "tokens kept for 3600 s"]);
    assert_eq!(day.inc(&sold, 1).await.unwrap(), 3, "without tokens it goes on");
}

on_every_store! {
    a_strict_addition_happens_once,
    tokens_need_counters_that_last,
    batches_of_any_size_happen_once,
    another_keep_is_refused_with_both,
    concurrent_calls_are_answered_each_for_itself,
}

fn over(link: &MemoryLink) -> CounterOptions {
    CounterOptions::new(key("shop"), link.clone())
}

fn space() -> Space {
    Space::new(key("shop"))
}

fn bed() -> (MemoryBackend, MemoryLink, RedisKey) {
    let store = MemoryBackend::new();
    let link = store.link();
    (store, link, key("sold"))
}

#[tokio::test(start_paused = true)]
async fn concurrent_calls_share_requests() {
    let (_store, link, sold) = bed();
    link.set_latency(Duration::from_millis(1));
    let counter = count_at_the_same_time(over(&link)).await;
    let stats = counter.stats();
    // 1207 calls at the same time, one of them alone.
    assert!(stats.joined_calls > 1200 && stats.requests < 20, "{stats:?}");
    // What was joined is sent again as it is.
    link.lose_next_replies(2);
    let names: Vec<_> = (0..100).map(|n| token(&format!("late {n}"))).collect();
    let answers = join_all(names.iter().map(|name| counter.inc_once(&sold, 1, name))).await;
    let totals: BTreeSet<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(totals, (607..707).collect());
    assert_eq!(counter.get(&sold).await.unwrap(), 706);
    assert_eq!(counter.stats().resent, 2);
}

#[tokio::test(start_paused = true)]
async fn a_strict_addition_is_sent_again_until_it_is_answered() {
    let (_store, link, sold) = bed();
    let counter = StrictCounter::new(over(&link));
    link.lose_next_replies(3);
    assert_eq!(counter.inc_once(&sold, 3, &token("a")).await.unwrap(), 3);
    link.lose_next_requests(3);
    assert_eq!(counter.inc_once(&sold, 3, &token("b")).await.unwrap(), 6);
    assert_eq!(counter.stats().resent, 6);

    link.cut();
    let refused = counter.inc_once(&sold, 3, &token("c")).await.unwrap_err();
    assert!(matches!(refused, DistkitError::NotApplied(_)), "nothing was sent: {refused:?}");
    link.restore();
    assert_eq!(counter.resolve(&sold, &token("c")).await.unwrap(), Resolved::Unseen);

    link.lose_next_replies(usize::MAX);
    let unknown = counter.inc_once(&sold, 3, &token("c")).await.unwrap_err();
    assert!(unknown.may_have_happened(), "{unknown:?}");
    let unknown = counter.resolve_or_forbid(&sold, &token("d")).await.unwrap_err();
    assert!(unknown.may_have_happened(), "{unknown:?}");
    let unread = counter.resolve(&sold, &token("c")).await.unwrap_err();
    assert!(!unread.may_have_happened(), "a question changes nothing: {unread:?}");
    link.lose_next_replies(0);
    let done = Resolved::Done { amount: 3, answer: 9 };
    assert_eq!(counter.resolve(&sold, &token("c")).await.unwrap(), done);
    assert_eq!(counter.inc_once(&sold, 3, &token("c")).await.unwrap(), 9);
    assert_eq!(refusal(counter.inc_once(&sold, 3, &token("d")).await), Refusal::TokenForbidden);
    assert_eq!(counter.get(&sold).await.unwrap(), 9);
}

/// A call that was refused at first, and whose answer was lost then, is not said not to have happened.
#[tokio::test(start_paused = true)]
async fn an_error_after_a_lost_answer_is_no_answer() {
    let (_store, link, sold) = bed();
    let counter = StrictCounter::new(over(&link));
    link.lose_next_replies(1);
    let asked = tokio::spawn({
        let (counter, sold) = (counter.clone(), sold.clone());
        async move { counter.inc_once(&sold, 3, &token("a")).await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    link.set_denied(true);
    let unknown = asked.await.unwrap().unwrap_err();
    assert!(unknown.may_have_happened(), "{unknown:?}");
    link.set_denied(false);
    assert_eq!(counter.get(&sold).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn lost_tokens_are_an_unknown_outcome() {
    let (store, link, sold) = bed();
    let counter = StrictCounter::new(over(&link));
    counter.inc_once(&sold, 3, &token("a")).await.unwrap();
    store.lose_tokens(&space());
    let lost = counter.inc_once(&sold, 3, &token("a")).await.unwrap_err();
    assert!(matches!(lost, DistkitError::OutcomeUnknown(BackendError::Forgotten)), "{lost:?}");
    let lost = counter.resolve(&sold, &token("a")).await.unwrap_err();
    assert!(matches!(lost, DistkitError::OutcomeUnknown(BackendError::Forgotten)), "{lost:?}");
    assert_eq!(counter.inc(&sold, 1).await.unwrap(), 4, "other writes go on");
    store.wipe();
    assert_eq!(
        counter.inc_once(&sold, 3, &token("a")).await.unwrap(),
        3,
        "all is lost, totals too"
    );
}

/// A token that is used all the time is forgotten with its first use, and an idle prefix forgets late.
#[tokio::test(start_paused = true)]
async fn tokens_are_forgotten_some_time_after_keep() {
    let (store, link, sold) = bed();
    let counter = StrictCounter::new(over(&link).keep_tokens(10 * MINUTE));
    counter.inc_once(&sold, 1, &token("a")).await.unwrap();
    for minute in 1..=10 {
        tokio::time::sleep(MINUTE).await;
        assert_eq!(counter.inc_once(&sold, 1, &token("a")).await.unwrap(), 1, "minute {minute}");
    }
    for _ in 0..5 {
        tokio::time::sleep(MINUTE).await;
        counter.inc_once(&key("other"), 1, &token("x")).await.unwrap();
    }
    assert_eq!(counter.inc_once(&sold, 1, &token("a")).await.unwrap(), 2);
    tokio::time::sleep(24 * 60 * MINUTE).await;
    assert_eq!(counter.inc_once(&sold, 1, &token("a")).await.unwrap(), 2, "nothing came meanwhile");
    assert_eq!(store.remembered_tokens(&space()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_tokens_says_so() {
    let counter =
        StrictCounter::new(CounterOptions::with_store(key("shop"), Arc::new(PlainOnly::default())));
    let answers = [
        counter.inc_once(&key("sold"), 1, &token("a")).await.map(drop),
        counter.resolve(&key("sold"), &token("a")).await.map(drop),
        counter.resolve_or_forbid(&key("sold"), &token("a")).await.map(drop),
    ];
    for answer in answers {
        assert!(matches!(answer, Err(DistkitError::NotApplied(_))), "{answer:?}");
    }
}
