//! Whole clusters with faults: see `simulate/src`, which shows one run and has the same engine.
//!
//! `DISTKIT_SEEDS=1000 cargo test -p distkit-simulate --test simulation` tries that many seeds instead of
//! the usual few.

#[allow(dead_code, unused_imports, reason = "the picture needs more than the tests")]
#[path = "../src/engine/mod.rs"]
mod engine;

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use engine::{Config, Report, Sabotage};

fn config(seed: u64) -> Config {
    Config { seed, instances: 4, hours: 0.1, shards: 1, sabotage: None }
}

fn run(config: &Config) -> Report {
    engine::run(config, None, &mut |_| {}).unwrap()
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn trace(config: &Config) -> String {
    let memory = Memory::default();
    engine::run(config, Some(Box::new(memory.clone())), &mut |_| {}).unwrap();
    String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn a_seed_gives_the_same_trace_each_time() {
    for (seed, shards) in [(1, 1), (2, 1), (3, 1), (4, 6), (5, 6)] {
        let config = Config { instances: 6, shards, ..config(seed) };
        let (first, second) = (trace(&config), trace(&config));
        assert!(first.lines().count() > 1000, "hardly anything happened");
        let different = first.lines().zip(second.lines()).position(|(one, other)| one != other);
        if let Some(at) = different {
            let shown = |trace: &str| -> Vec<String> {
                trace.lines().skip(at.saturating_sub(5)).take(7).map(str::to_owned).collect()
            };
            panic!("seed {seed} runs in two ways:\n{:#?}\n{:#?}", shown(&first), shown(&second));
        }
        assert_eq!(first.len(), second.len());
    }
    assert_ne!(trace(&config(1)), trace(&config(2)));
}

#[test]
fn the_rules_hold_for_every_seed() {
    let seeds = std::env::var("DISTKIT_SEEDS").map_or(30, |seeds| seeds.parse().unwrap());
    let (mut crashes, mut losses, mut unknown) = (0, 0, 0);
    for seed in 1..=seeds {
        let report = run(&config(seed));
        if let Some(broken) = report.violation {
            panic!("{broken}");
        }
        crashes += report.stats.crashes;
        losses += report.stats.data_losses;
        unknown += report.stats.unknown;
    }
    assert!(crashes > 0 && losses > 0 && unknown > 0, "the faults did not happen");
}

#[test]
fn the_rules_hold_in_a_cluster_for_every_seed() {
    let seeds = std::env::var("DISTKIT_SEEDS").map_or(16, |seeds| seeds.parse().unwrap());
    let (mut outages, mut losses) = (0, 0);
    for seed in 1..=seeds {
        // Several keys in one shard, and each in one of its own.
        let shards = if seed % 2 == 0 { 3 } else { 24 };
        let report = run(&Config { shards, ..config(seed) });
        if let Some(broken) = report.violation {
            panic!("{broken}");
        }
        outages += report.stats.node_outages;
        losses += report.stats.data_losses;
    }
    assert!(outages > 0 && losses > 0, "the faults did not happen");
}

#[test]
fn a_store_with_a_fault_is_found_out() {
    for (name, sabotage) in Sabotage::ALL {
        let found = (1..=10).find_map(|seed| {
            let config = Config { sabotage: Some(sabotage), ..config(seed) };
            Some((config.to_string(), run(&config).violation?))
        });
        let Some((command, message)) = found else { panic!("{name} was never noticed") };
        assert!(message.contains(&command), "{message}");
        assert!(command.ends_with(&format!("--sabotage {name}")), "{command}");
    }
}
