//! Work in a task of its own, which does not depend on whether the task is polled.
//!
//! A caller's future may be polled once and then be held. What such a future holds, nobody else gets. So work
//! that holds something which others need runs in a task. Aborting a task of tokio drops its future only once
//! its runtime polls it, which a runtime that is not driven never does. So the future is kept where it can be
//! dropped by anybody at once.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

/// Work that a task does, and that anybody can cancel at once.
pub(crate) struct Detached(Mutex<Inner>);

struct Inner {
    place: Place,
    /// Of the task that polls the work.
    waker: Option<Waker>,
    /// How often it was polled, modulo 2^64.
    polls: u64,
    /// Somebody wanted to poll it while somebody else did.
    missed: bool,
}

enum Place {
    Waiting(BoxFuture<'static, ()>),
    /// It is with whoever polls it.
    Polled,
    /// It has ended, or was cancelled.
    Gone,
}

impl Detached {
    pub(crate) fn new(work: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        let place = Place::Waiting(Box::pin(work));
        Arc::new(Self(Mutex::new(Inner { place, waker: None, polls: 0, missed: false })))
    }

    /// The task. The work ends with it, at the latest.
    pub(crate) fn run(self: &Arc<Self>) -> impl Future<Output = ()> + Send + 'static {
        let task = CancelOnDrop(Arc::clone(self));
        poll_fn(move |context| {
            {
                let mut inner = task.0.0.lock();
                if inner.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
                    inner.waker = Some(context.waker().clone());
                }
            }
            task.0.poll(context)
        })
    }

    /// Does what can be done at once, as the task would. Only on the task's own runtime, whose timers the work
    /// uses, and only once the task is sure to be polled after this.
    pub(crate) fn poll_here(&self) {
        let waker = self.0.lock().waker.clone();
        // A task that was never polled will be, and leaves its waker then.
        let waker = waker.as_ref().unwrap_or(Waker::noop());
        _ = self.poll(&mut Context::from_waker(waker));
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut work = {
            let mut inner = self.0.lock();
            inner.polls = inner.polls.wrapping_add(1);
            match std::mem::replace(&mut inner.place, Place::Polled) {
                Place::Waiting(work) => work,
                Place::Polled => {
                    inner.missed = true;
                    return Poll::Pending;
                }
                Place::Gone => {
                    inner.place = Place::Gone;
                    return Poll::Ready(());
                }
            }
        };
        let panics = CancelOnPanic(self);
        // Without the lock: the work may cancel itself, or others that wait for it.
        let polled = work.as_mut().poll(context);
        std::mem::forget(panics);
        let (missed, ended) = {
            let mut inner = self.0.lock();
            let missed = std::mem::take(&mut inner.missed).then(|| inner.waker.clone());
            match (polled, &inner.place) {
                (Poll::Pending, Place::Polled) => {
                    inner.place = Place::Waiting(work);
                    (missed, None)
                }
                _ => {
                    inner.place = Place::Gone;
                    (missed, Some(work))
                }
            }
        };
        if let Some(waker) = missed.flatten() {
            waker.wake();
        }
        if ended.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A number that changes whenever the work is polled: the sign that its runtime is driven.
    pub(crate) fn polls(&self) -> u64 {
        self.0.lock().polls
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.0.lock().place, Place::Gone)
    }

    /// Has the task poll the work, whatever it waits for, if its runtime is driven.
    pub(crate) fn ping(&self) {
        let waker = self.0.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops the work now, or, where it is just being polled, at the end of that poll.
    pub(crate) fn cancel(&self) {
        let (place, waker) = {
            let mut inner = self.0.lock();
            (std::mem::replace(&mut inner.place, Place::Gone), inner.waker.take())
        };
        // Without the lock: what is dropped may cancel others, or be found cancelled.
        drop(place);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Work that panics has ended, whoever polled it.
struct CancelOnPanic<'d>(&'d Detached);

impl Drop for CancelOnPanic<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Cancels the work when it is dropped.
struct CancelOnDrop(Arc<Detached>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
