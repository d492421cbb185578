//! [replaced]: crate::DistkitError::InstanceReplaced
//!
#![doc = include_str!("../../docs/instance-aware.md")]

mod acknowledged;
mod heartbeat;
mod icounter_trait;
mod in_flight;
mod lax;
mod lax_options;
mod list;
mod membership;
mod options;
mod strict;

pub use crate::answers::Keyed;
pub use crate::lax::{TokenFate, Unflushed, UnflushedShard, UnflushedToken};
pub use icounter_trait::{InstanceAwareCounterTrait, TotalAndSlice};
pub use lax::{LaxInstanceAwareCounter, LaxInstanceAwareHandle};
pub use lax_options::LaxInstanceAwareCounterOptions;
pub use list::TotalAndSlices;
pub use options::StrictInstanceAwareCounterOptions;
pub use strict::StrictInstanceAwareCounter;
