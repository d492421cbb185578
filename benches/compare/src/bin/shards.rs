//! What shards cost and bring on a cluster of three nodes.
//!
//! `target/release/shards [redis-rs|fred] [few]`; `few` is for the flushes of few keys alone. Prints tables; exits with 1
//! where a goal is missed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use distkit::{
    RedisKey,
    backend::{Space, Store, connect},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use distkit_testkit::{Cluster, Server};

const KEYS: usize = 100_000;
const FEW: usize = 100;
const ROUNDS: usize = 9;
/// So long that nothing is flushed but on demand.
const NEVER: Duration = Duration::from_secs(3600);
const LAG: Duration = Duration::from_millis(5);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).expect("a valid key")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Milliseconds of CPU that each node has used.
fn cpu(cluster: &Cluster) -> Vec<f64> {
    let of = |node: &Server| {
        let pid = node.pid().expect("it runs");
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("Linux");
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("a number") / 1e6
    };
    cluster.nodes().iter().map(of).collect()
}

/// Milliseconds of CPU that this process has used, in its threads that live.
fn own_cpu() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    threads.filter_map(of).sum::<f64>() / 1e6
}

struct Bed {
    cluster: Arc<Cluster>,
    store: Arc<dyn Store>,
    failed: bool,
}

impl Bed {
    fn options(&self, shards: u16) -> CounterOptions {
        CounterOptions::new(key(&format!("bench-{shards}")), self.store.clone()).shards(shards)
    }

    fn goal(&mut self, what: &str, value: f64, at_most: f64) {
        let met = value <= at_most;
        self.failed |= !met;
        println!(
            "goal: {what}: {value:.2}, at most {at_most:.2}: {}",
            if met { "met" } else { "MISSED" }
        );
    }

    async fn known(&self, shards: u16, keys: &[RedisKey]) -> Arc<LaxCounter> {
        let options = self.options(shards).allowed_lag(NEVER).evict_after(NEVER);
        let counter = LaxCounter::new(options);
        for chunk in keys.chunks(1000) {
            counter.get_all(&chunk.iter().collect::<Vec<_>>()).await.expect("served");
        }
        counter
    }

    /// Wall time of a flush of all keys, and the CPU of the busiest node and of the client, in milliseconds.
    async fn flush(&self, counter: &LaxCounter, keys: &[RedisKey]) -> [f64; 3] {
        for key in keys {
            counter.inc(key, 1).await.expect("known");
        }
        let (before, own, began) = (cpu(&self.cluster), own_cpu(), Instant::now());
        counter.flush().await.expect("served");
        let wall = began.elapsed().as_secs_f64() * 1e3;
        let own = own_cpu() - own;
        let after = cpu(&self.cluster);
        let busiest = after.iter().zip(before).map(|(after, before)| after - before);
        [wall, busiest.fold(0.0, f64::max), own]
    }

    /// Interleaved rounds of flushes with each number of shards: the medians of what [`flush`](Self::flush) gives.
    async fn flushes(&self, numbers: &[u16], keys: &[RedisKey], rounds: usize) -> Vec<[f64; 3]> {
        let mut counters = Vec::new();
        for shards in numbers {
            counters.push(self.known(*shards, keys).await);
        }
        let mut all = vec![Vec::new(); numbers.len()];
        for round in 0..=rounds {
            for (counter, found) in counters.iter().zip(&mut all) {
                let one = self.flush(counter, keys).await;
                // The first is a rehearsal.
                if round > 0 {
                    found.push(one);
                }
            }
        }
        let medians = all.into_iter().map(|found| {
            [0, 1, 2].map(|number| median(found.iter().map(|one: &[f64; 3]| one[number]).collect()))
        });
        medians.collect()
    }

    /// How long it takes until an addition is in the store: the median and the longest time. And how many calls failed.
    async fn arrivals(
        &self,
        lax: &LaxCounter,
        strict: &StrictCounter,
        keys: &[RedisKey],
    ) -> ([f64; 2], usize) {
        let (mut times, mut failed) = (Vec::new(), 0);
        for _ in 0..40 {
            for key in keys {
                let Ok(before) = strict.get(key).await else {
                    failed += 1;
                    continue;
                };
                let began = Instant::now();
                if lax.inc(key, 1).await.is_err() {
                    failed += 1;
                    continue;
                }
                loop {
                    match strict.get(key).await {
                        Ok(now) if now == before => {}
                        Ok(_) => break,
                        Err(_) => failed += 1,
                    }
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        let longest = times.iter().copied().fold(0.0, f64::max);
        ([median(times), longest], failed)
    }
}

async fn run(mut bed: Bed, few_only: bool) -> bool {
    let keys: Vec<_> = (0..KEYS).map(|n| key(&format!("user-{n}-views"))).collect();
    let numbers = [1, 12, 48];
    println!("| flush of | shards | wall | CPU of the busiest node | CPU of the client |");
    println!("| --- | --- | --- | --- | --- |");
    let shown = |keys: usize, found: &[[f64; 3]]| {
        for (shards, [wall, busiest, own]) in numbers.iter().zip(found) {
            println!("| {keys} keys | {shards} | {wall:.2} ms | {busiest:.2} ms | {own:.2} ms |");
        }
    };
    if !few_only {
        let many = bed.flushes(&numbers, &keys, ROUNDS).await;
        shown(KEYS, &many);
        bed.goal("busiest node, 12 shards to 1", many[1][1] / many[0][1], 0.45);
        bed.goal("busiest node, 48 shards to 1", many[2][1] / many[0][1], 0.45);
    }
    let few = bed.flushes(&numbers, &keys[..FEW], 30 * ROUNDS).await;
    shown(FEW, &few);
    bed.goal("ms that 48 shards add to a flush of 100 keys", few[2][0] - few[0][0], 1.0);
    if few_only {
        return bed.failed;
    }

    // One key of each shard that is not on the last node, which is stopped.
    let shards = 48;
    let (lax, strict) = (
        LaxCounter::new(bed.options(shards).allowed_lag(LAG)),
        StrictCounter::new(bed.options(shards)),
    );
    let stopped = 2;
    let mut living = Vec::new();
    for space in Space::shards_of(key(&format!("bench-{shards}")), shards) {
        if bed.cluster.owner(space.slot()) != stopped {
            let of = |key: &&RedisKey| Space::shard_of(key, shards) == space.shard();
            living.push(keys.iter().find(of).expect("there are many").clone());
        }
    }
    for key in &keys[..1000] {
        lax.get(key).await.expect("served");
    }
    let (before, _) = bed.arrivals(&lax, &strict, &living).await;
    bed.cluster.nodes()[stopped].freeze();
    for key in &keys[..1000] {
        // The others' shards have something to send, too.
        drop(lax.inc(key, 1).await);
    }
    let (beside, failed) = bed.arrivals(&lax, &strict, &living).await;
    bed.cluster.nodes()[stopped].thaw();
    println!(
        "\n| from `inc` to the store, {} living shards | median | longest |\n| --- | --- | --- |",
        living.len()
    );
    println!("| all nodes alive | {:.1} ms | {:.1} ms |", before[0], before[1]);
    println!("| one of three stopped | {:.1} ms | {:.1} ms |", beside[0], beside[1]);
    bed.goal("failed calls beside a stopped node", failed as f64, 0.0);
    bed.goal("ms that a stopped node adds, median", beside[0] - before[0], 10.0);
    bed.goal("ms that a stopped node adds, longest", beside[1] - before[1], 10.0);
    bed.failed
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (fred, few) = (has("fred"), has("few"));
    let node = Server::redis().args(&["--cluster-require-full-coverage", "no"]);
    // A node that is stopped stays a member meanwhile.
    let cluster = Arc::new(Cluster::of(node.args(&["--cluster-node-timeout", "60000"])));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let failed = runtime.block_on(async {
        let scheme = if fred { "redis-cluster+fred://" } else { "redis-cluster://" };
        let url = cluster.urls()[0].replacen("redis://", scheme, 1);
        let store = connect(&url).await.expect("the cluster is there");
        tokio::spawn(run(Bed { cluster, store, failed: false }, few)).await.expect("no panic")
    });
    std::process::exit(i32::from(failed));
}
