//! A watch whose patience may be over whenever it looks.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use shuttle::future::yield_now;

pub(crate) trait Watched: Send + Sync {
    fn look(self: Arc<Self>, now: Instant) -> Option<Instant>;
}

#[expect(clippy::disallowed_methods, reason = "only a place to count from")]
pub(crate) fn watch(watched: Weak<dyn Watched>) {
    shuttle::future::spawn(async move {
        let mut now = Instant::now();
        while let Some(it) = watched.upgrade()
            && it.look(now).is_some()
        {
            now += Duration::from_secs(10);
            for _ in 0..10 {
                yield_now().await;
            }
        }
    });
}
