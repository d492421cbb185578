//! The store in Redis or Valkey, written once for both clients.
//!
//! Only this folder knows Lua; a client's folder knows only its client and [`ScriptRunner`].

mod enumeration;
mod freshness;
mod instance;
pub(crate) mod layout;
mod plain;
mod policy;
mod raw;
mod reply;
pub(crate) mod rights;
mod runner;
mod shape;
mod tokens;
mod transfer;
mod windows;

use std::borrow::Cow;

use crate::backend::{Backend, BackendError, ReplayGuard, Space, lanes::Lanes};

use windows::Takes;

pub(crate) use reply::unexpected;
pub(crate) use runner::{Arg, CallError, Command, Reply, Script, ScriptRunner, ServerError};

/// How many arguments of a script of plain counters belong to `guard.lua`.
const GUARD: usize = 5;

/// Counters in Redis or Valkey over a client of this crate's: what `RedisStore` and `FredStore` are. The client is
/// sealed.
pub struct LuaStore<R> {
    pub(crate) runner: R,
    lanes: Lanes,
    shapes: shape::Shapes,
    freshness: freshness::Freshness,
    policy: policy::Asked,
    tokens: tokens::Known,
}

impl<R> std::fmt::Debug for LuaStore<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LuaStore").finish_non_exhaustive()
    }
}

impl<R: ScriptRunner> LuaStore<R> {
    pub(crate) fn over(runner: R) -> Self {
        Self {
            runner,
            lanes: Lanes::default(),
            shapes: shape::Shapes::default(),
            freshness: freshness::Freshness::default(),
            policy: policy::Asked::default(),
            tokens: tokens::Known::default(),
        }
    }

    /// What an error of a request that may write means. `keys` are those of the script or command.
    pub(crate) fn failed(&self, error: CallError, keys: &[&str]) -> BackendError {
        match error {
            CallError::Server(error) => match &*error.code {
                "FOREIGN" | "WRONGTYPE" => reply::foreign(&error, keys),
                "SHAPE" => reply::another_shape(&error.detail),
                "KEEP" => reply::another_keep(&error.detail),
                "FORGOTTEN" => BackendError::Forgotten,
                "PARTLY" => BackendError::answer_lost(error),
                "NOTCURRENT" | "CLOSED" | "LOST" => windows::refused(error),
                // An earlier attempt of the client's may have been applied.
                _ if self.runner.resends() && error.may_follow_success() => {
                    BackendError::outcome_unknown(error)
                }
                _ if error.refuses_writes() => BackendError::writes_refused(error),
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

    /// Runs a script that may not take effect twice, its guard in KEYS and the first [`GUARD`] places of
    /// ARGV as `guard.lua` describes. Those of `args` are left free for it.
    pub(crate) async fn run_once(
        &self,
        space: &Space,
        script: &'static Script,
        key: &str,
        args: &[Arg<'_>],
        takes: Takes,
    ) -> Result<Reply, BackendError> {
        // Those of a space that expires are renewed with it, by the scripts that have a guard.
        if !self.runner.resends() && space.idle().is_none() {
            let window = windows::argument(space, takes);
            let mut args = args.to_vec();
            args[..GUARD].fill(Arg::Text(""));
            args[GUARD - 1] = Arg::Text(&window);
            let (lanes, shape) = (layout::lanes(space), layout::shape(space));
            let keys = [key, &lanes, &shape];
            return self
                .run_in(space, script, &keys, &args, |error| self.failed(error, &keys))
                .await;
        }
        let ticket = self.lanes.take(|| self.fresh_id());
        let guarded = (Records::Lanes, &ticket.guard());
        self.run_guarded(space, script, key, args, guarded, takes).await
    }

    /// The same under a guard of the caller's.
    pub(crate) async fn run_guarded(
        &self,
        space: &Space,
        script: &'static Script,
        key: &str,
        args: &[Arg<'_>],
        (records, guard): (Records, &ReplayGuard),
        takes: Takes,
    ) -> Result<Reply, BackendError> {
        let (kind, kept, other) = match records {
            Records::Writers => ("w", layout::writers(space), layout::lanes(space)),
            Records::Lanes => ("l", layout::lanes(space), layout::writers(space)),
        };
        let shape = layout::shape(space);
        let mut args = args.to_vec();
        args[0] = Arg::Text(kind);
        args[1] = Arg::Int(guard.sequence as i64);
        args[2] = Arg::Text(&guard.writer);
        let resent = resent(guard, space);
        args[3] = Arg::Text(&resent);
        let window = windows::argument(space, takes);
        args[4] = Arg::Text(&window);
        if space.idle().is_some() {
            let keys = [key, &kept, &shape, &other];
            return self.run_in(space, script, &keys, &args, |e| self.failed(e, &keys)).await;
        }
        let keys = [key, &kept, &shape];
        self.run_in(space, script, &keys, &args, |error| self.failed(error, &keys)).await
    }
}

/// Whether an earlier attempt may have arrived, and what the space is one of: see `guard.lua`.
fn resent(guard: &ReplayGuard, space: &Space) -> Cow<'static, str> {
    let resent = if guard.resent { "1" } else { "" };
    match (space.shards(), space.idle()) {
        (1, None) => resent.into(),
        _ => format!("{resent}:{}", space.extent()).into(),
    }
}

/// Where a guard is recorded: see `guard.lua`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Records {
    Writers,
    Lanes,
}
