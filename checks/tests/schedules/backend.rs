#[path = "../../../src/backend/error.rs"]
mod error;
#[path = "../../../src/backend/instance.rs"]
mod instance;
#[path = "../../../src/backend/operation.rs"]
mod operation;

pub use error::*;
pub use instance::{Scope, SliceWrite};
pub use operation::*;

/// What the counters' files name; the store of these tests is a ledger.
pub trait Backend: std::fmt::Debug + Send + Sync + 'static {}
