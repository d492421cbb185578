//! What is measured.

mod exactness;
mod inc;
mod keys;
mod lag;
mod memory;

use std::{hint::black_box, sync::Arc, time::Duration};

use tokio::runtime::Runtime;

use crate::{
    contenders::{Adds, Subject, Told, with},
    table::Table,
};

/// How much is done, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How often each contender has its turn.
    pub rounds: usize,
    /// How long a turn is, where that can be chosen.
    pub turn: Duration,
    /// How many counters many are.
    pub keys: usize,
    /// For how long arrivals are watched.
    pub watch: Duration,
    /// For how long connections are killed.
    pub kills: Duration,
    /// For how long the server stands still, each of the two times.
    pub frozen: Duration,
}

impl Effort {
    /// For figures.
    pub const FULL: Self = Self {
        rounds: 5,
        turn: Duration::from_millis(150),
        keys: 100_000,
        watch: Duration::from_secs(16),
        kills: Duration::from_secs(6),
        frozen: Duration::from_secs(3),
    };
    /// To see that it works.
    pub const QUICK: Self = Self {
        rounds: 1,
        turn: Duration::from_millis(20),
        keys: 10_000,
        watch: Duration::from_secs(2),
        kills: Duration::from_secs(2),
        frozen: Duration::from_millis(1500),
    };
}

/// Works that belong together, under a name that the command line takes.
#[derive(Debug)]
pub struct Group {
    /// The name.
    pub name: &'static str,
    /// What is measured.
    pub about: &'static str,
    /// Measures it.
    pub run: fn(&Effort) -> Vec<Table>,
}

/// All works.
pub const GROUPS: &[Group] = &[
    Group { name: "inc", about: "what a call takes, alone and among 64 tasks", run: inc::run },
    Group { name: "keys", about: "very many counters, until the server has them", run: keys::run },
    Group { name: "lag", about: "how long until the server shows an addition", run: lag::run },
    Group {
        name: "memory",
        about: "what very many counters take in the process",
        run: memory::run,
    },
    Group {
        name: "exactness",
        about: "what is lost or doubled when connections are killed and servers hang",
        run: exactness::run,
    },
];

/// Two workers, as in the other benches.
fn runtime(name: &str) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_name(name).enable_all().build().expect("a runtime")
}

/// After how many calls without I/O a task lets others run, as a service that answers requests would.
///
/// Fewer than the 128 after which tokio suspends a task in its next `acquire`: limitador's cached
/// storage acquires with a shard of its map locked, and stops for ever when all workers then wait for
/// this shard.
const YIELD_EVERY: usize = 64;

impl Subject {
    /// Adds to one counter each 10 ms, without an end: 0.7.1 sends nothing while it is not in use.
    pub async fn use_now_and_then(&self, key: usize) {
        loop {
            with!(self, contender => add(contender, std::iter::once(key)).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Adds to one counter after the other; gives how many additions did not count.
async fn add(contender: &impl Adds, keys: impl Iterator<Item = usize>) -> usize {
    let mut failed = 0;
    for (turn, key) in keys.enumerate() {
        failed += usize::from(black_box(contender.add(key).await) != Told::Counted);
        if (turn + 1) % YIELD_EVERY == 0 {
            tokio::task::yield_now().await;
        }
    }
    failed
}

/// Adds 1 to each of the first so many counters, from 64 tasks; gives how many additions did not
/// count.
///
/// # Panics
///
/// When a contender panics.
pub async fn add_to_each(subject: &Arc<Subject>, keys: usize) -> usize {
    const TASKS: usize = 64;
    let start = |task| {
        let (subject, keys) = (subject.clone(), (task..keys).step_by(TASKS));
        tokio::spawn(async move { with!(&*subject, contender => add(contender, keys).await) })
    };
    let running: Vec<_> = (0..TASKS).map(start).collect();
    let mut failed = 0;
    for task in running {
        failed += task.await.expect("the contender does not panic");
    }
    failed
}
