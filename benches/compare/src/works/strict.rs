//! Strict counters: one round trip a call, next to the raw client's.

use std::{sync::Arc, time::Duration};

use distkit::{
    counter::{CounterOptions, CounterTrait as _, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait as _, StrictInstanceAwareCounter,
        StrictInstanceAwareCounterOptions,
    },
};
use fred::interfaces::HashesInterface as _;
use peer::{counter::CounterTrait as _, icounter::InstanceAwareCounterTrait as _};
use redis::aio::ConnectionManager;

use crate::{
    measure::{Goal, Metric, Outcome, Role, Unit, compare},
    stage::{Stage, alone, our_key, our_keys, peer_key, peer_keys, together},
};

const TASKS: usize = 64;
const KEYS: usize = 100;
/// How many requests share a write to the socket is up to the scheduler, and sways the rate by a third.
const UNSTEADY: usize = 3;
const HASH: &str = "distkit:{raw}:totals";

const CALLS: &str = "calls";

fn rate(name: &'static str, goal: Option<Goal>) -> Metric {
    Metric { name, unit: Unit::PerSecond, goal }
}

/// Counts keys instead of batches.
fn per_key(mut run: impl FnMut(u64) -> (u64, Duration)) -> impl FnMut(u64) -> (u64, Duration) {
    move |count| {
        let (batches, took) = run(count.div_ceil(KEYS as u64));
        (batches * KEYS as u64, took)
    }
}

async fn raw_inc(mut connection: ConnectionManager, field: &str) -> i64 {
    let mut command = redis::cmd("HINCRBY");
    command.arg(HASH).arg(field).arg(1);
    command.query_async(&mut connection).await.expect("the server is there")
}

async fn raw_batch(mut connection: ConnectionManager, fields: &[distkit::RedisKey]) -> Vec<i64> {
    let mut pipeline = redis::Pipeline::with_capacity(fields.len());
    for field in fields {
        pipeline.cmd("HINCRBY").arg(HASH).arg(field.as_str()).arg(1);
    }
    pipeline.query_async(&mut connection).await.expect("the server is there")
}

pub(crate) fn plain(stage: &Stage) -> Vec<Outcome> {
    let effort = stage.effort;
    let (keys, other_keys) = (our_keys(KEYS), peer_keys(KEYS));
    let ours = StrictCounter::new(CounterOptions::new(our_key("strict"), stage.connect()));
    let options = peer::counter::CounterOptions::new(peer_key("strict"), stage.connect());
    let peer = peer::counter::StrictCounter::new(options);
    let raw = stage.connect();

    let mut outcomes = compare(
        "strict inc, 64 tasks, redis-rs",
        &[rate(CALLS, Some(Goal::at_least(0.9, Role::Limit)))],
        UNSTEADY * effort.rounds,
        vec![
            stage.rating(
                Role::Ours,
                "inc",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (ours, keys),
                    ours.inc(&keys[turn % KEYS], 1).await.expect("served")
                ),
            ),
            stage.rating(
                Role::Peer,
                "inc",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (peer, other_keys),
                    peer.inc(&other_keys[turn % KEYS], 1).await.expect("served")
                ),
            ),
            stage.rating(
                Role::Limit,
                "raw HINCRBY",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (raw, keys),
                    raw_inc(raw.clone(), &keys[turn % KEYS]).await
                ),
            ),
        ],
    );

    let through_fred =
        StrictCounter::new(CounterOptions::new(our_key("strict"), stage.fred.clone()));
    let raw_fred = stage.fred.clone();
    outcomes.extend(compare(
        "strict inc, 64 tasks, fred",
        &[rate(CALLS, Some(Goal::at_least(0.9, Role::Limit)))],
        UNSTEADY * effort.rounds,
        vec![
            stage.rating(
                Role::Ours,
                "inc",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (through_fred, keys),
                    through_fred.inc(&keys[turn % KEYS], 1).await.expect("served")
                ),
            ),
            stage.rating(
                Role::Limit,
                "raw HINCRBY",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (raw_fred, keys),
                    raw_fred
                        .hincrby::<i64, _, _>(HASH, keys[turn % KEYS].as_str(), 1)
                        .await
                        .expect("served")
                ),
            ),
        ],
    ));

    let batch = alone!(stage, count, (ours, keys), {
        let updates: Vec<_> = keys.iter().map(|key| (key, 1)).collect();
        ours.inc_all(&updates).await.expect("served").len()
    });
    let peer_batch = alone!(stage, count, (peer, other_keys), {
        let updates: Vec<_> = other_keys.iter().map(|key| (key, 1)).collect();
        peer.inc_all(&updates).await.expect("served").len()
    });
    let raw_batches = alone!(stage, count, (raw, keys), raw_batch(raw.clone(), &keys).await);
    outcomes.extend(compare(
        "strict batch of 100, one task, redis-rs",
        &[rate("keys", Some(Goal::at_least(0.9, Role::Limit)))],
        effort.rounds,
        vec![
            stage.rating(Role::Ours, "inc_all", per_key(batch)),
            stage.rating(Role::Peer, "inc_all", per_key(peer_batch)),
            stage.rating(Role::Limit, "raw pipeline", per_key(raw_batches)),
        ],
    ));
    outcomes
}

/// The least that a script can be that counts.
const MINIMAL: &str = "return redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])";

pub(crate) fn instances(stage: &Stage) -> Vec<Outcome> {
    let effort = stage.effort;
    let (keys, other_keys) = (our_keys(KEYS), peer_keys(KEYS));
    let ours = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
        our_key("strict"),
        stage.connect(),
    ));
    let peer = {
        let _entered = stage.runtime.enter();
        peer::icounter::StrictInstanceAwareCounter::new(
            peer::icounter::StrictInstanceAwareCounterOptions::new(
                peer_key("strict"),
                stage.connect(),
            ),
        )
    };
    let raw = stage.connect();
    let sha: Arc<str> = stage.server.cli(&["SCRIPT", "LOAD", MINIMAL]).into();

    let mut outcomes = compare(
        "strict instance-aware inc, 64 tasks",
        &[rate(CALLS, Some(Goal::at_least(0.6, Role::Limit)))],
        effort.rounds,
        vec![
            stage.rating(
                Role::Ours,
                "inc",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (ours, keys),
                    ours.inc(&keys[turn % KEYS], 1).await.expect("served")
                ),
            ),
            stage.rating(
                Role::Peer,
                "inc",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (peer, other_keys),
                    peer.inc(&other_keys[turn % KEYS], 1).await.expect("served")
                ),
            ),
            stage.rating(
                Role::Limit,
                "minimal script",
                together!(stage, TASKS, turn, (raw, keys, sha), {
                    let mut connection = raw.clone();
                    let mut command = redis::cmd("EVALSHA");
                    command.arg(&*sha).arg(1).arg(HASH).arg(keys[turn % KEYS].as_str()).arg(1);
                    let answer: i64 = command.query_async(&mut connection).await.expect("served");
                    answer
                }),
            ),
        ],
    );

    let batch = alone!(stage, count, (ours, keys), {
        let updates: Vec<_> = keys.iter().map(|key| (key, 1)).collect();
        ours.inc_all(&updates).await.expect("served").len()
    });
    let peer_batch = alone!(stage, count, (peer, other_keys), {
        let updates: Vec<_> = other_keys.iter().map(|key| (key, 1)).collect();
        peer.inc_all(&updates).await.expect("served").len()
    });
    outcomes.extend(compare(
        "strict instance-aware batch of 100, one task",
        &[rate("keys", Some(Goal::at_least(4.0, Role::Peer)))],
        effort.rounds,
        vec![
            stage.rating(Role::Ours, "inc_all", per_key(batch)),
            stage.rating(Role::Peer, "inc_all", per_key(peer_batch)),
        ],
    ));
    outcomes
}
