//! Plain counters.

use async_trait::async_trait;

use crate::{
    RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Change, Outcome, RecordedAnswers, Refusal,
        ReplayGuard, Space, Write,
    },
};

use super::{
    Arg, CallError, Command, GUARD, LuaStore, Records, Reply, Script, ScriptRunner, Takes, layout,
    reply::{self, Answers},
    unexpected,
};

static ADD: Script = Script::new(concat!(
    include_str!("add_quick.lua"),
    include_str!("records.lua"),
    include_str!("guard.lua"),
    include_str!("add.lua")
));
static WRITE: Script = Script::new(concat!(
    include_str!("records.lua"),
    include_str!("guard.lua"),
    include_str!("write.lua")
));
static CLEAR: Script = Script::new(concat!(
    include_str!("records.lua"),
    include_str!("guard.lua"),
    include_str!("clear.lua")
));

/// So that no unguarded batch blocks the server for long; a guarded one is one script of any size.
const CHUNK: usize = 1000;

/// How many keys one HMGET reads: 2 ms of the server's time.
pub(super) const READ_CHUNK: usize = 5000;

/// The script for `writes`, its arguments with places left for the guard, and how it answers.
fn script_for(writes: &[Write]) -> (&'static Script, Vec<Arg<'_>>, Answers) {
    let additions = writes.iter().all(|write| write.unconditional_addition().is_some());
    let width = if additions { 2 } else { 7 };
    let mut args = Vec::with_capacity(GUARD + width * writes.len());
    args.extend([Arg::Text(""); GUARD]);
    for write in writes {
        let (change, count, bounds) = match write.change {
            Change::Add(count) => ("+", count, ["", ""].map(Arg::Text)),
            Change::Set(count) => ("=", count, ["", ""].map(Arg::Text)),
            Change::Remove => ("-", 0, ["", ""].map(Arg::Text)),
            Change::AddWithin { count, least, most } => ("w", count, [least, most].map(Arg::Int)),
        };
        args.push(Arg::Text(&write.key));
        if additions {
            args.push(Arg::Int(count));
        } else {
            let (condition, operand) = reply::condition(write.condition);
            args.extend([Arg::Text(change), Arg::Int(count), Arg::Text(condition)]);
            args.push(operand.map_or(Arg::Text(""), Arg::Int));
            args.extend(bounds);
        }
    }
    if additions { (&ADD, args, Answers::New) } else { (&WRITE, args, Answers::Old) }
}

impl<R: ScriptRunner> LuaStore<R> {
    async fn apply_guarded(
        &self,
        space: &Space,
        writes: &[Write],
        guard: (Records, &ReplayGuard),
        takes: Takes,
    ) -> Result<Applied, BackendError> {
        let (script, args, answers) = script_for(writes);
        let totals = layout::totals(space);
        let reply = self.run_guarded(space, script, &totals, &args, guard, takes).await?;
        reply::applied(reply, writes, answers)
    }

    async fn apply_chunk(
        &self,
        space: &Space,
        totals: &str,
        writes: &[Write],
    ) -> Result<Applied, BackendError> {
        let together = writes.len() == 1 || self.runner.pipelines_well();
        let plain = writes.iter().all(|write| write.unconditional_addition().is_some());
        let bare = space.window().is_none() && space.idle().is_none();
        if !self.runner.resends() && together && plain && bare {
            return self.add(totals, writes).await;
        }
        let (script, args, answers) = script_for(writes);
        let reply = self.run_once(space, script, totals, &args, Takes::Current).await?;
        reply::applied(reply, writes, answers)
    }

    /// Plain HINCRBYs, a fraction of a script's cost.
    async fn add(&self, totals: &str, writes: &[Write]) -> Result<Applied, BackendError> {
        let args: Vec<[Arg<'_>; 3]> = writes
            .iter()
            .filter_map(|write| {
                let count = write.unconditional_addition()?;
                Some([Arg::Text(totals), Arg::Text(&write.key), Arg::Int(count)])
            })
            .collect();
        let answers = match &*args {
            [one] => vec![self.runner.run(Command::keyed("HINCRBY", one)).await],
            all => {
                let commands: Vec<_> =
                    all.iter().map(|args| Command::keyed("HINCRBY", args)).collect();
                self.runner.pipeline(&commands).await
            }
        };
        if answers.len() != writes.len() {
            return Err(unexpected(&answers));
        }
        let mut outcomes = Vec::with_capacity(answers.len());
        let mut failure: Option<BackendError> = None;
        let mut failures = 0;
        for (answer, write) in answers.into_iter().zip(writes) {
            let count = write.unconditional_addition().unwrap_or_default();
            match answer {
                Ok(Reply::Int(new)) => outcomes.push(Ok(reply::added(count, new))),
                Ok(other) => return Err(unexpected(&other)),
                Err(CallError::Server(error)) if reply::refused_addition(&error).is_some() => {
                    let refusal = reply::refused_addition(&error).unwrap_or(Refusal::Overflow);
                    outcomes.push(Err(refusal));
                }
                Err(error) => {
                    failures += 1;
                    let error = self.failed(error, &[totals]);
                    if failure.as_ref().is_none_or(|earlier| !earlier.may_have_happened()) {
                        failure = Some(error);
                    }
                }
            }
        }
        match failure {
            None => {}
            // Some of the batch happened, and the caller cannot be told which.
            Some(error) if failures < writes.len() => return Err(partly(error)),
            Some(error) => return Err(error),
        }
        self.name_findings(totals, writes, &mut outcomes).await;
        Ok(Applied { replayed: false, record: None, outcomes })
    }

    /// HINCRBY does not say what it found instead of a number, so ask, in one more round trip.
    async fn name_findings(
        &self,
        totals: &str,
        writes: &[Write],
        outcomes: &mut [Outcome<crate::backend::Written>],
    ) {
        let foreign =
            outcomes.iter_mut().zip(writes).filter_map(|(outcome, write)| match outcome {
                Err(Refusal::NotANumber { found }) => Some((found, Arg::Text(&write.key))),
                _ => None,
            });
        let (found, keys): (Vec<_>, Vec<_>) = foreign.unzip();
        if keys.is_empty() {
            return;
        }
        let args = [&[Arg::Text(totals)], &*keys].concat();
        let answer = self.runner.run(Command::keyed("HMGET", &args)).await;
        if let Ok(Reply::Array(texts)) = answer {
            for (found, text) in found.into_iter().zip(texts) {
                if let Reply::Bytes(text) = text {
                    *found = reply::shortened(&text);
                }
            }
        }
    }
}

pub(super) fn partly(error: BackendError) -> BackendError {
    match error {
        BackendError::OutcomeUnknown(_) | BackendError::AnswerLost(_) => error,
        error => BackendError::outcome_unknown(format!("a part was applied, then: {error}")),
    }
}

#[async_trait]
impl<R: ScriptRunner> Backend for LuaStore<R> {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        if guard.is_none() && writes.is_empty() {
            return Ok(Applied { replayed: false, record: None, outcomes: Vec::new() });
        }
        self.open(space).await?;
        if let Some(guard) = guard {
            let guard = (Records::Writers, guard);
            return self.apply_guarded(space, writes, guard, Takes::Open).await;
        }
        let totals = layout::totals(space);
        if writes.len() <= CHUNK {
            return self.apply_chunk(space, &totals, writes).await;
        }
        let mut outcomes = Vec::with_capacity(writes.len());
        for chunk in writes.chunks(CHUNK) {
            match self.apply_chunk(space, &totals, chunk).await {
                Ok(applied) => outcomes.extend(applied.outcomes),
                Err(error) if outcomes.is_empty() => return Err(error),
                Err(error) => return Err(partly(error)),
            }
        }
        Ok(Applied { replayed: false, record: None, outcomes })
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        if space.window().is_some() {
            return self.read_window(space, keys, Takes::Open).await;
        }
        self.check(space).await?;
        let totals = layout::totals(space);
        let mut held = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(READ_CHUNK) {
            let mut args = Vec::with_capacity(1 + chunk.len());
            args.push(Arg::Text(&totals));
            args.extend(chunk.iter().map(|key| Arg::Text(key)));
            let request = || self.runner.run(Command::keyed("HMGET", &args));
            let answer = self.read_fresh(&totals, request).await;
            let reply = answer.map_err(|error| self.failed_to_read(error, &[&totals]))?;
            held.extend(reply::all_held(reply, chunk.len())?);
        }
        Ok(held)
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        self.open(space).await?;
        let totals = layout::totals(space);
        // A script, which notes that nothing was lost.
        let args = [Arg::Text(""); GUARD];
        self.run_once(space, &CLEAR, &totals, &args, Takes::Open).await.map(drop)
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none()
            .with_recorded(self)
            .with_recorded_slices(self)
            .with_enumeration(self)
            .with_slice_enumeration(self)
            .with_windows(self)
            .with_tokens(self)
            .with_transfer(self)
            .with_raw(self)
    }
}

#[async_trait]
impl<R: ScriptRunner> RecordedAnswers for LuaStore<R> {
    async fn apply_recorded(
        &self,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError> {
        self.open(space).await?;
        self.apply_guarded(space, writes, (Records::Lanes, lane), Takes::Current).await
    }

    async fn clear_recorded(&self, space: &Space, lane: &ReplayGuard) -> Result<(), BackendError> {
        self.open(space).await?;
        let (totals, args) = (layout::totals(space), [Arg::Text(""); GUARD]);
        let lane = (Records::Lanes, lane);
        let cleared = self.run_guarded(space, &CLEAR, &totals, &args, lane, Takes::Current);
        cleared.await.map(drop)
    }
}
