//! `import`: what distkit 0.7.1 counted arrives exactly, whatever interrupts it.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use distkit::{
    backend::connect,
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Cluster, Server, wait_until};
use peer::{DistkitRedisKey, counter::CounterTrait as _};
use redis::AsyncCommands;
use support::{Run, beside, command, key};

/// What the new layout holds.
async fn totals(server: &Server, prefix: &str) -> BTreeMap<String, String> {
    let client = redis::Client::open(server.url()).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    connection.hgetall(format!("distkit:{{{prefix}}}:totals")).await.unwrap()
}

fn count(server: &Server, prefix: &str) -> usize {
    server.cli(&["HLEN", &format!("distkit:{{{prefix}}}:totals")]).parse().unwrap()
}

fn old_key(name: &str) -> DistkitRedisKey {
    DistkitRedisKey::try_from(name.to_owned()).unwrap()
}

async fn old_connection(server: &Server) -> redis::aio::ConnectionManager {
    // A batch of the old version is one script, which takes longer than the client's half second on a busy machine.
    let config = redis::aio::ConnectionManagerConfig::new()
        .set_response_timeout(Some(Duration::from_secs(60)));
    let client = redis::Client::open(server.url()).unwrap();
    client.get_connection_manager_with_config(config).await.unwrap()
}

async fn old_strict(server: &Server, prefix: &str) -> Arc<peer::counter::StrictCounter> {
    let connection = old_connection(server).await;
    let options = peer::counter::CounterOptions::new(old_key(prefix), connection);
    peer::counter::StrictCounter::new(options)
}

async fn old_lax(server: &Server, prefix: &str) -> Arc<peer::counter::LaxCounter> {
    let connection = old_connection(server).await;
    let options = peer::counter::CounterOptions::new(old_key(prefix), connection);
    peer::counter::LaxCounter::new(options)
}

/// Many counters that distkit 0.7.1 wrote, and what they hold.
async fn fill(server: &Server, prefix: &str, counters: usize) -> BTreeMap<String, String> {
    let old = old_strict(server, prefix).await;
    let keys: Vec<_> = (0..counters).map(|n| old_key(&format!("counter {n} é"))).collect();
    let amount = |n: usize| (n as i64 - 700) * 1_000_003;
    for (batch, first) in keys.chunks(5_000).zip((0..).step_by(5_000)) {
        let updates: Vec<_> = batch.iter().zip(first..).map(|(key, n)| (key, amount(n))).collect();
        old.inc_all(&updates).await.unwrap();
    }
    let mut expected: BTreeMap<String, String> =
        keys.iter().enumerate().map(|(n, key)| (key.to_string(), amount(n).to_string())).collect();
    // The ends of the range, as many calls of 0.7.1 reach them.
    for (name, value) in
        [("most", i64::MAX), ("least", i64::MIN), ("beyond doubles", (1 << 53) + 1)]
    {
        let container = format!("{prefix}:strict_counter");
        server.cli(&["HINCRBY", &container, name, &value.to_string()]);
        expected.insert(name.to_owned(), value.to_string());
    }
    expected
}

async fn import(server: &Server, prefix: &str, args: &[&str]) -> Run {
    let url = server.url();
    beside(&[&["import", "--json", "--url", &url, "--prefix", prefix], args].concat()).await
}

fn started(server: &Server, prefix: &str) -> Child {
    let url = server.url();
    let args = ["import", "--json", "--apply", "--url", &url, "--prefix", prefix];
    command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_counters_arrive_exactly_through_kills() {
    for (server, counters) in
        [(Server::redis().start(), 100_000), (Server::valkey().start(), 20_000)]
    {
        let expected = fill(&server, "shop", counters).await;
        let all = expected.len();

        let dry = import(&server, "shop", &[]).await.ok().json();
        assert_eq!((&dry[0]["counters"], &dry[0]["to_do"]), (&all.into(), &all.into()));
        assert_eq!(dry[0]["state"], "possible");
        assert_eq!(server.cli(&["KEYS", "distkit:*"]), "", "a dry run writes nothing");

        // Killed twice in the middle, and interrupted once.
        for signal in ["KILL", "INT", "KILL"] {
            let before = count(&server, "shop");
            let mut child = started(&server, "shop");
            wait_until("a part more", || count(&server, "shop") >= before + all / 20);
            let id = child.id().to_string();
            let sent = std::process::Command::new("kill").args(["-s", signal, &id]).status();
            assert!(sent.unwrap().success());
            let status = child.wait().unwrap();
            let there = count(&server, "shop");
            assert!(there < all, "it was done before it could be killed");
            assert_eq!(status.code(), (signal == "INT").then_some(130));
            let dry = import(&server, "shop", &[]).await.ok().json();
            assert_eq!(dry[0]["to_do"], all - there);
        }
        assert_eq!(import(&server, "shop", &["--apply"]).await.ok().json()[0]["state"], "done");
        assert!(totals(&server, "shop").await == expected);

        // Once more: nothing to do.
        let again = import(&server, "shop", &["--apply"]).await.ok().json();
        assert_eq!((&again[0]["state"], &again[0]["to_do"]), (&"done before".into(), &0.into()));
        assert!(totals(&server, "shop").await == expected);
        let counter = StrictCounter::new(CounterOptions::new(
            key("shop"),
            connect(&server.url()).await.unwrap(),
        ));
        assert_eq!(counter.get(&key("least")).await.unwrap(), i64::MIN);
        let found = beside(&["doctor", &server.url(), "--json"]).await.codes();
        assert!(
            found.iter().all(|code| ["aof-off", "version-trypema"].contains(&&**code)),
            "{found:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_imports_at_once_put_everything_there_once() {
    let server = Server::redis().start();
    let expected = fill(&server, "shop", 20_000).await;
    let mut children = [started(&server, "shop"), started(&server, "shop")];
    for child in &mut children {
        let _ = child.wait().unwrap();
    }
    import(&server, "shop", &["--apply"]).await.ok();
    assert!(totals(&server, "shop").await == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_that_have_moved_are_never_touched() {
    let server = Server::valkey().start();
    let expected = fill(&server, "shop", 3_000).await;
    import(&server, "shop", &["--apply"]).await.ok();
    let counter =
        StrictCounter::new(CounterOptions::new(key("shop"), connect(&server.url()).await.unwrap()));
    let moved = key("counter 7 é");
    let old = counter.get(&moved).await.unwrap();
    let refused = async |what: &str| {
        let before = totals(&server, "shop").await;
        let run = import(&server, "shop", &["--apply"]).await;
        assert_eq!(run.status, 1, "{}", run.out);
        let text = run.json()[0]["refusals"].to_string();
        assert!(text.contains("have moved") && text.contains(what), "{text}");
        assert!(totals(&server, "shop").await == before);
    };
    counter.inc(&moved, 1).await.unwrap();
    refused("counter 7 é").await;
    counter.del(&moved).await.unwrap();
    refused("is deleted").await;
    counter.set(&moved, 0).await.unwrap();
    refused("counter 7 é").await;
    counter.set(&moved, old).await.unwrap();
    assert!(totals(&server, "shop").await == expected);
    import(&server, "shop", &["--apply"]).await.ok();
    counter.inc(&key("new"), 1).await.unwrap();
    refused("not in the old one").await;

    // Cleared, it may be imported anew.
    let url = server.url();
    beside(&["clear", "--yes", "--url", &url, "--prefix", "shop"]).await.ok();
    import(&server, "shop", &["--apply"]).await.ok();
    assert!(totals(&server, "shop").await == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_after_a_kill_is_not_brought_back() {
    let server = Server::redis().start();
    let all = fill(&server, "shop", 30_000).await.len();
    let mut child = started(&server, "shop");
    wait_until("a part", || count(&server, "shop") >= 2_000);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(count(&server, "shop") < all);
    // Among the first in the order of names.
    assert_eq!(server.cli(&["HDEL", "distkit:{shop}:totals", "beyond doubles"]), "1");
    let run = import(&server, "shop", &["--apply"]).await;
    assert!(run.status == 1 && run.out.contains("is deleted"), "{}", run.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_counters_that_still_count_are_noticed() {
    let server = Server::redis().start();
    fill(&server, "shop", 10).await;
    import(&server, "shop", &["--apply"]).await.ok();
    old_strict(&server, "shop").await.inc(&old_key("most 2"), 1).await.unwrap();
    let run = import(&server, "shop", &["--apply"]).await;
    assert!(run.status == 1 && run.out.contains("have changed since"), "{}", run.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_and_lax_counters_of_one_name_are_added_up_only_when_told_so() {
    let server = Server::redis().start();
    let (strict, lax) = (old_strict(&server, "old").await, old_lax(&server, "old").await);
    strict.inc(&old_key("both"), 3).await.unwrap();
    strict.inc(&old_key("strict"), 5).await.unwrap();
    lax.inc(&old_key("both"), 4).await.unwrap();
    lax.inc(&old_key("lax"), -6).await.unwrap();
    wait_until("the flush", || server.cli(&["HLEN", "old:lax_counter"]) == "2");
    let from = ["--old-prefix", "old", "--apply"];
    let run = import(&server, "new", &from).await;
    assert!(run.status == 1 && run.out.contains("both is two counters"), "{}", run.out);
    assert!(totals(&server, "new").await.is_empty());
    import(&server, "new", &[&from[..], &["--sum"]].concat()).await.ok();
    let expected = [("both", "7"), ("lax", "-6"), ("strict", "5")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(totals(&server, "new").await, BTreeMap::from(expected));
    import(&server, "lax", &[&from[..], &["--from", "lax"]].concat()).await.ok();
    assert_eq!(totals(&server, "lax").await["both"], "4");

    // From another server.
    let there = Server::valkey().start();
    let url = server.url();
    import(&there, "new", &[&from[..], &["--old-url", &url, "--sum"]].concat()).await.ok();
    assert_eq!(totals(&there, "new").await["both"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_is_named_and_left_behind_only_when_told_so() {
    let server = Server::redis().start();
    let old = old_strict(&server, "shop").await;
    // Redis 7.0 writes this one as a double.
    old.set(&old_key("double"), 1 << 60).await.unwrap();
    assert!(server.cli(&["HGET", "shop:strict_counter", "double"]).contains("e+"));
    server.cli(&["HSET", "shop:strict_counter", "word", "much", "a:b", "4"]);
    let run = import(&server, "shop", &["--apply"]).await;
    assert_eq!(run.status, 1);
    assert!(run.out.contains("word") && run.out.contains("a:b"), "{}", run.out);
    assert!(totals(&server, "shop").await.is_empty());
    let run = import(&server, "shop", &["--apply", "--skip-unreadable"]).await.ok().json();
    assert_eq!(run[0]["skipped"].as_array().unwrap().len(), 2);
    let held = totals(&server, "shop").await;
    assert_eq!(held, BTreeMap::from([("double".to_owned(), (1i64 << 60).to_string())]));
    let nothing = import(&server, "none", &[]).await.ok();
    assert_eq!(nothing.json(), serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_aware_totals_become_the_slices_of_one_instance() {
    let server = Server::redis().start();
    let connection = old_connection(&server).await;
    let options =
        peer::icounter::StrictInstanceAwareCounterOptions::new(old_key("shop"), connection.clone());
    let old = peer::icounter::StrictInstanceAwareCounter::new(options);
    let keys: Vec<_> = (0..3_000).map(|n| old_key(&format!("users {n}"))).collect();
    for (key, n) in keys.iter().zip(1..) {
        old.inc(key, n).await.unwrap();
    }
    server.cli(&["HSET", "shop:lax_counter", "plain", "4"]);
    let run = import(&server, "shop", &["--apply"]).await;
    assert!(run.status == 1 && run.out.contains("heartbeat"), "it still lives: {}", run.out);
    assert!(totals(&server, "shop").await.is_empty(), "as a whole or not at all");
    drop(old);
    // Its last heartbeat is long ago.
    let instances = "shop:instance_aware_counter:instances";
    let id = server.cli(&["ZRANGE", instances, "0", "0"]);
    server.cli(&["ZADD", instances, "1", &id]);

    // Killed in the middle.
    let mut child = started(&server, "shop");
    let index = "distkit:{shop}:i:index";
    wait_until("a part", || server.cli(&["HLEN", index]).parse::<usize>().unwrap() >= 400);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(server.cli(&["HLEN", index]).parse::<usize>().unwrap() < keys.len());
    import(&server, "shop", &["--apply"]).await.ok();
    let run = import(&server, "shop", &["--apply"]).await.ok().json();
    assert_eq!([&run[0]["state"], &run[1]["state"]], ["done before", "done before"]);

    let url = server.url();
    let at = ["--url", &url, "--prefix", "shop", "--json"];
    let seen = beside(&[&["instances"], &at[..]].concat()).await.ok().json();
    assert_eq!(seen.as_array().unwrap().len(), 1, "{seen}");
    assert_eq!(seen[0]["counters"], keys.len());
    let names: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
    let got = beside(&[&["get", "-i"], &names[..], &at[..]].concat()).await.ok().json();
    for (total, n) in got.as_array().unwrap().iter().zip(1..) {
        assert_eq!(total["total"], n, "{total}");
    }
    // New instances count on top of that; then it is never touched again.
    let options = StrictInstanceAwareCounterOptions::new(key("shop"), connect(&url).await.unwrap());
    let new = StrictInstanceAwareCounter::new(options);
    assert_eq!(new.inc(&key("users 9"), 5).await.unwrap(), (15, 5));
    let run = import(&server, "shop", &["--apply"]).await;
    assert!(run.status == 1 && run.out.contains("have moved"), "{}", run.out);
    tokio::time::timeout(Duration::from_secs(20), async {
        assert_eq!(new.get(&key("users 9")).await.unwrap(), (15, 5));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counters_of_a_server_move_to_a_cluster() {
    let server = Server::redis().start();
    let expected = fill(&server, "shop", 2_000).await;
    let cluster = Cluster::start();
    let url = format!("redis-cluster://127.0.0.1:{}", cluster.nodes()[1].port());
    let old = server.url();
    let args =
        ["import", "--json", "--apply", "--prefix", "shop", "--url", &url, "--old-url", &old];
    for state in ["done", "done before"] {
        assert_eq!(beside(&args).await.ok().json()[0]["state"], state);
    }
    let counter =
        StrictCounter::new(CounterOptions::new(key("shop"), connect(&url).await.unwrap()));
    let keys: Vec<_> = expected.keys().map(|name| key(name)).collect();
    let held = counter.get_all(&keys.iter().collect::<Vec<_>>()).await.unwrap();
    for (key, total) in held {
        assert_eq!(total.unwrap().to_string(), expected[key.as_str()], "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_of_several_shards_is_refused_untouched() {
    let server = Server::valkey().start();
    server.cli(&["HSET", "shop:strict_counter", "a", "7"]);
    let store = connect(&server.url()).await.unwrap();
    let counter = StrictCounter::new(CounterOptions::new(key("shop"), store).shards(6));
    counter.inc(&key("b"), 1).await.unwrap();
    let before = server.cli(&["DBSIZE"]);
    let run = import(&server, "shop", &["--apply"]).await;
    assert!(run.status == 1 && run.errors.contains("has 6 shards"), "{}{}", run.out, run.errors);
    assert_eq!(counter.get(&key("a")).await.unwrap(), 0);
    assert_eq!(server.cli(&["DBSIZE"]), before);
}
