//! A real server in the place of the simulator: with a clock that stands still, faulty ways to it, and loss of
//! its data.
#![allow(dead_code, reason = "not every test binary has a use for all of it")]

mod proxy;
#[path = "../../../tests/support/resp.rs"]
mod resp;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    RedisKey,
    backend::{
        Around, BackendError, InstanceBackend, IntoBackend, Layered, Op, Space,
        operator::{instance_names, lanes, totals, writers},
    },
};
use distkit_testkit::{Server, ServerBuilder};
use fred::{
    interfaces::ClientLike,
    types::{
        Builder,
        config::{Config, ReconnectPolicy},
    },
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::{sync::Mutex, time::Instant};

use proxy::{PROBED, Proxy};

/// Nothing is lost by waiting: what is lost closes its connection.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Client {
    RedisRs,
    Fred,
}

impl Client {
    fn connect(self, port: u16) -> Arc<dyn InstanceBackend> {
        let url = format!("redis://127.0.0.1:{port}/");
        match self {
            Self::RedisRs => {
                let config = ConnectionManagerConfig::new()
                    .set_response_timeout(Some(PATIENCE))
                    .set_connection_timeout(Some(PATIENCE))
                    .set_min_delay(Duration::from_millis(1))
                    .set_max_delay(Duration::from_millis(10));
                let client = redis::Client::open(url).unwrap();
                ConnectionManager::new_lazy_with_config(client, config).unwrap().into_backend()
            }
            Self::Fred => {
                let config = Config { fail_fast: false, ..Config::from_url(&url).unwrap() };
                let mut policy = ReconnectPolicy::new_constant(0, 1);
                policy.set_jitter(1);
                let client = Builder::from_config(config)
                    .with_performance_config(|performance| {
                        performance.default_command_timeout = PATIENCE;
                    })
                    .set_policy(policy)
                    .build()
                    .unwrap();
                client.connect();
                client.into_backend()
            }
        }
    }
}

/// A server, and several connections to it, each with faults of its own.
///
/// One after the other, any number of histories is played on it, each under a prefix of its own; the clock
/// only moves on.
pub(crate) struct RealStore {
    server: Server,
    links: Vec<Arc<Link>>,
}

impl RealStore {
    pub(crate) async fn start(builder: ServerBuilder, client: Client, links: usize) -> Self {
        // What a killed process has written, its machine still has.
        let log = ["--appendonly", "yes", "--appendfsync", "no"];
        let server = builder.args(&log).manual_clock().start();
        let ids = Arc::new(AtomicU64::new(0));
        let mut all = Vec::new();
        for _ in 0..links {
            let proxy = Proxy::before(server.port()).await;
            let store = client.connect(proxy.port());
            let line = Line {
                store: store.clone(),
                proxy,
                cut: AtomicBool::new(false),
                shaken: AtomicBool::new(true),
                settling: Mutex::default(),
                ids: ids.clone(),
            };
            all.push(Arc::new(Link::new(store, line)));
        }
        Self { server, links: all }
    }

    pub(crate) fn link(&self, link: usize) -> Arc<dyn InstanceBackend> {
        self.links[link].clone()
    }

    pub(crate) fn set_cut(&self, link: usize, cut: bool) {
        self.links[link].layer().cut.store(cut, SeqCst);
    }

    pub(crate) fn lose_next_request(&self, link: usize) {
        self.links[link].layer().proxy.lose_next_requests(1);
    }

    /// The next request is applied, and its answer gets lost.
    pub(crate) fn lose_next_reply(&self, link: usize) {
        self.links[link].layer().proxy.lose_next_replies(1);
    }

    /// Ends all faults, and numbers fresh ids from 1 again: the next history uses another prefix.
    pub(crate) fn mend(&self) {
        for link in self.links.iter().map(|link| link.layer()) {
            link.cut.store(false, SeqCst);
            link.proxy.lose_next_requests(0);
            link.proxy.lose_next_replies(0);
            link.ids.store(0, SeqCst);
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.server.now()
    }

    pub(crate) fn advance(&self, step: Duration) {
        self.server.advance(step);
    }

    pub(crate) fn go_back(&self, step: Duration) {
        self.server.go_back(step);
    }

    /// Loses the counters of a space, or of its window, as by an eviction.
    pub(crate) fn lose_totals(&self, space: &Space) {
        self.server.cli(&["DEL", &totals(space)]);
    }

    /// Puts text where a plain counter is kept.
    pub(crate) fn plant(&self, space: &Space, key: &RedisKey, text: &str) {
        let answer = self.server.cli(&["HSET", &totals(space), key, text]);
        assert!(matches!(&*answer, "0" | "1"), "planting {text:?}: {answer}");
    }

    /// Kills the server and starts it again with its data.
    pub(crate) fn restart(&self) {
        self.server.restart();
        self.links.iter().for_each(|link| link.layer().shaken.store(true, SeqCst));
    }

    /// Loses who is joined, as by an eviction.
    pub(crate) fn lose_members(&self, space: &Space) {
        let name = |rest: &str| format!("{}{rest}", instance_names(space));
        self.server.cli(&["DEL", &name("leases"), &name("quiet")]);
    }

    /// Loses what it remembers of writers, as by an eviction.
    pub(crate) fn lose_guards(&self, space: &Space) {
        self.server.cli(&["DEL", &writers(space), &lanes(space)]);
    }

    /// Loses what it remembers of tokens, as by an eviction.
    #[allow(dead_code, reason = "not every test binary loses tokens")]
    pub(crate) fn lose_tokens(&self, space: &Space) {
        const LOSE: &str =
            "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
        let names = format!("distkit:{{{}}}:tok*", space.prefix());
        self.server.cli(&["EVAL", LOSE, "0", &names]);
    }

    /// Loses what a server loses that restarts empty.
    pub(crate) fn wipe(&self) {
        assert_eq!(self.server.cli(&["FLUSHALL"]), "OK");
        assert_eq!(self.server.cli(&["SCRIPT", "FLUSH"]), "OK");
    }
}

/// One client's connection, through a proxy that loses what it is told to.
///
/// A cut is made on this side of the client: what a client says of a server that it cannot reach has tests of
/// its own.
type Link = Layered<dyn InstanceBackend, Line>;

struct Line {
    store: Arc<dyn InstanceBackend>,
    proxy: Proxy,
    cut: AtomicBool,
    /// Something has failed, and the client may have no connection that works.
    shaken: AtomicBool,
    settling: Mutex<()>,
    ids: Arc<AtomicU64>,
}

impl Line {
    /// Waits for a connection, so that each fault is met by one request and not by the next one too.
    async fn settle(&self) {
        let _one_at_a_time = self.settling.lock().await;
        if !self.shaken.load(SeqCst) {
            return;
        }
        let space = Space::new(RedisKey::try_from(PROBED).unwrap());
        let key = [RedisKey::try_from(PROBED).unwrap()];
        let start = Instant::now();
        while let Err(error) = self.store.read(&space, &key).await {
            assert!(start.elapsed() < PATIENCE, "no connection: {error}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.shaken.store(false, SeqCst);
    }
}

impl Around for Line {
    async fn around<T: Send>(
        &self,
        _: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        if self.cut.load(SeqCst) {
            return Err(BackendError::not_applied("the link is cut"));
        }
        self.settle().await;
        let answer = call.await;
        if matches!(answer, Err(BackendError::NotApplied(_) | BackendError::OutcomeUnknown(_))) {
            self.shaken.store(true, SeqCst);
        }
        answer
    }

    fn fresh_id(&self) -> Option<Arc<str>> {
        Some(format!("id-{}", self.ids.fetch_add(1, SeqCst) + 1).into())
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}
