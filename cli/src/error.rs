//! What ends a command early.

use distkit::{
    DistkitError,
    backend::{BackendError, operator::is_unreachable},
};

use crate::server::url;

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("cannot use {address}")]
    Unusable { address: String, source: BackendError },
    #[error("cannot use the store")]
    Store(#[from] BackendError),
    #[error("the name cannot be used")]
    Name(#[from] DistkitError),
    #[error("the server turned {command} down: {code} {detail}")]
    Refused { command: String, code: String, detail: String },
    #[error("the server answered {command} with something unexpected: {found}")]
    Unexpected { command: String, found: String },
    #[error("{0}")]
    Failed(String),
    /// What could be done, and must not.
    #[error("{0}")]
    Barred(String),
    #[error("the copy is not complete; it may be run again")]
    Copy { source: DistkitError },
    #[error("interrupted")]
    Interrupted,
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// The address of the server that does not answer, and what tells so. `at` is the URL that was given.
    pub(crate) fn unreachable(&self, at: &str) -> Option<(String, String)> {
        match self {
            Self::Unusable { address, source: error @ BackendError::NotApplied(cause) }
                if is_unreachable(error) =>
            {
                Some((address.clone(), chain(cause)))
            }
            Self::Store(BackendError::NotApplied(cause) | BackendError::OutcomeUnknown(cause)) => {
                Some((url::address(at), format!("it stopped answering: {}", chain(cause))))
            }
            _ => None,
        }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// The status that the process ends with.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Barred(_) => 1,
            Self::Usage(_) | Self::Name(_) => 2,
            Self::Interrupted => 130,
            _ => 3,
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// An error and its sources, joined by `: `.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
