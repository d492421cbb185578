//! `get`, `set`, `ls`, `slices`, `instances` and `clear`, as an operator types them.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{collections::BTreeSet, process::Command};

use distkit::{
    backend::{Space, connect},
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Cluster, Sentinels, Server};
use serde_json::json;
use support::{beside, command, distkit, key};

async fn every_command_works(url: &str, shards: u16) {
    let at = ["--url", url, "--prefix", "shop", "--json"];
    let run = async |args: &[&str]| beside(&[args, &at[..]].concat()).await;
    let store = connect(url).await.unwrap();
    let counter =
        StrictCounter::new(CounterOptions::new(key("shop"), store.clone()).shards(shards));
    let options = |name: &str| {
        StrictInstanceAwareCounterOptions::new(key("shop"), store.clone())
            .instance_name(key(name))
            .shards(shards)
            .dead_instance_threshold_ms(600_000)
    };

    // Plain counters.
    counter.inc(&key("apples"), 7).await.unwrap();
    let got = run(&["get", "apples", "pears"]).await.ok().json();
    assert_eq!(got[0], json!({ "key": "apples", "total": 7, "error": null }));
    assert_eq!(got[1]["total"], 0);
    let set = run(&["set", "apples", "-9223372036854775808"]).await.ok().json();
    assert_eq!((&set["old"], &set["total"]), (&json!(7), &json!(i64::MIN)));
    assert_eq!(counter.get(&key("apples")).await.unwrap(), i64::MIN);

    // Nobody has joined, and looking joins nobody.
    assert_eq!(run(&["instances"]).await.ok().json(), json!([]));
    assert_eq!(run(&["get", "-i", "apples"]).await.ok().json()[0]["total"], 0);
    assert_eq!(run(&["set", "-i", "apples", "3"]).await.status, 3, "who would hold it?");
    assert_eq!(run(&["instances"]).await.ok().json(), json!([]));

    let a = StrictInstanceAwareCounter::new(options("a"));
    let b = StrictInstanceAwareCounter::new(options("b"));
    a.inc(&key("users"), 2).await.unwrap();
    b.inc(&key("users"), 3).await.unwrap();
    assert_eq!(run(&["get", "-i", "users"]).await.ok().json()[0]["total"], 5);
    let slices = run(&["slices", "users"]).await.ok().json();
    let values: Vec<_> = slices
        .as_array()
        .unwrap()
        .iter()
        .map(|slice| (slice["name"].as_str().unwrap().to_owned(), slice["value"].as_i64().unwrap()))
        .collect();
    assert_eq!(values.len(), 2, "{slices}");
    assert!(values.contains(&("a".to_owned(), 2)) && values.contains(&("b".to_owned(), 3)));
    let instances = run(&["instances"]).await.ok().json();
    assert_eq!(instances.as_array().unwrap().len(), 2, "{instances}");
    for (seen, name) in instances.as_array().unwrap().iter().zip(["a", "b"]) {
        assert_eq!(seen["name"], name);
        assert_eq!((&seen["expired"], &seen["lease_ms"]), (&json!(false), &json!(600_000)));
        assert!((1..=600_000).contains(&seen["ends_in_ms"].as_i64().unwrap()), "{seen}");
        assert_eq!(seen["counters"], 1);
    }

    // A total becomes the slice of an instance that lives, which goes on from there.
    let refused = run(&["set", "-i", "users", "40"]).await;
    assert!(refused.status == 2 && refused.errors.contains("--on"), "{}", refused.errors);
    run(&["set", "-i", "users", "40", "--on", "b"]).await.ok();
    assert_eq!(a.get(&key("users")).await.unwrap(), (40, 0));
    assert_eq!(b.inc(&key("users"), 2).await.unwrap(), (42, 42));
    assert_eq!(run(&["instances"]).await.ok().json().as_array().unwrap().len(), 2);

    // Clearing asks, and the families are apart.
    let asked = run(&["clear"]).await;
    assert!(asked.status == 2 && asked.errors.contains("--yes"), "{}", asked.errors);
    assert_eq!(run(&["clear", "--yes"]).await.ok().json()["deleted"], 1);
    assert_eq!(counter.get(&key("apples")).await.unwrap(), 0);
    assert_eq!(a.get(&key("users")).await.unwrap().0, 42);
    run(&["clear", "-i", "--yes"]).await.ok();
    assert_eq!(a.get(&key("users")).await.unwrap(), (0, 0));
    assert_eq!(run(&["instances"]).await.ok().json().as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_on_redis_and_valkey_by_port_and_socket() {
    let redis = Server::redis().password("secret").start();
    every_command_works(&redis.url(), 1).await;
    let valkey = Server::valkey().start();
    every_command_works(&format!("redis+unix://{}", valkey.unix_path().display()), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_on_a_cluster() {
    let cluster = Cluster::start();
    every_command_works(&cluster_url(&cluster), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_by_sentinel() {
    let sentinels = Sentinels::of(Server::redis());
    every_command_works(&sentinels.url("redis-sentinel"), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_on_a_prefix_of_several_shards() {
    let server = Server::valkey().start();
    every_command_works(&server.url(), 6).await;
    counters_of_all_shards_are_found(&server.url()).await;
    let cluster = Cluster::start();
    every_command_works(&cluster_url(&cluster), 6).await;
    counters_of_all_shards_are_found(&cluster_url(&cluster)).await;
}

fn cluster_url(cluster: &Cluster) -> String {
    format!("redis-cluster://127.0.0.1:{}", cluster.nodes()[0].port())
}

async fn counters_of_all_shards_are_found(url: &str) {
    const SHARDS: u16 = 7;
    let at = ["--url", url, "--prefix", "mall", "--json"];
    let run = async |args: &[&str]| beside(&[args, &at[..]].concat()).await;
    let store = connect(url).await.unwrap();
    let counter =
        StrictCounter::new(CounterOptions::new(key("mall"), store.clone()).shards(SHARDS));
    let options = StrictInstanceAwareCounterOptions::new(key("mall"), store)
        .shards(SHARDS)
        .dead_instance_threshold_ms(600_000);
    let instance = StrictInstanceAwareCounter::new(options);
    let names: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    let shards: BTreeSet<u16> =
        names.iter().map(|name| Space::shard_of(&key(name), SHARDS)).collect();
    assert_eq!(shards.len(), usize::from(SHARDS));
    for (name, n) in names.iter().zip(1..) {
        counter.inc(&key(name), n).await.unwrap();
    }

    // Totals come in the order of the question, and one key may be asked for twice.
    let asked: Vec<&str> =
        ["get", "k7"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let got = run(&asked).await.ok().json();
    let totals: Vec<i64> =
        got.as_array().unwrap().iter().map(|one| one["total"].as_i64().unwrap()).collect();
    assert_eq!(totals, [8].into_iter().chain(1..=40).collect::<Vec<i64>>());

    // An instance lives in the shards it has used, and only there.
    let (here, elsewhere) = (
        &names[0],
        names
            .iter()
            .find(|name| {
                Space::shard_of(&key(name), SHARDS) != Space::shard_of(&key(&names[0]), SHARDS)
            })
            .unwrap(),
    );
    instance.inc(&key(here), 5).await.unwrap();
    run(&["set", "-i", here, "6"]).await.ok();
    assert_eq!(instance.get(&key(here)).await.unwrap(), (6, 6));
    let refused = run(&["set", "-i", elsewhere, "6"]).await;
    assert!(refused.status == 3 && refused.errors.contains("shard"), "{}", refused.errors);
    for (name, n) in names.iter().zip(1..) {
        instance.set(&key(name), n).await.unwrap();
    }
    let seen = run(&["instances"]).await.ok().json();
    let joined: Vec<u64> =
        seen.as_array().unwrap().iter().map(|one| one["shard"].as_u64().unwrap()).collect();
    assert_eq!(joined, (0..u64::from(SHARDS)).collect::<Vec<_>>());
    assert_eq!(run(&["slices", "k39"]).await.ok().json()[0]["value"], 40);

    assert_eq!(run(&["clear", "--yes"]).await.ok().json()["deleted"], 40);
    assert_eq!(run(&["clear", "-i", "--yes"]).await.ok().json()["deleted"], 40);
    for args in [&asked[..], &[&["get", "-i"], &asked[1..]].concat()] {
        let got = run(args).await.ok().json();
        assert!(got.as_array().unwrap().iter().all(|one| one["total"] == 0), "{got}");
    }
    assert_eq!(instance.get(&key(here)).await.unwrap(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_shards_is_known_also_where_the_shape_is_lost() {
    let server = Server::redis().start();
    let url = server.url();
    let at = ["--url", &url, "--prefix", "shop"];
    let run = async |args: &[&str]| beside(&[args, &at[..]].concat()).await;
    let store = connect(&url).await.unwrap();
    let counter = StrictCounter::new(CounterOptions::new(key("shop"), store).shards(6));
    counter.inc(&key("apples"), 7).await.unwrap();
    // Shard 0 has a copy once it is used.
    let first = (0..).map(|n| key(&format!("k{n}"))).find(|key| Space::shard_of(key, 6) == 0);
    counter.inc(&first.unwrap(), 1).await.unwrap();
    for lost in ["shape", "totals", "i:meta"] {
        assert_eq!(server.cli(&["DEL", &format!("distkit:{{shop}}:{lost}")]), "1");
        assert!(run(&["get", "apples"]).await.ok().out.contains('7'), "{lost}");
    }
    server.cli(&["HSET", "distkit:{shop}:shape", "layout", "1", "shards", "many"]);
    let refused = run(&["get", "apples"]).await;
    assert!(refused.status == 3 && refused.errors.contains("many shards"), "{}", refused.errors);
}

#[test]
fn a_server_is_reached_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |args: &str| {
        let output =
            Command::new("openssl").args(args.split(' ')).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    // rustls refuses a CA as the server itself.
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt");
    openssl("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key -out csr");
    std::fs::write(dir.path().join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    openssl(
        "x509 -req -in csr -CA ca.crt -CAkey ca.key -days 2 -CAcreateserial -extfile ext -out crt",
    );
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Server::valkey();
    for (name, value) in [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", file("crt")),
        ("--tls-key-file", file("key")),
        ("--tls-ca-cert-file", file("ca.crt")),
        ("--tls-auth-clients", "no".to_owned()),
    ] {
        server = server.arg(name).arg(&value);
    }
    let _server = server.start();
    let url = format!("rediss://127.0.0.1:{port}");
    let mut get = command(&["set", "a", "5", "--url", &url]);
    let output = get.env("SSL_CERT_FILE", dir.path().join("ca.crt")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let untrusted =
        command(&["get", "a", "--url", &url]).env("SSL_CERT_FILE", "/dev/null").output();
    assert_eq!(untrusted.unwrap().status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_instance_is_shown_as_such_until_it_is_collected() {
    let server = Server::redis().manual_clock().start();
    let store = connect(&server.url()).await.unwrap();
    let options = StrictInstanceAwareCounterOptions::new(key("shop"), store);
    let a = StrictInstanceAwareCounter::new(options.dead_instance_threshold_ms(600_000));
    a.inc(&key("users"), 2).await.unwrap();
    server.advance(std::time::Duration::from_secs(700));
    let url = server.url();
    let args = ["instances", "--url", &url, "--prefix", "shop"];
    let seen = beside(&[&args[..], &["--json"]].concat()).await.ok().json();
    assert_eq!(seen[0]["expired"], true, "{seen}");
    let ended = -seen[0]["ends_in_ms"].as_i64().unwrap();
    assert!((99_000..=101_000).contains(&ended), "{seen}");
    assert!(beside(&args).await.ok().out.contains("expired"));
}

#[test]
fn what_cannot_be_done_is_explained_and_no_password_is_shown() {
    let run = distkit(&["get", "a"]);
    assert!(run.status == 2 && run.errors.contains("DISTKIT_URL"), "{}", run.errors);
    let run = distkit(&["get", "a", "--url", "redis://user:secret@127.0.0.1:1"]);
    assert_eq!(run.status, 3);
    assert!(run.errors.contains("cannot connect"), "{}", run.errors);
    assert!(!run.errors.contains("secret"), "{}", run.errors);
    let run = distkit(&["get", "a:b", "--url", "memory://"]);
    assert!(run.status != 0 && !run.errors.is_empty());

    let server = Server::redis().start();
    server.cli(&["HSET", "distkit:{distkit}:totals", "\u{1b}[31m", "x"]);
    let run = distkit(&["get", "\u{1b}[31m", "--url", &server.url()]);
    assert_eq!(run.status, 1, "{}", run.out);
    assert!(!run.out.contains('\u{1b}') && run.out.contains("not an i64"), "{}", run.out);
    let run = distkit(&["set", "a:b", "1", "--url", &server.url(), "--json"]);
    assert!(run.status == 2 && run.errors.contains("{\"error\":"), "{}", run.errors);
}

/// The counters of a listing, in the order of their keys.
fn sorted(listed: &serde_json::Value) -> Vec<serde_json::Value> {
    let mut listed = listed.as_array().unwrap().clone();
    listed.sort_by_key(|item| item["key"].as_str().map(str::to_owned));
    listed
}

async fn counters_are_listed_from(shards: u16) {
    let server = Server::redis().start();
    let url = server.url();
    let at = ["--url", &url, "--prefix", "shop"];
    let run = async |args: &[&str]| beside(&[args, &at[..]].concat()).await;
    assert_eq!(run(&["ls", "--json"]).await.ok().json(), json!([]), "a prefix that nobody uses");

    let store = connect(&url).await.unwrap();
    let counter =
        StrictCounter::new(CounterOptions::new(key("shop"), store.clone()).shards(shards));
    for (name, total) in [("apples", 7), ("pears", 12), ("a\u{1b}b", 1), ("100*", -3)] {
        counter.set(&key(name), total).await.unwrap();
    }
    for n in 0..2000 {
        counter.set(&key(&format!("many {n}")), 5).await.unwrap();
    }
    assert_eq!(run(&["ls", "--json"]).await.ok().json().as_array().unwrap().len(), 2004);
    assert_eq!(run(&["ls"]).await.ok().out.lines().count(), 2004);
    let found = run(&["ls", "?pples"]).await.ok();
    assert_eq!(found.out, "apples\t7\n");
    assert_eq!(run(&["ls", r"*\*"]).await.ok().out, "100*\t-3\n");
    assert_eq!(run(&["ls", "--starting-with", "many 199"]).await.ok().out.lines().count(), 11);
    assert!(!run(&["ls", "a*"]).await.ok().out.contains('\u{1b}'));
    let top = run(&["ls", "--top", "2", "--json"]).await.ok().json();
    assert_eq!(top[0], json!({ "key": "pears", "total": 12 }));
    assert_eq!(top[1], json!({ "key": "apples", "total": 7 }));
    let table = run(&["ls", "--top", "1"]).await.ok().out;
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["KEY", "TOTAL", "pears", "12"]);

    let options = |name: &str| {
        StrictInstanceAwareCounterOptions::new(key("shop"), store.clone())
            .instance_name(key(name))
            .shards(shards)
    };
    let a = StrictInstanceAwareCounter::new(options("a"));
    let b = StrictInstanceAwareCounter::new(options("b"));
    a.inc(&key("users"), 2).await.unwrap();
    b.inc(&key("users"), 3).await.unwrap();
    b.inc(&key("jobs"), 1).await.unwrap();
    let listed = sorted(&run(&["ls", "-i", "--json"]).await.ok().json());
    assert_eq!(
        listed,
        [json!({ "key": "jobs", "total": 1 }), json!({ "key": "users", "total": 5 })]
    );
    let listed = run(&["ls", "-i", "--slices", "users", "--json"]).await.ok().json();
    assert_eq!((&listed[0]["key"], &listed[0]["total"]), (&json!("users"), &json!(5)));
    let mut slices: Vec<_> = listed[0]["slices"].as_array().unwrap().clone();
    slices.sort_by_key(|slice| slice["name"].as_str().unwrap().to_owned());
    assert_eq!((&slices[0]["name"], &slices[0]["value"]), (&json!("a"), &json!(2)));
    assert_eq!((&slices[1]["name"], &slices[1]["value"]), (&json!("b"), &json!(3)));
    assert!(run(&["ls", "-i", "--slices", "users"]).await.ok().out.contains("a=2"));
    assert_eq!(run(&["ls", "--slices"]).await.status, 2, "plain counters have none");
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_listed() {
    counters_are_listed_from(1).await;
    counters_are_listed_from(5).await;
}

#[test]
fn foreign_data_is_listed_as_such() {
    let server = Server::valkey().start();
    let url = server.url();
    server.cli(&["HSET", "distkit:{distkit}:totals", "sound", "1", "text", "abc", "no:key", "1"]);
    let run = distkit(&["ls", "--url", &url]);
    assert_eq!(run.status, 1, "{}{}", run.out, run.errors);
    assert_eq!(run.out.lines().count(), 3);
    assert!(run.out.contains("sound\t1\n") && run.out.contains("abc"), "{}", run.out);
    let run = distkit(&["ls", "--url", &url, "--json"]);
    assert_eq!(run.status, 1);
    let listed = run.json();
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
    server.cli(&["DEL", "distkit:{distkit}:totals"]);
    server.cli(&["LPUSH", "distkit:{distkit}:totals", "x"]);
    let run = distkit(&["ls", "--url", &url]);
    assert_eq!(run.status, 3, "{}", run.out);
    assert!(run.errors.contains("distkit:{distkit}:totals"), "{}", run.errors);
}
