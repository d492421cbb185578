//! The store over `redis-rs`: connection glue and error classification.

mod origin;
mod reconnecting;
mod runner;

use std::{any::Any, sync::Once};

use redis::aio::{ConnectionLike, ConnectionManager, MultiplexedConnection};

use super::{into::connection, lua::LuaStore};

pub use reconnecting::ReconnectingConnection;
use runner::{Runner, Traits};

/// What a [`RedisStore`] takes: any asynchronous connection of redis-rs that can be cloned.
pub trait RedisConnection: ConnectionLike + Clone + Send + Sync + 'static {}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> RedisConnection for C {}

/// Counters in Redis or Valkey, over a connection of `redis-rs`.
///
/// Options take a [`ConnectionManager`], [`MultiplexedConnection`] or `ClusterConnection` directly; this
/// is for other connections, and for choosing how one is treated.
///
/// Waiting for an answer is bounded by the connection's own response timeout (default: 500 ms). A
/// [`ConnectionManager`] whose server is unreachable waits for its attempts to reconnect besides, about
/// 9.5 s with its defaults; [`connect`](super::connect()) sets fewer.
pub type RedisStore<C> = LuaStore<Runner<C>>;

impl<C: RedisConnection> LuaStore<Runner<C>> {
    /// Returns the store behind `connection`. No I/O.
    ///
    /// A [`ConnectionManager`] that finds itself connected to a read-only replica, as after a failover,
    /// is made to connect again: it does not by itself. A `ClusterConnection` is known to send commands
    /// again by itself, and is used as by [`resending`](Self::resending).
    pub fn new(connection: C) -> Self {
        let traits = Traits::of(&connection as &dyn Any);
        Self::over(Runner::new(connection, traits))
    }

    /// Returns the store behind a connection that may send a command again by itself when an answer is lost.
    /// Every write then goes through a script that recognises what it has already applied. No I/O.
    pub fn resending(connection: C) -> Self {
        let traits = Traits { resends: true, ..Traits::of(&connection as &dyn Any) };
        Self::over(Runner::new(connection, traits))
    }
}

/// A connection manager gives up for good when a reconnect is refused, as during a password rotation, and never
/// replaces a connection that went silent: see [`ReconnectingConnection`].
fn managed(connection: ConnectionManager) -> RedisStore<ConnectionManager> {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            target: "distkit::connection",
            "a ConnectionManager of redis-rs does not reconnect after a refused password; use \
             ReconnectingConnection"
        );
    });
    RedisStore::new(connection)
}

/// For tests and short programs: such a connection is never replaced, and a service loses its store with it.
fn multiplexed(connection: MultiplexedConnection) -> RedisStore<MultiplexedConnection> {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            target: "distkit::connection",
            "a MultiplexedConnection of redis-rs never reconnects; use ReconnectingConnection"
        );
    });
    RedisStore::new(connection)
}

connection!(ConnectionManager => RedisStore<ConnectionManager>, managed);
connection!(MultiplexedConnection => RedisStore<MultiplexedConnection>, multiplexed);
connection!(ReconnectingConnection => RedisStore<ReconnectingConnection>, RedisStore::new);
#[cfg(feature = "redis-rs-cluster")]
connection!(
    redis::cluster_async::ClusterConnection => RedisStore<redis::cluster_async::ClusterConnection>,
    RedisStore::new
);
