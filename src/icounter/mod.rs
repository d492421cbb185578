#![doc = include_str!("../../docs/instance-aware.md")]

mod icounter_trait;
mod membership;
mod options;
mod strict;

pub use icounter_trait::{InstanceAwareCounterTrait, KeyedSlice, TotalAndSlice};
pub use options::StrictInstanceAwareCounterOptions;
pub use strict::StrictInstanceAwareCounter;
