//! Prints how long a lax `inc` of one key of many takes beside a bare look-up and addition in the same kind of map:
//! `lax-keys [ROUNDS [DRAWN]]`. Both run by turns, in random order over the keys, in an order that repeats after `DRAWN`
//! calls; the store is in memory.

use std::{
    hint::black_box,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use dashmap::DashMap;
use distkit::{
    RedisKey,
    backend::memory::MemoryBackend,
    counter::{CounterOptions, CounterTrait as _, LaxCounter},
};

const NEVER: Duration = Duration::from_secs(3600);
const CALLS: usize = 1 << 21;

#[tokio::main(worker_threads = 1)]
async fn main() {
    let number = |at| std::env::args().nth(at).map(|text| text.parse().expect("a number"));
    let (rounds, drawn) = (number(1).unwrap_or(7), number(2).unwrap_or(CALLS));
    println!("| keys | inc, ns | bare map, ns | ratio, median | ratios |");
    println!("| --- | --- | --- | --- | --- |");
    for count in [1, 1000, 100_000, 1_000_000] {
        let task = tokio::spawn(measured(count, rounds, drawn));
        let (ours, bare, mut ratios) = task.await.expect("measured");
        ratios.sort_by(f64::total_cmp);
        let all: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let median = ratios[ratios.len() / 2];
        println!("| {count} | {ours:.1} | {bare:.1} | {median:.2} | {} |", all.join(", "));
    }
}

/// The best time of each, in ns, and the ratio of each round.
async fn measured(count: usize, rounds: usize, drawn: usize) -> (f64, f64, Vec<f64>) {
    let keys: Vec<RedisKey> =
        (0..count).map(|n| RedisKey::try_from(format!("user-{n}-views")).expect("valid")).collect();
    let options = CounterOptions::new(RedisKey::default_prefix(), MemoryBackend::new());
    let options = options.allowed_lag(NEVER).evict_after(NEVER).max_pending_keys(2 * count);
    let counter = LaxCounter::new(options);
    for chunk in keys.chunks(1000) {
        counter.get_all(&chunk.iter().collect::<Vec<_>>()).await.expect("served");
    }
    let map: DashMap<RedisKey, AtomicI64, foldhash::fast::RandomState> = DashMap::default();
    for key in &keys {
        map.insert(key.clone(), AtomicI64::new(0));
        counter.inc(key, 1).await.expect("known");
    }
    let mut dice = fastrand::Rng::with_seed(count as u64);
    let order: Vec<u32> = (0..drawn).map(|_| dice.u32(..count as u32)).collect();
    let per_call = |start: Instant| start.elapsed().as_nanos() as f64 / CALLS as f64;
    let (mut ours, mut bare, mut ratios) = (f64::INFINITY, f64::INFINITY, Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        for at in (0..CALLS / drawn).flat_map(|_| &order) {
            black_box(counter.inc(&keys[*at as usize], 1).await.expect("known"));
        }
        let inc = per_call(start);
        let start = Instant::now();
        for at in (0..CALLS / drawn).flat_map(|_| &order) {
            black_box(map.get(&keys[*at as usize]).map(|entry| entry.fetch_add(1, Relaxed)));
        }
        let add = per_call(start);
        (ours, bare) = (ours.min(inc), bare.min(add));
        ratios.push(inc / add);
    }
    (ours, bare, ratios)
}
