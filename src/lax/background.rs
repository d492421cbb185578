//! What the background task does: one pass after another, and what callers ask for in between.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{
    committer::{Committer, Writer},
    ledger::Ledger,
    request::Requests,
    settings::Settings,
    shared::Shared,
};
use crate::outage::Chain;

/// How often the store of a counter with windows is asked for its time, while the counter is used.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// How long a counter that was dropped tries to bring its last writes to the store.
const LAST_WRITES: Duration = Duration::from_secs(30);

pub(crate) struct Background<L> {
    pub(crate) shared: Shared<L>,
    writer: tokio::sync::Mutex<Writer>,
    pub(super) requests: Mutex<Requests<L>>,
}

impl<L: Ledger> Background<L> {
    pub(super) fn new(ledger: L, settings: Settings) -> Self {
        let writer = tokio::sync::Mutex::new(Writer::new(ledger.fresh_id()));
        let requests = Mutex::new(Requests::new());
        Self { shared: Shared::new(ledger, settings), writer, requests }
    }

    /// For the task, and for callers where there can be none.
    pub(super) async fn committer(&self) -> Committer<'_, L> {
        Committer::new(&self.shared, self.writer.lock().await)
    }

    /// Flushes, reads what is wanted, refreshes what is in use, sweeps what is not, and serves callers, until the
    /// counter has no user. With nothing of that to do it has no timer and sleeps until it is woken.
    pub(super) async fn run(&self, is_alive: impl Fn()) {
        if !self.shared.has_windows {
            return self.serve(is_alive).await;
        }
        // At its own pace: a request to the store that hangs must not keep writes from the next window.
        tokio::select! {
            biased;
            () = self.keep_time() => {}
            () = self.ask_time() => {}
            () = self.serve(is_alive) => {}
        }
    }

    /// Moves to the next window when it begins.
    async fn keep_time(&self) {
        loop {
            self.shared.look_at_clock();
            let left = self.shared.ledger.current_window().map(|current| current.left);
            // What the store tells of its time moves the end.
            sleep(left.unwrap_or(ASK_EVERY).min(ASK_EVERY)).await;
        }
    }

    /// Asks the store for its time now and then, as long as there are writes.
    async fn ask_time(&self) {
        loop {
            sleep(ASK_EVERY).await;
            if self.shared.takes_use_of_clock()
                && let Err(error) = self.shared.ledger.ask_time().await
            {
                tracing::debug!(
                    target: "distkit::lax",
                    prefix = self.shared.ledger.prefix(), shard = self.shared.ledger.counts().shard(),
                    error = %Chain(&error),
                    "the store did not answer its time; windows go by its last answer"
                );
            }
        }
    }

    async fn serve(&self, is_alive: impl Fn()) {
        let Shared { inbox, gate, .. } = &self.shared;
        while !gate.is_orphaned() {
            is_alive();
            let next = self.pass().await;
            let woken = if self.serve_one().await {
                true
            } else if let Some(at) = next {
                tokio::select! {
                    biased;
                    () = inbox.woken() => true,
                    () = sleep_until(at) => false,
                }
            } else {
                inbox.woken().await;
                true
            };
            if woken && !self.shared.table.is_empty() {
                let evict_after = self.shared.settings.evict_after;
                self.committer().await.schedule().plan_sweep(Instant::now(), evict_after);
            }
        }
        self.last_flush().await;
    }

    /// Does what is due and answers when to look again.
    async fn pass(&self) -> Option<Instant> {
        let mut committer = self.committer().await;
        committer.pass().await;
        [committer.flush_at(), committer.promises_at(), committer.schedule().next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Serves the request that waits longest. False when there is none.
    async fn serve_one(&self) -> bool {
        let Some((number, request)) = self.requests.lock().begin() else { return false };
        request.serve(&mut self.committer().await).await;
        if !self.requests.lock().end(number) {
            // Withdrawn: this task is about to be cancelled.
            std::future::pending::<()>().await;
        }
        true
    }

    /// Callers that wait ask again, and find another task or start one.
    pub(super) fn let_callers_ask_again(&self) {
        drop(self.shared.inbox.take_wanted());
        let requests = self.requests.lock().take();
        requests.for_each(|request| request.give_back());
    }

    async fn last_flush(&self) {
        let deadline = Instant::now() + LAST_WRITES;
        let flush = async {
            while self.shared.has_pending() {
                let Some(again) = self.committer().await.flush_for_good().await else { return };
                sleep_until(again).await;
            }
        };
        if timeout_at(deadline, flush).await.is_err() {
            let report = self.shared.give_up(None);
            tracing::error!(
                target: "distkit::lax",
                prefix = self.shared.ledger.prefix(), shard = self.shared.ledger.counts().shard(), %report,
                "a lax counter was dropped and its last writes are lost"
            );
        }
    }
}
