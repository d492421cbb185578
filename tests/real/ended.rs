//! Fred clients whose background task has ended.

use std::{sync::Arc, time::Duration};

use distkit::counter::{CounterOptions, CounterTrait, StrictCounter};
use distkit_testkit::{Cluster, Server};
use fred::{clients::Client, interfaces::ClientLike, types::config::Config};
use tokio::time::Instant;

use crate::support::{eventually, key};

/// Without a reconnect policy, as fred has it by default.
fn client(url: &str) -> Client {
    Client::new(Config::from_url(url).unwrap(), None, None, None)
}

fn counter(client: Client) -> Arc<StrictCounter> {
    let options = CounterOptions::new(key("bench"), client);
    StrictCounter::new(options.unknown_after(Duration::from_secs(2)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_ended_is_named_at_once() {
    let server = Server::redis().start();
    let lent = client(&server.url());
    lent.init().await.unwrap();
    let counter = counter(lent.clone());
    counter.inc(&key("hits"), 1).await.unwrap();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);

    let began = Instant::now();
    let mut said = String::new();
    eventually("the end to be noticed", async || match counter.inc(&key("other"), 1).await {
        Ok(_) => false,
        Err(error) => {
            said = format!("{error:?} {error}");
            said.contains("background task") || said.contains("not connected")
        }
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}: {said}", began.elapsed());
    let began = Instant::now();
    assert!(!counter.inc(&key("other"), 1).await.unwrap_err().may_have_happened());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    lent.init().await.unwrap();
    assert_eq!(counter.inc(&key("hits"), 1).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_own_client_is_made_anew_when_it_has_ended() {
    let cluster = Cluster::start();
    let url = cluster.urls()[0].replacen("redis://", "redis-cluster://", 1);
    // Never connected: the store makes a client of its own from it.
    let counter = counter(client(&url));
    for n in 1..=3 {
        eventually("the store to connect", async || counter.get(&key("hits")).await.is_ok()).await;
        assert_eq!(counter.inc(&key("hits"), 1).await.unwrap(), n);
        for node in cluster.nodes() {
            node.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
        let began = Instant::now();
        eventually("an answer", async || counter.get(&key("hits")).await.is_ok()).await;
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_the_stores_own_client_cannot_connect_is_told() {
    let cluster = Cluster::of(Server::redis().password("secret"));
    let url = format!("redis-cluster://:wrong@127.0.0.1:{}", cluster.nodes()[0].port());
    let counter = counter(client(&url));
    let began = Instant::now();
    let error = counter.inc(&key("hits"), 1).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(matches!(error, distkit::DistkitError::NotApplied(_)), "{error:?}");
    assert!(format!("{error:?}").contains("WRONGPASS"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_on_a_cluster_is_made_anew_too() {
    let cluster = Cluster::start();
    let url = cluster.urls()[0].replacen("redis://", "redis-cluster://", 1);
    let config = Config::from_url(&url).unwrap();
    let pool = fred::clients::Pool::new(config, None, None, None, 2).unwrap();
    let counter = StrictCounter::new(CounterOptions::new(key("bench"), pool));
    for n in 1..=4 {
        eventually("the store to connect", async || counter.get(&key("hits")).await.is_ok()).await;
        assert_eq!(counter.inc(&key("hits"), 1).await.unwrap(), n);
    }
}
