//! Whether a counter takes writes, and how it ends.

use super::atomic::{
    AtomicBool, AtomicU8,
    Ordering::{Relaxed, SeqCst},
};

/// The task runs, and is not suspected to be on a runtime that is not driven. Alone, it is the state in which an
/// addition needs no look at anything else.
const RUNNING: u8 = 1;
const CLOSED: u8 = 2;
const GAVE_UP: u8 = 4;

#[derive(Default)]
pub(super) struct Gate {
    state: AtomicU8,
    /// The owner is gone: flush, and end.
    orphaned: AtomicBool,
    /// A shutdown ran out of time: what is pending has been reported, and is to be dropped.
    given_up: AtomicBool,
}

impl Gate {
    /// Whether additions pass without a look at the task.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Relaxed) == RUNNING
    }

    /// Whether additions may rely on the task.
    pub(super) fn relies_on_task(&self) -> bool {
        self.state.load(SeqCst) & RUNNING != 0
    }

    /// To be changed with the lock on the task held.
    pub(super) fn rely_on_task(&self, rely: bool) {
        if rely {
            self.state.fetch_or(RUNNING, SeqCst);
        } else {
            self.state.fetch_and(!RUNNING, SeqCst);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.load(SeqCst) & CLOSED != 0
    }

    /// True when it was closed before.
    pub(super) fn close(&self) -> bool {
        self.state.fetch_or(CLOSED, SeqCst) & CLOSED != 0
    }

    /// A shutdown reported writes that will not arrive.
    pub(super) fn note_loss(&self) {
        self.state.fetch_or(GAVE_UP, SeqCst);
    }

    pub(super) fn has_lost(&self) -> bool {
        self.state.load(SeqCst) & GAVE_UP != 0
    }

    pub(super) fn orphan(&self) {
        self.orphaned.store(true, SeqCst);
    }

    pub(super) fn is_orphaned(&self) -> bool {
        self.orphaned.load(SeqCst)
    }

    /// Has what is pending dropped by the committer.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, SeqCst);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(SeqCst)
    }

    /// For the committer, which drops what is pending if this is true.
    pub(super) fn take_given_up(&self) -> bool {
        self.given_up.swap(false, SeqCst)
    }
}
