//! Lost answers, over each client: what was applied is applied once, and what is not known is said so.
#![cfg(all(feature = "redis-rs", feature = "redis-rs-cluster", feature = "fred"))]
#![allow(clippy::unwrap_used)]

#[path = "support/lossy.rs"]
mod lossy;
#[path = "support/removals.rs"]
mod removals;

use std::{sync::Arc, time::Duration};

use distkit::{
    CounterComparator, RedisKey,
    backend::{
        BackendError, Instance, InstanceBackend, IntoBackend, Member, ReplayGuard, Scope,
        SliceChange, SliceWrite, Space, Store, Write, connect,
    },
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use distkit_testkit::{Cluster, Server};
use fred::{
    interfaces::ClientLike,
    types::{
        Builder,
        config::{Config, ReconnectPolicy},
    },
};
use tokio::time::Instant;

use lossy::{Fault, Lossy};

const DEADLINE: Duration = Duration::from_secs(20);

/// How long clients wait for an answer that will not come. One that will may take its time.
fn patience(fault: Fault) -> Duration {
    match fault {
        Fault::Drop => DEADLINE,
        Fault::Hang => Duration::from_millis(400),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Manager,
    Multiplexed,
    RedisCluster,
    FredClient,
    FredPool,
    FredCluster,
}

use Kind::{FredClient, FredCluster, FredPool, Manager, Multiplexed, RedisCluster};

const ALL: [Kind; 6] = [Manager, Multiplexed, RedisCluster, FredClient, FredPool, FredCluster];

impl Kind {
    fn cluster(self) -> bool {
        matches!(self, RedisCluster | FredCluster)
    }

    async fn store(self, port: u16, patience: Duration) -> Arc<dyn Store> {
        let url = format!("redis://127.0.0.1:{port}");
        match self {
            Manager => {
                let config =
                    redis::aio::ConnectionManagerConfig::new().set_response_timeout(Some(patience));
                let client = redis::Client::open(url).unwrap();
                client.get_connection_manager_with_config(config).await.unwrap().into_backend()
            }
            Multiplexed => {
                let config =
                    redis::AsyncConnectionConfig::new().set_response_timeout(Some(patience));
                let client = redis::Client::open(url).unwrap();
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                connection.await.unwrap().into_backend()
            }
            RedisCluster => {
                let client = redis::cluster::ClusterClient::builder([url])
                    .response_timeout(patience)
                    .retries(3)
                    .build()
                    .unwrap();
                client.get_async_connection().await.unwrap().into_backend()
            }
            FredClient | FredPool | FredCluster => {
                let scheme = if self == FredCluster { "redis-cluster" } else { "redis" };
                let url = format!("{scheme}://127.0.0.1:{port}");
                let mut builder = Builder::from_config(Config::from_url(&url).unwrap());
                builder
                    .with_performance_config(|config| config.default_command_timeout = patience)
                    .set_policy(ReconnectPolicy::new_constant(0, 10));
                if self == FredPool {
                    let pool = builder.build_pool(2).unwrap();
                    pool.init().await.unwrap();
                    pool.into_backend()
                } else {
                    let client = builder.build().unwrap();
                    client.init().await.unwrap();
                    client.into_backend()
                }
            }
        }
    }
}

/// One client in front of one server that loses answers in one way.
struct Scene {
    kind: Kind,
    fault: Fault,
    server: Server,
    lossy: Lossy,
    store: Arc<dyn Store>,
    space: Space,
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

impl Scene {
    async fn new(kind: Kind, fault: Fault) -> Self {
        let server = Server::redis().start();
        let lossy = Lossy::before(&server, fault).await;
        let store = kind.store(lossy.port(), patience(fault)).await;
        let space = Space::new(key("p"));
        // The first write looks at the shape of the space: what follows is about the writes themselves.
        store.clear(&space).await.unwrap();
        Self { kind, fault, server, lossy, store, space }
    }

    fn total(&self, name: &str) -> String {
        self.server.cli(&["HGET", "distkit:{p}:totals", name])
    }

    /// What a lost answer must give: the first answer again where the client asked again in time, else
    /// the plain truth that the outcome is unknown.
    async fn check<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        result: Result<T, BackendError>,
        answer: &T,
    ) {
        // A client may have lost patience before the server answered.
        let start = Instant::now();
        while self.lossy.left() != 0 {
            assert!(start.elapsed() < DEADLINE, "{what} {self:?}: no answer was lost");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match result {
            Ok(given) if self.kind.cluster() => assert_eq!(&given, answer, "{what} {self:?}"),
            Err(BackendError::OutcomeUnknown(_)) => {
                assert!(
                    !(self.kind.cluster() && self.fault == Fault::Drop),
                    "{what} {self:?}: the client's second attempt should have given the answer"
                );
            }
            other => panic!("{what} {self:?}: {other:?}"),
        }
    }

    /// Waits until the client has a connection again. False where none comes: clients keep a silent
    /// connection, and a multiplexed one of redis-rs never replaces any.
    async fn recovered(&self) -> bool {
        if self.kind == Multiplexed || self.fault == Fault::Hang {
            return false;
        }
        let start = Instant::now();
        while let Err(error) = self.store.read(&self.space, &[key("n")]).await {
            assert!(start.elapsed() < DEADLINE, "{self:?}: {error:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({:?}, {:?})", self.kind, self.fault)
    }
}

async fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    for kind in ALL {
        for fault in [Fault::Drop, Fault::Hang] {
            scenes.push(Scene::new(kind, fault).await);
        }
    }
    scenes
}

#[tokio::test]
async fn an_addition_happens_once() {
    for scene in scenes().await {
        scene.lossy.lose(1);
        let result = scene.store.apply(&scene.space, &[Write::add(key("n"), 1)], None).await;
        let result = result.map(|applied| applied.outcomes[0].clone().unwrap().new);
        scene.check("addition", result, &1).await;
        assert_eq!(scene.total("n"), "1", "{scene:?}");
        if scene.recovered().await {
            assert_eq!(scene.total("n"), "1", "{scene:?}, connected again");
        }
    }
}

#[tokio::test]
async fn each_addition_of_a_batch_happens_at_most_once() {
    let names = ["a", "b", "c"];
    for scene in scenes().await {
        scene.lossy.lose(1);
        let writes = names.map(|name| Write::add(key(name), 1));
        let result = scene.store.apply(&scene.space, &writes, None).await;
        let result = result.map(|applied| {
            applied.outcomes.into_iter().map(|outcome| outcome.unwrap().new).collect::<Vec<_>>()
        });
        scene.check("batch", result, &vec![1, 1, 1]).await;
        scene.recovered().await;
        assert_eq!(scene.total("a"), "1", "{scene:?}");
        for name in names {
            assert!(["", "1"].contains(&&*scene.total(name)), "{name} {scene:?}");
        }
    }
}

#[tokio::test]
async fn a_conditional_write_happens_once() {
    for scene in scenes().await {
        // So that the script is known and the fault meets the first attempt.
        let write = Write::add(key("n"), 1).only_if(CounterComparator::Lt(100));
        scene.store.apply(&scene.space, std::slice::from_ref(&write), None).await.unwrap();
        scene.lossy.lose(1);
        let result = scene.store.apply(&scene.space, &[write], None).await;
        let result = result.map(|applied| applied.outcomes[0].clone().unwrap().old);
        scene.check("conditional", result, &1).await;
        assert_eq!(scene.total("n"), "2", "{scene:?}");
    }
}

#[tokio::test]
async fn a_removal_happens_once_and_answers_what_was_held() {
    for scene in scenes().await {
        scene.server.cli(&["HSET", "distkit:{p}:totals", "n", "7"]);
        scene.lossy.lose(1);
        let result = removals::remove(&*scene.store, &scene.space, &[key("n")]).await;
        scene.check("removal", result, &vec![Ok(7)]).await;
        assert_eq!(scene.total("n"), "", "{scene:?}");
    }
}

#[tokio::test]
async fn clearing_is_not_done_again_over_newer_writes() {
    for scene in scenes().await {
        scene.server.cli(&["HSET", "distkit:{p}:totals", "n", "7"]);
        scene.lossy.lose(1);
        let result = scene.store.clear(&scene.space).await;
        scene.check("clear", result, &()).await;
        assert_eq!(scene.total("n"), "", "{scene:?}");
        scene.server.cli(&["HSET", "distkit:{p}:totals", "n", "8"]);
        scene.recovered().await;
        assert_eq!(scene.total("n"), "8", "{scene:?}");
    }
}

async fn join(store: &dyn InstanceBackend, space: &Space) -> Member {
    let lease = Duration::from_secs(3600);
    let instance = Instance::new(store.fresh_id(), lease);
    let joined = store.join(space, &instance, &[]).await.unwrap();
    Member { incarnation: joined.incarnation, lease }
}

fn slice_add(name: &str) -> SliceWrite {
    SliceWrite { key: key(name), change: SliceChange::Add(1), condition: CounterComparator::Nil }
}

#[tokio::test]
async fn an_addition_to_a_slice_happens_once() {
    for scene in scenes().await {
        let (store, space) = (&scene.store, &scene.space);
        let member = join(&**store, space).await;
        scene.lossy.lose(1);
        let result = store.apply_on(space, &member, &[slice_add("n")], None).await;
        let result = result.map(|ordered| ordered.answer.outcomes[0].clone().unwrap().new.total);
        scene.check("addition to a slice", result, &1).await;
        assert_eq!(scene.server.cli(&["HGET", "distkit:{p}:i:k:n", "t"]), "1", "{scene:?}");
    }
}

/// What a clear leaves to be removed counts for nobody, should the one who cleared never come to remove it.
#[tokio::test]
async fn a_clear_of_instances_is_done_though_its_answer_is_lost() {
    let adds: Vec<_> = (0..1000).map(|n| slice_add(&format!("k{n}"))).collect();
    let keys: Vec<_> = adds.iter().map(|add| add.key.clone()).collect();
    for kind in [Manager, FredClient] {
        let scene = Scene::new(kind, Fault::Drop).await;
        let (store, space) = (&scene.store, &scene.space);
        let other = connect(&scene.server.url()).await.unwrap();
        let (member, witness) = (join(&**store, space).await, join(&*other, space).await);
        store.apply_on(space, &member, &adds, None).await.unwrap();
        scene.lossy.lose(1);
        scene.check("clear", store.clear_on(space, &member, Scope::Total).await, &()).await;
        let read = other.read_on(space, &witness, &keys).await.unwrap().answer;
        assert!(read.iter().all(|standing| standing.as_ref().unwrap().total == 0), "{scene:?}");
        let applied = other.apply_on(space, &witness, &adds, None).await.unwrap().answer;
        for outcome in applied.outcomes {
            assert_eq!(outcome.unwrap().new.total, 1, "{scene:?}");
        }
    }
}

#[tokio::test]
async fn a_guarded_batch_can_be_sent_until_it_is_answered() {
    for scene in scenes().await {
        let guard = ReplayGuard { writer: scene.store.fresh_id(), sequence: 1, resent: false };
        let writes = [Write::add(key("n"), 1)];
        scene.lossy.lose(1);
        let result = scene.store.apply(&scene.space, &writes, Some(&guard)).await;
        let result = result.map(|applied| applied.outcomes[0].clone().unwrap().new);
        scene.check("guarded", result, &1).await;
        assert_eq!(scene.total("n"), "1", "{scene:?}");
        if scene.recovered().await {
            let again = scene.store.apply(&scene.space, &writes, Some(&guard)).await.unwrap();
            assert!(again.replayed, "{scene:?}");
            assert_eq!(scene.total("n"), "1", "{scene:?}");
        }
    }
}

#[tokio::test]
async fn a_read_that_is_lost_has_changed_nothing() {
    for kind in [Manager, FredClient] {
        let scene = Scene::new(kind, Fault::Hang).await;
        scene.server.freeze();
        let error = scene.store.read(&scene.space, &[key("n")]).await.unwrap_err();
        scene.server.thaw();
        assert!(matches!(error, BackendError::NotApplied(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_slot_that_moved_is_followed() {
    let cluster = Cluster::start();
    let url = cluster.urls()[0].clone();
    let slot = cluster.cli(&["CLUSTER", "KEYSLOT", "distkit:{p}:totals"]);
    let ids: Vec<String> = cluster.nodes().iter().map(|n| n.cli(&["CLUSTER", "MYID"])).collect();
    let space = Space::new(key("p"));
    for (round, scheme) in ["redis-cluster", "redis-cluster+fred"].into_iter().enumerate() {
        let store = connect(&url.replacen("redis", scheme, 1)).await.unwrap();
        let guard = ReplayGuard { writer: store.fresh_id(), sequence: 1, resent: false };
        for (step, guard) in [None, Some(&guard)].into_iter().enumerate() {
            let owner = cluster.nodes().iter().position(|node| {
                !node.cli(&["HGET", "distkit:{p}:totals", "none"]).contains("MOVED")
            });
            let owner = owner.unwrap();
            store.clear(&space).await.unwrap();
            cluster.nodes()[owner].cli(&["FLUSHALL"]);
            let target = (owner + 1) % ids.len();
            for node in [target, owner, (owner + 2) % ids.len()] {
                let moved =
                    cluster.nodes()[node].cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &ids[target]]);
                assert_eq!(moved, "OK");
            }
            let result = store.apply(&space, &[Write::add(key("n"), 1)], guard).await;
            let applied = result.unwrap_or_else(|error| panic!("{round} {step}: {error}"));
            assert_eq!(applied.outcomes[0].clone().unwrap().new, 1);
            assert_eq!(cluster.nodes()[target].cli(&["HGET", "distkit:{p}:totals", "n"]), "1");
        }
    }
}

/// Once an answer was lost, what was applied before is found: by a server that forgot its scripts, and by one that was
/// demoted, which has the record and can do no more.
#[tokio::test]
async fn a_strict_write_that_is_sent_again_is_answered_from_its_record() {
    for kind in [Manager, RedisCluster, FredClient, FredPool, FredCluster] {
        for harm in [&["SCRIPT", "FLUSH"][..], &["REPLICAOF", "127.0.0.1", "1"]] {
            let scene = Scene::new(kind, Fault::Drop).await;
            let options = CounterOptions::new(key("p"), scene.store.clone());
            let counter = StrictCounter::new(options.unknown_after(DEADLINE));
            let n = key("n");
            assert_eq!(counter.inc(&n, 1).await.unwrap(), 1);
            // Every answer is lost until the harm is done.
            scene.lossy.lose(1000);
            let call = tokio::spawn({
                let (counter, n) = (counter.clone(), n.clone());
                async move { counter.inc_if(&n, CounterComparator::Eq(1), 5).await }
            });
            let start = Instant::now();
            while scene.lossy.left() == 1000 {
                assert!(start.elapsed() < DEADLINE, "{scene:?}: no answer was lost");
                tokio::task::yield_now().await;
            }
            scene.server.cli(harm);
            scene.lossy.lose(0);
            let (new, old) = call.await.unwrap().unwrap_or_else(|error| {
                panic!("{scene:?}: {}", distkit_testkit::chain(&error));
            });
            assert_eq!((new, old), (6, 1), "{scene:?}: the original answer");
            assert_eq!(scene.total("n"), "6");
        }
    }
}
