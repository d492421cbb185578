//! What brings the pending writes to the store, and how an instance ends.

use std::time::Duration;

use tokio::time::Instant;

use super::LaxInstanceAwareCounter;
use crate::{
    DistkitError,
    backend::{BackendError, InstanceBackend},
    lax::{Unflushed, backoff},
    outage::Chain,
};

impl<B: InstanceBackend + ?Sized> LaxInstanceAwareCounter<B> {
    /// Returns when all that was written before the call is in the store.
    ///
    /// # Errors
    ///
    /// Why some of it is not. [`NotApplied`](DistkitError::NotApplied) and
    /// [`OutcomeUnknown`](DistkitError::OutcomeUnknown): the store is away; everything is kept, and
    /// sent when it is back, unless that takes most of a day (the latter is then said once more). [`CounterError`](DistkitError::CounterError): a sum was refused, now or in
    /// the background since the last `flush`; one that would not fit into an `i64` is lost, one whose
    /// place holds something else than a number is kept and tried again. All else is in the store.
    /// [`InstanceReplaced`](DistkitError::InstanceReplaced): nothing is in the store any more, nor will be.
    /// [`ShutDown`](DistkitError::ShutDown): an earlier `shutdown` reported what is lost, or the instance left
    /// with something pending.
    pub async fn flush(&self) -> Result<(), DistkitError> {
        match self.engine().flush().await {
            Err(error) => Err(self.engine().why(error)),
            Ok(()) => self.replaced().map_or(Ok(()), Err),
        }
    }

    /// Flushes, then leaves for good: this instance's slices are subtracted from all totals now, and
    /// later operations fail with [`DistkitError::ShutDown`].
    ///
    /// When this fails the slices stay until the lease has run out, or until `leave` is called again.
    pub async fn leave(&self) -> Result<(), DistkitError> {
        self.engine().close();
        if let Err(error) = self.engine().flush().await {
            tracing::debug!(
                target: "distkit::lax",
                prefix = self.membership().prefix().as_str(), error = %Chain(&error),
                "the last flush before leaving failed"
            );
        }
        // What is pending is part of slices that go.
        self.engine().give_up(None);
        let left = self.membership().leave().await;
        self.engine().wake_task();
        left
    }

    /// Takes no more operations, brings what is pending to the store, and leaves it, trying until
    /// `within` is over.
    ///
    /// # Errors
    ///
    /// What is left, and what was refused. It is given up: none of it is sent later. With nothing left
    /// but a `cause` the instance could not leave, and its slices stay until its lease has run out; or it
    /// had been replaced, and what was pending at that time is lost.
    pub async fn shutdown(&self, within: Duration) -> Result<(), Unflushed> {
        let began = Instant::now();
        let flushed = self.engine().shutdown(within).await;
        let rest = within.saturating_sub(began.elapsed());
        let cause = self.replaced().or(self.leave_within(rest).await.err());
        match (flushed, cause) {
            (Err(report), cause) => Err(Unflushed { cause: report.cause.or(cause), ..report }),
            (Ok(()), None) => Ok(()),
            (Ok(()), cause) => Err(Unflushed { cause, ..Unflushed::default() }),
        }
    }

    /// Leaves, trying until `within` is over.
    async fn leave_within(&self, within: Duration) -> Result<(), DistkitError> {
        let mut failure = BackendError::outcome_unknown("no time left to leave").into();
        let attempts = async {
            let mut delays = backoff();
            while let Err(error) = self.membership().leave().await {
                failure = error;
                tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
            }
        };
        tokio::time::timeout(within, attempts).await.map_err(|_| failure)
    }

    /// Set when a newer instance has this one's place. What was pending has been dropped then, perhaps
    /// in the background, so that a flush finds nothing to do.
    fn replaced(&self) -> Option<DistkitError> {
        let ended = self.membership().check().err();
        ended.filter(|error| matches!(error, DistkitError::InstanceReplaced))
    }
}
