//! What callers leave for the task: cells to commit, to read, to keep fresh; and how they wake it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    apart::Apart,
    atomic::{AtomicUsize, Ordering::SeqCst},
    cell::Cell,
    table::Table,
};
use crate::DistkitError;

/// Cells with additions to commit.
#[derive(Default)]
struct Dirty {
    cells: Vec<Arc<Cell>>,
    /// When the first of them was marked.
    since: Option<Instant>,
}

/// Someone who waits for a cell's total.
pub(super) struct Wanted {
    pub(super) cell: Arc<Cell>,
    pub(super) reply: oneshot::Sender<Result<(), DistkitError>>,
}

#[derive(Default)]
pub(super) struct Inbox {
    wake: Notify,
    wanted: Mutex<Vec<Wanted>>,
    refresh: Mutex<Vec<Arc<Cell>>>,
    /// How many calls wait for the task.
    waiting: AtomicUsize,
    dirty: Apart<Mutex<Dirty>>,
}

/// A call that waits for the task.
pub(super) struct Waiting<'i>(&'i AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Inbox {
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Counts a call that waits for the task.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, SeqCst);
        Waiting(&self.waiting)
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(SeqCst) != 0
    }

    /// Marks a cell, and counts it as pending. True when it is the first one, for which the task must be woken.
    pub(super) fn mark(&self, cell: &Arc<Cell>, table: &Table) -> bool {
        let mut dirty = self.dirty.0.lock();
        // Mark under the list's lock: a marked cell must be on the list.
        if !cell.tally.mark() {
            return false;
        }
        // It was, but a batch that ended since then may have taken the count back.
        table.count(cell);
        dirty.cells.push(Arc::clone(cell));
        let first = dirty.since.is_none();
        if first {
            dirty.since = Some(Instant::now());
        }
        first
    }

    /// Moves the cells with additions to `todo`. Gives when the first of them was marked.
    pub(super) fn take_dirty(&self, todo: &mut Vec<Arc<Cell>>) -> Option<Instant> {
        let mut dirty = self.dirty.0.lock();
        todo.append(&mut dirty.cells);
        dirty.since.take()
    }

    /// Notes that a cell on the list has an addition that is as old as that.
    pub(super) fn holds_since(&self, since: Instant) {
        let mut dirty = self.dirty.0.lock();
        dirty.since = dirty.since.map(|known| known.min(since));
    }

    /// When the first of the cells with additions was marked.
    pub(super) fn dirty_since(&self) -> Option<Instant> {
        self.dirty.0.lock().since
    }

    /// Asks for a cell's total.
    pub(super) fn want(&self, cell: &Arc<Cell>) -> oneshot::Receiver<Result<(), DistkitError>> {
        let (reply, answer) = oneshot::channel();
        self.wanted.lock().push(Wanted { cell: Arc::clone(cell), reply });
        answer
    }

    pub(super) fn take_wanted(&self) -> Vec<Wanted> {
        std::mem::take(&mut *self.wanted.lock())
    }

    /// Drops the questions whose askers are gone.
    pub(super) fn forget_unwanted(&self) {
        self.wanted.lock().retain(|wanted| !wanted.reply.is_closed());
    }

    /// Keeps a cell fresh that was just read. True when it is the first one, for which the task must be woken.
    pub(super) fn keep_fresh(&self, cell: &Arc<Cell>) -> bool {
        let mut refresh = self.refresh.lock();
        refresh.push(Arc::clone(cell));
        refresh.len() == 1
    }

    pub(super) fn refreshes(&self) -> bool {
        !self.refresh.lock().is_empty()
    }

    /// Uses up a refresh of each cell that is kept fresh, and shows `see` those that still are.
    pub(super) fn use_up_refreshes(&self, mut see: impl FnMut(&Arc<Cell>)) {
        self.refresh.lock().retain(|cell| {
            let stays = cell.use_up_refresh();
            if stays {
                see(cell);
            }
            stays
        });
    }
}
