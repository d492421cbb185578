//! A pass of the task: sends what is due, and reads what is wanted or to be refreshed at the same time.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::future::join;
use tokio::time::Instant;

use super::{Committer, not_applied};
use crate::{
    DistkitError,
    lax::{
        atomic::Ordering::Relaxed,
        cell::{Cell, address},
        inbox::Wanted,
        ledger::Ledger,
        shared::{Shared, micros},
    },
    stats::Count,
};

/// Cells by their [`address`].
type Cells = HashSet<usize, foldhash::fast::RandomState>;
type Failures = HashMap<usize, DistkitError, foldhash::fast::RandomState>;

impl<L: Ledger> Committer<'_, L> {
    /// Does what is due.
    pub(in crate::lax) async fn pass(&mut self) {
        let shared = self.shared;
        let now = Instant::now();
        let lag = shared.settings.lag;

        let refresh = self.writer.schedule.refresh_is_due(now);
        // A refresh takes along what the next one would be too late for.
        let horizon = if refresh { now + lag / 2 } else { now };
        self.send_promises_due(horizon).await;
        let now = Instant::now();
        let healthy = self.writer.schedule.is_healthy(now);
        let refresh = refresh && healthy;
        if self.flush_at().is_some_and(|at| at <= horizon) {
            self.collect();
        }
        if self.writer.schedule.corrupt_is_due(now) {
            self.retry_corrupt();
        }
        let wanted = shared.inbox.take_wanted();
        self.exchange(wanted, refresh, healthy).await;

        let any = shared.inbox.refreshes();
        self.writer.schedule.plan_refresh(any, refresh, now, lag);
        if self.writer.schedule.sweep_is_due(now) {
            let (more, dropped) = shared.table.sweep();
            shared.ledger.counts().add(Count::Evicted, dropped);
            self.writer.schedule.swept(more, now, shared.settings.evict_after);
        }
    }

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
        let started = self.shared.now();
        let reading = read(self.shared, &cells);
        let (flushed, mut failures) =
            if healthy { join(self.commit_todo(), reading).await } else { (Ok(()), reading.await) };
        let mut read_now: Cells = cells.iter().map(address).collect();
        if flushed.is_ok() {
            // What comes to nothing is not sent, and what is refused is not answered with a total.
            let mut missed = self.not_known_since(started, &wanted);
            missed.retain(|cell| read_now.insert(address(cell)));
            failures.extend(read(self.shared, &missed).await);
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
        let shared = self.shared;
        for cell in to_send {
            cell.seen().store(true, Relaxed);
        }
        let mut cells: Vec<_> = wanted
            .iter()
            .filter(|wanted| !wanted.cell.seen().swap(true, Relaxed))
            .map(|wanted| Arc::clone(&wanted.cell))
            .collect();
        if refresh {
            let (now, half) = (shared.now(), micros(shared.settings.lag / 2));
            shared.inbox.use_up_refreshes(|cell| {
                let old = now.saturating_sub(cell.known_at()) >= half / 2;
                if old && !cell.seen().swap(true, Relaxed) {
                    cells.push(Arc::clone(cell));
                }
            });
        }
        for cell in to_send.iter().chain(&cells) {
            cell.seen().store(false, Relaxed);
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
async fn read<L: Ledger>(shared: &Shared<L>, cells: &[Arc<Cell>]) -> Failures {
    let mut failures = Failures::default();
    for chunk in cells.chunks(L::BATCH) {
        let at = shared.now();
        match shared.ledger.read(chunk).await {
            Ok(outcomes) => {
                let totals = shared.table.totals();
                for (cell, outcome) in chunk.iter().zip(outcomes) {
                    match outcome {
                        Ok(known) => cell.settle(0, known, at, &totals),
                        Err(refusal) => {
                            let error = DistkitError::refused(&cell.key, refusal);
                            failures.insert(address(cell), error);
                        }
                    }
                }
            }
            Err(error) => {
                shared.end_if_replaced(&error);
                let error = not_applied(error);
                failures.extend(chunk.iter().map(|cell| (address(cell), error.clone())));
            }
        }
    }
    failures
}
