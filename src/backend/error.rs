use std::{error::Error, sync::Arc, time::Duration};

/// Where a [`BackendError`] came from: the client's own error, shared so that every caller waiting for
/// the same request can be told.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a store did not answer a request. The variants tell whether a write can have happened.
///
/// What concerns one item of a batch only is not an error of the request: see
/// [`Refusal`](super::Refusal).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Nothing of the request took effect, and nothing of it will: it never left this process, or the
    /// store turned it down as a whole. Sending it again is safe.
    #[error("the store did not apply the request")]
    NotApplied(#[source] Cause),

    /// The request was sent and no answer came back. All of it, a part, or nothing may have taken
    /// effect, or may still. Only a guarded or idempotent request may be sent again.
    #[error("no answer tells whether the store applied the request")]
    OutcomeUnknown(#[source] Cause),

    /// The store applied the request, or a part of it, and has no answer to give: a server turned the rest down, or
    /// the answer is not kept any more. To send a [recorded](super::RecordedAnswers) request again brings none
    /// either. What was applied is unknown.
    #[error("the store applied the request, or a part of it, and has no answer to it")]
    AnswerLost(#[source] Cause),

    /// The store holds something that this crate did not put there, such as a list under the name of a
    /// counter hash. Nothing of the request took effect.
    #[error("the store holds data that is not ours: {0}")]
    Corrupt(String),

    /// The other processes of the prefix keep its data in another shape: another version of this crate, or
    /// another number of shards, or tokens that are kept for another time. Nothing took effect. Use another prefix, or the same version.
    #[error("the prefix is in use with {stored}, and this process has {ours}")]
    ShapeMismatch {
        /// What this process would use.
        ours: String,
        /// What the store holds.
        stored: String,
    },

    /// The store lost the record of this writer, or token, and an earlier attempt may have been applied.
    /// This attempt did nothing; what the earlier one did is unknown. Do not send the batch again.
    #[error("the store lost the record that would tell whether an earlier attempt was applied")]
    Forgotten,

    /// The window that the request names is not the current one by the store's clock. Nothing took effect: see
    /// [`Windowing`](super::Windowing).
    #[error("the window is not the current one")]
    NotCurrent {
        /// The store's time, since its epoch.
        now: Duration,
    },

    /// The window that the request names has ended, and the time for which it is kept is over. Nothing took effect,
    /// and the window does not come back.
    #[error("the window is closed")]
    WindowClosed,

    /// The store lost what was counted in this window, by an eviction or a step of its clock, and not what it knows
    /// of windows. Nothing took effect; later windows are not concerned.
    #[error("the store lost the counters of this window")]
    WindowLost,

    /// The instance is not registered: it never joined, was collected as expired, left, or the store lost
    /// its data. Nothing took effect. [`join`](super::InstanceBackend::join) and send again.
    #[error("the instance is not joined")]
    NotJoined,

    /// Another instance that joined later holds this instance's name. Nothing took effect, and no retry
    /// will help.
    #[error("a newer instance has taken this instance's name")]
    Replaced,
}

/// Marks a cause.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct WritesRefused(Box<dyn Error + Send + Sync>);

impl BackendError {
    /// Creates a [`NotApplied`](Self::NotApplied) for `cause`.
    pub fn not_applied(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::NotApplied(cause.into().into())
    }

    /// Creates a [`NotApplied`](Self::NotApplied) for `cause`, of a store that answers and takes no writes: a full
    /// disk or memory, a read-only replica, a missing right. Counters say so in their numbers, apart from an
    /// unreachable store.
    pub fn writes_refused(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::not_applied(WritesRefused(cause.into()))
    }

    /// Returns whether it was made by [`writes_refused`](Self::writes_refused).
    pub fn refuses_writes(&self) -> bool {
        matches!(self, Self::NotApplied(cause) if cause.is::<WritesRefused>())
    }

    /// Creates an [`OutcomeUnknown`](Self::OutcomeUnknown) for `cause`.
    pub fn outcome_unknown(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::OutcomeUnknown(cause.into().into())
    }

    /// Creates an [`AnswerLost`](Self::AnswerLost) for `cause`.
    pub fn answer_lost(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::AnswerLost(cause.into().into())
    }

    /// The error of a request that changes nothing, or before which this one failed: nothing was applied.
    pub(crate) fn with_nothing_applied(self) -> Self {
        match self {
            Self::OutcomeUnknown(cause) | Self::AnswerLost(cause) => Self::NotApplied(cause),
            error => error,
        }
    }

    /// Returns whether the request may have taken effect, in whole or in part.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_) | Self::AnswerLost(_) | Self::Forgotten)
    }
}
