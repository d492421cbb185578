//! The store over `fred`: connection glue and error classification.

mod cluster;
mod own;
mod runner;
mod seen;

use std::{sync::Arc, time::Duration};

use fred::{
    clients::{Client, Pool},
    types::ConnectHandle,
};

use super::{
    Store,
    into::connection,
    lua::{CallError, LuaStore},
};

use runner::{Runner, Source};

/// How long a command waits for a client that is connecting just now.
const CONNECTING: Duration = Duration::from_millis(500);

/// Counters in Redis or Valkey, over a client or pool of `fred`.
///
/// Options take a [`Client`] or [`Pool`] directly. Commands wait for an answer as long as the client's
/// `default_command_timeout` says, or 5 s where it says nothing, and are not sent a second time to a single
/// server: what the client's `max_command_attempts` says does not apply.
///
/// # Clusters
///
/// The store takes only the settings of a cluster's client or pool: credentials, TLS, policy, resolver and the number
/// of clients. It makes that many clients of its own for each node, and connects them at the first command to the node.
/// The user's client need not be connected; if it is, its connections stay unused.
///
/// - A node that is unreachable delays its own keys only. Fred's own client of a cluster sends nothing to any node
///   while it cannot reach one.
/// - The store follows redirections itself, for up to 5 s a command. Fred mixes up the answers of a connection when it
///   does.
/// - A command whose connection is lost is sent again, up to three times in all: every write goes through a script that
///   recognises what it has already applied.
/// - Where no node can be reached, a command's error tells why.
///
/// A `TlsHostMapping` is heeded with the feature `fred-tls`.
///
/// # A client that has ended
///
/// Without a reconnect policy, fred's background task ends with its connection. The store then fails at once
/// with [`BackendError::NotApplied`](crate::backend::BackendError::NotApplied), until the client's `connect` is
/// called again. Clients that the store has made for a cluster are made anew.
pub type FredStore = LuaStore<Runner>;

impl LuaStore<Runner> {
    /// Returns the store behind a [`Client`] or [`Pool`] that has been, or will be, connected with `init`. No
    /// I/O.
    pub fn new(client: impl Into<FredClient>) -> Self {
        Self::over(Runner::new(client.into().0))
    }
}

/// The store over a client of a single server that was made for it, connected by `task`.
pub(super) fn owning(client: Client, task: ConnectHandle) -> Arc<dyn Store> {
    Arc::new(LuaStore::over(Runner::owning(client, task)))
}

/// The store over the nodes of a cluster, connected with the settings of `client`.
pub(super) async fn cluster(client: Client) -> Result<Arc<dyn Store>, CallError> {
    let runner = Runner::new(Source::Client(client));
    runner.connect().await?;
    Ok(Arc::new(LuaStore::over(runner)))
}

/// A [`Client`] or a [`Pool`].
#[derive(Debug, Clone)]
pub struct FredClient(Source);

impl From<Client> for FredClient {
    fn from(client: Client) -> Self {
        Self(Source::Client(client))
    }
}

impl From<Pool> for FredClient {
    fn from(pool: Pool) -> Self {
        Self(Source::Pool(pool))
    }
}

connection!(Client => FredStore, FredStore::new);
connection!(Pool => FredStore, FredStore::new);
