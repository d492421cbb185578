//! The thirty lines that people write.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::aio::ConnectionManager;

use super::{Adds, Names, Told};

pub(super) const HASH: &str = "peers";

/// A map of what is to be sent.
#[derive(Debug)]
pub struct Map {
    pending: Mutex<HashMap<String, i64>>,
    names: Names,
}

impl Map {
    /// Starts the task that sends the map's content each `period`, and puts it back after a failure if it
    /// `retries`.
    pub(super) fn start(
        mut connection: ConnectionManager,
        names: &Names,
        period: Duration,
        retries: bool,
    ) -> Arc<Self> {
        let map = Arc::new(Self { pending: Mutex::default(), names: names.clone() });
        let shared = Arc::downgrade(&map);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(period);
            loop {
                ticks.tick().await;
                let Some(map) = shared.upgrade() else { return };
                let deltas = mem::take(&mut *map.lock());
                if deltas.is_empty() {
                    continue;
                }
                let mut pipeline = redis::Pipeline::with_capacity(deltas.len());
                for (name, delta) in &deltas {
                    pipeline.cmd("HINCRBY").arg(HASH).arg(name).arg(delta).ignore();
                }
                let sent = pipeline.query_async::<()>(&mut connection).await;
                if sent.is_err() && retries {
                    let mut pending = map.lock();
                    for (name, delta) in deltas {
                        *pending.entry(name).or_default() += delta;
                    }
                }
            }
        });
        map
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, i64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Adds for Arc<Map> {
    async fn add(&self, key: usize) -> Told {
        let name = &self.names[key];
        let mut pending = self.lock();
        // `entry` would allocate a `String` each time.
        match pending.get_mut(name) {
            Some(delta) => *delta += 1,
            None => drop(pending.insert(name.clone(), 1)),
        }
        Told::Counted
    }
}
