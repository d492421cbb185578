//! Commands as they are, for this crate's own tool.

use std::fmt;

use async_trait::async_trait;

use super::BackendError;

/// Runs single commands over the connection of a store. Not for services: nothing checks them.
#[async_trait]
pub trait RawCommands: fmt::Debug + Send + Sync {
    /// Sends one command, whose argument number `key_at` is the key that a cluster routes by. One round trip; a dropped
    /// call may have been sent.
    ///
    /// # Errors
    ///
    /// Those of the connection. What the server itself turns down is [`RawReply::Error`].
    async fn command(
        &self,
        name: &'static str,
        args: &[&str],
        key_at: u8,
    ) -> Result<RawReply, BackendError>;
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq)]
pub enum RawReply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// Text, which need not be UTF-8.
    Bytes(Vec<u8>),
    /// Several.
    Array(Vec<RawReply>),
    /// An answer of another kind, described.
    Other(String),
    /// The server turned the command down.
    Error {
        /// The first word, such as `NOPERM`.
        code: String,
        /// The rest.
        detail: String,
    },
}
