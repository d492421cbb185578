//! The background task's life, and whether the counter takes writes.

use std::{sync::Arc, time::Instant};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::{atomic::Ordering::SeqCst, core::Core, flusher, ledger::Ledger};
use crate::{
    DistkitError,
    detached::Detached,
    watch::{Watched, watch},
};

/// The task runs, and is not suspected to be on a runtime that is not driven. Alone, it is the state in which an addition needs no look at anything else.
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
    /// Another runtime, from which it was called lately.
    elsewhere: Option<Handle>,
    /// Whether the watch looks at it.
    watched: bool,
    sight: Sight,
}

/// What the watch saw of the task.
#[derive(Default)]
struct Sight {
    task: u64,
    polls: u64,
    /// When they were seen first.
    since: Option<Instant>,
    /// When the task was asked for a sign of life that it has not given yet.
    pinged: Option<Instant>,
}

impl Task {
    fn is_on(&self, runtime: &Handle) -> bool {
        self.runtime.as_ref().is_some_and(|own| own.id() == runtime.id())
    }

    /// Whether its runtime may stop being driven while it lives.
    fn may_stall(&self) -> bool {
        let own = self.runtime.as_ref();
        own.is_some_and(|own| own.runtime_flavor() == RuntimeFlavor::CurrentThread)
    }
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
            task.elsewhere = None;
            core.state.fetch_and(!RUNNING, SeqCst);
        }
        // Who waits for an answer asks again, and starts another task.
        core.wanted.lock().clear();
        core.give_back_requests();
        if core.orphaned.load(SeqCst) {
            core.ledger.end();
        }
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
        self.task.lock().runs
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
        let Ok(here) = Handle::try_current() else { return };
        let mut task = self.task.lock();
        if !task.runs {
            let work = self.new_task(&mut task, &here);
            drop(task);
            // A runtime that is shutting down drops it at once, and that takes the lock.
            here.spawn(work.run());
        } else if task.is_on(&here) {
            // The runtime is driven, be it by this call.
            if self.state.load(SeqCst) & RUNNING == 0 {
                self.arm(&mut task);
            }
        } else if task.may_stall() {
            task.elsewhere = Some(here);
            self.watch(&mut task);
        }
    }

    /// A task in the place of the last one. To be spawned without the lock.
    fn new_task(self: &Arc<Self>, task: &mut Task, runtime: &Handle) -> Arc<Detached> {
        let running = Running { core: Arc::clone(self), number: task.number + 1 };
        let work = Detached::new(async move { flusher::run(&running.core).await });
        *task = Task {
            number: task.number + 1,
            runs: true,
            work: Some(Arc::clone(&work)),
            runtime: Some(runtime.clone()),
            watched: task.watched,
            ..Task::default()
        };
        self.arm(task);
        work
    }

    /// Additions may rely on the task, as long as the watch sees it alive.
    fn arm(self: &Arc<Self>, task: &mut Task) {
        self.state.fetch_or(RUNNING, SeqCst);
        if task.may_stall() {
            self.watch(task);
        }
    }

    fn watch(self: &Arc<Self>, task: &mut Task) {
        if !std::mem::replace(&mut task.watched, true) {
            watch(Arc::downgrade(&(Arc::clone(self) as Arc<dyn Watched>)));
        }
    }

    /// For the task: it is alive.
    pub(super) fn is_alive(self: &Arc<Self>) {
        if self.state.load(SeqCst) & RUNNING == 0 {
            let mut task = self.task.lock();
            if task.runs {
                self.arm(&mut task);
            }
        }
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
            if task.is_on(&here) { task.work.clone() } else { None }
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
        self.take(&mut self.task.lock())
    }

    fn take(&self, task: &mut Task) -> Taken {
        let work = task.work.take();
        *task = Task { number: task.number + 1, watched: task.watched, ..Task::default() };
        self.state.fetch_and(!RUNNING, SeqCst);
        Taken(work)
    }
}

impl<L: Ledger> Watched for Core<L> {
    /// A task that gives no sign of life no longer lets additions pass that do not look where they are. If
    /// one of them, or another call, comes from another runtime, the task is asked for a sign of life, and
    /// replaced by one on that runtime when it gives none. A task that waits for the store gives one.
    ///
    /// On the task's own runtime nothing changes but the way that an addition takes to the same result: the
    /// time that a simulation takes has no influence on it.
    fn look(self: Arc<Self>, now: Instant) -> Option<Instant> {
        let patience = self.settings.patience();
        let mut task = self.task.lock();
        let Some(work) = task.work.clone().filter(|_| task.may_stall()) else {
            task.watched = false;
            return None;
        };
        let (number, polls) = (task.number, work.polls());
        let sight = &mut task.sight;
        let since = match sight.since {
            Some(since) if (sight.task, sight.polls) == (number, polls) => since,
            seen_before => {
                *sight = Sight { task: number, polls, since: Some(now), pinged: None };
                if seen_before.is_some() {
                    self.state.fetch_or(RUNNING, SeqCst);
                }
                if !self.is_waited_for() {
                    task.elsewhere = None;
                }
                return Some(now + patience / 2);
            }
        };
        if now < since + patience {
            return Some(since + patience);
        }
        self.state.fetch_and(!RUNNING, SeqCst);
        let Some(elsewhere) = task.elsewhere.clone() else {
            task.watched = false;
            return None;
        };
        match task.sight.pinged {
            None => {
                task.sight.pinged = Some(now);
                drop(task);
                work.ping();
                Some(now + patience)
            }
            Some(pinged) if now < pinged + patience => Some(pinged + patience),
            Some(_) => {
                tracing::debug!(
                    target: "distkit::lax",
                    prefix = self.ledger.prefix(),
                    "the runtime of a counter's task is not driven; another one takes its place"
                );
                let last = self.take(&mut task);
                let next = self.new_task(&mut task, &elsewhere);
                drop(task);
                last.cancel();
                elsewhere.spawn(next.run());
                Some(now + patience)
            }
        }
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
