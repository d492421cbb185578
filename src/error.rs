use crate::{
    RedisKey,
    backend::{BackendError, Refusal},
};

/// The error type of this crate.
///
/// Its text does not repeat that of its [`source`](std::error::Error::source): print the whole chain, as `{:#}` of
/// `anyhow` does, to see why.
///
/// After any variant but [`OutcomeUnknown`](Self::OutcomeUnknown) and [`InShards`](Self::InShards), and but
/// [`CustomError`](Self::CustomError), which this crate never makes, the operation has changed nothing, with
/// two exceptions:
/// - `del` of something that is no number deletes it, and answers [`CounterError`](Self::CounterError) because
///   there is no total to answer with.
/// - From `flush` of a lax counter, [`NotApplied`](Self::NotApplied) and
///   [`OutcomeUnknown`](Self::OutcomeUnknown) say how the last attempt to send went. What is buffered is kept, and
///   sent until it is counted once: do not repeat the additions.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DistkitError {
    /// A name is empty, longer than 255 characters, or contains a colon.
    #[error("invalid key: {0}")]
    InvalidRedisKey(String),

    /// A [`Token`](crate::Token) is empty, or has more than 255 bytes.
    #[error("invalid token: {0}")]
    InvalidToken(String),

    /// The store turned the operation down or could not be reached. Nothing happened, and nothing will.
    #[error("not applied")]
    NotApplied(#[source] BackendError),

    /// The connection was lost, or an answer did not come in time, after the operation was sent: it may
    /// have happened, or may still.
    #[error("outcome unknown")]
    OutcomeUnknown(#[source] BackendError),

    /// The store turned this key's write down.
    #[error("the store refuses the operation on counter `{key}`")]
    CounterError {
        /// Which counter.
        key: RedisKey,
        /// Why.
        #[source]
        refusal: Refusal,
    },

    /// The store was unreachable for so long that as many keys have pending writes as
    /// `CounterOptions::max_pending_keys` allows.
    #[error("as many keys have pending writes as `max_pending_keys` allows: {limit}")]
    TooManyPending {
        /// The limit: of several shards, the share of the one that the key belongs to.
        limit: usize,
    },

    /// The counter was shut down.
    #[error("the counter is shut down")]
    ShutDown,

    /// A newer instance holds this instance's name; this one can do nothing any more.
    #[error("a newer instance has taken this instance's name")]
    InstanceReplaced,

    /// An operation on all shards of a prefix failed in some of them, which are named with their errors. It was done
    /// in the others.
    ///
    /// Repeating a `clear` or a `flush` does no harm to the shards in which it was done.
    #[error("{} of {shards} shards failed: {}", failed.len(), numbers(failed))]
    InShards {
        /// How many shards the prefix has.
        shards: u16,
        /// The number and the error of each shard that failed, in order.
        failed: Vec<(u16, DistkitError)>,
        /// The first of these errors.
        #[source]
        cause: Box<DistkitError>,
    },

    /// For a service's own use in code that is generic over counters; this crate never makes one.
    #[error("{0}")]
    CustomError(String),

    /// A rate limiter failed.
    #[cfg(feature = "trypema")]
    #[cfg_attr(docsrs, doc(cfg(feature = "trypema")))]
    #[error("the rate limiter failed")]
    TrypemaError(#[source] std::sync::Arc<trypema::TrypemaError>),
}

impl DistkitError {
    /// Returns whether the operation may have taken effect although it failed, in whole or in part: true of
    /// [`OutcomeUnknown`](Self::OutcomeUnknown), and of [`InShards`](Self::InShards) unless nothing happened in any of
    /// the shards. The exceptions are those of [`DistkitError`].
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::OutcomeUnknown(_) => true,
            Self::InShards { shards, failed, .. } => {
                failed.len() < usize::from(*shards)
                    || failed.iter().any(|(_, error)| error.may_have_happened())
            }
            _ => false,
        }
    }

    #[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
    pub(crate) fn refused(key: &RedisKey, refusal: Refusal) -> Self {
        match refusal {
            // This attempt changed nothing; what another one did is unknown.
            Refusal::TokenForgotten => Self::OutcomeUnknown(BackendError::Forgotten),
            refusal => Self::CounterError { key: key.clone(), refusal },
        }
    }
}

/// The numbers of the shards, for a text.
fn numbers(failed: &[(u16, DistkitError)]) -> String {
    let numbers: Vec<_> = failed.iter().map(|(shard, _)| shard.to_string()).collect();
    numbers.join(", ")
}

impl From<BackendError> for DistkitError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::OutcomeUnknown(_)
            | BackendError::AnswerLost(_)
            | BackendError::Forgotten => Self::OutcomeUnknown(error),
            BackendError::Replaced => Self::InstanceReplaced,
            _ => Self::NotApplied(error),
        }
    }
}

#[cfg(feature = "trypema")]
impl From<trypema::TrypemaError> for DistkitError {
    fn from(error: trypema::TrypemaError) -> Self {
        Self::TrypemaError(std::sync::Arc::new(error))
    }
}
