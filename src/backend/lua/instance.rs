//! The instance-aware half of the contract, through the scripts `instance*.lua`.

use std::time::Duration;

use async_trait::async_trait;

use super::{Arg, LuaStore, Reply, Script, ScriptRunner, layout, reply, resent, unexpected};
use crate::{
    CounterComparator, RedisKey,
    backend::{
        Applied, Backend, BackendError, Epoch, Incarnation, Instance, InstanceBackend,
        InstanceSlice, Joined, Member, Ordered, Outcome, RecordedSliceAnswers, Refusal,
        ReplayGuard, Scope, Slice, SliceChange, SliceWrite, Space, Standing, Written,
    },
};

macro_rules! script {
    ($($part:literal),+) => {
        script!([] $($part),+)
    };
    // With parts that stand before the library.
    ([$($quick:literal),*] $($part:literal),+) => {
        Script::new(concat!(
            include_str!("instance_names.lua"),
            $(include_str!($quick),)*
            include_str!("instance.lua"),
            include_str!("instance_sums.lua"),
            include_str!("instance_keys.lua"),
            include_str!("instance_dead.lua"),
            include_str!("instance_calls.lua"),
            include_str!("instance_main.lua"),
            $(include_str!($part),)+
            include_str!("instance_end.lua"),
            include_str!("records.lua"),
            include_str!("instance_lane.lua"),
        ))
    };
}

pub(super) use script;

static ADD: Script = script!(
    ["instance_quick.lua", "instance_add_quick.lua"]
    "instance_write.lua", "instance_add.lua"
);
static JOIN: Script = script!("instance_claims.lua", "instance_join.lua");
static CLAIM: Script = script!("instance_claims.lua", "instance_claim.lua");
static APPLY: Script = script!("instance_write.lua", "instance_apply.lua");
static READ: Script =
    script!(["instance_quick.lua", "instance_read_quick.lua"] "instance_read.lua");
static CLEAR: Script = script!("instance_clear.lua");
static CLEAR_SLICES: Script = script!("instance_clear_slices.lua");
static HEARTBEAT: Script = script!("instance_heartbeat.lua");
static LEAVE: Script = script!("instance_leave.lua");
static LOOK: Script = script!("instance_look.lua");

/// How many claims one script puts back: a few milliseconds of the server's time.
const CLAIMS_AT_ONCE: usize = 250;

/// Of how many keys one script adds up the slices.
const LOOKS_AT_ONCE: usize = 10;

/// How often a join begins anew because its lease ran out before its last claim was put back.
const JOIN_ATTEMPTS: usize = 3;

/// A count from which Lua's numbers are not exact any more, in both directions.
const INEXACT: u64 = 1 << 53;

/// The longest lease: thousands of years, and exact in Lua.
const LONGEST_LEASE_MS: i64 = 1 << 48;

pub(super) type Args<'a> = Vec<Arg<'a>>;

/// What running a script twice, or losing its answer, means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind<'l> {
    /// It changes no counter, and is run for a caller that is no member.
    Look,
    /// It changes no counter.
    Read,
    /// It does no harm when run twice, or has a guard of its own.
    Write,
    /// It must be run once.
    Once,
    /// It runs in a lane of the caller's.
    Recorded(&'l ReplayGuard),
}

/// A number that the store gave out. It fits: it is near a time in microseconds.
pub(super) fn number(number: u64) -> Arg<'static> {
    Arg::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn milliseconds(lease: Duration) -> Arg<'static> {
    let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    Arg::Int(lease.clamp(1, LONGEST_LEASE_MS))
}

fn sequence_or_none(sequence: Option<u64>) -> Arg<'static> {
    sequence.map_or(Arg::Text(""), number)
}

fn as_member<'a>(member: &Member, more: usize) -> Args<'a> {
    let mut args = Vec::with_capacity(2 + more);
    args.extend([number(member.incarnation.0), milliseconds(member.lease)]);
    args
}

fn push_keys<'a>(args: &mut Args<'a>, keys: &'a [RedisKey]) {
    args.extend(keys.iter().map(|key| Arg::Text(key)));
}

fn push_claims<'a>(args: &mut Args<'a>, claims: &'a [Slice]) {
    for claim in claims {
        args.extend([Arg::Text(&claim.key), number(claim.epoch.0), Arg::Int(claim.value)]);
    }
}

/// What `write` adds, if the script for additions may do it.
fn addition(write: &SliceWrite) -> Option<i64> {
    match (write.change, write.condition) {
        (SliceChange::Add(count), CounterComparator::Nil) => {
            (count.unsigned_abs() < INEXACT).then_some(count)
        }
        _ => None,
    }
}

fn push_writes<'a>(args: &mut Args<'a>, writes: &'a [SliceWrite]) {
    for write in writes {
        let (change, count, bounds) = match write.change {
            SliceChange::Add(count) => ("a", count, None),
            SliceChange::SetTotal(count) => ("t", count, None),
            SliceChange::SetSlice(count) => ("s", count, None),
            SliceChange::Remove => ("d", 0, None),
            SliceChange::RemoveSlice => ("r", 0, None),
            SliceChange::AddWithin { count, least, most } => ("w", count, Some([least, most])),
        };
        let (condition, operand) = match write.condition {
            CounterComparator::Nil => ("", None),
            CounterComparator::Eq(operand) => ("=", Some(operand)),
            CounterComparator::Ne(operand) => ("!", Some(operand)),
            CounterComparator::Lt(operand) => ("<", Some(operand)),
            CounterComparator::Gt(operand) => (">", Some(operand)),
            CounterComparator::Le(operand) => ("<=", Some(operand)),
            CounterComparator::Ge(operand) => (">=", Some(operand)),
        };
        args.extend([Arg::Text(&write.key), Arg::Text(change), Arg::Int(count)]);
        args.extend([Arg::Text(condition), operand.map_or(Arg::Text(""), Arg::Int)]);
        args.extend(bounds.map_or([Arg::Text(""); 2], |bounds| bounds.map(Arg::Int)));
    }
}

#[async_trait]
impl<R: ScriptRunner> InstanceBackend for LuaStore<R> {
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        let (now, later) = slices.split_at(slices.len().min(CLAIMS_AT_ONCE));
        let mut args = vec![
            Arg::Text(&instance.id),
            Arg::Text(instance.name.as_deref().unwrap_or("")),
            milliseconds(instance.lease),
            sequence_or_none(instance.first_joined.map(|incarnation| incarnation.0)),
            milliseconds(instance.max_absence),
            Arg::Int(space.shards().into()),
        ];
        push_claims(&mut args, now);
        for _ in 0..JOIN_ATTEMPTS {
            let mut answer = self.call(&JOIN, space, &args, Kind::Write).await?;
            let incarnation = Incarnation(answer.number()?);
            let born = Some(answer.number()?);
            let mut standings = answer.read_all()?;
            let member = Member { incarnation, lease: instance.lease };
            match self.claim(space, &member, later, &mut standings).await {
                Ok(()) => return Ok(Joined { incarnation, born, standings }),
                Err(BackendError::NotJoined) => {}
                Err(error) => return Err(error),
            }
        }
        Err(BackendError::not_applied(
            "the lease ran out before the join was done, again and again",
        ))
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let kind = if sequence.is_none() { Kind::Once } else { Kind::Write };
        self.apply_as(space, member, writes, sequence, kind).await
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        let mut args = as_member(member, keys.len());
        push_keys(&mut args, keys);
        let mut answer = self.call(&READ, space, &args, Kind::Read).await?;
        Ok(Ordered { version: answer.number()?, answer: answer.read_all()? })
    }

    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        if scope == Scope::Total {
            return self.clear_as(space, member, Kind::Once).await;
        }
        let args = as_member(member, 0);
        while self.call(&CLEAR_SLICES, space, &args, Kind::Write).await?.more {}
        Ok(())
    }

    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        let mut args = as_member(member, 1);
        args.push(Arg::Text(""));
        self.call(&HEARTBEAT, space, &args, Kind::Write).await.map(drop)
    }

    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        let args = [number(member.incarnation.0)];
        while self.call(&LEAVE, space, &args, Kind::Write).await?.more {}
        Ok(())
    }

    async fn totals(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let mut totals = Vec::with_capacity(keys.len());
        for keys in keys.chunks(LOOKS_AT_ONCE) {
            let mut args = vec![Arg::Text("t")];
            push_keys(&mut args, keys);
            let mut answer = self.call(&LOOK, space, &args, Kind::Look).await?;
            for _ in keys {
                totals.push(match &*answer.bytes()? {
                    b"y" => answer.count()?,
                    kind => Err(answer.refused(kind, 1)?),
                });
            }
        }
        Ok(totals)
    }

    async fn slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        let args = [Arg::Text("s"), Arg::Text(key)];
        let mut answer = self.call(&LOOK, space, &args, Kind::Look).await?;
        let mut slices = Vec::with_capacity(answer.left() / 3);
        while answer.left() > 0 {
            let instance_id = answer.text()?;
            let name = RedisKey::new(answer.text()?).ok();
            let value = answer.text()?.parse().unwrap_or(0);
            slices.push(InstanceSlice { instance_id, name, value });
        }
        slices.sort();
        Ok(slices)
    }
}

#[async_trait]
impl<R: ScriptRunner> RecordedSliceAnswers for LuaStore<R> {
    async fn apply_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        lane: &ReplayGuard,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        self.apply_as(space, member, writes, None, Kind::Recorded(lane)).await
    }

    async fn clear_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        lane: &ReplayGuard,
    ) -> Result<(), BackendError> {
        self.clear_as(space, member, Kind::Recorded(lane)).await
    }
}

impl<R: ScriptRunner> LuaStore<R> {
    async fn claim(
        &self,
        space: &Space,
        member: &Member,
        claims: &[Slice],
        standings: &mut Vec<Outcome<Standing>>,
    ) -> Result<(), BackendError> {
        for claims in claims.chunks(CLAIMS_AT_ONCE) {
            let mut args = as_member(member, 3 * claims.len());
            push_claims(&mut args, claims);
            let mut answer = self.call(&CLAIM, space, &args, Kind::Write).await?;
            answer.skip()?;
            standings.extend(answer.read_all()?);
        }
        Ok(())
    }

    async fn apply_as(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
        kind: Kind<'_>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let additions = writes.iter().all(|write| addition(write).is_some());
        let mut args = as_member(member, 1 + if additions { 2 } else { 5 } * writes.len());
        args.push(sequence_or_none(sequence));
        if additions {
            for write in writes {
                args.extend([Arg::Text(&write.key), Arg::Int(addition(write).unwrap_or_default())]);
            }
            let mut answer = self.call(&ADD, space, &args, kind).await?;
            let version = answer.number()?;
            let replayed = answer.replayed;
            let outcomes = answer.added_all(writes)?;
            return Ok(Ordered { version, answer: Applied { replayed, record: None, outcomes } });
        }
        push_writes(&mut args, writes);
        let mut answer = self.call(&APPLY, space, &args, kind).await?;
        let version = answer.number()?;
        let replayed = answer.flag()?;
        let outcomes = answer.written_all()?;
        Ok(Ordered { version, answer: Applied { replayed, record: None, outcomes } })
    }

    /// Removes every key, then helps to free what they held.
    async fn clear_as(
        &self,
        space: &Space,
        member: &Member,
        kind: Kind<'_>,
    ) -> Result<(), BackendError> {
        let mut args = as_member(member, 1);
        let mut answer = self.call(&CLEAR, space, &args, kind).await?;
        args.push(number(answer.number()?));
        loop {
            match self.call(&HEARTBEAT, space, &args, Kind::Write).await {
                Ok(answer) if answer.more => {}
                // The space is clear as it is; others free the rest.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }

    /// Runs a script until it has an answer.
    pub(super) async fn call(
        &self,
        script: &'static Script,
        space: &Space,
        args: &[Arg<'_>],
        kind: Kind<'_>,
    ) -> Result<Answer, BackendError> {
        match kind {
            Kind::Look => self.check(space).await?,
            _ => self.open(space).await?,
        }
        let (names, whole) = (layout::instance_names(space), layout::instance_whole(space));
        loop {
            let reply = match kind {
                Kind::Recorded(lane) => {
                    self.call_once(script, space, [&names, &whole], args, lane).await
                }
                Kind::Once if self.runner.resends() => {
                    let ticket = self.lanes.take(|| self.fresh_id());
                    self.call_once(script, space, [&names, &whole], args, &ticket.guard()).await
                }
                _ => {
                    let keys = [names.as_str(), &whole];
                    let failed = |error| match kind {
                        Kind::Read | Kind::Look => self.failed_to_read(error, &keys),
                        _ => self.failed(error, &keys),
                    };
                    self.run_in(space, script, &keys, args, failed).await
                }
            };
            let mut answer = Answer::new(reply?)?;
            // The scripts that are run most begin with the version.
            if let [Reply::Int(_), ..] = answer.items.as_slice() {
                return Ok(answer);
            }
            match &*answer.text()? {
                "ok" => return Ok(answer),
                "more" => return Ok(Answer { more: true, ..answer }),
                "replayed" => return Ok(Answer { replayed: true, ..answer }),
                // Very many expired instances are collected in several steps.
                "again" => {}
                "notjoined" => return Err(BackendError::NotJoined),
                "replaced" => return Err(BackendError::Replaced),
                "x" => return Err(BackendError::Corrupt(answer.text()?)),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Runs a script in a lane: see `instance_lane.lua`.
    async fn call_once(
        &self,
        script: &'static Script,
        space: &Space,
        [names, whole]: [&str; 2],
        args: &[Arg<'_>],
        lane: &ReplayGuard,
    ) -> Result<Reply, BackendError> {
        let (lanes, shape) = (layout::lanes(space), layout::shape(space));
        let keys = [names, whole, &lanes, &shape];
        let resent = resent(lane, space);
        let guard = [number(lane.sequence), Arg::Text(&lane.writer), Arg::Text(&resent)];
        let args = [args, &guard].concat();
        self.run_in(space, script, &keys, &args, |error| self.failed(error, &keys)).await
    }
}

/// A number that is not negative.
pub(super) fn number_of(reply: &Reply) -> Result<u64, BackendError> {
    let number = match reply {
        Reply::Int(number) => u64::try_from(*number).ok(),
        Reply::Bytes(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    number.ok_or_else(|| unexpected(reply))
}

/// A script's answer, taken apart from the front.
pub(super) struct Answer {
    items: std::vec::IntoIter<Reply>,
    more: bool,
    replayed: bool,
}

impl Answer {
    fn new(reply: Reply) -> Result<Self, BackendError> {
        match reply {
            Reply::Array(items) => {
                Ok(Self { items: items.into_iter(), more: false, replayed: false })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn left(&self) -> usize {
        self.items.len()
    }

    fn next(&mut self) -> Result<Reply, BackendError> {
        self.items.next().ok_or_else(|| unexpected(&"an answer that ends too early"))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, BackendError> {
        match self.next()? {
            Reply::Bytes(bytes) => Ok(bytes),
            Reply::Int(number) => Ok(number.to_string().into_bytes()),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, BackendError> {
        self.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn skip(&mut self) -> Result<(), BackendError> {
        self.bytes().map(drop)
    }

    pub(super) fn flag(&mut self) -> Result<bool, BackendError> {
        Ok(self.bytes()? == b"1")
    }

    pub(super) fn number(&mut self) -> Result<u64, BackendError> {
        number_of(&self.next()?)
    }

    pub(super) fn signed(&mut self) -> Result<i64, BackendError> {
        let text = self.text()?;
        text.parse().map_err(|_| unexpected(&text))
    }

    fn count(&mut self) -> Result<Outcome<i64>, BackendError> {
        reply::held(&self.next()?)
    }

    fn standing(&mut self) -> Result<Outcome<Standing>, BackendError> {
        let (total, slice, epoch) = (self.count()?, self.count()?, Epoch(self.number()?));
        Ok(total.and_then(|total| Ok(Standing { total, slice: slice?, epoch })))
    }

    /// An item that was refused: what is left of its `fields` means nothing.
    fn refused(&mut self, kind: &[u8], fields: usize) -> Result<Refusal, BackendError> {
        let found = self.bytes()?;
        for _ in 1..fields {
            self.skip()?;
        }
        match kind {
            b"o" => Ok(Refusal::Overflow),
            b"x" => Ok(Refusal::NotANumber { found: reply::shortened(&found) }),
            other => Err(unexpected(&other)),
        }
    }

    fn read_all(&mut self) -> Result<Vec<Outcome<Standing>>, BackendError> {
        let mut all = Vec::with_capacity(self.left() / 3);
        while self.left() > 0 {
            all.push(match self.items.as_slice() {
                [Reply::Bytes(kind), ..] if matches!(&**kind, b"o" | b"x") => {
                    let kind = self.bytes()?;
                    Err(self.refused(&kind, 2)?)
                }
                _ => self.standing()?,
            });
        }
        Ok(all)
    }

    /// What additions left behind; what was before follows from it.
    fn added_all(
        &mut self,
        writes: &[SliceWrite],
    ) -> Result<Vec<Outcome<Written<Standing>>>, BackendError> {
        let replayed = self.replayed;
        let standings = self.read_all()?;
        if standings.len() != writes.len() {
            return Err(unexpected(&"another number of items than was asked for"));
        }
        let written = |(standing, write): (Outcome<Standing>, &SliceWrite)| {
            let new = standing?;
            let count = if replayed { 0 } else { addition(write).unwrap_or_default() };
            // The sum before may have been beyond the range; a slice is always within.
            let (total, slice) = (new.total.saturating_sub(count), new.slice.wrapping_sub(count));
            Ok(Written { old: Standing { total, slice, ..new }, new, condition_met: true })
        };
        Ok(standings.into_iter().zip(writes).map(written).collect())
    }

    fn written_all(&mut self) -> Result<Vec<Outcome<Written<Standing>>>, BackendError> {
        let mut all = Vec::with_capacity(self.left() / 7);
        while self.left() > 0 {
            let kind = self.bytes()?;
            all.push(if matches!(&*kind, b"y" | b"n") {
                let (old, new) = (self.standing()?, self.standing()?);
                old.and_then(|old| Ok(Written { old, new: new?, condition_met: kind == b"y" }))
            } else {
                Err(self.refused(&kind, 6)?)
            });
        }
        Ok(all)
    }
}
