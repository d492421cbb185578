//! The simulator and the servers answer the same, step by step.
//!
//! Random histories, with connections cut, requests and replies lost, time that passes, and stores that
//! restart with and without their data, are played on the memory store and on real servers whose clock the
//! test moves. Their transcripts must be equal to the letter. No model says what is right here, which is
//! `tests/model`'s business, so that everything may be asked: of stores that hold foreign data, with claims
//! and numbers that are out of date, and through lax counters.
//!
//! `DISTKIT_SOAK=seconds` makes each of the tests go on for that long.
#![allow(clippy::unwrap_used)]

mod counters;
mod history;
mod player;
#[path = "../support/real_store.rs"]
mod real_store;
#[path = "../../../tests/support/removals.rs"]
mod removals;
mod world;

use std::{cell::Cell, fmt::Debug, time::Duration};

use distkit_testkit::{Flavor, Server};
use proptest::{
    strategy::Strategy,
    test_runner::{Config, FileFailurePersistence, TestCaseError, TestError, TestRunner},
};
use tokio::time::Instant;

use real_store::{Client, RealStore};
use world::{LINKS, Simulated, World};

/// How many histories a run compares.
const CASES: u32 = 80;

fn compare<S: Debug>(
    client: Client,
    flavor: Flavor,
    regressions: &'static str,
    histories: impl Strategy<Value = Vec<S>>,
    play: impl AsyncFn(&dyn World, &str, &[S]) -> Vec<String>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let builder = match flavor {
        Flavor::Redis => Server::redis(),
        Flavor::Valkey => Server::valkey(),
    };
    let real = runtime.block_on(RealStore::start(builder, client, LINKS));
    let soak = std::env::var("DISTKIT_SOAK").map(|seconds| seconds.parse().unwrap());
    let soak = Duration::from_secs(soak.unwrap_or(0));
    let start = Instant::now();
    let (played, steps) = (Cell::new(0_u32), Cell::new(0));
    while played.get() == 0 || start.elapsed() < soak {
        let config = Config {
            cases: CASES,
            // Each attempt to make a failing history shorter is played on the server.
            max_shrink_iters: 2000,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
            ..Config::default()
        };
        let outcome = TestRunner::new(config).run(&histories, |history| {
            played.set(played.get() + 1);
            steps.set(steps.get() + history.len());
            let prefix = format!("history {}", played.get());
            let (simulated, served) = runtime.block_on(async {
                let simulated = Simulated::at(real.now());
                let simulated = play(&simulated, &prefix, &history).await;
                (simulated, play(&real, &prefix, &history).await)
            });
            if simulated == served {
                return Ok(());
            }
            Err(TestCaseError::fail(differences(&simulated, &served)))
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(story, _)) => panic!("{client:?}, {flavor:?}: {story}"),
            Err(error) => panic!("{client:?}, {flavor:?}: {error}"),
        }
    }
    let (played, steps) = (played.get(), steps.get());
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{client:?}, {flavor:?}: {played} histories of {steps} steps in {seconds:.1} s, {:.0} a second",
        f64::from(played) / seconds
    );
}

/// Both transcripts as one, up to where they part.
fn differences(simulated: &[String], served: &[String]) -> String {
    let mut story = String::from("the simulator and the server part:\n");
    for (ours, theirs) in simulated.iter().zip(served) {
        if ours == theirs {
            story += &format!("    {ours}\n");
        } else {
            story += &format!("    simulator: {ours}\n    server:    {theirs}\n");
            break;
        }
    }
    story
}

/// Into how many a prefix is spread in some of the histories.
const SHARDS: u16 = 3;

fn compare_stores(client: Client, flavor: Flavor) {
    let regressions = "tests/differential/stores.regressions";
    compare(client, flavor, regressions, history::histories(), async |world, prefix, history| {
        player::play(world, prefix, 1, history).await
    });
}

fn compare_shards(client: Client, flavor: Flavor) {
    let regressions = "tests/differential/shards.regressions";
    compare(client, flavor, regressions, history::histories(), async |world, prefix, history| {
        player::play(world, prefix, SHARDS, history).await
    });
}

fn compare_counters(client: Client, flavor: Flavor) {
    let regressions = "tests/differential/counters.regressions";
    compare(client, flavor, regressions, counters::histories(), async |world, prefix, history| {
        counters::play(world, prefix, 1, history).await
    });
}

fn compare_sharded_counters(client: Client, flavor: Flavor) {
    let regressions = "tests/differential/sharded_counters.regressions";
    compare(client, flavor, regressions, counters::histories(), async |world, prefix, history| {
        counters::play(world, prefix, SHARDS, history).await
    });
}

macro_rules! on_every_server {
    ($($compare:ident as $name:ident),+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn redis_through_redis_rs() {
                $compare(Client::RedisRs, Flavor::Redis);
            }

            #[test]
            fn redis_through_fred() {
                $compare(Client::Fred, Flavor::Redis);
            }

            #[test]
            fn valkey_through_redis_rs() {
                $compare(Client::RedisRs, Flavor::Valkey);
            }

            #[test]
            fn valkey_through_fred() {
                $compare(Client::Fred, Flavor::Valkey);
            }
        }
    )+};
}

on_every_server!(
    compare_stores as stores_agree,
    compare_shards as shards_agree,
    compare_counters as counters_agree,
    compare_sharded_counters as sharded_counters_agree
);
