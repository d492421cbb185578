//! The task that keeps an instance's lease alive.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::sleep,
};

use crate::{
    DistkitError, RedisKey,
    detached::Detached,
    outage::{self, Outage},
    watch::machine_time,
};

/// What has a lease to keep alive.
pub(super) trait Leased: Send + Sync + 'static {
    fn prefix(&self) -> &RedisKey;
    fn id(&self) -> &str;
    fn renew(self: Arc<Self>) -> BoxFuture<'static, Result<(), DistkitError>>;
}

/// An instance's heartbeat, where it runs, and when it gave its last sign of life.
pub(super) struct Heartbeat {
    task: Arc<Detached>,
    runtime: Handle,
    sign: Arc<Mutex<Instant>>,
}

impl Heartbeat {
    /// Starts one on this runtime.
    pub(super) fn start(
        membership: &Arc<impl Leased>,
        lease: Duration,
        runtime: Handle,
        first: Duration,
    ) -> Self {
        let sign = Arc::new(Mutex::new(machine_time()));
        let task = Detached::new(beat(Arc::downgrade(membership), lease, first, Arc::clone(&sign)));
        runtime.spawn(task.run());
        Self { task, runtime, sign }
    }

    /// Whether it ended, as it does with its runtime.
    pub(super) fn has_ended(&self) -> bool {
        self.task.has_ended()
    }

    /// Whether a caller on this runtime sees that its own runtime is not driven: its beat is overdue. The time is
    /// that of the machine, for a runtime that is not driven has none.
    pub(super) fn has_stalled(&self, here: &Handle, lease: Duration) -> bool {
        self.runtime.id() != here.id()
            && self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
            && self.sign.lock().elapsed() > lease / 2
    }

    pub(super) fn cancel(&self) {
        self.task.cancel();
    }
}

/// Does the work, and gives a sign of life now and then, however long the store takes to answer.
async fn with_signs<T>(work: impl Future<Output = T>, sign: &Mutex<Instant>, every: Duration) -> T {
    let mut work = pin!(work);
    loop {
        *sign.lock() = machine_time();
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep(every) => {}
        }
    }
}

async fn beat(
    membership: Weak<impl Leased>,
    lease: Duration,
    first: Duration,
    sign: Arc<Mutex<Instant>>,
) {
    let usual = usual(lease);
    // A missed heartbeat must leave room for several more within the lease.
    let soon = lease / 10;
    let (mut delay, mut failed) = (first, false);
    let mut outage = Outage::default();
    loop {
        *sign.lock() = machine_time();
        sleep(delay).await;
        let Some(membership) = membership.upgrade() else { return };
        let begun = tokio::time::Instant::now();
        delay = match with_signs(Arc::clone(&membership).renew(), &sign, soon).await {
            Ok(()) => {
                failed = false;
                if let Some(outage::Standing { attempts, lasted }) = outage.ended() {
                    tracing::info!(
                        target: "distkit::instances",
                        prefix = membership.prefix().as_str(), instance = membership.id(),
                        failed_attempts = attempts, ?lasted,
                        "the heartbeat reaches the store again"
                    );
                }
                usual
            }
            Err(DistkitError::InstanceReplaced | DistkitError::ShutDown) => return,
            Err(error) => {
                let repeated = std::mem::replace(&mut failed, true);
                if let Some(outage::Standing { attempts, lasted }) = outage.failed(begun) {
                    tracing::warn!(
                        target: "distkit::instances",
                        prefix = membership.prefix().as_str(), instance = membership.id(),
                        attempts, ?lasted, error = %outage::Chain(&error),
                        "the heartbeat failed; without one the lease expires"
                    );
                }
                // A connection that an idle server closed is found out by a failure, and is new for the
                // next attempt.
                if repeated { soon } else { Duration::ZERO }
            }
        };
    }
}

/// How far apart heartbeats are while all is well.
pub(super) fn usual(lease: Duration) -> Duration {
    lease / 3
}
