//! What is particular to Redis: forgotten scripts, layout, wrong types, servers that are away.
#![cfg(all(feature = "redis-rs", feature = "redis-rs-cluster", feature = "fred"))]
#![allow(clippy::unwrap_used)]

#[path = "support/removals.rs"]
mod removals;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use distkit::{
    CounterComparator, RedisKey,
    backend::{
        Backend, BackendError, Instance, InstanceBackend, IntoBackend, Member, RedisStore, Refusal,
        ReplayGuard, SliceChange, SliceWrite, Space, Store, Write, connect,
    },
};
use distkit_testkit::{Cluster, Server};
use fred::{
    interfaces::ClientLike,
    types::{Builder, config::Config},
};
use futures_util::future::join_all;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(20);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn space(name: &str) -> Space {
    Space::new(key(name))
}

/// Both clients on `server`.
async fn both(server: &Server) -> [Arc<dyn Store>; 2] {
    let url = server.url();
    let fred = url.replacen("redis://", "redis+fred://", 1);
    [connect(&url).await.unwrap(), connect(&fred).await.unwrap()]
}

async fn both_on(cluster: &Cluster) -> [Arc<dyn Store>; 2] {
    let url = cluster.urls()[0].clone();
    let redis_rs = url.replacen("redis://", "redis-cluster://", 1);
    let fred = url.replacen("redis://", "redis-cluster+fred://", 1);
    [connect(&redis_rs).await.unwrap(), connect(&fred).await.unwrap()]
}

async fn apply(
    store: &dyn Backend,
    space: &Space,
    write: Write,
    guard: Option<&ReplayGuard>,
) -> Result<i64, BackendError> {
    let applied = store.apply(space, &[write], guard).await?;
    Ok(applied.outcomes[0].clone().unwrap().new)
}

/// Every operation that may run a script.
async fn exercise(store: &dyn Backend, space: &Space, forget: impl Fn()) {
    let n = key("n");
    let mut guard = ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: false };
    forget();
    store.clear(space).await.unwrap();
    forget();
    assert_eq!(apply(store, space, Write::set(n.clone(), 5), None).await.unwrap(), 5);
    forget();
    let conditional = Write::add(n.clone(), 1).only_if(CounterComparator::Eq(5));
    assert_eq!(apply(store, space, conditional.clone(), None).await.unwrap(), 6);
    forget();
    assert_eq!(apply(store, space, Write::add(n.clone(), 1), Some(&guard)).await.unwrap(), 7);
    forget();
    let again = store.apply(space, &[Write::add(n.clone(), 1)], Some(&guard)).await.unwrap();
    assert!(again.replayed);
    guard.sequence = 2;
    forget();
    assert_eq!(apply(store, space, conditional, Some(&guard)).await.unwrap(), 7);
    forget();
    assert_eq!(apply(store, space, Write::add(n.clone(), 1), None).await.unwrap(), 8);
    forget();
    assert_eq!(removals::remove(store, space, &[n]).await.unwrap(), [Ok(8)]);
}

#[tokio::test]
async fn a_server_that_forgot_its_scripts_is_taught_again() {
    let server = Server::redis().start();
    for (index, store) in both(&server).await.iter().enumerate() {
        exercise(&**store, &space(&format!("s{index}")), || {
            assert_eq!(server.cli(&["SCRIPT", "FLUSH"]), "OK");
        })
        .await;
    }
}

#[tokio::test]
async fn braces_in_a_prefix_keep_a_cluster_in_one_slot() {
    let cluster = Cluster::start();
    for store in both_on(&cluster).await {
        for prefix in ["{", "}", "{}", "a{b}c", "}{", "%7B", "plain"] {
            exercise(&*store, &space(prefix), || {
                for node in cluster.nodes() {
                    assert_eq!(node.cli(&["SCRIPT", "FLUSH"]), "OK");
                }
            })
            .await;
        }
    }
}

/// The name, type and TTL of every key whose name has `part`.
fn keys_with(server: &Server, part: &str) -> Vec<(String, String, String)> {
    let names = server.cli(&["KEYS", &format!("*{part}*")]);
    let mut keys: Vec<_> = names
        .lines()
        .map(|name| (name.to_owned(), server.cli(&["TYPE", name]), server.cli(&["TTL", name])))
        .collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn no_eviction_policy_for_volatile_keys_can_take_totals_or_guards() {
    for server in [Server::redis().start(), Server::valkey().start()] {
        for (index, store) in both(&server).await.iter().enumerate() {
            let space = space(&format!("a{{b}}{index}"));
            let guard = ReplayGuard { writer: "me".into(), sequence: 9, resent: false };
            apply(&**store, &space, Write::add(key("n"), i64::MAX), Some(&guard)).await.unwrap();
            store.apply(&space, &[Write::add(key("n"), 1)], Some(&guard)).await.unwrap();
            let prefix = format!("distkit:{{a%7Bb%7D{index}}}:");
            let keys = keys_with(&server, &format!("7D{index}"));
            let expected = ["shape", "totals", "writers"]
                .map(|name| (format!("{prefix}{name}"), "hash".to_owned(), "-1".to_owned()));
            assert_eq!(keys, expected);
            let total = server.cli(&["HGET", &format!("{prefix}totals"), "n"]);
            assert_eq!(total, i64::MAX.to_string());
            assert_eq!(server.cli(&["HGET", &format!("{prefix}writers"), "me"]), "9 0");
        }
    }
}

#[tokio::test]
async fn the_records_of_a_client_that_sends_again_have_no_ttl() {
    let server = Server::redis().start();
    let client = redis::Client::open(server.url()).unwrap();
    let store = RedisStore::resending(client.get_multiplexed_async_connection().await.unwrap());
    let (space, lease) = (space("p"), Duration::from_secs(3600));
    let instance = Instance::new(store.fresh_id(), lease);
    let joined = store.join(&space, &instance, &[]).await.unwrap();
    let member = Member { incarnation: joined.incarnation, lease };
    for of_an_instance in [false, true] {
        if of_an_instance {
            let (change, condition) = (SliceChange::Add(1), CounterComparator::Nil);
            let add = SliceWrite { key: key("n"), change, condition };
            store.apply_on(&space, &member, &[add], None).await.unwrap();
        } else {
            apply(&store, &space, Write::add(key("n"), 1), None).await.unwrap();
        }
        let lanes = keys_with(&server, "lanes");
        assert_eq!(lanes, [("distkit:{p}:lanes".into(), "hash".into(), "-1".into())]);
        server.cli(&["DEL", "distkit:{p}:lanes"]);
    }
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_forgets_no_batch_in_doubt() {
    for server in [Server::redis(), Server::valkey()].map(|server| server.manual_clock().start()) {
        for (index, store) in both(&server).await.iter().enumerate() {
            let space = space(&format!("p{index}"));
            let guard = ReplayGuard { writer: "me".into(), sequence: 1, resent: false };
            apply(&**store, &space, Write::add(key("n"), 1), Some(&guard)).await.unwrap();
            server.advance(Duration::from_secs(30 * 3600));
            for other in 0..20 {
                let other = ReplayGuard { writer: format!("{other}").into(), ..guard.clone() };
                apply(&**store, &space, Write::add(key("n"), 1), Some(&other)).await.unwrap();
            }
            let resent = ReplayGuard { resent: true, ..guard };
            let again = store.apply(&space, &[Write::add(key("n"), 1)], Some(&resent)).await;
            assert!(again.unwrap().replayed);
            assert_eq!(store.read(&space, &[key("n")]).await.unwrap(), [Ok(21)]);
        }
    }
}

#[tokio::test]
async fn records_are_swept_after_a_day_of_steps() {
    let server = Server::redis().manual_clock().start();
    let store = &both(&server).await[0];
    let space = space("p");
    let send = async |writer: String, sequence| {
        let guard = ReplayGuard { writer: writer.into(), sequence, resent: false };
        store.apply(&space, &[], Some(&guard)).await.unwrap();
    };
    let count = || server.cli(&["HLEN", "distkit:{p}:writers"]).parse::<u64>().unwrap();
    for writer in 0..100 {
        send(format!("old {writer}"), 1).await;
    }
    for minute in 1..=24 * 60 + 1 {
        server.advance(Duration::from_secs(60));
        send("busy".into(), minute).await;
    }
    assert_eq!(count(), 102, "and the clock");
    for writer in 0..200 {
        send(format!("new {writer}"), 1).await;
    }
    assert!(count() < 250, "{} records, of 301 that were made", count());
}

#[tokio::test]
async fn a_batch_in_doubt_whose_record_was_evicted_is_not_counted_twice() {
    for server in [Server::redis().start(), Server::valkey().start()] {
        for (index, store) in both(&server).await.iter().enumerate() {
            let space = space(&format!("p{index}"));
            let (writers, totals) =
                (format!("distkit:{{p{index}}}:writers"), format!("distkit:{{p{index}}}:totals"));
            let shape = format!("distkit:{{p{index}}}:shape");
            let add = [Write::add(key("n"), 1)];
            let guard = |sequence, resent| ReplayGuard { writer: "me".into(), sequence, resent };
            let send = async |guard: ReplayGuard| store.apply(&space, &add, Some(&guard)).await;
            // A first batch of which nothing arrived.
            assert!(!send(guard(1, true)).await.unwrap().replayed);
            for sequence in 1..=2 {
                server.cli(&["DEL", &writers]);
                let error = send(guard(sequence, true)).await.unwrap_err();
                assert!(matches!(error, BackendError::Forgotten), "{error:?}");
                assert!(send(guard(sequence, true)).await.is_err(), "nor the next time");
                send(guard(sequence, false)).await.unwrap();
            }
            assert_eq!(store.read(&space, &[key("n")]).await.unwrap(), [Ok(3)]);
            // Empty totals are no sign that all is lost: somebody may have deleted the last of them.
            server.cli(&["DEL", &writers, &totals]);
            let error = send(guard(2, true)).await.unwrap_err();
            assert!(matches!(error, BackendError::Forgotten), "{error:?}");
            send(guard(3, false)).await.unwrap();
            assert_eq!(store.read(&space, &[key("n")]).await.unwrap(), [Ok(1)]);
            // Where all is gone, so is what was applied.
            server.cli(&["DEL", &writers, &totals, &shape]);
            send(guard(4, true)).await.unwrap();
            assert_eq!(store.read(&space, &[key("n")]).await.unwrap(), [Ok(1)]);
        }
    }
}

#[tokio::test]
async fn another_shape_is_refused_before_anything_is_written() {
    let server = Server::redis().start();
    for (index, store) in both(&server).await.iter().enumerate() {
        let space = space(&format!("p{index}"));
        let prefix = format!("distkit:{{p{index}}}:");
        for (layout, shards) in [("99", "1"), ("1", "12")] {
            server.cli(&["HSET", &format!("{prefix}shape"), "layout", layout, "shards", shards]);
            let guard = ReplayGuard { writer: "me".into(), sequence: 1, resent: false };
            let add = Write::add(key("n"), 1);
            let instance = Instance::new(store.fresh_id(), Duration::from_secs(60));
            for error in [
                apply(&**store, &space, add.clone(), None).await.unwrap_err(),
                apply(&**store, &space, add, Some(&guard)).await.unwrap_err(),
                store.read(&space, &[key("n")]).await.unwrap_err(),
                removals::remove(&**store, &space, &[key("n")]).await.unwrap_err(),
                store.clear(&space).await.unwrap_err(),
                store.join(&space, &instance, &[]).await.unwrap_err(),
            ] {
                let text = distkit_testkit::chain(&error);
                assert!(text.contains(&format!("layout {layout}, {shards} shards")), "{text}");
                assert!(text.contains("layout 1, 1 shards"), "{text}");
                assert!(!error.may_have_happened());
            }
            let keys = keys_with(&server, &format!("{{p{index}}}"));
            assert_eq!(keys.len(), 1, "{keys:?}");
        }
    }
}

#[tokio::test]
async fn a_key_of_a_wrong_type_is_named_and_kept() {
    let server = Server::valkey().start();
    server.cli(&["LPUSH", "distkit:{p}:totals", "x"]);
    server.cli(&["LPUSH", "distkit:{q}:writers", "x"]);
    let guard = ReplayGuard { writer: "me".into(), sequence: 1, resent: false };
    for store in both(&server).await {
        let (p, n) = (space("p"), key("n"));
        let add = [Write::add(n.clone(), 1)];
        let two = [Write::add(n.clone(), 1), Write::add(n.clone(), 1)];
        let totals = "distkit:{p}:totals";
        for (result, name) in [
            (store.apply(&p, &add, None).await.err(), totals),
            (store.apply(&p, &two, None).await.err(), totals),
            (store.apply(&p, &add, Some(&guard)).await.err(), totals),
            (store.apply(&p, &[Write::set(n.clone(), 1)], None).await.err(), totals),
            (store.read(&p, std::slice::from_ref(&n)).await.err(), totals),
            (removals::remove(&*store, &p, std::slice::from_ref(&n)).await.err(), totals),
            (store.apply(&space("q"), &add, Some(&guard)).await.err(), "distkit:{q}:writers"),
        ] {
            match result {
                Some(BackendError::Corrupt(text)) => assert!(text.contains(name), "{text}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(store.read(&space("q"), &[n]).await.unwrap(), [Ok(0)]);
    }
    assert_eq!(server.cli(&["LLEN", "distkit:{p}:totals"]), "1");
}

#[tokio::test]
async fn a_missing_password_is_said_at_connect() {
    let server = Server::redis().password("secret").start();
    for store in both(&server).await {
        let sum = apply(&*store, &space("p"), Write::add(key("n"), 1), None).await;
        assert!(sum.is_ok(), "{sum:?}");
    }
    for scheme in ["redis", "redis+fred"] {
        for credentials in ["", ":wrong@"] {
            let url = format!("{scheme}://{credentials}127.0.0.1:{}", server.port());
            let answer = match connect(&url).await {
                Err(error) => Err(error),
                Ok(store) => apply(&*store, &space("p"), Write::add(key("n"), 1), None).await,
            };
            let error = answer.expect_err(&url);
            assert!(matches!(error, BackendError::NotApplied(_)), "{url}: {error:?}");
            let text = distkit_testkit::chain(&error).to_lowercase();
            assert!(text.contains("password") || text.contains("auth"), "{url}: {text}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_at_connect_and_not_applied_later() {
    let server = Server::redis().append_only_always().start();
    let stores = both(&server).await;
    server.kill_9();
    for scheme in ["redis", "redis+fred", "redis-cluster", "redis-cluster+fred"] {
        let url = format!("{scheme}://127.0.0.1:{}", server.port());
        let error = connect(&url).await.expect_err(&url);
        assert!(matches!(error, BackendError::NotApplied(_)), "{url}: {error:?}");
    }
    for store in &stores {
        // The first one may find out about the lost connection.
        let _ = apply(&**store, &space("p"), Write::set(key("n"), 1), None).await;
        let error = apply(&**store, &space("p"), Write::set(key("n"), 1), None).await.unwrap_err();
        assert!(matches!(error, BackendError::NotApplied(_)), "{error:?}");
    }
    server.restart();
    for store in &stores {
        let start = Instant::now();
        while let Err(error) = apply(&**store, &space("p"), Write::set(key("n"), 1), None).await {
            assert!(start.elapsed() < DEADLINE, "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The ids of the connections that are open, that of this question apart.
fn connections(server: &Server) -> BTreeSet<String> {
    let list = server.cli(&["CLIENT", "LIST"]);
    let others = list.lines().filter(|line| !line.contains("cmd=client"));
    others.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_connection_to_a_demoted_server_is_made_again() {
    for scheme in ["redis", "redis+fred"] {
        let server = Server::redis().start();
        let url = server.url().replacen("redis:", &format!("{scheme}:"), 1);
        let store = connect(&url).await.unwrap();
        apply(&*store, &space("p"), Write::add(key("n"), 1), None).await.unwrap();
        let before = connections(&server);
        assert!(!before.is_empty());

        server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
        let error = apply(&*store, &space("p"), Write::add(key("n"), 1), None).await.unwrap_err();
        assert!(matches!(error, BackendError::NotApplied(_)), "{error:?}");
        assert!(distkit_testkit::chain(&error).contains("read-only replica"), "{error}");
        server.cli(&["REPLICAOF", "NO", "ONE"]);

        let start = Instant::now();
        while let Err(error) = apply(&*store, &space("p"), Write::set(key("n"), 1), None).await {
            assert!(start.elapsed() < DEADLINE, "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let after = connections(&server);
        assert!(before.is_disjoint(&after), "{scheme}: {before:?}, then {after:?}");
    }
}

#[tokio::test]
async fn out_of_memory_is_not_applied_and_a_guarded_batch_can_be_sent_again() {
    let server = Server::redis().start();
    for (index, store) in both(&server).await.iter().enumerate() {
        let space = space(&format!("p{index}"));
        let guard = ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: false };
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        for guard in [None, Some(&guard)] {
            let error = apply(&**store, &space, Write::add(key("n"), 1), guard).await.unwrap_err();
            assert!(matches!(error, BackendError::NotApplied(_)), "{error:?}");
            assert!(distkit_testkit::chain(&error).contains("out of memory"), "{error}");
        }
        server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        let sum = apply(&**store, &space, Write::add(key("n"), 1), Some(&guard)).await;
        assert_eq!(sum.unwrap(), 1);
    }
}

#[tokio::test]
async fn memory_needs_no_server() {
    let store = connect("memory://").await.unwrap();
    assert_eq!(apply(&*store, &space("p"), Write::add(key("n"), 3), None).await.unwrap(), 3);
}

/// A server with a user `app` who has the scripts, and of the commands only these.
fn with_rights(commands: &[&str]) -> Server {
    let server = Server::redis().start();
    let mut acl = vec!["ACL", "SETUSER", "app", "on", ">pass", "~*", "+evalsha", "+eval"];
    acl.extend(["+client", "+hello", "+ping", "+info"]);
    acl.extend(commands);
    assert_eq!(server.cli(&acl), "OK");
    server
}

/// Both clients as that user, one after the other, and redis-rs as a client that may send again.
async fn all_as_app(server: &Server) -> Vec<Arc<dyn Store>> {
    let url = format!("redis://app:pass@127.0.0.1:{}", server.port());
    let fred = url.replacen("redis://", "redis+fred://", 1);
    let connection = redis::Client::open(&*url).unwrap();
    let connection = connection.get_multiplexed_async_connection().await.unwrap();
    let resending = Arc::new(RedisStore::resending(connection));
    vec![connect(&url).await.unwrap(), connect(&fred).await.unwrap(), resending]
}

#[tokio::test]
async fn a_batch_that_cannot_be_recorded_is_not_applied() {
    let server = with_rights(&["+@hash", "+get"]);
    for store in all_as_app(&server).await {
        let guard = ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: false };
        for write in [Write::add(key("n"), 1), Write::set(key("n"), 9)] {
            let error = apply(&*store, &space("p"), write, Some(&guard)).await.unwrap_err();
            assert!(matches!(error, BackendError::NotApplied(_)), "{error:?}");
        }
        assert_eq!(store.read(&space("p"), &[key("n")]).await.unwrap(), [Ok(0)]);
    }
}

#[tokio::test]
async fn a_batch_of_which_the_user_may_do_a_part_only_is_not_applied() {
    let server = with_rights(&["+hget", "+hmget", "+hset", "+time", "+hrandfield"]);
    for store in all_as_app(&server).await {
        let guard = ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: false };
        let mixed = [Write::add(key("n"), 1), Write::set(key("m"), 1)];
        for guard in [None, Some(&guard), Some(&guard)] {
            let error = store.apply(&space("p"), &mixed, guard).await.unwrap_err();
            assert!(matches!(error, BackendError::NotApplied(_)), "{error:?}");
            assert!(distkit_testkit::chain(&error).contains("permission"), "{error}");
        }
        assert_eq!(store.read(&space("p"), &[key("n")]).await.unwrap(), [Ok(0)]);
        // The refused batch has not used up its sequence.
        let set = apply(&*store, &space("q"), Write::set(key("n"), 1), Some(&guard)).await;
        assert!(set.is_ok(), "{set:?}");
        let again = store.apply(&space("p"), &[Write::set(key("m"), 0)], Some(&guard)).await;
        assert!(!again.unwrap().replayed);
        // Nor does one take away the record of the batch before.
        let next = ReplayGuard { sequence: 2, ..guard.clone() };
        store.apply(&space("p"), &mixed, Some(&next)).await.unwrap_err();
        let again = store.apply(&space("p"), &[Write::set(key("m"), 0)], Some(&guard)).await;
        assert!(again.unwrap().replayed);
    }
}

#[tokio::test]
async fn a_batch_of_which_a_part_was_applied_says_so_and_is_not_applied_again() {
    let server = with_rights(&["+hmget", "+hincrby", "+hset", "+time", "+hrandfield"]);
    for (round, store) in all_as_app(&server).await.into_iter().enumerate() {
        let space = space(&format!("p{round}"));
        let guard = ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: false };
        // The exact text of so big a total takes HGET.
        let big = Write::add(key("n"), 1 << 60);
        let error = apply(&*store, &space, big.clone(), Some(&guard)).await.unwrap_err();
        assert!(error.may_have_happened(), "{error:?}");
        assert!(distkit_testkit::chain(&error).contains("a part was applied"), "{error}");
        let _ = apply(&*store, &space, big, Some(&guard)).await;
        assert_eq!(store.read(&space, &[key("n")]).await.unwrap(), [Ok(1 << 60)]);
    }
}

#[tokio::test]
async fn an_operation_whose_answer_cannot_be_recorded_may_have_happened() {
    let server = with_rights(&["+@hash", "+get"]);
    let store = &all_as_app(&server).await[2];
    let error = apply(&**store, &space("p"), Write::add(key("n"), 1), None).await.unwrap_err();
    let happened = store.read(&space("p"), &[key("n")]).await.unwrap() != [Ok(0)];
    assert!(!happened || error.may_have_happened(), "{error:?}");
}

#[tokio::test]
async fn a_busy_server_tells_a_client_that_sends_again_nothing() {
    let server = Server::redis().arg("--busy-reply-threshold").arg("1").start();
    let client = redis::Client::open(server.url()).unwrap();
    let plain = client.get_multiplexed_async_connection().await.unwrap();
    let resending = RedisStore::resending(client.get_multiplexed_async_connection().await.unwrap());
    let plain = RedisStore::new(plain);
    for store in [&plain, &resending] {
        apply(store, &space("p"), Write::add(key("n"), 0), None).await.unwrap();
    }
    let mut other = client.get_multiplexed_async_connection().await.unwrap();
    let endless = tokio::spawn(async move {
        redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut other).await
    });
    let start = Instant::now();
    loop {
        let error = apply(&plain, &space("p"), Write::add(key("n"), 1), None).await;
        match error {
            Err(BackendError::NotApplied(cause)) => {
                assert!(cause.to_string().contains("busy with a script"), "{cause}");
                break;
            }
            other => assert!(start.elapsed() < DEADLINE, "{other:?}"),
        }
    }
    let error = apply(&resending, &space("p"), Write::add(key("n"), 1), None).await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    server.cli(&["SCRIPT", "KILL"]);
    let _ = endless.await;
}

/// A fred client whose queue is full sends nothing of what it turns down.
#[tokio::test]
async fn what_a_full_queue_turns_down_is_not_applied() {
    let server = Server::redis().start();
    let client = Builder::from_config(Config::from_url(&server.url()).unwrap())
        .with_connection_config(|connection| connection.max_command_buffer_len = 1)
        .build()
        .unwrap();
    client.init().await.unwrap();
    let store = client.into_backend();
    let space = space("p");
    let adds = (0..100).map(|_| apply(&*store, &space, Write::add(key("n"), 1), None));
    let (mut added, mut refused) = (0, 0);
    for answer in join_all(adds).await {
        match answer {
            Ok(_) => added += 1,
            Err(BackendError::NotApplied(_)) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(added > 0 && refused > 0, "{added} added, {refused} turned down");
    assert_eq!(store.read(&space, &[key("n")]).await.unwrap(), [Ok(added)]);
}

#[tokio::test]
async fn each_of_many_foreign_texts_is_named_by_an_addition() {
    let server = Server::redis().start();
    for store in both(&server).await {
        let keys: Vec<_> = (0..50).map(|i| key(&format!("k{i}"))).collect();
        for (i, key) in keys.iter().enumerate().filter(|(i, _)| i % 2 == 0) {
            server.cli(&["HSET", "distkit:{p}:totals", key, &format!("text {i}")]);
        }
        let writes: Vec<_> = keys.iter().map(|key| Write::add(key.clone(), 1)).collect();
        let applied = store.apply(&space("p"), &writes, None).await.unwrap();
        for (i, outcome) in applied.outcomes.iter().enumerate() {
            match outcome {
                Err(Refusal::NotANumber { found }) => assert_eq!(*found, format!("text {i}")),
                other => assert!(i % 2 == 1 && other.is_ok(), "{i}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_url_chooses_the_database() {
    let server = Server::valkey().password("secret").start();
    for (sum, scheme) in (1..).zip(["redis", "redis+fred", "valkey", "valkey+fred"]) {
        let url = format!("{scheme}://:secret@127.0.0.1:{}/3", server.port());
        let store = connect(&url).await.unwrap();
        let total = apply(&*store, &space("p"), Write::add(key("n"), 1), None).await.unwrap();
        assert_eq!(total, sum, "{scheme}");
    }
    assert_eq!(server.cli(&["-n", "3", "HGET", "distkit:{p}:totals", "n"]), "4");
    assert_eq!(server.cli(&["DBSIZE"]), "0");
}

#[cfg(unix)]
#[tokio::test]
async fn a_url_can_name_a_unix_socket() {
    let server = Server::redis().password("secret").start();
    let path = server.unix_path();
    let path = path.to_str().unwrap();
    for (sum, scheme) in (1..).zip(["redis+unix", "valkey+unix", "unix"]) {
        let store = connect(&format!("{scheme}://{path}?pass=secret&db=2")).await.unwrap();
        let total = apply(&*store, &space("p"), Write::add(key("n"), 1), None).await.unwrap();
        assert_eq!(total, sum, "{scheme}");
    }
    assert_eq!(server.cli(&["-n", "2", "HGET", "distkit:{p}:totals", "n"]), "3");
    let error = connect(&format!("redis+unix://{path}.none")).await.err().unwrap();
    assert!(distkit_testkit::chain(&error).contains("cannot connect"), "{error}");
    let error = connect(&format!("unix+fred://{path}")).await.err().unwrap();
    assert!(distkit_testkit::chain(&error).contains("redis+unix"), "{error}");
}

#[tokio::test]
async fn a_plain_connection_to_a_cluster_is_told_which_url_it_needs() {
    let cluster = Cluster::start();
    let url = cluster.urls()[0].clone();
    for url in [url.clone(), url.replacen("redis://", "redis+fred://", 1)] {
        let store = connect(&url).await.unwrap();
        let mut told = 0;
        for n in 0..20 {
            let space = space(&format!("p{n}"));
            if let Err(error) = store.apply(&space, &[Write::add(key("n"), 1)], None).await {
                assert!(!error.may_have_happened(), "{error}");
                assert!(
                    distkit_testkit::chain(&error).contains("redis-cluster://"),
                    "{url}: {error}"
                );
                told += 1;
            }
        }
        assert!(told > 5, "{told} of 20 prefixes are on another node");
    }
}
