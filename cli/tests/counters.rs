//! `get`, `set`, `slices`, `instances` and `clear`, as an operator types them.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::process::Command;

use distkit::{
    backend::connect,
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Cluster, Sentinels, Server};
use serde_json::json;
use support::{beside, command, distkit, key};

async fn every_command_works(url: &str) {
    let at = ["--url", url, "--prefix", "shop", "--json"];
    let run = async |args: &[&str]| beside(&[args, &at[..]].concat()).await;
    let store = connect(url).await.unwrap();
    let counter = StrictCounter::new(CounterOptions::new(key("shop"), store.clone()));
    let options = |name: &str| {
        StrictInstanceAwareCounterOptions::new(key("shop"), store.clone())
            .instance_name(key(name))
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
    every_command_works(&redis.url()).await;
    let valkey = Server::valkey().start();
    every_command_works(&format!("redis+unix://{}", valkey.unix_path().display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_on_a_cluster() {
    let cluster = Cluster::start();
    every_command_works(&format!("redis-cluster://127.0.0.1:{}", cluster.nodes()[0].port())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_by_sentinel() {
    let sentinels = Sentinels::of(Server::redis());
    every_command_works(&sentinels.url("redis-sentinel")).await;
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
