//! Prints what strict additions cost next to one `HINCRBY` for each call, as a table in Markdown:
//! `strict-calls [redis-rs|fred] [ROUNDS]`.
//!
//! Three take turns within each round: the guarded counter (the default), the unguarded one, and the raw client. A
//! ratio is that of one round, and the median of all rounds is shown. The processor's time of the server is that of
//! its main thread. `1 ms` is through a proxy that holds each way up by half a millisecond.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use distkit::{
    RedisKey, Windows,
    backend::{FredStore, IntoBackend, RedisStore, Store},
    counter::{CounterOptions, CounterTrait as _, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait as _, StrictInstanceAwareCounter,
        StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::Server;
use fred::{
    interfaces::{ClientLike as _, HashesInterface as _, LuaInterface as _},
    types::{Builder, config::Config},
};
use redis::aio::ConnectionManager;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

const HASH: &str = "distkit:{raw}:totals";
const MINIMAL: &str = "return redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])";
const TURN: Duration = Duration::from_millis(300);

#[derive(Clone)]
enum Raw {
    Redis(ConnectionManager),
    Fred(fred::clients::Client),
}

impl Raw {
    async fn connect(client: &str, port: u16) -> Self {
        let url = format!("redis://127.0.0.1:{port}");
        if client == "fred" {
            let config = Config::from_url(&url).expect("it is a URL");
            let client = Builder::from_config(config)
                .with_connection_config(|config| config.tcp.nodelay = Some(true))
                .build()
                .expect("it is a configuration");
            client.init().await.expect("the server is there");
            return Self::Fred(client);
        }
        let client = redis::Client::open(url).expect("it is a URL");
        Self::Redis(ConnectionManager::new(client).await.expect("the server is there"))
    }

    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Redis(connection) => RedisStore::new(connection.clone()).into_backend(),
            Self::Fred(client) => FredStore::new(client.clone()).into_backend(),
        }
    }

    async fn inc(&self, field: &RedisKey) {
        let _: i64 = match self {
            Self::Redis(connection) => {
                let mut command = redis::cmd("HINCRBY");
                command.arg(HASH).arg(field.as_str()).arg(1);
                command.query_async(&mut connection.clone()).await.expect("served")
            }
            Self::Fred(client) => client.hincrby(HASH, field.as_str(), 1).await.expect("served"),
        };
    }

    async fn script(&self, sha: &str, field: &RedisKey) {
        let _: i64 = match self {
            Self::Redis(connection) => {
                let mut command = redis::cmd("EVALSHA");
                command.arg(sha).arg(1).arg(HASH).arg(field.as_str()).arg(1);
                command.query_async(&mut connection.clone()).await.expect("served")
            }
            Self::Fred(client) => {
                let args = vec![field.to_string(), "1".to_owned()];
                client.evalsha(sha, vec![HASH], args).await.expect("served")
            }
        };
    }
}

/// Who adds.
#[derive(Clone)]
enum Subject {
    Counter(Arc<StrictCounter>),
    Slices(Arc<StrictInstanceAwareCounter>),
    Raw(Raw),
    Script(Raw, Arc<str>),
}

impl Subject {
    async fn inc(&self, key: &RedisKey) {
        match self {
            Self::Counter(counter) => {
                counter.inc(key, 1).await.expect("served");
            }
            Self::Slices(counter) => {
                counter.inc(key, 1).await.expect("served");
            }
            Self::Raw(raw) => raw.inc(key).await,
            Self::Script(raw, sha) => raw.script(sha, key).await,
        }
    }
}

#[derive(Default, Clone, Copy)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    server: f64,
}

/// Seconds of the main thread of a process.
fn processor_time(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

async fn load(subject: &Subject, keys: &Arc<Vec<RedisKey>>, tasks: usize, pid: u32) -> Figures {
    let (spent, began) = (processor_time(pid), Instant::now());
    let end = began + TURN;
    let handles: Vec<_> = (0..tasks)
        .map(|task| {
            let (subject, keys) = (subject.clone(), keys.clone());
            tokio::spawn(async move {
                let mut dice = fastrand::Rng::with_seed(task as u64 + 1);
                let mut took = Vec::with_capacity(4096);
                let mut at = Instant::now();
                while at < end {
                    subject.inc(&keys[dice.usize(..keys.len())]).await;
                    let now = Instant::now();
                    took.push((now - at).as_nanos() as u32);
                    at = now;
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for handle in handles {
        took.extend(handle.await.expect("no call fails"));
    }
    let seconds = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let calls = took.len().max(1);
    let at = |percent: usize| f64::from(took[(calls - 1) * percent / 100]) / 1000.0;
    Figures {
        rate: calls as f64 / seconds,
        p50: at(50),
        p99: at(99),
        server: (processor_time(pid) - spent) * 1e6 / calls as f64,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Holds each way up by half a millisecond, however much is under way.
async fn proxy(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", to)).await.expect("the server is there");
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let (near, far) = (near.into_split(), far.into_split());
            tokio::spawn(hold_up(near.0, far.1));
            tokio::spawn(hold_up(far.0, near.1));
        }
    });
    port
}

async fn hold_up(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let at = tokio::time::Instant::now() + Duration::from_micros(500);
        if sender.send((at, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

async fn row(
    name: &str,
    subjects: &[Subject],
    keys: &Arc<Vec<RedisKey>>,
    tasks: usize,
    rounds: usize,
    pid: u32,
) {
    let mut all: Vec<Vec<Figures>> = vec![Vec::new(); subjects.len()];
    for subject in subjects {
        load(subject, keys, tasks, pid).await;
    }
    for round in 0..rounds {
        for turn in 0..subjects.len() {
            let at = (turn + round) % subjects.len();
            all[at].push(load(&subjects[at], keys, tasks, pid).await);
        }
    }
    let last = subjects.len() - 1;
    let of = |at: usize, field: fn(&Figures) -> f64| median(all[at].iter().map(field).collect());
    let ratio = |at: usize| {
        let ratios: Vec<f64> =
            all[at].iter().zip(&all[last]).map(|(ours, raw)| ours.rate / raw.rate).collect();
        let least = ratios.iter().copied().fold(f64::MAX, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        format!("{:.2} ({least:.2}-{most:.2})", median(ratios))
    };
    let mut cells = vec![name.to_owned(), tasks.to_string()];
    cells.extend((0..last).map(ratio));
    cells.push(format!("{:.0}", of(last, |f| f.rate) / 1000.0));
    for field in [|f: &Figures| f.p50, |f: &Figures| f.p99, |f: &Figures| f.server] {
        let values: Vec<_> =
            (0..subjects.len()).map(|at| format!("{:.1}", of(at, field))).collect();
        cells.push(values.join(" / "));
    }
    println!("| {} |", cells.join(" | "));
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let client = words.first().map_or("redis-rs", String::as_str);
    let rounds = words.get(1).and_then(|n| n.parse().ok()).unwrap_or(5);
    let server = Server::redis().start();
    let pid = server.pid().expect("it runs");
    let prefix = |name: &str| RedisKey::try_from(name).expect("it is a key");
    let keys = |count: usize| -> Arc<Vec<RedisKey>> {
        Arc::new((0..count).map(|n| prefix(&format!("key-{n}"))).collect())
    };

    println!("{client}, guarded / unguarded / raw; calls of raw in k/s, times in us\n");
    println!("| keys | tasks | guarded | unguarded | raw k/s | p50 | p99 | server |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let near = Raw::connect(client, server.port()).await;
    let far = Raw::connect(client, proxy(server.port()).await).await;
    let subjects = |raw: &Raw| {
        let options = CounterOptions::new(prefix("bench"), raw.store());
        [
            Subject::Counter(StrictCounter::new(options.clone())),
            Subject::Counter(StrictCounter::new(options.unguarded())),
            Subject::Raw(raw.clone()),
        ]
    };
    let close = subjects(&near);
    for (name, count) in [("1", 1), ("100", 100), ("100 000", 100_000)] {
        let keys = keys(count);
        for tasks in [1, 8, 64, 256] {
            row(name, &close, &keys, tasks, rounds, pid).await;
        }
    }
    let distant = subjects(&far);
    for tasks in [1, 64] {
        row("100, 1 ms", &distant, &keys(100), tasks, rounds, pid).await;
    }

    println!("\nIn windows of an hour / not, both guarded\n");
    println!("| keys | tasks | in windows | not, k/s | p50 | p99 | server |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    // A prefix of its own: the hash of another one may be encoded for more counters than there are here.
    let options = CounterOptions::new(prefix("windows"), near.store());
    let hours = Windows::every(Duration::from_secs(3600));
    let windowed = [
        Subject::Counter(StrictCounter::new(options.clone().windows(hours))),
        Subject::Counter(StrictCounter::new(options)),
    ];
    for (name, count) in [("1", 1), ("100", 100), ("100 000", 100_000)] {
        let keys = keys(count);
        for tasks in [1, 8, 64, 256] {
            row(name, &windowed, &keys, tasks, rounds, pid).await;
        }
    }

    println!("\nInstance-aware: guarded / unguarded / a minimal script for each call\n");
    println!("| keys | tasks | guarded | unguarded | script k/s | p50 | p99 | server |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let sha: Arc<str> = server.cli(&["SCRIPT", "LOAD", MINIMAL]).into();
    let options = || StrictInstanceAwareCounterOptions::new(prefix("bench"), near.store());
    let slices = [
        Subject::Slices(StrictInstanceAwareCounter::new(options())),
        Subject::Slices(StrictInstanceAwareCounter::new(options().unguarded())),
        Subject::Script(near.clone(), sha),
    ];
    for (name, count) in [("1", 1), ("100", 100)] {
        for tasks in [1, 64] {
            row(name, &slices, &keys(count), tasks, rounds, pid).await;
        }
    }
    ExitCode::SUCCESS
}
