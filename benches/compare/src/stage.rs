//! The server, the connections to it and the runtime that everything is measured on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use distkit::RedisKey;
use distkit_testkit::Server;
use fred::{interfaces::ClientLike, types::config::ReconnectPolicy};
use peer::DistkitRedisKey;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::runtime::Runtime;

use crate::measure::{Contender, Role, Unit};

/// How much is done, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// How long one contender runs in one round, where that can be chosen.
    pub(crate) round: Duration,
    /// Keys of the works that name a great number of them.
    pub(crate) many_keys: usize,
    pub(crate) most_keys: usize,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        round: Duration::from_millis(400),
        many_keys: 100_000,
        most_keys: 1_000_000,
    };
    pub(crate) const QUICK: Self =
        Self { rounds: 2, round: Duration::from_millis(50), many_keys: 20_000, most_keys: 20_000 };
}

pub(crate) struct Stage {
    pub(crate) effort: Effort,
    pub(crate) server: Server,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) redis: ConnectionManager,
    pub(crate) fred: fred::clients::Client,
}

impl Stage {
    pub(crate) fn new(effort: Effort) -> Self {
        let server = Server::redis().start();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (redis, fred) = runtime.block_on(async {
            let fred = fred::clients::Client::new(
                fred::types::config::Config::from_url(&server.url()).expect("a valid URL"),
                None,
                None,
                Some(ReconnectPolicy::default()),
            );
            fred.init().await.expect("the server is there");
            (manager(&server.url()).await, fred)
        });
        Self { effort, server, runtime: Arc::new(runtime), redis, fred }
    }

    /// A connection of its own.
    pub(crate) fn connect(&self) -> ConnectionManager {
        self.runtime.block_on(manager(&self.server.url()))
    }

    /// Runs it on a worker of the runtime.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.runtime.block_on(self.runtime.spawn(future)).expect("the task does not panic")
    }

    /// A contender that is timed call by call.
    pub(crate) fn timing<'a>(
        &self,
        role: Role,
        name: &'static str,
        run: impl FnMut(u64) -> (u64, Duration) + 'a,
    ) -> Contender<'a> {
        Contender::timed(role, name, Unit::Nanoseconds, self.effort.round, run)
    }

    /// A contender whose calls in a second are counted.
    pub(crate) fn rating<'a>(
        &self,
        role: Role,
        name: &'static str,
        run: impl FnMut(u64) -> (u64, Duration) + 'a,
    ) -> Contender<'a> {
        Contender::timed(role, name, Unit::PerSecond, self.effort.round, run)
    }

    fn info(&self, section: &str) -> String {
        let mut command = redis::cmd("INFO");
        command.arg(section);
        let mut connection = self.redis.clone();
        let answer = self.runtime.block_on(command.query_async(&mut connection));
        answer.expect("the server is there")
    }

    /// Seconds of CPU that the server has used.
    pub(crate) fn server_cpu(&self) -> f64 {
        let text = self.info("cpu");
        let seconds = |field: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(field));
            value.and_then(|value| value.trim().parse::<f64>().ok()).expect("a field of INFO")
        };
        seconds("used_cpu_user:") + seconds("used_cpu_sys:")
    }

    /// How many scripts the server has run.
    pub(crate) fn scripts_run(&self) -> u64 {
        let text = self.info("commandstats");
        let line = text.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
    }
}

/// With patience: a peer may send 100 000 scripts in one go.
pub(crate) async fn manager(url: &str) -> ConnectionManager {
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    let client = redis::Client::open(url).expect("a valid URL");
    client.get_connection_manager_with_config(config).await.expect("the server is there")
}

/// Seconds of CPU that the threads of this process have used.
pub(crate) fn own_cpu() -> f64 {
    own_threads("schedstat", |text| text.split(' ').next()?.parse().ok()) / 1e9
}

/// How often a thread of this process went to sleep by itself: about how often one was woken.
pub(crate) fn own_sleeps() -> f64 {
    own_threads("status", |text| {
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line?.trim().parse().ok()
    })
}

fn own_threads(file: &str, value: impl Fn(&str) -> Option<f64>) -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
    let of_thread =
        |entry: std::fs::DirEntry| value(&std::fs::read_to_string(entry.path().join(file)).ok()?);
    threads.flatten().filter_map(of_thread).sum()
}

pub(crate) fn our_keys(count: usize) -> Arc<[RedisKey]> {
    (0..count).map(|n| our_key(&name(n))).collect()
}

pub(crate) fn peer_keys(count: usize) -> Arc<[DistkitRedisKey]> {
    (0..count).map(|n| peer_key(&name(n))).collect()
}

pub(crate) fn our_key(name: &str) -> RedisKey {
    RedisKey::try_from(name).expect("a valid key")
}

pub(crate) fn peer_key(name: &str) -> DistkitRedisKey {
    DistkitRedisKey::try_from(name.to_owned()).expect("a valid key")
}

fn name(n: usize) -> String {
    format!("user-{n}-views")
}

/// Does a call again and again in one task, and says how often in which time.
macro_rules! alone {
    ($stage:expr, $count:ident, ($($captured:ident),*), $call:expr) => {{
        $(let $captured = $captured.clone();)*
        let stage = $stage;
        move |$count: u64| {
            $(let $captured = $captured.clone();)*
            stage.run(async move {
                let start = std::time::Instant::now();
                for turn in 0..$count {
                    std::hint::black_box($call);
                    if turn % $crate::stage::YIELD_EVERY == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                ($count, start.elapsed())
            })
        }
    }};
}

/// The same in several tasks at once. `$turn` is a random number for each call.
macro_rules! together {
    ($stage:expr, $tasks:expr, $turn:ident, ($($captured:ident),*), $call:expr) => {{
        $(let $captured = $captured.clone();)*
        let (stage, tasks) = ($stage, $tasks as u64);
        move |count: u64| {
            let each = count / tasks + 1;
            let start = std::time::Instant::now();
            let running: Vec<_> = (0..tasks)
                .map(|task| {
                    $(let $captured = $captured.clone();)*
                    stage.runtime.spawn(async move {
                        let mut dice = fastrand::Rng::with_seed(task);
                        for turn in 0..each {
                            let $turn = dice.usize(..);
                            std::hint::black_box($call);
                            if turn % $crate::stage::YIELD_EVERY == 0 {
                                tokio::task::yield_now().await;
                            }
                        }
                    })
                })
                .collect();
            $crate::stage::join_all(stage, running);
            (each * tasks, start.elapsed())
        }
    }};
}
pub(crate) use {alone, together};

/// After how many calls without I/O a task lets others run, as a service that answers requests would. The
/// flush is one of those others.
pub(crate) const YIELD_EVERY: u64 = 256;

pub(crate) fn join_all(stage: &Stage, tasks: Vec<tokio::task::JoinHandle<()>>) {
    stage.runtime.block_on(async {
        for task in tasks {
            task.await.expect("the task does not panic");
        }
    });
}

/// Polls until the condition holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
