//! Batches that go to the store in parts, so that none holds up a server for long.

use crate::{DistkitError, backend::BackendError};

/// How many items one request has at most. On a server an item takes 1 to 15 us.
pub(crate) const PART: usize = 500;

/// The answers to a batch of several parts, item by item.
///
/// A part that fails fails for each of its items. Later parts are not sent then, and so did not happen.
pub(crate) struct Parts<T> {
    answers: Vec<Result<T, DistkitError>>,
    failed: bool,
}

impl<T> Parts<T> {
    pub(crate) fn of(items: usize) -> Self {
        Self { answers: Vec::with_capacity(items), failed: false }
    }

    /// Whether the next part is to be sent.
    pub(crate) fn goes_on(&self) -> bool {
        !self.failed
    }

    /// Takes in what became of the next part, which has so many items.
    pub(crate) fn answered(
        &mut self,
        items: usize,
        answer: Result<Vec<Result<T, DistkitError>>, DistkitError>,
    ) {
        match answer {
            Ok(answers) => self.answers.extend(answers),
            Err(error) => {
                self.failed = true;
                self.answers.extend((0..items).map(|_| Err(error.clone())));
            }
        }
    }

    /// The answers, once there is nothing more to send. `items` is the size of the whole batch.
    pub(crate) fn end(mut self, items: usize) -> Vec<Result<T, DistkitError>> {
        let unsent = || {
            let why = BackendError::not_applied("an earlier part of the batch failed");
            Err(DistkitError::NotApplied(why))
        };
        self.answers.resize_with(items.max(self.answers.len()), unsent);
        self.answers
    }
}

/// The same for a batch that sets totals of instance-aware counters: each item removes the slices of all instances.
#[cfg(feature = "instance-aware-counter")]
pub(crate) const PART_OF_TOTALS: usize = 50;

/// Sends `$items` in parts by `$send`, which answers for each item of a part. A batch of one part fails as
/// a whole.
macro_rules! in_parts {
    ($items:expr, $part:ident => $send:expr) => {
        $crate::parts::in_parts!($items, $crate::parts::PART, $part => $send)
    };
    ($items:expr, $size:expr, $part:ident => $send:expr) => {{
        let (items, size) = ($items, $size);
        if items.len() <= size {
            let $part = items;
            $send
        } else {
            let mut parts = $crate::parts::Parts::of(items.len());
            for $part in items.chunks(size) {
                if parts.goes_on() {
                    parts.answered($part.len(), $send);
                }
            }
            Ok(parts.end(items.len()))
        }
    }};
}
pub(crate) use in_parts;
