//! Prefixes that expire when nobody writes to them, in the simulator and on servers.
#![cfg(all(feature = "counter", feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use distkit::{
    DistkitError, RedisKey, Windows,
    backend::{
        Around, Backend, BackendError, Layered, Op, ReplayGuard, Space, Write, connect,
        memory::MemoryBackend,
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use distkit_testkit::Server;
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);
const LATE: Duration = Duration::from_secs(5);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn lax_and_strict_counters_expire_together_and_begin_anew() {
    for shards in [1, 4] {
        let store = MemoryBackend::new();
        let options =
            CounterOptions::new(key("cart"), store.clone()).shards(shards).expire_after(HOUR);
        let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
        let items = key("items");
        assert_eq!(strict.inc(&items, 5).await.unwrap(), 5);
        for _ in 0..3 {
            sleep(HOUR - LATE).await;
            assert_eq!(lax.get(&items).await.unwrap(), 5);
            lax.inc(&items, 1).await.unwrap();
            lax.flush().await.unwrap();
            lax.dec(&items, 1).await.unwrap();
            lax.flush().await.unwrap();
        }
        sleep(HOUR + LATE).await;
        assert_eq!((strict.get(&items).await.unwrap(), lax.get(&items).await.unwrap()), (0, 0));
        assert_eq!(strict.len().await.unwrap(), 0);
        lax.dec(&items, 1).await.unwrap();
        lax.flush().await.unwrap();
        assert_eq!(strict.get(&items).await.unwrap(), -1);
        sleep(HOUR + LATE).await;
        assert_eq!(strict.get(&items).await.unwrap(), 0);
        assert_eq!(store.guarded_writers(), 0, "its records went, too");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_was_in_doubt_counts_once_beside_what_expired() {
    let link = MemoryBackend::new().link();
    let lax = LaxCounter::new(CounterOptions::new(key("cart"), link.clone()).expire_after(HOUR));
    let items = key("items");
    lax.inc(&items, 1).await.unwrap();
    lax.flush().await.unwrap();
    link.lose_next_replies(1);
    lax.inc(&items, 4).await.unwrap();
    sleep(Duration::from_millis(25)).await;
    // It was applied, and expires before it is asked for again.
    link.cut();
    sleep(HOUR + LATE).await;
    link.restore();
    sleep(LATE).await;
    lax.flush().await.unwrap();
    assert_eq!(lax.get(&items).await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn another_idle_time_is_refused_and_both_are_named() {
    let store = MemoryBackend::new();
    let options = CounterOptions::new(key("cart"), store);
    let hourly = StrictCounter::new(options.clone().expire_after(HOUR));
    hourly.inc(&key("items"), 1).await.unwrap();
    for other in [options.clone().expire_after(2 * HOUR), options] {
        let error = StrictCounter::new(other).inc(&key("items"), 1).await.unwrap_err();
        let DistkitError::NotApplied(BackendError::ShapeMismatch { stored, .. }) = &error else {
            panic!("{error:?}")
        };
        assert!(stored.contains("3600000"), "{stored}");
    }
    assert_eq!(hourly.get(&key("items")).await.unwrap(), 1);
}

#[tokio::test]
async fn all_keys_of_a_prefix_on_a_server_expire_together() {
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            for shards in [1, 3] {
                let server = start().manual_clock().start();
                let store: Arc<dyn Backend> =
                    connect(&server.url().replacen("redis", client, 1)).await.unwrap() as _;
                let options =
                    CounterOptions::new(key("cart"), store).shards(shards).expire_after(HOUR);
                let (strict, lax) = (
                    StrictCounter::new(options.clone()),
                    LaxCounter::new(options.clone().allowed_lag(Duration::from_millis(1))),
                );
                let unguarded = StrictCounter::new(options.unguarded());
                let items = key("items");
                for second in 0..3 {
                    strict.inc(&items, 5).await.unwrap();
                    unguarded.inc(&items, 1).await.unwrap();
                    // In a lane that is known, right after the last counter was deleted.
                    strict.del(&items).await.unwrap();
                    strict.inc(&items, 5).await.unwrap();
                    lax.inc(&items, 1).await.unwrap();
                    lax.flush().await.unwrap();
                    strict.set(&items, second).await.unwrap();
                    let names = server.cli(&["KEYS", "*"]);
                    let mut times: Vec<_> = names
                        .lines()
                        // Of several shards, what the prefix itself has stays.
                        .filter(|name| shards == 1 || !name.contains("{cart}"))
                        .map(|name| (server.cli(&["PTTL", name]), name))
                        .collect();
                    times.sort();
                    assert_eq!(times.len(), 4, "totals, writers, lanes and shape: {names}");
                    assert!(times.iter().all(|(time, _)| *time == "3604000"), "{times:?}");
                    server.advance(Duration::from_millis(700));
                }
                server.advance(HOUR + LATE);
                assert_eq!(strict.get(&items).await.unwrap(), 0);
                let left = server.cli(&["KEYS", "*:totals"]);
                assert_eq!(left.lines().count(), usize::from(shards > 1), "{left}");
                assert_eq!(strict.dec(&items, 1).await.unwrap(), -1);
                server.advance(HOUR + LATE);
                assert_eq!(strict.get(&items).await.unwrap(), 0);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn windows_go_by_their_own_time() {
    let store = MemoryBackend::new();
    let windows = Windows::every(HOUR).keep(5);
    let options = CounterOptions::new(key("cart"), store).windows(windows).expire_after(HOUR / 2);
    let counter = StrictCounter::new(options);
    let items = key("items");
    counter.inc(&items, 7).await.unwrap();
    let first = counter.current_window().await.unwrap();
    sleep(3 * HOUR).await;
    assert_eq!(counter.get_in(first, &items).await.unwrap(), 7);
    assert_eq!(counter.inc(&items, 1).await.unwrap(), 1);
    sleep(4 * HOUR).await;
    assert_eq!(counter.get_in(first, &items).await.unwrap(), 0);
}

const MINUTE: Duration = Duration::from_secs(60);

/// A batch of a writer's that was applied in a window, and is sent again when the prefix has long been idle.
async fn a_batch_of_a_window_counts_once(
    store: &dyn Backend,
    at: Duration,
    pass: impl Fn(Duration),
) {
    let space = Space::new(key("cart")).expiring_after(MINUTE);
    let hours = Windows::every(HOUR).keep(5);
    let (first, second) = (space.in_window(hours.at(at)), space.in_window(hours.at(at).next()));
    let items = [Write::add(key("items"), 4)];
    let guard = |writer: &str| ReplayGuard { writer: writer.into(), sequence: 1, resent: false };
    let mut guards = ["one", "two"].map(guard);
    for guard in &guards {
        store.apply(&first, &items, Some(guard)).await.unwrap();
    }
    pass(HOUR);
    // Known by its guard in the window of before, whatever was written since to the one after and beside windows.
    guards.iter_mut().for_each(|guard| guard.resent = true);
    assert!(store.apply(&first, &items, Some(&guards[0])).await.unwrap().replayed);
    let lane = guard("lane");
    let recorded = store.capabilities().recorded.unwrap();
    recorded.apply_recorded(&second, &items, &lane).await.unwrap();
    store.apply(&space, &items, None).await.unwrap();
    pass(4 * HOUR - MINUTE);
    assert!(store.apply(&first, &items, Some(&guards[1])).await.unwrap().replayed);
    assert_eq!(store.read(&first, &[key("items")]).await.unwrap(), [Ok(8)]);
    assert_eq!(store.read(&space, &[key("items")]).await.unwrap(), [Ok(0)], "it was idle");
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_outlives_the_windows_it_is_of_in_memory() {
    let store = MemoryBackend::new();

    a_batch_of_a_window_counts_once(&store, Duration::ZERO, |step| store.set_clock_forward(step))
        .await;
}

#[tokio::test]
async fn what_is_remembered_outlives_the_windows_it_is_of() {
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().manual_clock().start();
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            a_batch_of_a_window_counts_once(&*store, server.now(), |step| server.advance(step))
                .await;
            // Of a prefix that expires nothing stays, and no key of a window without a time of its own.
            let names = server.cli(&["KEYS", "*"]);
            for name in names.lines() {
                assert_ne!(server.cli(&["TTL", name]), "-1", "{name}");
            }
            server.advance(20 * HOUR);
            assert_eq!(server.cli(&["KEYS", "*"]), "");
        }
    }
}

#[tokio::test]
async fn counters_do_not_outlive_what_is_remembered_of_their_writers() {
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().manual_clock().start();
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            let options = CounterOptions::new(key("cart"), store).expire_after(MINUTE);
            let (strict, items) = (StrictCounter::new(options), key("items"));
            for _ in 0..3 {
                strict.inc(&items, 1).await.unwrap();
                server.advance(Duration::from_millis(300));
            }
            let [totals, lanes, shape] = ["totals", "lanes", "shape"]
                .map(|name| server.cli(&["PTTL", &format!("distkit:{{cart}}:{name}")]));
            assert_eq!((&totals, &shape), (&lanes, &lanes));
        }
    }
}

/// Counters with and without windows, of which some records were made after the window was opened.
#[tokio::test]
async fn windows_and_other_counters_of_a_prefix_expire_after_their_records() {
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().manual_clock().start();
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            let space = Space::new(key("cart")).expiring_after(MINUTE);
            let window = space.in_window(Windows::every(HOUR).at(server.now()));
            let items = [Write::add(key("items"), 4)];
            let guard = |writer: &str, sequence| ReplayGuard {
                writer: writer.into(),
                sequence,
                resent: false,
            };
            let recorded = store.capabilities().recorded.unwrap();
            let ttl = |name: &str| -> i64 {
                server.cli(&["PTTL", &format!("distkit:{{cart}}:{name}")]).parse().unwrap()
            };
            // The window before the lanes, which a write beside windows makes, and all in one second.
            store.apply(&window, &items, Some(&guard("one", 1))).await.unwrap();
            recorded.apply_recorded(&space, &items, &guard("lane", 1)).await.unwrap();
            recorded.apply_recorded(&window, &items, &guard("lane", 2)).await.unwrap();
            let closed = (2 * HOUR).as_millis() as i64;
            assert!(ttl("lanes") >= closed && ttl("writers") >= closed && ttl("shape") >= closed);
            server.advance(Duration::from_millis(1500));
            // Renewed by a window's write, which is none to the counters beside it; the next one is.
            recorded.apply_recorded(&window, &items, &guard("lane", 3)).await.unwrap();
            server.advance(Duration::from_millis(300));
            recorded.apply_recorded(&space, &items, &guard("lane", 4)).await.unwrap();
            assert!(ttl("totals") >= MINUTE.as_millis() as i64, "{}", ttl("totals"));
        }
    }
}

/// When the store was asked to let a space expire.
#[derive(Debug)]
struct Asked {
    began: Instant,
    at: Mutex<Vec<Duration>>,
}

impl Around for Asked {
    async fn around<T: Send>(
        &self,
        op: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        if let Op::ExpireIdle { .. } = op {
            self.at.lock().unwrap().push(self.began.elapsed());
        }
        call.await
    }
}

fn asked() -> Arc<Layered<dyn Backend, Asked>> {
    let store: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    Arc::new(Layered::new(store, Asked { began: Instant::now(), at: Mutex::default() }))
}

/// How long after its idle time it is asked for, once.
const AFTER: Duration = Duration::from_millis(1500);

#[tokio::test(start_paused = true)]
async fn who_wrote_to_a_prefix_asks_for_its_expiry_when_it_was_idle() {
    let store = asked();
    let options = CounterOptions::with_store(key("cart"), store.clone());
    let lasting = StrictCounter::new(options.clone());
    let expiring = options.expire_after(MINUTE / 2);
    let (strict, lax) = (StrictCounter::new(expiring.clone()), LaxCounter::new(expiring));
    let other = key("other");
    lasting.get(&other).await.unwrap();
    strict.get(&other).await.unwrap();
    sleep(HOUR).await;
    let asked = || std::mem::take(&mut *store.layer().at.lock().unwrap());
    assert_eq!(asked(), [], "of what was only read");
    let mut last = HOUR;
    for second in 0..100 {
        strict.inc(&key("items"), 1).await.unwrap();
        last = store.layer().began.elapsed();
        sleep(Duration::from_secs(second % 20)).await;
    }
    sleep(HOUR).await;
    assert_eq!(asked(), [last + MINUTE / 2 + AFTER]);
    let before = store.layer().began.elapsed();
    lax.inc(&key("items"), 1).await.unwrap();
    lax.flush().await.unwrap();
    sleep(HOUR).await;
    let times = asked();
    assert_eq!(times.len(), 1);
    assert!(times[0] >= before + MINUTE / 2 + AFTER && times[0] < before + MINUTE, "{times:?}");
    // Nobody asks when the counters are gone.
    let options = CounterOptions::with_store(key("gone"), store.clone());
    let gone = StrictCounter::new(options.expire_after(MINUTE / 2));
    gone.inc(&key("items"), 1).await.unwrap();
    drop(gone);
    sleep(HOUR).await;
    assert_eq!(asked(), []);
}

#[tokio::test(start_paused = true)]
async fn prefixes_that_do_not_expire_ask_for_nothing() {
    let store = asked();
    let options = CounterOptions::with_store(key("cart"), store.clone());
    let counter = StrictCounter::new(options.shards(3));
    counter.inc(&key("items"), 1).await.unwrap();
    sleep(1000 * HOUR).await;
    assert!(store.layer().at.lock().unwrap().is_empty());
}

/// Waits for what a server does in real time. Its clock stands still.
async fn until(server: &Server, what: &str, mut done: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < late, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
        let _ = server.cli(&["PING"]);
    }
}

fn number(server: &Server, section: &str, name: &str) -> u64 {
    let info = server.cli(&["INFO", section]);
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {info}")).trim().parse().unwrap()
}

#[tokio::test]
async fn a_million_counters_expire_without_holding_up_the_server() {
    for client in ["redis", "redis+fred"] {
        for shards in [1, 2] {
            let server = Server::redis().manual_clock().start();
            let store = connect(&server.url().replacen("redis", client, 1)).await.unwrap();
            let options = CounterOptions::new(key("cart"), store).shards(shards);
            let counter = StrictCounter::new(options.expire_after(Duration::from_secs(1)));
            let items = key("items");
            let space = &Space::shards_of(key("cart"), shards)
                [usize::from(Space::shard_of(&items, shards))];
            counter.inc(&items, 1).await.unwrap();
            let totals = distkit::backend::operator::totals(space);
            let fill =
                "for n = 1, 10000 do redis.call('HSET', KEYS[1], ARGV[1] .. 'k' .. n, n) end";
            for part in 0..100 {
                server.cli(&["EVAL", fill, "1", &totals, &format!("{part}")]);
            }
            // The server would expire it in 2 s; the process asks after its own 2.5 s, of which some have passed.
            server.advance(Duration::from_secs(3));
            until(&server, "let go", || server.cli(&["EXISTS", &totals]) == "0").await;
            until(&server, "freed in the background", || {
                number(&server, "memory", "lazyfreed_objects") > 0
            })
            .await;
            assert_eq!(number(&server, "stats", "expired_keys"), 0);
            // Its records go by themselves, and it begins anew before and after.
            assert_eq!(counter.inc(&items, 2).await.unwrap(), 2);
            server.advance(Duration::from_secs(6));
            assert_eq!(counter.inc(&items, 3).await.unwrap(), 3);
        }
    }
}

/// Prints for how long a server stops when a prefix expires, with and without a process that lives:
/// `DISTKIT_EXPIRED=1000000 cargo test --all-features --test expiry costs -- --nocapture`
#[tokio::test]
async fn what_an_expiry_costs_a_server() {
    let counters = std::env::var("DISTKIT_EXPIRED").map_or(10_000, |n| n.parse().unwrap());
    // So that it does not expire while it is filled.
    let idle = Duration::from_secs(if counters > 10_000 { 15 } else { 1 });
    for (lives, lazily) in [(true, "no"), (false, "no"), (false, "yes")] {
        let server = Server::redis().start();
        server.cli(&["CONFIG", "SET", "lazyfree-lazy-expire", lazily]);
        let store = connect(&server.url()).await.unwrap();
        let options = CounterOptions::new(key("cart"), store).expire_after(idle);
        let counter = StrictCounter::new(options);
        let totals = "distkit:{cart}:totals";
        let fill = "for n = 1, 10000 do redis.call('HSET', KEYS[1], ARGV[1] .. 'k' .. n, n) end";
        counter.inc(&key("items"), 1).await.unwrap();
        for part in 0..counters / 10_000 {
            server.cli(&["EVAL", fill, "1", totals, &format!("{part}")]);
        }
        counter.inc(&key("items"), 1).await.unwrap();
        server.cli(&["CONFIG", "SET", "latency-monitor-threshold", "1"]);
        server.cli(&["LATENCY", "RESET"]);
        let counter = lives.then_some(counter);
        let late = Instant::now() + 20 * LATE;
        // Not looked at, which would let it expire: DBSIZE counts what is there.
        while server.cli(&["DBSIZE"]) != "0" {
            assert!(Instant::now() < late, "nothing expired");
            sleep(Duration::from_millis(100)).await;
        }
        let let_go = number(&server, "stats", "expired_keys");
        println!(
            "{counters} counters, lazyfree-lazy-expire {lazily}, a process {}: {let_go} keys expired by themselves; \
             ms that the server stopped: {:?}",
            if lives { "lives" } else { "is gone" },
            server.cli(&["LATENCY", "LATEST"]).replace('\n', " "),
        );
        match counter {
            Some(counter) => assert_eq!(counter.get(&key("items")).await.unwrap(), 0),
            None => assert_eq!(let_go, 3, "totals, lanes and shape"),
        }
    }
}
