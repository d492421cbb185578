//! The store in Redis or Valkey, written once for both clients.
//!
//! Only this folder knows Lua; a client's folder knows only its client and [`ScriptRunner`].

mod freshness;
mod instance;
pub(crate) mod layout;
mod plain;
mod policy;
mod raw;
mod reply;
pub(crate) mod rights;
mod runner;

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::RwLock;

use crate::backend::{Backend, BackendError, ReplayGuard, Space, lanes::Lanes};

pub(crate) use reply::unexpected;
pub(crate) use runner::{Arg, CallError, Command, Reply, Script, ScriptRunner, ServerError};

static SHAPE: Script = Script::new(include_str!("shape.lua"));

/// How many arguments of a script of plain counters belong to `guard.lua`.
const GUARD: usize = 4;

/// Counters in Redis or Valkey over a client of this crate's: what `RedisStore` and `FredStore` are. The client is
/// sealed.
pub struct LuaStore<R> {
    pub(crate) runner: R,
    lanes: Lanes,
    spaces: RwLock<HashMap<Space, Opened, foldhash::fast::RandomState>>,
    /// How often a connection failed: the server may have lost its data each time.
    failures: AtomicU64,
    freshness: freshness::Freshness,
    policy: policy::Asked,
}

impl<R> std::fmt::Debug for LuaStore<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LuaStore").finish_non_exhaustive()
    }
}

/// What this process has found out about the shape of a space: it is ours.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Opened {
    Read,
    /// It was there, or was made, after so many failures.
    Made(u64),
}

impl<R: ScriptRunner> LuaStore<R> {
    pub(crate) fn over(runner: R) -> Self {
        Self {
            runner,
            lanes: Lanes::default(),
            spaces: RwLock::default(),
            failures: AtomicU64::new(0),
            freshness: freshness::Freshness::default(),
            policy: policy::Asked::default(),
        }
    }

    /// What an error of a request that may write means. `keys` are those of the script or command.
    pub(crate) fn failed(&self, error: CallError, keys: &[&str]) -> BackendError {
        if matches!(error, CallError::NotSent(_) | CallError::Lost(_)) {
            self.failures.fetch_add(1, Relaxed);
        }
        match error {
            CallError::Server(error) => match &*error.code {
                "FOREIGN" | "WRONGTYPE" => reply::foreign(&error, keys),
                "SHAPE" => reply::another_shape(&error.detail),
                "FORGOTTEN" => BackendError::Forgotten,
                "PARTLY" => BackendError::answer_lost(error),
                // An earlier attempt of the client's may have been applied.
                _ if self.runner.resends() && error.may_follow_success() => {
                    BackendError::outcome_unknown(error)
                }
                _ => BackendError::not_applied(error),
            },
            CallError::NotSent(cause) => BackendError::NotApplied(cause),
            CallError::Lost(cause) => BackendError::OutcomeUnknown(cause),
        }
    }

    /// What an error of a request that only reads means.
    pub(crate) fn failed_to_read(&self, error: CallError, keys: &[&str]) -> BackendError {
        self.failed(error, keys).with_nothing_applied()
    }

    /// Makes the shape of a space, or checks it, before the first write of this process, and before the first one
    /// after a failure: if it is gone then, so is the data.
    pub(crate) async fn open(&self, space: &Space) -> Result<(), BackendError> {
        let failures = self.failures.load(Relaxed);
        let known = self.spaces.read().get(space).copied();
        if known == Some(Opened::Made(failures)) {
            return Ok(());
        }
        let shape = layout::shape(space);
        let args = [Arg::Int(layout::LAYOUT), Arg::Int(layout::SHARDS)];
        let answer = self.runner.script(&SHAPE, &[Arg::Text(&shape)], &args).await;
        // Whatever became of it, nothing of what the caller wants has been sent.
        let reply = answer.map_err(|error| self.failed_to_read(error, &[&shape]))?;
        let is_new = matches!(&reply, Reply::Array(items) if items.len() == 3);
        reply::shape(reply)?;
        self.spaces.write().insert(space.clone(), Opened::Made(failures));
        // Of the writes that find out at the same time the server tells one.
        if is_new && known.is_some() {
            tracing::error!(
                target: "distkit::connection",
                prefix = space.prefix().as_str(),
                "the store has lost data of this prefix; totals that are gone start again from 0"
            );
        }
        self.check_policy().await;
        Ok(())
    }

    /// Checks the shape of a space, if it has one, before the first read of this process.
    pub(crate) async fn check(&self, space: &Space) -> Result<(), BackendError> {
        if self.spaces.read().contains_key(space) {
            return Ok(());
        }
        let shape = layout::shape(space);
        let args = [Arg::Text(&shape), Arg::Text("layout"), Arg::Text("shards")];
        let answer = self.runner.run(Command::keyed("HMGET", &args)).await;
        let reply = answer.map_err(|error| self.failed_to_read(error, &[&shape]))?;
        if reply == Reply::Array(vec![Reply::Nil, Reply::Nil]) {
            return Ok(());
        }
        reply::shape(reply)?;
        self.spaces.write().entry(space.clone()).or_insert(Opened::Read);
        Ok(())
    }

    /// Runs a script that may not take effect twice, its guard in KEYS and the first [`GUARD`] places of
    /// ARGV as `guard.lua` describes. Those of `args` are left free for it.
    pub(crate) async fn run_once<'a>(
        &'a self,
        space: &Space,
        script: &'static Script,
        key: &'a str,
        args: &mut [Arg<'a>],
    ) -> Result<Reply, BackendError> {
        if !self.runner.resends() {
            args[..GUARD].fill(Arg::Text(""));
            let answer = self.runner.script(script, &[key.into()], args).await;
            return answer.map_err(|error| self.failed(error, &[key]));
        }
        let ticket = self.lanes.take(|| self.fresh_id());
        self.run_guarded(space, script, key, args, Records::Lanes, &ticket.guard()).await
    }

    /// The same under a guard of the caller's.
    pub(crate) async fn run_guarded(
        &self,
        space: &Space,
        script: &'static Script,
        key: &str,
        args: &[Arg<'_>],
        records: Records,
        guard: &ReplayGuard,
    ) -> Result<Reply, BackendError> {
        let (kind, kept) = match records {
            Records::Writers => ("w", layout::writers(space)),
            Records::Lanes => ("l", layout::lanes(space)),
        };
        let shape = layout::shape(space);
        let mut args = args.to_vec();
        args[0] = Arg::Text(kind);
        args[1] = Arg::Int(guard.sequence as i64);
        args[2] = Arg::Text(&guard.writer);
        args[3] = Arg::Text(if guard.resent { "1" } else { "" });
        let keys = [key, &kept, &shape];
        let answer = self.runner.script(script, &keys.map(Arg::Text), &args).await;
        answer.map_err(|error| self.failed(error, &keys))
    }
}

/// Where a guard is recorded: see `guard.lua`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Records {
    Writers,
    Lanes,
}
