//! What a counter tells about writes that did not arrive.

use std::fmt;

use crate::{DistkitError, RedisKey, backend::Refusal};

/// What a shutdown could not bring to the store. It has been given up: nothing of it is sent later.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Unflushed {
    /// Keys, in order, with the sums that the store has not taken.
    pub pending: Vec<(RedisKey, i64)>,
    /// Keys, in order, with sums that were sent, or about to be, and whose answer never came: the store may hold
    /// them.
    pub unknown: Vec<(RedisKey, i64)>,
    /// Sums that the store refused since the last `flush`, with the reason.
    pub refused: Vec<(RedisKey, i64, Refusal)>,
    /// Why the last attempt failed.
    pub cause: Option<DistkitError>,
}

/// Losses that are not reported yet.
#[derive(Default)]
pub(super) struct Losses {
    pub(super) refused: Vec<(RedisKey, i64, Refusal)>,
    /// Sums whose outcome can no longer be determined.
    pub(super) abandoned: Vec<(RedisKey, i64)>,
    /// Why the last attempt to send failed, until one succeeds. A report leaves it.
    pub(super) last_failure: Option<DistkitError>,
}

impl Losses {
    pub(super) fn report(&mut self) -> Unflushed {
        let refused = std::mem::take(&mut self.refused);
        let abandoned = std::mem::take(&mut self.abandoned);
        Unflushed { refused, unknown: abandoned, ..Unflushed::default() }
    }
}

impl Unflushed {
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.unknown.is_empty() && self.refused.is_empty()
    }
}

impl fmt::Display for Unflushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} keys have writes that did not reach the store, {} may have them, {} were refused",
            self.pending.len(),
            self.unknown.len(),
            self.refused.len()
        )
    }
}

impl std::error::Error for Unflushed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
