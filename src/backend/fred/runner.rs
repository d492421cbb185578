use std::{
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::{Client, Pool},
    error::{Error, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, ConnectHandle, CustomCommand, Resp3Frame, Value, config::Options},
    util::redis_keyslot,
};
use futures_util::future::{Either, join_all, select};
use tokio::time::Instant;

use crate::backend::lua::{Arg, CallError, Command, Reply, ScriptRunner, ServerError};

use super::own::Own;

/// For a client that has no `default_command_timeout`, which would wait for ever.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command waits for a client that is connecting just now.
const CONNECTING: Duration = Duration::from_millis(500);

/// How long a command is repeated while a cluster moves its slot.
const MOVING: Duration = Duration::from_secs(5);

/// The pauses between these attempts: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How often a command that waits for its answer looks whether anybody can still get one.
const WATCH: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
pub(super) enum Source {
    Client(Client),
    Pool(Pool),
}

impl Source {
    fn clients(&self) -> &[Client] {
        match self {
            Self::Client(client) => std::slice::from_ref(client),
            Self::Pool(pool) => pool.clients(),
        }
    }
}

/// The clients that carry the commands.
enum Carriers {
    /// The user's.
    Lent(Source),
    Own {
        all: Vec<Own>,
        next: AtomicUsize,
    },
}

impl Carriers {
    fn all(&self) -> Vec<Client> {
        match self {
            Self::Lent(source) => source.clients().to_vec(),
            Self::Own { all, .. } => all.iter().filter_map(Own::running).collect(),
        }
    }

    async fn client(&self) -> Client {
        match self {
            Self::Lent(Source::Client(client)) => client.clone(),
            Self::Lent(Source::Pool(pool)) => pool.next_connected().clone(),
            Self::Own { all, next } => {
                all[next.fetch_add(1, Ordering::Relaxed) % all.len()].client().await
            }
        }
    }
}

pub struct Runner {
    carriers: Carriers,
    options: Options,
    cluster: bool,
}

impl Runner {
    pub(super) fn new(source: Source) -> Self {
        let clients = source.clients();
        let of_cluster = clients.first().is_some_and(Client::is_clustered);
        let follows = |client: &Client| client.connection_config().max_redirections != 0;
        let (cluster, options) = Self::settings(clients);
        static WARNED: Once = Once::new();
        if clients.iter().any(|client| client.client_reconnect_policy().is_none()) {
            WARNED.call_once(|| {
                tracing::warn!(
                    target: "distkit::connection",
                    "a fred client without a ReconnectPolicy never reconnects; give it one"
                );
            });
        }
        let carriers = if of_cluster && clients.iter().any(follows) {
            Carriers::Own {
                all: clients.iter().map(Own::like).collect(),
                next: AtomicUsize::new(0),
            }
        } else {
            Carriers::Lent(source)
        };
        Self { carriers, options, cluster }
    }

    /// Over a client that nobody else uses, connected by `task`.
    pub(super) fn owning(client: Client, task: ConnectHandle) -> Self {
        let (cluster, options) = Self::settings(std::slice::from_ref(&client));
        let all = vec![Own::started(client, task)];
        Self { carriers: Carriers::Own { all, next: AtomicUsize::new(0) }, options, cluster }
    }

    fn settings(clients: &[Client]) -> (bool, Options) {
        let cluster = clients.first().is_some_and(Client::is_clustered);
        let mut options = Options::default();
        if !cluster {
            options.max_attempts = Some(1);
        }
        if clients.iter().any(|client| client.perf_config().default_command_timeout.is_zero()) {
            options.timeout = Some(TIMEOUT);
        }
        (cluster, options)
    }

    async fn connected(&self) -> Result<Client, CallError> {
        let client = self.carriers.client().await;
        if !client.is_connected() {
            let connecting = tokio::time::timeout(CONNECTING, client.wait_for_connect()).await;
            // Also a connection that was made just before the wait began counts.
            if !client.is_connected() {
                return Err(match connecting {
                    Ok(Err(error)) => CallError::NotSent(Arc::new(error)),
                    _ => not_connected("the client is not connected to the server"),
                });
            }
        }
        // The client goes on to say that it is connected, and takes commands that nobody will send.
        if client.inner().has_command_rx() {
            return Err(not_connected(
                "the fred client's background task has ended: give the client a reconnect policy, or \
                 call its connect",
            ));
        }
        Ok(client)
    }
}

fn not_connected(text: &'static str) -> CallError {
    CallError::NotSent(Arc::new(Error::new(ErrorKind::IO, text)))
}

fn encode(command: Command<'_>) -> (CustomCommand, Vec<Value>) {
    // Fred routes a custom command by no other policy: any other goes by its first argument.
    let hash = match command.args.get(usize::from(command.key_at)) {
        Some(Arg::Text(key)) => ClusterHash::Custom(redis_keyslot(key.as_bytes())),
        _ => ClusterHash::Offset(command.key_at.into()),
    };
    let args = command.args.iter().map(|arg| match *arg {
        Arg::Text(text) => Value::String(text.into()),
        Arg::Bytes(bytes) => Value::from(bytes),
        Arg::Int(number) => Value::Integer(number),
    });
    (CustomCommand::new_static(command.name, hash, false), args.collect())
}

fn reply(frame: Resp3Frame) -> Result<Reply, CallError> {
    Ok(match frame {
        Resp3Frame::Null => Reply::Nil,
        Resp3Frame::Number { data, .. } => Reply::Int(data),
        Resp3Frame::BlobString { data, .. } => Reply::Bytes(data.to_vec()),
        Resp3Frame::Array { data, .. } => {
            Reply::Array(data.into_iter().map(reply).collect::<Result<_, _>>()?)
        }
        Resp3Frame::SimpleError { data, .. } => {
            return Err(turned_down(&data));
        }
        Resp3Frame::BlobError { data, .. } => {
            return Err(turned_down(&String::from_utf8_lossy(&data)));
        }
        other => Reply::Other(format!("{other:?}")),
    })
}

fn turned_down(line: &str) -> CallError {
    let (code, detail) = line.split_once(' ').unwrap_or((line, ""));
    CallError::Server(ServerError { code: code.to_owned(), detail: detail.to_owned() })
}

fn failed(error: Error) -> CallError {
    match error.kind() {
        ErrorKind::Config
        | ErrorKind::Auth
        | ErrorKind::Url
        | ErrorKind::InvalidCommand
        | ErrorKind::InvalidArgument
        // A redirection that is not followed.
        | ErrorKind::Routing
        | ErrorKind::Backpressure => CallError::NotSent(Arc::new(error)),
        _ => CallError::Lost(Arc::new(error)),
    }
}

/// Whether the cluster turned a command down because it moves the slot, or fred knew no node for it.
fn moving(error: &CallError) -> bool {
    match error {
        CallError::NotSent(cause) => {
            cause.downcast_ref::<Error>().is_some_and(|error| *error.kind() == ErrorKind::Routing)
        }
        CallError::Server(error) => error.turned_down_for_topology(),
        CallError::Lost(_) => false,
    }
}

impl Runner {
    /// Sends again while the slot moves. What comes here from a cluster is recognised by its lane or
    /// guard, or harmless.
    async fn send(&self, client: &Client, command: Command<'_>) -> Result<Reply, CallError> {
        let began = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let answer = self.send_once(client, command).await;
            let again = self.cluster
                && answer.as_ref().is_err_and(moving)
                && began.elapsed() + pause < MOVING;
            if !again {
                let resends = self.resends();
                return answer.map_err(|e| if resends { e.of_last_attempt() } else { e });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn send_once(&self, client: &Client, command: Command<'_>) -> Result<Reply, CallError> {
        let answer = self.exchange(client, command).await;
        if matches!(&answer, Err(CallError::Server(error)) if error.code == "READONLY") {
            self.reconnect(client).await;
        }
        answer
    }

    async fn exchange(&self, client: &Client, command: Command<'_>) -> Result<Reply, CallError> {
        let (command, args) = encode(command);
        let client = client.with_options(&self.options);
        let mut sending = std::pin::pin!(client.custom_raw(command, args));
        loop {
            // Not tokio's select: where a task's budget is spent, it polls nothing, and the commands of a
            // pipeline would be sent in another order.
            let watch = std::pin::pin!(tokio::time::sleep(WATCH));
            if let Either::Left((answer, _)) = select(sending.as_mut(), watch).await {
                return answer.map_err(failed).and_then(reply);
            }
            // A command that comes as the background task ends stays in the queue for good.
            if client.inner().has_command_rx() {
                let text = "the fred client's background task has ended meanwhile";
                return Err(CallError::Lost(Arc::new(Error::new(ErrorKind::IO, text))));
            }
        }
    }

    /// A client would stay with a server that was demoted to a replica.
    async fn reconnect(&self, client: &Client) {
        if !self.cluster && client.client_reconnect_policy().is_some() {
            let _ = tokio::time::timeout(CONNECTING, client.force_reconnection()).await;
        }
    }
}

impl ScriptRunner for Runner {
    async fn run(&self, command: Command<'_>) -> Result<Reply, CallError> {
        self.send(&self.connected().await?, command).await
    }

    async fn probe(&self, command: Command<'_>) -> Result<Reply, CallError> {
        self.exchange(&self.connected().await?, command).await
    }

    async fn leave_replica(&self) {
        for client in self.carriers.all() {
            self.reconnect(&client).await;
        }
    }

    /// The client joins commands of concurrent callers by itself, in the order in which they were
    /// polled first. Its own pipeline gives one error for several commands when a connection breaks.
    async fn pipeline(&self, commands: &[Command<'_>]) -> Vec<Result<Reply, CallError>> {
        match self.connected().await {
            Ok(client) => {
                join_all(commands.iter().map(|command| self.send(&client, *command))).await
            }
            Err(error) => vec![Err(error); commands.len()],
        }
    }

    /// Each command of a pipeline costs fred what one alone does.
    fn pipelines_well(&self) -> bool {
        false
    }

    fn resends(&self) -> bool {
        self.cluster
    }
}
