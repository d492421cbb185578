//! Prints what a lax addition costs with windows of time next to one without, as a table in Markdown:
//! `lax-windows [ROUNDS]`.
//!
//! The two take turns within each round. A ratio is that of one round, and the median of all rounds is shown. The store
//! is in memory.

use std::{
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use distkit::{
    RedisKey, Windows,
    backend::memory::MemoryBackend,
    counter::{CounterOptions, LaxCounter, LaxHandle},
};

const CALLS: usize = 400_000;

async fn counter(windows: Option<Windows>, keys: &[RedisKey]) -> Arc<LaxCounter> {
    let options = CounterOptions::new(RedisKey::default_prefix(), MemoryBackend::new());
    let counter = LaxCounter::new(match windows {
        Some(windows) => options.windows(windows),
        None => options,
    });
    for key in keys {
        counter.inc(key, 1).await.expect("the store is there");
    }
    counter
}

/// Nanoseconds a call.
fn of_counter(counter: &LaxCounter, keys: &[RedisKey]) -> f64 {
    let began = Instant::now();
    for call in 0..CALLS {
        let key = &keys[call % keys.len()];
        let added = pin!(counter.inc(black_box(key), 1));
        black_box(added.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
    began.elapsed().as_nanos() as f64 / CALLS as f64
}

fn of_handle(handle: &LaxHandle) -> f64 {
    let began = Instant::now();
    for _ in 0..CALLS {
        black_box(black_box(handle).inc(1).is_ok());
    }
    began.elapsed().as_nanos() as f64 / CALLS as f64
}

fn row(
    name: &str,
    rounds: usize,
    mut plain: impl FnMut() -> f64,
    mut windowed: impl FnMut() -> f64,
) {
    let (mut ratios, mut costs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (cost, ratio) = if round % 2 == 0 {
            let cost = plain();
            (cost, windowed() / cost)
        } else {
            let other = windowed();
            let cost = plain();
            (cost, other / cost)
        };
        ratios.push(ratio);
        costs.push(cost);
    }
    ratios.sort_by(f64::total_cmp);
    costs.sort_by(f64::total_cmp);
    let (low, high) = (ratios[rounds / 10], ratios[rounds - 1 - rounds / 10]);
    println!(
        "| {name} | {:.1} | {:.2} ({low:.2}-{high:.2}) |",
        costs[rounds / 2],
        ratios[rounds / 2]
    );
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(41);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    let hours = Windows::every(Duration::from_secs(3600));
    println!("| addition | without, ns | with windows: ratio (middle 80 %) |");
    println!("| --- | --- | --- |");
    for count in [1, 1000] {
        let keys: Vec<_> = (0..count)
            .map(|n| RedisKey::try_from(format!("user-{n}-views")).expect("valid"))
            .collect();
        let (plain, windowed) = runtime
            .block_on(async { (counter(None, &keys).await, counter(Some(hours), &keys).await) });
        let name = format!("`inc`, {count} keys");
        row(&name, rounds, || of_counter(&plain, &keys), || of_counter(&windowed, &keys));
        if count == 1 {
            let handles = runtime.block_on(async {
                let plain = plain.handle(&keys[0]).await.expect("the store is there");
                (plain, windowed.handle(&keys[0]).await.expect("the store is there"))
            });
            row("a handle's", rounds, || of_handle(&handles.0), || of_handle(&handles.1));
        }
    }
}
