//! A flush of very many dirty keys: time, and CPU on both sides.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use distkit::{
    RedisKey,
    counter::{CounterOptions, CounterTrait as _, LaxCounter},
    icounter::{
        InstanceAwareCounterTrait as _, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
    },
};
use peer::{DistkitRedisKey, counter::CounterTrait as _, icounter::InstanceAwareCounterTrait as _};

use crate::{
    measure::{Contender, Goal, Metric, Outcome, Role, Unit, compare},
    stage::{Stage, our_key, our_keys, own_cpu, peer_key, peer_keys, wait_until},
};

/// So long that nothing is flushed but on demand.
const NEVER: Duration = Duration::from_secs(3600);

/// How long the peer, which has no flush on demand, keeps its writes.
const PEERS_LAG: Duration = Duration::from_secs(2);

/// How often its instance-aware counter looks for what it has kept so long.
const PEERS_INTERVAL: Duration = Duration::from_millis(250);

/// How many keys are read at once while a counter gets to know them.
const LOADED_AT_ONCE: usize = 1000;

fn metrics(goal: Goal) -> [Metric; 3] {
    ["wall", "server CPU", "client CPU"].map(|name| Metric {
        name,
        unit: Unit::Milliseconds,
        goal: Some(goal),
    })
}

/// What has been used up to a moment.
#[derive(Clone, Copy)]
struct Meter {
    at: Instant,
    server: f64,
    client: f64,
}

impl Meter {
    fn read(stage: &Stage) -> Self {
        Self { server: stage.server_cpu(), client: own_cpu(), at: Instant::now() }
    }

    /// Time, the server's CPU and this process's from then to `end`, in milliseconds.
    fn until(self, end: Self) -> Vec<f64> {
        let wall = (end.at - self.at).as_secs_f64();
        [wall, end.server - self.server, end.client - self.client].map(|s| 1000.0 * s).into()
    }
}

fn cost(stage: &Stage, work: impl FnOnce()) -> Vec<f64> {
    let start = Meter::read(stage);
    work();
    start.until(Meter::read(stage))
}

/// One round of the peer: from the first script of its flush to the last. It must be used meanwhile, or it
/// stops to flush. What it sends during the writes already is made up for.
fn peers_round(
    stage: &Stage,
    count: usize,
    load: &dyn Fn(),
    write: &dyn Fn(),
    use_it: &dyn Fn(),
) -> Vec<f64> {
    /// Fewer at a time are reads of `use_it`.
    const FLUSHED: u64 = 20;
    load();
    write();
    let mut sent = stage.scripts_run();
    let (mut first, mut last, mut all) = (None, Meter::read(stage), 0);
    wait_until("the peer flushes", || {
        let before = Meter::read(stage);
        use_it();
        std::thread::sleep(Duration::from_millis(4));
        let now = stage.scripts_run();
        if now - sent > FLUSHED {
            first.get_or_insert(before);
            last = Meter::read(stage);
            all += now - sent;
        }
        sent = now;
        first.is_some() && (all >= count as u64 || last.at.elapsed() > 2 * PEERS_LAG)
    });
    let scale = count as f64 / all as f64;
    first.unwrap_or(last).until(last).into_iter().map(|cost| cost * scale).collect()
}

/// Pipelines of HINCRBY, as big as the batches of ours, one after the other.
fn raw_flush(stage: &Stage, keys: &Arc<[RedisKey]>) -> Vec<f64> {
    let (connection, keys) = (stage.redis.clone(), keys.clone());
    cost(stage, || {
        stage.run(async move {
            for chunk in keys.chunks(LOADED_AT_ONCE) {
                let mut pipeline = redis::Pipeline::with_capacity(chunk.len());
                for key in chunk {
                    pipeline.cmd("HINCRBY").arg("distkit:{flush}:totals").arg(key.as_str()).arg(1);
                }
                let mut connection = connection.clone();
                let totals: Vec<i64> = pipeline.query_async(&mut connection).await.expect("served");
                std::hint::black_box(totals);
            }
        });
    })
}

/// The same additions by a script that does nothing else: what any flush costs that checks a guard, and adds
/// only then.
fn script_flush(stage: &Stage, keys: &Arc<[RedisKey]>) -> Vec<f64> {
    let script = redis::Script::new(
        "local call, totals, args, answer = redis.call, KEYS[1], ARGV, {}
        for at = 1, #args, 2 do
          answer[#answer + 1] = call('HINCRBY', totals, args[at], args[at + 1])
        end
        return answer",
    );
    let (mut connection, keys) = (stage.redis.clone(), keys.clone());
    cost(stage, || {
        stage.run(async move {
            for chunk in keys.chunks(LOADED_AT_ONCE) {
                let mut call = script.prepare_invoke();
                call.key("distkit:{flush}:totals");
                for key in chunk {
                    call.arg(key.as_str()).arg(1);
                }
                let totals: Vec<i64> = call.invoke_async(&mut connection).await.expect("served");
                std::hint::black_box(totals);
            }
        });
    })
}

pub(crate) fn run(stage: &Stage) -> Vec<Outcome> {
    let count = stage.effort.many_keys;
    let rounds = stage.effort.rounds.min(5);
    let (keys, their_keys) = (our_keys(count), peer_keys(count));
    let mut outcomes = plain(stage, rounds, &keys, &their_keys);
    outcomes.extend(instances(stage, rounds, &keys, &their_keys));
    outcomes
}

fn plain(
    stage: &Stage,
    rounds: usize,
    keys: &Arc<[RedisKey]>,
    their_keys: &Arc<[DistkitRedisKey]>,
) -> Vec<Outcome> {
    let options = CounterOptions::new(our_key("flush"), stage.connect());
    let counter = LaxCounter::new(options.allowed_lag(NEVER).evict_after(NEVER));
    let (loaded, all) = (counter.clone(), keys.clone());
    stage.run(async move {
        for chunk in all.chunks(LOADED_AT_ONCE) {
            let chunk: Vec<_> = chunk.iter().collect();
            loaded.get_all(&chunk).await.expect("served");
        }
    });
    let write = || {
        let (counter, keys) = (counter.clone(), keys.clone());
        stage.run(async move {
            for key in keys.iter() {
                counter.inc(key, 1).await.expect("known");
            }
        });
    };
    let ours = || {
        write();
        let counter = counter.clone();
        cost(stage, || {
            stage.run(async move { counter.flush().await.expect("served") });
        })
    };

    let mut options = peer::counter::CounterOptions::new(peer_key("flush"), stage.connect());
    options.allowed_lag = PEERS_LAG;
    let entered = stage.runtime.enter();
    let peer = peer::counter::LaxCounter::new(options);
    drop(entered);
    let load_peer = || {
        let (peer, keys) = (peer.clone(), their_keys.clone());
        stage.run(async move {
            for chunk in keys.chunks(LOADED_AT_ONCE) {
                let chunk: Vec<_> = chunk.iter().collect();
                // It fails where nothing is stale.
                drop(peer.get_all(&chunk).await);
            }
        });
    };
    let write_peer = || {
        let (peer, keys) = (peer.clone(), their_keys.clone());
        stage.run(async move {
            for key in keys.iter() {
                peer.inc(key, 1).await.expect("known");
            }
        });
    };
    let use_peer = || {
        let peer = peer.clone();
        stage.run(async move { peer.inc(&peer_key("aside"), 1).await.expect("served") });
    };

    let floor = vec![
        Contender::new(Role::Ours, "flush", ours),
        Contender::new(Role::Limit, "minimal script", || script_flush(stage, keys)),
    ];
    let least = Goal::at_most(1.1, Role::Limit);
    let mut outcomes = compare(
        format!("flush of {} dirty keys, beside a script that only adds", keys.len()),
        &metrics(least),
        rounds,
        floor,
    );
    let name = format!("flush of {} dirty keys", keys.len());
    let contenders = vec![
        Contender::new(Role::Ours, "flush", ours),
        Contender::new(Role::Peer, "its own flush", || {
            peers_round(stage, their_keys.len(), &load_peer, &write_peer, &use_peer)
        }),
        Contender::new(Role::Limit, "raw pipeline", || raw_flush(stage, keys)),
    ];
    outcomes.extend(compare(name, &metrics(Goal::at_most(1.3, Role::Limit)), rounds, contenders));
    outcomes
}

fn instances(
    stage: &Stage,
    rounds: usize,
    keys: &Arc<[RedisKey]>,
    their_keys: &Arc<[DistkitRedisKey]>,
) -> Vec<Outcome> {
    let options = LaxInstanceAwareCounterOptions::new(our_key("flush"), stage.connect());
    let options = options.allowed_lag(NEVER).flush_interval(NEVER).evict_after(NEVER);
    let counter = LaxInstanceAwareCounter::new(options);
    let (loaded, all) = (counter.clone(), keys.clone());
    stage.run(async move {
        for chunk in all.chunks(LOADED_AT_ONCE) {
            let chunk: Vec<_> = chunk.iter().collect();
            loaded.get_all(&chunk).await.expect("served");
        }
    });
    let ours = || {
        let (written, all) = (counter.clone(), keys.clone());
        stage.run(async move {
            for key in all.iter() {
                written.inc(key, 1).await.expect("known");
            }
        });
        let counter = counter.clone();
        cost(stage, || {
            stage.run(async move { counter.flush().await.expect("served") });
        })
    };

    let mut options =
        peer::icounter::LaxInstanceAwareCounterOptions::new(peer_key("flush"), stage.connect());
    (options.allowed_lag, options.flush_interval) = (PEERS_LAG, PEERS_INTERVAL);
    let entered = stage.runtime.enter();
    let peer = peer::icounter::LaxInstanceAwareCounter::new(options);
    drop(entered);
    let load_peer = || {
        let (peer, keys) = (peer.clone(), their_keys.clone());
        stage.run(async move {
            for chunk in keys.chunks(LOADED_AT_ONCE) {
                let chunk: Vec<_> = chunk.iter().collect();
                // It fails where nothing is stale.
                drop(peer.get_all(&chunk).await);
            }
        });
    };
    let write_peer = || {
        let (peer, keys) = (peer.clone(), their_keys.clone());
        stage.run(async move {
            for key in keys.iter() {
                peer.inc(key, 1).await.expect("known");
            }
        });
    };
    let use_peer = || {
        let peer = peer.clone();
        stage.run(async move { peer.inc(&peer_key("aside"), 1).await.expect("served") });
    };

    let name = format!("instance-aware flush of {} dirty keys", keys.len());
    let contenders = vec![
        Contender::new(Role::Ours, "flush", ours),
        Contender::new(Role::Peer, "its own flush", || {
            peers_round(stage, their_keys.len(), &load_peer, &write_peer, &use_peer)
        }),
    ];
    compare(name, &metrics(Goal::at_most(0.25, Role::Peer)), rounds, contenders)
}
