//! What callers have the task do with the writer lock. No caller holds that lock: its future may be polled once
//! and then be held.

use std::collections::VecDeque;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{committer::Committer, ledger::Ledger};

/// The requests of callers, in the order in which they came.
pub(super) struct Requests<L> {
    queue: VecDeque<(u64, Box<dyn Request<L>>)>,
    /// What the task is just doing.
    serving: Option<u64>,
    /// The number of the latest request.
    latest: u64,
}

/// A request that waits for the task.
pub(super) trait Request<L: Ledger>: Send {
    /// Does it, and answers the caller.
    fn serve<'s>(self: Box<Self>, committer: &'s mut Committer<'_, L>) -> BoxFuture<'s, ()>;

    /// There is no task to do it: the caller asks again.
    fn give_back(self: Box<Self>);
}

pub(super) enum Reply<F, T> {
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
    F: for<'s> FnOnce(&'s mut Committer<'_, L>) -> BoxFuture<'s, T> + Send + 'static,
    T: Send + 'static,
{
    fn serve<'s>(self: Box<Self>, committer: &'s mut Committer<'_, L>) -> BoxFuture<'s, ()> {
        Box::pin(async move { _ = self.reply.send(Reply::Done((self.work)(committer).await)) })
    }

    fn give_back(self: Box<Self>) {
        _ = self.reply.send(Reply::GivenBack(self.work));
    }
}

impl<L: Ledger> Requests<L> {
    pub(super) fn new() -> Self {
        Self { queue: VecDeque::new(), serving: None, latest: 0 }
    }

    /// Takes a request, and gives its number and the way to its answer.
    pub(super) fn push<F, T>(&mut self, work: F) -> (u64, oneshot::Receiver<Reply<F, T>>)
    where
        F: for<'s> FnOnce(&'s mut Committer<'_, L>) -> BoxFuture<'s, T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.latest += 1;
        self.queue.push_back((self.latest, Box::new(Asked { work, reply })));
        (self.latest, answer)
    }

    /// For the task: the request that waits longest.
    pub(super) fn begin(&mut self) -> Option<(u64, Box<dyn Request<L>>)> {
        let next = self.queue.pop_front()?;
        self.serving = Some(next.0);
        Some(next)
    }

    /// For the task: it has done the request. False when no caller waits for it any longer.
    pub(super) fn end(&mut self, request: u64) -> bool {
        self.serving.take_if(|serving| *serving == request).is_some()
    }

    /// Takes out a request that has not begun.
    pub(super) fn withdraw(&mut self, request: u64) -> Option<Box<dyn Request<L>>> {
        let place = self.queue.iter().position(|(number, _)| *number == request)?;
        self.queue.remove(place).map(|(_, request)| request)
    }

    /// Takes out all that have not begun.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Box<dyn Request<L>>> + use<L> {
        std::mem::take(&mut self.queue).into_iter().map(|(_, request)| request)
    }
}
