//! Counters shared by every process that uses the same prefix on the same store.
//!
//! A counter's address is its prefix and its key. [`CounterTrait`] is what the counters of this module
//! have in common:
//!
//! - [`StrictCounter`]: each call is one atomic operation in the store and one round trip. Its answers
//!   are exact.
//! - [`LaxCounter`]: buffers writes in the process, answers from memory, and is exact in the end.

mod copy;
mod counter_trait;
mod lax;
mod list;
mod once;
mod options;
mod strict;
mod window_reads;

pub use crate::answers::Keyed;
pub use copy::{Copied, copy_prefix, copy_prefix_without_windows};
pub use counter_trait::CounterTrait;
pub use lax::{LaxCounter, LaxHandle, TokenFate, Unflushed, UnflushedShard, UnflushedToken};
pub use options::CounterOptions;
pub use strict::StrictCounter;
