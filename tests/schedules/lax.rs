#[path = "../../src/lax/batch.rs"]
mod batch;
#[path = "../../src/lax/cell.rs"]
mod cell;
#[path = "../../src/lax/core.rs"]
mod core;
#[path = "../../src/lax/exclusive.rs"]
mod exclusive;
#[path = "../../src/lax/flusher.rs"]
mod flusher;
#[path = "../../src/lax/ledger.rs"]
mod ledger;
#[path = "../../src/lax/pending.rs"]
mod pending;
#[path = "../../src/lax/report.rs"]
mod report;
#[path = "../../src/lax/request.rs"]
mod request;
#[path = "../../src/lax/settings.rs"]
#[allow(unused_macros, unused_imports, reason = "for options")]
mod settings;
#[path = "../../src/lax/tally.rs"]
mod tally;
#[path = "../../src/lax/task.rs"]
mod task;
#[path = "../../src/lax/writer.rs"]
mod writer;

mod atomic {
    pub(super) use shuttle::sync::atomic::*;
}

use std::sync::atomic::Ordering::SeqCst;

pub(crate) use cell::Cell;
pub(crate) use core::{Core, Owner};
pub(crate) use ledger::{Committed, Delta, Known, Ledger};
pub(crate) use settings::Settings;

impl<L: Ledger> Core<L> {
    pub(crate) fn number_pending(&self) -> usize {
        self.pending.0.number()
    }

    /// Between two batches: whether all cells with additions to commit, and no others, count as pending.
    pub(crate) async fn counts_what_is_dirty(&self) -> bool {
        let _between = self.writer.lock().await;
        let cells = self.all_cells();
        let counted = cells.iter().filter(|cell| cell.counted.load(SeqCst)).count();
        self.number_pending() == counted
            && cells.iter().all(|cell| cell.counted.load(SeqCst) == cell.tally.is_dirty())
    }
}
