//! Lax counters on keys in use: what a call costs in the process while the flushes go on.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use distkit::{
    RedisKey,
    counter::{CounterOptions, LaxCounter},
    icounter::{LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions},
};
use peer::{counter::CounterTrait as _, icounter::InstanceAwareCounterTrait as _};

use crate::{
    measure::{Contender, Goal, Metric, Outcome, Role, Unit, compare},
    stage::{Stage, alone, our_key, our_keys, peer_key, peer_keys, together},
};

/// The look-up and addition that every keyed counter must do at least.
type BareMap = Arc<DashMap<RedisKey, AtomicI64, foldhash::fast::RandomState>>;

const TASKS: usize = 8;
const KEYS: usize = 10_000;

fn bare_map(keys: &[RedisKey]) -> BareMap {
    let map = DashMap::with_hasher(foldhash::fast::RandomState::default());
    for key in keys {
        map.insert(key.clone(), AtomicI64::new(0));
    }
    Arc::new(map)
}

fn bare_add(map: &BareMap, key: &RedisKey) -> i64 {
    map.get(key).map_or(0, |entry| entry.fetch_add(1, Relaxed))
}

fn ours(stage: &Stage, keys: &Arc<[RedisKey]>) -> Arc<LaxCounter> {
    let counter = LaxCounter::new(CounterOptions::new(our_key("lax"), stage.connect()));
    let (warm, keys) = (counter.clone(), keys.clone());
    stage.run(async move {
        for key in keys.iter() {
            warm.inc(key, 1).await.expect("the server is there");
        }
    });
    counter
}

fn peers(stage: &Stage, keys: &Arc<[peer::DistkitRedisKey]>) -> Arc<peer::counter::LaxCounter> {
    let options = peer::counter::CounterOptions::new(peer_key("peer"), stage.connect());
    let entered = stage.runtime.enter();
    let counter = peer::counter::LaxCounter::new(options);
    drop(entered);
    let (warm, keys) = (counter.clone(), keys.clone());
    stage.run(async move {
        for key in keys.iter() {
            warm.inc(key, 1).await.expect("the server is there");
        }
    });
    counter
}

pub(crate) fn plain(stage: &Stage) -> Vec<Outcome> {
    let effort = stage.effort;
    let (one, peer_one) = (our_keys(1), peer_keys(1));
    let nanoseconds = |goal| Metric { name: "a call", unit: Unit::Nanoseconds, goal: Some(goal) };
    let rate = |goal| Metric { name: "calls", unit: Unit::PerSecond, goal: Some(goal) };

    let (counter, peer) = (ours(stage, &one), peers(stage, &peer_one));
    let map = bare_map(&one);
    let (key, peer_key) = (one[0].clone(), peer_one[0].clone());
    let handle = stage.runtime.block_on(counter.handle(&key)).expect("the server is there");
    let atomic = Arc::new(AtomicI64::new(0));

    let mut outcomes = compare(
        "lax inc, one task, one key, keyed",
        &[nanoseconds(Goal::at_most(1.5, Role::Limit))],
        effort.rounds,
        vec![
            stage.timing(
                Role::Ours,
                "inc",
                alone!(stage, count, (counter, key), counter.inc(&key, 1).await.is_ok()),
            ),
            stage.timing(
                Role::Peer,
                "inc",
                alone!(stage, count, (peer, peer_key), peer.inc(&peer_key, 1).await.is_ok()),
            ),
            stage.timing(
                Role::Limit,
                "map look-up and add",
                alone!(stage, count, (map, key), bare_add(&map, &key)),
            ),
        ],
    );
    outcomes.extend(compare(
        "lax get, one task, one key",
        &[nanoseconds(Goal::at_most(1.0, Role::Peer))],
        effort.rounds,
        vec![
            stage.timing(
                Role::Ours,
                "get",
                alone!(stage, count, (counter, key), counter.get(&key).await.is_ok()),
            ),
            stage.timing(
                Role::Peer,
                "get",
                alone!(stage, count, (peer, peer_key), peer.get(&peer_key).await.is_ok()),
            ),
        ],
    ));
    outcomes.extend(compare(
        "lax add through a handle",
        &[nanoseconds(Goal::at_most(4.0, Role::Limit))],
        effort.rounds,
        vec![
            stage.timing(
                Role::Ours,
                "handle.inc",
                alone!(stage, count, (handle), handle.inc(black_box(1)).is_ok()),
            ),
            stage.timing(
                Role::Limit,
                "atomic add",
                alone!(stage, count, (atomic), atomic.fetch_add(black_box(1), Relaxed)),
            ),
        ],
    ));
    outcomes.extend(compare(
        "lax inc, 8 tasks, one key, by handle",
        &[rate(Goal::at_least(1.0, Role::Limit))],
        effort.rounds,
        vec![
            stage.rating(
                Role::Ours,
                "handle.inc",
                together!(stage, TASKS, _turn, (handle), handle.inc(1).is_ok()),
            ),
            stage.rating(
                Role::Peer,
                "inc",
                together!(
                    stage,
                    TASKS,
                    _turn,
                    (peer, peer_key),
                    peer.inc(&peer_key, 1).await.is_ok()
                ),
            ),
            stage.rating(
                Role::Limit,
                "map look-up and add",
                together!(stage, TASKS, _turn, (map, key), bare_add(&map, &key)),
            ),
        ],
    ));
    outcomes.extend(compare(
        "lax inc, 8 tasks, one key, keyed",
        &[rate(Goal::at_least(0.8, Role::Limit))],
        effort.rounds,
        vec![
            stage.rating(
                Role::Ours,
                "inc",
                together!(stage, TASKS, _turn, (counter, key), counter.inc(&key, 1).await.is_ok()),
            ),
            stage.rating(
                Role::Peer,
                "inc",
                together!(
                    stage,
                    TASKS,
                    _turn,
                    (peer, peer_key),
                    peer.inc(&peer_key, 1).await.is_ok()
                ),
            ),
            stage.rating(
                Role::Limit,
                "map look-up and add",
                together!(stage, TASKS, _turn, (map, key), bare_add(&map, &key)),
            ),
        ],
    ));
    drop((counter, peer, handle));

    let (keys, peer_keys) = (our_keys(KEYS), peer_keys(KEYS));
    let (counter, peer, map) = (ours(stage, &keys), peers(stage, &peer_keys), bare_map(&keys));
    let contenders = || {
        vec![
            stage.rating(
                Role::Ours,
                "inc",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (counter, keys),
                    counter.inc(&keys[turn % KEYS], 1).await.is_ok()
                ),
            ),
            stage.rating(
                Role::Peer,
                "inc",
                together!(
                    stage,
                    TASKS,
                    turn,
                    (peer, peer_keys),
                    peer.inc(&peer_keys[turn % KEYS], 1).await.is_ok()
                ),
            ),
            stage.rating(
                Role::Limit,
                "map look-up and add",
                together!(stage, TASKS, turn, (map, keys), bare_add(&map, &keys[turn % KEYS])),
            ),
        ]
    };
    let name = "lax inc, 8 tasks on 2 workers, 10 000 keys";
    outcomes.extend(compare(
        name,
        &[rate(Goal::at_least(0.5, Role::Limit))],
        effort.rounds,
        contenders(),
    ));
    let (against_peer, series) =
        (Goal::at_least(200.0, Role::Peer), outcomes[outcomes.len() - 1].series.clone());
    outcomes.push(Outcome {
        work: name.to_owned(),
        size: None,
        metric: rate(against_peer),
        series,
    });
    outcomes
}

pub(crate) fn instances(stage: &Stage) -> Vec<Outcome> {
    let effort = stage.effort;
    let key = our_key("k");
    let other_key = peer_key("k");
    let counter = LaxInstanceAwareCounter::new(LaxInstanceAwareCounterOptions::new(
        our_key("lax"),
        stage.connect(),
    ));
    let peer = {
        let _entered = stage.runtime.enter();
        peer::icounter::LaxInstanceAwareCounter::new(
            peer::icounter::LaxInstanceAwareCounterOptions::new(peer_key("peer"), stage.connect()),
        )
    };
    let map = bare_map(std::slice::from_ref(&key));
    let metric = |goal| Metric { name: "a call", unit: Unit::Nanoseconds, goal };
    let mut outcomes = compare(
        "lax instance-aware inc, one task, one key",
        &[metric(Some(Goal::at_most(1.5, Role::Limit)))],
        effort.rounds,
        vec![
            stage.timing(
                Role::Ours,
                "inc",
                alone!(stage, count, (counter, key), counter.inc(&key, 1).await.is_ok()),
            ),
            stage.timing(
                Role::Peer,
                "inc",
                alone!(stage, count, (peer, other_key), peer.inc(&other_key, 1).await.is_ok()),
            ),
            stage.timing(
                Role::Limit,
                "map look-up and add",
                alone!(stage, count, (map, key), bare_add(&map, &key)),
            ),
        ],
    );
    outcomes.extend(compare(
        "lax instance-aware get, one task, one key",
        &[metric(Some(Goal::at_most(0.1, Role::Peer)))],
        effort.rounds,
        vec![
            stage.timing(
                Role::Ours,
                "get",
                alone!(stage, count, (counter, key), counter.get(&key).await.is_ok()),
            ),
            stage.timing(
                Role::Peer,
                "get",
                alone!(stage, count, (peer, other_key), peer.get(&other_key).await.is_ok()),
            ),
        ],
    ));
    outcomes
}

/// Times each call by itself for a while, so that what a mean hides is seen.
pub(crate) fn latency(stage: &Stage) -> Vec<Outcome> {
    const SLOW: Duration = Duration::from_micros(20);
    let length = stage.effort.round * 5;
    let (one, peer_one) = (our_keys(1), peer_keys(1));
    let (counter, peer) = (ours(stage, &one), peers(stage, &peer_one));
    let (key, peer_key) = (one[0].clone(), peer_one[0].clone());
    let map = bare_map(&one);

    macro_rules! each_timed {
        (($($captured:ident),*), $call:expr) => {{
            $(let $captured = $captured.clone();)*
            move || {
                $(let $captured = $captured.clone();)*
                stage.run(async move {
                    let (start, mut times) = (Instant::now(), Vec::with_capacity(1 << 25));
                    while start.elapsed() < length && times.len() < 1 << 25 {
                        let before = Instant::now();
                        black_box($call);
                        times.push(before.elapsed());
                        if times.len() % 256 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    let all: Duration = times.iter().sum();
                    let slow: Duration = times.iter().filter(|time| **time > SLOW).sum();
                    times.sort_unstable();
                    let at = |part: f64| times[(times.len() as f64 * part) as usize].as_nanos() as f64;
                    vec![at(0.5), at(0.999), 100.0 * slow.as_secs_f64() / all.as_secs_f64()]
                })
            }
        }};
    }
    let metrics = [
        Metric { name: "p50, clock included", unit: Unit::Nanoseconds, goal: None },
        Metric { name: "p99.9, clock included", unit: Unit::Nanoseconds, goal: None },
        Metric {
            name: "time spent in calls over 20 us",
            unit: Unit::Percent,
            // Whatever the machine does meanwhile is in both.
            goal: Some(Goal::at_most(1.5, Role::Limit)),
        },
    ];
    let contenders = vec![
        Contender::new(
            Role::Ours,
            "inc",
            each_timed!((counter, key), counter.inc(&key, 1).await.is_ok()),
        ),
        Contender::new(
            Role::Peer,
            "inc",
            each_timed!((peer, peer_key), peer.inc(&peer_key, 1).await.is_ok()),
        ),
        Contender::new(
            Role::Limit,
            "map look-up and add",
            each_timed!((map, key), bare_add(&map, &key)),
        ),
    ];
    compare("lax inc, each call timed", &metrics, stage.effort.rounds, contenders)
}
