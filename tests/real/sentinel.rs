//! A primary with replicas behind Redis Sentinel, and its failovers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    DistkitError,
    backend::connect,
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Sentinels, Server, ServerBuilder};
use tokio::time::Instant;

use crate::support::{Client, eventually, key, over_both_clients};

over_both_clients!(
    a_commanded_failover_is_followed_under_load,
    a_commanded_failover_is_followed_under_load_on_valkey,
    a_commanded_failover_loses_less_where_writes_need_replicas,
    a_killed_primary_is_replaced_and_comes_back_as_a_replica,
    a_reader_follows_a_failover,
);

fn scheme(client: Client) -> &'static str {
    match client {
        Client::Redis => "redis-sentinel",
        Client::Fred => "redis-sentinel+fred",
    }
}

async fn sentinels(builder: ServerBuilder) -> Arc<Sentinels> {
    Arc::new(tokio::task::spawn_blocking(|| Sentinels::of(builder)).await.unwrap())
}

async fn blocking(sentinels: &Arc<Sentinels>, work: impl FnOnce(&Sentinels) + Send + 'static) {
    let sentinels = sentinels.clone();
    tokio::task::spawn_blocking(move || work(&sentinels)).await.unwrap();
}

#[derive(Default)]
struct Counted {
    sure: i64,
    unsure: i64,
    /// The longest time between two acknowledged additions.
    pause: Duration,
}

/// Adds through `add` until it is over.
async fn count(
    over: Arc<AtomicBool>,
    mut add: impl AsyncFnMut() -> Result<(), DistkitError>,
) -> Counted {
    let (mut counted, mut last) = (Counted::default(), Instant::now());
    while !over.load(SeqCst) {
        match add().await {
            Ok(()) => {
                counted.sure += 1;
                counted.pause = counted.pause.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) => {
                counted.unsure += i64::from(error.may_have_happened());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // Sentinels that get no CPU judge nothing.
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    counted
}

async fn a_commanded_failover_is_followed_under_load(client: Client) {
    follows(client, Server::redis(), |sentinels| sentinels.fail_over()).await;
}

async fn a_commanded_failover_is_followed_under_load_on_valkey(client: Client) {
    follows(client, Server::valkey(), |sentinels| sentinels.fail_over()).await;
}

/// Once the replicas follow the new primary, the old one takes no writes.
async fn a_commanded_failover_loses_less_where_writes_need_replicas(client: Client) {
    let server = Server::redis().args(&["--min-replicas-to-write", "2"]);
    follows(client, server, |sentinels| sentinels.fail_over()).await;
}

async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica(client: Client) {
    follows(client, Server::redis().append_only_always(), |sentinels| {
        let old = sentinels.primary();
        old.kill_9();
        sentinels.wait_for_another_primary(old.port());
        // It starts as a primary, with late writers if there were any, until the sentinels demote it.
        old.restart();
        sentinels.wait_for_demotion(old.port());
    })
    .await;
}

async fn follows(client: Client, builder: ServerBuilder, fail_over: fn(&Sentinels)) {
    println!("{builder:?}");
    let sentinels = sentinels(builder).await;
    let store = connect(&sentinels.url(scheme(client))).await.unwrap();
    let options = CounterOptions::new(key("p"), store.clone());
    let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
    let shared =
        StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(key("p"), store));
    let over = Arc::new(AtomicBool::new(false));
    let tasks = [
        tokio::spawn(count(over.clone(), {
            let strict = strict.clone();
            async move || strict.inc(&key("strict"), 1).await.map(drop)
        })),
        tokio::spawn(count(over.clone(), {
            let lax = lax.clone();
            async move || lax.inc(&key("lax"), 1).await.map(drop)
        })),
        tokio::spawn(count(over.clone(), {
            let shared = shared.clone();
            async move || shared.inc(&key("shared"), 1).await.map(drop)
        })),
    ];
    tokio::time::sleep(Duration::from_millis(500)).await;
    blocking(&sentinels, fail_over).await;
    eventually("a write", async || strict.inc(&key("other"), 1).await.is_ok()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    over.store(true, SeqCst);
    let mut counted = Vec::new();
    for task in tasks {
        counted.push(task.await.unwrap());
    }
    eventually("a flush", async || lax.flush().await.is_ok()).await;
    let mut totals = [0; 3];
    eventually("the totals", async || {
        let read = (
            strict.get(&key("strict")).await,
            strict.get(&key("lax")).await,
            shared.get(&key("shared")).await,
        );
        let (Ok(plain), Ok(lax), Ok((shared, _))) = read else { return false };
        totals = [plain, lax, shared];
        true
    })
    .await;
    for ((what, counted), total) in ["strict", "lax", "shared"].iter().zip(&counted).zip(totals) {
        let Counted { sure, unsure, pause } = counted;
        let lost = sure - total;
        println!(
            "{client:?} {what}: {sure} acknowledged, {unsure} unknown, {total} stored, \
             {lost} lost, pause {pause:?}"
        );
        // What was acknowledged and not replicated may be lost; nothing counts twice.
        assert!(total <= sure + unsure, "{what}: {sure} + {unsure}, but {total}");
        assert!(*sure > 20 && total > 20, "{what}: {sure} acknowledged, {total} stored");
    }
    // Whoever lost acknowledged writes hears of it.
    for (stats, what, at) in [(strict.stats(), "strict", 0), (lax.stats(), "lax", 1)] {
        let lost = counted[at].sure - totals[at];
        // An addition of unknown outcome may make up for one that was lost.
        assert!(lost <= 0 || stats.losses > 0, "{what}: {lost} lost, {stats:?}");
        println!("{client:?} {what}: {} losses noticed", stats.losses);
    }
    // An instance puts back what was acknowledged, unless it has joined a primary that came back empty.
    if sentinels
        .servers()
        .iter()
        .all(|server| server.cli(&["CONFIG", "GET", "appendonly"]) == "appendonly\nno")
    {
        assert!(totals[2] >= counted[2].sure, "{} of {}", totals[2], counted[2].sure);
    }
}

async fn a_reader_follows_a_failover(client: Client) {
    let sentinels = sentinels(Server::redis()).await;
    let store = connect(&sentinels.url(scheme(client))).await.unwrap();
    let reader = StrictCounter::new(CounterOptions::new(key("p"), store));
    let hits = key("hits");
    assert_eq!(reader.get(&hits).await.unwrap(), 0);
    blocking(&sentinels, |sentinels| {
        sentinels.fail_over();
        sentinels.primary().cli(&["HSET", "distkit:{p}:totals", "hits", "7"]);
        // Replication would make up for a reader that stays behind.
        for server in sentinels.servers() {
            if server.port() != sentinels.primary().port() {
                server.cli(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]);
            }
        }
    })
    .await;
    let began = Instant::now();
    while !matches!(reader.get(&hits).await, Ok(7)) {
        assert!(began.elapsed() < Duration::from_secs(10), "the reader stays behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let primary = sentinels.primary();
    eventually("a connection to the new primary", async || {
        let _ = reader.get(&hits).await;
        let listed = primary.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
        listed.lines().any(|line| line.contains("cmd=h"))
    })
    .await;
}
