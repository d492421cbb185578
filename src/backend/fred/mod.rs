//! The store over `fred`: connection glue and error classification.

mod own;
mod runner;
mod seen;

use std::sync::Arc;

use fred::{
    clients::{Client, Pool},
    types::ConnectHandle,
};

use super::{Store, into::connection, lua::LuaStore};

use runner::{Runner, Source};

/// Counters in Redis or Valkey, over a client or pool of `fred`.
///
/// Options take a [`Client`] or [`Pool`] directly. Commands wait for an answer as long as the client's
/// `default_command_timeout` says, or 5 s where it says nothing, and are never sent a second time: what
/// the client's `max_command_attempts` says does not apply. Against a cluster, where following a
/// redirection needs further attempts, every write goes through a script that recognises what it has
/// already applied.
///
/// # Clusters
///
/// Fred mixes up the answers of a connection when it follows a redirection while a slot moves. The store
/// therefore follows redirections itself, for up to 5 s a command, and only uses a client whose
/// `ConnectionConfig::max_redirections` is 0. For any other client or pool it makes its own from the same
/// configuration, policy and resolver. Its own clients connect at the first command, whose error tells why
/// they cannot, and are made anew when their background task ends. They count as further connections on
/// the servers.
///
/// # A client that has ended
///
/// Without a reconnect policy, fred's background task ends with its connection. The store then fails at once
/// with [`BackendError::NotApplied`](crate::backend::BackendError::NotApplied), until the client's `connect` is
/// called again.
pub type FredStore = LuaStore<Runner>;

impl LuaStore<Runner> {
    /// The store behind a [`Client`] or [`Pool`] that has been, or will be, connected with `init`. No
    /// I/O.
    pub fn new(client: impl Into<FredClient>) -> Self {
        Self::over(Runner::new(client.into().0))
    }
}

/// The store over a client that was made for it, connected by `task`.
pub(super) fn owning(client: Client, task: ConnectHandle) -> Arc<dyn Store> {
    Arc::new(LuaStore::over(Runner::owning(client, task)))
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
