use std::fmt;

use super::Plain;
use crate::{DistkitError, RedisKey, backend::Backend, lax::Hold};

/// One key of a [`LaxCounter`](super::LaxCounter), for hot paths. Cloning is cheap.
///
/// With [windows](crate::counter::CounterOptions::windows) it adds in the current window. After the one in which it
/// was made, an addition takes as long as [`inc`](super::LaxCounter::inc).
///
/// It keeps the counter alive. Its methods do no I/O, never wait, and may be called outside of async
/// code.
///
/// ```
/// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, LaxCounter}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), distkit::DistkitError> {
/// # let counter = LaxCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
/// let requests = counter.handle(&RedisKey::try_from("requests")?).await?;
/// requests.inc(1)?;
/// assert_eq!(requests.inc(1)?, 2);
/// # Ok(())
/// # }
/// ```
pub struct LaxHandle<B: Backend + ?Sized = dyn Backend> {
    hold: Hold<Plain<B>>,
}

impl<B: Backend + ?Sized> LaxHandle<B> {
    pub(super) fn new(hold: Hold<Plain<B>>) -> Self {
        Self { hold }
    }

    /// Returns the key.
    pub fn key(&self) -> &RedisKey {
        &self.hold.cell.key
    }

    /// Adds `count`, which may be negative, and answers the estimate of the new total.
    ///
    /// # Errors
    ///
    /// Nothing is changed by a call that fails, with
    /// [`CounterError`](DistkitError::CounterError) when the sum would not fit into an `i64`,
    /// [`TooManyPending`](DistkitError::TooManyPending), or [`ShutDown`](DistkitError::ShutDown).
    #[inline]
    pub fn inc(&self, count: i64) -> Result<i64, DistkitError> {
        self.hold.engine().add_to_held(&self.hold.cell, count)
    }

    /// Subtracts `count`.
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc), and [`CounterError`](DistkitError::CounterError) for [`i64::MIN`],
    /// which has no negation.
    #[inline]
    pub fn dec(&self, count: i64) -> Result<i64, DistkitError> {
        self.inc(self.hold.negated(count)?)
    }

    /// Returns the last known total plus all own writes that the store has not acknowledged, however old the
    /// known total is. [`LaxCounter::get`](super::LaxCounter::get) answers with a fresh one.
    #[inline]
    pub fn estimate(&self) -> i64 {
        self.hold.engine().estimate_of_held(&self.hold.cell)
    }
}

impl<B: Backend + ?Sized> Clone for LaxHandle<B> {
    fn clone(&self) -> Self {
        Self { hold: self.hold.clone() }
    }
}

impl<B: Backend + ?Sized> fmt::Debug for LaxHandle<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaxHandle")
            .field("key", self.key())
            .field("estimate", &self.estimate())
            .finish_non_exhaustive()
    }
}
