use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{OwnedRwLockReadGuard, RwLock, RwLockWriteGuard},
    time::Instant,
};
use tracing::Instrument;

use super::{
    acknowledged::{Acknowledged, UnderWay},
    heartbeat::{Beating, Heartbeats, Leased},
    in_flight::InFlight,
};
use crate::{
    DistkitError, RedisKey,
    backend::{
        Applied, BackendError, Incarnation, Instance, InstanceBackend, InstanceSlice, Member,
        Ordered, Outcome, Scope, Slice, SliceWrite, Standing,
    },
    counts::Counts,
    shards::Shards,
    space_store::SpaceStore,
    stats::Count,
    strict::Sender,
};

/// How often one operation joins again before it gives up: a lease shorter than a round trip would
/// otherwise keep it busy for ever.
const MAX_JOINS: usize = 4;

/// One instance's registration with the store: joins when needed, keeps the lease alive, and remembers
/// the acknowledged slices that it puts back when it was away.
pub(crate) struct Membership<B: ?Sized> {
    store: SpaceStore<B>,
    id: Arc<str>,
    lease: Duration,
    /// Operations hold it shared, a join exclusively: no operation is in flight while slices are
    /// claimed, so that none that was acknowledged is missing from the claim.
    state: Arc<RwLock<State>>,
    in_flight: InFlight,
    instance: Arc<InAllShards>,
    acknowledged: Mutex<Acknowledged>,
    /// The latest version of this incarnation that was answered.
    latest: AtomicU64,
    /// When the last operation was sent that was answered, in microseconds since `made`, and 1; 0 before the first.
    answered: AtomicU64,
    made: Instant,
    /// It was joined once.
    has_joined: AtomicBool,
    beating: Mutex<Option<Beating>>,
}

/// What an instance is in all shards of its prefix.
struct InAllShards {
    shards: u16,
    /// Set once. What is in flight then goes on; nothing joins any more, or renews the lease.
    ended: OnceLock<Ended>,
    /// The incarnation of its first join, in whichever shard: a namesake that joined later is newer in all of them.
    first_joined: OnceLock<Incarnation>,
    heartbeats: Heartbeats,
}

struct State {
    instance: Instance,
    member: Option<Member>,
}

/// What a store answers an operation of an instance with.
trait Numbered {
    /// The version of the answer, if it has one.
    fn version(&self) -> Option<u64> {
        None
    }
}

impl<T> Numbered for Ordered<T> {
    fn version(&self) -> Option<u64> {
        Some(self.version)
    }
}

impl Numbered for () {}

#[derive(Clone, Copy)]
enum Ended {
    Left,
    Replaced,
}

/// A joined member, at work. No join happens while it is held.
struct Seat {
    member: OwnedRwLockReadGuard<State, Member>,
    /// The latest version that was answered before the operation began.
    seen: u64,
    begun: Instant,
    _under_way: UnderWay,
}

impl Deref for Seat {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.member
    }
}

impl<B: InstanceBackend + ?Sized> Membership<B> {
    /// The memberships in each shard, of which none is joined yet.
    pub(crate) fn in_shards(
        stores: &Shards<SpaceStore<B>>,
        instance: &Instance,
    ) -> Shards<Arc<Self>> {
        let all = Arc::new(InAllShards {
            shards: stores.number(),
            ended: OnceLock::new(),
            first_joined: OnceLock::new(),
            heartbeats: Heartbeats::default(),
        });
        stores.map(|store| Self::new(store.clone(), instance.clone(), Arc::clone(&all)))
    }

    fn new(store: SpaceStore<B>, instance: Instance, all: Arc<InAllShards>) -> Arc<Self> {
        Arc::new(Self {
            store,
            id: Arc::clone(&instance.id),
            lease: instance.lease,
            state: Arc::new(RwLock::new(State { instance, member: None })),
            in_flight: InFlight::default(),
            has_joined: AtomicBool::new(false),
            instance: all,
            acknowledged: Mutex::default(),
            latest: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            made: Instant::now(),
            beating: Mutex::default(),
        })
    }

    pub(crate) fn store(&self) -> &B {
        self.store.store()
    }

    pub(crate) fn counts(&self) -> &Counts {
        self.store.counts()
    }

    pub(crate) fn prefix(&self) -> &RedisKey {
        self.store.prefix()
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    async fn seat(self: &Arc<Self>) -> Result<Seat, DistkitError> {
        loop {
            let state = match Arc::clone(&self.state).try_read_owned() {
                Ok(state) => state,
                Err(_) => {
                    let state = Arc::clone(&self.state).read_owned();
                    Box::pin(self.in_flight.wait(state, self.patience())).await
                }
            };
            self.check()?;
            if let Ok(member) = OwnedRwLockReadGuard::try_map(state, |state| state.member.as_ref())
            {
                self.keep_alive();
                let under_way = self.acknowledged.lock().begin();
                let seen = self.latest.load(Ordering::Relaxed);
                return Ok(Seat { member, seen, begun: Instant::now(), _under_way: under_way });
            }
            self.join_unless_joined_since(None, false).await?;
        }
    }

    /// Fails when the instance has left, or has been replaced.
    pub(crate) fn check(&self) -> Result<(), DistkitError> {
        match self.instance.ended.get() {
            None => Ok(()),
            Some(Ended::Left) => Err(DistkitError::ShutDown),
            Some(Ended::Replaced) => Err(DistkitError::InstanceReplaced),
        }
    }

    /// A joined member, with no other operation of this instance in flight.
    async fn exclusive(self: &Arc<Self>) -> Result<Exclusive<'_, B>, DistkitError> {
        let state = self.write().await;
        self.check()?;
        if state.member.is_some() {
            self.keep_alive();
        }
        Ok(Exclusive { membership: self, state })
    }

    /// Joins, unless somebody did so since the incarnation `gone` was turned away, or since there was none.
    /// `collected`: the store did not know it any longer.
    async fn join_unless_joined_since(
        self: &Arc<Self>,
        gone: Option<Incarnation>,
        collected: bool,
    ) -> Result<(), DistkitError> {
        let membership = Arc::clone(self);
        let interrupted = BackendError::not_applied("the runtime ended while the instance joined");
        self.alone(interrupted, async move {
            let mut state = membership.write().await;
            if state.member.as_ref().map(|member| member.incarnation) == gone {
                // Under the lock: of all that were turned away, one counts it.
                membership.counts().add(Count::Collected, usize::from(collected));
                membership.join(&mut state).await?;
            }
            Ok(())
        })
        .await
    }

    /// Does what keeps all operations of the instance out. In a task: a caller's future that is held without
    /// being polled must not keep them out.
    #[cold]
    fn alone<'a>(
        &'a self,
        interrupted: BackendError,
        work: impl Future<Output = Result<(), DistkitError>> + Send + 'static,
    ) -> BoxFuture<'a, Result<(), DistkitError>> {
        let done = self.in_flight.in_task(work);
        Box::pin(async move { done.await.unwrap_or_else(|| Err(interrupted.into())) })
    }

    /// Waits until no operation of the instance is in flight.
    async fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.in_flight.wait(self.state.write(), self.patience()).await
    }

    /// How long what is in others' way may give no sign of life.
    fn patience(&self) -> Duration {
        (self.lease / 10).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// Runs an operation as a joined member; joins first, or again, where the store asks for it.
    ///
    /// No join happens until `done` has taken in the answer, so that it cannot miss it. If the caller holds its
    /// future without polling it while others have to join, they cancel it.
    async fn as_member<A, T>(
        self: &Arc<Self>,
        call: impl Fn(Arc<Self>, Member) -> BoxFuture<'static, Result<A, BackendError>>,
        done: impl FnOnce(&Self, A) -> T + Clone + Send + 'static,
        interrupted: fn(&'static str) -> BackendError,
    ) -> Result<T, DistkitError>
    where
        A: Numbered + Send + 'static,
        T: Send + 'static,
    {
        let mut joins = 0;
        loop {
            let seat = self.seat().await?;
            let call = call(Arc::clone(self), Member::clone(&seat));
            let (membership, done) = (Arc::clone(self), done.clone());
            let attempt = async move {
                let answer = call.await;
                if joins < MAX_JOINS && membership.must_rejoin(&seat, &answer) {
                    return Err((seat.incarnation, answer.is_err()));
                }
                Ok(answer.map(|answer| done(&membership, answer)))
            };
            match self.in_flight.here(attempt).await {
                Some(Ok(answer)) => return Ok(answer?),
                Some(Err((gone, collected))) => {
                    joins += 1;
                    self.join_unless_joined_since(Some(gone), collected).await?;
                }
                None => {
                    return Err(
                        interrupted("the call was not polled while others had to join").into()
                    );
                }
            }
        }
    }

    async fn join(self: &Arc<Self>, state: &mut State) -> Result<(), DistkitError> {
        self.check()?;
        let claim = self.acknowledged.lock().claim();
        let rejoins = self.has_joined.load(Ordering::Acquire);
        if !rejoins {
            // Of another shard, if it was the first.
            state.instance.first_joined = self.instance.first_joined.get().copied();
        }
        let span = tracing::debug_span!(
            target: "distkit::instances",
            "join",
            prefix = self.prefix().as_str(),
            shard = self.counts().shard(),
            instance = self.id(),
            slices = claim.len()
        );
        let begun = Instant::now();
        let join = self.store.join(&state.instance, &claim, self.last_answered());
        let joined = match join.instrument(span).await {
            Ok(joined) => joined,
            Err(BackendError::Replaced) => {
                state.member = None;
                self.instance.ended.get_or_init(|| Ended::Replaced);
                return Err(DistkitError::InstanceReplaced);
            }
            Err(error) => {
                state.member = None;
                // The operation that needs the membership has not been sent.
                return Err(error.with_nothing_applied().into());
            }
        };
        self.counts().add(Count::Joins, 1);
        self.note_answered(begun);
        if rejoins {
            let stays = |(claim, standing): &(&Slice, &Outcome<Standing>)| {
                standing.as_ref().is_ok_and(|standing| standing.slice == claim.value)
            };
            tracing::info!(
                target: "distkit::instances",
                prefix = self.prefix().as_str(), shard = self.counts().shard(),
                instance = self.id(), slices = claim.len(),
                put_back = claim.iter().zip(&joined.standings).filter(stays).count(),
                "rejoined"
            );
        }
        let first = *self.instance.first_joined.get_or_init(|| joined.incarnation);
        state.instance.first_joined.get_or_insert(first);
        // Before its first slice, which no look from outside may take for another's.
        self.has_joined.store(true, Ordering::Release);
        state.member = Some(Member { incarnation: joined.incarnation, lease: self.lease });
        self.latest.store(0, Ordering::Relaxed);
        self.acknowledged.lock().restored(&claim, &joined.standings);
        // It may have left meanwhile. The member is noted all the same, so that it can leave again.
        self.check()?;
        self.keep_alive();
        Ok(())
    }

    /// Whether the operation is to be done again as another incarnation: this one is not joined, or the store lost
    /// what it had answered it, and what it has just done goes with the old slices.
    fn must_rejoin<T: Numbered>(&self, seat: &Seat, answer: &Result<T, BackendError>) -> bool {
        match answer {
            Ok(answer) => {
                let went_back = self.went_back(seat, answer);
                if !went_back {
                    self.note_answered(seat.begun);
                }
                went_back
            }
            Err(error) => matches!(error, BackendError::NotJoined),
        }
    }

    /// Notes that what was sent then was answered.
    fn note_answered(&self, sent: Instant) {
        let micros = sent.saturating_duration_since(self.made).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX - 1);
        self.answered.fetch_max(micros + 1, Ordering::Relaxed);
    }

    /// When the last operation was sent that was answered: what was lost since, it may have lost.
    fn last_answered(&self) -> Option<Instant> {
        let micros = self.answered.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.made + Duration::from_micros(micros))
    }

    /// Whether the answer has a lower version than one that came before the operation: the store lost what it had
    /// answered since, as in a failover to a replica that was behind.
    fn went_back(&self, seat: &Seat, answer: &impl Numbered) -> bool {
        let Some(version) = answer.version() else { return false };
        let went_back = version <= seat.seen;
        if went_back {
            tracing::warn!(
                target: "distkit::instances",
                prefix = self.prefix().as_str(), shard = self.counts().shard(),
                instance = self.id(), version, seen = seat.seen,
                "the store lost acknowledged operations; rejoining with the acknowledged slices"
            );
            self.store.went_back(self.last_answered());
        } else {
            self.latest.fetch_max(version, Ordering::Relaxed);
        }
        went_back
    }

    /// Does each write, under the `sequence` once in the life of the incarnation.
    pub(crate) async fn apply(
        self: &Arc<Self>,
        writes: &[SliceWrite],
        sequence: u64,
    ) -> Result<Applied<Standing>, DistkitError> {
        self.apply_through(writes, move |membership, member, writes| {
            Box::pin(
                async move { membership.store.apply_on(&member, &writes, Some(sequence)).await },
            )
        })
        .await
    }

    /// Does each write once: sent again until they are answered, or the deadline.
    ///
    /// The same request, by the same incarnation, is sent again until the store answers it, or that the incarnation is
    /// not joined; only then the instance rejoins.
    pub(crate) async fn apply_once(
        self: &Arc<Self>,
        writes: &[SliceWrite],
        sender: &Arc<Sender>,
        deadline: Option<Instant>,
    ) -> Result<Applied<Standing>, DistkitError> {
        let sender = Arc::clone(sender);
        self.apply_through(writes, move |membership, member, writes| {
            let sender = Arc::clone(&sender);
            Box::pin(async move {
                let store = &membership.store;
                store.apply_on_once(&member, &writes, &sender, deadline).await
            })
        })
        .await
    }

    /// Does each write through `call`, and takes in how they left the keys.
    async fn apply_through(
        self: &Arc<Self>,
        writes: &[SliceWrite],
        call: impl Fn(
            Arc<Self>,
            Member,
            Arc<[SliceWrite]>,
        ) -> BoxFuture<'static, Result<Ordered<Applied<Standing>>, BackendError>>,
    ) -> Result<Applied<Standing>, DistkitError> {
        let writes: Arc<[SliceWrite]> = writes.into();
        let noted = Arc::clone(&writes);
        self.as_member(
            move |membership, member| call(membership, member, Arc::clone(&writes)),
            move |membership, ordered: Ordered<Applied<Standing>>| {
                let mut acknowledged = membership.acknowledged.lock();
                for (write, outcome) in noted.iter().zip(&ordered.answer.outcomes) {
                    if let Ok(written) = outcome {
                        acknowledged.note(&write.key, ordered.version, &written.new);
                    }
                }
                ordered.answer
            },
            BackendError::outcome_unknown,
        )
        .await
    }

    /// Reads how each key stands. Of several shards, one is not joined for that.
    pub(crate) async fn read(
        self: &Arc<Self>,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<Standing>>, DistkitError> {
        if self.may_look_on() {
            self.check()?;
            let totals = self.store.totals(keys).await?;
            // Else its first slice may be among them.
            if self.may_look_on() {
                let no_slice = |total| Standing { total, ..Standing::default() };
                return Ok(totals.into_iter().map(|total| total.map(no_slice)).collect());
            }
        }
        let keys: Arc<[RedisKey]> = keys.into();
        let noted = Arc::clone(&keys);
        self.as_member(
            move |membership, member| {
                let keys = Arc::clone(&keys);
                Box::pin(async move { membership.store.read_on(&member, &keys).await })
            },
            move |membership, ordered: Ordered<Vec<Outcome<Standing>>>| {
                let mut acknowledged = membership.acknowledged.lock();
                for (key, standing) in noted.iter().zip(&ordered.answer) {
                    if let Ok(standing) = standing {
                        acknowledged.note_read(key, ordered.version, standing);
                    }
                }
                ordered.answer
            },
            BackendError::not_applied,
        )
        .await
    }

    /// The store, for what needs no membership, while the instance has not ended.
    pub(crate) fn space_store(&self) -> Result<&SpaceStore<B>, DistkitError> {
        self.check()?;
        Ok(&self.store)
    }

    pub(crate) async fn count(&self) -> Result<u64, DistkitError> {
        Ok(self.space_store()?.count_on().await?)
    }

    /// The slices of all living instances. Needs no membership.
    pub(crate) async fn slices(&self, key: &RedisKey) -> Result<Vec<InstanceSlice>, DistkitError> {
        self.check()?;
        Ok(self.store.slices(key).await?)
    }

    /// Removes every counter of the space, or this instance's slices, and forgets them. No other operation of this
    /// instance is in flight meanwhile. With a sender and a deadline it is sent again until it is answered.
    pub(crate) async fn clear(
        self: &Arc<Self>,
        scope: Scope,
        once: Option<(Arc<Sender>, Instant)>,
    ) -> Result<(), DistkitError> {
        if scope == Scope::Slice && !self.has_joined().await? {
            return Ok(());
        }
        let membership = Arc::clone(self);
        let interrupted = BackendError::outcome_unknown("the runtime ended before the answer came");
        self.alone(
            interrupted,
            async move { membership.exclusive().await?.clear(scope, once).await },
        )
        .await
    }

    /// Whether it has no slice in this shard, and need not join for a read.
    fn may_look_on(&self) -> bool {
        self.instance.shards > 1 && !self.has_joined.load(Ordering::Acquire)
    }

    /// Whether it may have slices in this shard. Where there is one shard only, the first operation joins, whatever it
    /// is.
    async fn has_joined(&self) -> Result<bool, DistkitError> {
        if self.instance.shards == 1 {
            return Ok(true);
        }
        self.check()?;
        // A join in flight is waited for.
        let _state = self.in_flight.wait(self.state.read(), self.patience()).await;
        Ok(self.has_joined.load(Ordering::Acquire))
    }

    /// Starts the heartbeat, unless it runs: it ends with the runtime that it was started on, and is replaced by one
    /// on the caller's when that one is not driven any longer. Outside of a runtime this is left to a later
    /// operation.
    fn keep_alive(self: &Arc<Self>) {
        if self.instance.ended.get().is_some() {
            return;
        }
        let Ok(here) = Handle::try_current() else { return };
        self.instance.heartbeats.keep(self, self.lease, here, &mut self.beating.lock());
    }

    async fn heartbeat(self: &Arc<Self>) -> Result<(), DistkitError> {
        self.as_member(
            |membership, member| Box::pin(async move { membership.store.heartbeat(&member).await }),
            |_, ()| (),
            BackendError::not_applied,
        )
        .await?;
        self.acknowledged.lock().forget_empty();
        Ok(())
    }

    /// Leaves the store for good. Operations fail from now on, and the lease runs out, whether the store
    /// answers or not, and whether or not this is waited for.
    pub(crate) async fn leave(self: &Arc<Self>) -> Result<(), DistkitError> {
        // The heartbeat ends at its next beat. One in flight may be joining, which is waited for.
        self.instance.ended.get_or_init(|| Ended::Left);
        let membership = Arc::clone(self);
        let interrupted = BackendError::outcome_unknown("the runtime ended before the answer came");
        self.alone(interrupted, async move {
            let mut state = membership.write().await;
            let Some(member) = &state.member else { return Ok(()) };
            match membership.store.leave(member).await {
                Ok(()) | Err(BackendError::NotJoined) => {
                    state.member = None;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}

impl<B: InstanceBackend + ?Sized> Leased for Membership<B> {
    fn prefix(&self) -> &RedisKey {
        self.prefix()
    }

    fn shard(&self) -> Option<u16> {
        self.counts().shard()
    }

    fn id(&self) -> &str {
        self.id()
    }

    fn renew(self: Arc<Self>) -> BoxFuture<'static, Result<(), DistkitError>> {
        Box::pin(async move { self.heartbeat().await })
    }
}

impl<B: ?Sized> Membership<B> {
    /// Until the next operation.
    pub(crate) fn end_heartbeat(&self) {
        let beating = self.beating.lock().take();
        if let Some(beating) = beating {
            self.instance.heartbeats.end(beating);
        }
    }
}

impl<B: ?Sized> Drop for Membership<B> {
    fn drop(&mut self) {
        self.end_heartbeat();
    }
}

/// The membership with no other operation of the instance in flight.
struct Exclusive<'a, B: ?Sized> {
    membership: &'a Arc<Membership<B>>,
    state: RwLockWriteGuard<'a, State>,
}

impl<B: InstanceBackend + ?Sized> Exclusive<'_, B> {
    async fn clear(
        mut self,
        scope: Scope,
        once: Option<(Arc<Sender>, Instant)>,
    ) -> Result<(), DistkitError> {
        let membership = self.membership;
        let store = &membership.store;
        for _ in 0..=MAX_JOINS {
            let Some(member) = &self.state.member else {
                membership.join(&mut self.state).await?;
                continue;
            };
            let cleared = match &once {
                Some((sender, deadline)) => {
                    store.clear_on_once(member, scope, sender, *deadline).await
                }
                None => store.clear_on(member, scope).await,
            };
            match cleared {
                Err(BackendError::NotJoined) => {
                    membership.counts().add(Count::Collected, 1);
                    membership.join(&mut self.state).await?;
                }
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    membership.acknowledged.lock().clear();
                    return Ok(());
                }
            }
        }
        Err(BackendError::NotJoined.into())
    }
}
