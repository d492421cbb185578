//! The background task's life, and whether the counter takes writes.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{atomic::Ordering::SeqCst, core::Core, flusher, ledger::Ledger};
use crate::{DistkitError, detached::Detached};

/// The task runs. Alone, it is the state in which an addition needs no look at anything else.
pub(super) const RUNNING: u8 = 1;
const CLOSED: u8 = 2;
const GAVE_UP: u8 = 4;

/// The background task, or the last one.
#[derive(Default)]
pub(super) struct Task {
    number: u64,
    runs: bool,
    work: Option<Arc<Detached>>,
    /// Where it runs.
    runtime: Option<Handle>,
}

/// Held by a task, also by one that is never polled. Dropped when the task ends, panics, or loses its runtime.
struct Running<L: Ledger> {
    core: Arc<Core<L>>,
    number: u64,
}

impl<L: Ledger> Drop for Running<L> {
    fn drop(&mut self) {
        let core = &self.core;
        {
            let mut task = core.task.lock();
            if task.number != self.number {
                return;
            }
            task.runs = false;
            task.work = None;
            task.runtime = None;
            core.state.fetch_and(!RUNNING, SeqCst);
        }
        // Who waits for an answer asks again, and starts another task.
        core.wanted.lock().clear();
        core.give_back_requests();
    }
}

impl<L: Ledger> Core<L> {
    /// Takes writes only as long as the counter is open, and has a task to bring them to the store.
    #[cold]
    pub(super) fn start(self: &Arc<Self>) -> Result<(), DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        self.ensure_task();
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(SeqCst) & CLOSED != 0
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.load(SeqCst) & RUNNING != 0
    }

    pub(crate) fn close(&self) {
        self.state.fetch_or(CLOSED, SeqCst);
    }

    /// A shutdown reported writes that will not arrive.
    pub(super) fn note_loss(&self) {
        self.state.fetch_or(GAVE_UP, SeqCst);
    }

    pub(super) fn gave_up(&self) -> bool {
        self.state.load(SeqCst) & GAVE_UP != 0
    }

    /// Takes no more writes and drops those that are pending. True when that is so already.
    pub(super) fn closed_by_replacement(&self) -> bool {
        self.given_up.store(true, SeqCst);
        self.state.fetch_or(CLOSED, SeqCst) & CLOSED != 0
    }

    /// Starts the task, unless it runs. Outside of a runtime this is left to a later call.
    pub(crate) fn ensure_task(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let work = {
            let mut task = self.task.lock();
            if task.runs {
                return;
            }
            let running = Running { core: Arc::clone(self), number: task.number + 1 };
            let work = Detached::new(async move { flusher::run(&running.core).await });
            *task = Task {
                number: task.number + 1,
                runs: true,
                work: Some(Arc::clone(&work)),
                runtime: Some(runtime.clone()),
            };
            self.state.fetch_or(RUNNING, SeqCst);
            work
        };
        // A runtime that is shutting down drops it at once, and that takes the lock.
        runtime.spawn(work.run());
    }

    /// Has the task look at what there is to do, if it runs.
    pub(crate) fn wake_task(&self) {
        self.wake.notify_one();
    }

    /// Does the first steps of what the task is woken for right now, if it is one of the caller's runtime. So
    /// a request is sent without a detour, and what needs no waiting is done when the call returns.
    pub(super) fn step_task(&self) {
        let Ok(here) = Handle::try_current() else { return };
        let work = {
            let task = self.task.lock();
            let is_here = task.runtime.as_ref().is_some_and(|runtime| runtime.id() == here.id());
            if is_here { task.work.clone() } else { None }
        };
        if let Some(work) = work {
            work.poll_here();
        }
    }

    /// Ends the task, with what it does for callers, so that a request that hangs frees the writer lock.
    pub(super) fn abort_task(&self) {
        self.take_task().cancel();
    }

    /// The task, which is to be cancelled. The next one does not wait for its end.
    pub(super) fn take_task(&self) -> Taken {
        let mut task = self.task.lock();
        let work = task.work.take();
        *task = Task { number: task.number + 1, ..Task::default() };
        self.state.fetch_and(!RUNNING, SeqCst);
        Taken(work)
    }
}

/// A task that no longer counts as the counter's. Not to be cancelled with a lock held: its future takes some.
#[must_use]
pub(super) struct Taken(Option<Arc<Detached>>);

impl Taken {
    pub(super) fn cancel(self) {
        if let Some(work) = self.0 {
            work.cancel();
        }
    }
}
