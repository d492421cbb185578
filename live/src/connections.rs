//! The connections of this process: open event streams, and simulated ones.

use std::sync::{Arc, Mutex, PoisonError};

use distkit::{DistkitError, icounter::LaxInstanceAwareHandle};
use serde::Serialize;

/// How many simulated connections a process holds at most.
pub(crate) const MOST_SIMULATED: u64 = 1_000_000;

/// Counts connections in this process's slice. No method does I/O: the counter flushes in the
/// background.
#[derive(Debug)]
pub(crate) struct Connections {
    slice: LaxInstanceAwareHandle,
    /// Locked while the slice changes, so that no more are closed than are open.
    held: Mutex<Held>,
}

/// How many connections this process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Held {
    pub(crate) streams: u64,
    pub(crate) simulated: u64,
}

/// Why no connection was opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("a process holds at most {MOST_SIMULATED} simulated connections")]
    TooMany,
    #[error("not counted")]
    Counter(#[from] DistkitError),
}

impl Connections {
    pub(crate) fn new(slice: LaxInstanceAwareHandle) -> Self {
        Self { slice, held: Mutex::default() }
    }

    pub(crate) fn held(&self) -> Held {
        *self.lock()
    }

    /// Counts a stream until the guard is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> Result<Open, DistkitError> {
        let mut held = self.lock();
        self.slice.inc(1)?;
        held.streams += 1;
        drop(held);
        Ok(Open(Arc::clone(self)))
    }

    /// Opens `n` simulated connections.
    pub(crate) fn simulate(&self, n: u32) -> Result<Held, Refused> {
        let mut held = self.lock();
        if held.simulated + u64::from(n) > MOST_SIMULATED {
            return Err(Refused::TooMany);
        }
        self.slice.inc(n.into())?;
        held.simulated += u64::from(n);
        Ok(*held)
    }

    /// Closes `n` simulated connections, or all where there are fewer.
    pub(crate) fn close_simulated(&self, n: u32) -> Result<Held, Refused> {
        let mut held = self.lock();
        let n = u64::from(n).min(held.simulated);
        self.slice.dec(i64::try_from(n).unwrap_or(i64::MAX))?;
        held.simulated -= n;
        Ok(*held)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open stream. It is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<Connections>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut held = self.0.lock();
        held.streams = held.streams.saturating_sub(1);
        match self.0.slice.dec(1) {
            // The slices are gone already.
            Ok(_) | Err(DistkitError::ShutDown | DistkitError::InstanceReplaced) => {}
            Err(error) => tracing::warn!(%error, "a closed connection stays counted"),
        }
    }
}
