//! The background task's life, and whether the counter takes writes.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::{atomic::Ordering::SeqCst, core::Core, flusher, ledger::Ledger};
use crate::DistkitError;

/// The task runs. Alone, it is the state in which an addition needs no look at anything else.
pub(super) const RUNNING: u8 = 1;
const CLOSED: u8 = 2;
const GAVE_UP: u8 = 4;

/// The background task, or the last one.
#[derive(Default)]
pub(super) struct Task {
    number: u64,
    runs: bool,
    handle: Option<JoinHandle<()>>,
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
            core.state.fetch_and(!RUNNING, SeqCst);
        }
        // Who waits for an answer asks again, and starts another task.
        core.wanted.lock().clear();
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
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let running = {
            let mut task = self.task.lock();
            if task.runs {
                return;
            }
            *task = Task { number: task.number + 1, runs: true, handle: None };
            self.state.fetch_or(RUNNING, SeqCst);
            Running { core: Arc::clone(self), number: task.number }
        };
        let number = running.number;
        // A runtime that is shutting down drops it at once, and that takes the lock.
        let handle = runtime.spawn(async move { flusher::run(&running.core).await });
        let mut task = self.task.lock();
        if task.number == number {
            task.handle = Some(handle);
        } else {
            // It has ended, or was to be ended before there was a handle to it.
            handle.abort();
        }
    }

    /// Has the task look at what there is to do, if it runs.
    pub(crate) fn wake_task(&self) {
        self.wake.notify_one();
    }

    /// Ends the task at its next await, so that a request that hangs frees the writer lock.
    pub(super) fn abort_task(&self) {
        let mut task = self.task.lock();
        if let Some(handle) = task.handle.take() {
            handle.abort();
        }
        // The next one does not wait for this one's end.
        *task = Task { number: task.number + 1, ..Task::default() };
        self.state.fetch_and(!RUNNING, SeqCst);
    }
}
