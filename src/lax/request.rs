//! What callers have the task do for them with the writer lock.
//!
//! No caller holds that lock: its future may be polled once and then be held.

use std::{collections::VecDeque, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{core::Core, ledger::Ledger, writer::Session};

/// How often work that may be done twice is asked for when the task ends in the middle of it.
const ATTEMPTS: usize = 4;

/// The task, or its runtime, ended while it did what it was asked for.
pub(super) struct Interrupted;

/// What the task is asked for.
pub(super) struct Requests<L> {
    queue: VecDeque<(u64, Box<dyn Request<L>>)>,
    /// What the task is just doing.
    serving: Option<u64>,
    /// The number of the latest request.
    latest: u64,
}

impl<L> Default for Requests<L> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), serving: None, latest: 0 }
    }
}

/// A request that waits for the task.
trait Request<L: Ledger>: Send {
    /// Does it, and answers the caller.
    fn serve<'s>(self: Box<Self>, session: &'s mut Session<'_, L>) -> BoxFuture<'s, ()>;

    /// There is no task to do it: the caller asks again.
    fn give_back(self: Box<Self>);
}

enum Reply<F, T> {
    Done(T),
    GivenBack(F),
}

struct Asked<F, T> {
    work: F,
    reply: oneshot::Sender<Reply<F, T>>,
}

impl<L, F, T> Request<L> for Asked<F, T>
where
    L: Ledger,
    F: for<'s> FnOnce(&'s mut Session<'_, L>) -> BoxFuture<'s, T> + Send + 'static,
    T: Send + 'static,
{
    fn serve<'s>(self: Box<Self>, session: &'s mut Session<'_, L>) -> BoxFuture<'s, ()> {
        Box::pin(async move { _ = self.reply.send(Reply::Done((self.work)(session).await)) })
    }

    fn give_back(self: Box<Self>) {
        _ = self.reply.send(Reply::GivenBack(self.work));
    }
}

/// A caller's hold on its request: dropping it cancels the request.
struct Caller<'c, L: Ledger> {
    core: &'c Arc<Core<L>>,
    request: u64,
    answered: bool,
}

impl<L: Ledger> Drop for Caller<'_, L> {
    fn drop(&mut self) {
        if !self.answered {
            self.core.withdraw(self.request);
        }
    }
}

impl<L: Ledger> Core<L> {
    /// Has the task do `work`. Dropping the future cancels it. Where there is no runtime for a task, the
    /// caller does it.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        mut work: impl for<'s> FnOnce(&'s mut Session<'_, L>) -> BoxFuture<'s, T> + Send + 'static,
    ) -> Result<T, Interrupted> {
        let _waiting = self.wait();
        loop {
            let (reply, answer) = oneshot::channel();
            let request = {
                let mut requests = self.requests.lock();
                requests.latest += 1;
                let number = requests.latest;
                requests.queue.push_back((number, Box::new(Asked { work, reply })));
                number
            };
            let mut caller = Caller { core: self, request, answered: false };
            self.ensure_task();
            let runs = self.is_running();
            if runs {
                self.wake.notify_one();
                self.step_task();
            } else {
                self.give_back_requests();
            }
            let answer = answer.await;
            caller.answered = true;
            work = match answer {
                Ok(Reply::Done(done)) => return Ok(done),
                Ok(Reply::GivenBack(work)) => work,
                Err(_) => return Err(Interrupted),
            };
            if !runs {
                let done = work(&mut self.session().await).await;
                self.wake.notify_one();
                return Ok(done);
            }
        }
    }

    /// [`ask`](Self::ask)s again when the task ends in the middle of it.
    pub(super) async fn ask_again<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'s> FnOnce(&'s mut Session<'_, L>) -> BoxFuture<'s, T> + Clone + Send + 'static,
    ) -> Result<T, Interrupted> {
        for _ in 1..ATTEMPTS {
            if let Ok(done) = self.ask(work.clone()).await {
                return Ok(done);
            }
            if self.gave_up() {
                return Err(Interrupted);
            }
        }
        self.ask(work).await
    }

    /// Nobody waits for the request any longer. One that is being done is cancelled, and the task with it.
    fn withdraw(self: &Arc<Self>, request: u64) {
        let (task, waiting) = {
            let mut requests = self.requests.lock();
            let place = requests.queue.iter().position(|(number, _)| *number == request);
            let waiting = place.and_then(|place| requests.queue.remove(place));
            // With the lock: the task begins nothing else in between.
            let serving = requests.serving.take_if(|serving| *serving == request);
            (serving.map(|_| self.take_task()), waiting)
        };
        drop(waiting);
        if let Some(task) = task {
            task.cancel();
            self.ensure_task();
        }
    }

    /// For the task: serves the request that waits longest. False when there is none.
    pub(super) async fn serve_one(self: &Arc<Self>) -> bool {
        let (number, request) = {
            let mut requests = self.requests.lock();
            let Some(next) = requests.queue.pop_front() else { return false };
            requests.serving = Some(next.0);
            next
        };
        request.serve(&mut self.session().await).await;
        if self.requests.lock().serving.take_if(|serving| *serving == number).is_none() {
            // Withdrawn: this task is about to be cancelled.
            std::future::pending::<()>().await;
        }
        true
    }

    /// Their callers find another task, or start one.
    pub(super) fn give_back_requests(&self) {
        let requests = std::mem::take(&mut self.requests.lock().queue);
        requests.into_iter().for_each(|(_, request)| request.give_back());
    }
}
