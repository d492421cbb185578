use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    atomic::Ordering::{Relaxed, SeqCst},
    cell::Cell,
    core::{Core, Wanted, micros},
    ledger::Ledger,
    writer::{Session, not_applied},
};
use crate::DistkitError;

/// How long a counter that was dropped tries to bring its last writes to the store.
const LAST_WRITES: Duration = Duration::from_secs(30);

/// Cells by their [`address`].
type Cells = HashSet<usize, foldhash::fast::RandomState>;
type Failures = HashMap<usize, DistkitError, foldhash::fast::RandomState>;

/// Tells a cell from others as long as somebody has it.
fn address(cell: &Arc<Cell>) -> usize {
    Arc::as_ptr(cell) as usize
}

/// The background task: flushes, reads what is wanted, refreshes what is in use, sweeps what is not, and serves
/// what callers ask for.
/// With nothing of that to do it has no timer and sleeps until it is woken.
pub(super) async fn run<L: Ledger>(core: &Arc<Core<L>>) {
    let mut sweep_at = None;
    let mut refresh_at = None;
    while !core.orphaned.load(SeqCst) {
        core.is_alive();
        let next = work(core, &mut refresh_at, &mut sweep_at).await;
        let woken = if core.serve_one().await {
            true
        } else if let Some(at) = next {
            tokio::select! {
                biased;
                () = core.wake.notified() => true,
                () = sleep_until(at) => false,
            }
        } else {
            core.wake.notified().await;
            true
        };
        if woken && sweep_at.is_none() && !core.cells.is_empty() {
            sweep_at = Some(Instant::now() + core.settings.evict_after);
        }
    }
    last_flush(core).await;
}

/// Does what is due and answers when to look again.
async fn work<L: Ledger>(
    core: &Arc<Core<L>>,
    refresh_at: &mut Option<Instant>,
    sweep_at: &mut Option<Instant>,
) -> Option<Instant> {
    let mut session = core.session().await;
    let now = Instant::now();
    let half = core.settings.lag / 2;

    let healthy = session.writer.retry_at.is_none_or(|at| at <= now);
    let refresh = healthy && refresh_at.is_some_and(|at| at <= now);
    // A refresh takes along what the next one would be too late for.
    let horizon = if refresh { now + half } else { now };
    if session.flush_at().is_some_and(|at| at <= horizon) {
        session.collect();
    }
    if session.writer.corrupt_retry.is_some_and(|at| at <= now) {
        session.retry_corrupt();
    }
    let wanted = std::mem::take(&mut *core.wanted.lock());
    session.exchange(wanted, refresh, healthy).await;

    *refresh_at = if core.refresh.lock().is_empty() {
        None
    } else if refresh || refresh_at.is_none() {
        Some(now + half)
    } else {
        refresh_at.map(|at| session.writer.retry_at.map_or(at, |retry| retry.max(at)))
    };
    if sweep_at.is_some_and(|at| at <= now) {
        let more = sweep(core);
        *sweep_at = more.then(|| now + core.settings.evict_after);
    }
    [session.flush_at(), session.writer.corrupt_retry, *refresh_at, *sweep_at]
        .into_iter()
        .flatten()
        .min()
}

impl<L: Ledger> Session<'_, L> {
    /// Sends what is to be sent, and at the same time reads what is wanted or to be refreshed.
    async fn exchange(&mut self, wanted: Vec<Wanted>, refresh: bool, healthy: bool) {
        // With a batch unresolved, an answer does not tell whether it counts the batch.
        if (healthy || !wanted.is_empty())
            && let Err(error) = self.resolve().await
        {
            for Wanted { reply, .. } in wanted {
                _ = reply.send(Err(not_applied(error.clone())));
            }
            return;
        }
        // While the store does not take what it is sent, new questions do not hurry the next attempt.
        let to_send = if healthy { std::mem::take(&mut self.writer.todo) } else { Vec::new() };
        let cells = self.to_read(&to_send, &wanted, refresh);
        self.writer.todo.splice(0..0, to_send);
        let started = self.core.now();
        let reading = read(self.core, &cells);
        let (flushed, mut failures) =
            if healthy { join(self.commit_todo(), reading).await } else { (Ok(()), reading.await) };
        let mut read_now: Cells = cells.iter().map(address).collect();
        if flushed.is_ok() {
            // What comes to nothing is not sent, and what is refused is not answered with a total.
            let mut missed = self.not_known_since(started, &wanted);
            missed.retain(|cell| read_now.insert(address(cell)));
            failures.extend(read(self.core, &missed).await);
        }
        // Where a number was found, there is something to be added to again.
        self.mend(|cell| {
            read_now.contains(&address(cell)) && !failures.contains_key(&address(cell))
        });
        for Wanted { cell, reply } in wanted {
            let answer = match failures.get(&address(&cell)) {
                Some(error) => Err(error.clone()),
                None if cell.known_at() == 0 || self.is_corrupt(&cell) => {
                    Err(self.why_unknown(&cell, &flushed))
                }
                // Read, and not part of what failed.
                None if read_now.contains(&address(&cell)) => Ok(()),
                None => flushed.clone().map_err(not_applied),
            };
            _ = reply.send(answer);
        }
    }

    /// Each cell once that is to be read and that the answer to a flush will not bring up to date.
    fn to_read(&self, to_send: &[Arc<Cell>], wanted: &[Wanted], refresh: bool) -> Vec<Arc<Cell>> {
        let core = self.core;
        for cell in to_send {
            cell.seen.store(true, Relaxed);
        }
        let mut cells: Vec<_> = wanted
            .iter()
            .filter(|wanted| !wanted.cell.seen.swap(true, Relaxed))
            .map(|wanted| Arc::clone(&wanted.cell))
            .collect();
        if refresh {
            let (now, half) = (core.now(), micros(core.settings.lag / 2));
            core.refresh.lock().retain(|cell| {
                let stays = cell.use_up_refresh();
                let old = now.saturating_sub(cell.known_at()) >= half / 2;
                if stays && old && !cell.seen.swap(true, Relaxed) {
                    cells.push(Arc::clone(cell));
                }
                stays
            });
        }
        for cell in to_send.iter().chain(&cells) {
            cell.seen.store(false, Relaxed);
        }
        cells
    }

    /// Each wanted cell once whose total is older, unless the store holds no number there.
    fn not_known_since(&self, at: u64, wanted: &[Wanted]) -> Vec<Arc<Cell>> {
        let mut once = Cells::default();
        let mut cells = Vec::new();
        for Wanted { cell, .. } in wanted {
            let known = cell.known_at() >= at || self.is_corrupt(cell);
            if !known && once.insert(address(cell)) {
                cells.push(Arc::clone(cell));
            }
        }
        cells
    }

    fn why_unknown(&self, cell: &Cell, flushed: &Result<(), DistkitError>) -> DistkitError {
        match flushed {
            Err(error) => not_applied(error.clone()),
            Ok(()) => DistkitError::refused(&cell.key, self.corruption(cell)),
        }
    }
}

/// Reads the cells and brings them up to date; gives those that failed. For the holder of the lock.
async fn read<L: Ledger>(core: &Core<L>, cells: &[Arc<Cell>]) -> Failures {
    let mut failures = Failures::default();
    for chunk in cells.chunks(L::BATCH) {
        let at = core.now();
        match core.ledger.read(chunk).await {
            Ok(outcomes) => {
                let _replacing = core.replacing.lock();
                for (cell, outcome) in chunk.iter().zip(outcomes) {
                    match outcome {
                        Ok(known) => cell.settle(0, known, at),
                        Err(refusal) => {
                            let error = DistkitError::refused(&cell.key, refusal);
                            failures.insert(address(cell), error);
                        }
                    }
                }
            }
            Err(error) => {
                core.end_if_replaced(&error);
                let error = not_applied(error);
                failures.extend(chunk.iter().map(|cell| (address(cell), error.clone())));
            }
        }
    }
    failures
}

/// Drops the cells that were not used since the last sweep. False when there is no use in another sweep
/// before somebody uses the counter again.
fn sweep<L: Ledger>(core: &Core<L>) -> bool {
    let mut more = false;
    core.cells.retain(|cell, ()| {
        let cell = &cell.0;
        // The shard is locked, so a count of 1 means that nobody else has the cell or can get it.
        let used = cell.untouch() || cell.tally.is_dirty();
        more |= used;
        used || Arc::strong_count(cell) > 1
    });
    if core.cells.is_empty() {
        core.cells.shrink_to_fit();
    }
    more
}

async fn last_flush<L: Ledger>(core: &Arc<Core<L>>) {
    let deadline = Instant::now() + LAST_WRITES;
    let flush = async {
        while core.has_pending() {
            let at = {
                let mut session = core.session().await;
                if session.flush_all().await.is_ok() && session.writer.corrupt.is_empty() {
                    return;
                }
                session.writer.retry_at.or(session.writer.corrupt_retry)
            };
            sleep_until(at.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))).await;
        }
    };
    if timeout_at(deadline, flush).await.is_err() {
        let report = core.give_up(None);
        tracing::error!(target: "distkit::lax", prefix = core.ledger.prefix(), %report, "a lax counter was dropped and its last writes are lost");
    }
}
