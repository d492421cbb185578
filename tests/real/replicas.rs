//! Processes that only read, when their server is demoted, and where they read from a replica on purpose.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    CounterComparator, DistkitError,
    backend::{Backend, ReplayGuard, Space, Store, Write, connect},
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::Server;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::support::{Client, eventually, key, over_both_clients};

over_both_clients!(
    a_reader_leaves_a_demoted_server,
    a_reader_leaves_a_demoted_valkey,
    writes_that_write_nothing_are_turned_away,
    a_reader_of_a_replica_is_left_alone,
    a_reader_without_the_right_to_write_is_left_alone,
);

async fn connected(client: Client, address: &str) -> Arc<dyn Store> {
    let scheme = match client {
        Client::Redis => "redis",
        Client::Fred => "redis+fred",
    };
    connect(&format!("{scheme}://{address}")).await.unwrap()
}

/// An address behind which the server can be replaced; open connections stay where they are.
async fn address_of(server: &Server) -> (u16, Arc<AtomicU16>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, target) =
        (listener.local_addr().unwrap().port(), Arc::new(AtomicU16::new(server.port())));
    let towards = target.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let port = towards.load(SeqCst);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (port, target)
}

async fn a_reader_leaves_a_demoted_server(client: Client) {
    leaves_a_demoted(client, Server::redis().start(), Server::redis().start()).await;
}

async fn a_reader_leaves_a_demoted_valkey(client: Client) {
    leaves_a_demoted(client, Server::valkey().start(), Server::valkey().start()).await;
}

/// Whatever a write finds there is old.
async fn writes_that_write_nothing_are_turned_away(client: Client) {
    for server in [Server::redis().start(), Server::valkey().start()] {
        let store = connected(client, &format!("127.0.0.1:{}", server.port())).await;
        let counter = StrictCounter::new(CounterOptions::new(key("bench"), store.clone()));
        let shared = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
            key("bench"),
            store.clone(),
        ));
        let (hits, none) = (key("hits"), key("none"));
        counter.set(&hits, 7).await.unwrap();
        shared.set(&hits, 7).await.unwrap();
        let space = Space::new(key("bench"));
        let never = CounterComparator::Gt(100);
        assert_eq!(server.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
        let unmet = Write::add(hits.clone(), 1).only_if(never);
        let guard = ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: false };
        let answers: Vec<(&str, Option<DistkitError>)> = vec![
            ("inc", counter.inc(&hits, 1).await.err()),
            ("inc by 0", counter.inc(&hits, 0).await.err()),
            ("inc_if", counter.inc_if(&hits, never, 1).await.err()),
            ("set_if", counter.set_if(&hits, never, 1).await.err()),
            ("del", counter.del(&none).await.err()),
            ("clear", counter.clear().await.err()),
            ("guarded", store.apply(&space, &[unmet], Some(&guard)).await.err().map(Into::into)),
            (
                "guarded and empty",
                store.apply(&space, &[], Some(&guard)).await.err().map(Into::into),
            ),
            ("shared inc", shared.inc(&hits, 0).await.err()),
            ("shared inc_if", shared.inc_if(&hits, never, 1).await.err()),
            ("shared set_if", shared.set_if(&hits, never, 1).await.err()),
            ("shared del", shared.del(&none).await.err()),
            ("shared set_on_instance_if", shared.set_on_instance(&none, 0).await.err()),
            ("shared get", shared.get(&hits).await.err()),
        ];
        for (what, error) in answers {
            let error = error.unwrap_or_else(|| panic!("{what} was answered by a replica"));
            assert!(!error.may_have_happened(), "{what}: {error}");
        }
        assert_eq!(server.cli(&["HGET", "distkit:{bench}:totals", "hits"]), "7");
        assert_eq!(server.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        eventually("a primary", async || counter.inc(&hits, 1).await.is_ok()).await;
        eventually("a primary", async || shared.inc(&hits, 1).await.is_ok()).await;
        assert_eq!((counter.get(&hits).await.unwrap(), shared.get(&hits).await.unwrap().0), (8, 8));
    }
}

async fn leaves_a_demoted(client: Client, old: Server, new: Server) {
    let (port, target) = address_of(&old).await;
    let store = connected(client, &format!("127.0.0.1:{port}")).await;
    let reader = StrictCounter::new(CounterOptions::new(key("bench"), store));
    for (server, total) in [(&old, "1"), (&new, "2")] {
        server.cli(&["HSET", "distkit:{bench}:totals", "hits", total]);
    }
    for _ in 0..3 {
        assert_eq!(reader.get(&key("hits")).await.unwrap(), 1);
    }
    // A replica of a server that is gone: it keeps what it had.
    assert_eq!(old.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    target.store(new.port(), SeqCst);

    let demoted = Instant::now();
    while !matches!(reader.get(&key("hits")).await, Ok(2)) {
        assert!(demoted.elapsed() < Duration::from_secs(10), "still with the demoted server");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(new.cli(&["HGETALL", "distkit:{bench}:totals"]), "hits\n2");
}

fn connections(server: &Server) -> String {
    let listed = server.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
    // Without the connection that asks, over the unix socket.
    let ids = listed.lines().filter(|line| line.starts_with("id=") && !line.contains("/sock"));
    ids.filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(" ")
}

/// Reads for long enough that the server has been asked twice, and checks that no connection changed.
async fn is_left_alone(store: &dyn Backend, server: &Server) {
    let (space, hits) = (Space::new(key("bench")), [key("hits")]);
    store.read(&space, &hits).await.unwrap();
    let before = connections(server);
    assert!(!before.is_empty());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        assert_eq!(store.read(&space, &hits).await.unwrap(), [Ok(7)]);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(connections(server), before, "it connected anew");
}

async fn a_reader_of_a_replica_is_left_alone(client: Client) {
    let server = Server::redis().start();
    server.cli(&["HSET", "distkit:{bench}:totals", "hits", "7"]);
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    let store = connected(client, &format!("127.0.0.1:{}", server.port())).await;
    is_left_alone(&*store, &server).await;
}

async fn a_reader_without_the_right_to_write_is_left_alone(client: Client) {
    let server = Server::redis().start();
    server.cli(&["HSET", "distkit:{bench}:totals", "hits", "7"]);
    let rights =
        ["ACL", "SETUSER", "reader", "on", ">pass", "~*", "+@read", "+@connection", "+info"];
    assert_eq!(server.cli(&rights), "OK");
    let store = connected(client, &format!("reader:pass@127.0.0.1:{}", server.port())).await;
    is_left_alone(&*store, &server).await;
}
