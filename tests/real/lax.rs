//! What a lax counter brings to the store, and when.

use std::time::Duration;

use distkit::{
    DistkitError, RedisKey,
    counter::{CounterTrait, LaxCounter},
};
use tokio::task::JoinSet;

use crate::support::{
    Bench, Client, NEVER, eventually, eventually_reads, key, keys, over_both_clients,
};

over_both_clients!(
    del_knows_what_only_others_wrote,
    ten_increments_and_a_drop,
    ten_increments_through_a_handle_and_a_drop,
    ten_increments_and_a_shutdown,
    five_thousand_keys_at_once,
    reads_never_go_back,
);

const LAG: Duration = Duration::from_millis(20);

async fn del_knows_what_only_others_wrote(client: Client) {
    let bench = Bench::new(client).await;
    let (writer, deleter) = (bench.lax(NEVER).await, bench.lax(LAG).await);
    let hits = key("hits");
    writer.inc(&hits, 5).await.unwrap();
    writer.flush().await.unwrap();
    writer.inc(&hits, 3).await.unwrap();

    assert_eq!(deleter.del(&hits).await.unwrap(), 5);
    assert_eq!(bench.cli(&["HEXISTS", "distkit:{bench}:totals", &hits]).await, "0");
    assert_eq!(deleter.get(&hits).await.unwrap(), 0);
    assert_eq!(deleter.del(&hits).await.unwrap(), 0);

    // A write that had not left its process is later than the deletion.
    writer.flush().await.unwrap();
    assert_eq!(bench.held(&hits).await, 3);
    eventually_reads(&*deleter, &hits, 3).await;
    assert_eq!(writer.get(&hits).await.unwrap(), 3);
    // The pending writes of the process itself are deleted, too.
    writer.inc(&hits, 4).await.unwrap();
    assert_eq!(writer.del(&hits).await.unwrap(), 7);
    writer.flush().await.unwrap();
    assert_eq!(bench.held(&hits).await, 0);
}

async fn ten_increments_and_a_drop(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(NEVER).await;
    let hits = key("hits");
    for n in 1..=10 {
        assert_eq!(counter.inc(&hits, 1).await.unwrap(), n);
    }
    assert_eq!(bench.held(&hits).await, 0, "nothing but the drop is to flush");
    drop(counter);
    eventually("the drop to flush", async || bench.held(&hits).await == 10).await;
}

async fn ten_increments_through_a_handle_and_a_drop(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(NEVER).await;
    let hits = key("hits");
    let handle = counter.handle(&hits).await.unwrap();
    drop(counter);
    for n in 1..=10 {
        assert_eq!(handle.inc(1).unwrap(), n);
    }
    assert_eq!(bench.held(&hits).await, 0, "the handle keeps the counter alive");
    drop(handle);
    eventually("the drop to flush", async || bench.held(&hits).await == 10).await;
}

async fn ten_increments_and_a_shutdown(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(NEVER).await;
    let hits = key("hits");
    for _ in 0..10 {
        counter.inc(&hits, 1).await.unwrap();
    }
    counter.shutdown(Duration::from_secs(30)).await.unwrap();
    assert_eq!(bench.held(&hits).await, 10);
    assert!(matches!(counter.inc(&hits, 1).await, Err(DistkitError::ShutDown)));
    assert_eq!(counter.get(&hits).await.unwrap(), 10);
    assert_eq!(counter.get(&key("never used")).await.unwrap(), 0);
}

async fn five_thousand_keys_at_once(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(LAG).await;
    let keys = keys(5000);
    let updates: Vec<(&RedisKey, i64)> = keys.iter().zip(1..).collect();
    for _ in 0..2 {
        for (_, answer) in counter.inc_all(&updates).await.unwrap() {
            answer.unwrap();
        }
    }
    counter.shutdown(Duration::from_secs(30)).await.unwrap();

    let strict = bench.strict().await;
    let names: Vec<&RedisKey> = keys.iter().collect();
    let totals = strict.get_all(&names).await.unwrap();
    assert_eq!(totals.len(), keys.len());
    for (n, (key, total)) in (1..).zip(totals) {
        assert_eq!(total.unwrap(), 2 * n, "{key}");
    }
    assert_eq!(bench.cli(&["HLEN", "distkit:{bench}:totals"]).await, "5000");
}

async fn reads_never_go_back(client: Client) {
    const WRITES: i64 = 3000;
    let bench = Bench::new(client).await;
    let counters = [bench.lax(Duration::from_millis(1)).await, bench.lax(LAG).await];
    let keys = [key("a"), key("b")];
    let mut writers = JoinSet::new();
    let mut others = JoinSet::new();
    for counter in &counters {
        for key in &keys {
            let (writing, reading, hits) = (counter.clone(), counter.clone(), key.clone());
            writers.spawn(async move {
                let mut last = 0;
                for n in 1..=WRITES {
                    let now = writing.inc(&hits, 1).await.unwrap();
                    assert!(now > last && now >= n, "inc: {now} after {last}, own writes {n}");
                    let read = writing.get(&hits).await.unwrap();
                    assert!(read >= now, "get: {read} after an inc that gave {now}");
                    last = read;
                    if n % 50 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            });
            let hits = key.clone();
            others.spawn(async move {
                let mut last = 0;
                loop {
                    let now = reading.get(&hits).await.unwrap();
                    assert!(now >= last, "{now} after {last}");
                    if now == 2 * WRITES {
                        return;
                    }
                    last = now;
                    tokio::task::yield_now().await;
                }
            });
        }
    }
    let mut flushers = JoinSet::new();
    for counter in counters.clone() {
        flushers.spawn(async move {
            loop {
                LaxCounter::flush(&counter).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    // The readers end when they see all of the writes of both processes.
    let all = async {
        while let Some(done) = others.join_next().await {
            done.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("every write to be seen");
    flushers.abort_all();
    for key in &keys {
        assert_eq!(bench.held(key).await, 2 * WRITES);
    }
}
