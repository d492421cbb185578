//! How cost grows: with the keys, with the instances, with the tasks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use distkit::{
    counter::{CounterOptions, CounterTrait as _, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait as _, StrictInstanceAwareCounter,
        StrictInstanceAwareCounterOptions,
    },
};

use crate::{
    measure::{Contender, Metric, Outcome, Role, Size, Unit, compare},
    stage::{Stage, alone, our_key, our_keys, together},
};

const NEVER: Duration = Duration::from_secs(3600);
const LOADED_AT_ONCE: usize = 1000;

pub(crate) fn run(stage: &Stage) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut count = 1;
    while count <= stage.effort.most_keys {
        outcomes.extend(by_keys(stage, count));
        count *= 10;
    }
    let most_instances = if stage.effort.rounds > 2 { 1000 } else { 10 };
    outcomes.extend(
        [1, 10, 100, 1000]
            .into_iter()
            .filter(|n| *n <= most_instances)
            .flat_map(|n| by_instances(stage, n)),
    );
    outcomes.extend([1, 4, 16, 64, 256].into_iter().flat_map(|n| by_tasks(stage, n)));
    outcomes
}

fn sized(mut outcomes: Vec<Outcome>, number: usize, of: &'static str) -> Vec<Outcome> {
    for outcome in &mut outcomes {
        outcome.size = Some(Size { number, of });
    }
    outcomes
}

fn plain(name: &'static str, unit: Unit) -> Metric {
    Metric { name, unit, goal: None }
}

fn by_keys(stage: &Stage, count: usize) -> Vec<Outcome> {
    let keys = our_keys(count);
    let options = CounterOptions::new(our_key("growth"), stage.connect());
    let counter = LaxCounter::new(options.allowed_lag(NEVER).evict_after(NEVER));
    let (loaded, all) = (counter.clone(), keys.clone());
    stage.run(async move {
        for chunk in all.chunks(LOADED_AT_ONCE) {
            let chunk: Vec<_> = chunk.iter().collect();
            loaded.get_all(&chunk).await.expect("served");
        }
    });
    let map: Arc<DashMap<_, _, foldhash::fast::RandomState>> = Arc::default();
    for key in keys.iter() {
        map.insert(key.clone(), AtomicI64::new(0));
    }
    let rounds = stage.effort.rounds.min(3);
    let mut dice = fastrand::Rng::with_seed(count as u64);
    // Drawn beforehand: the dice are not what is measured.
    let order: Arc<[u32]> = (0..1 << 16).map(|_| dice.u32(..count as u32)).collect();
    let mut outcomes = compare(
        "lax inc of one key of many",
        &[plain("a call", Unit::Nanoseconds)],
        rounds,
        vec![
            stage.timing(
                Role::Ours,
                "inc",
                alone!(stage, n, (counter, keys, order), {
                    let mut sum = 0;
                    for at in order.iter() {
                        sum += counter.inc(&keys[*at as usize], 1).await.expect("known");
                    }
                    sum
                }),
            ),
            stage.timing(
                Role::Limit,
                "map look-up and add",
                alone!(stage, n, (map, keys, order), {
                    let mut sum = 0;
                    for at in order.iter() {
                        sum += map
                            .get(&keys[*at as usize])
                            .map_or(0, |entry| entry.fetch_add(1, Relaxed));
                    }
                    sum
                }),
            ),
        ],
    );
    for outcome in &mut outcomes {
        outcome.divide(order.len() as f64);
    }
    let flush = || {
        let (counter, keys) = (counter.clone(), keys.clone());
        let took = stage.run(async move {
            for key in keys.iter() {
                counter.inc(key, 1).await.expect("known");
            }
            let start = Instant::now();
            counter.flush().await.expect("served");
            start.elapsed()
        });
        vec![took.as_nanos() as f64 / count as f64]
    };
    outcomes.extend(compare(
        "flush of many dirty keys",
        &[plain("a key", Unit::Nanoseconds)],
        rounds,
        vec![Contender::new(Role::Ours, "flush", flush)],
    ));
    sized(outcomes, count, "keys")
}

/// Each instance has a slice of the same key.
fn by_instances(stage: &Stage, count: usize) -> Vec<Outcome> {
    let key = our_key("k");
    let counters: Arc<[_]> = (0..count)
        .map(|_| {
            let prefix = our_key(&format!("growth {count}"));
            let options = StrictInstanceAwareCounterOptions::new(prefix, stage.redis.clone());
            StrictInstanceAwareCounter::new(options.dead_instance_threshold_ms(3_600_000))
        })
        .collect();
    let (all, shared) = (counters.clone(), key.clone());
    stage.run(async move {
        for counter in all.iter() {
            counter.inc(&shared, 1).await.expect("served");
        }
    });
    let run = together!(stage, 64, turn, (counters, key), {
        counters[turn % counters.len()].inc(&key, 1).await.expect("served")
    });
    let ours = stage.rating(Role::Ours, "inc", run);
    let outcomes = compare(
        "strict instance-aware inc of a key of which many have slices",
        &[plain("calls", Unit::PerSecond)],
        stage.effort.rounds.min(3),
        vec![ours],
    );
    sized(outcomes, count, "instances")
}

fn by_tasks(stage: &Stage, tasks: usize) -> Vec<Outcome> {
    let key = our_key("k");
    let counter = StrictCounter::new(CounterOptions::new(our_key("growth"), stage.connect()));
    let raw = stage.connect();
    let outcomes = compare(
        "strict inc by many tasks",
        &[plain("calls", Unit::PerSecond)],
        stage.effort.rounds.min(3),
        vec![
            stage.rating(
                Role::Ours,
                "inc",
                together!(
                    stage,
                    tasks,
                    _turn,
                    (counter, key),
                    counter.inc(&key, 1).await.expect("served")
                ),
            ),
            stage.rating(
                Role::Limit,
                "raw HINCRBY",
                together!(stage, tasks, _turn, (raw), {
                    let mut connection = raw.clone();
                    let mut command = redis::cmd("HINCRBY");
                    command.arg("distkit:{raw}:totals").arg("k").arg(1);
                    let total: i64 = command.query_async(&mut connection).await.expect("served");
                    total
                }),
            ),
        ],
    );
    sized(outcomes, tasks, "tasks")
}
