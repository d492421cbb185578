use std::{
    fmt,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use super::MemoryBackend;
use crate::{
    RedisKey,
    backend::{
        Applied, Backend, BackendError, Instance, InstanceSlice, Joined, Member, Ordered, Outcome,
        ReplayGuard, Scope, Slice, SliceWrite, Space, Standing, Write, Written,
    },
};

/// What went wrong on a [`MemoryLink`]: the [`Cause`](crate::backend::Cause) inside the
/// [`BackendError`] that the caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkFault {
    /// The link was cut when the request was to be sent. Nothing was applied.
    #[error("the link is cut")]
    Cut,
    /// The store denied the request, as a Redis does to a user without the right. Nothing was applied.
    #[error("the store denies the request")]
    Denied,
    /// The link was cut while the request was under way. It was applied if it had reached the store.
    #[error("the link was cut while a request was under way")]
    CutUnderWay,
    /// The request got lost. Nothing was applied, but the caller cannot know.
    #[error("the request got lost")]
    RequestLost,
    /// The reply got lost. The request was applied, but the caller cannot know.
    #[error("the reply got lost")]
    ReplyLost,
}

/// One client's way to a [`MemoryBackend`], with faults of its own.
///
/// Every link of a store sees the same data. A clone is the same link: it shares the faults and the
/// count of requests. A link starts whole, with no latency, and then answers at once, without
/// yielding to the runtime; with a latency it sleeps on tokio's timer. Where a request or a reply is
/// lost, a plain [`read`](Backend::read) fails with [`BackendError::NotApplied`], for it changes nothing,
/// and everything else with [`BackendError::OutcomeUnknown`].
///
/// ```
/// use std::time::Duration;
/// use distkit::{RedisKey, backend::{Backend, BackendError, Space, Write, memory::MemoryBackend}};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryBackend::new();
/// let (alice, bob) = (store.link(), store.link());
/// let space = Space::new(RedisKey::try_from("shop")?);
/// let key = RedisKey::try_from("hits")?;
///
/// alice.lose_next_replies(1);
/// let lost = alice.apply(&space, &[Write::add(key.clone(), 1)], None).await;
/// assert!(matches!(lost, Err(BackendError::OutcomeUnknown(_))));
///
/// alice.cut();
/// let cut = alice.apply(&space, &[Write::add(key.clone(), 1)], None).await;
/// assert!(matches!(cut, Err(BackendError::NotApplied(_))));
///
/// bob.set_latency(Duration::from_millis(10));
/// assert_eq!(bob.read(&space, &[key]).await?, [Ok(1)]);
/// assert_eq!((alice.requests(), bob.requests()), (2, 1));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryLink {
    shared: Arc<Shared>,
}

struct Shared {
    store: MemoryBackend,
    line: Mutex<Line>,
    /// Tells requests under way of a cut, also when the link is whole again by the time they run; in the
    /// order in which they were sent, which a `watch` channel would not keep.
    cuts: Notify,
}

#[derive(Debug, Default)]
struct Line {
    cut: bool,
    latency: Duration,
    denied: bool,
    requests_to_lose: usize,
    replies_to_lose: usize,
    requests: u64,
}

/// What will become of a request that was sent.
struct Trip<'l> {
    latency: Duration,
    lost: Option<LinkFault>,
    denied: bool,
    /// Hears of each cut from the moment that it was made.
    cut: Notified<'l>,
}

impl MemoryLink {
    pub(super) fn new(store: MemoryBackend) -> Self {
        Self { shared: Arc::new(Shared { store, line: Mutex::default(), cuts: Notify::new() }) }
    }

    /// Makes the store deny all requests of this link, as an ACL does, or accept them again. A denied request
    /// changes nothing and fails with [`BackendError::NotApplied`].
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{Backend, BackendError, Space, Write, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryBackend::new();
    /// let link = store.link();
    /// let (space, hits) = (Space::new(RedisKey::try_from("shop")?), RedisKey::try_from("hits")?);
    /// link.set_denied(true);
    /// let denied = link.apply(&space, &[Write::add(hits.clone(), 1)], None).await;
    /// assert!(matches!(denied, Err(BackendError::NotApplied(_))));
    /// assert_eq!(store.read(&space, &[hits]).await?, [Ok(0)]);
    /// # Ok(()) }
    /// ```
    pub fn set_denied(&self, denied: bool) {
        self.shared.line.lock().denied = denied;
    }

    /// The store at the other end.
    pub fn store(&self) -> &MemoryBackend {
        &self.shared.store
    }

    /// Cuts the link. Until [`restore`](Self::restore) every request fails with
    /// [`BackendError::NotApplied`]; those under way fail at once with
    /// [`BackendError::OutcomeUnknown`], and those of them that had not reached the store never will.
    pub fn cut(&self) {
        let mut line = self.shared.line.lock();
        line.cut = true;
        self.shared.cuts.notify_waiters();
    }

    /// Makes the link whole again. Latency and losses stay as they were set.
    pub fn restore(&self) {
        self.shared.line.lock().cut = false;
    }

    /// Whether the link is cut.
    pub fn is_cut(&self) -> bool {
        self.shared.line.lock().cut
    }

    /// Sets how long a request sent from now on takes, there and back: half of it passes before the
    /// store applies it, half after. A sleep under paused time rounds up to a millisecond, so each half
    /// should be whole milliseconds. 0 at first.
    pub fn set_latency(&self, round_trip: Duration) {
        self.shared.line.lock().latency = round_trip;
    }

    /// Loses the next `count` requests on their way to the store: nothing is applied, and after the
    /// latency the caller gets [`BackendError::OutcomeUnknown`]. Replaces an earlier count; 0 ends it.
    /// A request refused because the link is cut was never sent and does not count.
    pub fn lose_next_requests(&self, count: usize) {
        self.shared.line.lock().requests_to_lose = count;
    }

    /// Loses the replies to the next `count` requests that reach the store: they are applied, and after
    /// the latency the caller gets [`BackendError::OutcomeUnknown`]. Replaces an earlier count; 0 ends
    /// it. Requests lost by [`lose_next_requests`](Self::lose_next_requests) go first and do not count.
    pub fn lose_next_replies(&self, count: usize) {
        self.shared.line.lock().replies_to_lose = count;
    }

    /// How many requests were made over this link, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.shared.line.lock().requests
    }

    /// Takes `request` to the store and its answer back, through all the faults.
    pub(super) async fn send<T>(
        &self,
        request: impl FnOnce(&MemoryBackend) -> T,
    ) -> Result<T, BackendError> {
        let Trip { latency, lost, denied, cut } = self.depart()?;
        let mut cut = pin!(cut);
        let there = latency / 2;
        let back = latency - there;
        travel(there, cut.as_mut()).await?;
        if lost == Some(LinkFault::RequestLost) {
            travel(back, cut).await?;
            return Err(BackendError::outcome_unknown(LinkFault::RequestLost));
        }
        let answer = if denied {
            Err(BackendError::not_applied(LinkFault::Denied))
        } else {
            Ok(request(&self.shared.store))
        };
        travel(back, cut).await?;
        match lost {
            Some(fault) => Err(BackendError::outcome_unknown(fault)),
            None => answer,
        }
    }

    fn depart(&self) -> Result<Trip<'_>, BackendError> {
        let mut line = self.shared.line.lock();
        line.requests += 1;
        if line.cut {
            return Err(BackendError::not_applied(LinkFault::Cut));
        }
        let lost = if take(&mut line.requests_to_lose) {
            Some(LinkFault::RequestLost)
        } else if take(&mut line.replies_to_lose) {
            Some(LinkFault::ReplyLost)
        } else {
            None
        };
        Ok(Trip {
            latency: line.latency,
            lost,
            denied: line.denied,
            cut: self.shared.cuts.notified(),
        })
    }
}

/// A read changes no counter, so there is nothing that the caller could not know.
fn of_a_read(error: BackendError) -> BackendError {
    match error {
        BackendError::OutcomeUnknown(cause) => BackendError::NotApplied(cause),
        error => error,
    }
}

/// Takes one off `count`, if there is one.
fn take(count: &mut usize) -> bool {
    let left = count.checked_sub(1);
    *count = left.unwrap_or(0);
    left.is_some()
}

async fn travel(time: Duration, cut: Pin<&mut Notified<'_>>) -> Result<(), BackendError> {
    if time.is_zero() {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = cut => Err(BackendError::outcome_unknown(LinkFault::CutUnderWay)),
        () = tokio::time::sleep(time) => Ok(()),
    }
}

impl fmt::Debug for MemoryLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLink")
            .field("line", &*self.shared.line.lock())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for MemoryLink {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        self.send(|store| store.apply_now(space, writes, guard)).await?
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.send(|store| store.read_now(space, keys)).await.map_err(of_a_read)
    }

    async fn remove(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.send(|store| store.remove_now(space, keys)).await
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        self.send(|store| store.clear_now(space)).await
    }

    fn fresh_id(&self) -> Arc<str> {
        self.shared.store.fresh_id()
    }
}

#[async_trait]
impl crate::backend::InstanceBackend for MemoryLink {
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        self.send(|store| store.members(space, |members, ms| members.join(ms, instance, slices)))
            .await?
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        self.send(|store| {
            store.members(space, |members, ms| members.apply(ms, member, writes, sequence))
        })
        .await?
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        self.send(|store| store.members(space, |members, ms| members.read(ms, member, keys)))
            .await
            .map_err(of_a_read)?
    }

    async fn remove_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
        scope: Scope,
    ) -> Result<Ordered<Vec<Outcome<Written<Standing>>>>, BackendError> {
        self.send(|store| {
            store.members(space, |members, ms| members.remove(ms, member, keys, scope))
        })
        .await?
    }

    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        self.send(|store| store.members(space, |members, ms| members.clear(ms, member, scope)))
            .await?
    }

    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.send(|store| store.members(space, |members, ms| members.heartbeat(ms, member))).await?
    }

    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.send(|store| store.members(space, |members, _| members.leave(member))).await
    }

    async fn slices_on(
        &self,
        space: &Space,
        member: &Member,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        self.send(|store| store.members(space, |members, ms| members.slices(ms, member, key)))
            .await
            .map_err(of_a_read)?
    }
}
