//! Connections of redis-rs that come back: refused set-ups, silence, idle disconnects, restarts.
#![cfg(all(feature = "counter", feature = "redis-rs"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    DistkitError, RedisKey,
    backend::{IntoBackend, ReconnectingConnection, connect},
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use distkit_testkit::{Server, ServerBuilder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

const DEADLINE: Duration = Duration::from_secs(20);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn counter(store: impl IntoBackend) -> Arc<StrictCounter> {
    // Each call is one request: a guarded one would be sent again until the connection is replaced.
    StrictCounter::new(CounterOptions::new(key("reconnecting"), store).unguarded())
}

fn both(start: impl Fn(ServerBuilder) -> ServerBuilder) -> [Server; 2] {
    [Server::redis(), Server::valkey()].map(|server| start(server).start())
}

/// Adds until the store takes one, and checks what it is told meanwhile.
async fn until_counted(counter: &StrictCounter, k: &RedisKey) -> i64 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match counter.inc(k, 1).await {
            Ok(total) => return total,
            Err(error) => assert!(Instant::now() < deadline, "still {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_password_that_was_refused_at_a_reconnect_is_tried_again() {
    for server in both(|server| server.password("old")) {
        let counter = counter(connect(&server.url()).await.unwrap());
        let k = key("k");
        assert_eq!(counter.inc(&k, 1).await.unwrap(), 1);

        server.cli(&["CONFIG", "SET", "requirepass", "new"]);
        let port = server.port().to_string();
        let admin = |args: &[&str]| {
            let url = format!("redis://:new@127.0.0.1:{port}");
            let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
            let mut cmd = redis::Cmd::new();
            args.iter().for_each(|arg| {
                cmd.arg(arg);
            });
            cmd.exec(&mut connection).unwrap();
        };
        admin(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let deadline = Instant::now() + DEADLINE;
        let mut refused = 0;
        while refused < 5 {
            let error = counter.inc(&k, 1).await.unwrap_err();
            match error {
                DistkitError::NotApplied(_) => refused += 1,
                // The one that finds that the connection is gone.
                DistkitError::OutcomeUnknown(_) => {}
                error => panic!("{error}"),
            }
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(10)).await;
        }
        admin(&["CONFIG", "SET", "requirepass", "old"]);
        assert_eq!(until_counted(&counter, &k).await, 2);
    }
}

#[tokio::test]
async fn a_missing_password_is_found_when_connecting() {
    for server in both(|server| server.password("secret")) {
        let url = format!("redis://127.0.0.1:{}", server.port());
        let error = connect(&url).await.err().unwrap();
        assert!(!error.may_have_happened());
        let text = distkit_testkit::chain(&error);
        assert!(text.contains("NOAUTH") || text.contains("uthentication"), "{text}");
    }
}

/// Relays to a server. What is connected when it is told to swallow stays open and silent.
struct Swallowing {
    port: u16,
    swallow: Arc<AtomicBool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Swallowing {
    async fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        let (target, flag) = (server.port(), swallow.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection that is made later takes another way.
                flag.store(false, SeqCst);
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let silent = Arc::new(AtomicBool::new(false));
                tokio::spawn(pump(from_client, to_server, flag.clone(), silent.clone()));
                tokio::spawn(pump(from_server, to_client, flag.clone(), silent));
            }
        });
        Self { port, swallow, accepting }
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    swallow: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if swallow.load(SeqCst) {
            silent.store(true, SeqCst);
        }
        if !silent.load(SeqCst) && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

/// A write that is swallowed is in doubt, and the next one goes over another connection.
async fn is_replaced(proxy: Swallowing, counter: Arc<StrictCounter>) {
    let k = key("k");
    assert_eq!(counter.inc(&k, 1).await.unwrap(), 1);
    proxy.swallow.store(true, SeqCst);
    let error = counter.inc(&k, 1).await.unwrap_err();
    assert!(error.may_have_happened(), "{error}");
    let total = timeout(DEADLINE, until_counted(&counter, &k)).await.unwrap();
    assert_eq!(total, 2, "what was swallowed never arrived");
    proxy.accepting.abort();
}

#[tokio::test]
async fn a_connection_without_answers_is_replaced() {
    for server in both(|server| server) {
        let proxy = Swallowing::before(&server).await;
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", proxy.port)).unwrap();
        let patience = Duration::from_millis(300);
        let connection = ReconnectingConnection::with_response_timeout(client, patience);
        is_replaced(proxy, counter(connection)).await;
    }
}

#[cfg(feature = "fred")]
#[tokio::test]
async fn a_connection_without_answers_is_replaced_over_fred() {
    for server in both(|server| server) {
        let proxy = Swallowing::before(&server).await;
        let url = format!("redis+fred://127.0.0.1:{}", proxy.port);
        is_replaced(proxy, counter(connect(&url).await.unwrap())).await;
    }
}

/// The heartbeat finds the silence, and the next one goes over another connection.
#[cfg(feature = "instance-aware-counter")]
#[tokio::test]
async fn an_idle_instance_outlives_a_silent_connection() {
    use distkit::icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    };

    for server in both(|server| server) {
        let proxy = Swallowing::before(&server).await;
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", proxy.port)).unwrap();
        let patience = Duration::from_millis(300);
        let connection = ReconnectingConnection::with_response_timeout(client, patience);
        let instance = |store: Arc<dyn distkit::backend::Store>| {
            let options = StrictInstanceAwareCounterOptions::new(key("rooms"), store);
            StrictInstanceAwareCounter::new(options.dead_instance_threshold_ms(3000))
        };
        let (idle, watcher) =
            (instance(connection.into_backend()), instance(connect(&server.url()).await.unwrap()));
        let k = key("k");
        idle.inc(&k, 5).await.unwrap();
        proxy.swallow.store(true, SeqCst);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(7) {
            assert_eq!(watcher.get(&k).await.unwrap().0, 5, "after {:?}", began.elapsed());
            sleep(Duration::from_millis(100)).await;
        }
        assert!(!proxy.swallow.load(SeqCst), "no other connection was made");
        proxy.accepting.abort();
    }
}

/// Asks in a thread of its own, so that connections see meanwhile what happens to them.
async fn connections(server: &Arc<Server>) -> usize {
    let server = server.clone();
    let list = tokio::task::spawn_blocking(move || server.cli(&["CLIENT", "LIST"]));
    list.await.unwrap().lines().filter(|line| !line.is_empty()).count()
}

#[tokio::test]
async fn a_connection_that_an_idle_server_closed_costs_no_call() {
    for server in both(|server| server.args(&["--timeout", "1"])).map(Arc::new) {
        let counter = counter(connect(&server.url()).await.unwrap());
        let k = key("k");
        for n in 1..=2 {
            assert_eq!(counter.inc(&k, 1).await.unwrap(), n);
            let deadline = Instant::now() + DEADLINE;
            // The listing connection is the only one left when ours is closed.
            while connections(&server).await > 1 {
                assert!(Instant::now() < deadline, "the server closes no idle connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
        assert_eq!(counter.inc(&k, 1).await.unwrap(), 3);
    }
}

#[tokio::test]
async fn a_server_that_is_down_takes_nothing_and_is_found_again() {
    for server in both(|server| server.append_only_always()) {
        let counter = counter(connect(&server.url()).await.unwrap());
        let k = key("k");
        assert_eq!(counter.inc(&k, 1).await.unwrap(), 1);
        server.kill_9();
        let mut refused = 0;
        while refused < 3 {
            if let Err(DistkitError::NotApplied(_)) = counter.inc(&k, 1).await {
                refused += 1;
            }
        }
        server.restart();
        assert_eq!(until_counted(&counter, &k).await, 2);
    }
}

#[tokio::test]
async fn nothing_is_sent_before_the_first_command() {
    let client = redis::Client::open("redis://127.0.0.1:1").unwrap();
    let counter = counter(ReconnectingConnection::new(client));
    let error = counter.inc(&key("k"), 1).await.unwrap_err();
    assert!(matches!(error, DistkitError::NotApplied(_)), "{error}");
}

/// A connection that repeats commands by itself, for ever.
#[derive(Clone)]
struct Patient;

impl redis::aio::ConnectionLike for Patient {
    fn req_packed_command<'a>(
        &'a mut self,
        _: &'a redis::Cmd,
    ) -> redis::RedisFuture<'a, redis::Value> {
        Box::pin(std::future::pending())
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a redis::Pipeline,
        _: usize,
        _: usize,
    ) -> redis::RedisFuture<'a, Vec<redis::Value>> {
        Box::pin(std::future::pending())
    }

    fn get_db(&self) -> i64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_repeats_commands_is_not_waited_for_without_end() {
    let store = distkit::backend::RedisStore::resending(Patient);
    let counter = StrictCounter::new(CounterOptions::new(key("p"), store));
    let began = Instant::now();
    assert!(!counter.get(&key("k")).await.unwrap_err().may_have_happened());
    assert!(began.elapsed() < Duration::from_secs(30));
}
