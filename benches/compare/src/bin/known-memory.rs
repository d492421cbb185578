//! Prints how many bytes a known key of a lax counter takes, and how many percent of that are still taken when
//! the keys have not been used for long: `known-memory ours|peer URL KEYS`.
//!
//! A program of its own, for counting what is allocated takes time.

use std::{alloc::System, process::ExitCode, time::Duration};

use distkit::{
    RedisKey,
    counter::{CounterOptions, CounterTrait as _, LaxCounter},
};
use peer::{DistkitRedisKey, counter::CounterTrait as _};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// After which time of disuse ours forgets a key.
const UNUSED: Duration = Duration::from_secs(5);

/// Longer than the peer needs to fall silent, and ours to forget.
const SILENCE: Duration = Duration::from_secs(17);

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [whose, url, count] = &*words else { return usage() };
    let Ok(count) = count.parse::<usize>() else { return usage() };
    let names = (0..count).map(|n| format!("user-{n}-views"));
    let [held, kept] = match &**whose {
        "ours" => ours(manager(url).await, names).await,
        "peer" => peers(manager(url).await, names).await,
        _ => return usage(),
    };
    println!("{} {}", held / count as f64, 100.0 * kept / held);
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: known-memory ours|peer URL KEYS");
    ExitCode::from(2)
}

async fn manager(url: &str) -> ConnectionManager {
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    let client = redis::Client::open(url).expect("a valid URL");
    client.get_connection_manager_with_config(config).await.expect("the server is there")
}

fn taken(region: &Region<'_, System>) -> f64 {
    let change = region.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}

async fn ours(connection: ConnectionManager, names: impl Iterator<Item = String>) -> [f64; 2] {
    let keys: Vec<_> = names.map(|name| RedisKey::try_from(name).expect("valid")).collect();
    let prefix = RedisKey::try_from("memory").expect("valid");
    let counter = LaxCounter::new(CounterOptions::new(prefix, connection).evict_after(UNUSED));
    let region = Region::new(ALLOCATOR);
    for chunk in keys.chunks(1000) {
        let chunk: Vec<_> = chunk.iter().collect();
        counter.get_all(&chunk).await.expect("served");
    }
    let held = taken(&region);
    tokio::time::sleep(SILENCE).await;
    [held, taken(&region)]
}

async fn peers(connection: ConnectionManager, names: impl Iterator<Item = String>) -> [f64; 2] {
    let keys: Vec<_> = names.map(|name| DistkitRedisKey::try_from(name).expect("valid")).collect();
    let prefix = DistkitRedisKey::try_from("memory".to_owned()).expect("valid");
    let options = peer::counter::CounterOptions::new(prefix, connection);
    let counter = peer::counter::LaxCounter::new(options);
    let region = Region::new(ALLOCATOR);
    for chunk in keys.chunks(1000) {
        let chunk: Vec<_> = chunk.iter().collect();
        counter.get_all(&chunk).await.expect("served");
    }
    let held = taken(&region);
    tokio::time::sleep(SILENCE).await;
    [held, taken(&region)]
}
