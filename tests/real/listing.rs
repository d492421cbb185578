//! Listings on real servers: while counters come and go, tables are rearranged, servers restart, and slots move.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use distkit::{
    DistkitError, KeyFilter, Listing, RedisKey,
    backend::{Space, Store, Write, connect},
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Cluster, Server};
use tokio::time::Instant;

use crate::support::{Bench, Client, eventually, key, over_both_clients};

over_both_clients!(
    counters_that_stay_are_listed_while_others_come_and_go,
    a_restarted_server_leaves_nothing_out,
    a_slot_that_moves_leaves_nothing_out,
    an_evicted_space_ends_a_listing,
    foreign_data_is_named_and_ends_nothing,
    instances_are_listed_with_their_slices,
    a_user_without_info_lists,
);

/// How many counters there are; `DISTKIT_LISTED=1000000` for more.
fn number() -> usize {
    std::env::var("DISTKIT_LISTED").map_or(50_000, |number| number.parse().unwrap())
}

fn names(what: &str, count: usize) -> Vec<RedisKey> {
    (0..count).map(|n| key(&format!("{what} {n}"))).collect()
}

async fn fill(store: &dyn Store, space: &Space, keys: &[RedisKey]) {
    for part in keys.chunks(1000) {
        let writes: Vec<_> = part.iter().map(|key| Write::set(key.clone(), 1)).collect();
        store.apply(space, &writes, None).await.unwrap();
    }
}

async fn take(listing: &mut Listing<(RedisKey, i64)>, count: usize) -> BTreeSet<RedisKey> {
    let mut found = BTreeSet::new();
    for _ in 0..count {
        found.insert(listing.next().await.unwrap().unwrap().0);
    }
    found
}

async fn rest(mut listing: Listing<(RedisKey, i64)>, found: &mut BTreeSet<RedisKey>) {
    while let Some(item) = listing.next().await {
        found.insert(item.unwrap().0);
    }
}

#[track_caller]
fn assert_all(stays: &[RedisKey], found: &BTreeSet<RedisKey>) {
    let missing = stays.iter().filter(|key| !found.contains(*key)).count();
    assert_eq!(missing, 0, "of {} counters that stayed", stays.len());
}

/// The memory of this process, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The CPU time of the server, which others on the machine do not lengthen.
async fn cpu_us(bench: &Bench) -> u64 {
    let info = bench.cli(&["INFO", "cpu"]).await;
    let seconds = info.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(':')?;
        matches!(name, "used_cpu_sys" | "used_cpu_user").then(|| value.parse::<f64>().ok())?
    });
    (seconds.sum::<f64>() * 1e6) as u64
}

async fn counters_that_stay_are_listed_while_others_come_and_go(client: Client) {
    let bench = Bench::new(client).await;
    let store = client.connect(&bench.server).await;
    let space = Space::new(key("bench"));
    let stays = names("stays", number());
    fill(&*store, &space, &stays).await;
    let counter = bench.strict().await;
    assert_eq!(counter.len().await.unwrap(), stays.len() as u64);

    // What the listing costs, with nobody else there.
    bench.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]).await;
    bench.cli(&["CONFIG", "SET", "slowlog-max-len", "100000"]).await;
    let (start, before, cpu) = (Instant::now(), resident(), cpu_us(&bench).await);
    let mut listing = counter.list(&KeyFilter::all());
    let (mut listed, mut peak) = (0, 0);
    while let Some(item) = listing.next().await {
        item.unwrap();
        listed += 1;
        if listed % 1000 == 0 {
            peak = peak.max(resident());
        }
    }
    let (took, cpu) = (start.elapsed(), cpu_us(&bench).await - cpu);
    bench.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "-1"]).await;
    assert!(listed >= stays.len());
    let mut raw = bench.raw().await;
    let all = redis::cmd("SLOWLOG")
        .arg("GET")
        .arg(100_000)
        .query_async::<Vec<(u64, u64, u64, Vec<Vec<u8>>, String, String)>>(&mut raw)
        .await
        .unwrap();
    // Each command by which the server was held up, and how long each of the pages' scripts took.
    let longest = all.iter().max_by_key(|entry| entry.2).unwrap();
    let longest = (longest.2, String::from_utf8_lossy(&longest.3[0]));
    let is_page = |args: &[Vec<u8>]| args.first().is_some_and(|name| name.starts_with(b"EVAL"));
    let pages: Vec<_> = all.iter().filter(|entry| is_page(&entry.3)).map(|entry| entry.2).collect();
    let number = pages.len() as u64;
    println!(
        "{client:?}: {listed} counters in {took:?}; of {} commands the longest took {} us ({}); {number} pages, {} us \
         each, {} us of CPU each; memory {before} KiB before, {peak} KiB at most",
        all.len(),
        longest.0,
        longest.1,
        pages.iter().sum::<u64>() / number,
        cpu / number,
    );
    let start = Instant::now();
    let top = counter.top(10, &KeyFilter::all()).await.unwrap();
    assert_eq!(top.len(), 10);
    println!("{client:?}: the 10 greatest in {:?}", start.elapsed());

    // The table grows to four times its size, or well beyond a page, and shrinks again while it is listed.
    let over = Arc::new(AtomicBool::new(false));
    let churn = {
        let (over, store, space) = (over.clone(), store.clone(), space.clone());
        let goes = names("goes", (3 * stays.len()).min(150_000));
        tokio::spawn(async move {
            let mut rounds = 0;
            while !over.load(SeqCst) {
                for part in goes.chunks(1000) {
                    let writes = part.iter().map(|key| match rounds % 2 {
                        0 => Write::set(key.clone(), 1),
                        _ => Write::remove(key.clone()),
                    });
                    store.apply(&space, &writes.collect::<Vec<_>>(), None).await.unwrap();
                    if over.load(SeqCst) {
                        break;
                    }
                }
                rounds += 1;
            }
        })
    };
    for _ in 0..5 {
        let mut found = BTreeSet::new();
        rest(counter.list(&KeyFilter::all()), &mut found).await;
        assert_all(&stays, &found);
        let strangers =
            found.iter().find(|key| !key.starts_with("stays ") && !key.starts_with("goes "));
        assert_eq!(strangers, None);
    }
    over.store(true, SeqCst);
    churn.await.unwrap();
    let listed = counter.list(&KeyFilter::prefix("stays ")).into_map().await.unwrap();
    assert_eq!(listed.len(), stays.len(), "each once in the map");
}

/// A restarted server has another seed: what a cursor of the one before means is lost.
async fn a_restarted_server_leaves_nothing_out(client: Client) {
    let bench = Bench::durable(client).await;
    let store = client.connect(&bench.server).await;
    let stays = names("stays", 20_000);
    fill(&*store, &Space::new(key("bench")), &stays).await;
    let counter = bench.strict().await;
    let mut listing = counter.list(&KeyFilter::all());
    let mut found = take(&mut listing, 5000).await;
    bench.blocking(|server| server.restart()).await;
    eventually("the server to answer", async || counter.len().await.is_ok()).await;
    rest(listing, &mut found).await;
    assert_all(&stays, &found);
}

async fn a_slot_that_moves_leaves_nothing_out(client: Client) {
    let cluster = Arc::new(tokio::task::spawn_blocking(Cluster::start).await.unwrap());
    let store = client.connect_cluster(&cluster).await;
    let stays = names("stays", 20_000);
    fill(&*store, &Space::new(key("moves")), &stays).await;
    let counter = StrictCounter::new(CounterOptions::new(key("moves"), store));
    let mut listing = counter.list(&KeyFilter::all());
    let mut found = take(&mut listing, 5000).await;
    let moved = cluster.clone();
    tokio::task::spawn_blocking(move || {
        let slot = moved.slot("distkit:{moves}:totals");
        let nodes = moved.open_slot(slot);
        while moved.move_keys(slot, nodes, 20) > 0 {}
        moved.close_slot(slot, nodes);
    })
    .await
    .unwrap();
    rest(listing, &mut found).await;
    assert_all(&stays, &found);
    assert_eq!(counter.len().await.unwrap(), 20_000);
}

async fn an_evicted_space_ends_a_listing(client: Client) {
    let bench = Bench::new(client).await;
    let store = client.connect(&bench.server).await;
    fill(&*store, &Space::new(key("bench")), &names("gone", 5000)).await;
    let counter = bench.strict().await;
    let mut listing = counter.list(&KeyFilter::all());
    let mut found = take(&mut listing, 10).await;
    bench.cli(&["DEL", "distkit:{bench}:totals"]).await;
    rest(listing, &mut found).await;
    assert!(found.len() < 5000, "more than the page that was read");
    assert!(counter.is_empty().await.unwrap());
}

async fn foreign_data_is_named_and_ends_nothing(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.strict().await;
    counter.inc(&key("own"), 1).await.unwrap();
    let totals = "distkit:{bench}:totals";
    bench.cli(&["HSET", totals, "text", "abc", "no:key", "1", ":reserved", "1"]).await;
    let (mut refused, mut no_keys, mut own) = (0, 0, 0);
    let mut listing = counter.list(&KeyFilter::all());
    while let Some(item) = listing.next().await {
        match item {
            Ok((name, 1)) if &*name == "own" => own += 1,
            Err(DistkitError::CounterError { key, .. }) if &*key == "text" => refused += 1,
            Err(DistkitError::InvalidRedisKey(text)) if text.contains("no:key") => no_keys += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((own, refused, no_keys), (1, 1, 1));

    bench.cli(&["DEL", totals]).await;
    bench.cli(&["LPUSH", totals, "x"]).await;
    let error = counter.list(&KeyFilter::all()).into_map().await.unwrap_err();
    assert!(distkit_testkit::chain(&error).contains(totals), "{}", distkit_testkit::chain(&error));
    assert!(counter.len().await.is_err());
}

async fn instances_are_listed_with_their_slices(client: Client) {
    for shards in [1, 3] {
        let server = Arc::new(Server::valkey().start());
        let instance = async || {
            let store = client.connect(&server).await;
            let options = StrictInstanceAwareCounterOptions::new(key("pods"), store).shards(shards);
            StrictInstanceAwareCounter::new(options)
        };
        let (a, b) = (instance().await, instance().await);
        let all = names("pod", 1500);
        let add: Vec<_> = all.iter().map(|key| (key, 2)).collect();
        a.inc_all(&add).await.unwrap();
        b.inc_all(&add[..700]).await.unwrap();
        assert_eq!(b.len().await.unwrap(), 1500);
        let totals = b.list(&KeyFilter::all()).into_map().await.unwrap();
        assert_eq!(totals.len(), 1500);
        assert_eq!(totals.values().sum::<i64>(), 2 * 2200);
        let held = b.list_slices(&KeyFilter::glob("pod 6??")).into_map().await.unwrap();
        assert_eq!(held.len(), 100);
        assert!(held.values().all(|held| held.total == 4 && held.slices.len() == 2));
        b.leave().await.unwrap();
        let held = a.list_slices(&KeyFilter::all()).into_map().await.unwrap();
        assert_eq!(held.len(), 1500);
        assert!(held.values().all(|held| held.total == 2 && held.slices.len() == 1));
        let top = a.top(1, &KeyFilter::all()).await.unwrap();
        assert_eq!(top, [(key("pod 0"), 2)]);
    }
}

async fn a_user_without_info_lists(client: Client) {
    let bench = Bench::new(client).await;
    let stays = names("stays", 3000);
    fill(&*client.connect(&bench.server).await, &Space::new(key("bench")), &stays).await;
    let acl = ["ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-info"];
    assert_eq!(bench.cli(&acl).await, "OK");
    let scheme = match client {
        Client::Redis => "redis://app:secret@",
        Client::Fred => "redis+fred://app:secret@",
    };
    let store = connect(&bench.server.url().replacen("redis://", scheme, 1)).await.unwrap();
    let counter = StrictCounter::new(CounterOptions::new(key("bench"), store));
    let found = counter.list(&KeyFilter::all()).into_map().await.unwrap();
    assert_all(&stays, &found.into_keys().collect());
}
