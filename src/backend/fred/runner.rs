use std::{
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering::Relaxed},
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

use crate::backend::{
    lua::{Arg, CallError, Command, Reply, ScriptRunner, ServerError},
    progress,
    silence::{Sent, Silence},
};

use super::{
    CONNECTING,
    cluster::{Cluster, LOOKS, Node},
    own::{self, Own},
    seen::Seen,
};

/// For a client that has no `default_command_timeout`, which would wait for ever.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command is repeated while a cluster moves its slot.
const MOVING: Duration = Duration::from_secs(5);

/// The pauses between these attempts: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How often a command is sent whose answer is lost with its connection.
const ATTEMPTS: u32 = 3;

/// How often a command that waits for its answer looks whether one can still come.
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
    Server(Single),
    Nodes(Cluster),
}

/// Those of a single server.
enum Single {
    /// The user's.
    Lent(Source),
    Own(Box<Own>),
}

impl Single {
    fn all(&self) -> Vec<Client> {
        match self {
            Self::Lent(source) => source.clients().to_vec(),
            Self::Own(own) => own.running().into_iter().collect(),
        }
    }

    async fn connected(&self) -> Result<Client, CallError> {
        match self {
            Self::Own(own) => own.connected().await,
            Self::Lent(Source::Client(client)) => own::connected(client.clone()).await,
            Self::Lent(Source::Pool(pool)) => own::connected(pool.next_connected().clone()).await,
        }
    }
}

pub struct Runner {
    carriers: Carriers,
    options: Options,
    /// Of a single client of a single server.
    seen: Option<Seen>,
    /// Of a client that nobody else uses, where fred's own look at silent connections is put off by each command.
    silence: Option<Watch>,
}

/// Whether a connection has gone silent.
#[derive(Default)]
struct Watch {
    silence: Silence,
    is_silent: AtomicBool,
}

/// A command that was sent, until it is answered or given up.
struct Awaited<'c> {
    watch: Option<&'c Watch>,
    sent: Option<Sent>,
}

impl<'c> Awaited<'c> {
    fn on(watch: Option<&'c Watch>) -> Self {
        Self { watch, sent: watch.map(|watch| watch.silence.sent()) }
    }

    fn answered(mut self) {
        self.sent = None;
        if let Some(watch) = self.watch {
            watch.silence.answered();
        }
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        if let (Some(watch), Some(sent)) = (self.watch, self.sent)
            && watch.silence.given_up(sent, TIMEOUT)
        {
            watch.is_silent.store(true, Relaxed);
        }
    }
}

impl Runner {
    pub(super) fn new(source: Source) -> Self {
        let clients = source.clients();
        static WARNED: Once = Once::new();
        if clients.iter().any(|client| client.client_reconnect_policy().is_none()) {
            WARNED.call_once(|| {
                tracing::warn!(
                    target: "distkit::connection",
                    "a fred client without a ReconnectPolicy never reconnects; give it one"
                );
            });
        }
        let options = Self::options(clients);
        let of_cluster = clients.first().is_some_and(Client::is_clustered);
        let seen = (!of_cluster && clients.len() == 1).then(Seen::new);
        let carriers = match Cluster::like(clients) {
            Some(cluster) if of_cluster => Carriers::Nodes(cluster),
            _ => Carriers::Server(Single::Lent(source)),
        };
        Self { carriers, options, seen, silence: None }
    }

    /// Over a client of a single server that nobody else uses, connected by `task`.
    pub(super) fn owning(client: Client, task: ConnectHandle) -> Self {
        let options = Self::options(std::slice::from_ref(&client));
        Self {
            carriers: Carriers::Server(Single::Own(Box::new(Own::started(client, task)))),
            options,
            seen: Some(Seen::new()),
            silence: Some(Watch::default()),
        }
    }

    /// A connected client of a single server, on another connection than one that has gone silent.
    async fn connected(&self, single: &Single) -> Result<Client, CallError> {
        progress::waits();
        if self.silence.as_ref().is_some_and(|watch| watch.is_silent.swap(false, Relaxed)) {
            for client in single.all() {
                self.reconnect(&client).await;
            }
        }
        single.connected().await
    }

    /// Connects to the nodes of a cluster; nothing for a single server.
    pub(super) async fn connect(&self) -> Result<(), CallError> {
        match &self.carriers {
            Carriers::Nodes(cluster) => cluster.connect().await,
            Carriers::Server(_) => Ok(()),
        }
    }

    fn options(clients: &[Client]) -> Options {
        let mut options = Options { max_attempts: Some(1), ..Options::default() };
        if clients.iter().any(|client| client.perf_config().default_command_timeout.is_zero()) {
            options.timeout = Some(TIMEOUT);
        }
        options
    }
}

fn encode(command: Command<'_>) -> (CustomCommand, Vec<Value>) {
    let args = command.args.iter().map(|arg| match *arg {
        Arg::Text(text) => Value::String(text.into()),
        Arg::Bytes(bytes) => Value::from(bytes),
        Arg::Int(number) => Value::Integer(number),
    });
    // A client has one server only.
    (CustomCommand::new_static(command.name, ClusterHash::FirstKey, false), args.collect())
}

/// The slot of a command's key.
fn slot(command: Command<'_>) -> Option<u16> {
    match command.args.get(usize::from(command.key_at)) {
        Some(Arg::Text(key)) => Some(redis_keyslot(key.as_bytes())),
        _ => None,
    }
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
        | ErrorKind::Backpressure => CallError::NotSent(Arc::new(error)),
        _ => CallError::Lost(Arc::new(error)),
    }
}

/// Whether the client lost patience: then its caller's is over, too.
fn timed_out(error: &CallError) -> bool {
    let CallError::Lost(cause) = error else { return false };
    cause.downcast_ref::<Error>().is_some_and(|error| *error.kind() == ErrorKind::Timeout)
}

/// The node that a command goes to, of a cluster whose nodes may take each other's place meanwhile.
#[derive(Clone, Copy)]
struct Place<'a> {
    cluster: &'a Cluster,
    node: &'a Arc<Node>,
    slot: Option<u16>,
}

impl Place<'_> {
    /// Whether the slot was found to be served by another node.
    async fn is_left(self) -> bool {
        self.cluster.look_again(None, LOOKS.1).await;
        self.cluster.moved_from(self.node, self.slot)
    }
}

impl Runner {
    async fn send(&self, client: &Client, command: Command<'_>) -> Result<Reply, CallError> {
        let answer = self.exchange(client, command, None).await;
        if let (Some(seen), Ok(_)) = (&self.seen, &answer) {
            seen.answered(client);
        }
        if matches!(&answer, Err(CallError::Server(error)) if error.code == "READONLY") {
            self.reconnect(client).await;
        }
        answer
    }

    /// Sends to the node that serves the slot; again while the slot moves, where another node has taken the place of
    /// the first, and a few times where the connection was lost. What comes here from a cluster is recognised by its
    /// lane or guard, or harmless.
    async fn follow(&self, cluster: &Cluster, command: Command<'_>) -> Result<Reply, CallError> {
        let slot = slot(command);
        let (began, mut pause) = (Instant::now(), PAUSES.0);
        let mut lost = 0;
        loop {
            let node = match cluster.node(slot).await {
                Ok(node) => node,
                Err(error) if lost > 0 => return Err(error.of_last_attempt()),
                Err(error) => return Err(error),
            };
            let place = Place { cluster, node: &node, slot };
            let answer = match node.connected().await {
                Ok(client) => self.exchange(&client, command, Some(place)).await,
                Err(error) => Err(error),
            };
            let again = match &answer {
                Err(CallError::Server(error)) if error.turned_down_for_topology() => {
                    match &*error.code {
                        "MOVED" => cluster.look_again(Some(&node), LOOKS.0).await,
                        _ => cluster.look_again(None, LOOKS.1).await,
                    }
                    true
                }
                Err(CallError::NotSent(_)) => place.is_left().await,
                Err(error @ CallError::Lost(_)) => {
                    lost += 1;
                    lost < ATTEMPTS && !timed_out(error)
                }
                _ => false,
            };
            if !again || began.elapsed() + pause >= MOVING {
                return answer.map_err(|e| if lost > 0 { e.of_last_attempt() } else { e });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn exchange(
        &self,
        client: &Client,
        command: Command<'_>,
        place: Option<Place<'_>>,
    ) -> Result<Reply, CallError> {
        let (command, args) = encode(command);
        let client = client.with_options(&self.options);
        let awaited = Awaited::on(self.silence.as_ref());
        let mut sending = std::pin::pin!(client.custom_raw(command, args));
        loop {
            let watch = std::pin::pin!(async {
                tokio::time::sleep(WATCH).await;
                match place {
                    Some(place) => place.is_left().await,
                    None => false,
                }
            });
            // Not tokio's select: where a task's budget is spent, it polls nothing, and the commands of a
            // pipeline would be sent in another order.
            let left = match select(sending.as_mut(), watch).await {
                Either::Left((answer, _)) => {
                    if !answer.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Timeout) {
                        awaited.answered();
                    }
                    return answer.map_err(failed).and_then(reply);
                }
                Either::Right((left, _)) => left,
            };
            let why = if left {
                "another node of the cluster has taken the place of the one that was asked"
            } else if client.inner().has_command_rx() {
                // A command that comes as the background task ends stays in the queue for good.
                "the fred client's background task has ended meanwhile"
            } else {
                continue;
            };
            return Err(CallError::Lost(Arc::new(Error::new(ErrorKind::IO, why))));
        }
    }

    /// A client would stay with a server that was demoted to a replica.
    async fn reconnect(&self, client: &Client) {
        if client.client_reconnect_policy().is_some() {
            let _ = tokio::time::timeout(CONNECTING, client.force_reconnection()).await;
        }
    }
}

impl ScriptRunner for Runner {
    async fn run(&self, command: Command<'_>) -> Result<Reply, CallError> {
        match &self.carriers {
            Carriers::Server(single) => self.send(&self.connected(single).await?, command).await,
            Carriers::Nodes(cluster) => self.follow(cluster, command).await,
        }
    }

    async fn probe(&self, command: Command<'_>) -> Result<Reply, CallError> {
        match &self.carriers {
            Carriers::Server(single) => {
                self.exchange(&self.connected(single).await?, command, None).await
            }
            Carriers::Nodes(cluster) => self.follow(cluster, command).await,
        }
    }

    /// Those of a cluster need not: a replica names its primary.
    async fn leave_replica(&self) {
        if let Carriers::Server(single) = &self.carriers {
            for client in single.all() {
                self.reconnect(&client).await;
            }
        }
    }

    /// The client joins commands of concurrent callers by itself, in the order in which they were
    /// polled first. Its own pipeline gives one error for several commands when a connection breaks.
    async fn pipeline(&self, commands: &[Command<'_>]) -> Vec<Result<Reply, CallError>> {
        let single = match &self.carriers {
            Carriers::Server(single) => single,
            Carriers::Nodes(cluster) => {
                return join_all(commands.iter().map(|command| self.follow(cluster, *command)))
                    .await;
            }
        };
        match self.connected(single).await {
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
        matches!(self.carriers, Carriers::Nodes(_))
    }
}
