//! Calls on one strict counter take effect one after the other, each between its start and its end,
//! whatever becomes of the connections and the server meanwhile.

mod checker;
mod log;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    CounterComparator::{Eq, Gt, Lt, Ne, Nil},
    DistkitError, RedisKey,
    counter::{CounterTrait, StrictCounter},
};
use distkit_testkit::Server;
use tokio::{task::JoinSet, time::Instant};

use self::checker::{Answer, Call, Operation, check};
use crate::support::{Bench, Client, Dice, TOTALS, keys, over_both_clients, soak};

over_both_clients!(
    calls_are_linearizable_while_connections_are_killed,
    calls_are_linearizable_while_the_server_is_killed,
);

const CALLERS: usize = 8;
const KEYS: usize = 4;

/// A run with fewer operations has shown nothing.
const LEAST: u64 = 1000;

/// What the callers of a run share.
struct Run {
    keys: Vec<RedisKey>,
    /// Shows each time once, so that of two events one was first.
    clock: AtomicU64,
    /// Numbers the amounts, so that none comes twice.
    amounts: AtomicU64,
    over: AtomicBool,
}

impl Run {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst)
    }

    /// Large and without a pattern, so that no two sums are the same either.
    fn amount(&self, dice: &mut Dice) -> i64 {
        let number = self.amounts.fetch_add(1, SeqCst);
        assert!(number < 1 << 24, "more calls than there are amounts");
        ((dice.below(1 << 24) as i64) << 24) | number as i64
    }
}

/// Longer than the servers are away.
const UNKNOWN_AFTER: Duration = Duration::from_secs(60);

/// Calls until the run is over.
async fn call(run: Arc<Run>, counter: Arc<StrictCounter>, seed: u64) -> Vec<(usize, Operation)> {
    let mut dice = Dice::new(seed);
    let mut last = [0; KEYS];
    let mut calls = Vec::new();
    while !run.over.load(SeqCst) {
        let key = dice.below(KEYS);
        let condition = match dice.below(4) {
            0 => Gt(0),
            1 => Lt(0),
            2 => Eq(last[key]),
            _ => Ne(last[key]),
        };
        let sign = [1, -1][dice.below(2)];
        let call = match dice.below(20) {
            0..5 => Call::Get,
            5..13 => Call::Add(sign * run.amount(&mut dice), Nil),
            13..15 => Call::Add(sign * run.amount(&mut dice), condition),
            15..17 => Call::Set(sign * run.amount(&mut dice), Nil),
            17..19 => Call::Set(sign * run.amount(&mut dice), condition),
            _ => Call::Delete,
        };
        let start = run.now();
        let answer = made(&counter, &run.keys[key], call).await;
        let end = run.now();
        match answer {
            Answer::Value(value) | Answer::Pair { new: value, .. } => last[key] = value,
            // No use in asking a server that is away as often as one can.
            Answer::NotApplied | Answer::Unknown => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        calls.push((key, Operation { call, answer, start, end }));
    }
    calls
}

async fn made(counter: &StrictCounter, key: &RedisKey, call: Call) -> Answer {
    let pair = |answer: Result<(i64, i64), DistkitError>| {
        answer.map(|(new, old)| Answer::Pair { old, new })
    };
    let answer = match call {
        Call::Get => counter.get(key).await.map(Answer::Value),
        Call::Add(count, Nil) if count < 0 => counter.dec(key, -count).await.map(Answer::Value),
        Call::Add(count, Nil) => counter.inc(key, count).await.map(Answer::Value),
        Call::Add(count, condition) => pair(counter.inc_if(key, condition, count).await),
        Call::Set(count, Nil) => counter.set(key, count).await.map(Answer::Value),
        Call::Set(count, condition) => pair(counter.set_if(key, condition, count).await),
        Call::Delete => counter.del(key).await.map(Answer::Value),
    };
    answer.unwrap_or_else(|error| {
        if error.may_have_happened() { Answer::Unknown } else { Answer::NotApplied }
    })
}

fn is_conditional(call: Call) -> bool {
    matches!(call, Call::Add(_, condition) | Call::Set(_, condition) if condition != Nil)
}

/// Runs the callers while `harm` is done to the server again and again, and checks what they recorded.
async fn linearizable_under(
    bench: Bench,
    guarded: bool,
    every: Duration,
    length: Duration,
    harm: fn(&Server),
) {
    let run = Arc::new(Run {
        keys: keys(KEYS),
        clock: AtomicU64::new(0),
        amounts: AtomicU64::new(1),
        over: AtomicBool::new(false),
    });
    let mut callers = JoinSet::new();
    for seed in 0..CALLERS {
        // A counter for each: calls that share a request would be one change in the log.
        let options = bench.options().await.unknown_after(UNKNOWN_AFTER);
        let options = if guarded { options } else { options.unguarded() };
        callers.spawn(call(run.clone(), StrictCounter::new(options), seed as u64 + 1));
    }
    let start = Instant::now();
    let mut rounds = 0;
    // A busy machine takes longer until there is something to check.
    let enough = |rounds| rounds >= 3 && run.clock.load(SeqCst) > 4 * LEAST;
    while start.elapsed() < length || start.elapsed() < 10 * length && !enough(rounds) {
        tokio::time::sleep(every).await;
        bench.blocking(harm).await;
        rounds += 1;
    }
    run.over.store(true, SeqCst);
    let mut histories = vec![Vec::new(); KEYS];
    for (key, operation) in callers.join_all().await.into_iter().flatten() {
        histories[key].push(operation);
    }
    // What was sent and not yet read goes with its connection: nothing happens after this.
    bench.blocking(kill_connections).await;

    let changes = bench.blocking(|server| log::changes(server.dir(), TOTALS)).await;
    let checking = Instant::now();
    for (key, history) in run.keys.iter().zip(&histories) {
        let changes = changes.get(&**key).map_or(&[][..], |changes| changes);
        if let Err(violation) = check(history, changes) {
            panic!("{:?}, {key}: {violation:?}", bench.client);
        }
    }
    let checking = checking.elapsed();
    let unknown = report(bench.client, &histories, &changes, rounds, checking);
    assert_eq!(unknown > 0, !guarded, "{unknown} outcomes were unknown");
}

fn report(
    client: Client,
    histories: &[Vec<Operation>],
    changes: &HashMap<String, Vec<checker::Change>>,
    rounds: u32,
    checking: Duration,
) -> usize {
    let all = || histories.iter().flatten();
    let answered = |answer| all().filter(|operation| operation.answer == answer).count();
    let unknown = answered(Answer::Unknown);
    println!(
        "{client:?}: {} operations, {} changes, {unknown} of unknown outcome, {} not applied, {rounds} \
         rounds of harm, checked in {checking:?}",
        all().count(),
        changes.values().map(Vec::len).sum::<usize>(),
        answered(Answer::NotApplied),
    );
    let met = |met: bool| {
        all().any(|operation| {
            is_conditional(operation.call)
                && matches!(operation.answer, Answer::Pair { old, new } if (old != new) == met)
        })
    };
    assert!(all().count() as u64 > LEAST, "there was next to no load");
    assert!(met(true) && met(false), "the conditions all went the same way");
    unknown
}

fn kill_connections(server: &Server) {
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
}

async fn calls_are_linearizable_while_connections_are_killed(client: Client) {
    let (every, length) = (Duration::from_millis(10), soak(Duration::from_secs(3)));
    // The log is not needed after a crash here, and a rewritten one would not tell the order.
    let log = ["--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0"];
    for guarded in [true, false] {
        let bench = Bench::on(client, Server::redis().args(&log).start());
        linearizable_under(bench, guarded, every, length, kill_connections).await;
    }
}

async fn calls_are_linearizable_while_the_server_is_killed(client: Client) {
    let (every, length) = (Duration::from_millis(300), soak(Duration::from_secs(3)));
    let log = ["--auto-aof-rewrite-percentage", "0"];
    for (guarded, server) in
        [(true, Server::redis()), (true, Server::valkey()), (false, Server::redis())]
    {
        let bench = Bench::on(client, server.append_only_always().args(&log).start());
        linearizable_under(bench, guarded, every, length / 2, |server| {
            server.kill_9();
            server.restart();
        })
        .await;
    }
}
