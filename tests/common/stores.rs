//! The same test on every store.

use distkit::{
    RedisKey,
    backend::{Space, memory::MemoryBackend},
    counter::CounterOptions,
};

pub(crate) fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

type Plant = Box<dyn Fn(&RedisKey, &str)>;

/// An empty store for one test.
pub(crate) struct Stage {
    /// Counters under the prefix `shop`.
    pub(crate) options: CounterOptions,
    /// Counters of the same store under the prefix `shed`.
    #[allow(dead_code, reason = "not every test binary needs it")]
    pub(crate) elsewhere: CounterOptions,
    plant: Plant,
}

impl Stage {
    /// Puts text where the counter `shop`, `key` is kept.
    #[allow(dead_code, reason = "not every test binary plants")]
    pub(crate) fn plant(&self, key: &RedisKey, text: &str) {
        (self.plant)(key, text);
    }
}

pub(crate) async fn memory() -> Stage {
    let store = MemoryBackend::new();
    Stage {
        options: CounterOptions::new(key("shop"), store.clone()),
        elsewhere: CounterOptions::new(key("shed"), store.clone()),
        plant: Box::new(move |name, text| store.corrupt(&Space::new(key("shop")), name, text)),
    }
}

#[cfg(any(feature = "redis-rs", feature = "fred"))]
pub(crate) mod servers {
    use std::time::Duration;

    use distkit::backend::IntoBackend;
    use distkit_testkit::Server;

    use super::*;

    /// The documented name of the hash of the plain counters under the prefix `shop`.
    pub(crate) const TOTALS: &str = "distkit:{shop}:totals";

    /// The clients' own patience is too short for a debug build on a busy machine.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

    fn stage(server: Server, store: impl IntoBackend + Clone) -> Stage {
        Stage {
            options: CounterOptions::new(key("shop"), store.clone()),
            elsewhere: CounterOptions::new(key("shed"), store),
            plant: Box::new(move |key, text| {
                let answer = server.cli(&["HSET", TOTALS, key, text]);
                assert!(matches!(&*answer, "0" | "1"), "planting {text:?}: {answer}");
            }),
        }
    }

    #[cfg(feature = "redis-rs")]
    pub(crate) fn manager(url: &str) -> redis::aio::ConnectionManager {
        use redis::aio::{ConnectionManager, ConnectionManagerConfig};

        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(0);
        let client = redis::Client::open(url).unwrap();
        ConnectionManager::new_lazy_with_config(client, config).unwrap()
    }

    #[cfg(feature = "redis-rs")]
    pub(crate) async fn redis_rs() -> Stage {
        let server = Server::redis().start();
        let connection = manager(&server.url());
        stage(server, connection)
    }

    /// A client that connects in the background, and again and again.
    #[cfg(feature = "fred")]
    pub(crate) fn fred_client(url: &str, patience: Duration) -> fred::clients::Client {
        use fred::{
            interfaces::ClientLike,
            types::{
                Builder,
                config::{Config, ReconnectPolicy},
            },
        };

        let config = Config { fail_fast: false, ..Config::from_url(url).unwrap() };
        let client = Builder::from_config(config)
            .with_performance_config(|performance| performance.default_command_timeout = patience)
            .set_policy(ReconnectPolicy::new_constant(0, 20))
            .build()
            .unwrap();
        client.connect();
        client
    }

    #[cfg(feature = "fred")]
    pub(crate) async fn fred() -> Stage {
        use fred::interfaces::ClientLike;

        let server = Server::redis().start();
        let client = fred_client(&server.url(), PATIENCE);
        client.wait_for_connect().await.unwrap();
        stage(server, client)
    }
}

/// One test for each rule and store.
macro_rules! on_every_store {
    ($($rule:ident),* $(,)?) => {
        mod on_memory {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::stores::memory().await).await;
            })*
        }

        #[cfg(feature = "redis-rs")]
        mod on_redis_rs {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::stores::servers::redis_rs().await).await;
            })*
        }

        #[cfg(feature = "fred")]
        mod on_fred {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(super::stores::servers::fred().await).await;
            })*
        }
    };
}
