use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use super::{
    Applied, Backend, BackendError, Capabilities, Cursor, Enumeration, Incarnation, Instance,
    InstanceBackend, InstanceSlice, Joined, Member, Ordered, Outcome, Page, RecordedAnswers,
    RecordedSliceAnswers, ReplayGuard, Scope, Slice, SliceEnumeration, SliceWrite, Space, Standing,
    TokenAdd, Windowing, Write,
    capability::missing,
    transfer::{Export, Part, SliceTransfer},
};
use crate::{KeyFilter, RedisKey, Token};

/// A request on its way to a store: the method and its arguments.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each is a method of the contract, with the arguments that it has there"
)]
pub enum Op<'a> {
    Apply {
        space: &'a Space,
        writes: &'a [Write],
        guard: Option<&'a ReplayGuard>,
    },
    Read {
        space: &'a Space,
        keys: &'a [RedisKey],
    },
    Clear {
        space: &'a Space,
    },
    Join {
        space: &'a Space,
        instance: &'a Instance,
        slices: &'a [Slice],
    },
    ApplyOn {
        space: &'a Space,
        member: &'a Member,
        writes: &'a [SliceWrite],
        sequence: Option<u64>,
    },
    ReadOn {
        space: &'a Space,
        member: &'a Member,
        keys: &'a [RedisKey],
    },
    ClearOn {
        space: &'a Space,
        member: &'a Member,
        scope: Scope,
    },
    Heartbeat {
        space: &'a Space,
        member: &'a Member,
    },
    Leave {
        space: &'a Space,
        member: &'a Member,
    },
    Totals {
        space: &'a Space,
        keys: &'a [RedisKey],
    },
    Slices {
        space: &'a Space,
        key: &'a RedisKey,
    },
    ApplyRecorded {
        space: &'a Space,
        writes: &'a [Write],
        lane: &'a ReplayGuard,
    },
    ClearRecorded {
        space: &'a Space,
        lane: &'a ReplayGuard,
    },
    ApplyOnRecorded {
        space: &'a Space,
        member: &'a Member,
        writes: &'a [SliceWrite],
        lane: &'a ReplayGuard,
    },
    ClearOnRecorded {
        space: &'a Space,
        member: &'a Member,
        lane: &'a ReplayGuard,
    },
    Page {
        space: &'a Space,
        from: Option<&'a Cursor>,
        filter: &'a KeyFilter,
        count: usize,
    },
    Count {
        space: &'a Space,
    },
    PageOn {
        space: &'a Space,
        from: Option<&'a Cursor>,
        filter: &'a KeyFilter,
        count: usize,
    },
    CountOn {
        space: &'a Space,
    },
    Time {
        space: &'a Space,
    },
    ReadCurrent {
        space: &'a Space,
        keys: &'a [RedisKey],
    },
    AnyOpen {
        space: &'a Space,
    },
    ExpireIdle {
        space: &'a Space,
    },
    AddOnce {
        space: &'a Space,
        items: &'a [TokenAdd],
        keep: Duration,
    },
    Resolve {
        space: &'a Space,
        tokens: &'a [(RedisKey, Token)],
        keep: Duration,
    },
    Forbid {
        space: &'a Space,
        tokens: &'a [(RedisKey, Token)],
        keep: Duration,
    },
    Export {
        space: &'a Space,
    },
    Import {
        space: &'a Space,
    },
}

impl Op<'_> {
    /// Returns the name of the method.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "apply",
            Self::Read { .. } => "read",
            Self::Clear { .. } => "clear",
            Self::Join { .. } => "join",
            Self::ApplyOn { .. } => "apply_on",
            Self::ReadOn { .. } => "read_on",
            Self::ClearOn { .. } => "clear_on",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Leave { .. } => "leave",
            Self::Totals { .. } => "totals",
            Self::Slices { .. } => "slices",
            Self::ApplyRecorded { .. } => "apply_recorded",
            Self::ClearRecorded { .. } => "clear_recorded",
            Self::ApplyOnRecorded { .. } => "apply_on_recorded",
            Self::ClearOnRecorded { .. } => "clear_on_recorded",
            Self::Page { .. } => "page",
            Self::Count { .. } => "count",
            Self::PageOn { .. } => "page_on",
            Self::CountOn { .. } => "count_on",
            Self::Time { .. } => "time",
            Self::ReadCurrent { .. } => "read_current",
            Self::AnyOpen { .. } => "any_open",
            Self::ExpireIdle { .. } => "expire_idle",
            Self::AddOnce { .. } => "add_once",
            Self::Resolve { .. } => "resolve",
            Self::Forbid { .. } => "forbid",
            Self::Export { .. } => "export",
            Self::Import { .. } => "import",
        }
    }

    /// Returns its space.
    pub fn space(&self) -> &Space {
        match self {
            Self::Apply { space, .. }
            | Self::Read { space, .. }
            | Self::Clear { space }
            | Self::Join { space, .. }
            | Self::ApplyOn { space, .. }
            | Self::ReadOn { space, .. }
            | Self::ClearOn { space, .. }
            | Self::Heartbeat { space, .. }
            | Self::Leave { space, .. }
            | Self::Totals { space, .. }
            | Self::Slices { space, .. }
            | Self::ApplyRecorded { space, .. }
            | Self::ClearRecorded { space, .. }
            | Self::ApplyOnRecorded { space, .. }
            | Self::ClearOnRecorded { space, .. }
            | Self::Page { space, .. }
            | Self::Count { space }
            | Self::PageOn { space, .. }
            | Self::CountOn { space }
            | Self::Time { space }
            | Self::ReadCurrent { space, .. }
            | Self::AnyOpen { space }
            | Self::ExpireIdle { space }
            | Self::AddOnce { space, .. }
            | Self::Resolve { space, .. }
            | Self::Forbid { space, .. }
            | Self::Export { space }
            | Self::Import { space } => space,
        }
    }

    /// Returns how many keys it names: writes, reads, or claims.
    pub fn items(&self) -> usize {
        match self {
            Self::Apply { writes, .. } | Self::ApplyRecorded { writes, .. } => writes.len(),
            Self::ApplyOn { writes, .. } | Self::ApplyOnRecorded { writes, .. } => writes.len(),
            Self::Read { keys, .. }
            | Self::ReadOn { keys, .. }
            | Self::Totals { keys, .. }
            | Self::ReadCurrent { keys, .. } => keys.len(),
            Self::Join { slices, .. } => slices.len(),
            Self::AddOnce { items, .. } => items.len(),
            Self::Resolve { tokens, .. } | Self::Forbid { tokens, .. } => tokens.len(),
            Self::Slices { .. } => 1,
            Self::Clear { .. }
            | Self::ClearRecorded { .. }
            | Self::ClearOn { .. }
            | Self::ClearOnRecorded { .. }
            | Self::Heartbeat { .. }
            | Self::Leave { .. }
            | Self::Page { .. }
            | Self::Count { .. }
            | Self::PageOn { .. }
            | Self::CountOn { .. }
            | Self::Time { .. }
            | Self::AnyOpen { .. }
            | Self::ExpireIdle { .. }
            | Self::Export { .. }
            | Self::Import { .. } => 0,
        }
    }

    /// Returns whether it changes no counter, so that its outcome is never unknown (rule 10).
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::ReadOn { .. }
                | Self::Totals { .. }
                | Self::Slices { .. }
                | Self::Page { .. }
                | Self::Count { .. }
                | Self::PageOn { .. }
                | Self::CountOn { .. }
                | Self::Time { .. }
                | Self::ReadCurrent { .. }
                | Self::AnyOpen { .. }
                | Self::Resolve { .. }
                | Self::Export { .. }
        )
    }
}

/// What a [`Layered`] store does around every request: measures it, delays it, or loses it.
///
/// ```
/// use std::{future::Future, sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}}};
/// use distkit::{
///     RedisKey,
///     backend::{Around, BackendError, Layered, Op, memory::MemoryBackend},
///     counter::{CounterOptions, CounterTrait, StrictCounter},
/// };
///
/// #[derive(Debug, Default)]
/// struct Requests(AtomicU64);
///
/// impl Around for Requests {
///     async fn around<T: Send>(
///         &self,
///         _op: Op<'_>,
///         call: impl Future<Output = Result<T, BackendError>> + Send,
///     ) -> Result<T, BackendError> {
///         self.0.fetch_add(1, Relaxed);
///         call.await
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Layered::new(Arc::new(MemoryBackend::new()), Requests::default());
/// let options = CounterOptions::with_store(RedisKey::try_from("shop")?, Arc::new(store));
/// let counter = StrictCounter::new(options);
/// counter.inc(&RedisKey::try_from("hits")?, 1).await?;
/// assert_eq!(counter.store().layer().0.load(Relaxed), 1);
/// # Ok(()) }
/// ```
pub trait Around: fmt::Debug + Send + Sync + 'static {
    /// Answers the request `call`, which is not sent before it is polled.
    ///
    /// An error that is returned without polling it must not be [`BackendError::OutcomeUnknown`] unless the caller
    /// is meant to take the request for sent. Of a request that only reads, an unknown outcome becomes
    /// [`BackendError::NotApplied`].
    ///
    /// A caller may drop the future at any point, and `call` with it.
    ///
    /// # Errors
    ///
    /// Those of `call`, or another in the place of it.
    fn around<T: Send>(
        &self,
        op: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> impl Future<Output = Result<T, BackendError>> + Send;

    /// Returns an id in the place of the store's; `None` for the store's. No I/O.
    fn fresh_id(&self) -> Option<Arc<str>> {
        None
    }
}

/// A store with something around every request. Each half of the contract is forwarded once, here.
#[derive(Debug)]
pub struct Layered<B: ?Sized, A> {
    around: A,
    store: Arc<B>,
}

impl<B: ?Sized, A> Layered<B, A> {
    /// Puts `around` around every request to `store`.
    pub fn new(store: Arc<B>, around: A) -> Self {
        Self { around, store }
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<B> {
        &self.store
    }

    /// Returns the layer.
    pub fn layer(&self) -> &A {
        &self.around
    }
}

impl<B: ?Sized, A: Clone> Clone for Layered<B, A> {
    fn clone(&self) -> Self {
        Self { around: self.around.clone(), store: Arc::clone(&self.store) }
    }
}

/// Rule 10 holds for reads whatever the layer says.
macro_rules! send {
    ($self:ident, $op:ident { $($arg:ident),* }, $method:ident($($given:ident),*)) => {{
        let op = Op::$op { $($arg),* };
        let answer = $self.around.around(op, async { $self.store.$method($($given),*).await });
        answer.await.map_err(|error| if op.is_read() { error.with_nothing_applied() } else { error })
    }};
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<B: Backend + ?Sized, A: Around> Backend for Layered<B, A> {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        send!(self, Apply { space, writes, guard }, apply(space, writes, guard))
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        send!(self, Read { space, keys }, read(space, keys))
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        send!(self, Clear { space }, clear(space))
    }

    fn capabilities(&self) -> Capabilities<'_> {
        let store = self.store.capabilities();
        Capabilities {
            recorded: store.recorded.map(|_| self as _),
            recorded_slices: store.recorded_slices.map(|_| self as _),
            enumeration: store.enumeration.map(|_| self as _),
            slice_enumeration: store.slice_enumeration.map(|_| self as _),
            windows: store.windows.map(|_| self as _),
            tokens: store.tokens.map(|_| self as _),
            transfer: store.transfer.map(|_| self as _),
            // These would go past the layer.
            raw: None,
        }
    }

    fn fresh_id(&self) -> Arc<str> {
        self.around.fresh_id().unwrap_or_else(|| self.store.fresh_id())
    }
}

#[async_trait]
impl<B: Backend + ?Sized, A: Around> Enumeration for Layered<B, A> {
    async fn page(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<(RedisKey, Outcome<i64>)>, BackendError> {
        let store = self.store.capabilities().enumeration.ok_or_else(no_listing)?;
        let op = Op::Page { space, from, filter, count };
        let answer = self.around.around(op, store.page(space, from, filter, count)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }

    async fn count(&self, space: &Space) -> Result<u64, BackendError> {
        let store = self.store.capabilities().enumeration.ok_or_else(no_listing)?;
        let answer = self.around.around(Op::Count { space }, store.count(space)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }
}

#[async_trait]
impl<B: Backend + ?Sized, A: Around> SliceEnumeration for Layered<B, A> {
    async fn page_on(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<RedisKey>, BackendError> {
        let store = self.store.capabilities().slice_enumeration.ok_or_else(no_listing)?;
        let op = Op::PageOn { space, from, filter, count };
        let answer = self.around.around(op, store.page_on(space, from, filter, count)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }

    async fn count_on(&self, space: &Space) -> Result<u64, BackendError> {
        let store = self.store.capabilities().slice_enumeration.ok_or_else(no_listing)?;
        let answer = self.around.around(Op::CountOn { space }, store.count_on(space)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }
}

fn no_listing() -> BackendError {
    missing("listing")
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<B: InstanceBackend + ?Sized, A: Around> InstanceBackend for Layered<B, A> {
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        send!(self, Join { space, instance, slices }, join(space, instance, slices))
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        send!(
            self,
            ApplyOn { space, member, writes, sequence },
            apply_on(space, member, writes, sequence)
        )
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        send!(self, ReadOn { space, member, keys }, read_on(space, member, keys))
    }

    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        send!(self, ClearOn { space, member, scope }, clear_on(space, member, scope))
    }

    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        send!(self, Heartbeat { space, member }, heartbeat(space, member))
    }

    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        send!(self, Leave { space, member }, leave(space, member))
    }

    async fn totals(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        send!(self, Totals { space, keys }, totals(space, keys))
    }

    async fn slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        send!(self, Slices { space, key }, slices(space, key))
    }
}

#[async_trait]
impl<B: Backend + ?Sized, A: Around> RecordedAnswers for Layered<B, A> {
    async fn apply_recorded(
        &self,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError> {
        let store = self.store.capabilities().recorded.ok_or_else(no_records)?;
        let op = Op::ApplyRecorded { space, writes, lane };
        self.around.around(op, store.apply_recorded(space, writes, lane)).await
    }

    async fn clear_recorded(&self, space: &Space, lane: &ReplayGuard) -> Result<(), BackendError> {
        let store = self.store.capabilities().recorded.ok_or_else(no_records)?;
        let op = Op::ClearRecorded { space, lane };
        self.around.around(op, store.clear_recorded(space, lane)).await
    }
}

#[async_trait]
impl<B: Backend + ?Sized, A: Around> RecordedSliceAnswers for Layered<B, A> {
    async fn apply_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        lane: &ReplayGuard,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let store = self.store.capabilities().recorded_slices.ok_or_else(no_records)?;
        let op = Op::ApplyOnRecorded { space, member, writes, lane };
        self.around.around(op, store.apply_on_recorded(space, member, writes, lane)).await
    }

    async fn clear_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        lane: &ReplayGuard,
    ) -> Result<(), BackendError> {
        let store = self.store.capabilities().recorded_slices.ok_or_else(no_records)?;
        let op = Op::ClearOnRecorded { space, member, lane };
        self.around.around(op, store.clear_on_recorded(space, member, lane)).await
    }
}

#[async_trait]
impl<B: Backend + ?Sized, A: Around> SliceTransfer for Layered<B, A> {
    async fn export(&self, space: &Space, what: Export<'_>) -> Result<Part, BackendError> {
        let store = self.store.capabilities().transfer.ok_or_else(no_copies)?;
        let answer = self.around.around(Op::Export { space }, store.export(space, what)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }

    async fn import(&self, space: &Space, part: &Part) -> Result<Vec<Incarnation>, BackendError> {
        let store = self.store.capabilities().transfer.ok_or_else(no_copies)?;
        self.around.around(Op::Import { space }, store.import(space, part)).await
    }
}

fn no_copies() -> BackendError {
    missing("copies of instance-aware counters")
}

#[async_trait]
impl<B: Backend + ?Sized, A: Around> Windowing for Layered<B, A> {
    async fn time(&self, space: &Space) -> Result<Duration, BackendError> {
        let store = self.store.capabilities().windows.ok_or_else(no_windows)?;
        let answer = self.around.around(Op::Time { space }, store.time(space)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }

    async fn read_current(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let store = self.store.capabilities().windows.ok_or_else(no_windows)?;
        let op = Op::ReadCurrent { space, keys };
        let answer = self.around.around(op, store.read_current(space, keys)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }

    async fn any_open(&self, space: &Space) -> Result<bool, BackendError> {
        let store = self.store.capabilities().windows.ok_or_else(no_windows)?;
        let answer = self.around.around(Op::AnyOpen { space }, store.any_open(space)).await;
        answer.map_err(BackendError::with_nothing_applied)
    }

    async fn expire_idle(&self, space: &Space) -> Result<Option<Duration>, BackendError> {
        let store = self.store.capabilities().windows.ok_or_else(no_windows)?;
        self.around.around(Op::ExpireIdle { space }, store.expire_idle(space)).await
    }
}

fn no_windows() -> BackendError {
    missing("windows")
}

fn no_records() -> BackendError {
    missing("recorded answers")
}

/// A dyn-compatible [`Around`], for layers that are chosen at run time.
pub trait DynAround: fmt::Debug + Send + Sync + 'static {
    /// Does as [`Around::around`], without the answer, which stays with the caller.
    ///
    /// # Errors
    ///
    /// Those of `call`, or another in the place of it.
    fn around_dyn<'a>(
        &'a self,
        op: Op<'a>,
        call: Pin<&'a mut (dyn Future<Output = Result<(), BackendError>> + Send + 'a)>,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Does as [`Around::fresh_id`].
    fn fresh_id_dyn(&self) -> Option<Arc<str>>;
}

impl<A: Around> DynAround for A {
    fn around_dyn<'a>(
        &'a self,
        op: Op<'a>,
        call: Pin<&'a mut (dyn Future<Output = Result<(), BackendError>> + Send + 'a)>,
    ) -> BoxFuture<'a, Result<(), BackendError>> {
        Box::pin(self.around(op, call))
    }

    fn fresh_id_dyn(&self) -> Option<Arc<str>> {
        self.fresh_id()
    }
}

impl Around for Arc<dyn DynAround> {
    async fn around<T: Send>(
        &self,
        op: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let mut answer = None;
        {
            let call = pin!(async {
                answer = Some(call.await?);
                Ok(())
            });
            (**self).around_dyn(op, call).await?;
        }
        answer.ok_or_else(|| BackendError::outcome_unknown("a layer made up an answer"))
    }

    fn fresh_id(&self) -> Option<Arc<str>> {
        (**self).fresh_id_dyn()
    }
}
