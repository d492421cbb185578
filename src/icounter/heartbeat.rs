//! The task that keeps an instance's lease alive.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt as _},
};
use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::mpsc,
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
    /// Of a prefix that has several.
    fn shard(&self) -> Option<u16>;
    fn id(&self) -> &str;
    fn renew(self: Arc<Self>) -> BoxFuture<'static, Result<(), DistkitError>>;
}

/// The heartbeats of an instance in all its shards: one task, in which no shard waits for another.
#[derive(Default)]
pub(super) struct Heartbeats(Mutex<Group>);

#[derive(Default)]
struct Group {
    task: Option<Task>,
    beats: Vec<Beat>,
}

/// The heartbeat in one shard, as long as neither side has ended it.
#[derive(Clone)]
struct Beat {
    member: Weak<dyn Leased>,
    lease: Duration,
    first: Duration,
    goes_on: Arc<AtomicBool>,
}

/// A member's hold on its heartbeat.
pub(super) struct Beating(Arc<AtomicBool>);

/// The task, where it runs, and when it gave its last sign of life.
struct Task {
    work: Arc<Detached>,
    runtime: Handle,
    sign: Arc<Mutex<Instant>>,
    more: mpsc::UnboundedSender<Beat>,
}

impl Heartbeats {
    /// Starts the heartbeat of a member, unless it runs. It runs in the task that there is, or in a new one where that
    /// one has ended, as it does with its runtime, or where it runs on a runtime that is not driven.
    pub(super) fn keep(
        &self,
        member: &Arc<impl Leased>,
        lease: Duration,
        here: Handle,
        beating: &mut Option<Beating>,
    ) {
        let mut group = self.0.lock();
        let first = match &group.task {
            Some(task) if task.has_stalled(&here, lease) => Duration::ZERO,
            Some(task) if !task.work.has_ended() => {
                if beating.as_ref().is_some_and(|beating| beating.0.load(Relaxed)) {
                    return;
                }
                let beat = group.begin(member, lease, beating);
                if let Some(task) = &group.task {
                    _ = task.more.send(beat);
                }
                return;
            }
            _ => usual(lease),
        };
        if !beating.as_ref().is_some_and(|beating| beating.0.load(Relaxed)) {
            group.begin(member, lease, beating);
        }
        for beat in &mut group.beats {
            // The caller's operation renews its own lease; those of other shards may be overdue.
            let own = std::ptr::addr_eq(beat.member.as_ptr(), Arc::as_ptr(member));
            beat.first = if own { first } else { Duration::ZERO };
        }
        let task = Task::start(group.beats.clone(), here);
        let last = group.task.replace(task);
        drop(group);
        if let Some(last) = last {
            last.work.cancel();
        }
    }

    /// Ends the heartbeat of a member; with the last one, the task.
    pub(super) fn end(&self, beating: Beating) {
        beating.0.store(false, Relaxed);
        let mut group = self.0.lock();
        group.forget_ended();
        let task = if group.beats.is_empty() { group.task.take() } else { None };
        drop(group);
        if let Some(task) = task {
            task.work.cancel();
        }
    }
}

impl Group {
    fn begin(
        &mut self,
        member: &Arc<impl Leased>,
        lease: Duration,
        beating: &mut Option<Beating>,
    ) -> Beat {
        self.forget_ended();
        let member = Arc::downgrade(member);
        let goes_on = Arc::new(AtomicBool::new(true));
        *beating = Some(Beating(Arc::clone(&goes_on)));
        let beat = Beat { member, lease, first: usual(lease), goes_on };
        self.beats.push(beat.clone());
        beat
    }

    fn forget_ended(&mut self) {
        self.beats.retain(|beat| beat.goes_on.load(Relaxed));
    }
}

impl Task {
    fn start(beats: Vec<Beat>, runtime: Handle) -> Self {
        let sign = Arc::new(Mutex::new(machine_time()));
        let (more, others) = mpsc::unbounded_channel();
        let work = Detached::new(beat_all(beats, others, Arc::clone(&sign)));
        runtime.spawn(work.run());
        Self { work, runtime, sign, more }
    }

    /// Whether a caller on this runtime sees that the task's own runtime is not driven: its beat is overdue. The time
    /// is that of the machine, for a runtime that is not driven has none.
    fn has_stalled(&self, here: &Handle, lease: Duration) -> bool {
        self.runtime.id() != here.id()
            && self.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
            && self.sign.lock().elapsed() > lease / 2
    }
}

/// Goes on when all have ended: the task is cancelled then.
async fn beat_all(
    beats: Vec<Beat>,
    mut more: mpsc::UnboundedReceiver<Beat>,
    sign: Arc<Mutex<Instant>>,
) {
    let one = |beat| beat_in_one(beat, Arc::clone(&sign));
    let mut all: FuturesUnordered<_> = beats.into_iter().map(one).collect();
    loop {
        tokio::select! {
            biased;
            beat = more.recv() => match beat {
                Some(beat) => all.push(one(beat)),
                None => return,
            },
            Some(()) = all.next() => {}
        }
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

async fn beat_in_one(beat: Beat, sign: Arc<Mutex<Instant>>) {
    let Beat { member, lease, first, goes_on } = beat;
    let usual = usual(lease);
    // A missed heartbeat must leave room for several more within the lease.
    let soon = lease / 10;
    let (mut delay, mut failed) = (first, false);
    let mut outage = Outage::default();
    loop {
        *sign.lock() = machine_time();
        sleep(delay).await;
        if !goes_on.load(Relaxed) {
            return;
        }
        let Some(membership) = member.upgrade() else { return };
        let begun = tokio::time::Instant::now();
        delay = match with_signs(Arc::clone(&membership).renew(), &sign, soon).await {
            Ok(()) => {
                failed = false;
                if let Some(outage::Standing { attempts, lasted }) = outage.ended() {
                    tracing::info!(
                        target: "distkit::instances",
                        prefix = membership.prefix().as_str(), shard = membership.shard(),
                        instance = membership.id(),
                        failed_attempts = attempts, ?lasted,
                        "the heartbeat reaches the store again"
                    );
                }
                usual
            }
            Err(DistkitError::InstanceReplaced | DistkitError::ShutDown) => {
                goes_on.store(false, Relaxed);
                return;
            }
            Err(error) => {
                let repeated = std::mem::replace(&mut failed, true);
                if let Some(outage::Standing { attempts, lasted }) = outage.failed(begun) {
                    tracing::warn!(
                        target: "distkit::instances",
                        prefix = membership.prefix().as_str(), shard = membership.shard(),
                        instance = membership.id(),
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
