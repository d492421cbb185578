use std::{future::pending, time::Duration};

use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use crate::detached::Detached;

/// Tokio would keep a task that nobody wakes until its runtime ends.
#[tokio::test(start_paused = true)]
async fn cancelled_work_ends_its_task() {
    for polled in [false, true] {
        let work = Detached::new(pending());
        let task = tokio::spawn(work.run());
        if polled {
            yield_now().await;
        }
        work.cancel();
        assert!(work.has_ended());
        timeout(Duration::from_secs(1), task).await.expect("the task ends").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_task_cancels_its_work() {
    let work = Detached::new(sleep(Duration::from_secs(60)));
    let task = tokio::spawn(work.run());
    yield_now().await;
    task.abort();
    yield_now().await;
    assert!(work.has_ended());
}
