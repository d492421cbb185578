//! Joined calls of which some are late.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Settings,
    queue::{Joint, Queue},
};
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Outcome, progress::said},
};

const SECOND: Duration = Duration::from_secs(1);

/// A store whose client connects some time.
#[derive(Default)]
struct Late {
    connected: Arc<Notify>,
    total: Mutex<i64>,
}

#[async_trait]
impl Joint<i64> for Late {
    async fn add(
        &self,
        items: &[(RedisKey, i64)],
        deadline: Option<Instant>,
    ) -> Result<Vec<Outcome<i64>>, DistkitError> {
        said::waits();
        let connected = self.connected.notified();
        let deadline = deadline.unwrap_or_else(|| Instant::now() + 60 * SECOND);
        if timeout_at(deadline, connected).await.is_err() {
            return Err(BackendError::not_applied("no connection").into());
        }
        said::is_sent();
        let mut total = self.total.lock();
        Ok(items.iter().map(|(_, count)| Ok(add_to(&mut total, *count))).collect())
    }

    fn note_joined(&self, _: usize) {}
}

fn add_to(total: &mut i64, count: i64) -> i64 {
    *total += count;
    *total
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_late_leave_a_request_that_still_waits_for_a_connection() {
    let late = Late::default();
    let connected = Arc::clone(&late.connected);
    let queue = Queue::new(Box::new(late));
    let settings = Settings { unknown_after: Some(5 * SECOND), ..Settings::default() };
    let hits = RedisKey::new("hits").unwrap();
    let mut calls = Vec::new();
    // The first is sent by its caller, two by drivers of their own; the others gather behind these.
    for count in [1, 10, 100, 1000, 10_000, 100_000] {
        let (queue, hits) = (Arc::clone(&queue), hits.clone());
        calls.push(tokio::spawn(async move { queue.add(&hits, count, &settings).await }));
        sleep(SECOND).await;
    }
    // All but the last two are past their deadlines by then.
    sleep(3 * SECOND - SECOND / 2).await;
    connected.notify_waiters();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    let (late, in_time) = answers.split_at(4);
    for answer in late {
        assert!(matches!(answer, Err(DistkitError::NotApplied(_))), "{answer:?}");
    }
    let totals: Vec<_> = in_time.iter().map(|answer| *answer.as_ref().unwrap()).collect();
    assert_eq!(totals, [10_000, 110_000], "nothing of the others was added");
}
