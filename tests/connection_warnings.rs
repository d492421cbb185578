//! Connections that cannot come back are named in the log, each kind once.
#![cfg(all(feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{
    io,
    sync::{Arc, Mutex},
};

use distkit::backend::{Backend, IntoBackend, connect};
use distkit_testkit::Server;
use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::config::{Config, ReconnectPolicy},
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_connection_that_cannot_come_back_is_named_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::redis().start();
    let redis_rs = redis::Client::open(server.url()).unwrap();
    let lines = || {
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let warnings = text.lines().filter(|line| line.contains("distkit::connection"));
        warnings.map(str::to_owned).collect::<Vec<_>>()
    };

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
