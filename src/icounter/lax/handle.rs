use std::fmt;

use super::{Slices, can_replace, numbers};
use crate::{
    DistkitError, RedisKey,
    backend::{InstanceBackend, Refusal},
    icounter::TotalAndSlice,
    lax::Hold,
};

/// One key of a [`LaxInstanceAwareCounter`](super::LaxInstanceAwareCounter), for hot paths. Cloning is
/// cheap.
///
/// It keeps the counter alive, and its heartbeat with it. Its methods do no I/O, never wait, and may be
/// called outside of async code. They answer `(total, own slice)` as estimates.
///
/// ```
/// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), distkit::DistkitError> {
/// # let prefix = RedisKey::try_from("docs")?;
/// # let options = LaxInstanceAwareCounterOptions::new(prefix, MemoryBackend::new());
/// # let counter = LaxInstanceAwareCounter::new(options);
/// let connections = counter.handle(&RedisKey::try_from("connections")?).await?;
/// connections.inc(1)?;
/// assert_eq!(connections.inc(1)?, (2, 2));
/// assert_eq!(connections.dec(1)?, (1, 1));
/// assert_eq!(connections.set_on_instance(5)?, (5, 5));
/// assert_eq!(connections.estimate(), (5, 5));
/// # Ok(())
/// # }
/// ```
pub struct LaxInstanceAwareHandle<B: InstanceBackend + ?Sized = dyn InstanceBackend> {
    hold: Hold<Slices<B>>,
}

impl<B: InstanceBackend + ?Sized> LaxInstanceAwareHandle<B> {
    pub(super) fn new(hold: Hold<Slices<B>>) -> Self {
        Self { hold }
    }

    /// Returns the key.
    pub fn key(&self) -> &RedisKey {
        &self.hold.cell.key
    }

    /// Adds `count`, which may be negative, to this instance's slice, and answers the new estimates.
    ///
    /// # Errors
    ///
    /// Nothing is changed by a call that fails, with
    /// [`CounterError`](DistkitError::CounterError) when a sum would not fit into an `i64`,
    /// [`TooManyPending`](DistkitError::TooManyPending), [`ShutDown`](DistkitError::ShutDown) after the
    /// counter left or was shut down, or [`InstanceReplaced`](DistkitError::InstanceReplaced).
    #[inline]
    pub fn inc(&self, count: i64) -> Result<TotalAndSlice, DistkitError> {
        let (engine, cell) = (self.hold.engine(), &self.hold.cell);
        match engine.add_slice_quickly(cell, count) {
            Some(added) => Ok(added),
            None => self.explained(engine.add_slice(cell, count)),
        }
    }

    /// Subtracts `count`.
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc), and [`CounterError`](DistkitError::CounterError) for [`i64::MIN`],
    /// which has no negation.
    #[inline]
    pub fn dec(&self, count: i64) -> Result<TotalAndSlice, DistkitError> {
        self.inc(self.hold.negated(count)?)
    }

    /// Makes this instance's slice `count`; the estimate of the total changes by the difference.
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc). It also refuses, with [`CounterError`](DistkitError::CounterError), a
    /// `count` outside of -2^62 .. 2^62, which needs the store to be exact: the counter's own
    /// [`set_on_instance`](crate::icounter::InstanceAwareCounterTrait::set_on_instance) takes it.
    pub fn set_on_instance(&self, count: i64) -> Result<TotalAndSlice, DistkitError> {
        let Hold { cell, .. } = &self.hold;
        if !can_replace(cell, count) {
            return Err(DistkitError::refused(&cell.key, Refusal::Overflow));
        }
        self.explained(self.hold.engine().replace_slice(cell, count))
    }

    /// Returns `(total, own slice)`: the last known numbers plus all own writes that the store has not
    /// acknowledged, however old the known numbers are.
    /// [`get`](crate::icounter::InstanceAwareCounterTrait::get) answers with fresh ones.
    #[inline]
    pub fn estimate(&self) -> TotalAndSlice {
        numbers(&self.hold.cell)
    }

    fn explained(
        &self,
        answer: Result<TotalAndSlice, DistkitError>,
    ) -> Result<TotalAndSlice, DistkitError> {
        answer.map_err(|error| self.hold.engine().why(error))
    }
}

impl<B: InstanceBackend + ?Sized> Clone for LaxInstanceAwareHandle<B> {
    fn clone(&self) -> Self {
        Self { hold: self.hold.clone() }
    }
}

impl<B: InstanceBackend + ?Sized> fmt::Debug for LaxInstanceAwareHandle<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaxInstanceAwareHandle")
            .field("key", self.key())
            .field("estimate", &self.estimate())
            .finish_non_exhaustive()
    }
}
