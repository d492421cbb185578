//! What is lost, and what counts twice, when connections are killed and when the server hangs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use distkit_testkit::Server;

use super::{Effort, runtime};
use crate::{
    contenders::{Adds as _, Kind, Names, Subject, Told, names, with},
    server::connect,
    table::Table,
};

const TASKS: usize = 16;
/// Many, so that hardly any has one addition lost and another doubled, which would cancel out.
const KEYS: usize = 1000;
/// Between two additions of a task.
const PACE: Duration = Duration::from_millis(2);
/// Before the first fault, and between faults.
const CALM: Duration = Duration::from_millis(1000);
/// For how long the server's counters do not change before they are read.
const STILL: Duration = Duration::from_secs(3);
/// The longest wait for that, and for calls that do not end.
const PATIENCE: Duration = Duration::from_secs(30);

const COLUMNS: [&str; 8] =
    ["", "calls", "counted", "not applied", "unknown", "held", "lost", "doubled"];

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Every connection, each 50 ms.
    Kills,
    /// The server's process stands still, twice. Its connections stay open.
    Hangs,
}

/// What callers did and were told, by counter.
struct Ledger {
    begun: Vec<AtomicI64>,
    counted: Vec<AtomicI64>,
    not_applied: Vec<AtomicI64>,
}

impl Ledger {
    fn new() -> Self {
        let zeros = || (0..KEYS).map(|_| AtomicI64::new(0)).collect();
        Self { begun: zeros(), counted: zeros(), not_applied: zeros() }
    }

    async fn add(&self, subject: &Subject, key: usize) {
        self.begun[key].fetch_add(1, Relaxed);
        match with!(subject, contender => contender.add(key).await) {
            Told::Counted => self.counted[key].fetch_add(1, Relaxed),
            Told::NotApplied => self.not_applied[key].fetch_add(1, Relaxed),
            Told::Unknown => 0,
        };
    }
}

fn load(of: &[AtomicI64]) -> Vec<i64> {
    of.iter().map(|count| count.load(Relaxed)).collect()
}

/// How many additions are certainly lost, and how many certainly count twice or in spite of a refusal.
///
/// By counter: the acknowledged additions, those of unknown outcome, and what the server holds. A lost
/// and a doubled addition of one counter cancel out.
fn verdict(counted: &[i64], unknown: &[i64], held: &[i64]) -> (i64, i64) {
    let mut verdict = (0, 0);
    for ((counted, unknown), held) in counted.iter().zip(unknown).zip(held) {
        verdict.0 += (counted - held).max(0);
        verdict.1 += (held - counted - unknown).max(0);
    }
    verdict
}

pub(super) fn run(effort: &Effort) -> Vec<Table> {
    let table = |title: &str, about: String, fault| Table {
        title: title.to_owned(),
        about,
        columns: COLUMNS.into(),
        rows: all(fault, effort),
    };
    vec![
        table(
            "Killed connections",
            format!(
                "{TASKS} tasks add to {KEYS} counters, with pauses of 2 ms. `CLIENT KILL TYPE normal` comes \
                 each 50 ms for {} s. Columns: what callers were told (counted; certainly not applied; \
                 unknown, which includes errors that do not say whether it counts), what the server holds \
                 when it has not changed for 3 s (0.7.1 lax: 16 s), the acknowledged additions that it \
                 lacks, and what it has beyond the acknowledged and the unknown ones.",
                effort.kills.as_secs_f64()
            ),
            Fault::Kills,
        ),
        table(
            "A server that hangs",
            format!(
                "The same, while the server's process is stopped twice for {} s, a second apart.",
                effort.frozen.as_secs_f64()
            ),
            Fault::Hangs,
        ),
    ]
}

/// All contenders at once, each with a server and threads of its own: nothing is timed.
fn all(fault: Fault, effort: &Effort) -> Vec<Vec<String>> {
    thread::scope(|scope| {
        let running: Vec<_> =
            Kind::ALL.map(|kind| scope.spawn(move || try_out(kind, fault, effort))).into();
        running.into_iter().map(|row| row.join().expect("the work does not panic")).collect()
    })
}

fn try_out(kind: Kind, fault: Fault, effort: &Effort) -> Vec<String> {
    let server = Server::redis().start();
    let runtime = runtime("exactness");
    // One more, to use the contender by when the work is done.
    let names = names(KEYS + 1);
    let subject = Arc::new(runtime.block_on(kind.connect(&server.url(), &names)));
    let (ledger, stop) = (Arc::new(Ledger::new()), Arc::new(AtomicBool::new(false)));
    let task = |number: usize| {
        let (subject, ledger, stop) = (subject.clone(), ledger.clone(), stop.clone());
        runtime.spawn(async move {
            let mut dice = fastrand::Rng::with_seed(number as u64);
            // Each counter comes into use before the faults.
            for key in (number..KEYS).step_by(TASKS) {
                ledger.add(&subject, key).await;
            }
            while !stop.load(Relaxed) {
                ledger.add(&subject, dice.usize(..KEYS)).await;
                tokio::time::sleep(PACE).await;
            }
        })
    };
    let tasks: Vec<_> = (0..TASKS).map(task).collect();

    thread::sleep(CALM);
    match fault {
        Fault::Kills => runtime.block_on(kill_connections(&server, effort.kills)),
        Fault::Hangs => {
            for _ in 0..2 {
                server.freeze();
                thread::sleep(effort.frozen);
                server.thaw();
                thread::sleep(CALM);
            }
        }
    }
    stop.store(true, Relaxed);
    let (told, held) = runtime.block_on(async {
        let all_end = async {
            for task in tasks {
                task.await.expect("the task does not panic");
            }
        };
        if tokio::time::timeout(PATIENCE, all_end).await.is_err() {
            eprintln!("{}: calls that have not ended after {PATIENCE:?}", kind.name());
        }
        // Whatever is answered from here on counts as unknown.
        let told = [&ledger.counted, &ledger.not_applied, &ledger.begun].map(|of| load(of));
        let user = tokio::spawn(async move { subject.use_now_and_then(KEYS).await });
        let held = still(kind, &server, &names, &told[0]).await;
        user.abort();
        (told, held)
    });
    // A task of a contender that never yields is not waited for.
    runtime.shutdown_background();

    let [counted, not_applied, begun] = told;
    let unknown: Vec<i64> =
        (0..KEYS).map(|key| begun[key] - counted[key] - not_applied[key]).collect();
    let (lost, doubled) = verdict(&counted, &unknown, &held);
    let sums = [&begun, &counted, &not_applied, &unknown, &held].map(|each| each.iter().sum());
    let mut row = vec![kind.name().to_owned()];
    row.extend(sums.into_iter().chain([lost, doubled]).map(|sum: i64| sum.to_string()));
    row
}

/// Over a connection that is spared.
async fn kill_connections(server: &Server, time: Duration) {
    let mut connection = connect(&server.url()).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let began = Instant::now();
    while began.elapsed() < time {
        ticks.tick().await;
        let mut command = redis::cmd("CLIENT");
        command.arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
        command.query_async::<i64>(&mut connection).await.expect("the server is there");
    }
}

/// What the server holds when nothing more comes; if acknowledged additions are missing, not before the
/// contender's longest lag has passed.
async fn still(kind: Kind, server: &Server, names: &Names, counted: &[i64]) -> Vec<i64> {
    let mut connection = connect(&server.url()).await;
    let began = Instant::now();
    let (mut held, mut since) = (Vec::new(), began);
    while began.elapsed() < PATIENCE {
        let mut now = kind.place().held(&mut connection, names).await;
        now.truncate(KEYS);
        if now != held {
            (held, since) = (now, Instant::now());
        }
        let (lost, _) = verdict(counted, &vec![0; KEYS], &held);
        let enough = if lost > 0 { STILL.max(kind.longest_lag()) } else { STILL };
        if since.elapsed() > enough {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    held
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn what_is_missing_and_what_is_too_much_is_counted_by_counter() {
        // Exact, with and without the unknown; one lost; two doubled; a refused addition that counts.
        assert_eq!(verdict(&[5, 5], &[2, 2], &[5, 7]), (0, 0));
        assert_eq!(verdict(&[5, 5], &[0, 0], &[4, 7]), (1, 2));
        assert_eq!(verdict(&[0], &[0], &[1]), (0, 1));
    }

    #[test]
    fn unknown_additions_hide_neither_a_loss_nor_more_than_themselves() {
        assert_eq!(verdict(&[5], &[2], &[4]), (1, 0));
        assert_eq!(verdict(&[5], &[2], &[8]), (0, 1));
    }
}
