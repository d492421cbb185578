use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, futures::Notified};

use super::MemoryBackend;
use crate::backend::{Around, BackendError, Layered, Op, Space};

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
    /// The store refuses writes, as a Redis does whose disk is full. Nothing was applied.
    #[error("the store takes no writes")]
    WritesRefused,
    /// The link was cut while the request was in flight. It was applied if it had reached the store.
    #[error("the link was cut while a request was in flight")]
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
/// lost, a plain [`read`](crate::backend::Backend::read) fails with [`BackendError::NotApplied`], for it changes nothing,
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
pub type MemoryLink = Layered<MemoryBackend, Line>;

/// What happens to the requests of a [`MemoryLink`]. Its clones share the faults and the count of requests.
#[derive(Clone)]
pub struct Line(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// What happens besides to the requests of single shards.
    shards: Mutex<BTreeMap<u16, Line>>,
    /// Ends requests in flight at a cut, also when the link is whole again by the time they run; in the
    /// order in which they were sent, which a `watch` channel would not keep.
    cuts: Notify,
}

#[derive(Debug, Default)]
struct State {
    cut: bool,
    latency: Duration,
    denied: bool,
    writes_refused: bool,
    requests_to_lose: usize,
    replies_to_lose: usize,
    requests: u64,
}

/// What will become of a request that was sent.
struct Trip<'l> {
    latency: Duration,
    lost: Option<LinkFault>,
    denied: bool,
    writes_refused: bool,
    /// Hears of each cut from the moment that it was made.
    cut: Notified<'l>,
}

impl MemoryLink {
    pub(super) fn to(store: MemoryBackend) -> Self {
        Self::new(Arc::new(store), Line::whole())
    }

    /// Returns the controls of the requests of one shard, besides those of all of them: it can be cut, slowed
    /// or made to lose messages by itself, as when one node of a cluster is down. A prefix of one shard has shard 0.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{Space, memory::MemoryBackend}};
    /// # use distkit::counter::{CounterOptions, CounterTrait, StrictCounter};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// let link = MemoryBackend::new().link();
    /// let options = CounterOptions::new(RedisKey::try_from("shop")?, link.clone()).shards(8);
    /// let counter = StrictCounter::new(options);
    /// let (apples, pears) = (RedisKey::try_from("apples")?, RedisKey::try_from("pears")?);
    /// link.shard(Space::shard_of(&apples, 8)).cut();
    /// assert!(counter.inc(&apples, 1).await.is_err());
    /// assert_eq!(counter.inc(&pears, 1).await?, 1);
    /// # Ok(()) }
    /// ```
    pub fn shard(&self, shard: u16) -> Line {
        self.layer().shard(shard)
    }

    /// Cuts the link to the shards of the prefix that are on one of `nodes` nodes, counted from 0, among which the
    /// slots are divided evenly.
    pub fn cut_node(&self, shards: &[Space], node: u16, nodes: u16) {
        self.on_node(shards, node, nodes).for_each(|line| line.cut());
    }

    /// Makes the links to these shards whole again.
    pub fn restore_node(&self, shards: &[Space], node: u16, nodes: u16) {
        self.on_node(shards, node, nodes).for_each(|line| line.restore());
    }

    fn on_node(&self, shards: &[Space], node: u16, nodes: u16) -> impl Iterator<Item = Line> {
        let there = move |space: &&Space| {
            u32::from(space.slot()) * u32::from(nodes) / 16_384 == u32::from(node)
        };
        shards.iter().filter(there).map(|space| self.shard(space.shard()))
    }

    /// Makes the store deny all requests of this link, or accept them again: see [`Line::set_denied`].
    pub fn set_denied(&self, denied: bool) {
        self.layer().set_denied(denied);
    }

    /// Makes the store refuse writes of this link, or take them again: see [`Line::set_writes_refused`].
    pub fn set_writes_refused(&self, refused: bool) {
        self.layer().set_writes_refused(refused);
    }

    /// Cuts the link: see [`Line::cut`].
    pub fn cut(&self) {
        self.layer().cut();
    }

    /// Makes the link whole again. Latency and losses stay as they were set, and so do the links to single shards.
    pub fn restore(&self) {
        self.layer().restore();
    }

    /// Returns whether the link is cut.
    pub fn is_cut(&self) -> bool {
        self.layer().is_cut()
    }

    /// Sets how long a request sent from now on takes, there and back: see [`Line::set_latency`].
    pub fn set_latency(&self, round_trip: Duration) {
        self.layer().set_latency(round_trip);
    }

    /// Loses the next `count` requests on their way to the store: see [`Line::lose_next_requests`].
    pub fn lose_next_requests(&self, count: usize) {
        self.layer().lose_next_requests(count);
    }

    /// Loses the replies to the next `count` requests that reach the store: see [`Line::lose_next_replies`].
    pub fn lose_next_replies(&self, count: usize) {
        self.layer().lose_next_replies(count);
    }

    /// Returns how many requests were made over this link, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.layer().requests()
    }
}

/// The faults of a link, or of a link to one shard.
impl Line {
    fn whole() -> Self {
        let (state, shards) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { state, shards, cuts: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    fn shard(&self, shard: u16) -> Self {
        self.0.shards.lock().entry(shard).or_insert_with(Self::whole).clone()
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
        self.state().denied = denied;
    }

    /// Makes the store refuse the writes of this link and answer its reads, as a Redis does whose disk or memory is full,
    /// or that was demoted to a replica; or take writes again. A refused write changes nothing and fails with
    /// [`BackendError::NotApplied`]: see [`BackendError::writes_refused`].
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{Backend, Space, Write, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let link = MemoryBackend::new().link();
    /// let (space, hits) = (Space::new(RedisKey::try_from("shop")?), RedisKey::try_from("hits")?);
    /// link.set_writes_refused(true);
    /// let refused = link.apply(&space, &[Write::add(hits.clone(), 1)], None).await;
    /// assert!(refused.is_err_and(|error| error.refuses_writes()));
    /// assert_eq!(link.read(&space, &[hits]).await?, [Ok(0)]);
    /// # Ok(()) }
    /// ```
    pub fn set_writes_refused(&self, refused: bool) {
        self.state().writes_refused = refused;
    }

    /// Cuts the link. Until [`restore`](Self::restore) every request fails with
    /// [`BackendError::NotApplied`]; those in flight fail at once with
    /// [`BackendError::OutcomeUnknown`], and those of them that had not reached the store never will.
    pub fn cut(&self) {
        let mut state = self.state();
        state.cut = true;
        self.0.cuts.notify_waiters();
    }

    /// Makes the link whole again. Latency and losses stay as they were set.
    pub fn restore(&self) {
        self.state().cut = false;
    }

    /// Returns whether the link is cut.
    pub fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// Sets how long a request sent from now on takes, there and back: half of it passes before the
    /// store applies it, half after. A sleep under paused time rounds up to a millisecond, so each half
    /// should be whole milliseconds. 0 at first.
    pub fn set_latency(&self, round_trip: Duration) {
        self.state().latency = round_trip;
    }

    /// Loses the next `count` requests on their way to the store: nothing is applied, and after the
    /// latency the caller gets [`BackendError::OutcomeUnknown`]. Replaces an earlier count; 0 ends it.
    /// A request refused because the link is cut was never sent and does not count.
    pub fn lose_next_requests(&self, count: usize) {
        self.state().requests_to_lose = count;
    }

    /// Loses the replies to the next `count` requests that reach the store: they are applied, and after
    /// the latency the caller gets [`BackendError::OutcomeUnknown`]. Replaces an earlier count; 0 ends
    /// it. Requests lost by [`lose_next_requests`](Self::lose_next_requests) go first and do not count.
    pub fn lose_next_replies(&self, count: usize) {
        self.state().replies_to_lose = count;
    }

    /// Returns how many requests were made over this link, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }
}

impl Around for Line {
    /// Takes the request to the store and its answer back, through all the faults.
    async fn around<T: Send>(
        &self,
        op: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let shard = self.0.shards.lock().get(&op.space().shard()).cloned();
        match shard {
            Some(shard) => self.take(op, shard.take(op, call)).await,
            None => self.take(op, call).await,
        }
    }
}

impl Line {
    async fn take<T: Send>(
        &self,
        op: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let Trip { latency, lost, denied, writes_refused, cut } = self.depart()?;
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
        } else if writes_refused && !op.is_read() {
            Err(BackendError::writes_refused(LinkFault::WritesRefused))
        } else {
            call.await
        };
        travel(back, cut).await?;
        match lost {
            Some(fault) => Err(BackendError::outcome_unknown(fault)),
            None => answer,
        }
    }

    fn depart(&self) -> Result<Trip<'_>, BackendError> {
        let mut line = self.0.state.lock();
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
        let State { latency, denied, writes_refused, .. } = *line;
        Ok(Trip { latency, lost, denied, writes_refused, cut: self.0.cuts.notified() })
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

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Line").field(&*self.0.state.lock()).finish()
    }
}
