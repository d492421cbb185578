//! To which server a client is connected: a failover is to be seen in the log.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use fred::{clients::Client, interfaces::ClientLike, types::config::Server};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How often it is looked after while commands are answered.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was last seen of the server of a client that leads to one at a time.
#[derive(Debug)]
pub(super) struct Seen {
    made: Instant,
    /// When to look again, in milliseconds since then.
    next: AtomicU64,
    last: Mutex<Option<Server>>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { made: Instant::now(), next: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// A command was answered. Fred connects anew by itself, and tells nobody who does not listen.
    pub(super) fn answered(&self, client: &Client) {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Relaxed);
        let later = now.saturating_add(LOOK_EVERY.as_millis() as u64);
        if now >= next && self.next.compare_exchange(next, later, Relaxed, Relaxed).is_ok() {
            self.look(client);
        }
    }

    #[cold]
    fn look(&self, client: &Client) {
        let mut servers = client.active_connections();
        let (Some(now), true) = (servers.pop(), servers.is_empty()) else { return };
        let before = self.last.lock().replace(now.clone());
        if let Some(from) = before.filter(|from| *from != now) {
            tracing::info!(
                target: "distkit::connection",
                %from, to = %now,
                "connected to another server than before"
            );
        }
    }
}
