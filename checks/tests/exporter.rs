//! What an operator's Prometheus sees of an outage: the numbers alone tell when it began, when it ended, and what
//! was lost. The exporter is a real one, asked over HTTP.
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, LazyLock},
    time::Duration,
};

use distkit::{
    RedisKey,
    backend::{IntoBackend, Layered, MetricsLayer, Space, Store, connect, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::Server;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A process has one recorder: the tests share the exporter, and tell themselves apart by their prefixes. It serves
/// from a runtime that outlives each test's own.
static EXPORTER: LazyLock<SocketAddr> = LazyLock::new(|| {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (started, starts) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            PrometheusBuilder::new().with_http_listener(address).install().unwrap();
            distkit::describe_metrics();
            started.send(()).unwrap();
            std::future::pending::<()>().await
        });
    });
    starts.recv().unwrap();
    address
});

/// One answer of the exporter: name and labels, and the value.
struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    async fn now() -> Self {
        let mut stream = TcpStream::connect(*EXPORTER).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let samples = text.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self { samples: samples.collect(), text }
    }

    fn shows(&self, name: &str, counter: &str, prefix: &str) -> bool {
        let labels = [format!("counter=\"{counter}\""), format!("prefix=\"{prefix}\"")];
        self.samples.keys().any(|sample| {
            sample.starts_with(&format!("{name}{{"))
                && labels.iter().all(|label| sample.contains(label))
        })
    }

    /// A counter's number; 0 where it was never counted, as Prometheus' `or vector(0)` has it.
    fn of(&self, name: &str, counter: &str, prefix: &str) -> f64 {
        let labels = [format!("counter=\"{counter}\""), format!("prefix=\"{prefix}\"")];
        let mut found = self.samples.iter().filter(|(sample, _)| {
            sample.starts_with(&format!("{name}{{"))
                && labels.iter().all(|label| sample.contains(label))
        });
        let value = found.next().map_or(0.0, |(_, value)| *value);
        assert!(found.next().is_none(), "one series for each counter:\n{}", self.text);
        value
    }

    fn requests(&self, op: &str, outcome: &str, prefix: &str) -> f64 {
        let labels = [
            format!("op=\"{op}\""),
            format!("outcome=\"{outcome}\""),
            format!("prefix=\"{prefix}\""),
        ];
        let found = self.samples.iter().find(|(sample, _)| {
            sample.starts_with("distkit_store_request_seconds_count{")
                && labels.iter().all(|label| sample.contains(label))
        });
        found.map_or(0.0, |(_, value)| *value)
    }
}

/// Scrapes until the numbers are as they should be.
async fn scrape_until(what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    let began = Instant::now();
    loop {
        let scrape = Scrape::now().await;
        if holds(&scrape) {
            return scrape;
        }
        assert!(began.elapsed() < DEADLINE, "never {what}:\n{}", scrape.text);
        sleep(Duration::from_millis(20)).await;
    }
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

struct Counters {
    strict: Arc<StrictCounter>,
    lax: Arc<LaxCounter>,
    strict_instance: Arc<StrictInstanceAwareCounter>,
    lax_instance: Arc<LaxInstanceAwareCounter>,
}

impl Counters {
    fn new(prefix: &str, store: Arc<dyn Store>) -> Self {
        LazyLock::force(&EXPORTER);
        let store: Arc<dyn Store> = Layered::new(store, MetricsLayer::new()).into_backend();
        let options = CounterOptions::new(key(prefix), store.clone())
            .unknown_after(Duration::from_millis(200));
        let instance = StrictInstanceAwareCounterOptions::new(key(prefix), store.clone())
            .unknown_after(Duration::from_millis(200));
        let lax_instance = LaxInstanceAwareCounterOptions::new(key(prefix), store);
        Self {
            strict: StrictCounter::new(options.clone()),
            lax: LaxCounter::new(options),
            strict_instance: StrictInstanceAwareCounter::new(instance),
            lax_instance: LaxInstanceAwareCounter::new(lax_instance),
        }
    }

    /// One write of each; gives how many failed.
    async fn count(&self) -> usize {
        let k = key("k");
        let strict = self.strict.inc(&k, 1).await.is_err();
        let lax = self.lax.inc(&k, 1).await.is_err();
        let instance = self.strict_instance.inc(&k, 1).await.is_err();
        let lax_instance = self.lax_instance.inc(&k, 1).await.is_err();
        [strict, lax, instance, lax_instance].into_iter().filter(|failed| *failed).count()
    }
}

const KINDS: [&str; 4] = ["strict", "lax", "strict_instance_aware", "lax_instance_aware"];
const REACHABLE: &str = "distkit_store_reachable";
const UNREACHABLE_FOR: &str = "distkit_store_unreachable_seconds";
const PENDING: &str = "distkit_pending_keys";
const OLDEST: &str = "distkit_oldest_pending_seconds";

/// An outage as the numbers tell it, whatever causes it.
async fn an_outage(prefix: &'static str, counters: &Counters, begin: impl Fn(), end: impl Fn()) {
    assert_eq!(counters.count().await, 0);
    counters.lax.flush().await.unwrap();
    counters.lax_instance.flush().await.unwrap();
    let before = Scrape::now().await;
    for kind in KINDS {
        assert_eq!(before.of(REACHABLE, kind, prefix), 1.0, "{kind}:\n{}", before.text);
        assert_eq!(before.of("distkit_outages_total", kind, prefix), 0.0, "{kind}");
        assert_eq!(before.of(PENDING, kind, prefix), 0.0, "{kind}");
    }
    for kind in ["lax", "lax_instance_aware"] {
        assert!(before.of("distkit_flushes_total", kind, prefix) >= 1.0, "{kind}");
    }
    for kind in ["strict_instance_aware", "lax_instance_aware"] {
        assert_eq!(before.of("distkit_joins_total", kind, prefix), 1.0, "{kind}");
    }

    let began = Instant::now();
    begin();
    let failed = counters.count().await;
    assert_eq!(failed, 2, "the strict ones");
    let amid = scrape_until("an outage of all that lasts", |scrape| {
        KINDS.iter().all(|kind| {
            let is_lax = kind.starts_with("lax");
            scrape.of(REACHABLE, kind, prefix) == 0.0
                && scrape.of("distkit_outages_total", kind, prefix) == 1.0
                && (!is_lax || scrape.of(UNREACHABLE_FOR, kind, prefix) > 0.5)
                && (!is_lax || scrape.of(OLDEST, kind, prefix) > 0.5)
        })
    })
    .await;
    let lasted = began.elapsed().as_secs_f64();
    for kind in ["lax", "lax_instance_aware"] {
        // It began when it began: the time of the scrape less this.
        assert!(amid.of(UNREACHABLE_FOR, kind, prefix) <= lasted, "{kind}");
        assert!(amid.of(OLDEST, kind, prefix) <= lasted, "{kind}");
        assert_eq!(amid.of(PENDING, kind, prefix), 1.0, "{kind}");
    }

    end();
    let k = key("k");
    timeout(DEADLINE, async {
        while counters.strict.get(&k).await.is_err()
            || counters.strict_instance.get(&k).await.is_err()
        {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let after = scrape_until("an end of all outages, with nothing pending", |scrape| {
        KINDS.iter().all(|kind| {
            scrape.of(REACHABLE, kind, prefix) == 1.0
                && scrape.of(UNREACHABLE_FOR, kind, prefix) == 0.0
                && scrape.of(PENDING, kind, prefix) == 0.0
                && scrape.of(OLDEST, kind, prefix) == 0.0
        })
    })
    .await;
    for kind in KINDS {
        let last = after.of("distkit_store_last_outage_seconds", kind, prefix);
        assert!(last > 0.0 && last <= began.elapsed().as_secs_f64(), "{kind}: {last}");
        assert!(after.of("distkit_failed_requests_total", kind, prefix) >= 1.0, "{kind}");
        // Buffered, sent again, and counted: nothing was lost.
        assert_eq!(after.of("distkit_given_up_total", kind, prefix), 0.0, "{kind}");
    }
    // The numbers of the metrics are those of `stats()`.
    for (kind, stats) in [
        ("strict", counters.strict.stats()),
        ("lax", counters.lax.stats()),
        ("strict_instance_aware", counters.strict_instance.stats()),
        ("lax_instance_aware", counters.lax_instance.stats()),
    ] {
        let pairs = [
            ("distkit_outages_total", stats.outages),
            ("distkit_flushes_total", stats.flushes),
            ("distkit_unknown_outcomes_total", stats.unknown),
            ("distkit_not_applied_total", stats.not_applied),
            ("distkit_joins_total", stats.joins),
            ("distkit_collected_total", stats.collected),
            ("distkit_given_up_total", stats.given_up),
        ];
        for (name, number) in pairs {
            assert_eq!(after.of(name, kind, prefix) as u64, number, "{kind}: {name}");
        }
    }
}

#[tokio::test]
async fn a_link_that_is_cut_and_restored() {
    let link = MemoryBackend::new().link();
    let prefix = "cut";
    let counters = Counters::new(prefix, Arc::new(link.clone()));
    an_outage(prefix, &counters, || link.cut(), || link.restore()).await;
    let scrape = Scrape::now().await;
    assert!(scrape.requests("apply_recorded", "ok", prefix) >= 1.0, "{}", scrape.text);
    assert!(scrape.requests("apply", "not_applied", prefix) >= 1.0, "{}", scrape.text);
    assert!(scrape.text.contains("# HELP distkit_flushes_total Batches of"), "{}", scrape.text);

    // What a shutdown leaves behind is lost, and the numbers say how much.
    for name in ["a", "b", "c"] {
        counters.lax.inc(&key(name), 1).await.unwrap();
    }
    link.cut();
    counters.lax.shutdown(Duration::from_millis(100)).await.unwrap_err();
    let lost = scrape_until("three keys given up", |scrape| {
        scrape.of("distkit_given_up_total", "lax", prefix) == 3.0
            && scrape.of(PENDING, "lax", prefix) == 0.0
    });
    lost.await;
}

/// The shards of a counter have one series between them: the worst of all, and the sum.
#[tokio::test]
async fn one_shard_of_three_that_is_unreachable() {
    LazyLock::force(&EXPORTER);
    let (prefix, shards) = ("three_shards", 3);
    let link = MemoryBackend::new().link();
    let options = CounterOptions::new(key(prefix), link.clone())
        .shards(shards)
        .unknown_after(Duration::from_millis(200));
    let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
    let of = |shard| {
        let names = (0..).map(|n| key(&format!("k{n}")));
        names.into_iter().find(|name| Space::shard_of(name, shards) == shard).unwrap()
    };
    let keys: Vec<_> = (0..shards).map(of).collect();
    for key in &keys {
        strict.inc(key, 1).await.unwrap();
        lax.inc(key, 1).await.unwrap();
    }
    lax.flush().await.unwrap();

    for cut in 0..shards {
        link.shard(cut).cut();
        strict.inc(&keys[usize::from(cut)], 1).await.unwrap_err();
        lax.inc(&keys[usize::from(cut)], 1).await.unwrap();
        scrape_until("an outage", |scrape| scrape.of(REACHABLE, "lax", prefix) == 0.0).await;
        // What the others do afterwards does not hide it.
        for (shard, key) in (0..).zip(&keys).filter(|(shard, _)| *shard != cut) {
            let held = strict.inc(key, 1).await.unwrap();
            lax.inc(key, 1).await.unwrap();
            timeout(DEADLINE, async {
                while strict.get(key).await.unwrap() == held {
                    sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .unwrap();
            scrape_until("one key pending", |scrape| scrape.of(PENDING, "lax", prefix) == 1.0)
                .await;
            let amid = Scrape::now().await;
            for kind in ["strict", "lax"] {
                assert_eq!(amid.of(REACHABLE, kind, prefix), 0.0, "{kind}, {cut} {shard}");
                assert!(amid.of(UNREACHABLE_FOR, kind, prefix) > 0.0, "{kind}, {cut} {shard}");
            }
            assert!(amid.of(OLDEST, "lax", prefix) > 0.0, "{cut} {shard}");
        }
        link.shard(cut).restore();
        strict.get(&keys[usize::from(cut)]).await.unwrap();
        scrape_until("its end", |scrape| {
            ["strict", "lax"].iter().all(|kind| {
                scrape.of(REACHABLE, kind, prefix) == 1.0
                    && scrape.of(UNREACHABLE_FOR, kind, prefix) == 0.0
                    && scrape.of(PENDING, kind, prefix) == 0.0
                    && scrape.of("distkit_store_last_outage_seconds", kind, prefix) > 0.0
            })
        })
        .await;
    }

    link.cut();
    for key in &keys {
        lax.inc(key, 1).await.unwrap();
    }
    scrape_until("what is pending in all", |scrape| scrape.of(PENDING, "lax", prefix) == 3.0).await;
    assert_eq!(lax.stats().pending_keys, 3);
    link.restore();
    lax.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_redis_that_is_killed_and_started_again() {
    let server = Server::redis().start();
    let prefix = "killed";
    let counters = Counters::new(prefix, connect(&server.url()).await.unwrap());
    an_outage(prefix, &counters, || server.kill_9(), || server.restart()).await;
    // It kept nothing: the instances found themselves gone, and joined with their slices.
    let scrape = scrape_until("both instances joined again", |scrape| {
        ["strict_instance_aware", "lax_instance_aware"].iter().all(|kind| {
            scrape.of("distkit_collected_total", kind, prefix) == 1.0
                && scrape.of("distkit_joins_total", kind, prefix) == 2.0
        })
    })
    .await;
    assert!(scrape.requests("join", "ok", prefix) >= 4.0, "{}", scrape.text);
}

#[tokio::test]
async fn an_outcome_that_stays_unknown() {
    let link = MemoryBackend::new().link();
    let prefix = "unknown";
    let counters = Counters::new(prefix, Arc::new(link.clone()));
    link.lose_next_replies(usize::MAX);
    counters.strict.inc(&key("k"), 1).await.unwrap_err();
    let scrape = Scrape::now().await;
    assert_eq!(scrape.of("distkit_unknown_outcomes_total", "strict", prefix), 1.0);
    assert!(scrape.of("distkit_resent_total", "strict", prefix) >= 1.0);
    assert!(scrape.requests("apply_recorded", "unknown", prefix) >= 2.0, "{}", scrape.text);
}

#[tokio::test]
async fn no_label_is_about_a_key() {
    let prefix = "keys";
    let counters = Counters::new(prefix, Arc::new(MemoryBackend::new()));
    for number in 0..50 {
        let k = key(&format!("customer-{number}"));
        counters.strict.inc(&k, 1).await.unwrap();
        counters.lax.inc(&k, 1).await.unwrap();
    }
    counters.lax.flush().await.unwrap();
    let scrape = Scrape::now().await;
    assert!(!scrape.text.contains("customer-"), "{}", scrape.text);
}

/// `increase()` sees nothing of a series that first appears as 1.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_there_before_they_rise() {
    let prefix = "from_zero";
    let _counters = Counters::new(prefix, connect("memory://").await.unwrap());
    let scrape = Scrape::now().await;
    for kind in KINDS {
        for name in ["requests", "unknown_outcomes", "refused", "resent", "outages", "not_applied"]
        {
            let name = format!("distkit_{name}_total");
            assert!(scrape.shows(&name, kind, prefix), "{kind} {name}");
        }
        let (lax, instance) = (kind.starts_with("lax"), kind.ends_with("instance_aware"));
        assert_eq!(scrape.shows("distkit_given_up_total", kind, prefix), lax, "{kind}");
        assert_eq!(scrape.shows("distkit_joined_calls_total", kind, prefix), !lax, "{kind}");
        assert_eq!(scrape.shows("distkit_collected_total", kind, prefix), instance, "{kind}");
    }
}
