//! What operators are told of servers that freeze, fill up or change their place.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError,
    backend::connect,
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use distkit_testkit::{Sentinels, Server, ServerBuilder};

use crate::{
    log::Log,
    support::{Client, eventually, key},
};

fn url(server: &Server, client: Client) -> String {
    match client {
        Client::Redis => server.url(),
        Client::Fred => server.url().replacen("redis", "redis+fred", 1),
    }
}

/// The same test over each client, on one thread, whose log is read.
macro_rules! on_one_thread {
    ($($body:ident),+ $(,)?) => {$(
        mod $body {
            use crate::support::Client;

            #[tokio::test]
            async fn redis_rs() {
                super::$body(Client::Redis).await;
            }

            #[tokio::test]
            async fn fred() {
                super::$body(Client::Fred).await;
            }
        }
    )+};
}

on_one_thread!(
    what_was_not_sent_to_a_frozen_server_was_not_applied,
    a_full_disk_is_seen_from_its_beginning_to_its_end,
    a_failover_is_in_the_log,
);

async fn blocking<S: Send + Sync + 'static>(on: &Arc<S>, work: fn(&S)) {
    let on = on.clone();
    tokio::task::spawn_blocking(move || work(&on)).await.unwrap();
}

/// The first calls are sent and stay unknown. Once the connection is given up for a new one, the others are not sent, and
/// say so: those too whose deadline comes while the client connects.
async fn what_was_not_sent_to_a_frozen_server_was_not_applied(client: Client) {
    let server = Arc::new(Server::redis().start());
    let store = connect(&url(&server, client)).await.unwrap();
    let options = CounterOptions::new(key("p"), store).unknown_after(Duration::from_secs(1));
    let (strict, hits) = (StrictCounter::new(options), key("hits"));
    strict.inc(&hits, 1).await.unwrap();
    blocking(&server, Server::freeze).await;
    let (mut unknown, mut in_a_row) = (0, 0);
    eventually("the connection to be given up", async || {
        match strict.inc(&hits, 1).await.unwrap_err() {
            DistkitError::NotApplied(_) => in_a_row += 1,
            error => {
                assert_eq!(in_a_row, 0, "sent again after it was not: {error}");
                unknown += 1;
            }
        }
        in_a_row > 10
    })
    .await;
    blocking(&server, Server::thaw).await;
    let mut total = 0;
    eventually("the server", async || match strict.get(&hits).await {
        Ok(now) => {
            total = now;
            true
        }
        Err(_) => false,
    })
    .await;
    assert!((1..=1 + unknown).contains(&total), "{total}, {unknown} unknown");
    assert_eq!(strict.stats().unknown, unknown.try_into().unwrap());
}

async fn a_full_disk_is_seen_from_its_beginning_to_its_end(client: Client) {
    let dir = tempfile::tempdir().unwrap();
    // What is to be renamed to this name cannot be.
    let taken = dir.path().join("taken");
    let place = ["--dir", dir.path().to_str().unwrap(), "--dbfilename", "taken"];
    let builder: ServerBuilder = Server::redis().args(&place).args(&["--save", "1000 1000000"]);
    let server = Arc::new(builder.start());
    std::fs::create_dir_all(taken.join("full")).unwrap();
    let (log, _guard) = Log::start();
    let store = connect(&url(&server, client)).await.unwrap();
    let options = CounterOptions::new(key("p"), store);
    let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
    let (a, b) = (key("a"), key("b"));
    strict.inc(&a, 1).await.unwrap();
    lax.inc(&b, 1).await.unwrap();
    lax.flush().await.unwrap();

    blocking(&server, |server| drop(server.cli(&["BGSAVE"]))).await;
    eventually("writes to be refused", async || strict.inc(&a, 1).await.is_err()).await;
    lax.inc(&b, 1).await.unwrap();
    lax.flush().await.unwrap_err();
    for _ in 0..20 {
        strict.get(&a).await.unwrap();
        let error = strict.inc(&a, 1).await.unwrap_err();
        assert!(matches!(error, DistkitError::NotApplied(_)), "{error}");
        let stats = strict.stats();
        assert!(stats.writes_refused_for.is_some() && stats.outages == 0, "{stats:?}");
    }
    let stats = lax.stats();
    assert!(stats.writes_refused_for.is_some() && stats.oldest_pending.is_some(), "{stats:?}");

    std::fs::remove_dir_all(&taken).unwrap();
    blocking(&server, |server| drop(server.cli(&["BGSAVE"]))).await;
    eventually("a write", async || strict.inc(&a, 1).await.is_ok()).await;
    eventually("a flush", async || lax.flush().await.is_ok()).await;
    for stats in [strict.stats(), lax.stats()] {
        assert_eq!((stats.writes_refused_for, stats.outages, stats.losses), (None, 0, 0));
    }
    let begins = log.lines("the store refuses writes", "distkit::store");
    assert!(begins.len() == 1 && begins[0].contains("MISCONF"), "{begins:#?}");
    assert_eq!(log.lines("the store takes writes again", "distkit::store").len(), 1);
    let flushes = log.lines("cannot flush", "distkit::lax");
    assert!(flushes[0].contains("MISCONF"), "{flushes:#?}");
    assert_eq!(log.lines("flushing again", "distkit::lax").len(), 1);
}

async fn a_failover_is_in_the_log(client: Client) {
    let start = || Arc::new(Sentinels::of(Server::redis()));
    let sentinels = tokio::task::spawn_blocking(start).await.unwrap();
    let (log, _guard) = Log::start();
    let scheme = match client {
        Client::Redis => "redis-sentinel",
        Client::Fred => "redis-sentinel+fred",
    };
    let store = connect(&sentinels.url(scheme)).await.unwrap();
    let strict = StrictCounter::new(CounterOptions::new(key("p"), store));
    strict.inc(&key("a"), 1).await.unwrap();
    let from = sentinels.primary().port();
    blocking(&sentinels, Sentinels::fail_over).await;
    let line = || log.lines("connected to another server than before", "distkit::connection");
    eventually("the new primary", async || {
        strict.inc(&key("a"), 1).await.is_ok() && !line().is_empty()
    })
    .await;
    let to = sentinels.primary().port();
    assert!(
        line()[0].contains(&format!("from=127.0.0.1:{from} to=127.0.0.1:{to}")),
        "{:?}",
        line()
    );
}
