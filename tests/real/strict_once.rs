//! Every strict write is answered, applied once, and gets an answer that nobody else gets, whatever becomes of the
//! connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    CounterComparator::Gt,
    DistkitError, RedisKey,
    counter::{CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    exactly_once::{Harm, killed_connections, killed_servers},
    support::{Bench, Client, eventually, key, keys, over_both_clients},
};

over_both_clients!(
    connections_are_killed,
    the_server_is_killed,
    slices_while_connections_are_killed,
    without_the_guard_outcomes_are_unknown,
);

/// So long that nothing a test does to a server lasts longer.
const UNKNOWN_AFTER: Duration = Duration::from_secs(60);
const STOCK: i64 = 1_000_000;

/// A call that was answered, and when.
#[derive(Clone, Copy)]
struct Answered {
    began: Instant,
    ended: Instant,
    total: i64,
}

#[derive(Default)]
struct Load {
    answered: Mutex<BTreeMap<RedisKey, Vec<Answered>>>,
    sold: AtomicU64,
    unsent: AtomicU64,
    unknown: AtomicU64,
    over: AtomicBool,
}

type Inc = Arc<dyn Fn(RedisKey) -> BoxFuture<'static, Result<i64, DistkitError>> + Send + Sync>;

impl Load {
    async fn add(self: Arc<Self>, inc: Inc, keys: Vec<RedisKey>) {
        let mut at = 0;
        while !self.over.load(SeqCst) {
            at = (at + 1) % keys.len();
            let began = Instant::now();
            match inc(keys[at].clone()).await {
                Ok(total) => {
                    let answered = Answered { began, ended: Instant::now(), total };
                    self.answered.lock().entry(keys[at].clone()).or_default().push(answered);
                }
                Err(error) => self.failed(&error).await,
            }
        }
    }

    /// Sells one at a time, as long as there is one.
    async fn sell(self: Arc<Self>, counter: Arc<StrictCounter>, stock: RedisKey) {
        while !self.over.load(SeqCst) {
            match counter.inc_if(&stock, Gt(0), -1).await {
                Ok((new, old)) => {
                    assert_eq!(new, old - 1);
                    self.sold.fetch_add(1, SeqCst);
                }
                Err(error) => self.failed(&error).await,
            }
        }
    }

    async fn failed(&self, error: &DistkitError) {
        let which = if error.may_have_happened() { &self.unknown } else { &self.unsent };
        which.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    /// No answer twice, none against real time; gives how many there were for each key.
    fn check(&self) -> BTreeMap<RedisKey, i64> {
        let mut answered = self.answered.lock();
        let mut counts = BTreeMap::new();
        for (key, calls) in &mut *answered {
            calls.sort_by_key(|call| call.total);
            let distinct: BTreeSet<_> = calls.iter().map(|call| call.total).collect();
            assert_eq!(distinct.len(), calls.len(), "{key}: an answer was given twice");
            let mut later_ended = calls.last().map(|call| call.ended);
            for call in calls.iter().rev() {
                let ended = later_ended.unwrap_or(call.ended);
                assert!(
                    call.began <= ended,
                    "{key}: {} was answered after a later one",
                    call.total
                );
                later_ended = Some(ended.min(call.ended));
            }
            counts.insert(key.clone(), calls.len() as i64);
        }
        counts
    }

    async fn harmed(self: &Arc<Self>, bench: &Bench, mut tasks: JoinSet<()>, harm: Harm) {
        let end = Instant::now() + harm.length;
        let mut rounds = 0;
        while Instant::now() < end || rounds < harm.least_rounds {
            tokio::time::sleep(harm.every).await;
            (harm.work)(bench).await;
            rounds += 1;
        }
        self.over.store(true, SeqCst);
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        let calls: usize = self.answered.lock().values().map(Vec::len).sum();
        println!(
            "{:?}: {calls} answered, {} sold, {} unsent, {} unknown, {rounds} rounds of harm",
            bench.client,
            self.sold.load(SeqCst),
            self.unsent.load(SeqCst),
            self.unknown.load(SeqCst),
        );
        assert!(calls > 1000, "there was next to no load");
    }
}

fn joined(counter: &Arc<StrictCounter>) -> Inc {
    let counter = counter.clone();
    Arc::new(move |key| {
        let counter = counter.clone();
        Box::pin(async move { counter.inc(&key, 1).await })
    })
}

async fn plain(bench: &Bench, counters: &[Arc<StrictCounter>], harm: Harm) -> Arc<Load> {
    let load = Arc::new(Load::default());
    let stock = key("stock");
    counters[0].set(&stock, STOCK).await.unwrap();
    let mut tasks = JoinSet::new();
    for counter in counters {
        for task in 0..16 {
            // Some share one key, others go from key to key.
            let keys = if task % 2 == 0 { vec![key("hot")] } else { keys(50) };
            tasks.spawn(load.clone().add(joined(counter), keys));
        }
        tasks.spawn(load.clone().sell(counter.clone(), stock.clone()));
    }
    load.harmed(bench, tasks, harm).await;
    load
}

async fn exact_under(bench: Bench, harm: Harm) {
    let mut counters = Vec::new();
    for _ in 0..2 {
        let options = bench.options().await.unknown_after(UNKNOWN_AFTER);
        counters.push(StrictCounter::new(options));
    }
    let load = plain(&bench, &counters, harm).await;
    assert_eq!(load.unknown.load(SeqCst), 0, "every outcome is told within the deadline");
    for (key, count) in load.check() {
        assert_eq!(bench.held(&key).await, count, "{key}: as many as were answered");
    }
    let sold = i64::try_from(load.sold.load(SeqCst)).unwrap();
    assert_eq!(bench.held(&key("stock")).await, STOCK - sold, "each sale happened once");
}

async fn connections_are_killed(client: Client) {
    exact_under(Bench::new(client).await, killed_connections()).await;
}

async fn the_server_is_killed(client: Client) {
    exact_under(Bench::durable(client).await, killed_servers()).await;
}

/// What the guard is good for: the same harm reaches calls, and without it their outcomes stay unknown.
async fn without_the_guard_outcomes_are_unknown(client: Client) {
    let bench = Bench::new(client).await;
    let counter = StrictCounter::new(bench.options().await.unguarded());
    let load = plain(&bench, &[counter], killed_connections()).await;
    let answered: i64 = load.check().values().sum();
    let (mut held, mut names) = (bench.held(&key("hot")).await, keys(50));
    for key in names.drain(..) {
        held += bench.held(&key).await;
    }
    let unknown = load.unknown.load(SeqCst);
    assert!(unknown > 0, "the harm reached no call");
    assert!(held >= answered && held <= answered + i64::try_from(unknown).unwrap());
}

async fn slices_while_connections_are_killed(client: Client) {
    let bench = Bench::new(client).await;
    let load = Arc::new(Load::default());
    let mut counters = Vec::new();
    let mut tasks = JoinSet::new();
    for process in 0..2 {
        let store = client.connect(&bench.server).await;
        let options = StrictInstanceAwareCounterOptions::new(key("bench"), store);
        let counter = StrictInstanceAwareCounter::new(options.unknown_after(UNKNOWN_AFTER));
        for _ in 0..8 {
            let counter = counter.clone();
            // The slice is this process's own, so its numbers are counted as another key's.
            let inc: Inc = Arc::new(move |_| {
                let counter = counter.clone();
                Box::pin(async move { Ok(counter.inc(&key("k"), 1).await?.1) })
            });
            tasks.spawn(load.clone().add(inc, vec![key(&format!("slice {process}"))]));
        }
        counters.push(counter);
    }
    load.harmed(&bench, tasks, killed_connections()).await;
    assert_eq!(load.unknown.load(SeqCst), 0, "every outcome is told within the deadline");
    let counts = load.check();
    let total: i64 = counts.values().sum();
    for (process, counter) in counters.iter().enumerate() {
        let own = counts[&key(&format!("slice {process}"))];
        // A read is not repeated by itself, and the connection has just been killed.
        let k = key("k");
        eventually("a connection", async || counter.get(&k).await.is_ok()).await;
        assert_eq!(counter.get(&k).await.unwrap(), (total, own));
    }
}
