//! Which windows of a space are open, and which are closed or lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    Window,
    backend::{BackendError, Space},
};

/// The windows of all spaces.
#[derive(Debug, Default)]
pub(super) struct Windows(BTreeMap<Kind, Index>);

/// A space, and the length and the offset of its windows.
type Kind = (Space, u64, u64);

#[derive(Debug, Default)]
struct Index {
    /// The start of each open window, and until when it is kept.
    open: BTreeMap<u64, u64>,
    lost: BTreeSet<u64>,
    /// The newest end of a window that was closed.
    closed: u64,
}

/// In which windows a request takes effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Takes {
    Current,
    Open,
}

impl Windows {
    /// Lets in a write. One that opens a window, or keeps it for longer, closes those that are over: they are given, and
    /// their counters go.
    pub(super) fn enter(
        &mut self,
        now: Duration,
        space: &Space,
        takes: Takes,
    ) -> Result<Vec<Window>, BackendError> {
        let Some(window) = space.window() else { return Ok(Vec::new()) };
        check(now, window, takes)?;
        let now = ms(now);
        let index = self.0.entry(kind(space, window)).or_default();
        let held = index.open.get(&window.start_ms()).copied();
        let until = window.until_ms().max(held.unwrap_or(0));
        let closed = match held {
            // Also for a write that would keep it for longer.
            Some(held) => now >= held,
            None => now >= until || window.end_ms() <= index.closed,
        };
        if closed {
            return Err(BackendError::WindowClosed);
        }
        if index.lost.contains(&window.start_ms()) {
            return Err(BackendError::WindowLost);
        }
        index.open.insert(window.start_ms(), until);
        if held == Some(until) {
            return Ok(Vec::new());
        }
        let over: Vec<_> = index
            .open
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(start, _)| *start)
            .collect();
        let close = |start| {
            index.open.remove(&start);
            index.lost.remove(&start);
            let over = window.starting_at(start);
            index.closed = index.closed.max(over.end_ms());
            over
        };
        Ok(over.into_iter().map(close).collect())
    }

    /// Whether a read finds nothing whatever is there.
    pub(super) fn reads_nothing(
        &self,
        now: Duration,
        space: &Space,
        takes: Takes,
    ) -> Result<bool, BackendError> {
        let Some(window) = space.window() else { return Ok(false) };
        check(now, window, takes)?;
        let Some(index) = self.0.get(&kind(space, window)) else { return Ok(true) };
        match index.open.get(&window.start_ms()) {
            Some(until) if ms(now) < *until => match index.lost.contains(&window.start_ms()) {
                true => Err(BackendError::WindowLost),
                false => Ok(false),
            },
            _ => Ok(true),
        }
    }

    /// Loses the counters of an open window. False where it is not open.
    pub(super) fn lose(&mut self, space: &Space) -> bool {
        let Some(window) = space.window() else { return false };
        let Some(index) = self.0.get_mut(&kind(space, window)) else { return false };
        let open = index.open.contains_key(&window.start_ms());
        open && index.lost.insert(window.start_ms())
    }

    /// Whether a space has windows that are not over.
    pub(super) fn any_open(&self, now: Duration, space: &Space) -> bool {
        let mut indexes = self.0.iter().filter(|((of, ..), _)| of == space);
        indexes.any(|(_, index)| index.open.values().any(|until| ms(now) < *until))
    }

    /// Loses all of a space.
    pub(super) fn wipe_space(&mut self, space: &Space) {
        self.0.retain(|(of, ..), _| of != space);
    }
}

fn check(now: Duration, window: Window, takes: Takes) -> Result<(), BackendError> {
    match takes {
        Takes::Current if !window.contains(now) => Err(BackendError::NotCurrent { now }),
        _ => Ok(()),
    }
}

fn kind(space: &Space, window: Window) -> Kind {
    (space.home().into_owned(), window.length_ms(), window.offset_ms())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
