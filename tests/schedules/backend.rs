#[path = "../../src/backend/error.rs"]
mod error;
#[path = "../../src/backend/operation.rs"]
mod operation;

pub use error::*;
pub use operation::*;
