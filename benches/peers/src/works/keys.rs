//! Very many counters, one addition each, until the server has them all.

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use distkit_testkit::Server;
use redis::aio::MultiplexedConnection;

use super::{Effort, add_to_each, runtime};
use crate::{
    contenders::{Kind, Subject, names},
    processor::own_milliseconds,
    server::{self, additions, connect},
    table::{Table, digits, spread},
};

/// A contender that takes longer has one round.
const SLOW: Duration = Duration::from_secs(2);

/// The longest that a round may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(effort: &Effort) -> Vec<Table> {
    let rounds = effort.rounds.min(3);
    let contenders = Kind::ALL.into_iter().filter(|kind| !kind.is_variant());
    vec![Table {
        title: format!("{} counters, one addition each", effort.keys),
        about: format!(
            "By 64 tasks, from the first call until the server has made all additions, and the CPU time of \
             it. What counts in the process waits up to 20 ms first. The counters are in use already. \
             Median (least-most) of {rounds} rounds, or one round of a contender that takes over 2 s."
        ),
        columns: vec!["", "wall, ms", "CPU of the server, ms", "CPU of the client, ms"],
        rows: contenders.map(|kind| measure(kind, effort.keys, rounds)).collect(),
    }]
}

/// A server and a runtime of its own: a contender's tasks end with it.
fn measure(kind: Kind, keys: usize, rounds: usize) -> Vec<String> {
    let server = Server::redis().start();
    let measured = runtime("keys").block_on(in_rounds(kind, &server, keys, rounds));
    let mut row = vec![kind.name().to_owned()];
    match measured {
        Ok(values) => row.extend(values.map(|values| spread(values, digits))),
        Err(failure) => row.extend([failure, "-".to_owned(), "-".to_owned()]),
    }
    row
}

/// The wall time, the server's and the client's CPU of each round, or what went wrong.
///
/// Each round has a new object, which a rehearsal brings into use: the flush of 0.7.1 stops
/// 7.5 s after the first use.
async fn in_rounds(
    kind: Kind,
    server: &Server,
    keys: usize,
    rounds: usize,
) -> Result<[Vec<f64>; 3], String> {
    let names = names(keys);
    let mut connection = connect(&server.url()).await;
    let mut values: [Vec<f64>; 3] = Default::default();
    let mut done = 0;
    for _ in 0..rounds {
        let subject = Arc::new(kind.connect(&server.url(), &names).await);
        once(&subject, server, &mut connection, keys).await?;
        let costs = once(&subject, server, &mut connection, keys).await?;
        done += 2;
        iter::zip(&mut values, costs).for_each(|(values, cost)| values.push(cost));
        if Duration::from_secs_f64(costs[0] / 1e3) > SLOW {
            break;
        }
    }
    let held = kind.place().held(&mut connection, &names).await;
    let wrong = held.iter().filter(|value| **value != done).count();
    if wrong > 0 { Err(format!("{wrong} counters are wrong")) } else { Ok(values) }
}

/// One addition to each counter, until the server has made them all: wall time, the server's and the
/// client's CPU, in milliseconds.
async fn once(
    subject: &Arc<Subject>,
    server: &Server,
    connection: &mut MultiplexedConnection,
    keys: usize,
) -> Result<[f64; 3], String> {
    let goal = additions(connection).await + keys as u64;
    let (began, of_server, own) = (Instant::now(), server::cpu(server), own_milliseconds());
    let failed = add_to_each(subject, keys).await;
    if failed > 0 {
        return Err(format!("{failed} calls failed"));
    }
    loop {
        let missing = goal.saturating_sub(additions(connection).await);
        if missing == 0 {
            break;
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("{missing} are missing after {} s", PATIENCE.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let wall = began.elapsed().as_secs_f64() * 1e3;
    Ok([wall, server::cpu(server) - of_server, own_milliseconds() - own])
}
