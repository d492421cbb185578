//! What counters cost that nobody uses, or of whose many keys few are used. Each is measured in a process of
//! its own, which is this program again.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use distkit::{
    counter::{CounterOptions, CounterTrait as _, LaxCounter},
    icounter::{LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions},
};
use peer::counter::CounterTrait as _;

use crate::{
    measure::{Contender, Goal, Metric, Outcome, Role, Unit, compare},
    stage::{Stage, manager, our_key, our_keys, own_cpu, own_sleeps, peer_key, peer_keys},
};

const LOADED_AT_ONCE: usize = 10_000;
const SAMPLE: Duration = Duration::from_secs(5);

/// Longer than the peer needs to fall silent.
const SILENCE: Duration = Duration::from_secs(17);

pub(crate) fn run(stage: &Stage) -> Vec<Outcome> {
    let keys = stage.effort.most_keys;
    let ask =
        |role, name, what: &'static str| Contender::new(role, name, move || ask(stage, what, keys));
    let cpu = "CPU of a core";
    let percent = |goal| Metric { name: cpu, unit: Unit::Percent, goal: Some(goal) };
    let mut outcomes = compare(
        format!("{keys} keys known, one written every 20 ms"),
        &[percent(Goal::under(2.0))],
        1,
        vec![
            ask(Role::Ours, "LaxCounter", "known-ours"),
            ask(Role::Peer, "LaxCounter", "known-peer"),
        ],
    );
    let memory = [
        Metric { name: "a key", unit: Unit::Bytes, goal: Some(Goal::at_most(0.5, Role::Peer)) },
        Metric {
            name: "of it kept when unused",
            unit: Unit::Percent,
            goal: Some(Goal::under(5.0)),
        },
    ];
    let measure = |role, whose: &'static str| {
        Contender::new(role, "LaxCounter", move || {
            output(stage, "known-memory", &[whose, &stage.server.url(), &keys.to_string()])
        })
    };
    outcomes.extend(compare(
        format!("memory of {keys} known keys, whose names the caller keeps"),
        &memory,
        1,
        vec![measure(Role::Ours, "ours"), measure(Role::Peer, "peer")],
    ));
    let idle = [
        percent(Goal::under(0.1)),
        Metric { name: "wake-ups in 5 s", unit: Unit::Count, goal: Some(Goal::under(2.0)) },
    ];
    outcomes.extend(compare(
        "idle counter",
        &idle,
        1,
        vec![
            ask(Role::Ours, "LaxCounter", "idle-ours"),
            ask(Role::Peer, "LaxCounter", "idle-peer"),
        ],
    ));
    // One heartbeat at most: a timer, a write, an answer.
    let heartbeat = Metric { goal: Some(Goal::under(6.0)), ..idle[1] };
    outcomes.extend(compare(
        "idle instance-aware counter (heartbeat every 10 s)",
        &[idle[0], heartbeat],
        1,
        vec![ask(Role::Ours, "LaxInstanceAwareCounter", "idle-instance-ours")],
    ));
    outcomes
}

fn ask(stage: &Stage, what: &str, keys: usize) -> Vec<f64> {
    let this = env!("CARGO_BIN_NAME");
    output(stage, this, &["--probe", what, &stage.server.url(), &keys.to_string()])
}

/// The numbers that another program of this package prints.
fn output(_: &Stage, program: &str, args: &[&str]) -> Vec<f64> {
    let path = std::env::current_exe().expect("this program has a path").with_file_name(program);
    assert!(
        path.exists(),
        "{} is missing: build the whole package with `cargo build --release -p distkit-compare`",
        path.display()
    );
    let output =
        Command::new(path).args(args).stderr(Stdio::inherit()).output().expect("it can be run");
    assert!(output.status.success(), "{program} failed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

/// What the child process does: prints its values.
pub(crate) fn probe(what: &str, url: &str, keys: usize) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let values = runtime.block_on(async {
        Ok(match what {
            "known-ours" => known_ours(url, keys).await,
            "known-peer" => known_peer(url, keys).await,
            "idle-ours" => idle_ours(url).await,
            "idle-peer" => idle_peer(url).await,
            "idle-instance-ours" => idle_instance_ours(url).await,
            other => return Err(format!("no probe {other:?}")),
        })
    })?;
    let words: Vec<_> = values.iter().map(f64::to_string).collect();
    println!("{}", words.join(" "));
    Ok(())
}

async fn known_ours(url: &str, count: usize) -> Vec<f64> {
    let keys = our_keys(count);
    let options = CounterOptions::new(our_key("known"), manager(url).await);
    let counter = LaxCounter::new(options);
    for chunk in keys.chunks(LOADED_AT_ONCE) {
        let chunk: Vec<_> = chunk.iter().collect();
        counter.get_all(&chunk).await.expect("served");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    vec![
        busy(async |turn| {
            counter.inc(&keys[turn * 7919 % count], 1).await.expect("served");
        })
        .await,
    ]
}

async fn known_peer(url: &str, count: usize) -> Vec<f64> {
    let keys = peer_keys(count);
    let options = peer::counter::CounterOptions::new(peer_key("known"), manager(url).await);
    let counter = peer::counter::LaxCounter::new(options);
    for chunk in keys.chunks(LOADED_AT_ONCE) {
        let chunk: Vec<_> = chunk.iter().collect();
        counter.get_all(&chunk).await.expect("served");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    vec![
        busy(async |turn| {
            counter.inc(&keys[turn * 7919 % count], 1).await.expect("served");
        })
        .await,
    ]
}

/// The CPU that goes into one write every 20 ms, in percent of a core.
async fn busy(write: impl AsyncFn(usize)) -> f64 {
    let (start, cpu) = (Instant::now(), own_cpu());
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut turn = 0;
    while start.elapsed() < SAMPLE {
        ticks.tick().await;
        write(turn).await;
        turn += 1;
    }
    100.0 * (own_cpu() - cpu) / start.elapsed().as_secs_f64()
}

/// CPU in percent of a core, and how often a thread was woken, while nothing is done.
async fn idle<T>(counter: Arc<T>) -> Vec<f64> {
    tokio::time::sleep(SILENCE).await;
    // A timer of our own would be a wake-up: the sample is taken from outside of the runtime.
    let sample = || {
        let (start, cpu, sleeps) = (Instant::now(), own_cpu(), own_sleeps());
        std::thread::sleep(SAMPLE);
        let seconds = start.elapsed().as_secs_f64();
        // This thread's own sleep is not one of the counter's.
        vec![100.0 * (own_cpu() - cpu) / seconds, (own_sleeps() - sleeps - 1.0).max(0.0)]
    };
    let values = tokio::task::spawn_blocking(sample).await.expect("it does not panic");
    drop(counter);
    values
}

async fn idle_ours(url: &str) -> Vec<f64> {
    let options = CounterOptions::new(our_key("idle"), manager(url).await);
    // Evicted before the sample begins.
    let counter = LaxCounter::new(options.evict_after(Duration::from_secs(5)));
    counter.inc(&our_key("k"), 1).await.expect("served");
    idle(counter).await
}

async fn idle_peer(url: &str) -> Vec<f64> {
    let options = peer::counter::CounterOptions::new(peer_key("idle"), manager(url).await);
    let counter = peer::counter::LaxCounter::new(options);
    counter.inc(&peer_key("k"), 1).await.expect("served");
    idle(counter).await
}

async fn idle_instance_ours(url: &str) -> Vec<f64> {
    let options = LaxInstanceAwareCounterOptions::new(our_key("idle"), manager(url).await);
    let counter = LaxInstanceAwareCounter::new(options.evict_after(Duration::from_secs(5)));
    counter.inc(&our_key("k"), 1).await.expect("served");
    idle(counter).await
}
