//! The store over `fred`: connection glue and error classification.

mod runner;

use std::sync::Arc;

use fred::clients::{Client, Pool};

use super::{
    Backend, IntoBackend,
    lua::{LuaStore, backend_through_lua},
};

use runner::{Runner, Source};

/// Counters in Redis or Valkey, over a client or pool of `fred`.
///
/// Options take a [`Client`] or [`Pool`] directly. Commands wait for an answer as long as the client's
/// `default_command_timeout` says, or 5 s where it says nothing, and are never sent a second time: what
/// the client's `max_command_attempts` says does not apply. Against a cluster, where following a
/// redirection needs further attempts, every write goes through a script that recognises what it has
/// already applied.
pub struct FredStore(LuaStore<Runner>);

impl FredStore {
    /// The store behind a [`Client`] or [`Pool`] that has been, or will be, connected with `init`. No
    /// I/O.
    pub fn new(client: impl Into<FredClient>) -> Self {
        Self(LuaStore::new(Runner::new(client.into().0)))
    }
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

impl std::fmt::Debug for FredStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FredStore").finish_non_exhaustive()
    }
}

backend_through_lua!(FredStore);

impl IntoBackend for Client {
    fn into_backend(self) -> Arc<dyn Backend> {
        Arc::new(FredStore::new(self).0)
    }
}

impl IntoBackend for Pool {
    fn into_backend(self) -> Arc<dyn Backend> {
        Arc::new(FredStore::new(self).0)
    }
}
