//! What errors say: each variant's text, and the chain of its sources.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{error::Error, io, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::{BackendError, Refusal, Space, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use distkit_testkit::chain;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

#[test]
fn each_variant_says_its_own_part_and_no_other() {
    let io = || io::Error::other("connection reset");
    let backend: [(BackendError, &str); 8] = [
        (BackendError::not_applied(io()), "the store did not apply the request: connection reset"),
        (
            BackendError::outcome_unknown(io()),
            "no answer tells whether the store applied the request: connection reset",
        ),
        (
            BackendError::answer_lost(io()),
            "the store applied the request, or a part of it, and has no answer to it: connection reset",
        ),
        (BackendError::Corrupt("a list".into()), "the store holds data that is not ours: a list"),
        (
            BackendError::ShapeMismatch { ours: "1 shard".into(), stored: "48 shards".into() },
            "the prefix is in use with 48 shards, and this process has 1 shard",
        ),
        (
            BackendError::Forgotten,
            "the store lost the record that would tell whether an earlier attempt was applied",
        ),
        (BackendError::NotJoined, "the instance is not joined"),
        (BackendError::Replaced, "a newer instance has taken this instance's name"),
    ];
    for (error, text) in backend {
        assert_eq!(chain(&error), text);
    }
    let refusal = || Refusal::NotANumber { found: "abc".into() };
    let ours: [(DistkitError, &str); 8] = [
        (RedisKey::try_from("a:b").unwrap_err(), "invalid key: "),
        (
            BackendError::not_applied(io()).into(),
            "not applied: the store did not apply the request: connection reset",
        ),
        (
            BackendError::outcome_unknown(io()).into(),
            "outcome unknown: no answer tells whether the store applied the request: connection reset",
        ),
        (
            DistkitError::CounterError { key: key("hits"), refusal: refusal() },
            "the store refuses the operation on counter `hits`: \
             the store holds \"abc\", which is not an i64",
        ),
        (
            DistkitError::TooManyPending { limit: 7 },
            "as many keys have pending writes as `max_pending_keys` allows: 7",
        ),
        (DistkitError::ShutDown, "the counter is shut down"),
        (DistkitError::InstanceReplaced, "a newer instance has taken this instance's name"),
        (DistkitError::CustomError("mine".into()), "mine"),
    ];
    for (error, text) in ours {
        assert!(chain(&error).starts_with(text), "{}", chain(&error));
        // No part is said twice.
        if let Some(source) = error.source() {
            assert!(!error.to_string().contains(&source.to_string()), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_link_is_the_last_link_of_the_chain() {
    let store = MemoryBackend::new();
    let link = store.link();
    let options = CounterOptions::new(key("shop"), link.clone());
    let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
    lax.inc(&key("hits"), 1).await.unwrap();
    link.cut();
    let error = strict.inc(&key("hits"), 1).await.unwrap_err();
    let text = "not applied: the store did not apply the request: the link is cut";
    assert_eq!(chain(&error), text);
    let report = lax.shutdown(Duration::from_secs(1)).await.unwrap_err();
    assert!(chain(&report).ends_with(text), "{}", chain(&report));
    link.restore();
    store.corrupt(&Space::new(key("shop")), &key("text"), "abc");
    let error = strict.get(&key("text")).await.unwrap_err();
    assert!(error.source().is_some_and(|source| source.is::<Refusal>()));
}
