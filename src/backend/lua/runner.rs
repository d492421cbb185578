//! The seam to the Redis clients: what differs between them, and nothing that they share.

use std::{fmt, future::Future, sync::OnceLock};

use crate::backend::Cause;

/// A script of the catalogue.
pub struct Script {
    source: &'static str,
    sha: OnceLock<String>,
}

impl Script {
    pub const fn new(source: &'static str) -> Self {
        Self { source, sha: OnceLock::new() }
    }

    fn sha(&self) -> &str {
        self.sha.get_or_init(|| sha1_smol::Sha1::from(self.source).digest().to_string())
    }
}

/// One argument of a command.
#[derive(Debug, Clone, Copy)]
pub enum Arg<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Int(i64),
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// A command with its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    pub name: &'static str,
    pub args: &'a [Arg<'a>],
    /// Which argument is the key that a cluster routes by, for a client that does not know.
    pub key_at: u8,
}

impl<'a> Command<'a> {
    /// A command whose first argument is its key.
    pub fn keyed(name: &'static str, args: &'a [Arg<'a>]) -> Self {
        Self { name, args, key_at: 0 }
    }
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Nil,
    Int(i64),
    Bytes(Vec<u8>),
    Array(Vec<Reply>),
    /// Something that none of our commands is answered with, described.
    Other(String),
}

/// An error reply: the server took the command and turned it down.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerError {
    /// The first word, such as `WRONGTYPE`.
    pub code: String,
    /// The rest.
    pub detail: String,
}

impl ServerError {
    /// Whether the server answers and takes no writes, or not this one of this user.
    pub fn refuses_writes(&self) -> bool {
        matches!(&*self.code, "MISCONF" | "OOM" | "NOREPLICAS" | "READONLY" | "NOPERM")
            || self.lacks_permission()
    }

    /// A script is told so without the code.
    fn lacks_permission(&self) -> bool {
        self.code != "PARTLY" && self.detail.contains("can't run this command")
    }

    fn explanation(&self) -> Option<&'static str> {
        if self.lacks_permission() {
            return Some("the user lacks a permission");
        }
        Some(match &*self.code {
            "NOAUTH" => "the server wants a password",
            "WRONGPASS" => "the server refuses the user name or password",
            "NOPERM" => "the user lacks a permission",
            "READONLY" => "the server is a read-only replica",
            "LOADING" => "the server is still loading its data",
            "CLUSTERDOWN" => "the cluster is down",
            "MASTERDOWN" => "the replica has lost its primary",
            "OOM" => "the server is out of memory",
            "MISCONF" => "the server cannot save its data and takes no writes",
            "NOREPLICAS" => "the server has too few replicas to take writes",
            "BUSY" => "the server is busy with a script",
            "MOVED" => "the server is one of a cluster; connect with redis-cluster://",
            "ASK" | "TRYAGAIN" => "the cluster moves the slot of this key",
            "PARTLY" => "a part was applied, then the server turned the rest down",
            "CROSSSLOT" => "the keys are in different slots of the cluster",
            _ => return None,
        })
    }

    /// Whether a client that sends again by itself may get this for its last attempt although an
    /// earlier one was applied: the server did not come to look at the guard.
    pub fn may_follow_success(&self) -> bool {
        matches!(
            &*self.code,
            "MOVED"
                | "ASK"
                | "TRYAGAIN"
                | "CLUSTERDOWN"
                | "MASTERDOWN"
                | "LOADING"
                | "READONLY"
                | "BUSY"
        )
    }
}

impl ServerError {
    /// Whether a cluster turned the command down, before it did anything, because the slot moves or
    /// has no node just now.
    pub fn turned_down_for_topology(&self) -> bool {
        matches!(&*self.code, "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(explanation) = self.explanation() {
            write!(f, "{explanation}: ")?;
        }
        write!(f, "{} {}", self.code, self.detail)
    }
}

impl std::error::Error for ServerError {}

/// Why a command has no answer.
#[derive(Debug, Clone)]
pub enum CallError {
    /// The server turned it down.
    Server(ServerError),
    /// Neither it nor an earlier attempt of it left this process.
    NotSent(Cause),
    /// It may have reached the server, and no answer came.
    Lost(Cause),
}

impl CallError {
    /// What the last attempt's error means where an earlier one may have reached the server.
    pub fn of_last_attempt(self) -> Self {
        match self {
            Self::NotSent(cause) => Self::Lost(cause),
            error => error,
        }
    }
}

/// How a Redis client runs commands.
///
/// Implementations are glue and error classification, nothing else.
pub trait ScriptRunner: Send + Sync + 'static {
    /// Sends one command.
    fn run(&self, command: Command<'_>) -> impl Future<Output = Result<Reply, CallError>> + Send;

    /// As [`run`](Self::run), without consequences for the connection.
    fn probe(&self, command: Command<'_>) -> impl Future<Output = Result<Reply, CallError>> + Send;

    /// Connects anew, if the client can: the server was demoted to a replica.
    fn leave_replica(&self) -> impl Future<Output = ()> + Send;

    /// Sends commands in one go, in their order, and answers for each.
    fn pipeline(
        &self,
        commands: &[Command<'_>],
    ) -> impl Future<Output = Vec<Result<Reply, CallError>>> + Send;

    /// Whether the client may send a command a second time by itself, after a lost connection. Then
    /// nothing that may not take effect twice is sent without a guard.
    fn resends(&self) -> bool;

    /// Whether many commands in a pipeline cost the client about as little as one script with as many items.
    fn pipelines_well(&self) -> bool {
        true
    }

    /// Runs a script, also on a server that has forgotten it.
    fn script(
        &self,
        script: &'static Script,
        keys: &[Arg<'_>],
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Reply, CallError>> + Send {
        async move {
            let mut all = Vec::with_capacity(2 + keys.len() + args.len());
            all.push(Arg::Text(script.sha()));
            all.push(Arg::Int(keys.len() as i64));
            all.extend_from_slice(keys);
            all.extend_from_slice(args);
            match self.run(Command { name: "EVALSHA", args: &all, key_at: 2 }).await {
                Err(CallError::Server(error)) if error.code == "NOSCRIPT" => {
                    all[0] = Arg::Text(script.source);
                    let answer = self.run(Command { name: "EVAL", args: &all, key_at: 2 }).await;
                    if self.resends() {
                        // An attempt before the one that found no script may have been applied.
                        answer.map_err(CallError::of_last_attempt)
                    } else {
                        answer
                    }
                }
                answer => answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ServerError;

    #[test]
    fn the_guide_lists_codes_with_what_errors_say_of_them() {
        let page = include_str!("../../../docs/guide/errors.md");
        let (_, table) = page.split_once("| code | the chain says | mend |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let mut listed = 0;
        for row in rows {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let code = cells[1].trim_matches('`').to_owned();
            let error = ServerError { code, detail: String::new() };
            assert_eq!(error.explanation(), Some(cells[2]), "{row}");
            listed += 1;
        }
        assert_eq!(listed, 9);
    }
}
