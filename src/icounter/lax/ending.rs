//! What brings the pending writes to the store, and how an instance ends.

use std::time::Duration;

use tokio::time::Instant;

use super::{LaxInstanceAwareCounter, Slices};
use crate::{
    DistkitError,
    backend::{BackendError, InstanceBackend},
    lax::{Owner, Unflushed, backoff},
    outage::Chain,
    shards::done_in_all,
};

impl<B: InstanceBackend + ?Sized> LaxInstanceAwareCounter<B> {
    /// Returns when all that was written before the call is in the store.
    ///
    /// It may be dropped: what is pending stays so, and is sent in the background.
    ///
    /// # Errors
    ///
    /// Why some of it is not. [`NotApplied`](DistkitError::NotApplied) and
    /// [`OutcomeUnknown`](DistkitError::OutcomeUnknown): the store is unreachable; everything is kept, and
    /// sent when it is back, unless that takes most of a day (the latter is then said once more).
    /// [`CounterError`](DistkitError::CounterError): a sum was refused, now or in
    /// the background since the last `flush`; one that would not fit into an `i64` is lost, one whose
    /// place holds a non-integer value is kept and tried again. All else is in the store.
    /// [`InstanceReplaced`](DistkitError::InstanceReplaced): nothing is in the store any more, nor will be.
    /// [`ShutDown`](DistkitError::ShutDown): an earlier `shutdown` reported what is lost, or the instance left
    /// with something pending.
    pub async fn flush(&self) -> Result<(), DistkitError> {
        done_in_all(self.owners.all(|owner| flush(owner)).await)
    }

    /// Flushes, then leaves for good: this instance's slices are subtracted from all totals now, and
    /// later operations fail with [`DistkitError::ShutDown`]. At least one round trip.
    ///
    /// A call that is dropped may not have left: call it again, or the slices stay until the lease expires.
    ///
    /// # Errors
    ///
    /// [`NotApplied`](DistkitError::NotApplied) and [`OutcomeUnknown`](DistkitError::OutcomeUnknown), of several shards
    /// [`InShards`](DistkitError::InShards): the slices stay until the lease expires, or until `leave` is called again.
    pub async fn leave(&self) -> Result<(), DistkitError> {
        done_in_all(self.owners.all(|owner| leave(owner)).await)
    }

    /// Takes no more operations, brings what is pending to the store, and leaves it, trying until
    /// `within` is over.
    ///
    /// Of a call that is dropped nothing tells what is left: what is pending goes on being sent in the background.
    ///
    /// # Errors
    ///
    /// What is left, and what was refused. It is given up: none of it is sent later. With nothing left
    /// but a `cause` the instance could not leave, and its slices stay until its lease has run out; or it
    /// had been replaced, and what was pending at that time is lost.
    pub async fn shutdown(&self, within: Duration) -> Result<(), Unflushed> {
        let reports = self.owners.all(|owner| shutdown(owner, within)).await;
        Unflushed::of_shards(reports).map_or(Ok(()), Err)
    }
}

type Shard<B> = Owner<Slices<B>>;

async fn flush<B: InstanceBackend + ?Sized>(shard: &Shard<B>) -> Result<(), DistkitError> {
    match shard.0.flush().await {
        Err(error) => Err(shard.0.why(error)),
        Ok(()) => replaced(shard).map_or(Ok(()), Err),
    }
}

async fn leave<B: InstanceBackend + ?Sized>(shard: &Shard<B>) -> Result<(), DistkitError> {
    let engine = &shard.0;
    engine.close();
    if let Err(error) = engine.flush().await {
        tracing::debug!(
            target: "distkit::lax",
            prefix = engine.ledger().membership.prefix().as_str(),
            shard = engine.ledger().membership.counts().shard(), error = %Chain(&error),
            "the last flush before leaving failed"
        );
    }
    // What is pending is part of slices that go.
    engine.give_up(None);
    let left = engine.ledger().membership.leave().await;
    engine.wake_task();
    left
}

async fn shutdown<B: InstanceBackend + ?Sized>(
    shard: &Shard<B>,
    within: Duration,
) -> Result<(), Unflushed> {
    let began = Instant::now();
    let flushed = shard.0.shutdown(within).await;
    let rest = within.saturating_sub(began.elapsed());
    let cause = replaced(shard).or(leave_within(shard, rest).await.err());
    match (flushed, cause) {
        (Err(report), cause) => Err(Unflushed { cause: report.cause.or(cause), ..report }),
        (Ok(()), None) => Ok(()),
        (Ok(()), cause) => Err(Unflushed { cause, ..Unflushed::default() }),
    }
}

/// Leaves, trying until `within` is over.
async fn leave_within<B: InstanceBackend + ?Sized>(
    shard: &Shard<B>,
    within: Duration,
) -> Result<(), DistkitError> {
    let mut failure = BackendError::outcome_unknown("no time left to leave").into();
    let attempts = async {
        let mut delays = backoff();
        while let Err(error) = shard.0.ledger().membership.leave().await {
            failure = error;
            tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(1))).await;
        }
    };
    tokio::time::timeout(within, attempts).await.map_err(|_| failure)
}

/// Set when a newer instance has this one's place. What was pending has been dropped then, perhaps
/// in the background, so that a flush finds nothing to do.
fn replaced<B: InstanceBackend + ?Sized>(shard: &Shard<B>) -> Option<DistkitError> {
    let ended = shard.0.ledger().membership.check().err();
    ended.filter(|error| matches!(error, DistkitError::InstanceReplaced))
}
