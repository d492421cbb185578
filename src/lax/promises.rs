//! Additions under tokens that a counter has accepted and the store has not acknowledged.
//!
//! They are not summed: each is sent by itself, and until it is answered it is part of its cell's estimate.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::cell::{Cell, Totals};
use crate::Token;

/// One addition under a token.
#[derive(Clone)]
pub(crate) struct Promise {
    pub(crate) cell: Arc<Cell>,
    pub(crate) token: Token,
    pub(crate) count: i64,
}

/// Why an addition was not accepted.
pub(super) enum NoPromise {
    TooMany,
    Overflow,
}

#[derive(Default)]
pub(super) struct Promises(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// In the order in which they are sent.
    waiting: VecDeque<Promise>,
    /// How many of the first are in a request, or were in one that was not answered.
    sent: usize,
    /// Nothing was waiting besides, when these were taken.
    all_sent: bool,
    /// Not later than when the oldest was accepted.
    since: Option<Instant>,
}

impl Promises {
    /// Accepts an addition. Gives the estimate of the total, and whether it is the first, for which the task must be
    /// woken.
    pub(super) fn accept(
        &self,
        promise: Promise,
        limit: usize,
        totals: &Totals<'_>,
    ) -> Result<(i64, bool), NoPromise> {
        let mut queue = self.0.lock();
        if queue.waiting.len() >= limit {
            return Err(NoPromise::TooMany);
        }
        let estimate = promise.cell.promise(promise.count, totals).ok_or(NoPromise::Overflow)?;
        queue.waiting.push_back(promise);
        let first = queue.since.is_none();
        queue.since.get_or_insert_with(Instant::now);
        Ok((estimate, first))
    }

    pub(super) fn number(&self) -> usize {
        self.0.lock().waiting.len()
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.0.lock().since
    }

    /// For the committer: the first ones, to be sent. They stay until [`end`](Self::end) or [`put_back`](Self::put_back).
    pub(super) fn begin(&self, most: usize) -> Vec<Promise> {
        let mut queue = self.0.lock();
        let batch: Vec<_> = queue.waiting.iter().take(most).cloned().collect();
        queue.sent = batch.len();
        queue.all_sent = queue.sent == queue.waiting.len();
        batch
    }

    /// For the committer: what began then was answered.
    pub(super) fn end(&self, begun: Instant) {
        let mut queue = self.0.lock();
        let sent = std::mem::take(&mut queue.sent);
        queue.waiting.drain(..sent);
        queue.since = match queue.since {
            _ if queue.waiting.is_empty() => None,
            // What is left came since.
            _ if queue.all_sent => Some(begun),
            since => since,
        };
    }

    /// For the committer: what began was certainly not applied.
    pub(super) fn put_back(&self) {
        self.0.lock().sent = 0;
    }

    /// Has those of some cells sent next. Gives how many there are.
    pub(super) fn prefer(&self, of: impl Fn(&Arc<Cell>) -> bool) -> usize {
        let mut queue = self.0.lock();
        let sent = queue.sent;
        if queue.waiting.len() <= sent {
            return sent;
        }
        let unsent = &mut queue.waiting.make_contiguous()[sent..];
        // Stable: the order of one key's stays.
        unsent.sort_by_cached_key(|promise| !of(&promise.cell));
        sent + unsent.iter().take_while(|promise| of(&promise.cell)).count()
    }

    /// Whether one is of this cell.
    pub(super) fn has(&self, cell: &Arc<Cell>) -> bool {
        self.0.lock().waiting.iter().any(|promise| Arc::ptr_eq(&promise.cell, cell))
    }

    /// Those in a request, and the others.
    pub(super) fn list(&self) -> (Vec<Promise>, Vec<Promise>) {
        let queue = self.0.lock();
        let (sent, unsent) =
            (queue.waiting.iter().take(queue.sent), queue.waiting.iter().skip(queue.sent));
        (sent.cloned().collect(), unsent.cloned().collect())
    }

    /// For the committer: none of them will reach the store any more.
    pub(super) fn take_all(&self) -> Vec<Promise> {
        std::mem::take(&mut *self.0.lock()).waiting.into()
    }
}

/// How many go into one request at most.
pub(super) const BATCH: usize = 500;
