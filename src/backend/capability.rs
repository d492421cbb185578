//! What a store can do besides the contract that every store keeps.

use std::fmt;

use async_trait::async_trait;

use super::{
    Applied, BackendError, Enumeration, Member, Ordered, ReplayGuard, SliceEnumeration, SliceWrite,
    Space, Standing, Tokens, Windowing, Write, raw::RawCommands, transfer::SliceTransfer,
};

/// The capabilities of a store: a view of each that it has.
///
/// Counters look here for what they need at run time, so that they work over `dyn Backend` too. A capability that
/// a later version of this crate adds is missing in a store that was written before it.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Capabilities<'s> {
    /// Answers to plain counters that outlive a lost reply.
    pub recorded: Option<&'s dyn RecordedAnswers>,
    /// The same for instance-aware counters.
    pub recorded_slices: Option<&'s dyn RecordedSliceAnswers>,
    /// Lists plain counters.
    pub enumeration: Option<&'s dyn Enumeration>,
    /// Lists instance-aware counters.
    pub slice_enumeration: Option<&'s dyn SliceEnumeration>,
    /// Keeps plain counters in windows of time.
    pub windows: Option<&'s dyn Windowing>,
    /// Additions that happen once for each token.
    pub tokens: Option<&'s dyn Tokens>,
    /// Copies instance-aware counters as they are stored.
    #[doc(hidden)]
    pub transfer: Option<&'s dyn SliceTransfer>,
    /// Single commands, for this crate's own tool.
    #[doc(hidden)]
    pub raw: Option<&'s dyn RawCommands>,
}

impl<'s> Capabilities<'s> {
    /// Those of a store that has the contract of [`Backend`](super::Backend), and of
    /// [`InstanceBackend`](super::InstanceBackend) where it implements that, and no more.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds [`RecordedAnswers`].
    pub fn with_recorded(self, recorded: &'s dyn RecordedAnswers) -> Self {
        Self { recorded: Some(recorded), ..self }
    }

    /// Adds [`RecordedSliceAnswers`].
    pub fn with_recorded_slices(self, recorded: &'s dyn RecordedSliceAnswers) -> Self {
        Self { recorded_slices: Some(recorded), ..self }
    }

    /// Adds [`Enumeration`].
    pub fn with_enumeration(self, enumeration: &'s dyn Enumeration) -> Self {
        Self { enumeration: Some(enumeration), ..self }
    }

    /// Adds [`SliceEnumeration`].
    pub fn with_slice_enumeration(self, enumeration: &'s dyn SliceEnumeration) -> Self {
        Self { slice_enumeration: Some(enumeration), ..self }
    }

    /// Adds [`Windowing`].
    pub fn with_windows(self, windows: &'s dyn Windowing) -> Self {
        Self { windows: Some(windows), ..self }
    }

    /// Adds [`Tokens`].
    pub fn with_tokens(self, tokens: &'s dyn Tokens) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    pub(crate) fn with_transfer(self, transfer: &'s dyn SliceTransfer) -> Self {
        Self { transfer: Some(transfer), ..self }
    }

    #[cfg(any(feature = "redis-rs", feature = "fred"))]
    pub(crate) fn with_raw(self, raw: &'s dyn RawCommands) -> Self {
        Self { raw: Some(raw), ..self }
    }
}

/// Requests that can be sent again until they are answered, and then get their *original* answer.
///
/// A lane carries one request at a time: [`ReplayGuard::writer`] is its unique id, [`ReplayGuard::sequence`] the
/// request's number in it. Lanes are apart from the writers of [`Backend::apply`](super::Backend::apply).
///
/// # Contract
///
/// 21. **Once.** A request whose sequence is not above the latest one answered in its lane changes nothing.
/// 22. **The original answer.** One with that sequence is answered as it was the first time, whatever has happened
///     since. One with a lower sequence fails with [`BackendError::AnswerLost`]: its own answer is not kept.
/// 23. **Failures are not answers.** A request that fails with [`BackendError::NotApplied`], or
///     [`BackendError::NotJoined`], uses up no sequence.
/// 24. **Memory.** The latest answer of a lane is kept for at least an hour after its last use. Where the store
///     finds that it lost its records, a request that is [`resent`](ReplayGuard::resent) in a lane that it does not
///     know changes nothing and fails with [`BackendError::Forgotten`].
#[async_trait]
pub trait RecordedAnswers: fmt::Debug + Send + Sync {
    /// Does [`Backend::apply`](super::Backend::apply) in a lane. The whole batch is one request: keep it small.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::apply`](super::Backend::apply), and those of rules 22 and 24.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// let store = store.capabilities().recorded.expect("the memory store keeps answers");
    /// let lane = ReplayGuard { writer: "lane-1".into(), sequence: 1, resent: false };
    /// let writes = [Write::add(key, 2)];
    /// let first = store.apply_recorded(&space, &writes, &lane).await?;
    /// // The answer was lost: the same request again gets the same answer.
    /// let lane = ReplayGuard { resent: true, ..lane };
    /// assert_eq!(store.apply_recorded(&space, &writes, &lane).await?.outcomes, first.outcomes);
    /// # Ok(())
    /// # }
    /// ```
    async fn apply_recorded(
        &self,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError>;

    /// Does [`Backend::clear`](super::Backend::clear) in a lane. One request.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::clear`](super::Backend::clear), and those of rules 22 and 24.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// let lane = ReplayGuard { writer: "lane-1".into(), sequence: 1, resent: false };
    /// store.clear_recorded(&space, &lane).await?;
    /// # Ok(())
    /// # }
    /// ```
    async fn clear_recorded(&self, space: &Space, lane: &ReplayGuard) -> Result<(), BackendError>;
}

/// [`RecordedAnswers`] for instance-aware counters.
///
/// A lane belongs to the space and outlives the incarnations that use it: a request that was answered is answered
/// again also after its incarnation is gone, and only one that was not fails with [`BackendError::NotJoined`].
#[async_trait]
pub trait RecordedSliceAnswers: fmt::Debug + Send + Sync {
    /// Does [`InstanceBackend::apply_on`](super::InstanceBackend::apply_on) in a lane. The version is that of the
    /// original answer. One request.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// Those of [`InstanceBackend::apply_on`](super::InstanceBackend::apply_on), and those of rules 22 and 24.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// # let joined = store.join(&space, &Instance::new(store.fresh_id(), LEASE), &[]).await?;
    /// # let member = Member { incarnation: joined.incarnation, lease: LEASE };
    /// # const LEASE: std::time::Duration = std::time::Duration::from_secs(30);
    /// let lane = ReplayGuard { writer: "lane-1".into(), sequence: 1, resent: false };
    /// let write = SliceWrite::new(key, SliceChange::Add(5));
    /// let ordered = store.apply_on_recorded(&space, &member, &[write], &lane).await?;
    /// assert_eq!(ordered.answer.outcomes[0].as_ref().unwrap().new.slice, 5);
    /// # Ok(())
    /// # }
    /// ```
    async fn apply_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        lane: &ReplayGuard,
    ) -> Result<Ordered<Applied<Standing>>, BackendError>;

    /// Does [`InstanceBackend::clear_on`](super::InstanceBackend::clear_on) of [`Scope::Total`](super::Scope::Total) in a
    /// lane. One request.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// Those of [`InstanceBackend::clear_on`](super::InstanceBackend::clear_on), and those of rules 22 and 24.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// # let joined = store.join(&space, &Instance::new(store.fresh_id(), LEASE), &[]).await?;
    /// # let member = Member { incarnation: joined.incarnation, lease: LEASE };
    /// # const LEASE: std::time::Duration = std::time::Duration::from_secs(30);
    /// let lane = ReplayGuard { writer: "lane-1".into(), sequence: 1, resent: false };
    /// store.clear_on_recorded(&space, &member, &lane).await?;
    /// # Ok(())
    /// # }
    /// ```
    async fn clear_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        lane: &ReplayGuard,
    ) -> Result<(), BackendError>;
}

/// The error of a request that needs a capability which the store does not have.
pub(crate) fn missing(capability: &str) -> BackendError {
    BackendError::not_applied(format!("the store does not support {capability}"))
}
