use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use async_trait::async_trait;
use distkit::{
    RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Instance, InstanceBackend, InstanceSlice,
        Joined, Member, Ordered, Outcome, RecordedAnswers, RecordedSliceAnswers, ReplayGuard,
        Scope, Slice, SliceChange, SliceWrite, Space, Standing, Write, memory::MemoryLink,
    },
};

use super::trace::Trace;

/// A fault of the store itself, which the checks must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A batch that is sent again is applied again.
    DoubleReplay,
    /// A returning instance gets back slices from before a `set` or `del`.
    StaleClaims,
    /// Heartbeats are answered, and renew nothing.
    MuteHeartbeats,
    /// The leases of crashed processes never end.
    EternalLeases,
}

impl Sabotage {
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("double-replay", Self::DoubleReplay),
        ("stale-claims", Self::StaleClaims),
        ("mute-heartbeats", Self::MuteHeartbeats),
        ("eternal-leases", Self::EternalLeases),
    ];
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(|(name, _)| name).join(", ");
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, sabotage)| *sabotage).ok_or_else(|| format!("it must be one of {names}"))
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) =
            Self::ALL.iter().find(|(_, sabotage)| sabotage == self).unwrap_or(&Self::ALL[0]);
        name.fmt(f)
    }
}

/// A process's link, with each request and each answer in the trace.
pub(crate) struct Wire {
    pub(crate) link: MemoryLink,
    pub(crate) process: Arc<str>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Wire {
    fn sent(&self, request: fmt::Arguments<'_>) {
        self.trace.line(&self.process, format_args!("-> {request}"));
    }

    fn answered<T: fmt::Debug>(
        &self,
        request: &str,
        answer: Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        match &answer {
            Ok(answer) => self.trace.line(&self.process, format_args!("<- {request} {answer:?}")),
            Err(error) => self.trace.line(&self.process, format_args!("<- {request} {error}")),
        }
        answer
    }

    fn seat(&self, member: &Member) -> Member {
        let eternal = Duration::from_secs(1 << 30);
        let lease = if self.is(Sabotage::EternalLeases) { eternal } else { member.lease };
        Member { lease, ..member.clone() }
    }

    fn is(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Wire {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        self.sent(format_args!("apply {:?} {writes:?}", guard.map(|guard| guard.sequence)));
        let guard = guard.filter(|_| !self.is(Sabotage::DoubleReplay));
        self.answered("apply", self.link.apply(space, writes, guard).await)
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.sent(format_args!("read {keys:?}"));
        self.answered("read", self.link.read(space, keys).await)
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        self.sent(format_args!("clear"));
        self.answered("clear", self.link.clear(space).await)
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none().with_recorded(self).with_recorded_slices(self)
    }

    fn fresh_id(&self) -> Arc<str> {
        self.link.fresh_id()
    }
}

#[async_trait]
impl InstanceBackend for Wire {
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        self.sent(format_args!("join {} {slices:?}", instance.id));
        let joined = self.answered("join", self.link.join(space, instance, slices).await)?;
        if self.is(Sabotage::StaleClaims) {
            let dropped = slices.iter().zip(&joined.standings).filter(
                |(claim, standing)| matches!(standing, Ok(standing) if standing.epoch != claim.epoch),
            );
            let writes: Vec<_> = dropped
                .map(|(claim, _)| SliceWrite {
                    key: claim.key.clone(),
                    change: SliceChange::Add(claim.value),
                    condition: distkit::CounterComparator::Nil,
                })
                .collect();
            let member = Member { incarnation: joined.incarnation, lease: instance.lease };
            _ = self.link.apply_on(space, &member, &writes, None).await;
        }
        Ok(joined)
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        self.sent(format_args!("apply_on {} {sequence:?} {writes:?}", member.incarnation));
        let sequence = sequence.filter(|_| !self.is(Sabotage::DoubleReplay));
        self.answered(
            "apply_on",
            self.link.apply_on(space, &self.seat(member), writes, sequence).await,
        )
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        self.sent(format_args!("read_on {} {keys:?}", member.incarnation));
        self.answered("read_on", self.link.read_on(space, &self.seat(member), keys).await)
    }

    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        self.sent(format_args!("clear_on {} {scope:?}", member.incarnation));
        self.answered("clear_on", self.link.clear_on(space, &self.seat(member), scope).await)
    }

    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.sent(format_args!("heartbeat {}", member.incarnation));
        if self.is(Sabotage::MuteHeartbeats) {
            return Ok(());
        }
        self.answered("heartbeat", self.link.heartbeat(space, &self.seat(member)).await)
    }

    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.sent(format_args!("leave {}", member.incarnation));
        self.answered("leave", self.link.leave(space, member).await)
    }

    async fn totals(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.sent(format_args!("totals {keys:?}"));
        self.answered("totals", self.link.totals(space, keys).await)
    }

    async fn slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        self.sent(format_args!("slices {key}"));
        self.answered("slices", self.link.slices(space, key).await)
    }
}

impl Wire {
    /// A lane that the store does not know, where it is to apply again what is sent again.
    fn lane(&self, lane: &ReplayGuard) -> ReplayGuard {
        if self.is(Sabotage::DoubleReplay) {
            return ReplayGuard { writer: self.link.fresh_id(), ..lane.clone() };
        }
        lane.clone()
    }
}

fn not_recorded() -> BackendError {
    BackendError::not_applied("the link keeps no answers")
}

#[async_trait]
impl RecordedAnswers for Wire {
    async fn apply_recorded(
        &self,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError> {
        self.sent(format_args!("apply_recorded {} {writes:?}", lane.sequence));
        let store = self.link.capabilities().recorded.ok_or_else(not_recorded)?;
        let answer = store.apply_recorded(space, writes, &self.lane(lane)).await;
        self.answered("apply_recorded", answer)
    }

    async fn clear_recorded(&self, space: &Space, lane: &ReplayGuard) -> Result<(), BackendError> {
        self.sent(format_args!("clear_recorded {}", lane.sequence));
        let store = self.link.capabilities().recorded.ok_or_else(not_recorded)?;
        self.answered("clear_recorded", store.clear_recorded(space, &self.lane(lane)).await)
    }
}

#[async_trait]
impl RecordedSliceAnswers for Wire {
    async fn apply_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        lane: &ReplayGuard,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let (incarnation, sequence) = (member.incarnation, lane.sequence);
        self.sent(format_args!("apply_on_recorded {incarnation} {sequence} {writes:?}"));
        let store = self.link.capabilities().recorded_slices.ok_or_else(not_recorded)?;
        let lane = self.lane(lane);
        let answer = store.apply_on_recorded(space, &self.seat(member), writes, &lane).await;
        self.answered("apply_on_recorded", answer)
    }

    async fn clear_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        lane: &ReplayGuard,
    ) -> Result<(), BackendError> {
        self.sent(format_args!("clear_on_recorded {} {}", member.incarnation, lane.sequence));
        let store = self.link.capabilities().recorded_slices.ok_or_else(not_recorded)?;
        let answer = store.clear_on_recorded(space, &self.seat(member), &self.lane(lane)).await;
        self.answered("clear_on_recorded", answer)
    }
}
