//! The store behind redis-rs keeps the `Backend` contract, on real servers.
#![cfg(all(feature = "conformance", feature = "redis-rs"))]
#![allow(clippy::unwrap_used)]

#[path = "common/servers.rs"]
mod servers;

use std::{sync::Arc, time::Duration};

use distkit::{backend::RedisStore, conformance::Fixture};
use distkit_testkit::Server;
use redis::{
    AsyncConnectionConfig,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
};
use servers::{Shared, clocked, clocked_fixture, fixture};

/// The client's own 500 ms are too little for a batch of 10 000 in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

static REDIS: Shared<Server> = Shared::new();
static VALKEY: Shared<Server> = Shared::new();

fn redis() -> Arc<Server> {
    REDIS.get(|| Server::redis().start())
}

fn valkey() -> Arc<Server> {
    VALKEY.get(|| Server::valkey().password("secret").start())
}

async fn multiplexed(server: &Server) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

async fn manager(server: &Server) -> ConnectionManager {
    let client = redis::Client::open(server.url()).unwrap();
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(PATIENCE));
    client.get_connection_manager_with_config(config).await.unwrap()
}

async fn manager_to_redis() -> Fixture {
    let server = redis();
    let connection = manager(&server).await;
    fixture(server, connection)
}

async fn resending_to_redis() -> Fixture {
    let server = redis();
    let store = RedisStore::resending(multiplexed(&server).await);
    fixture(server, store)
}

async fn multiplexed_to_valkey() -> Fixture {
    let server = valkey();
    let connection = multiplexed(&server).await;
    fixture(server, connection)
}

async fn manager_to_clocked_redis() -> Fixture {
    let server = clocked(Server::redis());
    let connection = manager(&server).await;
    clocked_fixture(server, connection)
}

async fn resending_to_clocked_valkey() -> Fixture {
    let server = clocked(Server::valkey());
    let store = RedisStore::resending(multiplexed(&server).await);
    clocked_fixture(server, store)
}

distkit::conformance_suite!(redis_with_a_manual_clock, manager_to_clocked_redis);
distkit::conformance_suite!(valkey_with_a_manual_clock, resending_to_clocked_valkey);
distkit::conformance_suite!(redis_through_a_manager, manager_to_redis);
distkit::recorded_conformance_suite!(recorded_by_redis, manager_to_redis);
distkit::recorded_slices_conformance_suite!(recorded_slices_by_redis, manager_to_redis);
distkit::recorded_conformance_suite!(recorded_by_valkey, multiplexed_to_valkey);
distkit::recorded_slices_conformance_suite!(recorded_slices_by_valkey, multiplexed_to_valkey);
distkit::enumeration_conformance_suite!(listing_of_redis, manager_to_redis);
distkit::slice_enumeration_conformance_suite!(slice_listing_of_redis, manager_to_redis);
distkit::enumeration_conformance_suite!(listing_of_valkey, multiplexed_to_valkey);
distkit::slice_enumeration_conformance_suite!(slice_listing_of_valkey, multiplexed_to_valkey);
distkit::windows_conformance_suite!(windows_of_redis, manager_to_clocked_redis);
distkit::windows_conformance_suite!(windows_of_valkey, resending_to_clocked_valkey);
distkit::tokens_conformance_suite!(tokens_of_redis, manager_to_redis);
distkit::tokens_conformance_suite!(tokens_of_valkey, resending_to_clocked_valkey);
distkit::tokens_conformance_suite!(tokens_by_a_manual_clock, manager_to_clocked_redis);
distkit::conformance_suite!(redis_through_a_resending_connection, resending_to_redis);
distkit::conformance_suite!(valkey_with_a_password_through_one_connection, multiplexed_to_valkey);

#[cfg(feature = "redis-rs-cluster")]
mod cluster {
    use distkit_testkit::Cluster;

    use super::*;

    static CLUSTER: Shared<Cluster> = Shared::new();
    static VALKEY_CLUSTER: Shared<Cluster> = Shared::new();

    async fn connected(cluster: Arc<Cluster>) -> Fixture {
        let client = redis::cluster::ClusterClient::builder(cluster.urls())
            .response_timeout(PATIENCE)
            .build()
            .unwrap();
        let connection = client.get_async_connection().await.unwrap();
        fixture(cluster, connection)
    }

    async fn redis_cluster() -> Fixture {
        connected(CLUSTER.get(Cluster::start)).await
    }

    async fn valkey_cluster() -> Fixture {
        connected(VALKEY_CLUSTER.get(|| Cluster::of(Server::valkey()))).await
    }

    distkit::conformance_suite!(of_redis, redis_cluster);
    distkit::recorded_conformance_suite!(recorded_by_redis, redis_cluster);
    distkit::recorded_slices_conformance_suite!(recorded_slices_by_redis, redis_cluster);
    distkit::enumeration_conformance_suite!(listing_of_redis, redis_cluster);
    distkit::slice_enumeration_conformance_suite!(slice_listing_of_redis, redis_cluster);
    distkit::windows_conformance_suite!(windows_of_redis, redis_cluster);
    distkit::tokens_conformance_suite!(tokens_of_redis, redis_cluster);
    distkit::conformance_suite!(of_valkey, valkey_cluster);
}
