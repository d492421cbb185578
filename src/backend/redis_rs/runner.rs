use std::{any::Any, io, sync::Arc, time::Duration};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, Value};
use tokio::time::Instant;

use crate::backend::lua::{Arg, CallError, Command, Reply, ScriptRunner, ServerError};

use super::{ReconnectingConnection, RedisConnection};

/// How long a connection that repeats commands by itself may take for one: the pauses of a `ClusterConnection` with its
/// defaults double from 1.28 s to hours.
const LONGEST_ANSWER: Duration = Duration::from_secs(15);

/// How long a command is repeated while a cluster moves its slot.
const MOVING: Duration = Duration::from_secs(5);

/// The pauses between these attempts: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// What must be known of a connection's type.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traits {
    pub(super) resends: bool,
    /// It would stay with a server that was demoted to a replica.
    pub(super) stays_with_replica: bool,
}

impl Traits {
    pub(super) fn of(connection: &dyn Any) -> Self {
        Self {
            #[cfg(feature = "redis-rs-cluster")]
            resends: connection.is::<redis::cluster_async::ClusterConnection>(),
            #[cfg(not(feature = "redis-rs-cluster"))]
            resends: false,
            stays_with_replica: connection.is::<redis::aio::ConnectionManager>()
                || connection.is::<ReconnectingConnection>(),
        }
    }
}

pub struct Runner<C> {
    connection: C,
    traits: Traits,
}

impl<C: RedisConnection> Runner<C> {
    pub(super) fn new(connection: C, traits: Traits) -> Self {
        Self { connection, traits }
    }

    async fn request(&self, cmd: &Cmd) -> Result<Reply, CallError> {
        let mut connection = self.connection.clone();
        let request = connection.req_packed_command(cmd);
        let answer = if self.traits.resends {
            tokio::time::timeout(LONGEST_ANSWER, request).await.unwrap_or_else(|_| {
                let text = "the connection repeats the command for too long";
                Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
            })
        } else {
            request.await
        };
        answer.map_err(failed).and_then(reply)
    }

    async fn check_replica(&self, answer: &Result<Reply, CallError>) {
        if matches!(answer, Err(CallError::Server(error)) if error.code == "READONLY") {
            self.quit().await;
        }
    }

    async fn quit(&self) {
        if self.traits.stays_with_replica {
            // The server closes the connection after QUIT; the next command, which may fail, makes the
            // manager notice.
            for name in ["QUIT", "PING"] {
                let _ = self.connection.clone().req_packed_command(&redis::cmd(name)).await;
            }
        }
    }
}

fn encode(command: Command<'_>) -> Cmd {
    let bytes: usize = command
        .args
        .iter()
        .map(|arg| match arg {
            Arg::Text(text) => text.len(),
            Arg::Bytes(bytes) => bytes.len(),
            Arg::Int(_) => 20,
        })
        .sum();
    let mut cmd = Cmd::with_capacity(1 + command.args.len(), command.name.len() + bytes);
    cmd.arg(command.name);
    for arg in command.args {
        match *arg {
            Arg::Text(text) => cmd.arg(text),
            Arg::Bytes(bytes) => cmd.arg(bytes),
            Arg::Int(number) => cmd.arg(number),
        };
    }
    cmd
}

fn reply(value: Value) -> Result<Reply, CallError> {
    Ok(match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Int(number),
        Value::BulkString(bytes) => Reply::Bytes(bytes),
        Value::Array(items) => {
            Reply::Array(items.into_iter().map(reply).collect::<Result<_, _>>()?)
        }
        Value::ServerError(error) => return Err(failed(error.into())),
        // What only RESP3 has, and what our own scripts and commands never give: as RESP2 would say it.
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => {
            Reply::Bytes(text.into_bytes())
        }
        Value::Map(pairs) => {
            let items = pairs.into_iter().flat_map(|(name, value)| [name, value]);
            Reply::Array(items.map(reply).collect::<Result<_, _>>()?)
        }
        Value::Double(number) => Reply::Bytes(number.to_string().into_bytes()),
        other => Reply::Other(format!("{other:?}")),
    })
}

fn failed(error: RedisError) -> CallError {
    let server = |error: &RedisError| ServerError {
        code: error.code().unwrap_or("ERR").to_owned(),
        detail: error.detail().unwrap_or_default().to_owned(),
    };
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension => CallError::Server(server(&error)),
        // Only connecting fails in these ways, and what was not connected was not sent to.
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::RESP3NotSupported => CallError::NotSent(Arc::new(error)),
        ErrorKind::Io if error.is_connection_refusal() => {
            let text = format!("cannot connect to the server: {error}");
            CallError::NotSent(Arc::new(io::Error::other(text)))
        }
        _ => CallError::Lost(Arc::new(error)),
    }
}

impl<C: RedisConnection> ScriptRunner for Runner<C> {
    async fn run(&self, command: Command<'_>) -> Result<Reply, CallError> {
        let cmd = encode(command);
        let began = Instant::now();
        let mut pause = PAUSES.0;
        let answer = loop {
            let answer = self.request(&cmd).await;
            // What comes here from a cluster is recognised by its lane or guard, or harmless.
            let again = self.traits.resends
                && matches!(&answer, Err(CallError::Server(error)) if error.turned_down_for_topology())
                && began.elapsed() + pause < MOVING;
            if !again {
                break answer;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        };
        self.check_replica(&answer).await;
        if self.traits.resends { answer.map_err(CallError::of_last_attempt) } else { answer }
    }

    async fn probe(&self, command: Command<'_>) -> Result<Reply, CallError> {
        self.request(&encode(command)).await
    }

    async fn leave_replica(&self) {
        self.quit().await;
    }

    async fn pipeline(&self, commands: &[Command<'_>]) -> Vec<Result<Reply, CallError>> {
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(encode(*command));
        }
        let mut connection = self.connection.clone();
        let answer = connection.req_packed_commands(&pipeline, 0, commands.len()).await;
        match answer {
            Ok(values) => {
                let answers: Vec<_> = values.into_iter().map(reply).collect();
                if let Some(answer) = answers.first() {
                    self.check_replica(answer).await;
                }
                answers
            }
            Err(error) => {
                let error = failed(error);
                let error = if self.traits.resends { error.of_last_attempt() } else { error };
                vec![Err(error); commands.len()]
            }
        }
    }

    fn resends(&self) -> bool {
        self.traits.resends
    }
}
