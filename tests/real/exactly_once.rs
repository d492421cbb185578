//! Every acknowledged increment of a lax counter is counted once, whatever becomes of the connections.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use distkit::{
    DistkitError, RedisKey,
    counter::{CounterTrait, LaxCounter, LaxHandle},
};
use distkit_testkit::Server;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use crate::support::{Bench, Client, Dice, keys, over_both_clients, soak};

over_both_clients!(connections_are_killed, the_server_is_killed);

/// How many keys are added to.
const KEYS: usize = 1000;
/// How many more there are of which each process replaces its own part.
const REPLACED: usize = 20;

/// What the load needs of a lax counter, whichever family it is of.
#[async_trait]
pub(crate) trait Lax: Send + Sync + 'static {
    type Handle: Send;

    async fn add(&self, key: &RedisKey, count: i64) -> Result<(), DistkitError>;

    /// Replaces the process's own part, where there is such a thing.
    async fn replace(&self, key: &RedisKey, count: i64) -> Option<Result<(), DistkitError>>;

    async fn hold(&self, key: &RedisKey) -> Result<Self::Handle, DistkitError>;

    fn add_through(handle: &Self::Handle, count: i64) -> Result<(), DistkitError>;

    async fn flush(&self) -> Result<(), DistkitError>;

    /// Reads the keys: one that is known takes increments at any time.
    async fn know(&self, keys: &[&RedisKey]) -> Result<(), DistkitError>;
}

#[async_trait]
impl Lax for LaxCounter {
    type Handle = LaxHandle;

    async fn add(&self, key: &RedisKey, count: i64) -> Result<(), DistkitError> {
        self.inc(key, count).await.map(drop)
    }

    async fn replace(&self, _: &RedisKey, _: i64) -> Option<Result<(), DistkitError>> {
        None
    }

    async fn hold(&self, key: &RedisKey) -> Result<LaxHandle, DistkitError> {
        self.handle(key).await
    }

    fn add_through(handle: &LaxHandle, count: i64) -> Result<(), DistkitError> {
        handle.inc(count).map(drop)
    }

    async fn flush(&self) -> Result<(), DistkitError> {
        self.flush().await
    }

    async fn know(&self, keys: &[&RedisKey]) -> Result<(), DistkitError> {
        self.get_all(keys).await.map(drop)
    }
}

/// What several processes write, and what became of it.
pub(crate) struct Load {
    pub(crate) keys: Vec<RedisKey>,
    /// For each process, the sum of what was acknowledged for each key.
    acknowledged: Vec<Vec<AtomicI64>>,
    calls: AtomicU64,
    turned_down: AtomicU64,
    /// Flushes on demand that the counter could not say succeeded, though they may have.
    unknown: AtomicU64,
    over: AtomicBool,
}

/// What is done to the server again and again.
pub(crate) struct Harm {
    pub(crate) every: Duration,
    pub(crate) length: Duration,
    pub(crate) least_rounds: u32,
    pub(crate) work: for<'b> fn(&'b Bench) -> BoxFuture<'b, ()>,
}

impl Load {
    pub(crate) fn of(processes: usize) -> Arc<Self> {
        let keys = keys(KEYS + REPLACED);
        let zeros = || keys.iter().map(|_| AtomicI64::new(0)).collect();
        Arc::new(Self {
            acknowledged: (0..processes).map(|_| zeros()).collect(),
            keys,
            calls: AtomicU64::new(0),
            turned_down: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            over: AtomicBool::new(false),
        })
    }

    pub(crate) fn names(&self) -> Vec<&RedisKey> {
        self.keys.iter().collect()
    }

    /// What was acknowledged to one process for a key.
    pub(crate) fn part(&self, process: usize, key: usize) -> i64 {
        self.acknowledged[process][key].load(SeqCst)
    }

    /// What was acknowledged to all processes for a key.
    pub(crate) fn sum(&self, key: usize) -> i64 {
        (0..self.acknowledged.len()).map(|process| self.part(process, key)).sum()
    }

    fn count<T>(&self, answer: Result<T, DistkitError>, taken: impl FnOnce()) {
        match answer {
            Ok(_) => {
                taken();
                self.calls.fetch_add(1, SeqCst);
            }
            Err(error) => {
                assert!(!error.may_have_happened(), "a buffered write is taken or not: {error}");
                self.turned_down.fetch_add(1, SeqCst);
            }
        }
    }

    /// Adds, through the counter and through handles, until the load is over.
    async fn add<C: Lax>(self: Arc<Self>, counter: Arc<C>, process: usize, seed: u64) {
        let mut dice = Dice::new(seed);
        let acknowledged = &self.acknowledged[process];
        let mut handle: Option<(usize, C::Handle)> = None;
        while !self.over.load(SeqCst) {
            for _ in 0..50 {
                let n = dice.below(KEYS);
                let count = [1, 1, 1, 5, -2, 1000][dice.below(6)];
                self.count(counter.add(&self.keys[n], count).await, || {
                    acknowledged[n].fetch_add(count, SeqCst);
                });
                if let Some((n, handle)) = &handle {
                    self.count(C::add_through(handle, 1), || {
                        acknowledged[*n].fetch_add(1, SeqCst);
                    });
                }
            }
            let n = dice.below(KEYS);
            if let Ok(new) = counter.hold(&self.keys[n]).await {
                handle = Some((n, new));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Replaces the process's own part of keys that nobody else in it writes, and adds to it.
    async fn replace<C: Lax>(self: Arc<Self>, counter: Arc<C>, process: usize, seed: u64) {
        let mut dice = Dice::new(seed);
        while !self.over.load(SeqCst) {
            let n = KEYS + dice.below(REPLACED);
            let (key, acknowledged) = (&self.keys[n], &self.acknowledged[process][n]);
            let count = dice.below(1000) as i64 - 500;
            let Some(replaced) = counter.replace(key, count).await else { return };
            self.count(replaced, || acknowledged.store(count, SeqCst));
            self.count(counter.add(key, 3).await, || {
                acknowledged.fetch_add(3, SeqCst);
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Flushes on demand, on top of the flushes that the counter does by itself.
    async fn flush<C: Lax>(self: Arc<Self>, counter: Arc<C>) {
        while !self.over.load(SeqCst) {
            // Fails when a connection is lost; what counts is what the store holds in the end.
            if counter.flush().await.is_err_and(|error| error.may_have_happened()) {
                self.unknown.fetch_add(1, SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    }

    /// Runs each process's load while harm is done to the server.
    pub(crate) async fn run<C: Lax>(
        self: &Arc<Self>,
        bench: &Bench,
        counters: &[Arc<C>],
        harm: Harm,
    ) {
        for counter in counters {
            counter.know(&self.names()).await.unwrap();
        }
        let mut tasks = JoinSet::new();
        for (process, counter) in counters.iter().enumerate() {
            let seed = 3 * process as u64 + 1;
            tasks.spawn(self.clone().add(counter.clone(), process, seed));
            tasks.spawn(self.clone().add(counter.clone(), process, seed + 1));
            tasks.spawn(self.clone().replace(counter.clone(), process, seed + 2));
            tasks.spawn(self.clone().flush(counter.clone()));
        }

        let end = tokio::time::Instant::now() + harm.length;
        let mut rounds = 0;
        while tokio::time::Instant::now() < end || rounds < harm.least_rounds {
            tokio::time::sleep(harm.every).await;
            (harm.work)(bench).await;
            rounds += 1;
        }
        self.over.store(true, SeqCst);
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        let calls = self.calls.load(SeqCst);
        println!(
            "{:?}: {calls} acknowledged, {} turned down, {rounds} rounds of harm, {} flushes of \
             unknown outcome",
            bench.client,
            self.turned_down.load(SeqCst),
            self.unknown.load(SeqCst),
        );
        assert!(calls > 1000, "there was next to no load");
    }
}

pub(crate) fn killed_connections() -> Harm {
    Harm {
        every: Duration::from_millis(30),
        length: soak(Duration::from_secs(4)),
        least_rounds: 20,
        work: |bench| Box::pin(kill_connections(bench)),
    }
}

pub(crate) fn killed_servers() -> Harm {
    Harm {
        every: Duration::from_millis(400),
        length: soak(Duration::from_secs(3)),
        least_rounds: 4,
        work: |bench| Box::pin(kill_server(bench, Duration::ZERO)),
    }
}

/// Requests that come while the server is busy are done before the kill, and their answers are lost.
pub(crate) async fn kill_connections(bench: &Bench) {
    const BUSY: &str = "local start = os.clock() while os.clock() - start < 0.01 do end";
    let (mut busy, mut killer) = (bench.raw().await, bench.raw().await);
    let stall = async {
        // Its own answer is lost as well.
        let _: redis::RedisResult<()> =
            redis::cmd("EVAL").arg(BUSY).arg(0).query_async(&mut busy).await;
    };
    let kill = async {
        tokio::time::sleep(Duration::from_millis(7)).await;
        let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").to_owned();
        let killed: u64 = kill.query_async(&mut killer).await.unwrap();
        assert!(killed > 0);
    };
    tokio::join!(stall, kill);
}

/// Kills the server, which stays away for a while.
pub(crate) async fn kill_server(bench: &Bench, away: Duration) {
    bench.blocking(Server::kill_9).await;
    tokio::time::sleep(away).await;
    bench.blocking(Server::restart).await;
}

async fn exact_under(bench: Bench, harm: Harm) {
    let load = Load::of(2);
    let counters =
        [bench.lax(Duration::from_millis(5)).await, bench.lax(Duration::from_millis(20)).await];
    load.run(&bench, &counters, harm).await;
    for counter in &counters {
        counter.shutdown(Duration::from_secs(30)).await.unwrap();
    }
    let strict = bench.strict().await;
    let totals = strict.get_all(&load.names()).await.unwrap();
    let mut wrong = Vec::new();
    for (n, (key, total)) in totals.into_iter().enumerate() {
        let difference = total.unwrap() - load.sum(n);
        if difference != 0 {
            wrong.push((key, difference));
        }
    }
    assert!(wrong.is_empty(), "difference between store and acknowledged: {wrong:?}");
}

async fn connections_are_killed(client: Client) {
    exact_under(Bench::new(client).await, killed_connections()).await;
}

async fn the_server_is_killed(client: Client) {
    exact_under(Bench::durable(client).await, killed_servers()).await;
}
