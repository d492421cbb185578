use std::time::Duration;

use tokio::runtime::Handle;

use super::task::{Found, Task};
use crate::detached::Detached;

#[tokio::test(flavor = "current_thread")]
async fn a_task_is_given_to_the_watch_once_until_the_watch_lets_go_of_it() {
    let mut task = Task::default();
    task.begin(Detached::new(std::future::pending()), Handle::current());
    assert_eq!([task.begin_watch(), task.begin_watch()], [true, false]);
    // The next task is watched in its place.
    task.begin(Detached::new(std::future::pending()), Handle::current());
    assert!(!task.begin_watch());
    task.take();
    let found = task.look(crate::watch::machine_time(), Duration::from_secs(1), false);
    assert!(matches!(found, Found::Nothing));
    task.begin(Detached::new(std::future::pending()), Handle::current());
    assert!(task.begin_watch());
}
