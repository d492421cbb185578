use std::{sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{IntoBackend, Store},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use distkit_testkit::{Cluster, Server};
use fred::{
    interfaces::ClientLike,
    types::config::{Config, ReconnectPolicy},
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use tokio::time::Instant;

/// Which client a test goes through.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Client {
    Redis,
    Fred,
}

/// Makes a test for each client of `async fn body(Client)`.
macro_rules! over_both_clients {
    ($($(#[$meta:meta])* $body:ident),+ $(,)?) => {$(
        mod $body {
            use crate::support::Client;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis_rs() {
                super::$body(Client::Redis).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn fred() {
                super::$body(Client::Fred).await;
            }
        }
    )+};
}
pub(crate) use over_both_clients;

impl Client {
    /// A connection of its own, as another process would have. The server may be away.
    pub(crate) async fn connect(self, server: &Server) -> Arc<dyn Store> {
        match self {
            Self::Redis => {
                let config = ConnectionManagerConfig::new()
                    // A healthy answer may be late on a busy machine.
                    .set_response_timeout(Some(Duration::from_secs(5)))
                    .set_min_delay(Duration::from_millis(5))
                    .set_max_delay(Duration::from_millis(50))
                    .set_number_of_retries(2);
                let client = redis::Client::open(server.url()).unwrap();
                ConnectionManager::new_lazy_with_config(client, config).unwrap().into_backend()
            }
            Self::Fred => {
                let mut config = Config::from_url(&server.url()).unwrap();
                config.fail_fast = false;
                let policy = Some(ReconnectPolicy::new_constant(0, 5));
                let client = fred::clients::Client::new(config, None, None, policy);
                client.connect();
                client.into_backend()
            }
        }
    }

    pub(crate) async fn connect_cluster(self, cluster: &Cluster) -> Arc<dyn Store> {
        match self {
            Self::Redis => {
                let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
                client.get_async_connection().await.unwrap().into_backend()
            }
            Self::Fred => {
                let url = cluster.urls()[0].replacen("redis://", "redis-cluster://", 1);
                let config = Config::from_url(&url).unwrap();
                let policy = Some(ReconnectPolicy::default());
                let client = fred::clients::Client::new(config, None, None, policy);
                client.init().await.unwrap();
                client.into_backend()
            }
        }
    }
}

/// A server, and counters that come to it over one client.
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) server: Arc<Server>,
}

/// So long that nothing is flushed but on demand.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

impl Bench {
    pub(crate) async fn new(client: Client) -> Self {
        Self::on(client, Server::redis().start())
    }

    /// A server that keeps its data when killed.
    pub(crate) async fn durable(client: Client) -> Self {
        Self::on(client, Server::valkey().append_only_always().start())
    }

    pub(crate) fn on(client: Client, server: Server) -> Self {
        Self { client, server: Arc::new(server) }
    }

    pub(crate) async fn options(&self) -> CounterOptions {
        CounterOptions::new(key("bench"), self.client.connect(&self.server).await)
    }

    /// A lax counter with a connection of its own, as in another process.
    pub(crate) async fn lax(&self, lag: Duration) -> Arc<LaxCounter> {
        LaxCounter::new(self.options().await.allowed_lag(lag))
    }

    pub(crate) async fn strict(&self) -> Arc<StrictCounter> {
        StrictCounter::new(self.options().await)
    }

    /// A connection from beside the crate.
    pub(crate) async fn raw(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.server.url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// One command, from beside the crate.
    pub(crate) async fn cli(&self, args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        self.blocking(move |server| server.cli(&args)).await
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Server) -> T + Send + 'static,
    ) -> T {
        let server = self.server.clone();
        tokio::task::spawn_blocking(move || work(&server)).await.unwrap()
    }

    /// What the store holds, read from beside the crate. Each key's total, and 0 for a missing one.
    pub(crate) async fn held(&self, key: &RedisKey) -> i64 {
        let text = self.cli(&["HGET", TOTALS, key]).await;
        if text.is_empty() { 0 } else { text.parse().unwrap() }
    }
}

pub(crate) const TOTALS: &str = "distkit:{bench}:totals";

pub(crate) fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

pub(crate) fn keys(count: usize) -> Vec<RedisKey> {
    (0..count).map(|n| key(&format!("key {n}"))).collect()
}

/// How long a test under load runs.
pub(crate) fn soak(default: Duration) -> Duration {
    match std::env::var("DISTKIT_SOAK") {
        Ok(seconds) => Duration::from_secs(seconds.parse().unwrap()),
        Err(_) => default,
    }
}

/// Polls until the condition holds; panics after half a minute.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Polls until the counter answers with `total`.
pub(crate) async fn eventually_reads(counter: &impl CounterTrait, key: &RedisKey, total: i64) {
    let what = format!("{key} to become {total}");
    eventually(&what, async || matches!(counter.get(key).await, Ok(now) if now == total)).await;
}

/// Numbers that look random, the same each time.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
