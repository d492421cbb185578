//! Buffering of writes: what the lax counters of both families share.
//!
//! Callers add to [`Cell`](cell::Cell)s in a [`table`], and leave in an [`inbox`] what is to be done with them. One
//! [`committer`] at a time, the holder of the writer lock, moves what they added to the store, which it knows as a
//! [`ledger`]. That is the [`background`] task. It also does `set`, `del`, `clear` and `flush` for their callers,
//! whose futures may be held without being polled. The [`engine`] ties all this together: [`keys`] is what callers
//! do without the task, [`calls`] what they have it do.
//!
//! Each group of files below imports only from itself and from those before it. `scripts/check-imports` fails when
//! imports run in a circle.

mod apart;
mod tally;
#[cfg(test)]
mod tally_tests;

mod cell;
mod pending;
mod promises;
mod table;

mod inbox;

mod gate;
#[cfg(test)]
mod gate_tests;
mod ledger;
mod report;
mod schedule;
mod settings;
mod shared;

mod committer;

mod background;
mod request;
mod task;
#[cfg(test)]
mod task_tests;

mod calls;
mod engine;
mod hold;
mod keys;

mod atomic {
    pub(super) use std::sync::atomic::*;
}

pub(crate) use cell::{Cell, Known};
pub(crate) use engine::{Engine, Owner};
pub(crate) use hold::Hold;
#[cfg(feature = "counter")]
pub(crate) use ledger::CurrentWindow;
pub(crate) use ledger::{Committed, Delta, Ledger};
#[cfg(feature = "counter")]
pub(crate) use promises::Promise;
pub use report::{TokenFate, Unflushed, UnflushedShard, UnflushedToken};
#[cfg(feature = "instance-aware-counter")]
pub(crate) use schedule::backoff;
#[cfg(feature = "instance-aware-counter")]
pub(crate) use settings::SHORTEST_LAG;
pub(crate) use settings::{Settings, buffering_options};
#[cfg(feature = "instance-aware-counter")]
pub(crate) use tally::in_fast_range;
