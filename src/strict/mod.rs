//! What the strict counters of both families send, and how: once by default, and joined with what is concurrent.
//!
//! [`Sender`] sends one request until it is answered. [`Queue`] joins concurrent additions into requests.

mod options;
mod queue;
#[cfg(test)]
mod queue_tests;
mod sender;
mod settle;

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, Id},
    time::Instant,
};

pub(crate) use options::strict_options;
pub(crate) use queue::{Joint, Queue, Target};
#[cfg(feature = "counter")]
pub(crate) use sender::send_again;
pub(crate) use sender::{Answered, Sender};
pub(crate) use settle::Tally;

use crate::RedisKey;

/// How a strict counter sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// How long a write is sent again until it counts as unknown; `None` for writes that are sent once.
    pub(crate) unknown_after: Option<Duration>,
    pub(crate) max_waiting: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { unknown_after: Some(Duration::from_secs(5)), max_waiting: 100_000 }
    }
}

/// A store keeps the answer of a lane for an hour only.
const LONGEST: Duration = Duration::from_secs(30 * 60);

impl Settings {
    /// When a write that begins now counts as unknown.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.unknown_after.map(|after| Instant::now() + after.min(LONGEST))
    }
}

/// The queues of one store's additions: one for each runtime, so that none waits for a runtime that has ended or is
/// not driven, and for each deadline, so that none waits for a call with a longer one.
pub(crate) struct Queues<T, K = RedisKey>(Mutex<ByRuntime<T, K>>);

type ByRuntime<T, K> = HashMap<(Id, Apart), Arc<Queue<T, K>>>;

/// What additions must have in common to be joined: after how long they count as unknown, and for how long their tokens
/// are kept, if they have some.
pub(crate) type Apart = (Option<Duration>, Option<Duration>);

impl<T, K> Default for Queues<T, K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A map of more runtimes than this holds some that have ended.
const MANY: usize = 16;

impl<T: Tally, K: Target> Queues<T, K> {
    /// The queue of the current runtime; `None` outside of one.
    pub(crate) fn current(
        &self,
        apart: Apart,
        joint: impl FnOnce() -> Box<dyn Joint<T, K>>,
    ) -> Option<Arc<Queue<T, K>>> {
        let id = Handle::try_current().ok()?.id();
        let mut queues = self.0.lock();
        if queues.len() > MANY {
            queues.retain(|_, queue| !queue.is_idle());
        }
        let queue = queues.entry((id, apart)).or_insert_with(|| Queue::new(joint()));
        Some(Arc::clone(queue))
    }
}
