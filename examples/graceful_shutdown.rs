//! Graceful shutdown: what was counted is in the store before the process ends, or the log says what is not.
//!
//!     cargo run --example graceful_shutdown
//!
//! The order: stop taking work, wait for the workers, shut the counters down, report. Here the program sends
//! itself the signal that an orchestrator would.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::memory::{MemoryBackend, MemoryLink},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter, Unflushed},
};
use tokio::{sync::watch, task::JoinSet};

/// Less than what the orchestrator grants between SIGTERM and SIGKILL (Kubernetes: 30 s), together with the time
/// that the workers take.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), DistkitError> {
    let store = MemoryBackend::new();
    let prefix = RedisKey::try_from("shop")?;
    let exact = StrictCounter::new(CounterOptions::new(prefix.clone(), store.clone()));

    println!("A store that answers:");
    let served = run(store.link(), &prefix, |_| {}).await?;
    assert!(served.report.is_ok(), "{:?}", served.report);
    assert_eq!(exact.get(&RedisKey::try_from("requests")?).await?, served.requests);

    println!("A store that is unreachable at the end:");
    let lost = run(store.link(), &prefix, MemoryLink::cut).await?;
    let Err(left) = lost.report else { panic!("nothing can have arrived") };
    let [(_, sum)] = &*left.pending else { panic!("one key was pending: {left:?}") };
    // It is given up: nothing is sent later, so whoever reads the log may add it by hand.
    assert_eq!(
        exact.get(&RedisKey::try_from("requests")?).await? + sum,
        served.requests + lost.requests
    );
    // A service would now end with an exit code that is not 0.
    Ok(())
}

struct Outcome {
    requests: i64,
    report: Result<(), Unflushed>,
}

/// A service from its start to its end; `at_the_signal` is what happens to its link just before.
async fn run(
    link: MemoryLink,
    prefix: &RedisKey,
    at_the_signal: fn(&MemoryLink),
) -> Result<Outcome, DistkitError> {
    let counter = LaxCounter::new(CounterOptions::new(prefix.clone(), link.clone()));
    let requests = RedisKey::try_from("requests")?;
    let (stop, stopped) = watch::channel(false);
    let mut workers = JoinSet::new();
    for _ in 0..4 {
        workers.spawn(worker(counter.clone(), requests.clone(), stopped.clone()));
    }

    let signal = Signal::new();
    tokio::time::sleep(Duration::from_millis(50)).await;
    at_the_signal(&link);
    terminate_ourselves();
    signal.received().await;
    println!("  signal received; no more work is taken");
    stop.send_replace(true);

    let mut served = 0;
    while let Some(worker) = workers.join_next().await {
        served += worker.expect("a worker that does not panic")?;
    }
    let report = counter.shutdown(FLUSH_WITHIN).await;
    match &report {
        Ok(()) => println!("  {served} requests served, all in the store"),
        Err(left) => {
            println!("  {served} requests served; {left}");
            for (key, sum) in &left.pending {
                println!("  not in the store: {key} {sum:+}");
            }
            for (key, sum) in &left.unknown {
                println!("  perhaps in the store: {key} {sum:+}");
            }
            for (key, sum, refusal) in &left.refused {
                println!("  refused: {key} {sum:+}: {refusal}");
            }
        }
    }
    Ok(Outcome { requests: served, report })
}

/// Serves until it is told to stop; finishes what it has begun.
async fn worker(
    counter: Arc<LaxCounter>,
    requests: RedisKey,
    mut stopped: watch::Receiver<bool>,
) -> Result<i64, DistkitError> {
    let mut served = 0;
    loop {
        tokio::select! {
            biased;
            // An error is a sender that is gone, which means the same.
            _ = stopped.wait_for(|stop| *stop) => return Ok(served),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        counter.inc(&requests, 1).await?;
        served += 1;
    }
}

/// Ctrl-C everywhere, and SIGTERM where there is such a thing. Listens from the moment it is made.
struct Signal {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signal {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .expect("a handler for SIGTERM"),
        }
    }

    #[cfg(unix)]
    async fn received(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            interrupt = tokio::signal::ctrl_c() => interrupt.expect("a handler for SIGINT"),
        }
    }

    #[cfg(not(unix))]
    async fn received(self) {
        tokio::signal::ctrl_c().await.expect("a handler for Ctrl-C");
    }
}

#[cfg(unix)]
fn terminate_ourselves() {
    let own = std::process::id().to_string();
    let status = std::process::Command::new("sh").args(["-c", "kill -TERM $0", &own]).status();
    assert!(status.is_ok_and(|status| status.success()), "the signal could not be sent");
}

#[cfg(not(unix))]
fn terminate_ourselves() {
    println!("  press Ctrl-C");
}
