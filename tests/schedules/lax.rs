#[path = "../../src/lax/batch.rs"]
mod batch;
#[path = "../../src/lax/cell.rs"]
mod cell;
#[path = "../../src/lax/core.rs"]
mod core;
#[path = "../../src/lax/flusher.rs"]
mod flusher;
#[path = "../../src/lax/ledger.rs"]
mod ledger;
#[path = "../../src/lax/report.rs"]
mod report;
#[path = "../../src/lax/tally.rs"]
mod tally;
#[path = "../../src/lax/writer.rs"]
mod writer;

mod atomic {
    pub(super) use shuttle::sync::atomic::*;
}

pub(crate) use cell::Cell;
pub(crate) use core::{Core, Owner, Settings};
pub(crate) use ledger::{Committed, Delta, Known, Ledger};
pub(crate) use writer::not_applied;
