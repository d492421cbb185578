//! Every acknowledged increment of a lax counter is counted once, whatever becomes of the connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    RedisKey,
    counter::{CounterTrait, LaxCounter, LaxHandle},
};
use distkit_testkit::Server;
use tokio::task::JoinSet;

use crate::support::{Bench, Client, Dice, keys, over_both_clients, soak};

over_both_clients!(connections_are_killed, the_server_is_killed);

const KEYS: usize = 1000;

struct Load {
    keys: Vec<RedisKey>,
    /// The sum of what was acknowledged for each key.
    acknowledged: Vec<AtomicI64>,
    calls: AtomicU64,
    turned_down: AtomicU64,
    /// Flushes on demand that the counter could not say succeeded, though they may have.
    unknown: AtomicU64,
    over: AtomicBool,
}

/// Adds, through the counter and through handles, until the load is over.
async fn add(load: Arc<Load>, counter: Arc<LaxCounter>, seed: u64) {
    let mut dice = Dice::new(seed);
    let mut handle: Option<(usize, LaxHandle)> = None;
    while !load.over.load(SeqCst) {
        for _ in 0..50 {
            let n = dice.below(KEYS);
            let count = [1, 1, 1, 5, -2, 1000][dice.below(6)];
            match counter.inc(&load.keys[n], count).await {
                Ok(_) => {
                    load.acknowledged[n].fetch_add(count, SeqCst);
                    load.calls.fetch_add(1, SeqCst);
                }
                Err(error) => {
                    assert!(!error.may_have_happened(), "an increment is taken or not: {error}");
                    load.turned_down.fetch_add(1, SeqCst);
                }
            }
            if let Some((n, handle)) = &handle
                && handle.inc(1).is_ok()
            {
                load.acknowledged[*n].fetch_add(1, SeqCst);
                load.calls.fetch_add(1, SeqCst);
            }
        }
        let n = dice.below(KEYS);
        if let Ok(new) = counter.handle(&load.keys[n]).await {
            handle = Some((n, new));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Flushes on demand, on top of the flushes that the counter does by itself.
async fn flush(load: Arc<Load>, counter: Arc<LaxCounter>) {
    while !load.over.load(SeqCst) {
        // Fails when a connection is lost; what counts is what the store holds in the end.
        if counter.flush().await.is_err_and(|error| error.may_have_happened()) {
            load.unknown.fetch_add(1, SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
}

/// Runs two processes' load while `harm` is done to the server again and again, and compares.
async fn exact_under(
    bench: Bench,
    every: Duration,
    length: Duration,
    least_rounds: u32,
    harm: fn(&Server),
) {
    let load = Arc::new(Load {
        keys: keys(KEYS),
        acknowledged: (0..KEYS).map(|_| AtomicI64::new(0)).collect(),
        calls: AtomicU64::new(0),
        turned_down: AtomicU64::new(0),
        unknown: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let counters =
        [bench.lax(Duration::from_millis(5)).await, bench.lax(Duration::from_millis(20)).await];
    let names: Vec<&RedisKey> = load.keys.iter().collect();
    for counter in &counters {
        // A key that is known takes increments at any time.
        counter.get_all(&names).await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for (n, counter) in counters.iter().enumerate() {
        for m in 0..2 {
            tasks.spawn(add(load.clone(), counter.clone(), (2 * n + m) as u64 + 1));
        }
        tasks.spawn(flush(load.clone(), counter.clone()));
    }

    let end = tokio::time::Instant::now() + length;
    let mut rounds = 0;
    while tokio::time::Instant::now() < end || rounds < least_rounds {
        tokio::time::sleep(every).await;
        bench.blocking(harm).await;
        rounds += 1;
    }
    load.over.store(true, SeqCst);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    for counter in &counters {
        counter.shutdown(Duration::from_secs(30)).await.unwrap();
    }

    let strict = bench.strict().await;
    let totals = strict.get_all(&names).await.unwrap();
    let mut wrong = Vec::new();
    for (n, (key, total)) in totals.into_iter().enumerate() {
        let (total, expected) = (total.unwrap(), load.acknowledged[n].load(SeqCst));
        if total != expected {
            wrong.push((key.clone(), total - expected));
        }
    }
    let calls = load.calls.load(SeqCst);
    println!(
        "{:?}: {calls} acknowledged, {} turned down, {rounds} rounds of harm, {} flushes of unknown \
         outcome, {} keys differ",
        bench.client,
        load.turned_down.load(SeqCst),
        load.unknown.load(SeqCst),
        wrong.len(),
    );
    assert!(calls > 1000, "there was next to no load");
    assert!(wrong.is_empty(), "difference between store and acknowledged: {wrong:?}");
}

async fn connections_are_killed(client: Client) {
    let (every, length) = (Duration::from_millis(30), soak(Duration::from_secs(4)));
    exact_under(Bench::new(client).await, every, length, 20, |server| {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    })
    .await;
}

async fn the_server_is_killed(client: Client) {
    let (every, length) = (Duration::from_millis(400), soak(Duration::from_secs(3)));
    exact_under(Bench::durable(client).await, every, length, 4, |server| {
        server.kill_9();
        server.restart();
    })
    .await;
}
