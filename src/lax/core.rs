use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use dashmap::DashMap;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst},
    cell::{ByKey, Cell},
    ledger::{Delta, Ledger},
    pending::Pending,
    report::Losses,
    request::Requests,
    settings::Settings,
    task::{RUNNING, Task},
    writer::Writer,
};
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Refusal},
};

/// Apart from its neighbours' cache lines.
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

/// Cells with additions to commit.
#[derive(Default)]
pub(super) struct Dirty {
    pub(super) cells: Vec<Arc<Cell>>,
    /// When the first of them was marked.
    pub(super) since: Option<Instant>,
}

/// Someone who waits for a cell's total.
pub(super) struct Wanted {
    pub(super) cell: Arc<Cell>,
    pub(super) reply: oneshot::Sender<Result<(), DistkitError>>,
}

/// The state of a lax counter. Its task holds it, too: see [`Owner`] for what a user's drop means.
pub(crate) struct Core<L> {
    pub(crate) ledger: L,
    pub(super) settings: Settings,
    pub(super) cells: DashMap<ByKey, (), foldhash::fast::RandomState>,
    /// Whether the task runs, and whether no more writes are taken.
    pub(super) state: AtomicU8,
    /// The owner is gone: flush, and end.
    pub(super) orphaned: AtomicBool,
    /// A shutdown ran out of time: what is pending has been reported, and is dropped.
    pub(super) given_up: AtomicBool,
    epoch: OnceLock<Instant>,
    pub(super) wake: Notify,
    pub(super) writer: tokio::sync::Mutex<Writer>,
    pub(super) task: Mutex<Task>,
    /// What is in the batch that is under way.
    pub(super) under_way: Mutex<Option<Arc<Vec<Delta>>>>,
    pub(super) losses: Mutex<Losses>,
    pub(super) wanted: Mutex<Vec<Wanted>>,
    /// How many calls wait for the task.
    pub(super) waiting: AtomicUsize,
    pub(super) requests: Mutex<Requests<L>>,
    pub(super) refresh: Mutex<Vec<Arc<Cell>>>,
    /// Held while a base moves, and while an estimate and whether it replaces what the store holds change together.
    pub(crate) replacing: Mutex<()>,
    pub(super) pending: Apart<Pending>,
    pub(super) dirty: Apart<Mutex<Dirty>>,
}

/// The users' hold on a core. Dropping the last one flushes in the background and ends the task.
pub(crate) struct Owner<L: Ledger>(pub(crate) Arc<Core<L>>);

impl<L: Ledger> Drop for Owner<L> {
    fn drop(&mut self) {
        self.0.orphaned.store(true, SeqCst);
        // One that runs where nobody drives it is to end, too, with all that it holds.
        if self.0.has_pending() || self.0.is_running() {
            self.0.ensure_task();
        }
        self.0.wake.notify_one();
        if !self.0.is_running() {
            // The task does it at its end: the core itself may live a little longer, in the hands of the watch.
            self.0.ledger.end();
        }
    }
}

impl<L: Ledger> Core<L> {
    pub(crate) fn new(ledger: L, settings: Settings) -> Arc<Self> {
        let settings = settings.within_bounds();
        Arc::new(Self {
            writer: tokio::sync::Mutex::new(Writer::new(ledger.fresh_id())),
            ledger,
            settings,
            cells: DashMap::with_hasher(foldhash::fast::RandomState::default()),
            state: AtomicU8::new(0),
            orphaned: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            epoch: OnceLock::new(),
            wake: Notify::new(),
            task: Mutex::default(),
            under_way: Mutex::default(),
            losses: Mutex::default(),
            wanted: Mutex::default(),
            waiting: AtomicUsize::new(0),
            requests: Mutex::default(),
            refresh: Mutex::default(),
            replacing: Mutex::default(),
            pending: Apart(Pending::default()),
            dirty: Apart(Mutex::default()),
        })
    }

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
        let ready =
            cell.is_touched() && cell.tally.is_dirty() && self.state.load(Relaxed) == RUNNING;
        let own = if ready { cell.tally.add_easily(count)? } else { return None };
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

    /// Adds, and answers the own part.
    #[inline]
    pub(crate) fn add_to_own(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        count: i64,
    ) -> Result<i64, DistkitError> {
        if self.state.load(Relaxed) != RUNNING {
            self.start()?;
        }
        cell.touch();
        // A dirty cell is counted already. A count that a clean one takes in vain, for an overflow, is
        // returned by the flush that finds nothing to send.
        if !cell.tally.is_dirty() {
            self.count_pending(cell)?;
        }
        let tally = &cell.tally;
        let sum = tally
            .add_easily(count)
            .or_else(|| tally.add_near(count))
            .or_else(|| self.add_carefully(cell, count));
        self.mark(cell);
        sum.ok_or_else(|| overflow(cell))
    }

    #[cold]
    fn add_carefully(&self, cell: &Cell, count: i64) -> Option<i64> {
        let _replacing = self.replacing.lock();
        if cell.has_room_beside_batch(count) { cell.tally.add_carefully(count) } else { None }
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
            let _replacing = self.replacing.lock();
            cell.set_replaces(true);
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
        let entry = self.cells.get(key.as_str())?;
        let cell = &entry.key().0;
        (cell.known_at() != 0).then(|| work(cell))
    }

    #[cold]
    fn count_pending(&self, cell: &Cell) -> Result<(), DistkitError> {
        let limit = self.settings.max_pending;
        if self.pending.0.try_count(cell, limit) {
            Ok(())
        } else {
            Err(DistkitError::TooManyPending { limit })
        }
    }

    /// For the committer: the cell has nothing pending, unless it is dirty again.
    pub(super) fn uncount_pending(&self, cell: &Cell) {
        if !cell.tally.is_dirty() {
            self.pending.0.uncount(cell);
        }
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.pending.0.any()
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
        let first = {
            let mut dirty = self.dirty.0.lock();
            // Not before: who finds the mark relies on the cell being on the list.
            if !cell.tally.mark() {
                return;
            }
            // It was, but a batch that ended since then may have taken the count back.
            self.pending.0.count(cell);
            dirty.cells.push(Arc::clone(cell));
            let first = dirty.since.is_none();
            if first {
                dirty.since = Some(Instant::now());
            }
            first
        };
        if first {
            self.ensure_task();
            self.wake.notify_one();
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
            let cell = self.cell(key);
            self.read(&cell).await?;
            self.keep_fresh(&cell);
            Ok(cell)
        })
    }

    #[inline]
    pub(crate) fn try_get(self: &Arc<Self>, key: &RedisKey) -> Option<i64> {
        let entry = self.cells.get(key.as_str())?;
        self.try_get_of(&entry.key().0)
    }

    #[inline]
    pub(crate) fn try_get_of(self: &Arc<Self>, cell: &Arc<Cell>) -> Option<i64> {
        self.is_fresh(cell).then(|| cell.estimate())
    }

    /// Whether the total is known well enough to answer with it. Keeps it so, then.
    #[inline]
    pub(crate) fn is_fresh(self: &Arc<Self>, cell: &Arc<Cell>) -> bool {
        cell.touch();
        let known_at = cell.known_at();
        if known_at == 0 || self.now().saturating_sub(known_at) > micros(self.settings.lag) {
            return false;
        }
        self.keep_fresh(cell);
        true
    }

    fn keep_fresh(self: &Arc<Self>, cell: &Arc<Cell>) {
        if cell.keep_fresh() {
            let first = {
                let mut refresh = self.refresh.lock();
                refresh.push(Arc::clone(cell));
                refresh.len() == 1
            };
            if first {
                self.ensure_task();
                self.wake.notify_one();
            }
        }
    }

    /// The key's cell, which a sweep may have dropped or may drop again before it is read.
    pub(crate) fn cell(&self, key: &RedisKey) -> Arc<Cell> {
        if let Some(entry) = self.cells.get(key.as_str()) {
            entry.key().0.touch();
            return Arc::clone(&entry.key().0);
        }
        let new = ByKey(Arc::new(Cell::new(key.clone())));
        let entry = self.cells.entry(new).or_default();
        Arc::clone(&entry.key().0)
    }

    /// The key's cell, once its total is known.
    pub(crate) async fn known(self: &Arc<Self>, key: &RedisKey) -> Result<Arc<Cell>, DistkitError> {
        if self.is_closed() {
            return Err(DistkitError::ShutDown);
        }
        let cell = self.cell(key);
        if cell.known_at() == 0 {
            self.read(&cell).await?;
        }
        Ok(cell)
    }

    /// The keys' cells, once all their totals are known.
    pub(crate) async fn all_known<'k>(
        self: &Arc<Self>,
        keys: impl Iterator<Item = &'k RedisKey>,
    ) -> Vec<Result<Arc<Cell>, DistkitError>> {
        // At the same time, so that those that are not known are read in one request.
        let mut cells = join_all(keys.map(|key| self.known(key))).await;
        // While it is waited for some, others may be forgotten.
        let forgotten =
            |cell: &Result<Arc<Cell>, _>| cell.as_ref().is_ok_and(|c| c.known_at() == 0);
        while cells.iter().any(forgotten) {
            let again = cells.iter_mut().filter(|cell| forgotten(cell)).map(|found| async move {
                if let Ok(cell) = found
                    && let Err(error) = self.read(cell).await
                {
                    *found = Err(error);
                }
            });
            join_all(again).await;
        }
        cells
    }

    /// Has the task read the cell's total, together with whatever else is wanted at the moment.
    pub(crate) async fn read(self: &Arc<Self>, cell: &Arc<Cell>) -> Result<(), DistkitError> {
        let _waiting = self.wait();
        loop {
            let (reply, answer) = oneshot::channel();
            self.wanted.lock().push(Wanted { cell: Arc::clone(cell), reply });
            self.ensure_task();
            if !self.is_running() {
                drop(answer);
                self.wanted.lock().retain(|wanted| !wanted.reply.is_closed());
                let cause = "there is no runtime to ask the store on";
                return Err(BackendError::not_applied(cause).into());
            }
            self.wake.notify_one();
            // No answer: the task's runtime ended. The next one gets the question again.
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
    }

    /// Counts a call that waits for the task.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, SeqCst);
        Waiting(&self.waiting)
    }

    /// Whether the task has something to do for anybody.
    pub(super) fn is_waited_for(&self) -> bool {
        self.has_pending() || self.waiting.load(SeqCst) != 0 || self.orphaned.load(SeqCst)
    }

    pub(crate) fn all_cells(&self) -> Vec<Arc<Cell>> {
        self.cells.iter().map(|entry| Arc::clone(&entry.key().0)).collect()
    }

    /// Microseconds since a moment before the first call, longer before it than the lag.
    pub(crate) fn now(&self) -> u64 {
        let before = micros(self.settings.lag).saturating_add(2);
        micros(self.epoch.get_or_init(Instant::now).elapsed()).saturating_add(before)
    }
}

/// A call that waits for the task.
pub(super) struct Waiting<'c>(&'c AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cold]
fn overflow(cell: &Cell) -> DistkitError {
    DistkitError::refused(&cell.key, Refusal::Overflow)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
