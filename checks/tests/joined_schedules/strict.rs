#[path = "../../../src/strict/queue.rs"]
pub(crate) mod queue;
#[path = "../../../src/strict/settle.rs"]
pub(crate) mod settle;

use crate::time::Instant;

pub(crate) struct Settings {
    pub(crate) max_waiting: usize,
}

impl Settings {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        None
    }
}
