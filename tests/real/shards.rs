//! A prefix over a whole cluster: exact while slots move and nodes stop, die and are replaced.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    CounterComparator, DistkitError, RedisKey, Windows,
    backend::{BackendError, Space, Store, connect},
    counter::{
        CounterOptions, CounterTrait, LaxCounter, StrictCounter, copy_prefix,
        copy_prefix_without_windows,
    },
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Cluster, Server};
use tokio::time::Instant;

use crate::support::{Client, eventually, key, keys, over_both_clients};

over_both_clients!(
    a_prefix_over_a_cluster_stays_exact,
    a_prefix_over_a_cluster_stays_exact_on_valkey,
    a_node_that_hangs_or_is_gone_fails_no_call_to_the_others,
    other_numbers_of_shards_are_refused,
    a_prefix_is_copied_over_a_cluster,
);

const SHARDS: u16 = 12;

async fn a_prefix_over_a_cluster_stays_exact(client: Client) {
    stays_exact(client, Server::redis()).await;
}

async fn a_prefix_over_a_cluster_stays_exact_on_valkey(client: Client) {
    stays_exact(client, Server::valkey()).await;
}

impl Client {
    /// A connection as a service has it that names its store by URL.
    async fn connect_by_url(self, cluster: &Cluster) -> Arc<dyn Store> {
        let urls = cluster.urls();
        let scheme = match self {
            Self::Redis => "redis-cluster://",
            Self::Fred => "redis-cluster+fred://",
        };
        let mut url = urls[0].replacen("redis://", scheme, 1);
        for (n, other) in urls[1..].iter().enumerate() {
            let node = other.trim_start_matches("redis://").trim_end_matches('/');
            url += if n == 0 { "?node=" } else { "&node=" };
            url += node;
        }
        connect(&url).await.unwrap()
    }
}

async fn blocking<T: Send + 'static>(
    cluster: &Arc<Cluster>,
    work: impl FnOnce(&Cluster) -> T + Send + 'static,
) -> T {
    let cluster = cluster.clone();
    tokio::task::spawn_blocking(move || work(&cluster)).await.unwrap()
}

/// The counters of one process.
struct Process {
    strict: Arc<StrictCounter>,
    lax: Arc<LaxCounter>,
    shared: Arc<StrictInstanceAwareCounter>,
    shared_lax: Arc<LaxInstanceAwareCounter>,
}

impl Process {
    async fn start(client: Client, cluster: &Cluster, prefix: &RedisKey) -> Self {
        let store = client.connect_by_url(cluster).await;
        // Longer than a node may be unreachable here.
        let patience = Duration::from_secs(60);
        let lag = Duration::from_millis(10);
        let options = CounterOptions::new(prefix.clone(), store.clone())
            .shards(SHARDS)
            .unknown_after(patience)
            .allowed_lag(lag);
        let shared = StrictInstanceAwareCounterOptions::new(prefix.clone(), store.clone())
            .shards(SHARDS)
            .unknown_after(patience);
        let shared_lax = LaxInstanceAwareCounterOptions::new(prefix.clone(), store)
            .shards(SHARDS)
            .allowed_lag(lag);
        Self {
            strict: StrictCounter::new(options.clone()),
            lax: LaxCounter::new(options),
            shared: StrictInstanceAwareCounter::new(shared),
            shared_lax: LaxInstanceAwareCounter::new(shared_lax),
        }
    }
}

/// What tasks counted for sure, and what may have been counted besides.
#[derive(Default, Clone, Copy)]
struct Counted {
    sure: i64,
    unsure: i64,
    refused: u64,
}

/// Tasks that count in all ways, on all keys, until they are told to stop.
struct Load {
    over: Arc<AtomicBool>,
    /// Nothing is begun while it is set.
    paused: Arc<AtomicBool>,
    in_flight: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<(usize, Counted)>>,
}

impl Load {
    fn start(processes: &[Arc<Process>], rooms: &Arc<Vec<RedisKey>>) -> Self {
        let mut load = Self {
            over: Arc::default(),
            paused: Arc::default(),
            in_flight: Arc::default(),
            done: Arc::default(),
            tasks: Vec::new(),
        };
        for (n, process) in processes.iter().enumerate() {
            // Of strict calls, a few wait for the node that is down; others go on meanwhile.
            for kind in [0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3] {
                load.tasks.push(tokio::spawn(load.task(n, kind, process.clone(), rooms.clone())));
            }
        }
        load
    }

    fn task(
        &self,
        n: usize,
        kind: usize,
        process: Arc<Process>,
        rooms: Arc<Vec<RedisKey>>,
    ) -> impl Future<Output = (usize, Counted)> + use<> {
        let (over, paused) = (self.over.clone(), self.paused.clone());
        let (in_flight, done) = (self.in_flight.clone(), self.done.clone());
        async move {
            let mut counted = Counted::default();
            for round in n.. {
                if over.load(SeqCst) {
                    break;
                }
                in_flight.fetch_add(1, SeqCst);
                if paused.load(SeqCst) {
                    in_flight.fetch_sub(1, SeqCst);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
                let room = &rooms[(round * 7 + kind) % rooms.len()];
                let answer = match kind {
                    0 if round % 3 == 0 => {
                        let any = CounterComparator::Gt(-1);
                        process.strict.inc_if(room, any, 1).await.map(drop)
                    }
                    0 => process.strict.inc(room, 1).await.map(drop),
                    1 => process.lax.inc(room, 1).await.map(drop),
                    2 => process.shared.inc(room, 1).await.map(drop),
                    _ => process.shared_lax.inc(room, 1).await.map(drop),
                };
                match answer {
                    Ok(()) => counted.sure += 1,
                    Err(error) if error.may_have_happened() => counted.unsure += 1,
                    Err(_) => counted.refused += 1,
                }
                in_flight.fetch_sub(1, SeqCst);
                done.fetch_add(1, SeqCst);
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            (kind, counted)
        }
    }

    /// Waits until so many more calls have returned.
    async fn goes_on(&self, calls: u64) {
        let before = self.done.load(SeqCst);
        eventually("calls that return", async || self.done.load(SeqCst) >= before + calls).await;
    }

    async fn pause(&self, processes: &[Arc<Process>]) {
        self.paused.store(true, SeqCst);
        eventually("calls in flight", async || self.in_flight.load(SeqCst) == 0).await;
        for process in processes {
            flush(process).await;
        }
    }

    fn resume(&self) {
        self.paused.store(false, SeqCst);
    }

    async fn stop(self) -> [Counted; 4] {
        self.over.store(true, SeqCst);
        let mut all = [Counted::default(); 4];
        for task in self.tasks {
            let (kind, counted) = task.await.unwrap();
            all[kind].sure += counted.sure;
            all[kind].unsure += counted.unsure;
            all[kind].refused += counted.refused;
        }
        all
    }
}

async fn flush(process: &Process) {
    eventually("the flushes", async || {
        process.lax.flush().await.is_ok() && process.shared_lax.flush().await.is_ok()
    })
    .await;
}

async fn stays_exact(client: Client, server: distkit_testkit::ServerBuilder) {
    let start = move || Cluster::with_replicas(server);
    let cluster = Arc::new(tokio::task::spawn_blocking(start).await.unwrap());
    let prefix = key("spread");
    let rooms = Arc::new(keys(300));
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(Arc::new(Process::start(client, &cluster, &prefix).await));
    }
    let load = Load::start(&processes, &rooms);
    load.goes_on(2000).await;

    // Slots move: first a hundred of each of two nodes, whole shards among them, then all back.
    for (from, to) in [(0, 1), (1, 2)] {
        blocking(&cluster, move |cluster| cluster.reshard(from, to, 100)).await;
    }
    blocking(&cluster, Cluster::rebalance).await;
    load.goes_on(1000).await;

    // A node hangs. The shards of the others are flushed and read as before.
    let slot = Space::new(prefix.clone()).slot();
    let others: Vec<_> = {
        let (victim, spaces) = blocking(&cluster, move |cluster| {
            let victim = cluster.owner(slot);
            let spaces = Space::shards_of(key("spread"), SHARDS);
            let others = spaces.iter().filter(|space| cluster.owner(space.slot()) != victim);
            (victim, others.map(Space::shard).collect::<Vec<_>>())
        })
        .await;
        load.pause(&processes).await;
        blocking(&cluster, move |cluster| {
            cluster.wait_replicated(victim);
            cluster.nodes()[victim].freeze();
        })
        .await;
        load.resume();
        let room = |shard: &u16| rooms.iter().find(|room| Space::shard_of(room, SHARDS) == *shard);
        let healthy: Vec<_> = spaces.iter().filter_map(room).cloned().collect();
        assert!(healthy.len() >= 4, "{spaces:?}");
        let began = Instant::now();
        for room in &healthy {
            let held = processes[0].strict.get(room).await.unwrap();
            processes[0].lax.inc(room, 1).await.unwrap();
            eventually("another process's flush", async || {
                processes[1].lax.get(room).await.is_ok_and(|total| total > held)
            })
            .await;
        }
        println!("{client:?}: {} living shards in {:?}", healthy.len(), began.elapsed());
        // Its replica takes its place, then it is killed and comes back as a replica.
        blocking(&cluster, move |cluster| {
            cluster.wait_replaced(slot, victim);
            cluster.nodes()[victim].kill_9();
        })
        .await;
        load.goes_on(1000).await;
        blocking(&cluster, move |cluster| {
            cluster.nodes()[victim].restart();
            cluster.wait_ok();
        })
        .await;
        load.goes_on(500).await;
        healthy
    };

    let counted = load.stop().await;
    for process in &processes {
        flush(process).await;
    }
    let names = ["strict", "lax", "instance-aware", "lax instance-aware"];
    for (what, Counted { sure, unsure, refused }) in names.iter().zip(&counted) {
        println!("{client:?} {what}: {sure}, {unsure} unknown, {refused} refused");
        assert!(*sure > 100, "{what}: {sure} were counted");
    }
    let [plain, mut plain_lax, instance, instance_lax] = counted;
    plain_lax.sure += others.len() as i64;
    let process = &processes[0];
    let (mut plainly, mut together) = (0, 0);
    for room in &*rooms {
        let mut all = (0, 0);
        eventually("an answer", async || {
            let (Ok(total), Ok((shared, _))) =
                (process.strict.get(room).await, process.shared.get(room).await)
            else {
                return false;
            };
            all = (total, shared);
            true
        })
        .await;
        plainly += all.0;
        together += all.1;
    }
    for (total, strict, lax) in [(plainly, plain, plain_lax), (together, instance, instance_lax)] {
        assert_eq!(lax.unsure, 0);
        let (sure, unsure) = (strict.sure + lax.sure, strict.unsure);
        assert!((sure..=sure + unsure).contains(&total), "{sure} + {unsure}: {total}");
    }
}

/// Longer than either client waits for an answer, a connection, and between attempts to connect.
const OUTAGE: Duration = Duration::from_secs(9);

/// The one node is not replaced: nothing tells the clients to stop trying.
async fn a_node_that_hangs_or_is_gone_fails_no_call_to_the_others(client: Client) {
    let start = || {
        let coverage = ["--cluster-require-full-coverage", "no"];
        Cluster::of(Server::redis().args(&coverage))
    };
    let cluster = Arc::new(tokio::task::spawn_blocking(start).await.unwrap());
    let prefix = key("spread");
    let mut processes = Vec::new();
    for _ in 0..2 {
        processes.push(Arc::new(Process::start(client, &cluster, &prefix).await));
    }
    let rooms = keys(60);
    for room in &rooms {
        for process in &processes {
            process.strict.inc(room, 1).await.unwrap();
            process.lax.inc(room, 1).await.unwrap();
            process.shared.inc(room, 1).await.unwrap();
            process.shared_lax.inc(room, 1).await.unwrap();
        }
    }
    flush(&processes[0]).await;
    flush(&processes[1]).await;
    let (victim, living) = blocking(&cluster, |cluster| {
        let spaces = Space::shards_of(key("spread"), SHARDS);
        // The node in whose slots the prefix's shape is: no living shard needs it any more.
        let victim = cluster.owner(Space::new(key("spread")).slot());
        let others = spaces.iter().filter(|space| cluster.owner(space.slot()) != victim);
        (victim, others.map(Space::shard).collect::<Vec<_>>())
    })
    .await;
    let (healthy, lost): (Vec<_>, Vec<_>) =
        rooms.iter().partition(|room| living.contains(&Space::shard_of(room, SHARDS)));
    let lost = lost[0];

    for gone in [false, true] {
        blocking(&cluster, move |cluster| match gone {
            false => cluster.nodes()[victim].freeze(),
            true => cluster.nodes()[victim].kill_9(),
        })
        .await;
        // Each client finds out, and goes on to do so while the others are asked.
        let waits = tokio::spawn({
            let (processes, lost) = (processes.clone(), lost.clone());
            async move {
                for process in &processes {
                    process.lax.inc(&lost, 1).await.unwrap();
                }
                processes[0].strict.inc(&lost, 1).await
            }
        });
        let (began, mut longest, mut calls) = (Instant::now(), Duration::ZERO, 0);
        while began.elapsed() < OUTAGE {
            for room in &healthy {
                let asked = Instant::now();
                let held = processes[0].strict.inc(room, 1).await.unwrap();
                let (_, slice) = processes[0].shared.inc(room, 1).await.unwrap();
                assert!(slice > 0);
                longest = longest.max(asked.elapsed());
                processes[0].lax.inc(room, 1).await.unwrap();
                processes[0].shared_lax.inc(room, 1).await.unwrap();
                eventually("another process's flush", async || {
                    processes[1].lax.get(room).await.unwrap() > held
                })
                .await;
                calls += 1;
            }
        }
        println!("{client:?}, gone={gone}: {calls} rounds, two strict calls at most {longest:?}");
        blocking(&cluster, move |cluster| match gone {
            false => cluster.nodes()[victim].thaw(),
            true => cluster.nodes()[victim].restart(),
        })
        .await;
        waits.await.unwrap().unwrap();
        for process in &processes {
            flush(process).await;
        }
    }
}

async fn other_numbers_of_shards_are_refused(client: Client) {
    let cluster = Arc::new(tokio::task::spawn_blocking(Cluster::start).await.unwrap());
    let store = client.connect_by_url(&cluster).await;
    let with = |store: &Arc<dyn Store>, prefix, shards| {
        CounterOptions::new(key(prefix), store.clone()).shards(shards)
    };
    StrictCounter::new(with(&store, "p", 7)).inc(&key("a"), 1).await.unwrap();
    StrictCounter::new(with(&store, "one", 1)).inc(&key("a"), 1).await.unwrap();
    let size = |cluster: &Cluster| -> Vec<String> {
        cluster.nodes().iter().map(|node| node.cli(&["DBSIZE"])).collect()
    };
    let before = blocking(&cluster, size).await;
    for (prefix, shards) in [("p", 1), ("p", 12), ("one", 7)] {
        // A process of its own, which has not looked before.
        let store = client.connect_by_url(&cluster).await;
        let options = with(&store, prefix, shards);
        let lax = LaxCounter::new(options.clone());
        let strict = StrictCounter::new(options);
        let shared = StrictInstanceAwareCounter::new(
            StrictInstanceAwareCounterOptions::new(key(prefix), store.clone()).shards(shards),
        );
        for error in [
            strict.get(&key("a")).await.unwrap_err(),
            strict.inc(&key("a"), 1).await.unwrap_err(),
            strict.set(&key("b"), 1).await.unwrap_err(),
            lax.inc(&key("c"), 1).await.unwrap_err(),
            shared.inc(&key("a"), 1).await.unwrap_err(),
            lax.set(&key("d"), 1).await.unwrap_err(),
        ] {
            let DistkitError::NotApplied(BackendError::ShapeMismatch { ours, .. }) = error else {
                panic!("{prefix} {shards}: {error:?}");
            };
            assert_eq!(ours, format!("layout 1, {shards} shards"));
        }
        let error = strict.clear().await.unwrap_err();
        assert!(!error.may_have_happened(), "{error:?}");
        assert_eq!(blocking(&cluster, size).await, before, "{prefix} {shards}");
    }
}

/// Each shard is on the node that has its slot, in the source and in the copy.
async fn a_prefix_is_copied_over_a_cluster(client: Client) {
    let cluster = Arc::new(tokio::task::spawn_blocking(Cluster::start).await.unwrap());
    let store = client.connect_by_url(&cluster).await;
    let of = |shards: u16| {
        CounterOptions::new(key(&format!("copy-{shards}")), store.clone()).shards(shards)
    };
    let shared = |shards: u16, name: Option<&str>| {
        let options =
            StrictInstanceAwareCounterOptions::new(key(&format!("copy-{shards}")), store.clone())
                .shards(shards)
                .dead_instance_threshold_ms(600_000);
        StrictInstanceAwareCounter::new(match name {
            Some(name) => options.instance_name(key(name)),
            None => options,
        })
    };
    let rooms = keys(1200);
    let (a, b) = (shared(1, Some("pod-a")), shared(1, None));
    let adds = |amount| rooms.iter().map(|room| (room, amount)).collect::<Vec<_>>();
    for (_, outcome) in StrictCounter::new(of(1)).inc_all(&adds(7)).await.unwrap() {
        outcome.unwrap();
    }
    for (which, amount) in [(&a, 3), (&b, -1)] {
        for (_, outcome) in which.inc_all(&adds(amount)).await.unwrap() {
            outcome.unwrap();
        }
    }
    for room in &rooms[..100] {
        b.set(room, 40).await.unwrap();
    }
    let mut nodes = [0; 3];
    let all: Vec<_> = rooms.iter().collect();
    for (from, to) in [(1, 3), (3, 7)] {
        let copied = copy_prefix(&of(from), &of(to)).await.unwrap();
        assert_eq!(
            (copied.counters, copied.instance_aware_counters, copied.instances),
            (1200, 1200, 2),
            "{from} -> {to}"
        );
        assert_eq!(copy_prefix(&of(from), &of(to)).await.unwrap(), copied, "once more");
        for (_, total) in StrictCounter::new(of(to)).get_all(&all).await.unwrap() {
            assert_eq!(total.unwrap(), 7);
        }
        let looks = shared(to, None);
        for (n, (_, held)) in looks.get_all(&all).await.unwrap().into_iter().enumerate() {
            assert_eq!(held.unwrap(), (if n < 100 { 40 } else { 2 }, 0));
        }
        nodes = blocking(&cluster, move |cluster| {
            let mut nodes = [0; 3];
            for space in Space::shards_of(key(&format!("copy-{to}")), to) {
                nodes[cluster.owner(space.slot())] += 1;
            }
            nodes
        })
        .await;
    }
    assert!(nodes.iter().all(|shards| *shards > 0), "the shards are on all nodes: {nodes:?}");
    // The next pod of that name takes the place of the copy of the older one, slices and all.
    assert_eq!(shared(7, Some("pod-a")).inc(&rooms[1199], 10).await.unwrap(), (9, 10));

    // Windows of one shard, wherever that is.
    let hourly = Windows::every(Duration::from_secs(3600)).keep(24);
    StrictCounter::new(of(7).windows(hourly)).inc(&rooms[5], 1).await.unwrap();
    let to = CounterOptions::new(key("copy-last"), store.clone()).shards(2);
    let error = copy_prefix(&of(7), &to).await.unwrap_err();
    assert!(!error.may_have_happened(), "{error:?}");
    let copied = copy_prefix_without_windows(&of(7), &to).await.unwrap();
    assert_eq!((copied.counters, copied.instance_aware_counters), (1200, 1200));
}
