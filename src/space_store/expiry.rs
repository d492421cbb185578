//! Has the store expire a space that this process wrote to, once nobody has written to it for long enough.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use crate::backend::{Backend, Space};

/// A space may expire a second later than its idle time: a store need not note each write of a second.
const LATE: Duration = Duration::from_secs(1);
/// Servers expire a space by themselves so long after it may expire: see `lua/guard.lua`.
const TOO_LATE: Duration = Duration::from_secs(3);
/// It is asked for so long after it may expire: the round trip is as long as it is.
const MARGIN: Duration = Duration::from_millis(500);
/// Beyond this the two clocks may be too far apart: then the store is asked before, too.
const MINUTE: Duration = Duration::from_secs(60);

/// When the space was written to, and the task that waits. The task ends with it.
#[derive(Default)]
pub(super) struct Expiry(Mutex<State>);

#[derive(Default)]
struct State {
    written: Option<Instant>,
    waits: bool,
    task: Option<AbortHandle>,
}

impl Expiry {
    /// Notes that the space was written to, or may have been. No I/O.
    pub(super) fn written<B: Backend + ?Sized>(self: &Arc<Self>, store: &Arc<B>, space: &Space) {
        let now = Instant::now();
        {
            let mut state = self.0.lock();
            state.written = Some(now);
            if state.waits {
                return;
            }
        }
        let (Some(idle), Ok(runtime)) = (space.idle(), Handle::try_current()) else { return };
        if std::mem::replace(&mut self.0.lock().waits, true) {
            return;
        }
        let waits = Waits { expiry: Arc::downgrade(self), idle };
        // Without the lock: a runtime that is shutting down drops the task at once.
        let task = runtime.spawn(waits.until_expired(Arc::downgrade(store), space.clone(), now));
        self.0.lock().task = Some(task.abort_handle());
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        if let Some(task) = self.0.get_mut().task.take() {
            task.abort();
        }
    }
}

/// What the task has. Dropped with it, also where its runtime ends.
struct Waits {
    expiry: Weak<Expiry>,
    idle: Duration,
}

impl Waits {
    async fn until_expired<B: Backend + ?Sized>(
        mut self,
        store: Weak<B>,
        space: Space,
        mut written: Instant,
    ) {
        let idle = self.idle + LATE;
        let mut at = written + asked_after(idle);
        loop {
            sleep_until(at).await;
            let Some(latest) = self.written() else { return };
            if latest != written {
                written = latest;
                at = written + asked_after(idle);
                continue;
            }
            let Some(store) = store.upgrade() else { return };
            let Some(windows) = store.capabilities().windows else { return };
            let answer = windows.expire_idle(&space).await;
            let now = Instant::now();
            let left = (written + idle).saturating_duration_since(now);
            at = now
                + match answer {
                    // Also where others have written to it.
                    Ok(Some(left)) => asked_after(left),
                    Err(_) if now < written + idle + TOO_LATE => asked_after(left),
                    Ok(None) | Err(_) if self.ends(written) => return,
                    Ok(None) | Err(_) => Duration::ZERO,
                };
        }
    }

    /// When this process last wrote to the space.
    fn written(&self) -> Option<Instant> {
        self.expiry.upgrade()?.0.lock().written
    }

    /// Ends the waiting, unless there was another write.
    fn ends(&mut self, written: Instant) -> bool {
        let Some(expiry) = self.expiry.upgrade() else { return true };
        let mut state = expiry.0.lock();
        let ends = state.written == Some(written);
        if ends {
            state.waits = false;
            // From now on another task may wait.
            self.expiry = Weak::new();
        }
        ends
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(expiry) = self.expiry.upgrade() {
            expiry.0.lock().waits = false;
        }
    }
}

/// When to ask, if the space may expire after so long by what is known.
fn asked_after(left: Duration) -> Duration {
    if left > MINUTE { left - left / 16 } else { left + MARGIN }
}
