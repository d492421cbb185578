//! Counters are generic over their store: what users write by inference, with a known type, and with layers.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/plain_only.rs"]
mod plain_only;

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    RedisKey,
    backend::{
        Around, Backend, BackendError, DynAround, InstanceBackend, IntoBackend, Layered, Op, Space,
        Store, connect, memory::MemoryBackend,
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, LaxHandle, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        LaxInstanceAwareHandle, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};

use plain_only::PlainOnly;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

#[cfg(feature = "conformance")]
mod plain_half {
    use super::plain_only::PlainOnly;
    use distkit::{
        backend::memory::{ManualClock, MemoryBackend},
        conformance::Fixture,
    };

    async fn plain_only() -> Fixture {
        let clock = ManualClock::new();
        let store = MemoryBackend::with_clock(clock.clone());
        let (fixture, forgetful) = (Fixture::plain(PlainOnly(store.clone())), store.clone());
        fixture
            .advance_with(move |step| clock.advance(step))
            .lose_records_with(move |space| {
                forgetful.lose_guards(&space);
                async {}
            })
            .plant_with(move |space, key, text| {
                store.corrupt(&space, &key, &text);
                async {}
            })
    }

    distkit::plain_conformance_suite!(plain_only);
}

/// What a service declares, without naming a store.
struct Service {
    stock: Arc<StrictCounter>,
    hits: Arc<LaxCounter>,
    hot: LaxHandle,
    rooms: Arc<StrictInstanceAwareCounter>,
    sockets: Arc<LaxInstanceAwareCounter>,
    busy: LaxInstanceAwareHandle,
    all: Vec<Arc<dyn CounterTrait>>,
}

#[tokio::test]
async fn a_service_names_no_store() {
    let store = connect("memory://").await.unwrap();
    let p = key("p");
    let stock = StrictCounter::new(CounterOptions::new(p.clone(), store.clone()));
    let hits = LaxCounter::new(CounterOptions::new(p.clone(), store.clone()));
    let options = LaxInstanceAwareCounterOptions::new(p.clone(), store.clone());
    let sockets = LaxInstanceAwareCounter::new(options);
    let rooms = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(p, store));
    let plain = StrictCounter::new(CounterOptions::new(key("q"), PlainOnly::default()));
    let service = Service {
        hot: hits.handle(&key("k")).await.unwrap(),
        busy: sockets.handle(&key("k")).await.unwrap(),
        all: vec![stock.clone(), hits.clone(), plain],
        stock,
        hits,
        rooms,
        sockets,
    };
    assert_eq!(service.stock.inc(&key("k"), 2).await.unwrap(), 2);
    service.hot.inc(1).unwrap();
    service.hits.flush().await.unwrap();
    service.rooms.inc(&key("k"), 1).await.unwrap();
    service.busy.inc(1).unwrap();
    service.sockets.flush().await.unwrap();
    assert_eq!(service.rooms.get(&key("k")).await.unwrap(), (2, 1));
    for counter in &service.all {
        counter.inc(&key("z"), 1).await.unwrap();
    }
    let _: &dyn Backend = service.stock.store();
    let _: &dyn InstanceBackend = service.rooms.store();
}

#[tokio::test]
async fn a_test_reaches_its_store_through_the_counter() {
    let store = Arc::new(MemoryBackend::new());
    let options = CounterOptions::with_store(key("p"), store.clone());
    let strict: Arc<StrictCounter<MemoryBackend>> = StrictCounter::new(options.clone());
    let lax: Arc<LaxCounter<MemoryBackend>> = LaxCounter::new(options);
    lax.inc(&key("k"), 1).await.unwrap();
    lax.flush().await.unwrap();
    assert_eq!(strict.inc(&key("k"), 1).await.unwrap(), 2);
    assert_eq!(strict.store().len(&Space::new(key("p"))), 1);
    let handle: LaxHandle<MemoryBackend> = lax.handle(&key("k")).await.unwrap();
    handle.clone().inc(1).unwrap();
    let options = LaxInstanceAwareCounterOptions::with_store(key("p"), store.clone());
    let shared = LaxInstanceAwareCounter::new(options);
    shared.inc(&key("k"), 1).await.unwrap();
    assert_eq!(shared.store().living_instances(&Space::new(key("p"))).len(), 1);
    let any: Arc<dyn CounterTrait> = lax;
    any.get(&key("k")).await.unwrap();
}

#[test]
fn stores_come_by_value_shared_and_as_objects() {
    let (p, memory) = (key("p"), MemoryBackend::new());
    let shared = Arc::new(memory.clone());
    let plain: Arc<dyn Backend> = shared.clone();
    let instances: Arc<dyn InstanceBackend> = shared.clone();
    let all: Arc<dyn Store> = shared.clone();
    let _ = [
        CounterOptions::new(p.clone(), memory.clone()),
        CounterOptions::new(p.clone(), memory.link()),
        CounterOptions::new(p.clone(), shared.clone()),
        CounterOptions::new(p.clone(), plain.clone()),
        CounterOptions::new(p.clone(), instances.clone()),
        CounterOptions::new(p.clone(), all.clone()),
        CounterOptions::new(p.clone(), PlainOnly::default()),
        CounterOptions::new(p.clone(), Arc::new(PlainOnly::default())),
        CounterOptions::with_store(p.clone(), plain.clone()),
    ];
    let _ = [
        StrictInstanceAwareCounterOptions::new(p.clone(), memory),
        StrictInstanceAwareCounterOptions::new(p.clone(), shared),
        StrictInstanceAwareCounterOptions::new(p.clone(), instances),
        StrictInstanceAwareCounterOptions::new(p, all),
    ];
    let again: Arc<dyn Backend> = plain.clone().into_backend();
    assert!(Arc::ptr_eq(&plain, &again), "it is not boxed a second time");
}

/// Loses the next request, or the next reply.
#[derive(Debug, Default)]
struct Lossy {
    request: AtomicBool,
    reply: AtomicBool,
}

impl Around for Lossy {
    async fn around<T: Send>(
        &self,
        _: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        if self.request.swap(false, SeqCst) {
            return Err(BackendError::outcome_unknown("the request is lost"));
        }
        let answer = call.await;
        if self.reply.swap(false, SeqCst) {
            return Err(BackendError::outcome_unknown("the reply is lost"));
        }
        answer
    }
}

#[derive(Debug, Default)]
struct Metrics(Mutex<Vec<(&'static str, usize, bool)>>);

impl Around for Metrics {
    async fn around<T: Send>(
        &self,
        op: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let answer = call.await;
        self.0.lock().unwrap().push((op.name(), op.items(), answer.is_ok()));
        answer
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_measures_and_loses() {
    let store = MemoryBackend::new();
    let lossy = Arc::new(Layered::new(Arc::new(store.clone()), Lossy::default()));
    let metered = Arc::new(Layered::new(lossy.clone(), Metrics::default()));
    let k = key("k");
    // Each call is one request.
    let options = CounterOptions::with_store(key("p"), metered.clone());
    let counter = StrictCounter::new(options.unguarded());
    let options = StrictInstanceAwareCounterOptions::new(key("p"), metered.clone());
    let shared = StrictInstanceAwareCounter::new(options.unguarded());
    shared.inc(&k, 1).await.unwrap();
    lossy.layer().request.store(true, SeqCst);
    assert!(counter.inc(&k, 1).await.unwrap_err().may_have_happened());
    assert_eq!(counter.get(&k).await.unwrap(), 0);
    lossy.layer().reply.store(true, SeqCst);
    assert!(counter.inc(&k, 1).await.unwrap_err().may_have_happened());
    assert_eq!(counter.get(&k).await.unwrap(), 1);
    lossy.layer().reply.store(true, SeqCst);
    assert!(!counter.get(&k).await.unwrap_err().may_have_happened(), "a read changes nothing");
    lossy.layer().reply.store(true, SeqCst);
    assert!(!shared.get(&k).await.unwrap_err().may_have_happened());
    let seen = counter.store().layer().0.lock().unwrap().clone();
    let expected = [
        ("join", 0, true),
        ("apply_on", 1, true),
        ("apply", 1, false),
        ("read", 1, true),
        ("apply", 1, false),
        ("read", 1, true),
        ("read", 1, false),
        ("read_on", 1, false),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn layers_are_stacked_at_run_time() {
    let layers: Vec<Arc<dyn DynAround>> =
        vec![Arc::new(Metrics::default()), Arc::new(Lossy::default())];
    let mut stack: Arc<dyn InstanceBackend> = Arc::new(MemoryBackend::new());
    for layer in layers {
        stack = Arc::new(Layered::new(stack, layer));
    }
    let shared =
        StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(key("q"), stack));
    assert_eq!(shared.inc(&key("k"), 3).await.unwrap(), (3, 3));
    // A plain store under a layer stays plain, also for the task of a lax counter.
    let plain = Arc::new(Layered::new(Arc::new(PlainOnly::default()), Metrics::default()));
    let lax = LaxCounter::new(CounterOptions::with_store(key("p"), plain.clone()));
    lax.inc(&key("k"), 2).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(plain.store().0.read(&Space::new(key("p")), &[key("k")]).await.unwrap(), [Ok(2)]);
    lax.shutdown(Duration::from_secs(1)).await.unwrap();
}
