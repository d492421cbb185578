//! What a call takes.

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use distkit_testkit::{Server, wait_until};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Runtime;

use super::{Effort, YIELD_EVERY, add, add_to_each, runtime};
use crate::{
    contenders::{Kind, Subject, names, with},
    server::{additions, connect},
    table::{Table, digits, spread},
};

const KEYS: usize = 10_000;

/// How many tasks add to how many counters.
const CASES: [(usize, usize); 4] = [(1, 1), (1, KEYS), (64, 1), (64, KEYS)];

struct Contender {
    kind: Kind,
    subject: Arc<Subject>,
    nanoseconds: [Vec<f64>; CASES.len()],
}

struct Bed {
    runtime: Runtime,
    connection: MultiplexedConnection,
    turn: Duration,
}

impl Bed {
    /// One turn: how many nanoseconds go by for each call, of all tasks together.
    fn turn(&self, subject: &Arc<Subject>, (tasks, keys): (usize, usize)) -> f64 {
        let began = Instant::now();
        let calls = self.runtime.block_on(call_in_tasks(subject, tasks, keys, began + self.turn));
        let took = began.elapsed();
        self.settle();
        took.as_nanos() as f64 / calls.max(1) as f64
    }

    /// Waits until nothing more comes from this turn, so that its flush does not burden the next one.
    fn settle(&self) {
        let mut connection = self.connection.clone();
        let mut count = || self.runtime.block_on(additions(&mut connection));
        let mut before = count();
        wait_until("the flushes end", || {
            std::thread::sleep(Duration::from_millis(50));
            let now = count();
            std::mem::replace(&mut before, now) == now
        });
    }
}

/// Adds from so many tasks to randomly chosen ones of so many counters until `end`; gives the number of
/// calls that did not fail.
async fn call_in_tasks(subject: &Arc<Subject>, tasks: usize, keys: usize, end: Instant) -> usize {
    let start = |task| {
        let subject = subject.clone();
        let mut dice = fastrand::Rng::with_seed(task as u64 + 1);
        let mut key = move || if keys == 1 { 0 } else { dice.usize(..keys) };
        tokio::spawn(async move {
            with!(&*subject, contender => {
                let mut calls = 0;
                while Instant::now() < end {
                    let keys = iter::repeat_with(&mut key).take(YIELD_EVERY);
                    calls += YIELD_EVERY - add(contender, keys).await;
                }
                calls
            })
        })
    };
    let running: Vec<_> = (0..tasks).map(start).collect();
    let mut calls = 0;
    for task in running {
        calls += task.await.expect("the task does not panic");
    }
    calls
}

pub(super) fn run(effort: &Effort) -> Vec<Table> {
    let server = Server::redis().start();
    let runtime = runtime("inc");
    let connection = runtime.block_on(connect(&server.url()));
    let bed = Bed { runtime, connection, turn: effort.turn };
    let names = names(KEYS);
    let mut contenders = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_variant()) {
        let subject = Arc::new(bed.runtime.block_on(kind.connect(&server.url(), &names)));
        // Brings the counters into use.
        bed.runtime.block_on(add_to_each(&subject, KEYS));
        bed.settle();
        contenders.push(Contender { kind, subject, nanoseconds: Default::default() });
    }
    for (case, what) in CASES.into_iter().enumerate() {
        for round in 0..effort.rounds {
            for turn in 0..contenders.len() {
                let at = (round + turn) % contenders.len();
                let contender = &mut contenders[at];
                contender.nanoseconds[case].push(bed.turn(&contender.subject, what));
            }
        }
    }
    let row = |contender: Contender| {
        let cells = iter::zip(CASES, contender.nanoseconds).map(|((tasks, _), nanoseconds)| {
            if tasks == 1 {
                spread(nanoseconds, time)
            } else {
                spread(nanoseconds.into_iter().map(|each| 1e9 / each).collect(), rate)
            }
        });
        iter::once(contender.kind.name().to_owned()).chain(cells).collect()
    };
    vec![Table {
        title: "One addition".to_owned(),
        about: format!(
            "Of one task: what a call takes. Of 64 tasks on 2 workers: calls in a second, of all of them. \
             Median (least-most) of {} rounds; the counters are in use already. A call that fails is not \
             counted.",
            effort.rounds
        ),
        columns: vec![
            "",
            "1 task, 1 key",
            "1 task, 10 000 keys",
            "64 tasks, 1 key",
            "64 tasks, 10 000 keys",
        ],
        rows: contenders.into_iter().map(row).collect(),
    }]
}

fn time(nanoseconds: f64) -> String {
    if nanoseconds < 10_000.0 {
        format!("{} ns", digits(nanoseconds))
    } else {
        format!("{} us", digits(nanoseconds / 1e3))
    }
}

fn rate(each_second: f64) -> String {
    if each_second < 1e6 {
        format!("{} k/s", digits(each_second / 1e3))
    } else {
        format!("{} M/s", digits(each_second / 1e6))
    }
}
