//! The contract, over each Redis client, against Redis and Valkey, alone and in a cluster.
#![cfg(all(
    feature = "conformance",
    feature = "redis-rs",
    feature = "redis-rs-cluster",
    feature = "fred"
))]
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex, Weak};

use distkit::{
    backend::{IntoBackend, RedisStore},
    conformance::Fixture,
};
use distkit_testkit::{Cluster, Server};
use fred::{
    interfaces::ClientLike,
    types::config::{Config, ReconnectPolicy},
};

/// Tests that run at the same time share a server; the last one takes it down.
struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    fn get(&self, start: impl FnOnce() -> T) -> Arc<T> {
        let mut shared = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(start());
            *shared = Arc::downgrade(&started);
            started
        })
    }
}

static REDIS: Shared<Server> = Shared::new();
static VALKEY: Shared<Server> = Shared::new();
static CLUSTER: Shared<Cluster> = Shared::new();

/// The prefixes of the suite's spaces need no encoding.
fn totals(prefix: &str) -> String {
    format!("distkit:{{{prefix}}}:totals")
}

fn on_server(server: &Arc<Server>, backend: impl IntoBackend) -> Fixture {
    let keeper = server.clone();
    let server = server.clone();
    Fixture::new(backend.into_backend()).keep(keeper).plant_with(move |space, key, text| {
        server.cli(&["HSET", &totals(space.prefix()), &key, &text]);
        async {}
    })
}

fn on_cluster(cluster: &Arc<Cluster>, backend: impl IntoBackend) -> Fixture {
    let keeper = cluster.clone();
    let cluster = cluster.clone();
    Fixture::new(backend.into_backend()).keep(keeper).plant_with(move |space, key, text| {
        cluster.cli(&["HSET", &totals(space.prefix()), &key, &text]);
        async {}
    })
}

async fn redis_rs_manager() -> Fixture {
    let server = REDIS.get(|| Server::redis().start());
    let client = redis::Client::open(server.url()).unwrap();
    on_server(&server, client.get_connection_manager().await.unwrap())
}

async fn redis_rs_multiplexed() -> Fixture {
    let server = VALKEY.get(|| Server::valkey().password("secret").start());
    let client = redis::Client::open(server.url()).unwrap();
    on_server(&server, client.get_multiplexed_async_connection().await.unwrap())
}

async fn redis_rs_resending() -> Fixture {
    let server = REDIS.get(|| Server::redis().start());
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    on_server(&server, RedisStore::resending(connection))
}

async fn redis_rs_cluster() -> Fixture {
    let cluster = CLUSTER.get(Cluster::start);
    let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
    on_cluster(&cluster, client.get_async_connection().await.unwrap())
}

async fn fred_client() -> Fixture {
    let server = REDIS.get(|| Server::redis().start());
    let config = Config::from_url(&server.url()).unwrap();
    let client = fred::clients::Client::new(config, None, None, Some(ReconnectPolicy::default()));
    client.init().await.unwrap();
    on_server(&server, client)
}

async fn fred_pool() -> Fixture {
    let server = VALKEY.get(|| Server::valkey().password("secret").start());
    let config = Config::from_url(&server.url()).unwrap();
    let policy = Some(ReconnectPolicy::default());
    let pool = fred::clients::Pool::new(config, None, None, policy, 3).unwrap();
    pool.init().await.unwrap();
    on_server(&server, pool)
}

async fn fred_cluster() -> Fixture {
    let cluster = CLUSTER.get(Cluster::start);
    let url = cluster.urls()[0].replacen("redis://", "redis-cluster://", 1);
    let config = Config::from_url(&url).unwrap();
    let client = fred::clients::Client::new(config, None, None, Some(ReconnectPolicy::default()));
    client.init().await.unwrap();
    on_cluster(&cluster, client)
}

distkit::conformance_suite!(manager, redis_rs_manager);
distkit::conformance_suite!(multiplexed, redis_rs_multiplexed);
distkit::conformance_suite!(resending, redis_rs_resending);
distkit::conformance_suite!(redis_cluster, redis_rs_cluster);
distkit::conformance_suite!(client, fred_client);
distkit::conformance_suite!(pool, fred_pool);
distkit::conformance_suite!(fred_cluster_client, fred_cluster);
