//! What an operator finds in the log while a store is unreachable.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "support/log.rs"]
mod log;

use std::time::Duration;

use distkit::{
    RedisKey,
    backend::memory::{MemoryBackend, MemoryLink},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use tokio::time::sleep;

use log::Log;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_ten_minutes_is_a_few_lines_with_a_beginning_and_an_end() {
    let (log, _guard) = Log::start();
    let link: MemoryLink = MemoryBackend::new().link();
    let counter = LaxCounter::new(CounterOptions::new(key("shop"), link.clone()));
    let (a, b) = (key("a"), key("b"));
    counter.inc(&a, 1).await.unwrap();
    counter.inc(&b, 1).await.unwrap();
    counter.flush().await.unwrap();

    link.cut();
    counter.inc(&a, 1).await.unwrap();
    counter.inc(&b, 1).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    let warnings = log.lines("WARN", "distkit::lax");
    assert!((3..=10).contains(&warnings.len()), "{warnings:#?}");
    for line in &warnings {
        for part in ["prefix=\"shop\"", "pending_keys=2", "attempts="] {
            assert!(line.contains(part), "{line} lacks {part}");
        }
    }
    assert_eq!(log.lines("INFO", "distkit::lax"), [""; 0]);

    link.restore();
    sleep(Duration::from_secs(2)).await;
    let ends = log.lines("INFO", "distkit::lax");
    assert_eq!(ends.len(), 1, "{ends:#?}");
    assert!(
        ends[0].contains("prefix=\"shop\"") && ends[0].contains("failed_attempts="),
        "{ends:?}"
    );
}

#[cfg(feature = "redis-rs")]
#[tokio::test]
async fn a_server_that_may_evict_counters_is_named_once() {
    for (policy, warnings) in [("allkeys-lru", 1), ("noeviction", 0), ("volatile-lru", 0)] {
        for scheme in ["", "redis", "redis+fred", "redis+fred?protocol=resp3"] {
            if scheme.contains("fred") && !cfg!(feature = "fred") {
                continue;
            }
            let (log, _guard) = Log::start();
            let server = distkit_testkit::Server::redis().start();
            server.cli(&["CONFIG", "SET", "maxmemory-policy", policy]);
            let store = if let Some((client, query)) = scheme.split_once('?') {
                let url = format!("{}?{query}", server.url().replacen("redis", client, 1));
                distkit::backend::connect(&url).await.unwrap()
            } else if !scheme.is_empty() {
                let url = server.url().replacen("redis", scheme, 1);
                distkit::backend::connect(&url).await.unwrap()
            } else {
                let client = redis::Client::open(server.url()).unwrap();
                let connection = client.get_connection_manager().await.unwrap();
                distkit::backend::IntoBackend::into_backend(connection)
            };
            for prefix in ["one", "two"] {
                let options = CounterOptions::new(key(prefix), store.clone());
                let counter = distkit::counter::StrictCounter::new(options);
                distkit::counter::CounterTrait::inc(&*counter, &key("a"), 1).await.unwrap();
            }
            let lines = log.lines("may evict", "distkit::connection");
            assert_eq!(lines.len(), warnings, "{policy}: {lines:#?}");
            assert!(lines.iter().all(|line| line.contains(policy)), "{lines:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_fail_are_logged_alike() {
    let (log, _guard) = Log::start();
    let link: MemoryLink = MemoryBackend::new().link();
    let options = StrictInstanceAwareCounterOptions::new(key("rooms"), link.clone());
    let counter = StrictInstanceAwareCounter::new(options);
    counter.inc(&key("a"), 1).await.unwrap();

    link.cut();
    sleep(Duration::from_secs(600)).await;
    let warnings = log.lines("WARN", "distkit::instances");
    assert!((3..=10).contains(&warnings.len()), "{warnings:#?}");
    assert!(warnings.iter().all(|line| line.contains("prefix=\"rooms\"")), "{warnings:#?}");

    link.restore();
    sleep(Duration::from_secs(60)).await;
    let lines = log.lines("INFO", "distkit::instances");
    assert!(lines.iter().any(|line| line.contains("reaches the store again")), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_takeover_by_name_loses_nothing_where_nothing_was_pending() {
    let (log, _guard) = Log::start();
    let store = MemoryBackend::new();
    let instance = || {
        let options = LaxInstanceAwareCounterOptions::new(key("rooms"), store.link());
        LaxInstanceAwareCounter::new(options.instance_name(key("pod")))
    };
    let older = instance();
    older.inc(&key("a"), 1).await.unwrap();
    older.flush().await.unwrap();
    let newer = instance();
    newer.inc(&key("a"), 1).await.unwrap();
    newer.flush().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(older.get(&key("a")).await.is_err(), "it was replaced");
    assert_eq!(log.lines("ERROR", "distkit"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_strict_calls_has_a_beginning_and_an_end() {
    let (log, _guard) = Log::start();
    let link: MemoryLink = MemoryBackend::new().link();
    let counter = StrictCounter::new(CounterOptions::new(key("shop"), link.clone()));
    let a = key("a");
    counter.inc(&a, 1).await.unwrap();
    assert_eq!(log.lines("", "distkit::store"), [""; 0]);

    link.cut();
    for _ in 0..600 {
        counter.inc(&a, 1).await.unwrap_err();
        sleep(Duration::from_secs(1)).await;
    }
    let warnings = log.lines("WARN", "distkit::store");
    assert!((3..=10).contains(&warnings.len()), "{warnings:#?}");
    for part in ["prefix=\"shop\"", "counter=\"strict\"", "attempts=1 ", "the link is cut"] {
        assert!(warnings[0].contains(part), "{} lacks {part}", warnings[0]);
    }
    link.restore();
    counter.get(&a).await.unwrap();
    let ends = log.lines("INFO", "distkit::store");
    assert_eq!(ends.len(), 1, "{ends:#?}");
    assert!(ends[0].contains("failed_attempts=600 lasted=600s"), "{ends:?}");
}

/// Reads are answered in between, and end nothing.
#[tokio::test(start_paused = true)]
async fn refused_writes_give_a_line_when_they_begin_and_one_when_they_end() {
    let (log, _guard) = Log::start();
    let link: MemoryLink = MemoryBackend::new().link();
    let counter = StrictCounter::new(CounterOptions::new(key("shop"), link.clone()));
    let a = key("a");
    counter.inc(&a, 1).await.unwrap();
    link.set_writes_refused(true);
    for _ in 0..4 {
        counter.inc(&a, 1).await.unwrap_err();
        counter.get(&a).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let begun = log.lines("", "distkit::store");
    assert_eq!(begun.len(), 1, "{begun:#?}");
    for part in ["WARN", "the store refuses writes", "counter=\"strict\"", "takes no writes"] {
        assert!(begun[0].contains(part), "{} lacks {part}", begun[0]);
    }
    link.set_writes_refused(false);
    counter.inc(&a, 1).await.unwrap();
    let lines = log.lines("", "distkit::store");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[1].contains("INFO") && lines[1].contains("the store takes writes again"));
    assert!(lines[1].contains("failed_attempts=4 lasted=4s"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn each_lax_counter_says_which_one_it_is() {
    let (log, _guard) = Log::start();
    let link: MemoryLink = MemoryBackend::new().link();
    let lax = LaxCounter::new(CounterOptions::new(key("shop"), link.clone()));
    let options = LaxInstanceAwareCounterOptions::new(key("shop"), link.clone());
    let instance = LaxInstanceAwareCounter::new(options);
    lax.inc(&key("a"), 1).await.unwrap();
    instance.inc(&key("a"), 1).await.unwrap();
    link.cut();
    sleep(Duration::from_secs(20)).await;
    link.restore();
    sleep(Duration::from_secs(20)).await;
    for (target, kind) in [("distkit::lax", "lax"), ("distkit::lax", "lax_instance_aware")] {
        let lines = log.lines(&format!("counter=\"{kind}\""), target);
        assert!(lines[0].contains("WARN") && lines.last().unwrap().contains("INFO"), "{lines:#?}");
    }
    let heartbeats = log.lines("heartbeat", "distkit::instances");
    assert!(heartbeats[0].contains("prefix=\"shop\""), "quoted as elsewhere: {heartbeats:#?}");
}

#[tokio::test(start_paused = true)]
async fn of_several_shards_each_line_names_its_own() {
    let (log, _guard) = Log::start();
    let link: MemoryLink = MemoryBackend::new().link();
    let options = CounterOptions::new(key("shop"), link.clone()).shards(4);
    let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
    let options = LaxInstanceAwareCounterOptions::new(key("shop"), link.clone()).shards(4);
    let instance = LaxInstanceAwareCounter::new(options);
    let names: Vec<_> = (0..40).map(|n| key(&format!("k{n}"))).collect();
    let count = async || {
        for name in &names {
            let _ = strict.inc(name, 1).await;
            lax.inc(name, 1).await.unwrap();
            instance.inc(name, 1).await.unwrap();
        }
        sleep(Duration::from_secs(20)).await;
    };
    count().await;
    let shard = link.shard(2);
    shard.cut();
    count().await;
    shard.restore();
    count().await;
    shard.set_writes_refused(true);
    count().await;
    shard.set_writes_refused(false);
    count().await;
    for (text, lines) in [
        ("requests to the store fail", 1),
        ("requests to the store succeed again", 1),
        ("the store refuses writes", 1),
        ("the store takes writes again", 1),
        ("cannot flush", 4),
        ("flushing again", 4),
        ("the heartbeat failed", 1),
        ("the heartbeat reaches the store again", 1),
    ] {
        let all = log.lines("prefix=\"shop\"", text);
        assert!(all.len() >= lines, "{text}: {all:#?}");
        assert!(all.iter().all(|line| line.contains(" shard=2 ")), "{all:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_every_second_request_does_not_fill_the_log() {
    let (log, _guard) = Log::start();
    let link: MemoryLink = MemoryBackend::new().link();
    let counter = StrictCounter::new(CounterOptions::new(key("shop"), link.clone()));
    let a = key("a");
    for _ in 0..1000 {
        link.cut();
        counter.inc(&a, 1).await.unwrap_err();
        link.restore();
        counter.inc(&a, 1).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    let lines = log.lines("", "distkit::store");
    assert!((2..=6).contains(&lines.len()), "{lines:#?}");
    assert_eq!(counter.stats().outages, 1000);
}
