//! The lax counters' hot paths next to what it cannot be faster than.
//!
//! `cargo bench -p distkit-compare --bench lax`. No thresholds: compare the pairs. The store is in
//! memory.

use std::{
    hint::black_box,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Waker},
};

use criterion::{Criterion, criterion_group, criterion_main};
use dashmap::DashMap;
use distkit::{
    RedisKey, Windows,
    backend::memory::MemoryBackend,
    counter::{CounterOptions, LaxCounter},
    icounter::{LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions},
};

const KEYS: usize = 1000;

/// Polls a future once, where it is: to move it would take as long as an addition.
macro_rules! polled {
    ($future:expr) => {
        pin!($future).poll(&mut Context::from_waker(Waker::noop()))
    };
}

fn keys() -> Vec<RedisKey> {
    (0..KEYS).map(|n| RedisKey::try_from(format!("user-{n}-views")).expect("valid")).collect()
}

fn bare_map(keys: &[RedisKey]) -> DashMap<RedisKey, AtomicI64, foldhash::fast::RandomState> {
    let map = DashMap::with_hasher(foldhash::fast::RandomState::default());
    for key in keys {
        map.insert(key.clone(), AtomicI64::new(0));
    }
    map
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let _entered = runtime.enter();
    let prefix = RedisKey::default_prefix();
    let counter: Arc<LaxCounter> =
        LaxCounter::new(CounterOptions::new(prefix, MemoryBackend::new()));
    let keys = keys();
    let handle = runtime.block_on(async {
        for key in &keys {
            counter.inc(key, 1).await.expect("the store is there");
        }
        counter.handle(&keys[0]).await.expect("the store is there")
    });
    let hours = Windows::every(std::time::Duration::from_secs(3600));
    let options = CounterOptions::new(RedisKey::default_prefix(), MemoryBackend::new());
    let windowed = LaxCounter::new(options.windows(hours));
    let windowed_handle = runtime.block_on(async {
        for key in &keys {
            windowed.inc(key, 1).await.expect("the store is there");
        }
        windowed.handle(&keys[0]).await.expect("the store is there")
    });
    let options =
        LaxInstanceAwareCounterOptions::new(RedisKey::default_prefix(), MemoryBackend::new());
    let instance = LaxInstanceAwareCounter::new(options);
    let instance_handle = runtime.block_on(async {
        for key in &keys {
            instance.inc(key, 1).await.expect("the store is there");
        }
        instance.handle(&keys[0]).await.expect("the store is there")
    });
    let map = bare_map(&keys);
    let mut turn = 0;
    let mut next = || {
        turn = (turn + 1) % KEYS;
        turn
    };

    let mut group = c.benchmark_group("keyed");
    group.bench_function("bare map add", |b| {
        b.iter(|| {
            let entry = map.get(black_box(&*keys[next()])).expect("inserted");
            black_box(entry.fetch_add(1, Ordering::Relaxed))
        });
    });
    group.bench_function("inc", |b| {
        b.iter(|| black_box(polled!(counter.inc(black_box(&keys[next()]), 1))));
    });
    group.bench_function("inc in windows", |b| {
        b.iter(|| black_box(polled!(windowed.inc(black_box(&keys[next()]), 1))));
    });
    group.bench_function("instance-aware inc", |b| {
        b.iter(|| black_box(polled!(instance.inc(black_box(&keys[next()]), 1))));
    });
    group.bench_function("get", |b| {
        b.iter(|| black_box(polled!(counter.get(black_box(&keys[0])))));
    });
    group.bench_function("instance-aware get", |b| {
        b.iter(|| black_box(polled!(instance.get(black_box(&keys[0])))));
    });
    group.finish();

    let bare = AtomicI64::new(0);
    let mut group = c.benchmark_group("one key");
    group.bench_function("bare atomic add", |b| {
        b.iter(|| black_box(black_box(&bare).fetch_add(1, Ordering::Relaxed)));
    });
    group.bench_function("handle inc", |b| b.iter(|| black_box(black_box(&handle).inc(1))));
    group.bench_function("handle inc in windows", |b| {
        b.iter(|| black_box(black_box(&windowed_handle).inc(1)));
    });
    group.bench_function("instance-aware handle inc", |b| {
        b.iter(|| black_box(black_box(&instance_handle).inc(1)));
    });
    group.finish();
    flushes(c, &runtime);
}

/// What a flush costs this process: the store is in memory, and answers at once.
fn flushes(c: &mut Criterion, runtime: &tokio::runtime::Runtime) {
    let keys = keys();
    let never = std::time::Duration::from_secs(3600);
    let options = CounterOptions::new(RedisKey::default_prefix(), MemoryBackend::new());
    let counter = LaxCounter::new(options.allowed_lag(never).evict_after(never));
    c.bench_function("write to 1000 keys, and flush", |b| {
        b.iter(|| {
            runtime.block_on(async {
                for key in &keys {
                    counter.inc(key, 1).await.expect("the store is there");
                }
                counter.flush().await.expect("the store is there");
            });
        });
    });
}

criterion_group!(lax, benches);
criterion_main!(lax);
