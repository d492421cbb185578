//! A whole cluster and its faults in one process, from one seed:
//!
//! `cargo run --release -p distkit-simulate -- --seed 7 --instances 20 --hours 24`

mod args;
mod engine;
mod picture;

use std::{
    error::Error,
    fs::File,
    io::{BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use self::{
    args::Args,
    engine::{Config, Report},
};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("simulate: {problem}");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True when all rules held.
fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let config = &args.config;
    let sink = match &args.trace {
        Some(path) => {
            let file =
                File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Some(Box::new(BufWriter::new(file)) as Box<dyn Write + Send>)
        }
        None => None,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "how fast the simulation is, not what happens in it"
    )]
    let started = std::time::Instant::now();
    let report = engine::run(config, sink, &mut Progress::default().shown())?;
    let took = started.elapsed();

    print_summary(config, &report);
    print_speed(&report, took);
    let out = args.out.clone().unwrap_or_else(|| default_path(config.seed));
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    picture::draw(&out, config, &report)
        .map_err(|error| format!("the picture {}: {error}", out.display()))?;
    println!("Picture: {}", out.display());
    if let Some(broken) = &report.violation {
        println!("\n{broken}");
    }
    Ok(report.violation.is_none())
}

/// Beside the program, which cargo builds into a folder for what it builds.
fn default_path(seed: u64) -> PathBuf {
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(|program| program.parent());
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    folder.join(format!("simulation-{seed}.svg"))
}

#[derive(Default)]
struct Progress {
    tenths: u32,
}

impl Progress {
    fn shown(mut self) -> impl FnMut(f64) {
        let terminal = std::io::stderr().is_terminal();
        move |done| {
            if terminal {
                let end = if done < 1.0 { "" } else { "\n" };
                eprint!("\r{:>4.0} %{end}", done * 100.0);
            } else if done * 10.0 >= f64::from(self.tenths + 1) {
                self.tenths = (done * 10.0) as u32;
                eprintln!("{} % done", self.tenths * 10);
            }
        }
    }
}

fn print_summary(config: &Config, report: &Report) {
    let stats = &report.stats;
    let hours = hours(report);
    println!("{} processes for {hours:.2} h, seed {}\n", config.instances, config.seed);
    let operations = stats.acknowledged + stats.not_applied + stats.unknown;
    println!(
        "{operations:>9}  operations: {} acknowledged, {} not applied, {} of unknown outcome",
        stats.acknowledged, stats.not_applied, stats.unknown
    );
    println!(
        "{:>9}  processes started; {} crashed, {} shut down",
        stats.processes, stats.crashes, stats.departures
    );
    println!(
        "{:>9}  cuts, {} hangs, {} times slow or losing messages",
        stats.cuts, stats.hangs, stats.flaky
    );
    println!(
        "{:>9}  restarts of the store, {} of them without its data",
        stats.store_restarts, stats.data_losses
    );
    println!(
        "{:>9}  times the store lost who is joined, {} steps of its clock",
        stats.evictions, stats.clock_steps
    );
    if config.shards > 1 {
        println!(
            "{:>9}  times that a node was unreachable; {} shards",
            stats.node_outages, config.shards
        );
    }
    println!(
        "{:>9}  inspections, in which {} numbers were compared with the reference\n",
        stats.inspections, stats.comparisons
    );
    let verdict = if report.violation.is_none() { "All rules held." } else { "A RULE WAS BROKEN." };
    println!("{verdict}");
    println!("Trace: {} lines, {:016x}", report.fingerprint.lines, report.fingerprint.hash);
}

/// To stderr: what stdout gets follows from the arguments alone.
fn print_speed(report: &Report, took: Duration) {
    let seconds = took.as_secs_f64();
    let speed = hours(report) / seconds;
    eprintln!("Time: {seconds:.1} s, {speed:.1} simulated hours a second");
}

fn hours(report: &Report) -> f64 {
    report.simulated as f64 / 3_600_000.0
}
