use std::sync::OnceLock;

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{ConnectHandle, config::ConnectionConfig},
};
use parking_lot::Mutex;

/// A client that nobody else uses, so that it may be replaced when its background task has ended.
#[derive(Debug)]
pub(super) struct Own {
    /// What to make the client from.
    model: Client,
    /// Told by a failed redirection instead of followed: see [`Own::like`].
    connection: ConnectionConfig,
    running: Mutex<Option<Running>>,
    making: tokio::sync::Mutex<()>,
    made: OnceLock<()>,
}

#[derive(Debug)]
struct Running {
    client: Client,
    task: ConnectHandle,
}

impl Own {
    /// A client with `model`'s settings that does not follow redirections: when fred follows ASK, it
    /// takes answers of other calls on the shared connection for that of its ASKING. Connects at first
    /// use.
    pub(super) fn like(model: &Client) -> Self {
        let mut connection = model.connection_config().clone();
        connection.max_redirections = 0;
        Self {
            model: model.clone(),
            connection,
            running: Mutex::new(None),
            making: tokio::sync::Mutex::default(),
            made: OnceLock::new(),
        }
    }

    /// A client that is connected already.
    pub(super) fn started(client: Client, task: ConnectHandle) -> Self {
        let own = Self::like(&client);
        *own.running.lock() = Some(Running { client, task });
        own
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
        if self.made.set(()).is_err() {
            tracing::warn!(
                target: "distkit::connection",
                "the background task of a fred client has ended; connecting anew"
            );
        }
        let client = Client::new(
            self.model.client_config(),
            Some(self.model.perf_config()),
            Some(self.connection.clone()),
            self.model.client_reconnect_policy(),
        );
        client.set_resolver(self.model.inner().get_resolver().await).await;
        let task = client.connect();
        *self.running.lock() = Some(Running { client: client.clone(), task });
        client
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
