//! Connections that cannot come back are named in the log, each kind once.
#![cfg(all(feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "support/log.rs"]
mod log;

use distkit::backend::{Backend, IntoBackend, ReconnectingConnection, connect};
use distkit_testkit::Server;
use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::config::{Config, ReconnectPolicy},
};

use log::Log;

#[tokio::test]
async fn a_connection_that_comes_back_to_another_server_says_so() {
    let (log, _guard) = Log::start();
    let (first, second) = (Server::redis().start(), Server::redis().start());
    let urls = [first.url(), first.url(), second.url(), second.url()];
    let clients = parking_lot::Mutex::new(urls.into_iter());
    let mut connection = ReconnectingConnection::from_fn(move || {
        let url = clients.lock().next().unwrap();
        async move { redis::Client::open(url) }
    });
    for server in [&first, &first, &second, &second] {
        while redis::cmd("PING").exec_async(&mut connection).await.is_err() {}
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        // Until it is noticed.
        while redis::cmd("PING").exec_async(&mut connection).await.is_ok() {
            if server.port() == second.port() && log.lines("", "distkit::connection").len() == 1 {
                break;
            }
        }
    }
    let lines = log.lines("", "distkit::connection");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for port in [first.port(), second.port()] {
        assert!(lines[0].contains(&port.to_string()), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_connection_that_cannot_come_back_is_named_once() {
    let (log, _guard) = Log::start();
    let server = Server::redis().start();
    let redis_rs = redis::Client::open(server.url()).unwrap();
    let lines = || log.lines("", "distkit::connection");

    for scheme in ["redis", "redis+fred"] {
        drop(connect(&server.url().replacen("redis", scheme, 1)).await.unwrap());
    }
    let policy = Some(ReconnectPolicy::default());
    let client = Client::new(Config::from_url(&server.url()).unwrap(), None, None, policy);
    client.init().await.unwrap();
    drop(IntoBackend::<dyn Backend>::into_backend(client));
    assert_eq!(lines(), [""; 0], "these come back");

    for _ in 0..2 {
        drop(IntoBackend::<dyn Backend>::into_backend(
            redis_rs.get_multiplexed_async_connection().await.unwrap(),
        ));
        drop(IntoBackend::<dyn Backend>::into_backend(
            redis_rs.get_connection_manager().await.unwrap(),
        ));
        let client = Client::new(Config::from_url(&server.url()).unwrap(), None, None, None);
        client.init().await.unwrap();
        drop(IntoBackend::<dyn Backend>::into_backend(client));
    }
    let lines = lines();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for (line, what) in
        lines.iter().zip(["MultiplexedConnection", "ConnectionManager", "ReconnectPolicy"])
    {
        assert!(line.contains(what), "{line}");
    }
}
