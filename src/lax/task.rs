//! The place of the background task: whether there is one, where it runs, and whether that is still driven.
//! Knows nothing of what the task does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::detached::Detached;

/// The background task, or the last one.
#[derive(Default)]
pub(super) struct Task {
    number: u64,
    work: Option<Arc<Detached>>,
    /// Where it runs.
    runtime: Option<Handle>,
    /// Another runtime, from which it was called lately.
    elsewhere: Option<Handle>,
    /// Whether the watch looks at it.
    watched: bool,
    sight: Option<Sight>,
}

/// What the watch saw of the task.
struct Sight {
    polls: u64,
    /// When they were seen first.
    since: Instant,
    /// When the task was asked for a sign of life that it has not given yet.
    pinged: Option<Instant>,
}

/// How the watch finds a task, and when it looks again.
pub(super) enum Found {
    /// It need not be watched.
    Nothing,
    /// It was polled.
    Alive(Instant),
    /// It was not polled for a while. That is not too long yet, or it was woken since.
    Quiet(Instant),
    /// Not polled for too long, and not called from another runtime since. The next such call restarts the watch.
    Silent,
    /// Not polled for too long, and called from another runtime since: wake it.
    ToBeAsked(Arc<Detached>, Instant),
    /// Woken, and still not polled: replace it by one on this runtime.
    Stalled(Handle),
}

impl Task {
    pub(super) fn runs(&self) -> bool {
        self.work.is_some()
    }

    /// Of the next task.
    pub(super) fn next_number(&self) -> u64 {
        self.number + 1
    }

    /// Puts a task in the place of the last one.
    pub(super) fn begin(&mut self, work: Arc<Detached>, runtime: Handle) {
        self.take();
        (self.work, self.runtime) = (Some(work), Some(runtime));
    }

    /// The task of this number has ended. False when it is not the counter's any longer.
    pub(super) fn end(&mut self, number: u64) -> bool {
        let is_own = self.number == number;
        if is_own {
            self.take();
        }
        is_own
    }

    /// Takes the task out, to be cancelled. The next one does not wait for its end.
    pub(super) fn take(&mut self) -> Taken {
        let last = std::mem::take(self);
        *self = Self { number: last.next_number(), watched: last.watched, ..Self::default() };
        Taken(last.work)
    }

    pub(super) fn is_on(&self, runtime: &Handle) -> bool {
        self.runtime.as_ref().is_some_and(|own| own.id() == runtime.id())
    }

    /// The work, if this is its runtime.
    pub(super) fn work_on(&self, runtime: &Handle) -> Option<Arc<Detached>> {
        if self.is_on(runtime) { self.work.clone() } else { None }
    }

    /// Whether its runtime may stop being driven while it lives.
    pub(super) fn may_stall(&self) -> bool {
        let own = self.runtime.as_ref();
        own.is_some_and(|own| own.runtime_flavor() == RuntimeFlavor::CurrentThread)
    }

    pub(super) fn called_from(&mut self, elsewhere: Handle) {
        self.elsewhere = Some(elsewhere);
    }

    /// Whether it must be given to the watch.
    pub(super) fn begin_watch(&mut self) -> bool {
        self.may_stall() && !std::mem::replace(&mut self.watched, true)
    }

    /// For the watch. `waited_for`: a caller has work for the task.
    pub(super) fn look(&mut self, now: Instant, patience: Duration, waited_for: bool) -> Found {
        let Some(work) = self.work.clone().filter(|_| self.may_stall()) else {
            self.watched = false;
            return Found::Nothing;
        };
        let polls = work.polls();
        let Some(sight) = self.sight.as_mut().filter(|sight| sight.polls == polls) else {
            self.sight = Some(Sight { polls, since: now, pinged: None });
            if !waited_for {
                self.elsewhere = None;
            }
            return Found::Alive(now + patience / 2);
        };
        if now < sight.since + patience {
            return Found::Quiet(sight.since + patience);
        }
        let Some(elsewhere) = &self.elsewhere else {
            self.watched = false;
            return Found::Silent;
        };
        match sight.pinged {
            None => {
                sight.pinged = Some(now);
                Found::ToBeAsked(work, now + patience)
            }
            Some(pinged) if now < pinged + patience => Found::Quiet(pinged + patience),
            Some(_) => Found::Stalled(elsewhere.clone()),
        }
    }
}

/// A task that no longer counts as the counter's. Not to be cancelled with a lock held: its future takes some.
pub(super) struct Taken(Option<Arc<Detached>>);

impl Taken {
    pub(super) fn cancel(self) {
        if let Some(work) = self.0 {
            work.cancel();
        }
    }
}
