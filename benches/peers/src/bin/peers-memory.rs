//! Prints how many bytes a counter takes in the process, at most while many are added to, and
//! afterwards: `peers-memory CONTENDER URL COUNTERS`. For the program `peers`.
//!
//! A program of its own, for counting what is allocated takes time.

use std::{
    alloc::System,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use distkit_peers::{Kind, add_to_each, arrived, names};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// For what is tidied up in the background.
const REST: Duration = Duration::from_secs(1);

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, url, count] = &*words else { return usage() };
    let (Ok(kind), Ok(count)) = (kind.parse::<Kind>(), count.parse::<usize>()) else {
        return usage();
    };
    // One more, to use the contender by while its flush is waited for.
    let names = names(count + 1);
    let subject = Arc::new(kind.connect(url, &names).await);

    let region = Arc::new(Region::new(ALLOCATOR));
    let most = Arc::new(AtomicUsize::new(0));
    let (watched, seen) = (region.clone(), most.clone());
    let watcher = tokio::spawn(async move {
        loop {
            seen.fetch_max(taken(&watched), Relaxed);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let failed = add_to_each(&subject, count).await;
    if failed > 0 {
        eprintln!("{}: {failed} calls failed", kind.name());
        return ExitCode::FAILURE;
    }
    let user = tokio::spawn(async move { subject.use_now_and_then(count).await });
    arrived(url, count as u64).await;
    tokio::time::sleep(REST).await;
    watcher.abort();
    user.abort();
    let kept = taken(&region);
    println!("{} {}", most.load(Relaxed).max(kept) / count, kept / count);
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: peers-memory CONTENDER URL COUNTERS");
    ExitCode::from(2)
}

fn taken(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}
