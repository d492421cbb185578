//! How far a request has come, for a caller that stops waiting for it.
//!
//! A client says when a command waits for a connection, and when it is sent. A store whose client says nothing may have
//! sent at any time.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::Relaxed},
};

const WAITS: u8 = 1;
const SENT: u8 = 2;

tokio::task_local! {
    static PROGRESS: Progress;
}

/// That of one request. It never goes back.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<AtomicU8>);

/// The command that this task is about to send waits for a connection.
#[cfg(any(feature = "redis-rs", feature = "fred"))]
pub(crate) fn waits() {
    note(WAITS);
}

/// It has one: from now on it may arrive.
#[cfg(any(feature = "redis-rs", feature = "fred"))]
pub(crate) fn is_sent() {
    note(SENT);
}

#[cfg(any(feature = "redis-rs", feature = "fred", test))]
fn note(progress: u8) {
    // Nobody asks outside of a request of a counter.
    let _ = PROGRESS.try_with(|current| current.0.fetch_max(progress, Relaxed));
}

#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
impl Progress {
    /// That of the request of which this is a part, or a new one.
    pub(crate) fn current() -> Self {
        PROGRESS.try_with(Self::clone).unwrap_or_default()
    }

    /// Does the request, and notes how far it comes.
    pub(crate) async fn of<T>(&self, request: impl Future<Output = T>) -> T {
        PROGRESS.scope(self.clone(), request).await
    }

    /// Whether nothing of it can have been sent: if it is dropped now, nothing ever is.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Relaxed) == WAITS
    }
}

/// What clients say, for tests without one.
#[cfg(test)]
pub(crate) mod said {
    pub(crate) fn waits() {
        super::note(super::WAITS);
    }

    pub(crate) fn is_sent() {
        super::note(super::SENT);
    }
}
