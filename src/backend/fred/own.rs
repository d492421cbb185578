use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::ClientLike,
    types::{
        ConnectHandle,
        config::{Config, Server, ServerConfig},
    },
};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::backend::{lua::CallError, progress};

/// A client that nobody else uses, so that it may be replaced when its background task has ended.
#[derive(Debug)]
pub(super) struct Own {
    /// What to make the client from: all but `config`.
    model: Client,
    config: Config,
    /// Where its background task runs, as long as that runtime lives.
    home: Option<Handle>,
    running: Mutex<Option<Running>>,
    making: tokio::sync::Mutex<()>,
    /// The running one was connected. One that never was ends with each attempt to connect.
    was_connected: AtomicBool,
}

#[derive(Debug)]
struct Running {
    client: Client,
    task: ConnectHandle,
}

impl Own {
    /// A client with `model`'s settings for one server of a cluster. Connects at first use.
    pub(super) fn of_node(model: &Client, server: Server, home: Option<Handle>) -> Self {
        let mut config = model.client_config();
        config.server = ServerConfig::Centralized { server };
        Self::new(model.clone(), config, home, None)
    }

    /// A client that is connected already.
    pub(super) fn started(client: Client, task: ConnectHandle) -> Self {
        let config = client.client_config();
        let running = Running { client: client.clone(), task };
        Self::new(client, config, None, Some(running))
    }

    fn new(model: Client, config: Config, home: Option<Handle>, running: Option<Running>) -> Self {
        Self {
            model,
            config,
            home,
            was_connected: AtomicBool::new(running.is_some()),
            running: Mutex::new(running),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// The client, if its task runs.
    pub(super) fn running(&self) -> Option<Client> {
        let running = self.running.lock();
        running.as_ref().filter(|running| !running.task.is_finished()).map(|r| r.client.clone())
    }

    /// The client, new where there was none or its task has ended; it may not be connected yet.
    pub(super) async fn client(&self) -> Client {
        if let Some(client) = self.running() {
            return client;
        }
        let _one_at_a_time = self.making.lock().await;
        if let Some(client) = self.running() {
            return client;
        }
        if self.was_connected.swap(false, Relaxed) {
            tracing::warn!(
                target: "distkit::connection",
                "the background task of a fred client has ended; connecting anew"
            );
        }
        let client = Client::new(
            self.config.clone(),
            Some(self.model.perf_config()),
            Some(self.model.connection_config().clone()),
            self.model.client_reconnect_policy(),
        );
        client.set_resolver(self.model.inner().get_resolver().await).await;
        let task = self.start(&client);
        *self.running.lock() = Some(Running { client: client.clone(), task });
        client
    }

    /// Not on the caller's runtime, if it can be helped: that one may be driven for this call only.
    fn start(&self, client: &Client) -> ConnectHandle {
        if let Some(home) = &self.home {
            let _home = home.enter();
            let task = client.connect();
            // As it is at once on a runtime that has shut down.
            if !task.is_finished() {
                return task;
            }
        }
        client.connect()
    }

    /// The client, connected.
    pub(super) async fn connected(&self) -> Result<Client, CallError> {
        let client = connected(self.client().await).await?;
        self.was_connected.store(true, Relaxed);
        Ok(client)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Fred's task goes on without its client.
        if let Some(running) = self.running.get_mut() {
            running.task.abort();
        }
    }
}

/// The client as soon as it is connected, which it may be doing just now.
pub(super) async fn connected(client: Client) -> Result<Client, CallError> {
    progress::waits();
    if !client.is_connected() {
        let connecting = tokio::time::timeout(super::CONNECTING, client.wait_for_connect()).await;
        // Also a connection that was made just before the wait began counts.
        if !client.is_connected() {
            return Err(match connecting {
                Ok(Err(error)) => CallError::NotSent(Arc::new(error)),
                _ => not_sent("the client is not connected to the server"),
            });
        }
    }
    // The client goes on to say that it is connected, and takes commands that nobody will send.
    if client.inner().has_command_rx() {
        return Err(not_sent(
            "the fred client's background task has ended: give the client a reconnect policy, or call \
             its connect",
        ));
    }
    progress::is_sent();
    Ok(client)
}

pub(super) fn not_sent(text: &'static str) -> CallError {
    CallError::NotSent(Arc::new(Error::new(ErrorKind::IO, text)))
}
