//! What callers have the task do for them, or do at its end.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use super::{
    atomic::{AtomicBool, Ordering::SeqCst},
    committer::Committer,
    engine::Engine,
    ledger::Ledger,
    report::{Unflushed, UnflushedToken},
    request::Reply,
    schedule::backoff,
};
use crate::{
    DistkitError, RedisKey,
    answers::named,
    backend::{BackendError, Scope},
};

/// How often work that may be done twice is asked for when the task ends in the middle of it.
const ATTEMPTS: usize = 4;

/// One for each item, or why there is none.
type Answers<T> = Result<Vec<Result<T, DistkitError>>, DistkitError>;

/// The task, or its runtime, ended while it did what it was asked for.
struct Interrupted;

impl Interrupted {
    /// Nothing was sent, or nothing that may not be sent again.
    fn not_applied(self) -> DistkitError {
        let cause = "the counter's task ended before it came to the request";
        BackendError::not_applied(cause).into()
    }
}

/// A caller's hold on its request: dropping it cancels the request.
struct Caller<'e, L: Ledger> {
    engine: &'e Arc<Engine<L>>,
    request: u64,
    answered: bool,
}

impl<L: Ledger> Drop for Caller<'_, L> {
    fn drop(&mut self) {
        if !self.answered {
            self.engine.withdraw(self.request);
        }
    }
}

impl<L: Ledger> Engine<L> {
    /// Has the task do `work`. Dropping the future cancels it. Where there is no runtime for a task, the
    /// caller does it.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        mut work: impl for<'s> FnOnce(&'s mut Committer<'_, L>) -> BoxFuture<'s, T> + Send + 'static,
    ) -> Result<T, Interrupted> {
        let _waiting = self.shared().inbox.wait();
        loop {
            let (request, answer) = self.background.requests.lock().push(work);
            let mut caller = Caller { engine: self, request, answered: false };
            self.ensure_task();
            let runs = self.is_running();
            if runs {
                self.wake_task();
                self.step_task();
            } else {
                self.background.let_callers_ask_again();
            }
            let answer = answer.await;
            caller.answered = true;
            work = match answer {
                Ok(Reply::Done(done)) => return Ok(done),
                Ok(Reply::GivenBack(work)) => work,
                Err(_) => return Err(Interrupted),
            };
            if !runs {
                let done = work(&mut self.background.committer().await).await;
                self.wake_task();
                return Ok(done);
            }
        }
    }

    /// [`ask`](Self::ask)s again when the task ends in the middle of it.
    async fn ask_again<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'s> FnOnce(&'s mut Committer<'_, L>) -> BoxFuture<'s, T> + Clone + Send + 'static,
    ) -> Result<T, Interrupted> {
        for _ in 1..ATTEMPTS {
            if let Ok(done) = self.ask(work.clone()).await {
                return Ok(done);
            }
            if self.shared().gate.has_lost() {
                return Err(Interrupted);
            }
        }
        self.ask(work).await
    }

    /// Has the task do `work`, which sets the flag before it sends what is not to be sent twice.
    async fn act<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl for<'s> FnOnce(
            &'s mut Committer<'_, L>,
            Arc<AtomicBool>,
        ) -> BoxFuture<'s, Result<T, DistkitError>>
        + Send
        + 'static,
    ) -> Result<T, DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        self.find_window().await?;
        let counts = self.ledger().counts();
        let sent = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&sent);
        match self.ask(|committer| work(committer, asked)).await {
            Ok(done) => counts.told(done),
            Err(Interrupted) if sent.load(SeqCst) => {
                let cause = "the counter's task ended before the store answered";
                counts.told(Err(BackendError::outcome_unknown(cause).into()))
            }
            Err(interrupted) => Err(interrupted.not_applied()),
        }
    }

    /// Does each write, in order, after what was written before to the same keys.
    pub(crate) fn write_now<'a>(
        self: &'a Arc<Self>,
        writes: &'a [L::Write],
    ) -> BoxFuture<'a, Answers<L::Written>> {
        // A box shows the compiler that it can be sent to other threads, whatever borrows the caller has.
        Box::pin(async move {
            if writes.is_empty() {
                return Ok(Vec::new());
            }
            let writes = writes.to_vec();
            self.act(|committer, sent| {
                Box::pin(async move {
                    let outcomes = committer.write(&writes, &sent).await?;
                    Ok(named(&writes, outcomes))
                })
            })
            .await
        })
    }

    /// Removes all keys, or the own parts of them, and with them what is pending.
    pub(crate) async fn clear(self: &Arc<Self>, scope: Scope) -> Result<(), DistkitError> {
        self.act(move |committer, sent| {
            Box::pin(async move { committer.clear(scope, &sent).await })
        })
        .await
    }

    /// Everything written before the call is in the store when this returns `Ok`.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), DistkitError> {
        match self.ask_again(|committer| Box::pin(committer.flush())).await {
            Ok(flushed) => flushed,
            Err(_) if self.shared().gate.has_lost() => Err(DistkitError::ShutDown),
            Err(interrupted) => Err(interrupted.not_applied()),
        }
    }

    /// Brings what is pending on a key in that window to the store.
    pub(crate) async fn flush_key_in(
        self: &Arc<Self>,
        key: &RedisKey,
        window: u64,
    ) -> Result<(), DistkitError> {
        for cell in self.shared().table.all_in(key, window) {
            let pending = {
                let totals = self.shared().table.totals();
                cell.is_pending(&totals)
            };
            if pending {
                let flushed = self.ask_again(|committer| Box::pin(committer.flush_key(cell)));
                flushed.await.unwrap_or_else(|interrupted| Err(interrupted.not_applied()))?;
            }
        }
        Ok(())
    }

    /// Brings what is pending on a key to the store.
    pub(crate) async fn flush_key(self: &Arc<Self>, key: &RedisKey) -> Result<(), DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        self.find_window().await?;
        let cell = self.cell(key);
        let flushed = self.ask_again(|committer| Box::pin(committer.flush_key(cell)));
        flushed.await.unwrap_or_else(|interrupted| Err(interrupted.not_applied()))
    }

    /// Brings the additions under tokens of a key to the store.
    pub(crate) async fn flush_promises(
        self: &Arc<Self>,
        key: &RedisKey,
    ) -> Result<(), DistkitError> {
        let cell = self.shared().table.with(key, |cell| Some(Arc::clone(cell)));
        let Some(cell) = cell.filter(|cell| self.shared().promises.has(cell)) else {
            return Ok(());
        };
        let flushed = self.ask_again(|committer| Box::pin(committer.flush_promises(cell)));
        flushed.await.unwrap_or_else(|interrupted| Err(interrupted.not_applied()))
    }

    /// Takes what was found to have been added before.
    pub(crate) fn take_replayed(&self) -> Vec<UnflushedToken> {
        self.shared().losses.lock().take_replayed()
    }

    /// Takes no more writes, and flushes until all is in the store or the time is up.
    pub(crate) async fn shutdown(self: &Arc<Self>, within: Duration) -> Result<(), Unflushed> {
        self.close();
        let mut cause = None;
        let flushed = tokio::time::timeout(within, async {
            let mut delays = backoff();
            loop {
                match self.ask(|committer| Box::pin(committer.flush_and_report())).await {
                    Ok(Ok(report)) => return report,
                    Ok(Err(error)) => cause = Some(error),
                    Err(Interrupted) => {}
                }
                tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
            }
        })
        .await;
        let report = match flushed {
            Ok(report) => report,
            Err(_) => {
                // The task may be blocked in a request with the writer lock held: abort it.
                self.abort_task();
                let report = self.give_up(cause);
                self.ensure_task();
                report
            }
        };
        if report.is_empty() { Ok(()) } else { Err(report) }
    }

    /// Reports all that the store has not acknowledged, and has it dropped.
    pub(crate) fn give_up(&self, cause: Option<DistkitError>) -> Unflushed {
        self.shared().give_up(cause)
    }
}
