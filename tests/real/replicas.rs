//! Processes that only read, when their server is demoted, and where they read from a replica on purpose.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    backend::{Backend, Space, connect},
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use distkit_testkit::Server;
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::support::{Client, key, over_both_clients};

over_both_clients!(
    a_reader_leaves_a_demoted_server,
    a_reader_of_a_replica_is_left_alone,
    a_reader_without_the_right_to_write_is_left_alone,
);

async fn connected(client: Client, address: &str) -> Arc<dyn Backend> {
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
    let (old, new) = (Server::redis().start(), Server::redis().start());
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
