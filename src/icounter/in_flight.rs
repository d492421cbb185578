//! What is in flight for an instance and keeps others out, and how those find out that nobody drives it.

use std::{collections::HashMap, future::Future, pin::pin, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot, time::sleep};

use crate::detached::Detached;

/// The work that holds the membership, or waits for it.
#[derive(Default)]
pub(super) struct InFlight(Mutex<Works>);

#[derive(Default)]
struct Works {
    works: HashMap<u64, Arc<Detached>, RandomState>,
    latest: u64,
}

/// Work in flight, as long as its caller waits for it.
struct Entry<'f> {
    in_flight: &'f InFlight,
    number: u64,
    work: Arc<Detached>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.in_flight.0.lock().works.remove(&self.number);
        self.work.cancel();
    }
}

impl InFlight {
    fn enter(&self, work: Arc<Detached>) -> Entry<'_> {
        let mut in_flight = self.0.lock();
        in_flight.latest += 1;
        let number = in_flight.latest;
        in_flight.works.insert(number, Arc::clone(&work));
        Entry { in_flight: self, number, work }
    }

    /// Does the work in the caller's own future. Gives `None` when it was in others' way while nobody polled it.
    pub(super) async fn here<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (reply, mut answer) = oneshot::channel();
        let entry = self.enter(Detached::new(async move { _ = reply.send(work.await) }));
        entry.work.run().await;
        answer.try_recv().ok()
    }

    /// Does the work in a task on the caller's runtime, so that nothing depends on the caller's being polled.
    /// Without a runtime, [`here`](Self::here). Dropping the future cancels the work.
    pub(super) async fn in_task<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let Ok(runtime) = Handle::try_current() else { return self.here(work).await };
        let (reply, answer) = oneshot::channel();
        let entry = self.enter(Detached::new(async move { _ = reply.send(work.await) }));
        // What needs no waiting needs no task.
        entry.work.poll_here();
        if answer.is_empty() {
            runtime.spawn(entry.work.run());
        }
        answer.await.ok()
    }

    /// Waits for a lock that work in flight may hold. Work that is not polled although it is asked to, because its
    /// caller holds it or its runtime is not driven, is cancelled. Work that waits for the store is polled then.
    pub(super) async fn wait<T>(&self, lock: impl Future<Output = T>, patience: Duration) -> T {
        let mut lock = pin!(lock);
        if Handle::try_current().is_err() {
            return lock.await;
        }
        loop {
            tokio::select! {
                biased;
                locked = &mut lock => return locked,
                () = sleep(patience) => {}
            }
            let works: Vec<_> = self.0.lock().works.values().cloned().collect();
            let asked: Vec<_> = works.into_iter().map(|work| (work.polls(), work)).collect();
            asked.iter().for_each(|(_, work)| work.ping());
            tokio::select! {
                biased;
                locked = &mut lock => return locked,
                () = sleep(patience) => {}
            }
            for (polls, work) in asked {
                if work.polls() == polls {
                    work.cancel();
                }
            }
        }
    }
}
