//! A steady load never keeps writes from the store.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::support::{Bench, Client, Dice, TOTALS, keys, over_both_clients, soak};

over_both_clients!(the_store_follows_a_steady_load);

const LAG: Duration = Duration::from_millis(20);
/// For a loaded machine. What this test is to find is a flush put off for seconds.
const SLACK: Duration = Duration::from_secs(1);

async fn the_store_follows_a_steady_load(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(LAG).await;
    let keys = keys(50);
    for key in &keys {
        counter.inc(key, 0).await.unwrap();
    }
    // How much was acknowledged, and when.
    let log = Arc::new(Mutex::new(vec![(Instant::now(), 0_i64)]));
    let over = Arc::new(AtomicBool::new(false));

    let load = tokio::spawn({
        let (counter, log, over) = (counter.clone(), log.clone(), over.clone());
        async move {
            let mut dice = Dice::new(7);
            let mut sum = 0;
            while !over.load(SeqCst) {
                for _ in 0..5 {
                    counter.inc(&keys[dice.below(keys.len())], 1).await.unwrap();
                    sum += 1;
                }
                log.lock().unwrap().push((Instant::now(), sum));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            sum
        }
    });
    // How late this process's own timers are: what no flush can make up for.
    let tardy = tokio::spawn({
        let over = over.clone();
        async move {
            let step = Duration::from_millis(10);
            let mut worst = Duration::ZERO;
            while !over.load(SeqCst) {
                let start = Instant::now();
                tokio::time::sleep(step).await;
                worst = worst.max(start.elapsed().saturating_sub(step));
            }
            worst
        }
    });

    let mut raw = bench.raw().await;
    let mut samples = Vec::new();
    let end = Instant::now() + soak(Duration::from_secs(5));
    while Instant::now() < end {
        let asked = Instant::now();
        let values: Vec<i64> = redis::cmd("HVALS").arg(TOTALS).query_async(&mut raw).await.unwrap();
        samples.push((asked, values.iter().sum::<i64>()));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    over.store(true, SeqCst);
    let sum = load.await.unwrap();
    let tardy = tardy.await.unwrap();

    let log = std::mem::take(&mut *log.lock().unwrap());
    let mut worst = Duration::ZERO;
    for (asked, held) in &samples {
        // The first write that the store did not have yet.
        let missing = log.partition_point(|(_, sum)| sum <= held);
        if let Some((written, _)) = log.get(missing) {
            worst = worst.max(asked.saturating_duration_since(*written));
        }
    }
    println!(
        "{:?}: {sum} writes, {} samples, allowed lag {LAG:?}: oldest missing write {worst:?}, \
         timers late by at most {tardy:?}",
        bench.client,
        samples.len(),
    );
    assert!(samples.len() > 10 && sum > 100, "there was next to no load");
    assert!(worst <= LAG + SLACK + tardy, "a write was missing {worst:?} after its answer");
    counter.shutdown(Duration::from_secs(30)).await.unwrap();
    assert_eq!(raw_sum(&mut raw).await, sum);
}

async fn raw_sum(raw: &mut redis::aio::MultiplexedConnection) -> i64 {
    let values: Vec<i64> = redis::cmd("HVALS").arg(TOTALS).query_async(raw).await.unwrap();
    values.iter().sum()
}
