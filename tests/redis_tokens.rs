//! What tokens leave in a server, what becomes of lost parts, and clocks that step.
#![cfg(all(feature = "counter", feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey, Token,
    backend::{BackendError, Resolved, connect},
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use distkit_testkit::{Server, ServerBuilder};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn token(name: impl AsRef<str>) -> Token {
    Token::new(name).unwrap()
}

/// A counter that keeps tokens for two hours, over a connection of its own.
async fn counter(server: &Server) -> Arc<StrictCounter> {
    let store = connect(&server.url()).await.unwrap();
    StrictCounter::new(CounterOptions::new(key("shop"), store).keep_tokens(2 * HOUR))
}

/// Redis and Valkey, with their clocks in the hand of the test.
fn servers() -> Vec<Server> {
    let start = |builder: ServerBuilder| builder.manual_clock().start();
    vec![start(Server::redis()), start(Server::valkey())]
}

/// The names of the keys under the prefix, without what all have in common.
fn names(server: &Server) -> Vec<String> {
    let listed = server.cli(&["KEYS", "distkit:{shop}:*"]);
    let mut names: Vec<_> = listed
        .lines()
        .filter_map(|name| name.strip_prefix("distkit:{shop}:"))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names
}

fn parts(server: &Server) -> Vec<String> {
    names(server).into_iter().filter(|name| name.matches(':').count() == 2).collect()
}

/// The numbers of the live buckets.
fn buckets(server: &Server) -> Vec<String> {
    let live = server.cli(&["HGET", &name("tok"), "live"]);
    live.split(';').filter_map(|bucket| Some(bucket.split(' ').next()?.to_owned())).collect()
}

fn name(rest: &str) -> String {
    format!("distkit:{{shop}}:{rest}")
}

/// The call found that records are lost.
#[track_caller]
fn forgotten(answer: Result<i64, DistkitError>) {
    match answer {
        Err(DistkitError::OutcomeUnknown(BackendError::Forgotten)) => {}
        other => panic!("not forgotten: {other:?}"),
    }
}

/// Lets so much time pass for the tokens, of which each request counts a minute at most.
async fn pass(server: &Server, counter: &StrictCounter, time: Duration) {
    for _ in 0..time.as_secs() / 60 {
        server.advance(MINUTE);
        _ = counter.inc_once(&key("clock"), 1, &token("clock")).await;
    }
}

#[tokio::test]
async fn what_is_kept_is_documented_and_expires_by_no_ttl() {
    for server in servers() {
        let counter = counter(&server).await;
        assert_eq!(counter.inc_once(&key("sold"), 5, &token("order")).await.unwrap(), 5);
        counter.resolve_or_forbid(&key("sold"), &token("late")).await.unwrap();
        let kept = names(&server);
        assert_eq!(&kept[..2], ["shape", "tok"], "{kept:?}");
        let bits = format!("tok:{}", buckets(&server)[0]);
        assert_eq!(kept[2], bits);
        assert!(parts(&server).iter().all(|part| part.starts_with(&bits)), "{kept:?}");
        for rest in &kept {
            assert_eq!(server.cli(&["PTTL", &name(rest)]), "-1", "{rest}");
        }
        let fields = server.cli(&["HMGET", &name("tok"), "keep", "n", "live"]);
        let fields: Vec<_> = fields.lines().collect();
        assert_eq!(fields[..2], ["7200", "2"]);
        assert!(fields[2].ends_with(" 0 16 0"), "{fields:?}");
        assert_eq!(server.cli(&["HGET", &name("shape"), "keep"]), "7200");
        let generation = server.cli(&["HGET", &name("shape"), "tokens"]);
        assert!(server.cli(&["HGET", &name("tok"), "clock"]).starts_with(&generation));
        let held: Vec<_> = parts(&server)
            .iter()
            .flat_map(|part| {
                let values = server.cli(&["HVALS", &name(part)]);
                values.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|value| !value.is_empty())
            .collect();
        assert_eq!(held.len(), 2, "{held:?}");
        assert!(held.contains(&"5 5".to_owned()) && held.contains(&"-".to_owned()), "{held:?}");
    }
}

#[tokio::test]
async fn a_lost_part_is_noticed_and_the_others_go_on() {
    for server in servers() {
        let counter = counter(&server).await;
        let sold = key("sold");
        for n in 0..200 {
            counter.inc_once(&sold, 1, &token(format!("order {n}"))).await.unwrap();
        }
        let lost = parts(&server);
        assert_eq!(lost.len(), 16, "200 tokens are in each of them");
        assert_eq!(server.cli(&["DEL", &name(&lost[3])]), "1");
        let (mut replayed, mut refused) = (0, Vec::new());
        for n in 0..200 {
            match counter.inc_once(&sold, 1, &token(format!("order {n}"))).await {
                Ok(total) => {
                    assert_eq!(total, n + 1);
                    replayed += 1;
                }
                refusal => {
                    forgotten(refusal);
                    refused.push(n);
                }
            }
        }
        assert!((1..40).contains(&refused.len()) && replayed + refused.len() == 200, "{refused:?}");
        assert_eq!(counter.get(&sold).await.unwrap(), 200, "nothing was added");
        let question = counter.resolve(&sold, &token(format!("order {}", refused[0]))).await;
        forgotten(question.map(|_| 0));
        // New tokens of that part are refused, too, until it would have been forgotten.
        let mut new = 0;
        for n in 0..100 {
            new += u32::from(counter.inc_once(&sold, 1, &token(format!("new {n}"))).await.is_ok());
        }
        assert!((60..100).contains(&new), "{new} of 100");
        pass(&server, &counter, 3 * HOUR).await;
        let again = token(format!("order {}", refused[0]));
        counter.inc_once(&sold, 1, &again).await.unwrap();
    }
}

#[tokio::test]
async fn lost_bits_or_a_lost_index_are_noticed() {
    for server in servers() {
        let counter = counter(&server).await;
        let sold = key("sold");
        assert_eq!(counter.inc_once(&sold, 5, &token("a")).await.unwrap(), 5);
        assert_eq!(server.cli(&["DEL", &name(&format!("tok:{}", buckets(&server)[0]))]), "1");
        assert_eq!(counter.inc_once(&sold, 5, &token("a")).await.unwrap(), 5, "it is there");
        let mut refused = 0;
        for n in 0..20 {
            if let Err(error) = counter.inc_once(&sold, 1, &token(format!("new {n}"))).await {
                forgotten(Err(error));
                refused += 1;
            }
        }
        assert!(refused > 10, "{refused}: in parts of which nothing is seen");

        assert_eq!(server.cli(&["DEL", &name("tok")]), "1");
        server.advance(Duration::from_secs(1));
        let before = counter.get(&sold).await.unwrap();
        for _ in 0..2 {
            forgotten(counter.inc_once(&sold, 5, &token("b")).await);
            forgotten(counter.resolve(&sold, &token("b")).await.map(|_| 0));
        }
        let other = self::counter(&server).await;
        forgotten(other.inc_once(&sold, 5, &token("b")).await);
        assert_eq!(counter.get(&sold).await.unwrap(), before);
        pass(&server, &counter, 3 * HOUR + MINUTE).await;
        assert_eq!(counter.inc_once(&sold, 5, &token("b")).await.unwrap(), before + 5);
        assert_eq!(other.inc_once(&sold, 5, &token("b")).await.unwrap(), before + 5);
    }
}

#[tokio::test]
async fn a_server_that_lost_all_begins_anew() {
    for server in servers() {
        let counter = counter(&server).await;
        let sold = key("sold");
        counter.inc_once(&sold, 5, &token("a")).await.unwrap();
        server.cli(&["FLUSHALL"]);
        assert_eq!(counter.resolve(&sold, &token("a")).await.unwrap(), Resolved::Unseen);
        assert_eq!(counter.inc_once(&sold, 5, &token("a")).await.unwrap(), 5, "of nothing");
        assert_eq!(counter.inc_once(&sold, 5, &token("a")).await.unwrap(), 5);
    }
}

/// A bucket that is full is followed by a bigger one, and those that are past are removed in portions.
#[tokio::test]
async fn past_buckets_are_removed_a_few_keys_at_a_time() {
    for server in servers() {
        let counter = counter(&server).await;
        let sold = key("sold");
        let tokens: Vec<_> = (0..5000).map(|n| token(format!("order {n}"))).collect();
        let items: Vec<_> = tokens.iter().map(|token| (&sold, 1, token)).collect();
        for (_, total) in counter.inc_once_all(&items).await.unwrap() {
            total.unwrap();
        }
        let live = server.cli(&["HGET", &name("tok"), "live"]);
        assert!(live.contains(" 0 16 0;") && live.ends_with(" 0 512 2500"), "{live}");
        let past = buckets(&server);
        assert!((16 + 480..=16 + 512).contains(&parts(&server).len()));
        for (_, total) in counter.inc_once_all(&items).await.unwrap() {
            assert!(total.unwrap() <= 5000, "found in either of them");
        }
        assert_eq!(counter.get(&sold).await.unwrap(), 5000);

        pass(&server, &counter, HOUR).await;
        counter.inc_once(&sold, 1, &token("next half")).await.unwrap();
        let live = server.cli(&["HGET", &name("tok"), "live"]);
        assert!(live.ends_with(" 1 128 0"), "made for as many as before: {live}");
        pass(&server, &counter, 2 * HOUR).await;
        let mut requests = 0;
        let mut left = parts(&server).len();
        while !server.cli(&["HGET", &name("tok"), "dead"]).is_empty() {
            counter.inc_once(&sold, 1, &token(format!("later {requests}"))).await.unwrap();
            let now = parts(&server).len();
            assert!(left <= now + 8, "{} keys at once", left - now);
            (left, requests) = (now, requests + 1);
            assert!(requests < 200);
        }
        let left = names(&server);
        let is_past = |name: &String| past.iter().any(|past| name.contains(past));
        assert!(!left.iter().any(is_past), "{past:?} are gone: {left:?}");
        assert_eq!(
            counter.inc_once(&sold, 1, &tokens[7]).await.unwrap(),
            counter.get(&sold).await.unwrap()
        );
    }
}

#[tokio::test]
async fn no_step_of_the_clock_forgets_a_token() {
    for server in servers() {
        let (here, there) = (counter(&server).await, counter(&server).await);
        let sold = key("sold");
        assert_eq!(here.inc_once(&sold, 5, &token("a")).await.unwrap(), 5);
        for step in 0..50 {
            match step % 3 {
                0 => server.advance(24 * HOUR),
                1 => server.go_back(23 * HOUR),
                _ => server.advance(MINUTE),
            }
            let asked = if step % 2 == 0 { &here } else { &there };
            assert_eq!(asked.inc_once(&sold, 5, &token("a")).await.unwrap(), 5, "step {step}");
        }
        // Each process takes other buckets for live than are, and finds out.
        pass(&server, &here, 2 * HOUR).await;
        assert_eq!(there.inc_once(&sold, 5, &token("b")).await.unwrap(), 10);
        assert_eq!(here.inc_once(&sold, 5, &token("b")).await.unwrap(), 10);
    }
}

#[tokio::test]
async fn foreign_data_in_the_place_of_tokens_is_named() {
    for server in servers() {
        let counter = counter(&server).await;
        let sold = key("sold");
        server.cli(&["SET", &name("tok"), "x"]);
        let refused = counter.inc_once(&sold, 5, &token("a")).await.unwrap_err();
        let DistkitError::NotApplied(BackendError::Corrupt(text)) = refused else {
            panic!("{refused:?}");
        };
        assert!(text.contains("distkit:{shop}:tok\""), "{text}");
        server.cli(&["DEL", &name("tok")]);
        counter.inc_once(&sold, 5, &token("a")).await.unwrap();
        let part = name(&parts(&server)[0]);
        server.cli(&["SET", &part, "x"]);
        let refused = counter.inc_once(&sold, 5, &token("a")).await.unwrap_err();
        let DistkitError::NotApplied(BackendError::Corrupt(text)) = refused else {
            panic!("{refused:?}");
        };
        assert!(text.contains(&part), "{text}");
        assert_eq!(counter.get(&sold).await.unwrap(), 5);
    }
}

/// "Not applied" is true, and a token that was refused can be used afterwards.
#[tokio::test]
async fn a_user_without_a_right_changes_nothing() {
    let commands = [
        "hset", "hdel", "hincrby", "hget", "hmget", "setbit", "getbit", "exists", "time", "unlink",
        "evalsha", "eval",
    ];
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().start();
            let admin = counter(&server).await;
            server.cli(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all"]);
            let url = server.url().replacen("redis://", &format!("{client}://app:pw@"), 1);
            let store = connect(&url).await.unwrap();
            let options = CounterOptions::new(key("shop"), store).keep_tokens(2 * HOUR);
            let app = StrictCounter::new(options);
            let sold = key("sold");
            let mut sum = 0;
            for (round, command) in commands.iter().enumerate() {
                for size in [1, 3] {
                    server.cli(&["ACL", "SETUSER", "app", &format!("-{command}")]);
                    let tokens: Vec<_> =
                        (0..size).map(|n| token(format!("{round} {size} {n}"))).collect();
                    let items: Vec<_> = tokens.iter().map(|token| (&sold, 1, token)).collect();
                    let first = app.inc_once_all(&items).await;
                    server.cli(&["ACL", "SETUSER", "app", &format!("+{command}")]);
                    let context = format!("{command} for {size} by {client}: {first:?}");
                    match &first {
                        Err(error) => assert!(!error.may_have_happened(), "{context}"),
                        Ok(items) => {
                            assert!(items.iter().all(|(_, one)| one.is_ok()), "{context}");
                            sum += size;
                        }
                    }
                    assert_eq!(admin.get(&sold).await.unwrap(), sum, "{context}");
                    for (_, total) in app.inc_once_all(&items).await.unwrap() {
                        total.unwrap();
                    }
                    sum += if first.is_ok() { 0 } else { size };
                    assert_eq!(admin.get(&sold).await.unwrap(), sum, "{context}");
                }
            }
        }
    }
}
