//! Processes with instance-aware counters on any store, each of which can be cut off.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use distkit::{
    DistkitError, RedisKey,
    backend::{
        Around, BackendError, InstanceBackend, InstanceSlice, Layered, Op, SliceWrite, Standing,
        Written, memory::MemoryBackend,
    },
    icounter::{
        InstanceAwareCounterTrait, Keyed, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions, TotalAndSlice,
    },
};
use distkit_testkit::Server;

/// Long enough that a living instance survives a busy machine, short enough to wait for.
pub(crate) const THRESHOLD_MS: u64 = 1_500;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// Cuts a store off from one instance.
#[derive(Debug, Clone, Default)]
struct Gate {
    shut: Arc<AtomicBool>,
}

impl Around for Gate {
    async fn around<T: Send>(
        &self,
        _: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        if self.shut.load(Ordering::SeqCst) {
            return Err(BackendError::not_applied("the test has cut this instance off"));
        }
        call.await
    }
}

/// How long the lax counters of these tests keep a number.
const LAG: Duration = Duration::from_millis(2);

#[async_trait]
pub(crate) trait Counter: InstanceAwareCounterTrait {
    async fn leave(&self) -> Result<(), DistkitError>;
}

#[async_trait]
impl Counter for StrictInstanceAwareCounter {
    async fn leave(&self) -> Result<(), DistkitError> {
        self.leave().await
    }
}

/// A lax counter that flushes each write and reads nothing old, so that all of its answers are exact.
struct Settled(Arc<LaxInstanceAwareCounter>);

#[async_trait]
impl InstanceAwareCounterTrait for Settled {
    fn instance_id(&self) -> &str {
        self.0.instance_id()
    }

    async fn write_all(
        &self,
        writes: &[SliceWrite],
    ) -> Result<Vec<Result<Written<Standing>, DistkitError>>, DistkitError> {
        let keys: Vec<_> = writes.iter().map(|write| &write.key).collect();
        for (_, answer) in self.get_all(&keys).await? {
            answer?;
        }
        let outcomes = self.0.write_all(writes).await?;
        self.0.flush().await?;
        Ok(outcomes)
    }

    async fn get_all<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
        tokio::time::sleep(2 * LAG).await;
        self.0.get_all(keys).await
    }

    async fn del(&self, key: &RedisKey) -> Result<TotalAndSlice, DistkitError> {
        self.0.del(key).await
    }

    async fn del_on_instance(&self, key: &RedisKey) -> Result<(i64, i64), DistkitError> {
        self.0.del_on_instance(key).await
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        self.0.clear().await
    }

    async fn clear_on_instance(&self) -> Result<(), DistkitError> {
        self.0.clear_on_instance().await
    }

    async fn slices(&self, key: &RedisKey) -> Result<Vec<InstanceSlice>, DistkitError> {
        self.0.slices(key).await
    }
}

#[async_trait]
impl Counter for Settled {
    async fn leave(&self) -> Result<(), DistkitError> {
        self.0.leave().await
    }
}

pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) lax: bool,
}

pub(crate) enum Place {
    Memory(MemoryBackend),
    Server { server: Server, scheme: &'static str },
}

/// One process: its counter and its own way to the store.
pub(crate) struct Process {
    pub(crate) counter: Arc<dyn Counter>,
    shut: Arc<AtomicBool>,
}

impl Process {
    pub(crate) fn cut_off(&self) {
        self.shut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn reconnect(&self) {
        self.shut.store(false, Ordering::SeqCst);
    }
}

impl std::ops::Deref for Process {
    type Target = dyn Counter;

    fn deref(&self) -> &(dyn Counter + 'static) {
        &*self.counter
    }
}

impl World {
    pub(crate) async fn process(&self) -> Process {
        self.process_with(THRESHOLD_MS, None).await
    }

    pub(crate) async fn process_with(&self, threshold_ms: u64, name: Option<&str>) -> Process {
        let store: Arc<dyn InstanceBackend> = match &self.place {
            Place::Memory(store) => Arc::new(store.clone()),
            Place::Server { server, scheme } => {
                let url = server.url().replacen("redis://", scheme, 1);
                distkit::backend::connect(&url).await.unwrap()
            }
        };
        let gate = Gate::default();
        let shut = gate.shut.clone();
        let gate = Layered::new(store, gate);
        let counter: Arc<dyn Counter> = if self.lax {
            let mut options = LaxInstanceAwareCounterOptions::new(key("shop"), gate)
                .allowed_lag(LAG)
                .dead_instance_threshold_ms(threshold_ms);
            if let Some(name) = name {
                options = options.instance_name(key(name));
            }
            Arc::new(Settled(LaxInstanceAwareCounter::new(options)))
        } else {
            let mut options = StrictInstanceAwareCounterOptions::new(key("shop"), gate)
                .dead_instance_threshold_ms(threshold_ms);
            if let Some(name) = name {
                options = options.instance_name(key(name));
            }
            StrictInstanceAwareCounter::new(options)
        };
        Process { counter, shut }
    }

    pub(crate) fn lose_all_data(&self) {
        match &self.place {
            Place::Memory(store) => store.wipe(),
            Place::Server { server, .. } => assert_eq!(server.cli(&["FLUSHALL"]), "OK"),
        }
    }

    /// Checks, in the server's own data, that the total is the sum of the slices.
    pub(crate) fn check_sum(&self, name: &str, total: i64) {
        let Place::Server { server, .. } = &self.place else { return };
        let answer = server.cli(&["HGETALL", &format!("distkit:{{shop}}:i:k:{name}")]);
        let lines: Vec<&str> = answer.lines().filter(|line| !line.is_empty()).collect();
        let (mut stored, mut sum) = (0, 0);
        for pair in lines.chunks(2) {
            let value = || pair[1].parse::<i64>().unwrap();
            match pair[0].parse::<u64>() {
                Ok(_) => sum += value(),
                Err(_) if pair[0] == "t" => stored = value(),
                Err(_) => {}
            }
        }
        assert_eq!((stored, sum), (total, total), "{answer}");
    }
}

/// Waits until `probe` gives `expected`.
async fn eventually<T, F>(expected: T, mut probe: impl FnMut() -> F)
where
    T: PartialEq + std::fmt::Debug,
    F: Future<Output = T>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let seen = probe().await;
        if seen == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{seen:?}, still not {expected:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn eventually_reads(process: &Process, name: &str, expected: (i64, i64)) {
    eventually(expected, || async { process.get(&key(name)).await.unwrap() }).await;
}
