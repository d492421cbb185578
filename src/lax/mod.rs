//! Buffering of writes: what the lax counters of both families share.
//!
//! Callers add to [`Cell`](cell::Cell)s; one committer at a time, the holder of the writer lock, moves what
//! they added to the store. That is a background task. It also does `set`, `del`, `clear` and `flush` for
//! their callers, whose futures may be held without being polled.

mod batch;
mod cell;
mod core;
mod exclusive;
mod flusher;
mod hold;
mod ledger;
mod pending;
mod report;
mod request;
mod settings;
mod tally;
#[cfg(test)]
mod tally_tests;
mod task;
mod writer;

mod atomic {
    pub(super) use std::sync::atomic::*;
}

pub(crate) use cell::Cell;
pub(crate) use core::{Core, Owner};
pub(crate) use hold::Hold;
pub(crate) use ledger::{Committed, Delta, Known, Ledger};
pub use report::Unflushed;
#[cfg(feature = "instance-aware-counter")]
pub(crate) use settings::SHORTEST_LAG;
pub(crate) use settings::{Settings, buffering_options};
#[cfg(feature = "instance-aware-counter")]
pub(crate) use tally::easy;
#[cfg(feature = "instance-aware-counter")]
pub(crate) use writer::backoff;
