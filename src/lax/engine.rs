//! A lax counter: its table, its task, and what ties them together.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{
    background::Background,
    ledger::Ledger,
    settings::Settings,
    shared::Shared,
    task::{Found, Task},
};
use crate::{
    DistkitError,
    detached::Detached,
    stats::Stats,
    watch::{Watched, watch},
};

/// The state of a lax counter. Its task holds it, too: see [`Owner`] for what a user's drop means.
pub(crate) struct Engine<L> {
    pub(super) background: Background<L>,
    task: Mutex<Task>,
}

/// The users' hold on an engine. Dropping the last one flushes in the background and ends the task.
pub(crate) struct Owner<L: Ledger>(pub(crate) Arc<Engine<L>>);

impl<L: Ledger> Drop for Owner<L> {
    fn drop(&mut self) {
        let engine = &self.0;
        engine.shared().gate.orphan();
        // A task on a runtime that is not driven is to end, too, with all that it holds.
        if engine.has_pending() || engine.is_running() {
            engine.ensure_task();
        }
        engine.wake_task();
        if !engine.is_running() {
            // A running task does this when it ends: the watch may still hold a reference to the engine.
            engine.ledger().end();
        }
    }
}

/// Held by a task, also by one that is never polled. Dropped when the task ends, panics, or loses its runtime.
struct Running<L: Ledger> {
    engine: Arc<Engine<L>>,
    number: u64,
}

impl<L: Ledger> Drop for Running<L> {
    fn drop(&mut self) {
        let engine = &self.engine;
        {
            let mut task = engine.task.lock();
            if !task.end(self.number) {
                return;
            }
            engine.shared().gate.rely_on_task(false);
        }
        engine.background.let_callers_ask_again();
        if engine.shared().gate.is_orphaned() {
            engine.ledger().end();
        }
    }
}

impl<L: Ledger> Engine<L> {
    pub(crate) fn new(ledger: L, settings: Settings) -> Arc<Self> {
        let background = Background::new(ledger, settings);
        Arc::new(Self { background, task: Mutex::default() })
    }

    #[inline]
    pub(super) fn shared(&self) -> &Shared<L> {
        &self.background.shared
    }

    #[inline]
    pub(crate) fn ledger(&self) -> &L {
        &self.background.shared.ledger
    }

    /// What the counter has done, and how it stands.
    pub(crate) fn stats(&self) -> Stats {
        self.ledger().counts().stats(self.shared().level())
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.shared().has_pending()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared().gate.is_closed()
    }

    pub(crate) fn close(&self) {
        self.shared().gate.close();
    }

    /// Takes writes only as long as the counter is open, and has a task to bring them to the store.
    #[cold]
    pub(super) fn start(self: &Arc<Self>) -> Result<(), DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        self.ensure_task();
        Ok(())
    }

    pub(super) fn is_running(&self) -> bool {
        self.task.lock().runs()
    }

    /// Has the task look at what there is to do, if it runs.
    pub(crate) fn wake_task(&self) {
        self.shared().inbox.wake();
    }

    /// Starts the task, unless it runs. Outside of a runtime this is left to a later call.
    pub(super) fn ensure_task(self: &Arc<Self>) {
        let Ok(here) = Handle::try_current() else { return };
        let mut task = self.task.lock();
        if !task.runs() {
            let work = self.begin_task(&mut task, &here);
            drop(task);
            // A runtime that is shutting down drops it at once, and that takes the lock.
            here.spawn(work.run());
        } else if task.is_on(&here) {
            // The runtime is driven, be it by this call.
            if !self.shared().gate.relies_on_task() {
                self.rely_on(&mut task);
            }
        } else if task.may_stall() {
            task.called_from(here);
            self.watch(&mut task);
        }
    }

    /// Puts a task in the place of the last one. To be spawned without the lock.
    fn begin_task(self: &Arc<Self>, task: &mut Task, runtime: &Handle) -> Arc<Detached> {
        let running = Running { engine: Arc::clone(self), number: task.next_number() };
        let work = Detached::new(async move {
            let engine = &running.engine;
            engine.background.run(|| engine.is_alive()).await;
        });
        task.begin(Arc::clone(&work), runtime.clone());
        self.rely_on(task);
        work
    }

    /// Additions may rely on the task, as long as the watch sees it alive.
    fn rely_on(self: &Arc<Self>, task: &mut Task) {
        self.shared().gate.rely_on_task(true);
        self.watch(task);
    }

    fn watch(self: &Arc<Self>, task: &mut Task) {
        if task.begin_watch() {
            watch(Arc::downgrade(&(Arc::clone(self) as Arc<dyn Watched>)));
        }
    }

    /// For the task.
    fn is_alive(self: &Arc<Self>) {
        if !self.shared().gate.relies_on_task() {
            let mut task = self.task.lock();
            if task.runs() {
                self.rely_on(&mut task);
            }
        }
    }

    /// Does the first steps of what the task is woken for right now, if it is one of the caller's runtime. So
    /// a request is sent without a detour, and what needs no waiting is done when the call returns.
    pub(super) fn step_task(&self) {
        let Ok(here) = Handle::try_current() else { return };
        let work = self.task.lock().work_on(&here);
        if let Some(work) = work {
            work.poll_here();
        }
    }

    /// Ends the task, with what it does for callers, so that a request that hangs frees the writer lock.
    pub(super) fn abort_task(&self) {
        let last = {
            let mut task = self.task.lock();
            self.shared().gate.rely_on_task(false);
            task.take()
        };
        last.cancel();
    }

    /// No caller waits for the request any longer. One that is being done is cancelled, and the task with it.
    pub(super) fn withdraw(self: &Arc<Self>, request: u64) {
        let last = {
            let mut requests = self.background.requests.lock();
            if !requests.end(request) {
                let waiting = requests.withdraw(request);
                drop(requests);
                drop(waiting);
                return;
            }
            // With the lock: the task begins nothing else in between.
            let mut task = self.task.lock();
            self.shared().gate.rely_on_task(false);
            task.take()
        };
        last.cancel();
        self.ensure_task();
    }
}

impl<L: Ledger> Watched for Engine<L> {
    /// A task that gives no sign of life no longer lets additions pass that do not look where they are. If
    /// one of them, or another call, comes from another runtime, the task is asked for a sign of life, and
    /// replaced by one on that runtime when it gives none. A task that waits for the store gives one.
    ///
    /// On the task's own runtime nothing changes but the way that an addition takes to the same result: the
    /// time that a simulation takes has no influence on it.
    fn look(self: Arc<Self>, now: Instant) -> Option<Instant> {
        let patience = self.shared().settings.patience();
        let mut task = self.task.lock();
        // With the lock: who waits has said so before it says where it is.
        let waited_for = self.shared().is_waited_for();
        let found = task.look(now, patience, waited_for);
        let gate = &self.shared().gate;
        match found {
            Found::Nothing => None,
            Found::Quiet(next) => Some(next),
            Found::Alive(next) => {
                gate.rely_on_task(true);
                Some(next)
            }
            Found::Silent => {
                gate.rely_on_task(false);
                None
            }
            Found::ToBeAsked(work, next) => {
                gate.rely_on_task(false);
                drop(task);
                work.ping();
                Some(next)
            }
            Found::Stalled(elsewhere) => {
                tracing::debug!(
                    target: "distkit::lax",
                    prefix = self.ledger().prefix(), shard = self.ledger().counts().shard(),
                    "the runtime of a counter's task is not driven; another one takes its place"
                );
                let last = task.take();
                let next = self.begin_task(&mut task, &elsewhere);
                drop(task);
                last.cancel();
                // Of two callers on two runtimes, the one that was not chosen says where it is.
                self.background.let_callers_ask_again();
                elsewhere.spawn(next.run());
                Some(now + patience)
            }
        }
    }
}
