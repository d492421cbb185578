//! A store that answers for fewer, or more, items than it was asked about is not trusted with any, by any counter.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/overriding.rs"]
mod overriding;

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use distkit::{
    CounterComparator::Nil,
    DistkitError, RedisKey,
    backend::{
        Applied, Backend, BackendError, Instance, InstanceBackend, Joined, Member, Ordered,
        Outcome, ReplayGuard, Slice, SliceWrite, Space, Standing, Write, memory::MemoryBackend,
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use overriding::{Override, Overriding};

/// Gives so many answers too many.
#[derive(Debug, Default)]
struct Miscounting {
    store: MemoryBackend,
    surplus: AtomicI64,
}

impl Miscounting {
    fn change<T: Clone>(&self, mut answers: Vec<T>) -> Vec<T> {
        match self.surplus.load(SeqCst) {
            0 => {}
            1 => answers.extend(answers.last().cloned()),
            _ => drop(answers.pop()),
        }
        answers
    }

    fn changed<V: Clone>(&self, applied: Applied<V>) -> Applied<V> {
        Applied { outcomes: self.change(applied.outcomes), ..applied }
    }
}

#[async_trait]
impl Override for Miscounting {
    fn sound(&self) -> &MemoryBackend {
        &self.store
    }

    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        Ok(self.changed(self.store.apply(space, writes, guard).await?))
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        Ok(self.change(self.store.read(space, keys).await?))
    }

    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        let joined = self.store.join(space, instance, slices).await?;
        Ok(Joined { standings: self.change(joined.standings), ..joined })
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let Ordered { version, answer } =
            self.store.apply_on(space, member, writes, sequence).await?;
        Ok(Ordered { version, answer: self.changed(answer) })
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        let Ordered { version, answer } = self.store.read_on(space, member, keys).await?;
        Ok(Ordered { version, answer: self.change(answer) })
    }
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// A call that may write says that its outcome is unknown, one that reads that nothing happened.
#[track_caller]
fn distrusted<T: Debug>(answer: Result<T, DistkitError>, writes: bool) {
    let error = answer.unwrap_err();
    let text = distkit_testkit::chain(&error);
    assert!(text.contains("to a request for"), "{text}");
    assert_eq!(error.may_have_happened(), writes, "{text}");
}

const SURPLUS: [i64; 2] = [-1, 1];

#[tokio::test(start_paused = true)]
async fn plain_counters_do_not_trust_it() {
    for surplus in SURPLUS {
        let store = Arc::new(Overriding(Miscounting::default()));
        let options = CounterOptions::with_store(key("p"), store.clone());
        let strict = StrictCounter::new(options.clone());
        let (k, l) = (key("k"), key("l"));
        strict.set(&l, 5).await.unwrap();
        store.0.surplus.store(surplus, SeqCst);
        for counter in [&*strict as &dyn CounterTrait, &*LaxCounter::new(options.clone())] {
            let strict = std::ptr::addr_eq(counter, Arc::as_ptr(&strict));
            distrusted(counter.inc(&k, 1).await, strict);
            distrusted(counter.get(&k).await, false);
            // The lax counter finds out about each before it sends the next.
            distrusted(counter.set(&k, 1).await, true);
        }
        for lax in [false, true] {
            let counter = || -> Arc<dyn CounterTrait> {
                let store = CounterOptions::with_store(key("p"), store.clone());
                if lax { LaxCounter::new(store) } else { StrictCounter::new(store) }
            };
            distrusted(counter().del(&l).await, true);
            // An addition is buffered, after a read.
            distrusted(counter().inc_if(&k, Nil, 1).await, !lax);
            distrusted(counter().set_if(&k, Nil, 1).await, true);
            distrusted(counter().set_all(&[(&k, 1), (&l, 2)]).await, true);
            let added = counter().inc_all_if(&[(&k, Nil, 1)]).await;
            match lax {
                true => distrusted(added.unwrap().remove(0).1, false),
                false => distrusted(added, true),
            }
        }
        let strict = StrictCounter::new(options.clone());
        distrusted(strict.get_all(&[&k, &l]).await, false);
        distrusted(strict.inc_all(&[(&k, 1), (&l, 2)]).await, true);
        let lax = LaxCounter::new(options);
        distrusted(lax.get_all(&[&k, &l]).await.unwrap().remove(0).1, false);
        store.0.surplus.store(0, SeqCst);
        let before = strict.get(&k).await.unwrap();
        lax.inc(&k, 3).await.unwrap();
        store.0.surplus.store(surplus, SeqCst);
        distrusted(lax.flush().await, true);
        store.0.surplus.store(0, SeqCst);
        lax.flush().await.unwrap();
        assert_eq!(strict.get(&k).await.unwrap(), before + 3, "sent again under its guard");
    }
}

#[tokio::test(start_paused = true)]
async fn instance_aware_counters_do_not_trust_it() {
    for surplus in SURPLUS {
        let store = Arc::new(Overriding(Miscounting::default()));
        let (k, l) = (key("k"), key("l"));
        let strict = || {
            let options = StrictInstanceAwareCounterOptions::with_store(key("p"), store.clone());
            StrictInstanceAwareCounter::new(options)
        };
        let lax = || {
            let options = LaxInstanceAwareCounterOptions::with_store(key("p"), store.clone());
            LaxInstanceAwareCounter::new(options)
        };
        for is_lax in [false, true] {
            let counter =
                || -> Arc<dyn InstanceAwareCounterTrait> { if is_lax { lax() } else { strict() } };
            store.0.surplus.store(surplus, SeqCst);
            distrusted(counter().set(&k, 1).await, true);
            distrusted(counter().del(&k).await, true);
            distrusted(counter().del_on_instance(&k).await, true);
            distrusted(counter().inc_if(&k, Nil, 1).await, !is_lax);
            distrusted(counter().set_all(&[(&k, 1), (&l, 2)]).await, true);
            distrusted(counter().get(&k).await, false);
        }
        let counter = strict();
        distrusted(counter.inc(&k, 1).await, true);
        distrusted(counter.set_on_instance(&k, 1).await, true);
        distrusted(counter.get_all(&[&k, &l]).await, false);
        distrusted(counter.inc_all(&[(&k, 1), (&l, 2)]).await, true);

        let lax = lax();
        store.0.surplus.store(0, SeqCst);
        lax.inc(&k, 3).await.unwrap();
        store.0.surplus.store(surplus, SeqCst);
        distrusted(lax.flush().await, true);
        store.0.surplus.store(0, SeqCst);
        lax.flush().await.unwrap();
        assert_eq!(lax.get(&k).await.unwrap().1, 3, "sent again under its guard");
    }
}
