//! What a strict counter says when it is given something bad: keys, data, servers.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)]

#[macro_use]
#[path = "common/stores.rs"]
mod stores;

use distkit::{
    CounterComparator::Nil,
    DistkitError, RedisKey,
    backend::{Refusal, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use stores::{Stage, key};

on_every_store!(any_valid_key_works, what_is_not_a_number_is_named_and_left_alone);

#[test]
fn bad_keys_are_refused_with_the_reason() {
    let long = "x".repeat(256);
    for (bad, reason) in [("", "empty"), (&*long, "256"), ("a:b", "colon"), (":", "colon")] {
        let error = RedisKey::try_from(bad).unwrap_err();
        assert!(matches!(error, DistkitError::InvalidRedisKey(_)), "{error:?}");
        assert!(distkit_testkit::chain(&error).contains(reason), "{error}");
    }
}

async fn any_valid_key_works(stage: Stage) {
    let counter = StrictCounter::new(stage.options.clone());
    let long = "ü".repeat(255);
    let names = ["{", "}", "{}", "a b", "\r\n", "\0", "*", "*?[", "%7B", "-1", "nil", &long];
    let keys: Vec<RedisKey> = names.map(key).into();
    for (n, key) in (1..).zip(&keys) {
        assert_eq!(counter.inc(key, n).await.unwrap(), n, "{key:?}");
        assert_eq!(counter.inc_if(key, Nil, n).await.unwrap(), (2 * n, n), "{key:?}");
    }
    for (n, key) in (1..).zip(&keys) {
        assert_eq!(counter.del(key).await.unwrap(), 2 * n, "{key:?}");
    }
}

fn assert_names<T: std::fmt::Debug>(result: Result<T, DistkitError>, name: &str, text: &str) {
    let error = result.unwrap_err();
    let DistkitError::CounterError { key, refusal: Refusal::NotANumber { found } } = &error else {
        panic!("not about the data: {error:?}");
    };
    assert_eq!((&**key, &**found), (name, text));
    let message = distkit_testkit::chain(&error);
    assert!(message.contains(name) && message.contains(text), "{message}");
}

async fn what_is_not_a_number_is_named_and_left_alone(stage: Stage) {
    let counter = StrictCounter::new(stage.options.clone());
    let (bad, good) = (key("bad"), key("good"));
    for text in ["banana", "1.5", "9223372036854775808"] {
        counter.set(&good, 1).await.unwrap();
        stage.plant(&bad, text);

        assert_names(counter.inc(&bad, 1).await, "bad", text);
        assert_names(counter.dec(&bad, 1).await, "bad", text);
        assert_names(counter.get(&bad).await, "bad", text);
        assert_names(counter.inc_if(&bad, Nil, 1).await, "bad", text);

        // Nothing above overwrote it, and it bothers no neighbour in a batch.
        let mut answers = counter.get_all(&[&good, &bad, &good]).await.unwrap();
        assert_eq!(*answers[2].1.as_ref().unwrap(), 1);
        assert_names(answers.remove(1).1, "bad", text);
        let mut answers = counter.inc_all(&[(&good, 1), (&bad, 1), (&good, 1)]).await.unwrap();
        assert_eq!(*answers[2].1.as_ref().unwrap(), 3);
        assert_names(answers.remove(1).1, "bad", text);
        let mut answers =
            counter.inc_all_if(&[(&good, Nil, 1), (&bad, Nil, 1), (&good, Nil, 1)]).await.unwrap();
        assert_eq!(*answers[2].1.as_ref().unwrap(), (5, 4));
        assert_names(answers.remove(1).1, "bad", text);

        // A removal and an assignment both get rid of it.
        assert_names(counter.del(&bad).await, "bad", text);
        assert_eq!(counter.get(&bad).await.unwrap(), 0);
        stage.plant(&bad, text);
        assert_eq!(counter.set(&bad, 4).await.unwrap(), 4);
        assert_eq!(counter.inc(&bad, 1).await.unwrap(), 5);
        counter.clear().await.unwrap();
    }
}

#[tokio::test]
async fn a_link_that_fails_says_whether_it_happened() {
    let store = MemoryBackend::new();
    let link = store.link();
    // A guarded one would send again until it is answered.
    let options = CounterOptions::new(key("shop"), link.clone());
    let counter = StrictCounter::new(options.unguarded());
    let k = key("k");

    link.cut();
    let error = counter.inc(&k, 1).await.unwrap_err();
    assert!(matches!(error, DistkitError::NotApplied(_)), "{error:?}");
    link.restore();
    assert_eq!(counter.get(&k).await.unwrap(), 0);

    for (applied, requests) in [(0, 1), (1, 0)] {
        link.lose_next_requests(requests);
        link.lose_next_replies(1 - requests);
        let before = link.requests();
        let error = counter.inc(&k, 1).await.unwrap_err();
        assert!(matches!(error, DistkitError::OutcomeUnknown(_)), "{error:?}");
        assert_eq!(link.requests() - before, 1, "sent again");
        assert_eq!(counter.get(&k).await.unwrap(), applied);
    }
}

/// Runs every kind of call; none may succeed.
#[cfg(any(feature = "redis-rs", feature = "fred"))]
async fn failures_of_all(counter: &StrictCounter) -> Vec<DistkitError> {
    let k = key("k");
    vec![
        counter.inc(&k, 1).await.unwrap_err(),
        counter.dec(&k, 1).await.unwrap_err(),
        counter.get(&k).await.unwrap_err(),
        counter.set(&k, 1).await.unwrap_err(),
        counter.del(&k).await.unwrap_err(),
        counter.inc_if(&k, Nil, 1).await.unwrap_err(),
        counter.set_if(&k, Nil, 1).await.unwrap_err(),
        counter.get_all(&[&k, &k]).await.unwrap_err(),
        counter.inc_all(&[(&k, 1), (&k, 1)]).await.unwrap_err(),
        counter.set_all(&[(&k, 1), (&k, 1)]).await.unwrap_err(),
    ]
}

#[cfg(any(feature = "redis-rs", feature = "fred"))]
mod against_servers {
    use std::{future::Future, time::Duration};

    use distkit::backend::IntoBackend;
    use distkit_testkit::Server;

    use super::{stores::servers::TOTALS, *};

    fn counter(store: impl IntoBackend) -> std::sync::Arc<StrictCounter> {
        StrictCounter::new(CounterOptions::new(key("shop"), store))
    }

    /// Repeats `call` until it succeeds.
    async fn in_the_end<T, F: Future<Output = Result<T, DistkitError>>>(call: impl Fn() -> F) -> T {
        let trying = async {
            loop {
                match call().await {
                    Ok(answer) => return answer,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), trying).await.expect("it never recovered")
    }

    pub(super) async fn a_hash_of_the_wrong_type_is_named(connect: impl IntoClient) {
        let server = Server::redis().start();
        let counter = counter(connect.to(&server.url()));
        assert_eq!(server.cli(&["SET", TOTALS, "mine"]), "OK");
        for error in failures_of_all(&counter).await {
            assert!(matches!(error, DistkitError::NotApplied(_)), "{error:?}");
            assert!(distkit_testkit::chain(&error).contains(TOTALS), "{error}");
        }
        assert_eq!(server.cli(&["GET", TOTALS]), "mine");
    }

    /// The server closes the connection on a long command without a password, so that the outcome of
    /// the next one may be unknown; but none may be applied or called a success.
    pub(super) async fn a_missing_password_lets_nothing_through(connect: impl IntoClient) {
        let server = Server::redis().password("secret").start();
        let without = server.url().replace(":secret@", "");
        let counter = counter(connect.to(&without));
        let error = counter.inc(&key("k"), 1).await.unwrap_err();
        assert!(matches!(error, DistkitError::NotApplied(_)), "{error:?}");
        assert!(
            distkit_testkit::chain(&error).contains(connect.says_without_password()),
            "{error}"
        );
        failures_of_all(&counter).await;
        assert_eq!(server.cli(&["EXISTS", TOTALS]), "0");
    }

    /// No command is sent before the server has taken the password.
    pub(super) async fn a_wrong_password_is_never_an_unknown_outcome(connect: impl IntoClient) {
        let server = Server::redis().password("secret").start();
        let counter = counter(connect.to(&server.url().replace(":secret@", ":wrong@")));
        for error in failures_of_all(&counter).await {
            assert!(matches!(error, DistkitError::NotApplied(_)), "{error:?}");
        }
        assert_eq!(server.cli(&["EXISTS", TOTALS]), "0");
    }

    pub(super) async fn a_server_that_is_away_at_start_is_found_later(connect: impl IntoClient) {
        let server = Server::redis().start();
        server.stop();
        let counter = counter(connect.to(&server.url()));
        for error in failures_of_all(&counter).await {
            assert!(matches!(error, DistkitError::NotApplied(_)), "{error:?}");
        }
        server.restart();
        let k = key("k");
        assert_eq!(in_the_end(|| counter.get(&k)).await, 0);
        assert_eq!(counter.inc(&k, 1).await.unwrap(), 1);
    }

    pub(super) async fn a_server_that_goes_away_is_found_again(connect: impl IntoClient) {
        let server = Server::redis().append_only_always().start();
        let counter = counter(connect.to(&server.url()));
        let k = key("k");
        let before = in_the_end(|| counter.inc(&k, 1)).await;
        server.kill_9();
        let mut unknown = 0;
        for _ in 0..10 {
            match counter.inc(&k, 1).await.unwrap_err() {
                DistkitError::NotApplied(_) => {}
                DistkitError::OutcomeUnknown(_) => unknown += 1,
                other => panic!("{other:?}"),
            }
        }
        server.restart();
        let after = in_the_end(|| counter.get(&k)).await;
        let possible = before..=before + unknown;
        assert!(possible.contains(&after), "{after} is not in {possible:?}");
    }

    /// A client for an address, that connects when it can.
    pub(super) trait IntoClient {
        fn to(&self, url: &str) -> impl IntoBackend;

        /// A part of its complaint when the server wants a password.
        fn says_without_password(&self) -> &'static str;
    }

    macro_rules! with_client {
        ($module:ident, $feature:literal, $connect:path, $complaint:literal) => {
            #[cfg(feature = $feature)]
            mod $module {
                use super::*;

                struct Connect;

                impl IntoClient for Connect {
                    fn to(&self, url: &str) -> impl IntoBackend {
                        $connect(url)
                    }

                    fn says_without_password(&self) -> &'static str {
                        $complaint
                    }
                }

                #[tokio::test]
                async fn a_hash_of_the_wrong_type_is_named() {
                    super::a_hash_of_the_wrong_type_is_named(Connect).await;
                }

                #[tokio::test]
                async fn a_missing_password_lets_nothing_through() {
                    super::a_missing_password_lets_nothing_through(Connect).await;
                }

                #[tokio::test]
                async fn a_wrong_password_is_never_an_unknown_outcome() {
                    super::a_wrong_password_is_never_an_unknown_outcome(Connect).await;
                }

                #[tokio::test]
                async fn a_server_that_is_away_at_start_is_found_later() {
                    super::a_server_that_is_away_at_start_is_found_later(Connect).await;
                }

                #[tokio::test]
                async fn a_server_that_goes_away_is_found_again() {
                    super::a_server_that_goes_away_is_found_again(Connect).await;
                }
            }
        };
    }

    /// A command that is under way when the connection breaks waits for its timeout.
    #[cfg(feature = "fred")]
    fn impatient_fred(url: &str) -> fred::clients::Client {
        super::stores::servers::fred_client(url, Duration::from_secs(5))
    }

    with_client!(through_redis_rs, "redis-rs", crate::stores::servers::manager, "wants a password");
    with_client!(through_fred, "fred", impatient_fred, "not connected");
}
