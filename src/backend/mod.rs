//! The stores that counters live in, and the contract that every store keeps.
//!
//! Counters know nothing but [`Backend`]. This crate has three stores: [`memory`], which is always
//! there, and one for each of the Redis clients `redis-rs` and `fred`, behind the features of those
//! names. [`connect`] picks one by URL; [`IntoBackend`] takes a connection that a service already has.

mod capability;
mod connect;
mod enumeration;
mod error;
#[cfg(feature = "fred")]
mod fred;
mod instance;
mod into;
#[cfg(any(
    feature = "counter",
    feature = "instance-aware-counter",
    feature = "redis-rs",
    feature = "fred"
))]
pub(crate) mod lanes;
mod layer;
mod layer_tokens;
#[cfg(any(feature = "redis-rs", feature = "fred"))]
mod lua;
#[cfg(feature = "metrics")]
pub(crate) mod measured;
pub mod memory;
mod operation;
#[cfg(any(
    feature = "counter",
    feature = "instance-aware-counter",
    feature = "redis-rs",
    feature = "fred"
))]
#[cfg_attr(
    not(any(feature = "redis-rs", feature = "fred")),
    allow(dead_code, reason = "a client says how far a request is")
)]
pub(crate) mod progress;
mod raw;
#[cfg(feature = "redis-rs")]
mod redis_rs;
#[cfg(any(feature = "redis-rs", feature = "fred"))]
mod silence;
mod space;
mod tokens;
#[doc(hidden)]
pub mod transfer;
mod windowing;

/// What this crate's own tool for operators needs besides: names in Redis, and single commands.
///
/// No part of the public interface: it changes with the layout, in any version.
#[doc(hidden)]
#[cfg(any(feature = "redis-rs", feature = "fred"))]
pub mod operator {
    pub use super::{
        connect::is_unreachable,
        lua::{
            layout::{
                LAYOUT, import, instance_names, key_tag, lanes, shape, tokens, totals, writers,
            },
            rights::COMMANDS,
        },
        raw::{RawCommands, RawReply},
    };
}

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::RedisKey;

#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
pub(crate) use capability::missing;
pub use capability::{Capabilities, RecordedAnswers, RecordedSliceAnswers};
pub use connect::connect;
pub use enumeration::{Cursor, Enumeration, Page, SliceEnumeration};
pub use error::{BackendError, Cause};
#[cfg(feature = "fred")]
#[cfg_attr(docsrs, doc(cfg(feature = "fred")))]
pub use fred::{FredClient, FredStore};
pub use instance::{
    Epoch, Incarnation, Instance, InstanceSlice, Joined, Member, Ordered, Scope, Slice,
    SliceChange, SliceWrite, Standing,
};
pub use into::{IntoBackend, Store};
pub use layer::{Around, DynAround, Layered, Op};
#[cfg(any(feature = "redis-rs", feature = "fred"))]
pub use lua::LuaStore;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use measured::MetricsLayer;
pub(crate) use operation::fitting;
pub use operation::{
    AddedOnce, Applied, Change, CounterComparator, GuardRecord, Outcome, Refusal, ReplayGuard,
    TokenAdd, Write, Written,
};
#[cfg(feature = "redis-rs")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis-rs")))]
pub use redis_rs::{ReconnectingConnection, RedisConnection, RedisStore};
pub use space::Space;
#[cfg(feature = "counter")]
pub(crate) use tokens::takes_tokens;
pub use tokens::{Resolved, Tokens};
pub use windowing::Windowing;

/// A store of counters.
///
/// Implement it to keep counters somewhere else; the suite behind the feature `conformance` checks an
/// implementation against this contract, one test for each rule.
///
/// # Contract
///
/// Of the plain half; [`InstanceBackend`] has rules 12 to 20.
///
/// 1. **Atomic writes.** No reader sees half of a write. A batch need not be atomic as a whole.
/// 2. **Order.** The writes of a batch happen in its order; a key named twice is written twice.
///    Answers come in the order of the input.
/// 3. **Outcomes are per item.** A refused item, or one whose condition fails, changes nothing and
///    stops no other item.
/// 4. **Exact.** Arithmetic is exact on the whole range of `i64`. A result outside of it is refused as
///    [`Refusal::Overflow`]. [`Change::AddWithin`] adds exactly as much as fits. A store refuses a change that it
///    does not have, as [`BackendError::NotApplied`], with all of its batch.
/// 5. **A missing key reads 0**, and 0 is what conditions compare with.
/// 6. **Foreign data is named, never overwritten by an addition.** A value that is not a decimal `i64`, as
///    `i64::to_string` writes it, is refused as [`Refusal::NotANumber`] where it is read or added to; an unconditional assignment
///    replaces it, and an unconditional removal deletes it but is refused, for there is no number to answer with.
/// 7. **Replay guard.** A batch whose [`ReplayGuard::sequence`] is not above the highest one applied for
///    its writer changes nothing and answers with the values as they stand
///    ([`Applied::replayed`]); items that the latest batch refused are refused again. Also an empty batch uses up its
///    sequence. The store remembers a writer for at least a day after its last batch. Where it finds that
///    it lost what it remembered, a batch that is [`resent`](ReplayGuard::resent) by a writer it does not
///    know changes nothing and fails with [`BackendError::Forgotten`].
/// 8. **Time** is the store's, never the caller's.
/// 9. **Spaces are apart.** Any valid prefix and any valid key work, and none reaches into another. The shards of a
///    prefix are spaces of their own. A prefix has the [number of shards](Space::shards) with which it is first written
///    to; requests for spaces of another number change nothing and fail with [`BackendError::ShapeMismatch`].
/// 10. **Errors tell.** [`BackendError::NotApplied`] means that nothing happened or will;
///     [`BackendError::OutcomeUnknown`] that all, a part, or nothing may have. A [`read`](Self::read)
///     changes nothing and so never fails with the latter. A store never sends a
///     request a second time by itself unless the first one cannot take effect twice.
/// 11. **Cancel safety.** Dropping a returned future may leave its outcome unknown, and breaks nothing
///     else.
///
/// # A store of your own
///
/// 1. Implement this trait; `fresh_id` has a default. Nothing else is needed for plain counters.
/// 2. In a test, make a `conformance::Fixture::plain` of it and expand
///    `plain_conformance_suite!`: one test for each rule (feature `conformance`).
/// 3. For instance-aware counters implement [`InstanceBackend`] too, with
///    `conformance_suite!`.
/// 4. For strict writes that survive a lost answer implement [`RecordedAnswers`], answer `capabilities` with
///    `Capabilities::none().with_recorded(self)`, and expand `recorded_conformance_suite!(name, fixture)`. Without it
///    strict writes are sent once.
/// 5. For listings implement [`Enumeration`], with `Capabilities::with_enumeration` and
///    `enumeration_conformance_suite!`; for those of instance-aware counters [`SliceEnumeration`]. Without them
///    listings fail.
/// 6. For additions under tokens implement [`Tokens`], with `Capabilities::with_tokens` and
///    `tokens_conformance_suite!`. Without it they fail.
/// 7. For counters in windows of time implement [`Windowing`], with `Capabilities::with_windows` and
///    `windows_conformance_suite!`. Without it counters with windows fail.
/// 8. To change what happens around another store's requests, write an [`Around`] and use [`Layered`].
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a store of counters",
    label = "this is no `Backend`",
    note = "pass a connection of redis-rs or fred, a store such as `MemoryBackend`, or an `Arc` of one"
)]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Adds to, sets or removes each key, in order.
    ///
    /// An empty batch without a guard does nothing. One round trip.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// Those of rule 10, [`BackendError::Forgotten`] of rule 7, and [`BackendError::ShapeMismatch`] of rule 9.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// let writes = [Write::add(key.clone(), 2), Write::set(key.clone(), 7)];
    /// let guard = ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: false };
    /// let applied = store.apply(&space, &writes, Some(&guard)).await?;
    /// let last = applied.outcomes[1].as_ref().unwrap();
    /// assert_eq!((last.old, last.new), (2, 7));
    ///
    /// let again = ReplayGuard { resent: true, ..guard };
    /// assert!(store.apply(&space, &writes, Some(&again)).await?.replayed);
    /// # Ok(())
    /// # }
    /// ```
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError>;

    /// Reads each key. One round trip.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotApplied`], as rule 10 has it for reads, and [`BackendError::ShapeMismatch`] of rule 9.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// assert_eq!(store.read(&space, &[key]).await?, [Ok(0)]);
    /// # Ok(())
    /// # }
    /// ```
    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError>;

    /// Deletes every plain counter of the space. What the store remembers of replay guards and tokens stays.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// Those of rule 10, and [`BackendError::ShapeMismatch`] of rule 9.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// store.apply(&space, &[Write::add(key.clone(), 2)], None).await?;
    /// store.clear(&space).await?;
    /// assert_eq!(store.read(&space, &[key]).await?, [Ok(0)]);
    /// # Ok(())
    /// # }
    /// ```
    async fn clear(&self, space: &Space) -> Result<(), BackendError>;

    /// Returns what the store can do besides: [`Capabilities::none`] for one that has this contract only. No I/O.
    ///
    /// A store that wraps another one answers with views of itself, or loses the other one's capabilities.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// assert!(store.capabilities().recorded.is_some());
    /// # Ok(())
    /// # }
    /// ```
    fn capabilities(&self) -> Capabilities<'_>;

    /// Returns a unique id: random, except in a store that simulates. No I/O.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// assert_ne!(store.fresh_id(), store.fresh_id());
    /// # Ok(())
    /// # }
    /// ```
    fn fresh_id(&self) -> Arc<str> {
        #[expect(clippy::disallowed_methods, reason = "the one place where random ids are made")]
        let id = uuid::Uuid::new_v4();
        id.to_string().into()
    }
}

/// A [`Backend`] that keeps instance-aware counters besides: the other half of the contract.
///
/// The compiler refuses instance-aware counters on a store that has the plain half only, and says so:
///
/// ```compile_fail,E0277
/// use distkit::{RedisKey, backend::*, icounter::StrictInstanceAwareCounterOptions};
///
/// #[derive(Debug)]
/// struct PlainOnly;
///
/// # #[async_trait::async_trait]
/// impl Backend for PlainOnly {
///     // ...
/// #   async fn apply(
/// #       &self,
/// #       _: &Space,
/// #       _: &[Write],
/// #       _: Option<&ReplayGuard>,
/// #   ) -> Result<Applied, BackendError> {
/// #       unreachable!()
/// #   }
/// #   async fn read(&self, _: &Space, _: &[RedisKey]) -> Result<Vec<Outcome<i64>>, BackendError> {
/// #       unreachable!()
/// #   }
/// #   fn capabilities(&self) -> Capabilities<'_> {
/// #       Capabilities::none()
/// #   }
/// #   async fn clear(&self, _: &Space) -> Result<(), BackendError> {
/// #       unreachable!()
/// #   }
/// }
///
/// // error[E0277]: `PlainOnly` cannot be the store of these counters
/// let options = StrictInstanceAwareCounterOptions::new(RedisKey::default_prefix(), PlainOnly);
/// ```
///
/// # Contract
///
/// Rules 1 to 11 of [`Backend`], and:
///
/// 12. **The sum.** At all times a key's total is the sum of the slices, under the key's current
///     epoch, of the instances that are joined. Total and slice change together or not at all.
/// 13. **Leases.** Every operation of a joined instance makes its lease run until now + its length.
///     An instance whose lease has run out (now >= its end) is expired once an operation of another one,
///     a join included, finds it; until then it can still renew.
/// 14. **Collecting.** An operation first removes the slices of all expired instances from the keys that
///     it names, so that its answer is exact. The remaining slices of expired instances go in bounded portions, one
///     with each operation, until nothing is left. Collecting never makes an operation fail: where the
///     true sum does not fit into an `i64`, the total reads as the nearest `i64`, and only a write
///     whose own result does not fit is refused.
/// 15. **Not joined.** An operation of an incarnation that is not joined touches nothing and fails with
///     [`BackendError::NotJoined`].
/// 16. **Epochs.** [`SliceChange::SetTotal`], [`SliceChange::Remove`] and [`Scope::Total`] give a key an epoch greater than
///     any before, also where the key is missing; slices of older epochs count nothing from then on.
///     Nothing else changes an epoch, but a claim as rule 18 has it.
/// 17. **Coming back.** A claim that a join brings is put back if its epoch is the key's current one,
///     once, and dropped otherwise. Nothing from before a [`clear_on`](Self::clear_on) of
///     [`Scope::Total`] comes back. The claims of an instance that was not joined for longer than its
///     [`Instance::max_absence`] are dropped. The absence is measured in the age of the space: each join, heartbeat
///     and [`clear_on`](Self::clear_on) of [`Scope::Total`] adds the time since the previous one, at most a minute. A store may drop the epochs of keys
///     without slices after twice `max_absence`, provided that older claims stay invalid.
/// 18. **Lost data.** A store that lost its data knows so: a claim from before the loss is put back unless
///     the store, or another claim, knows of a later `set`, `del` or `clear` of that key. What was put
///     back from before such a change goes when a claim tells of it; what was written since the loss
///     stays. The epoch with which a store began is no change.
/// 19. **Names.** An id, and a name, has one holder. A join takes them from an older holder, whose
///     slices go; the older one is told [`BackendError::Replaced`] when it joins again while the newer
///     one lives. [`Instance::first_joined`] decides who is newer.
/// 20. **Guard of an incarnation.** [`apply_on`](Self::apply_on) takes rule 7's sequence for the
///     incarnation instead of a writer. It lives and ends with the incarnation, whose slices end with
///     it too: a batch in doubt is then to be applied anew on top of the acknowledged slices.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` keeps no instance-aware counters",
    label = "this store has the plain half of the contract only",
    note = "instance-aware counters need a store that implements `InstanceBackend` as well as `Backend`"
)]
pub trait InstanceBackend: Backend {
    /// Makes `instance` a member of the space, or makes it one anew, and puts back the slices that it
    /// claims, as far as they still count (rules 17 and 18).
    ///
    /// An earlier incarnation of the same id goes, and its slices with it, so a join whose outcome is
    /// unknown is simply done again. A key that is claimed twice is put back once.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// [`BackendError::Replaced`] if a newer instance holds the name.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// use std::time::Duration;
    ///
    /// let instance = Instance::new(store.fresh_id(), Duration::from_secs(30));
    /// let joined = store.join(&space, &instance, &[]).await?;
    /// let member = Member { incarnation: joined.incarnation, lease: instance.lease };
    /// store.heartbeat(&space, &member).await?;
    /// # Ok(())
    /// # }
    /// ```
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError>;

    /// Changes the caller's slice of each key, or the whole key, in order.
    ///
    /// With a `sequence` the batch is applied once in the life of the incarnation (rule 20). One round
    /// trip, unless very many expired instances have to be collected first.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotJoined`].
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
    /// let write = SliceWrite::new(key, SliceChange::Add(5));
    /// let ordered = store.apply_on(&space, &member, &[write], None).await?;
    /// let written = ordered.answer.outcomes[0].as_ref().unwrap();
    /// assert_eq!((written.new.total, written.new.slice), (5, 5));
    /// # Ok(())
    /// # }
    /// ```
    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError>;

    /// Reads each key: its total and the caller's slice. A missing key reads 0.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotJoined`].
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
    /// let ordered = store.read_on(&space, &member, &[key]).await?;
    /// assert_eq!(ordered.answer[0].as_ref().unwrap().total, 0);
    /// # Ok(())
    /// # }
    /// ```
    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError>;

    /// Removes every key, under a new epoch for all of them, or all slices of the caller. Memberships
    /// and their guards stay. A whole space is empty at once; it may take several round trips until
    /// its memory is free.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotJoined`].
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
    /// store.clear_on(&space, &member, Scope::Total).await?;
    /// assert_eq!(store.totals(&space, &[key]).await?, [Ok(0)]);
    /// # Ok(())
    /// # }
    /// ```
    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError>;

    /// Renews the lease.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotJoined`].
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
    /// store.heartbeat(&space, &member).await?;
    /// store.leave(&space, &member).await?;
    /// let late = store.heartbeat(&space, &member).await;
    /// assert!(matches!(late, Err(BackendError::NotJoined)));
    /// # Ok(())
    /// # }
    /// ```
    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError>;

    /// Ends the membership and removes its slices from all totals. Does nothing if it has ended. One round trip.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// # Errors
    ///
    /// Those of rule 10.
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
    /// let write = SliceWrite::new(key.clone(), SliceChange::Add(5));
    /// store.apply_on(&space, &member, &[write], None).await?;
    /// store.leave(&space, &member).await?;
    /// assert_eq!(store.totals(&space, &[key]).await?, [Ok(0)]);
    /// # Ok(())
    /// # }
    /// ```
    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError>;

    /// Returns the total of each key, asked by a process that is no member: of all instances that are joined and
    /// whose lease has not run out. A missing key reads 0.
    ///
    /// It changes nothing: it renews no lease and collects no instance. Its cost grows with the number of slices.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotApplied`], as rule 10 has it for reads.
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
    /// let write = SliceWrite::new(key.clone(), SliceChange::Add(5));
    /// store.apply_on(&space, &member, &[write], None).await?;
    /// assert_eq!(store.totals(&space, &[key]).await?, [Ok(5)]);
    /// # Ok(())
    /// # }
    /// ```
    async fn totals(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError>;

    /// Returns the slices of one key, asked by a process that need be no member: of all instances that are joined,
    /// whose lease has not run out, and that have one, in ascending order of their ids. It changes nothing.
    ///
    /// A slice that is not a number reads 0.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotApplied`], as rule 10 has it for reads.
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
    /// let write = SliceWrite::new(key.clone(), SliceChange::Add(5));
    /// store.apply_on(&space, &member, &[write], None).await?;
    /// assert_eq!(store.slices(&space, &key).await?[0].value, 5);
    /// # Ok(())
    /// # }
    /// ```
    async fn slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError>;
}
