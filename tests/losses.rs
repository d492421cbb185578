//! What operators hear of a store that lost data while no request failed.
#![cfg(all(
    feature = "counter",
    feature = "instance-aware-counter",
    feature = "redis-rs",
    feature = "fred"
))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "support/log.rs"]
mod log;

use std::{sync::Arc, time::Duration};

use distkit::{
    CounterComparator, RedisKey, Token,
    backend::{Space, Store, connect, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Server, ServerBuilder};
use log::Log;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn space() -> Space {
    Space::new(key("shop"))
}

/// A service: its counters, with a connection of their own.
struct Process {
    strict: Arc<StrictCounter>,
    lax: Arc<LaxCounter>,
    shared: Arc<StrictInstanceAwareCounter>,
}

impl Process {
    fn over(store: Arc<dyn Store>) -> Self {
        Self::sharded(store, 1)
    }

    fn sharded(store: Arc<dyn Store>, shards: u16) -> Self {
        let options = CounterOptions::new(key("shop"), store.clone()).shards(shards);
        let shared = StrictInstanceAwareCounterOptions::new(key("shop"), store).shards(shards);
        Self {
            strict: StrictCounter::new(options.clone()),
            lax: LaxCounter::new(options),
            shared: StrictInstanceAwareCounter::new(shared),
        }
    }

    /// Adds to one key with each of the counters.
    async fn count(&self) {
        self.strict.inc(&key("a"), 1).await.unwrap();
        self.lax.inc(&key("b"), 1).await.unwrap();
        self.lax.flush().await.unwrap();
        self.shared.inc(&key("c"), 1).await.unwrap();
    }

    /// What the strict, the lax and the instance-aware counter noticed.
    fn losses(&self) -> [u64; 3] {
        [self.strict.stats(), self.lax.stats(), self.shared.stats()].map(|stats| stats.losses)
    }
}

/// A store to lose data in.
enum Bed {
    Memory(MemoryBackend),
    Server(Arc<Server>, &'static str),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    All,
    Totals,
    Guards,
    Members,
}

impl Bed {
    fn server(builder: ServerBuilder, client: &'static str) -> Self {
        Self::Server(Arc::new(builder.start()), client)
    }

    async fn process(&self) -> Process {
        Process::over(self.store().await)
    }

    async fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::new(store.link()),
            Self::Server(server, client) => {
                let url = server.url().replacen("redis", &format!("redis{client}"), 1);
                connect(&url).await.unwrap()
            }
        }
    }

    fn lose(&self, part: Part) {
        match (self, part) {
            (Self::Memory(store), Part::All) => store.wipe(),
            (Self::Memory(store), Part::Totals) => store.lose_totals(&space()),
            (Self::Memory(store), Part::Guards) => store.lose_guards(&space()),
            (Self::Memory(store), Part::Members) => store.lose_members(&space()),
            (Self::Server(server, _), Part::All) => drop(server.cli(&["FLUSHALL"])),
            (Self::Server(server, _), Part::Totals) => {
                assert_eq!(server.cli(&["DEL", "distkit:{shop}:totals"]), "1");
            }
            (Self::Server(server, _), Part::Guards) => {
                let deleted =
                    server.cli(&["DEL", "distkit:{shop}:lanes", "distkit:{shop}:writers"]);
                assert_eq!(deleted, "2");
            }
            (Self::Server(server, _), Part::Members) => {
                assert_eq!(server.cli(&["DEL", "distkit:{shop}:i:leases"]), "1");
            }
        }
    }
}

fn lost(log: &Log, counter: &str) -> Vec<String> {
    let lines = log.lines("the store lost data", "distkit::store");
    let counter = format!("counter=\"{counter}\"");
    let of = lines.into_iter().filter(|line| line.contains(&counter));
    let what =
        |line: String| line.split("lost=\"").nth(1).unwrap().split('"').next().unwrap().into();
    of.map(what).collect()
}

/// Every loss is counted once by each process that had written, whichever writes first, and said in the log.
async fn each_loss_is_heard_of(bed: Bed) {
    let (one, other) = (bed.process().await, bed.process().await);
    let (log, _guard) = Log::start();
    one.count().await;
    other.count().await;
    assert_eq!([one.losses(), other.losses()], [[0; 3]; 2]);

    bed.lose(Part::All);
    for _ in 0..3 {
        one.count().await;
        other.count().await;
    }
    assert_eq!([one.losses(), other.losses()], [[1; 3]; 2]);
    // The second one finds what the first has written since.
    assert_eq!(lost(&log, "strict")[..2], ["everything", "everything"]);
    assert_eq!(lost(&log, "strict_instance_aware"), ["slices", "slices"]);
    assert!(log.lines("within=", "the store lost data").len() >= 4);
    for line in log.lines("lost=\"slices\"", "the store lost data") {
        assert!(line.contains("within="), "since when is known to each instance: {line}");
    }
    // A process that starts then has lost nothing.
    let third = bed.process().await;
    third.count().await;
    assert_eq!(third.losses(), [0; 3]);

    bed.lose(Part::Guards);
    for _ in 0..3 {
        one.count().await;
    }
    assert_eq!(one.losses(), [2, 2, 1]);
    assert_eq!(lost(&log, "strict").last().unwrap(), "records");
    assert_eq!(lost(&log, "lax").last().unwrap(), "records");

    // Of the totals alone, the counter that writes first hears.
    for first in [0, 1] {
        one.count().await;
        bed.lose(Part::Totals);
        let before = one.losses();
        if first == 0 {
            one.strict.inc(&key("a"), 1).await.unwrap();
        } else {
            one.lax.inc(&key("b"), 1).await.unwrap();
            one.lax.flush().await.unwrap();
        }
        for _ in 0..3 {
            one.count().await;
        }
        let mut expected = before;
        expected[first] += 1;
        assert_eq!(one.losses(), expected, "{first}");
    }
    assert_eq!(lost(&log, "strict").last().unwrap(), "totals");
    assert_eq!(lost(&log, "lax").last().unwrap(), "totals");

    bed.lose(Part::Members);
    one.count().await;
    assert_eq!(one.losses()[2], 1, "all slices were put back");
}

/// Counters that are removed were not lost, however that is done.
async fn what_was_removed_was_not_lost(bed: Bed) {
    let store = bed.store().await;
    let process = Process::over(store.clone());
    let (a, b) = (key("a"), key("b"));
    let always = CounterComparator::Gt(i64::MIN);
    for _ in 0..2 {
        process.count().await;
        process.strict.del(&a).await.unwrap();
        process.strict.del(&b).await.unwrap();
        process.count().await;
        process.strict.clear().await.unwrap();
        process.count().await;
        process.lax.clear().await.unwrap();
        process.strict.set(&a, 4).await.unwrap();
        process.lax.del(&a).await.unwrap();
        process.strict.inc_if(&a, always, 0).await.unwrap();
        process.strict.inc(&a, 0).await.unwrap();
        // A single counter that passes through 0 is there all the time.
        for change in [0, 5, -5, 3, -3, 0, 1] {
            process.strict.inc(&a, change).await.unwrap();
        }
        process.strict.set(&a, 0).await.unwrap();
        process.lax.inc(&a, 2).await.unwrap();
        process.lax.flush().await.unwrap();
        process.strict.inc(&a, -2).await.unwrap();
        process.strict.inc(&b, -2).await.unwrap();
        process.strict.del(&b).await.unwrap();
        process.strict.inc(&a, 2).await.unwrap();
        process.shared.clear().await.unwrap();
        // Without guards.
        store.clear(&space()).await.unwrap();
        process.count().await;
        let remove = [&a, &b].map(|key| distkit::backend::Write::remove(key.clone()));
        store.apply(&space(), &remove, None).await.unwrap();
        process.count().await;
        store.apply(&space(), &remove, None).await.unwrap();
        store.apply(&space(), &[distkit::backend::Write::add(a.clone(), 1)], None).await.unwrap();
        process.count().await;
    }
    assert_eq!(process.losses(), [0; 3]);
}

#[tokio::test(start_paused = true)]
async fn each_loss_is_heard_of_in_memory() {
    each_loss_is_heard_of(Bed::Memory(MemoryBackend::new())).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_was_not_lost_in_memory() {
    what_was_removed_was_not_lost(Bed::Memory(MemoryBackend::new())).await;
}

#[tokio::test]
async fn each_loss_is_heard_of_on_servers() {
    each_loss_is_heard_of(Bed::server(Server::redis(), "")).await;
    each_loss_is_heard_of(Bed::server(Server::valkey(), "+fred")).await;
}

#[tokio::test]
async fn what_was_removed_was_not_lost_on_servers() {
    what_was_removed_was_not_lost(Bed::server(Server::redis(), "+fred")).await;
    what_was_removed_was_not_lost(Bed::server(Server::valkey(), "")).await;
}

/// A day without a write, after which the store has forgotten the writer.
#[tokio::test(start_paused = true)]
async fn a_counter_that_rested_for_days_has_lost_nothing() {
    let bed = Bed::Memory(MemoryBackend::new());
    let (resting, busy) = (bed.process().await, bed.process().await);
    resting.count().await;
    for _ in 0..4 * 24 * 60 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        busy.lax.inc(&key("b"), 1).await.unwrap();
        busy.strict.inc(&key("a"), 1).await.unwrap();
    }
    resting.count().await;
    assert_eq!(
        [resting.losses(), busy.losses()].map(|[strict, lax, _]| [strict, lax]),
        [[0; 2]; 2]
    );
}

/// A server that is killed without an append-only file comes back empty.
#[tokio::test]
async fn a_server_that_restarts_empty_is_noticed() {
    let bed = Bed::server(Server::redis(), "");
    let process = bed.process().await;
    process.count().await;
    let Bed::Server(server, _) = &bed else { panic!("no server") };
    server.kill_9();
    server.restart();
    // The connection that is broken is found by a request.
    while process.strict.inc(&key("a"), 1).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process.count().await;
    assert_eq!(process.losses(), [1; 3]);
}

/// As a replica does that was behind and takes the place of its primary.
#[tokio::test]
async fn a_store_that_went_back_is_noticed() {
    for client in ["", "+fred"] {
        let bed = Bed::server(Server::redis(), client);
        let process = bed.process().await;
        process.count().await;
        let Bed::Server(server, _) = &bed else { panic!("no server") };
        let names: Vec<_> =
            ["totals", "lanes", "writers"].map(|n| format!("distkit:{{shop}}:{n}")).into();
        for name in &names {
            assert_eq!(server.cli(&["COPY", name, &format!("{name}:before")]), "1");
        }
        process.count().await;
        process.count().await;
        for name in &names {
            assert_eq!(server.cli(&["COPY", &format!("{name}:before"), name, "REPLACE"]), "1");
        }
        let (log, _guard) = Log::start();
        process.count().await;
        process.count().await;
        assert_eq!(process.losses(), [1, 1, 0]);
        assert_eq!(lost(&log, "strict"), ["latest writes"]);
        assert_eq!(lost(&log, "lax"), ["latest writes"]);
    }
}

/// One node of several comes back empty.
#[tokio::test(start_paused = true)]
async fn a_loss_of_one_shard_is_noticed_in_memory() {
    let store = MemoryBackend::new();
    let process = Process::sharded(Arc::new(store.link()), 4);
    let names: Vec<_> = (0..40).map(|n| key(&format!("k{n}"))).collect();
    let count = async || {
        for name in &names {
            process.strict.inc(name, 1).await.unwrap();
        }
    };
    count().await;
    store.wipe_space(&Space::shards_of(key("shop"), 4)[2]);
    let (log, _guard) = Log::start();
    count().await;
    assert_eq!(process.losses(), [1, 0, 0]);
    assert_eq!(log.lines("shard=2", "the store lost data").len(), 1);
    assert_eq!(log.lines("", "the store lost data").len(), 1);
}

#[tokio::test]
async fn a_loss_of_one_shard_is_noticed_on_a_server() {
    let bed = Bed::server(Server::redis(), "");
    let process = Process::sharded(bed.store().await, 4);
    let Bed::Server(server, _) = &bed else { panic!("no server") };
    let names: Vec<_> = (0..40).map(|n| key(&format!("k{n}"))).collect();
    for round in 0..3 {
        for name in &names {
            process.strict.inc(name, 1).await.unwrap();
        }
        if round == 0 {
            let lost = server.cli(&["KEYS", "distkit:{shop:2.*"]);
            let mut command = vec!["DEL"];
            command.extend(lost.lines());
            assert_eq!(server.cli(&command), (command.len() - 1).to_string());
        }
    }
    assert_eq!(process.losses(), [1, 0, 0]);
}

/// Additions under tokens begin the totals anew, and the next batch hears of it.
async fn totals_lost_beside_tokens_are_heard_of(bed: Bed, second: impl AsyncFn()) {
    let store = bed.store().await;
    let strict = StrictCounter::new(CounterOptions::new(key("shop"), store));
    let (a, mut tokens) = (key("a"), (0..).map(|n| Token::new(format!("event {n}")).unwrap()));
    // What tokens left at 0 is no loss, nor is what was removed before one.
    strict.inc(&a, 5).await.unwrap();
    strict.inc(&a, -5).await.unwrap();
    strict.inc_once(&a, 10, &tokens.next().unwrap()).await.unwrap();
    strict.inc_once(&a, -10, &tokens.next().unwrap()).await.unwrap();
    strict.del(&a).await.unwrap();
    strict.inc_once(&a, 10, &tokens.next().unwrap()).await.unwrap();
    strict.clear().await.unwrap();
    strict.inc_once(&a, 10, &tokens.next().unwrap()).await.unwrap();
    second().await;
    strict.inc(&a, 1).await.unwrap();
    assert_eq!(strict.stats().losses, 0);
    // The first to count after the loss is a batch, or an addition under a token.
    for (losses, token_first) in [(1, false), (2, true)] {
        strict.inc(&a, 0).await.unwrap();
        strict.inc(&a, -strict.get(&a).await.unwrap()).await.unwrap();
        strict.inc_once(&a, 10, &tokens.next().unwrap()).await.unwrap();
        bed.lose(Part::Totals);
        if token_first {
            strict.inc_once(&a, 3, &tokens.next().unwrap()).await.unwrap();
            strict.inc_once(&a, 3, &tokens.next().unwrap()).await.unwrap();
            second().await;
        }
        for _ in 0..3 {
            strict.inc(&a, 1).await.unwrap();
            second().await;
        }
        assert_eq!(strict.stats().losses, losses);
    }
}

#[tokio::test(start_paused = true)]
async fn totals_lost_beside_tokens_are_heard_of_in_memory() {
    totals_lost_beside_tokens_are_heard_of(Bed::Memory(MemoryBackend::new()), async || {}).await;
}

#[tokio::test]
async fn totals_lost_beside_tokens_are_heard_of_on_servers() {
    for (builder, client) in [(Server::redis(), ""), (Server::valkey(), "+fred")] {
        let bed = Bed::server(builder.manual_clock(), client);
        let Bed::Server(server, _) = &bed else { panic!("no server") };
        let server = Arc::clone(server);
        let second = async || server.advance(Duration::from_secs(1));
        totals_lost_beside_tokens_are_heard_of(bed, second).await;
    }
}

/// How long ago the last acknowledged operation of the instance was sent: what came after it may be lost.
#[tokio::test(start_paused = true)]
async fn a_loss_of_slices_tells_since_when_it_may_be() {
    let store = MemoryBackend::new();
    let process = Process::sharded(Arc::new(store.link()), 1);
    let name = key("a");
    process.shared.inc(&name, 1).await.unwrap();
    let (log, _guard) = Log::start();
    // Between two heartbeats, which come each 10 s.
    tokio::time::sleep(Duration::from_secs(21)).await;
    store.wipe();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(process.shared.inc(&name, 1).await.unwrap(), (2, 2));
    let lines = log.lines("lost=\"slices\"", "the store lost data");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("within=4s"), "{lines:?}");
    assert!(!lines[0].contains("shard="), "there is one only: {lines:?}");
}
