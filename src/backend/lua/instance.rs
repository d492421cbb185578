//! The instance-aware half of the contract, through the scripts `instance*.lua`.

use std::{borrow::Cow, time::Duration};

use super::{Arg, LuaStore, Reply, Script, ScriptRunner, layout, reply, unexpected};
use crate::{
    CounterComparator, RedisKey,
    backend::{
        Applied, Backend, BackendError, Epoch, Incarnation, Instance, InstanceSlice, Joined,
        Member, Ordered, Outcome, Refusal, Scope, Slice, SliceChange, SliceWrite, Space, Standing,
        Written,
    },
};

macro_rules! script {
    ($($part:literal),+) => {
        Script::new(concat!(
            include_str!("instance.lua"),
            include_str!("instance_main.lua"),
            $(include_str!($part),)+
            include_str!("instance_end.lua"),
        ))
    };
}

static JOIN: Script = script!("instance_claims.lua", "instance_join.lua");
static CLAIM: Script = script!("instance_claims.lua", "instance_claim.lua");
static APPLY: Script = script!("instance_apply.lua");
static READ: Script = script!("instance_read.lua");
static REMOVE: Script = script!("instance_remove.lua");
static CLEAR: Script = script!("instance_clear.lua");
static CLEAR_SLICES: Script = script!("instance_clear_slices.lua");
static HEARTBEAT: Script = script!("instance_heartbeat.lua");
static LEAVE: Script = script!("instance_leave.lua");
static SLICES: Script = script!("instance_slices.lua");

/// How many claims one script puts back: a few milliseconds of the server's time.
const CLAIMS_AT_ONCE: usize = 250;

/// How often a join begins anew because its lease ran out before its last claim was put back.
const JOIN_ATTEMPTS: usize = 3;

type Args<'a> = Vec<Cow<'a, str>>;

fn number<'a>(number: impl ToString) -> Cow<'a, str> {
    Cow::Owned(number.to_string())
}

fn milliseconds<'a>(lease: Duration) -> Cow<'a, str> {
    number(lease.as_millis().max(1))
}

fn as_member<'a>(member: &Member, more: usize) -> Args<'a> {
    let mut args = Vec::with_capacity(2 + more);
    args.extend([number(member.incarnation), milliseconds(member.lease)]);
    args
}

fn push_claims<'a>(args: &mut Args<'a>, claims: &'a [Slice]) {
    for claim in claims {
        args.extend([Cow::Borrowed(claim.key.as_str()), number(claim.epoch), number(claim.value)]);
    }
}

impl<R: ScriptRunner> LuaStore<R> {
    pub(super) async fn join_instance(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        let (now, later) = slices.split_at(slices.len().min(CLAIMS_AT_ONCE));
        let mut args = vec![
            Cow::Borrowed(&*instance.id),
            Cow::Borrowed(instance.name.as_deref().unwrap_or("")),
            milliseconds(instance.lease),
            instance.first_joined.map_or(Cow::Borrowed(""), number),
        ];
        push_claims(&mut args, now);
        for _ in 0..JOIN_ATTEMPTS {
            let mut answer = self.call(&JOIN, space, &args, false).await?;
            let incarnation = Incarnation(answer.number()?);
            let mut standings = answer.read_all()?;
            let member = Member { incarnation, lease: instance.lease };
            match self.claim(space, &member, later, &mut standings).await {
                Ok(()) => return Ok(Joined { incarnation, standings }),
                Err(BackendError::NotJoined) => {}
                Err(error) => return Err(error),
            }
        }
        Err(BackendError::not_applied(
            "the lease ran out before the join was done, again and again",
        ))
    }

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
            let mut answer = self.call(&CLAIM, space, &args, false).await?;
            answer.skip()?;
            standings.extend(answer.read_all()?);
        }
        Ok(())
    }

    pub(super) async fn apply_slices(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let mut args = as_member(member, 1 + 5 * writes.len());
        args.push(sequence.map_or(Cow::Borrowed(""), number));
        for write in writes {
            let (change, count) = match write.change {
                SliceChange::Add(count) => ("a", count),
                SliceChange::SetTotal(count) => ("t", count),
                SliceChange::SetSlice(count) => ("s", count),
            };
            let (condition, operand) = match write.condition {
                CounterComparator::Nil => ("", None),
                CounterComparator::Eq(operand) => ("=", Some(operand)),
                CounterComparator::Ne(operand) => ("!", Some(operand)),
                CounterComparator::Lt(operand) => ("<", Some(operand)),
                CounterComparator::Gt(operand) => (">", Some(operand)),
            };
            args.extend([
                Cow::Borrowed(write.key.as_str()),
                Cow::Borrowed(change),
                number(count),
                Cow::Borrowed(condition),
                operand.map_or(Cow::Borrowed(""), number),
            ]);
        }
        let mut answer = self.call(&APPLY, space, &args, sequence.is_none()).await?;
        let version = answer.number()?;
        let replayed = answer.text()? == "1";
        let outcomes = answer.written_all()?;
        Ok(Ordered { version, answer: Applied { replayed, outcomes } })
    }

    pub(super) async fn read_slices(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        let mut args = as_member(member, keys.len());
        args.extend(keys.iter().map(|key| Cow::Borrowed(key.as_str())));
        let mut answer = self.call(&READ, space, &args, false).await?;
        Ok(Ordered { version: answer.number()?, answer: answer.read_all()? })
    }

    pub(super) async fn remove_slices(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
        scope: Scope,
    ) -> Result<Ordered<Vec<Outcome<Written<Standing>>>>, BackendError> {
        let mut args = as_member(member, 1 + keys.len());
        args.push(Cow::Borrowed(match scope {
            Scope::Total => "t",
            Scope::Slice => "s",
        }));
        args.extend(keys.iter().map(|key| Cow::Borrowed(key.as_str())));
        let mut answer = self.call(&REMOVE, space, &args, true).await?;
        Ok(Ordered { version: answer.number()?, answer: answer.written_all()? })
    }

    pub(super) async fn clear_slices(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        let mut args = as_member(member, 1);
        if scope == Scope::Slice {
            while self.call(&CLEAR_SLICES, space, &args, false).await?.more {}
            return Ok(());
        }
        let mut answer = self.call(&CLEAR, space, &args, true).await?;
        args.push(number(answer.number::<u64>()?));
        loop {
            match self.call(&HEARTBEAT, space, &args, false).await {
                Ok(answer) if answer.more => {}
                // The space is clear as it is; others free the rest.
                Ok(_) | Err(BackendError::NotJoined) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn renew_lease(
        &self,
        space: &Space,
        member: &Member,
    ) -> Result<(), BackendError> {
        let mut args = as_member(member, 1);
        args.push(Cow::Borrowed(""));
        self.call(&HEARTBEAT, space, &args, false).await.map(drop)
    }

    pub(super) async fn end_membership(
        &self,
        space: &Space,
        member: &Member,
    ) -> Result<(), BackendError> {
        let args = [number(member.incarnation)];
        while self.call(&LEAVE, space, &args, false).await?.more {}
        Ok(())
    }

    pub(super) async fn list_slices(
        &self,
        space: &Space,
        member: &Member,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        let mut args = as_member(member, 1);
        args.push(Cow::Borrowed(key.as_str()));
        let mut answer = self.call(&SLICES, space, &args, false).await?;
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

    /// Runs a script until it has an answer. `guarded` if running it twice does harm.
    async fn call(
        &self,
        script: &'static Script,
        space: &Space,
        args: &[Cow<'_, str>],
        guarded: bool,
    ) -> Result<Answer, BackendError> {
        let meta = layout::instance_meta(space);
        let mut all: Vec<_> = args.iter().map(|arg| Arg::Text(arg)).collect();
        loop {
            let mut answer = if guarded && self.runner.resends() {
                let ticket = self.lanes.take(|| self.fresh_id());
                let lane = layout::lane(space, &ticket.process, ticket.number);
                all.push(Arg::Int(ticket.sequence as i64));
                let keys = [Arg::Text(&meta), Arg::Text(&lane)];
                let reply = self.runner.script(script, &keys, &all).await;
                let reply = reply.map_err(|error| self.failed(error, &[&meta, &lane]))?;
                all.pop();
                Answer::new(reply)?
            } else {
                let reply = self.runner.script(script, &[(&meta).into()], &all).await;
                Answer::new(reply.map_err(|error| self.failed(error, &[&meta]))?)?
            };
            match &*answer.text()? {
                "ok" => return Ok(answer),
                "more" => return Ok(Answer { more: true, ..answer }),
                // Very many dead instances are collected in several steps.
                "again" => {}
                "notjoined" => return Err(BackendError::NotJoined),
                "replaced" => return Err(BackendError::Replaced),
                "x" => return Err(BackendError::Corrupt(answer.text()?)),
                other => return Err(unexpected(&other)),
            }
        }
    }
}

/// A script's answer, taken apart from the front.
struct Answer {
    items: std::vec::IntoIter<Reply>,
    more: bool,
}

impl Answer {
    fn new(reply: Reply) -> Result<Self, BackendError> {
        match reply {
            Reply::Array(items) => Ok(Self { items: items.into_iter(), more: false }),
            other => Err(unexpected(&other)),
        }
    }

    fn left(&self) -> usize {
        self.items.len()
    }

    fn bytes(&mut self) -> Result<Vec<u8>, BackendError> {
        match self.items.next() {
            Some(Reply::Bytes(bytes)) => Ok(bytes),
            Some(Reply::Int(number)) => Ok(number.to_string().into_bytes()),
            other => Err(unexpected(&other)),
        }
    }

    fn text(&mut self) -> Result<String, BackendError> {
        self.bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn skip(&mut self) -> Result<(), BackendError> {
        self.bytes().map(drop)
    }

    fn number<N: std::str::FromStr>(&mut self) -> Result<N, BackendError> {
        let text = self.text()?;
        text.parse().map_err(|_| unexpected(&text))
    }

    fn standing(&mut self) -> Result<Standing, BackendError> {
        Ok(Standing { total: self.number()?, slice: self.number()?, epoch: Epoch(self.number()?) })
    }

    /// An item that was refused: the rest of its `width` fields means nothing.
    fn refused(&mut self, kind: &str, width: usize) -> Result<Refusal, BackendError> {
        let found = self.bytes()?;
        for _ in 2..width {
            self.skip()?;
        }
        match kind {
            "o" => Ok(Refusal::Overflow),
            "x" => Ok(Refusal::NotANumber { found: reply::shortened(&found) }),
            other => Err(unexpected(&other)),
        }
    }

    fn read_all(&mut self) -> Result<Vec<Outcome<Standing>>, BackendError> {
        let mut all = Vec::with_capacity(self.left() / 4);
        while self.left() > 0 {
            all.push(match &*self.text()? {
                "y" => Ok(self.standing()?),
                kind => Err(self.refused(kind, 4)?),
            });
        }
        Ok(all)
    }

    fn written_all(&mut self) -> Result<Vec<Outcome<Written<Standing>>>, BackendError> {
        let mut all = Vec::with_capacity(self.left() / 7);
        while self.left() > 0 {
            all.push(match &*self.text()? {
                kind @ ("y" | "n") => {
                    let condition_met = kind == "y";
                    Ok(Written { old: self.standing()?, new: self.standing()?, condition_met })
                }
                kind => Err(self.refused(kind, 7)?),
            });
        }
        Ok(all)
    }
}
