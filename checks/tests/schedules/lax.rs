#[path = "../../../src/lax/apart.rs"]
mod apart;
#[path = "../../../src/lax/background.rs"]
mod background;
#[path = "../../../src/lax/calls.rs"]
mod calls;
#[path = "../../../src/lax/cell.rs"]
mod cell;
#[path = "../../../src/lax/committer/mod.rs"]
mod committer;
#[path = "../../../src/lax/engine.rs"]
mod engine;
#[path = "../../../src/lax/gate.rs"]
mod gate;
#[path = "../../../src/lax/inbox.rs"]
mod inbox;
#[path = "../../../src/lax/keys.rs"]
mod keys;
#[path = "../../../src/lax/ledger.rs"]
mod ledger;
#[path = "../../../src/lax/pending.rs"]
mod pending;
#[path = "../../../src/lax/promises.rs"]
mod promises;
#[path = "../../../src/lax/report.rs"]
mod report;
#[path = "../../../src/lax/request.rs"]
mod request;
#[path = "../../../src/lax/schedule.rs"]
mod schedule;
#[path = "../../../src/lax/settings.rs"]
#[allow(unused_macros, unused_imports, reason = "for options")]
mod settings;
#[path = "../../../src/lax/shared.rs"]
mod shared;
#[path = "../../../src/lax/table.rs"]
mod table;
#[path = "../../../src/lax/tally.rs"]
mod tally;
#[path = "../../../src/lax/task.rs"]
mod task;

mod atomic {
    pub(super) use shuttle::sync::atomic::*;
}

use std::{sync::Arc, sync::atomic::Ordering::SeqCst};

pub(crate) use cell::{Cell, Known};
pub(crate) use engine::{Engine, Owner};
pub(crate) use ledger::{Committed, Delta, Ledger};
pub(crate) use promises::Promise;
pub(crate) use report::TokenFate;
pub(crate) use settings::Settings;

impl<L: Ledger> Engine<L> {
    pub(crate) fn number_pending(&self) -> usize {
        self.shared().table.number_pending()
    }

    pub(crate) fn all_cells(&self) -> Vec<Arc<Cell>> {
        self.shared().table.all()
    }

    /// Whether no cell has anything pending.
    pub(crate) fn is_clean(&self) -> bool {
        let cells = self.all_cells();
        let totals = self.shared().table.totals();
        let clean = |cell: &Arc<Cell>| {
            cell.tally.pending() == 0 && !cell.is_pending(&totals) && !cell.tally.is_dirty()
        };
        cells.iter().all(clean)
    }

    /// Between two batches: whether all cells with additions to commit, and no others, count as pending.
    pub(crate) async fn counts_what_is_dirty(&self) -> bool {
        let _between = self.background.committer().await;
        let cells = self.all_cells();
        let counted = cells.iter().filter(|cell| cell.counted().load(SeqCst)).count();
        self.number_pending() == counted
            && cells.iter().all(|cell| cell.counted().load(SeqCst) == cell.tally.is_dirty())
    }
}
