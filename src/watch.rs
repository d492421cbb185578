//! A thread that finds tasks whose runtime lives but is not driven.
//!
//! Only tasks on current-thread runtimes are watched: a multi-thread runtime drives itself. The time is that of
//! the machine.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// How long the thread stays without anything to watch.
const LINGER: Duration = Duration::from_secs(10);

/// The time of the machine, which also passes for a runtime that is not driven, or whose clock is paused.
#[expect(clippy::disallowed_methods, reason = "tokio's time is not that of the machine")]
pub(crate) fn machine_time() -> Instant {
    Instant::now()
}

/// What has a task that may be on a runtime that is not driven.
pub(crate) trait Watched: Send + Sync {
    /// Does what is due, and answers when to look again. `None` when that is not necessary before it is
    /// given to [`watch`] again.
    fn look(self: Arc<Self>, now: Instant) -> Option<Instant>;
}

struct Watch {
    new: Vec<Weak<dyn Watched>>,
    runs: bool,
}

static WATCH: Mutex<Watch> = Mutex::new(Watch { new: Vec::new(), runs: false });
static CHANGED: Condvar = Condvar::new();

/// Looks at it now, and again when it says so.
pub(crate) fn watch(watched: Weak<dyn Watched>) {
    let mut watch = WATCH.lock();
    watch.new.push(watched);
    if watch.runs {
        CHANGED.notify_one();
    } else {
        // Where threads cannot be had nothing is watched, and a runtime must be driven.
        let thread = std::thread::Builder::new().name("distkit-watch".into());
        watch.runs = thread.spawn(run).is_ok();
    }
}

fn run() {
    let mut entries: Vec<(Instant, Weak<dyn Watched>)> = Vec::new();
    loop {
        let now = machine_time();
        entries.retain_mut(|(at, watched)| {
            if *at > now {
                return true;
            }
            let next = watched.upgrade().and_then(|watched| watched.look(now));
            next.inspect(|next| *at = *next).is_some()
        });
        let next = entries.iter().map(|(at, _)| *at).min();
        let mut watch = WATCH.lock();
        if watch.new.is_empty() {
            let until = next.unwrap_or(now + LINGER);
            let timed_out = CHANGED.wait_until(&mut watch, until).timed_out();
            if timed_out && next.is_none() && watch.new.is_empty() {
                watch.runs = false;
                return;
            }
        }
        entries.extend(watch.new.drain(..).map(|watched| (now, watched)));
    }
}
