//! `copy`, as an operator types it.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use distkit::{
    backend::connect,
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Cluster, Server};
use serde_json::json;
use support::{beside, key};

async fn a_prefix_is_copied(old: &Server, new: &Server) {
    let url = old.url();
    let store = connect(&url).await.unwrap();
    let plain = StrictCounter::new(CounterOptions::new(key("shop"), store.clone()).shards(3));
    let shared = StrictInstanceAwareCounter::new(
        StrictInstanceAwareCounterOptions::new(key("shop"), store)
            .shards(3)
            .dead_instance_threshold_ms(600_000),
    );
    let names: Vec<_> = (0..40).map(|n| key(&format!("key {n}"))).collect();
    for name in &names {
        plain.inc(name, 7).await.unwrap();
        shared.inc(name, 5).await.unwrap();
    }
    let to = new.url();
    let copy =
        ["copy", "shop-7", "--shards", "7", "--url", &url, "--prefix", "shop", "--to-url", &to];
    let run = async |more: &[&str]| beside(&[&copy[..], more].concat()).await;

    // It says what it would do, and does nothing.
    let plan = run(&["--json"]).await.ok().json();
    let expected = json!({
        "from": "shop", "from_shards": 3, "to": "shop-7", "to_shards": 7, "counters": 40,
        "instance_aware_counters": 40, "instances": 1, "tokens": false, "windows": false, "copied": false,
    });
    assert_eq!(plan, expected);
    let text = run(&[]).await.ok().out;
    assert!(text.contains("would be copied") && text.contains("Nothing was changed"), "{text}");
    assert_eq!(new.cli(&["KEYS", "distkit:{shop-7*"]), "");

    // Nobody can be asked here.
    let asked = run(&["--apply"]).await;
    assert_eq!(asked.status, 2, "{}", asked.errors);
    assert!(
        asked.errors.contains("--yes") && asked.errors.contains("7 shards"),
        "{}",
        asked.errors
    );
    assert_eq!(run(&["--yes"]).await.status, 2, "nothing to say yes to");
    assert_eq!(new.cli(&["KEYS", "distkit:{shop-7*"]), "");

    let done = run(&["--apply", "--yes", "--json"]).await.ok().json();
    let mut expected = expected;
    expected["copied"] = true.into();
    assert_eq!(done, expected);
    // Once more changes nothing, and needs no number.
    let again = ["copy", "shop-7", "--url", &url, "--prefix", "shop", "--to-url", &to];
    let again = beside(&[&again[..], &["--apply", "--yes"]].concat()).await.ok();
    assert!(again.out.contains("are copied to shop-7 (7 shards)"), "{}", again.out);

    let at = ["--url", &to, "--prefix", "shop-7", "--json"];
    for (name, family, total) in [("key 7", None, 7), ("key 7", Some("-i"), 5)] {
        let get: Vec<_> = ["get", name].into_iter().chain(family).chain(at).collect();
        assert_eq!(beside(&get).await.ok().json()[0]["total"], total);
    }
    // The copy is whole: what is found is the server's.
    let server = beside(&["doctor", &to, "--json", "--strict", "--server-only"]).await.codes();
    let copied = beside(&["doctor", &to, "shop-7", "--json", "--strict"]).await.codes();
    assert_eq!(copied, server);

    // Another number, and counters that are not the source's, are refused.
    let other =
        ["copy", "shop-7", "--shards", "5", "--url", &url, "--prefix", "shop", "--to-url", &to];
    let refused = beside(&other).await;
    assert_eq!(refused.status, 1, "{}", refused.errors);
    assert!(refused.errors.contains("has 7 shards, not 5"), "{}", refused.errors);
    beside(&[&["set", "key 9", "1"], &at[..]].concat()).await.ok();
    let refused = run(&["--apply", "--yes"]).await;
    assert_eq!(refused.status, 3);
    assert!(refused.errors.contains("`key 9` is 1 in `shop-7`"), "{}", refused.errors);
    let itself = beside(&["copy", "shop", "--url", &url, "--prefix", "shop"]).await;
    assert_eq!(itself.status, 2, "{}", itself.errors);
}

#[tokio::test]
async fn a_prefix_is_copied_within_a_server_and_to_another_one() {
    let (redis, valkey) = (Server::redis().start(), Server::valkey().start());
    a_prefix_is_copied(&redis, &valkey).await;
    valkey.cli(&["FLUSHALL"]);
    a_prefix_is_copied(&valkey, &valkey).await;
}

#[tokio::test]
async fn windows_stay_behind_only_where_that_is_said() {
    let server = Server::redis().start();
    let store = connect(&server.url()).await.unwrap();
    let options = CounterOptions::new(key("shop"), store).shards(5);
    StrictCounter::new(options.clone()).inc(&key("n"), 3).await.unwrap();
    let daily = distkit::Windows::every(std::time::Duration::from_secs(86_400)).keep(7);
    StrictCounter::new(options.windows(daily)).inc(&key("n"), 9).await.unwrap();
    let url = server.url();
    let run = async |more: &[&str]| {
        let copy = ["copy", "new", "--url", &url, "--prefix", "shop"];
        beside(&[&copy[..], more].concat()).await
    };

    let text = run(&[]).await.ok().out;
    assert!(text.contains("has counters in windows, which cannot be copied"), "{text}");
    assert!(text.contains("--leave-windows"), "{text}");
    let plan = run(&["--json"]).await.ok().json();
    assert_eq!((&plan["windows"], &plan["copied"]), (&true.into(), &false.into()));
    let refused = run(&["--apply", "--yes"]).await;
    assert_eq!(refused.status, 1, "{}", refused.errors);
    assert!(refused.errors.contains("--leave-windows"), "{}", refused.errors);
    assert_eq!(server.cli(&["KEYS", "distkit:{new*"]), "");

    let text = run(&["--leave-windows"]).await.ok().out;
    assert!(text.contains("Counters in windows stay behind: new has none"), "{text}");
    let done = run(&["--leave-windows", "--apply", "--yes", "--json"]).await.ok().json();
    assert_eq!(
        (&done["windows"], &done["copied"], &done["counters"]),
        (&true.into(), &true.into(), &1.into())
    );
    assert_eq!(server.cli(&["KEYS", "distkit:{new*:w:*"]), "");
    // Where there are no windows the flag changes nothing.
    let further = ["copy", "third", "--url", &url, "--prefix", "new", "--leave-windows"];
    let done = beside(&[&further[..], &["--apply", "--yes"]].concat()).await.ok().out;
    assert!(done.contains("are copied") && !done.contains("indow"), "{done}");
}

#[tokio::test]
async fn tokens_are_said_to_stay_behind() {
    let server = Server::redis().start();
    let store = connect(&server.url()).await.unwrap();
    let counter = StrictCounter::new(CounterOptions::new(key("shop"), store));
    let token = distkit::Token::try_from("event-1").unwrap();
    counter.inc_once(&key("n"), 3, &token).await.unwrap();
    let url = server.url();
    let copy = ["copy", "new", "--url", &url, "--prefix", "shop", "--apply", "--yes"];
    let text = beside(&copy).await.ok().out;
    assert!(text.contains("Tokens stay behind"), "{text}");
}

#[tokio::test]
async fn a_prefix_is_copied_over_a_cluster() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let url = cluster.urls()[0].replacen("redis://", "redis-cluster://", 1);
    let store = connect(&url).await.unwrap();
    let plain = StrictCounter::new(CounterOptions::new(key("one"), store.clone()));
    let shared = StrictInstanceAwareCounter::new(
        StrictInstanceAwareCounterOptions::new(key("one"), store)
            .dead_instance_threshold_ms(600_000),
    );
    for n in 0..40 {
        plain.inc(&key(&format!("key {n}")), 7).await.unwrap();
        shared.inc(&key(&format!("key {n}")), 5).await.unwrap();
    }
    for (from, to, shards) in [("one", "three", "3"), ("three", "seven", "7")] {
        let copy = ["copy", to, "--shards", shards, "--url", &url, "--prefix", from, "--json"];
        let plan = beside(&copy).await.ok().json();
        let mut done = beside(&[&copy[..], &["--apply", "--yes"]].concat()).await.ok().json();
        assert_eq!(done["copied"], true);
        done["copied"] = false.into();
        assert_eq!(done, plan);
        assert_eq!((&done["counters"], &done["instances"]), (&40.into(), &1.into()));
        for (family, total) in [(None, 7), (Some("-i"), 5)] {
            let get = ["get", "key 7", "--url", &url, "--prefix", to, "--json"];
            let get: Vec<_> = get.into_iter().chain(family).collect();
            assert_eq!(beside(&get).await.ok().json()[0]["total"], total);
        }
    }
}
