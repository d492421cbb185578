//! What callers do with one key: additions, and reads, mostly without the task.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use super::{
    cell::Cell,
    engine::Engine,
    ledger::Ledger,
    promises::{NoPromise, Promise},
};
use crate::{
    DistkitError, RedisKey, Token,
    backend::{BackendError, Refusal},
};

impl<L: Ledger> Engine<L> {
    /// In a box, so that the futures of all the other calls are small.
    #[cold]
    pub(crate) fn known_in_a_box<'a>(
        self: &'a Arc<Self>,
        key: &'a RedisKey,
    ) -> BoxFuture<'a, Result<Arc<Cell>, DistkitError>> {
        Box::pin(self.known(key))
    }

    /// Adds to a cell with which nothing is to be done besides, as most additions do, and answers the new
    /// total as far as it is this process's own. `None`, and nothing changed: it takes the long way.
    #[inline]
    pub(crate) fn add_quickly(self: &Arc<Self>, cell: &Arc<Cell>, count: i64) -> Option<i64> {
        // A dirty cell is counted among the pending ones already.
        let ready = cell.is_touched() && cell.tally.is_dirty() && self.shared().gate.is_open();
        let own = if ready { cell.tally.add_fast(count)? } else { return None };
        self.mark(cell);
        Some(own)
    }

    #[inline]
    pub(crate) fn add_to(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        count: i64,
    ) -> Result<i64, DistkitError> {
        self.add_to_own(cell, count).map(|own| cell.with_others(own))
    }

    /// Adds to a key in the current window, of whatever window the cell is that the caller holds.
    #[inline]
    pub(crate) fn add_to_held(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        count: i64,
    ) -> Result<i64, DistkitError> {
        let shared = self.shared();
        // While it is dirty, the task looks at the clock.
        if !shared.has_windows || shared.is_current(cell) && cell.tally.is_dirty() {
            self.add_to(cell, count)
        } else {
            shared.use_clock();
            self.add_to(&self.current(cell), count)
        }
    }

    /// The estimate of a key in the current window.
    #[inline]
    pub(crate) fn estimate_of_held(&self, cell: &Arc<Cell>) -> i64 {
        if !self.shared().has_windows {
            return cell.estimate();
        }
        self.shared().use_clock();
        self.current(cell).estimate()
    }

    /// The cell of the same key in the current window.
    fn current(&self, cell: &Arc<Cell>) -> Arc<Cell> {
        match self.shared().is_current(cell) {
            true => Arc::clone(cell),
            false => self.cell(&cell.key),
        }
    }

    /// Finds out which window is current, without I/O.
    #[inline]
    pub(crate) fn use_clock(&self) {
        self.shared().use_clock();
    }

    /// The same; asks the store for its time, if it was not asked yet.
    pub(crate) async fn find_window(&self) -> Result<(), DistkitError> {
        match self.shared().has_windows {
            true => self.shared().find_window().await,
            false => Ok(()),
        }
    }

    /// Adds, and answers the own part.
    #[inline]
    pub(crate) fn add_to_own(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        count: i64,
    ) -> Result<i64, DistkitError> {
        if !self.shared().gate.is_open() {
            self.start()?;
        }
        cell.touch();
        // A dirty cell is already counted. If an overflow leaves a counted cell unchanged, the next flush
        // uncounts it.
        if !cell.tally.is_dirty() {
            self.count_pending(cell)?;
        }
        let tally = &cell.tally;
        let sum = tally
            .add_fast(count)
            .or_else(|| tally.add_near(count))
            .or_else(|| self.add_checked(cell, count));
        self.mark(cell);
        sum.ok_or_else(|| overflow(cell))
    }

    /// Accepts an addition that is to happen once for its token, and gives the estimate of the total.
    pub(crate) fn promise(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        count: i64,
        token: &Token,
    ) -> Result<i64, DistkitError> {
        self.start()?;
        cell.touch();
        let (shared, limit) = (self.shared(), self.shared().settings.max_pending);
        let promise = Promise { cell: Arc::clone(cell), token: token.clone(), count };
        let accepted = {
            let totals = shared.table.totals();
            // With the lock: what comes after the report of a shutdown would be lost without a word.
            if self.is_closed() {
                return Err(DistkitError::ShutDown);
            }
            shared.promises.accept(promise, limit, &totals)
        };
        match accepted {
            Ok((estimate, first)) => {
                if first {
                    self.ensure_task();
                    self.wake_task();
                }
                Ok(estimate)
            }
            Err(NoPromise::TooMany) => Err(DistkitError::TooManyPending { limit }),
            Err(NoPromise::Overflow) => Err(overflow(cell)),
        }
    }

    #[cold]
    fn add_checked(&self, cell: &Cell, count: i64) -> Option<i64> {
        let totals = self.shared().table.totals();
        if cell.has_room_beside_batch(count, &totals) {
            cell.tally.add_checked(count)
        } else {
            None
        }
    }

    /// Makes room for a write among those that are pending.
    #[cfg(feature = "instance-aware-counter")]
    pub(crate) fn reserve(self: &Arc<Self>, cell: &Arc<Cell>) -> Result<(), DistkitError> {
        self.start()?;
        self.count_pending(cell)?;
        self.mark(cell);
        Ok(())
    }

    /// Makes the own part `own`, whatever it is in the store by the time that this gets there.
    #[cfg(feature = "instance-aware-counter")]
    pub(crate) fn replace(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        own: i64,
    ) -> Result<(), DistkitError> {
        self.start()?;
        cell.touch();
        self.count_pending(cell)?;
        {
            let totals = self.shared().table.totals();
            cell.set_replaces(true, &totals);
            cell.tally.replace(own);
        }
        self.mark(cell);
        Ok(())
    }

    /// Works on a key's cell, if its total is known.
    #[inline]
    pub(crate) fn with_known<T>(
        &self,
        key: &RedisKey,
        work: impl FnOnce(&Arc<Cell>) -> T,
    ) -> Option<T> {
        let shared = self.shared();
        let usable = |cell: &Cell| cell.known_at() != 0 && shared.is_current(cell);
        shared.table.with(key, |cell| usable(cell).then(|| work(cell)))
    }

    #[cold]
    fn count_pending(&self, cell: &Cell) -> Result<(), DistkitError> {
        self.shared().table.try_count(cell, self.shared().settings.max_pending)
    }

    /// Says that there is something to commit.
    #[inline]
    fn mark(self: &Arc<Self>, cell: &Arc<Cell>) {
        if !cell.tally.is_dirty() {
            self.push_dirty(cell);
        }
    }

    #[cold]
    fn push_dirty(self: &Arc<Self>, cell: &Arc<Cell>) {
        let shared = self.shared();
        if shared.inbox.mark(cell, &shared.table) {
            self.ensure_task();
            self.wake_task();
        }
    }

    /// The total: from memory when it is fresh, else from the store.
    #[inline]
    pub(crate) async fn get(self: &Arc<Self>, key: &RedisKey) -> Result<i64, DistkitError> {
        match self.try_get(key) {
            Some(total) => Ok(total),
            None => self.read_again(key).await.map(|cell| cell.estimate()),
        }
    }

    /// The key's cell, just read and kept fresh from now on.
    #[cold]
    pub(crate) fn read_again<'a>(
        self: &'a Arc<Self>,
        key: &'a RedisKey,
    ) -> BoxFuture<'a, Result<Arc<Cell>, DistkitError>> {
        Box::pin(async move {
            self.find_window().await?;
            let cell = self.cell(key);
            self.read(&cell).await?;
            self.keep_fresh(&cell);
            Ok(cell)
        })
    }

    #[inline]
    fn try_get(self: &Arc<Self>, key: &RedisKey) -> Option<i64> {
        let shared = self.shared();
        let answer = |cell: &Arc<Cell>| {
            (shared.is_current(cell) && self.is_fresh(cell)).then(|| cell.estimate())
        };
        shared.table.with(key, answer)
    }

    /// Whether the total is known well enough to answer with it. Keeps it so, then.
    #[inline]
    pub(crate) fn is_fresh(self: &Arc<Self>, cell: &Arc<Cell>) -> bool {
        cell.touch();
        let fresh = self.shared().is_fresh(cell.known_at());
        if fresh {
            self.keep_fresh(cell);
        }
        fresh
    }

    #[inline]
    fn keep_fresh(self: &Arc<Self>, cell: &Arc<Cell>) {
        if cell.keep_fresh() && self.shared().inbox.keep_fresh(cell) {
            self.ensure_task();
            self.wake_task();
        }
    }

    /// The key's cell, which a sweep may have dropped or may drop again before it is read.
    pub(crate) fn cell(&self, key: &RedisKey) -> Arc<Cell> {
        self.shared().cell(key)
    }

    /// The key's cell, once its total is known.
    pub(crate) async fn known(self: &Arc<Self>, key: &RedisKey) -> Result<Arc<Cell>, DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        self.find_window().await?;
        let cell = self.cell(key);
        if cell.known_at() == 0 {
            self.read(&cell).await?;
        }
        Ok(cell)
    }

    /// The keys' cells in their engines, once all their totals are known.
    pub(crate) async fn all_known<'k>(
        keys: impl Iterator<Item = (&'k Arc<Self>, &'k RedisKey)>,
    ) -> Vec<Result<Arc<Cell>, DistkitError>> {
        let (engines, keys): (Vec<_>, Vec<_>) = keys.unzip();
        // At the same time, so that those that are not known are read in one request.
        let mut cells =
            join_all(engines.iter().zip(keys).map(|(engine, key)| engine.known(key))).await;
        // While it is waited for some, others may be forgotten.
        let forgotten =
            |cell: &Result<Arc<Cell>, _>| cell.as_ref().is_ok_and(|c| c.known_at() == 0);
        while cells.iter().any(forgotten) {
            let all = engines.iter().zip(&mut cells);
            let again = all.filter(|(_, cell)| forgotten(cell)).map(|(engine, found)| async move {
                if let Ok(cell) = found
                    && let Err(error) = engine.read(cell).await
                {
                    *found = Err(error);
                }
            });
            join_all(again).await;
        }
        cells
    }

    /// Has the task read the cell's total, together with whatever else is wanted at the moment.
    async fn read(self: &Arc<Self>, cell: &Arc<Cell>) -> Result<(), DistkitError> {
        let inbox = &self.shared().inbox;
        let _waiting = inbox.wait();
        loop {
            let answer = inbox.want(cell);
            self.ensure_task();
            if !self.is_running() {
                drop(answer);
                inbox.forget_unwanted();
                let cause = "there is no runtime to ask the store on";
                return Err(BackendError::not_applied(cause).into());
            }
            self.wake_task();
            // No answer: the task's runtime ended, or is not driven. The next one gets the question again.
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
    }
}

#[cold]
fn overflow(cell: &Cell) -> DistkitError {
    DistkitError::refused(&cell.key, Refusal::Overflow)
}
