//! How long after the answer of an addition the server shows it.

use std::{
    iter,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use distkit_testkit::Server;

use super::{Effort, add, runtime};
use crate::{
    contenders::{Kind, Names, Subject, names, with},
    server::connect,
    table::{Table, digits, quantile},
};

/// Each has a counter of its own.
const WATCHERS: usize = 4;

/// For how much longer than the work an addition is looked for.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(effort: &Effort) -> Vec<Table> {
    let contenders = Kind::ALL.into_iter().filter(|kind| kind.buffers() && *kind != Kind::Dropped);
    let watch = effort.watch;
    // Side by side: they sleep most of the time, and so a quarter of a minute is long enough.
    let rows = thread::scope(|scope| {
        let measured: Vec<_> =
            contenders.map(|kind| scope.spawn(move || measure(kind, watch))).collect();
        measured.into_iter().map(|row| row.join().expect("the work does not panic")).collect()
    });
    vec![Table {
        title: "From the answer to the server".to_owned(),
        about: format!(
            "Time after the answer of an addition until the server shows it, looked for each millisecond; \
             {WATCHERS} counters for {} s, with pauses of up to 40 ms, while another is added to each 10 ms. \
             Whoever is not in the table answers when the server has it.",
            watch.as_secs_f64()
        ),
        columns: vec!["", "p50, ms", "p99, ms", "longest, ms", "additions"],
        rows,
    }]
}

fn measure(kind: Kind, watch: Duration) -> Vec<String> {
    let server = Server::redis().start();
    let names = names(WATCHERS + 1);
    let mut lags = runtime("lag").block_on(async {
        let subject = Arc::new(kind.connect(&server.url(), &names).await);
        let watchers: Vec<_> = (0..WATCHERS)
            .map(|key| {
                let (subject, names, url) = (subject.clone(), names.clone(), server.url());
                tokio::spawn(arrivals(kind, subject, names, url, key, watch))
            })
            .collect();
        let user = tokio::spawn(async move { subject.use_now_and_then(WATCHERS).await });
        let mut lags = Vec::new();
        for watcher in watchers {
            lags.extend(watcher.await.expect("the task does not panic"));
        }
        user.abort();
        lags
    });
    let mut row = vec![kind.name().to_owned()];
    let parts = [0.5, 0.99, 1.0];
    row.extend(parts.map(|part| quantile(&mut lags, part).map_or_else(|| "-".to_owned(), digits)));
    row.push(lags.len().to_string());
    row
}

/// Adds to one counter again and again for so long; gives how many milliseconds each addition took
/// to arrive.
async fn arrivals(
    kind: Kind,
    subject: Arc<Subject>,
    names: Names,
    url: String,
    key: usize,
    watch: Duration,
) -> Vec<f64> {
    let mut connection = connect(&url).await;
    let mut dice = fastrand::Rng::with_seed(key as u64);
    let mut lags = Vec::new();
    let (mut expected, mut read, began) = (0, None, Instant::now());
    while began.elapsed() < watch {
        let failed = with!(&*subject, contender => add(contender, iter::once(key)).await);
        if failed > 0 {
            continue;
        }
        expected += 1;
        let answered = Instant::now();
        loop {
            // Where limitador keeps a counter is seen when it is there.
            let command = match read.take() {
                Some(command) => command,
                None => kind.place().reads(&mut connection, &names).await.swap_remove(key),
            };
            let value: Option<i64> = command.query_async(&mut connection).await.expect("served");
            read = value.is_some().then_some(command);
            if value >= Some(expected) {
                break;
            }
            // The flush that stops is not looked for a thousand times a second.
            let late = answered.elapsed() > Duration::from_millis(100);
            tokio::time::sleep(Duration::from_millis(if late { 10 } else { 1 })).await;
            if began.elapsed() > watch + PATIENCE {
                lags.push(answered.elapsed().as_secs_f64() * 1e3);
                return lags;
            }
        }
        // The first brings the counter into use.
        if expected > 1 {
            lags.push(answered.elapsed().as_secs_f64() * 1e3);
        }
        // So that additions come at any time between two flushes.
        tokio::time::sleep(Duration::from_millis(dice.u64(..40))).await;
    }
    lags
}
