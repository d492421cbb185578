//! Counters of which each process owns a slice.
//!
//! The total of a key is the sum of the slices of the instances that are alive: what a process
//! contributed goes away with it and comes back when it does.

mod icounter_trait;
mod membership;
mod options;
mod strict;

pub use icounter_trait::{InstanceAwareCounterTrait, KeyedSlice, TotalAndSlice};
pub use options::StrictInstanceAwareCounterOptions;
pub use strict::StrictInstanceAwareCounter;
