use std::{sync::Arc, time::Duration};

use fred::{
    clients::{Client, Pool},
    error::{Error, ErrorKind},
    interfaces::ClientLike,
    types::{ClusterHash, CustomCommand, Resp3Frame, Value, config::Options},
};
use futures_util::future::join_all;

use crate::backend::lua::{Arg, CallError, Command, Reply, ScriptRunner, ServerError};

/// For a client that has no `default_command_timeout`, which would wait for ever.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a command waits for a client that is connecting just now.
const CONNECTING: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub(super) enum Source {
    Client(Client),
    Pool(Pool),
}

impl Source {
    fn client(&self) -> &Client {
        match self {
            Self::Client(client) => client,
            Self::Pool(pool) => pool.next_connected(),
        }
    }
}

pub(crate) struct Runner {
    source: Source,
    options: Options,
    cluster: bool,
}

impl Runner {
    pub(super) fn new(source: Source) -> Self {
        let client = source.client();
        let cluster = client.is_clustered();
        let mut options = Options::default();
        if !cluster {
            options.max_attempts = Some(1);
        }
        if client.perf_config().default_command_timeout.is_zero() {
            options.timeout = Some(TIMEOUT);
        }
        Self { source, options, cluster }
    }

    async fn connected(&self) -> Result<&Client, CallError> {
        let client = self.source.client();
        if client.is_connected() {
            return Ok(client);
        }
        let _ = tokio::time::timeout(CONNECTING, client.wait_for_connect()).await;
        // Also a connection that was made just before the wait began counts.
        if client.is_connected() {
            return Ok(client);
        }
        Err(CallError::NotSent(Arc::new(Error::new(
            ErrorKind::IO,
            "the client is not connected to the server",
        ))))
    }
}

fn encode(command: Command<'_>) -> (CustomCommand, Vec<Value>) {
    let hash = ClusterHash::Offset(command.key_at.into());
    let args = command.args.iter().map(|arg| match *arg {
        Arg::Text(text) => Value::String(text.into()),
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
        | ErrorKind::Backpressure => CallError::NotSent(Arc::new(error)),
        _ => CallError::Lost(Arc::new(error)),
    }
}

impl Runner {
    async fn send(&self, client: &Client, command: Command<'_>) -> Result<Reply, CallError> {
        let (command, args) = encode(command);
        let answer = client.with_options(&self.options).custom_raw(command, args).await;
        let answer = answer.map_err(failed).and_then(reply);
        if !self.cluster
            && matches!(&answer, Err(CallError::Server(error)) if error.code == "READONLY")
            && client.client_reconnect_policy().is_some()
        {
            // It would stay with a server that was demoted to a replica.
            let _ = tokio::time::timeout(CONNECTING, client.force_reconnection()).await;
        }
        answer
    }
}

impl ScriptRunner for Runner {
    async fn run(&self, command: Command<'_>) -> Result<Reply, CallError> {
        self.send(self.connected().await?, command).await
    }

    /// The client joins commands of concurrent callers by itself, in the order in which they were
    /// polled first. Its own pipeline gives one error for several commands when a connection breaks.
    async fn pipeline(&self, commands: &[Command<'_>]) -> Vec<Result<Reply, CallError>> {
        match self.connected().await {
            Ok(client) => {
                join_all(commands.iter().map(|command| self.send(client, *command))).await
            }
            Err(error) => vec![Err(error); commands.len()],
        }
    }

    fn resends(&self) -> bool {
        self.cluster
    }
}
