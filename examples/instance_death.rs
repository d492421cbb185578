//! Five gateways count their open connections. One crashes, one is cut off and rejoins, one corrects the
//! total by hand. Runs on the simulator, in no time, and prints the same on every run:
//!
//! `cargo run --example instance_death`

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::memory::{MemoryBackend, MemoryLink},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use tokio::time::Instant;

const NAMES: [&str; 5] = ["anna", "ben", "cleo", "dan", "eve"];
const LEASE_MS: u64 = 30_000;

struct Gateway {
    counter: Arc<StrictInstanceAwareCounter>,
    link: MemoryLink,
}

struct Scene {
    started: Instant,
    key: RedisKey,
    gateways: BTreeMap<&'static str, Gateway>,
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), DistkitError> {
    let store = MemoryBackend::new();
    let mut scene = Scene {
        started: Instant::now(),
        key: RedisKey::try_from("connections")?,
        gateways: BTreeMap::new(),
    };
    println!(
        "Each gateway's lease is {} s. The total is what the last gateway reads.\n",
        LEASE_MS / 1000
    );
    print!("{:>7}  {:>6}", "time", "total");
    NAMES.iter().for_each(|name| print!("  {name:>5}"));
    println!("  what happened");

    for (connections, name) in (10..).step_by(10).zip(NAMES) {
        let link = store.link();
        let options =
            StrictInstanceAwareCounterOptions::new(RedisKey::try_from("gateways")?, link.clone())
                .dead_instance_threshold_ms(LEASE_MS)
                .instance_name(RedisKey::try_from(name)?);
        let counter = StrictInstanceAwareCounter::new(options);
        counter.inc(&scene.key, connections).await?;
        scene.gateways.insert(name, Gateway { counter, link });
    }
    scene.show("five gateways opened 10 to 50 connections").await?;

    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.gateways.remove("ben");
    scene.show("ben crashed; its lease has not expired").await?;

    tokio::time::sleep(Duration::from_secs(10)).await;
    scene.gateways["dan"].link.cut();
    scene.show("dan was cut off: it holds 40 and cannot tell").await?;

    tokio::time::sleep(Duration::from_secs(20)).await;
    scene.show("ben's lease ran out: its 20 are gone").await?;

    tokio::time::sleep(Duration::from_secs(15)).await;
    scene.show("dan's lease ran out too").await?;

    scene.gateways["dan"].link.restore();
    let (total, slice) = scene.gateways["dan"].counter.inc(&scene.key, 2).await?;
    scene.show(&format!("dan is back, opened 2 and was told ({total}, {slice})")).await?;

    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.gateways["anna"].counter.set(&scene.key, 100).await?;
    scene.show("anna set the total to 100: all of it is hers").await?;

    scene.gateways["cleo"].counter.inc(&scene.key, 3).await?;
    scene.show("cleo opened 3, counting from 0 again").await?;

    tokio::time::sleep(Duration::from_secs(5)).await;
    scene.gateways["anna"].counter.leave().await?;
    scene.gateways.remove("anna");
    scene.show("anna left: no lease to wait for").await?;

    let newcomer =
        StrictInstanceAwareCounterOptions::new(RedisKey::try_from("gateways")?, store.link())
            .dead_instance_threshold_ms(LEASE_MS)
            .instance_name(RedisKey::try_from("cleo")?);
    let newcomer = StrictInstanceAwareCounter::new(newcomer);
    newcomer.inc(&scene.key, 1).await?;
    let old = scene.gateways["cleo"].counter.get(&scene.key).await;
    scene.show("a new process named cleo took the old one's place").await?;
    if let Err(error) = old {
        println!("\nThe old cleo was told: {error}.");
    }
    Ok(())
}

impl Scene {
    async fn show(&self, what: &str) -> Result<(), DistkitError> {
        // Eve lives and reaches the store throughout.
        let reader = &self.gateways["eve"].counter;
        let (total, _) = reader.get(&self.key).await?;
        let slices: BTreeMap<String, i64> = reader
            .slices(&self.key)
            .await?
            .into_iter()
            .filter_map(|slice| Some((slice.name?.to_string(), slice.value)))
            .collect();
        print!("{:>5} s  {total:>6}", self.started.elapsed().as_secs());
        for name in NAMES {
            match slices.get(name) {
                Some(slice) => print!("  {slice:>5}"),
                None => print!("  {:>5}", "-"),
            }
        }
        println!("  {what}");
        Ok(())
    }
}
