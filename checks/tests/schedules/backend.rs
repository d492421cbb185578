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

/// A store without a client: what is asked of it is sent.
pub mod progress {
    use std::future::Future;

    #[derive(Default)]
    pub(crate) struct Progress(());

    impl Progress {
        pub(crate) async fn of<T>(&self, request: impl Future<Output = T>) -> T {
            request.await
        }

        pub(crate) fn is_waiting(&self) -> bool {
            false
        }
    }
}
