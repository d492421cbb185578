//! A cluster of processes with real counters on a simulated store, and faults from one seed.
//!
//! Everything runs on one thread under paused time, and every choice comes from a generator of the task
//! that makes it, so a seed gives the same run each time.

mod inspector;
mod life;
mod process;
mod reference;
mod stock;
mod trace;
mod wire;
mod world;

use std::{fmt, sync::Arc, time::Duration};

use self::{inspector::Inspector, world::World};
pub(crate) use self::{
    trace::Fingerprint,
    wire::Sabotage,
    world::{Span, SpanKind, Stats},
};

#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) seed: u64,
    pub(crate) instances: usize,
    pub(crate) hours: f64,
    /// Of each prefix.
    pub(crate) shards: u16,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Config {
    /// For how long faults happen, in milliseconds. A quiet time follows, in which all must heal.
    pub(crate) fn length(&self) -> u64 {
        // A float that is out of range becomes the nearest integer.
        (self.hours * 3_600_000.0) as u64
    }

    fn whole_length(&self) -> u64 {
        self.length() + world::QUIET
    }
}

/// The command that repeats a run.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, instances, hours, shards, sabotage } = self;
        write!(f, "cargo run --release -p distkit-simulate -- ")?;
        write!(f, "--seed {seed} --instances {instances} --hours {hours}")?;
        if *shards > 1 {
            write!(f, " --shards {shards}")?;
        }
        match sabotage {
            Some(sabotage) => write!(f, " --sabotage {sabotage}"),
            None => Ok(()),
        }
    }
}

/// One point of the picture.
pub(crate) struct Sample {
    pub(crate) at: u64,
    /// What the store says of the key that the picture shows.
    pub(crate) total: i64,
    /// What it should say: the sum over all living processes, whether they reach the store or not.
    pub(crate) open: i64,
    /// What each living process takes for the total.
    pub(crate) beliefs: Vec<Option<i64>>,
}

pub(crate) struct Report {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) stats: Stats,
    pub(crate) samples: Vec<Sample>,
    pub(crate) spans: Vec<Span>,
    pub(crate) simulated: u64,
    /// The first rule that was broken, and the command that shows it again.
    pub(crate) violation: Option<String>,
}

/// Runs a simulation to its end, or to the first broken rule. The trace goes to `sink`; `progress` hears now
/// and then how much is done, from 0 to 1.
pub(crate) fn run(
    config: &Config,
    sink: Option<Box<dyn std::io::Write + Send>>,
    progress: &mut dyn FnMut(f64),
) -> std::io::Result<Report> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(simulate(config, sink, progress))
}

async fn simulate(
    config: &Config,
    sink: Option<Box<dyn std::io::Write + Send>>,
    progress: &mut dyn FnMut(f64),
) -> std::io::Result<Report> {
    let mut dice = fastrand::Rng::with_seed(config.seed);
    let world = Arc::new(World::new(config.clone(), sink));
    for slot in 0..config.instances {
        tokio::spawn(life::live(Arc::clone(&world), slot, dice.fork()));
    }
    tokio::spawn(life::rule_the_store(Arc::clone(&world), dice.fork()));

    let mut inspector = Inspector::new(Arc::clone(&world));
    let step = (config.whole_length() / 1200).max(1);
    let mut samples = Vec::new();
    while world.now() < config.whole_length() && world.violation().is_none() {
        tokio::time::sleep(Duration::from_millis(dice.u64(500..4000))).await;
        inspector.inspect().await;
        let at = world.now();
        if samples.last().is_none_or(|last: &Sample| at >= last.at + step) {
            samples.push(inspector.sample().await);
            progress((at as f64 / config.whole_length() as f64).min(1.0));
        }
    }
    inspector.inspect_the_healed().await;

    let violation = world.violation().map(|what| format!("{what}\nTo see it again: {config}"));
    let (stats, spans) = world.history();
    let simulated = world.now();
    Ok(Report { fingerprint: world.trace.finish()?, stats, samples, spans, simulated, violation })
}
