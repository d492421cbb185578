//! The store behind fred keeps the `Backend` contract, on real servers.
#![cfg(all(feature = "conformance", feature = "fred"))]
#![allow(clippy::unwrap_used)]

#[path = "common/servers.rs"]
mod servers;

use std::{sync::Arc, time::Duration};

use distkit::conformance::Fixture;
use distkit_testkit::{Cluster, Server};
use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        Builder,
        config::{Config, ReconnectPolicy, ServerConfig},
    },
};
use servers::{Shared, clocked, clocked_fixture, fixture};

static REDIS: Shared<Server> = Shared::new();
static VALKEY: Shared<Server> = Shared::new();
static CLUSTER: Shared<Cluster> = Shared::new();
static VALKEY_CLUSTER: Shared<Cluster> = Shared::new();

fn redis() -> Arc<Server> {
    REDIS.get(|| Server::redis().start())
}

fn valkey() -> Arc<Server> {
    VALKEY.get(|| Server::valkey().password("secret").start())
}

fn builder(config: Config) -> Builder {
    let mut builder = Builder::from_config(config);
    // Enough for a batch of 10 000 in a debug build on a busy machine.
    builder.with_performance_config(|performance| {
        performance.default_command_timeout = Duration::from_secs(60);
    });
    builder.set_policy(ReconnectPolicy::default());
    builder
}

async fn client(server: &Server) -> Client {
    let client = builder(Config::from_url(&server.url()).unwrap()).build().unwrap();
    client.init().await.unwrap();
    client
}

async fn client_of_redis() -> Fixture {
    let server = redis();
    let client = client(&server).await;
    fixture(server, client)
}

async fn client_of_clocked_redis() -> Fixture {
    let server = clocked(Server::redis());
    let client = client(&server).await;
    clocked_fixture(server, client)
}

async fn client_of_clocked_valkey() -> Fixture {
    let server = clocked(Server::valkey());
    let client = client(&server).await;
    clocked_fixture(server, client)
}

async fn pool_of_valkey() -> Fixture {
    let server = valkey();
    let pool = builder(Config::from_url(&server.url()).unwrap()).build_pool(3).unwrap();
    pool.init().await.unwrap();
    fixture(server, pool)
}

async fn clustered(cluster: Arc<Cluster>) -> Fixture {
    let nodes = cluster.nodes().iter().map(|node| ("127.0.0.1", node.port())).collect();
    let server = ServerConfig::new_clustered(nodes);
    let client = builder(Config { server, ..Config::default() }).build().unwrap();
    client.init().await.unwrap();
    fixture(cluster, client)
}

async fn redis_cluster() -> Fixture {
    clustered(CLUSTER.get(Cluster::start)).await
}

async fn valkey_cluster() -> Fixture {
    clustered(VALKEY_CLUSTER.get(|| Cluster::of(Server::valkey()))).await
}

distkit::conformance_suite!(redis_with_a_manual_clock, client_of_clocked_redis);
distkit::conformance_suite!(valkey_with_a_manual_clock, client_of_clocked_valkey);
distkit::conformance_suite!(redis_through_a_client, client_of_redis);
distkit::recorded_conformance_suite!(recorded_by_redis, client_of_redis);
distkit::recorded_slices_conformance_suite!(recorded_slices_by_redis, client_of_redis);
distkit::recorded_conformance_suite!(recorded_by_a_cluster, valkey_cluster);
distkit::recorded_slices_conformance_suite!(recorded_slices_by_a_cluster, valkey_cluster);
distkit::enumeration_conformance_suite!(listing_of_redis, client_of_redis);
distkit::slice_enumeration_conformance_suite!(slice_listing_of_redis, client_of_redis);
distkit::enumeration_conformance_suite!(listing_of_a_cluster, valkey_cluster);
distkit::slice_enumeration_conformance_suite!(slice_listing_of_a_cluster, valkey_cluster);
distkit::windows_conformance_suite!(windows_of_redis, client_of_clocked_redis);
distkit::windows_conformance_suite!(windows_of_a_cluster, valkey_cluster);
distkit::tokens_conformance_suite!(tokens_of_redis, client_of_redis);
distkit::tokens_conformance_suite!(tokens_by_a_manual_clock, client_of_clocked_valkey);
distkit::tokens_conformance_suite!(tokens_of_a_cluster, valkey_cluster);
distkit::conformance_suite!(valkey_with_a_password_through_a_pool, pool_of_valkey);
distkit::conformance_suite!(redis_cluster_through_a_client, redis_cluster);
distkit::conformance_suite!(valkey_cluster_through_a_client, valkey_cluster);
