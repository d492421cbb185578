//! Windows of time: see `window_open.lua`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    Arg, CallError, LuaStore, Reply, Script, ScriptRunner, ServerError, layout, plain::READ_CHUNK,
    reply, unexpected,
};
use crate::{
    RedisKey, Window,
    backend::{BackendError, Cause, Outcome, Space, Windowing},
};

static OPEN: Script = Script::new(include_str!("window_open.lua"));
static CLOSE: Script = Script::new(include_str!("window_close.lua"));
static EXPIRE: Script = Script::new(include_str!("expire.lua"));
static ANY: Script = Script::new(include_str!("window_any.lua"));
static TIME: Script = Script::new(include_str!("window_time.lua"));
static READ: Script =
    Script::new(concat!(include_str!("window_look.lua"), include_str!("window_read.lua")));

/// How much time the counters of a space have left, in ms, once nobody has written to it for its idle time: at least. See
/// `guard.lua`.
const EARLY: i64 = 3000;

/// In which windows a request takes effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Takes {
    Current,
    Open,
}

/// The window of a space as scripts take it: see `guard.lua`. Empty for a space that has none.
pub(super) fn argument(space: &Space, takes: Takes) -> String {
    let Some(window) = space.window() else { return String::new() };
    let mode = match takes {
        Takes::Current => 'c',
        Takes::Open => 'l',
    };
    format!("{mode} {} {} {}", window.start_ms(), window.end_ms(), window.until_ms())
}

/// What the scripts say of a request for a window.
pub(super) fn refused(error: ServerError) -> BackendError {
    match (&*error.code, error.detail.parse()) {
        ("NOTCURRENT", Ok(now)) => BackendError::NotCurrent { now: Duration::from_millis(now) },
        ("CLOSED", _) => BackendError::WindowClosed,
        ("LOST", _) => BackendError::WindowLost,
        _ => BackendError::not_applied(error),
    }
}

impl<R: ScriptRunner> LuaStore<R> {
    /// Opens the window of a space, and closes some that are over. Nothing of what the caller wants has been sent.
    #[cold]
    pub(super) async fn open_window(
        &self,
        space: &Space,
        window: &str,
    ) -> Result<(), BackendError> {
        let (totals, index) = (layout::totals(space), layout::window_index(space));
        let shape = layout::shape(space);
        let records = [layout::lanes(space), layout::writers(space)];
        let mut keys = vec![&*totals, &*index, &*shape];
        if space.idle().is_some() {
            keys.extend(records.iter().map(String::as_str));
        }
        let names: Vec<_> = keys.iter().copied().map(Arg::Text).collect();
        let answer = self.runner.script(&OPEN, &names, &[Arg::Text(window)]).await;
        let over = match answer.map_err(|error| self.failed_to_read(error, &keys))? {
            Reply::Array(starts) => starts,
            other => return Err(unexpected(&other).with_nothing_applied()),
        };
        let start = |reply: &Reply| match reply {
            Reply::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        };
        if let Some(window) = space.window() {
            let over: Vec<_> = over.iter().filter_map(start).collect();
            self.close_windows(space, window, &over).await;
        }
        Ok(())
    }

    async fn close_windows(&self, space: &Space, one: Window, starts: &[u64]) {
        if starts.is_empty() {
            return;
        }
        let mut keys = vec![layout::window_index(space)];
        keys.extend(starts.iter().map(|start| {
            let over = space.in_window(one.starting_at(*start));
            layout::totals(&over)
        }));
        let names: Vec<_> = keys.iter().map(Arg::from).collect();
        let starts: Vec<_> = starts.iter().map(u64::to_string).collect();
        let args: Vec<_> = starts.iter().map(Arg::from).collect();
        // Whoever opens the next window tries again.
        if let Err(error) = self.runner.script(&CLOSE, &names, &args).await {
            let error: Cause = match error {
                CallError::Server(error) => Arc::new(error),
                CallError::NotSent(cause) | CallError::Lost(cause) => cause,
            };
            tracing::debug!(
                target: "distkit::connection",
                %error,
                "windows that are over were not closed"
            );
        }
    }

    /// Reads counters of a window.
    pub(super) async fn read_window(
        &self,
        space: &Space,
        keys: &[RedisKey],
        takes: Takes,
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.check(space).await?;
        let (totals, index) = (layout::totals(space), layout::window_index(space));
        let window = argument(space, takes);
        let names = [&*totals, &*index];
        let mut held = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(READ_CHUNK) {
            let mut args: Vec<_> = chunk.iter().map(|key| Arg::Text(key)).collect();
            args.push(Arg::Text(&window));
            let scripted = names.map(Arg::Text);
            let request = || self.runner.script(&READ, &scripted, &args);
            let answer = self.read_fresh(&totals, request).await;
            match answer.map_err(|error| self.failed_to_read(error, &names))? {
                Reply::Array(none) if none.is_empty() => {
                    held.extend(chunk.iter().map(|_| Ok(0)));
                }
                reply => {
                    let all = reply::all_held(reply, chunk.len());
                    held.extend(all.map_err(BackendError::with_nothing_applied)?);
                }
            }
        }
        Ok(held)
    }
}

#[async_trait]
impl<R: ScriptRunner> Windowing for LuaStore<R> {
    async fn time(&self, space: &Space) -> Result<Duration, BackendError> {
        self.check(space).await?;
        let shape = layout::shape(space);
        let answer = self.runner.script(&TIME, &[Arg::Text(&shape)], &[]).await;
        let reply = answer.map_err(|error| self.failed_to_read(error, &[&shape]))?;
        time(&reply).ok_or_else(|| unexpected(&reply).with_nothing_applied())
    }

    async fn read_current(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        match space.window() {
            Some(_) => self.read_window(space, keys, Takes::Current).await,
            None => crate::backend::Backend::read(self, space, keys).await,
        }
    }

    async fn any_open(&self, space: &Space) -> Result<bool, BackendError> {
        self.check(space).await?;
        let shape = layout::shape(space);
        let answer = self.runner.script(&ANY, &[Arg::Text(&shape)], &[]).await;
        match answer.map_err(|error| self.failed_to_read(error, &[&shape]))? {
            Reply::Int(any) => Ok(any != 0),
            other => Err(unexpected(&other).with_nothing_applied()),
        }
    }

    async fn expire_idle(&self, space: &Space) -> Result<Option<Duration>, BackendError> {
        let space = &*space.whole();
        if space.idle().is_none() {
            return Ok(None);
        }
        self.check(space).await?;
        let keys = [&*layout::totals(space), &layout::shape(space)];
        let answer = self.runner.script(&EXPIRE, &keys.map(Arg::Text), &[Arg::Int(EARLY)]).await;
        match answer.map_err(|error| self.failed(error, &keys))? {
            Reply::Int(left) => Ok(u64::try_from(left).ok().map(Duration::from_millis)),
            other => Err(unexpected(&other)),
        }
    }
}

/// The answer of TIME.
fn time(reply: &Reply) -> Option<Duration> {
    let number = |reply: &Reply| match reply {
        Reply::Int(number) => u64::try_from(*number).ok(),
        Reply::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    };
    match reply {
        Reply::Array(both) if both.len() == 2 => {
            let (seconds, micros) = (number(&both[0])?, number(&both[1])?);
            Some(Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros)))
        }
        _ => None,
    }
}
