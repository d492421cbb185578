//! The queue of strict additions under schedules that shuttle chooses: callers that are dropped at any await, or held,
//! and drivers that are lost.
//!
//! The files of `src/strict` are included as they are; locks, tasks and time are replaced.
//! `DISTKIT_SCHEDULES=100000 cargo test -p distkit-checks --test joined_schedules` tries that many schedules for each model.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.
#![allow(dead_code, unreachable_pub, reason = "the included files have more than the models need")]
#![allow(missing_docs, reason = "stand-ins for documented crates")]

// The included files find these under the names that they use.
extern crate self as parking_lot;
extern crate self as tokio;
extern crate tokio as real_tokio;

#[path = "../../../src/answers.rs"]
mod answers;
#[path = "../schedules/backend.rs"]
#[allow(unused_imports, reason = "made for other models besides")]
mod backend;
#[path = "../../../src/counted.rs"]
mod counted;
#[allow(unexpected_cfgs, reason = "features that only the library has")]
#[path = "../../../src/error.rs"]
mod error;
#[path = "../../../src/key.rs"]
mod key;
#[path = "../../../src/parse_key.rs"]
mod parse_key;
#[path = "../../../src/parse_token.rs"]
mod parse_token;
#[path = "../schedules/time.rs"]
pub mod time;
#[path = "../../../src/token.rs"]
mod token;

mod strict;

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
pub use backend::CounterComparator;
pub use error::DistkitError;
pub use key::RedisKey;
pub use real_tokio::sync;
use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::{Rng, thread_rng},
};
use strict::{
    Settings,
    queue::{Joint, Queue},
};
pub use token::Token;

use crate::{
    backend::{BackendError, Outcome},
    time::Instant,
};

/// `parking_lot`'s, which knows no poison.
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

pub mod task {
    pub use shuttle::future::yield_now;
}

pub mod runtime {
    use std::future::Future;

    use shuttle::rand::{Rng, thread_rng};

    thread_local! {
        /// Of how many tasks one is lost, as with a runtime that ends; 0 for none.
        pub(crate) static LOST: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    pub struct Handle;

    impl Handle {
        pub fn current() -> Self {
            Self
        }

        pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: F) {
            let lost = LOST.get();
            let polls = if lost > 0 && thread_rng().gen_range(0..lost) == 0 {
                thread_rng().gen_range(0..6)
            } else {
                usize::MAX
            };
            shuttle::future::spawn(async move {
                crate::polled(task, polls).await;
            });
        }
    }
}

/// Polls a future so often, then drops it.
async fn polled<F: Future>(future: F, mut polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        match Pin::new(&mut future).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll was this one: it is dropped at once, and not when it is woken.
            Poll::Pending if polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A store that is far away.
#[derive(Default)]
struct Store {
    totals: Mutex<BTreeMap<RedisKey, i64>>,
    requests: Mutex<u32>,
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

struct Link(Arc<Store>);

#[async_trait]
impl Joint<i64> for Link {
    async fn add(
        &self,
        items: &[(RedisKey, i64)],
        _: Option<Instant>,
    ) -> Result<Vec<Outcome<i64>>, DistkitError> {
        yield_now().await;
        let outcomes = {
            *self.0.requests.lock() += 1;
            let mut totals = self.0.totals.lock();
            let add = |(key, count): &(RedisKey, i64)| {
                let total = totals.entry(key.clone()).or_default();
                *total += count;
                Ok(*total)
            };
            items.iter().map(add).collect()
        };
        yield_now().await;
        if thread_rng().gen_range(0..8) == 0 {
            return Err(BackendError::outcome_unknown("the answer got lost").into());
        }
        Ok(outcomes)
    }

    fn note_joined(&self, _: usize) {}
}

const SETTINGS: Settings = Settings { max_waiting: 1000 };

fn key(name: &str) -> RedisKey {
    RedisKey::new(name).unwrap()
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("DISTKIT_SCHEDULES").map_or(1500, |n| n.parse().unwrap());
    shuttle::check_random(
        move || {
            runtime::LOST.set(0);
            model();
        },
        schedules,
    );
}

/// What became of the calls: each acknowledged total, and how many may have happened besides.
#[derive(Default)]
struct Seen {
    totals: Mutex<Vec<i64>>,
    doubtful: Mutex<i64>,
}

impl Seen {
    fn note(&self, answer: Option<Result<i64, DistkitError>>) {
        match answer {
            Some(Ok(total)) => self.totals.lock().push(total),
            Some(Err(error)) if !error.may_have_happened() => {}
            _ => *self.doubtful.lock() += 1,
        }
    }

    fn check(&self, total: i64) {
        let mut totals = std::mem::take(&mut *self.totals.lock());
        let answered = i64::try_from(totals.len()).unwrap();
        totals.sort_unstable();
        totals.dedup();
        assert_eq!(i64::try_from(totals.len()).unwrap(), answered, "a total was given twice");
        assert!(totals.iter().all(|seen| (1..=total).contains(seen)));
        let doubtful = *self.doubtful.lock();
        assert!((answered..=answered + doubtful).contains(&total), "{total} of {answered}");
    }
}

fn stage() -> (Arc<Store>, Arc<Queue<i64>>, Arc<Seen>) {
    let store = Arc::new(Store::default());
    let queue = Queue::new(Box::new(Link(store.clone())));
    (store, queue, Arc::new(Seen::default()))
}

/// Callers, some of whom are dropped after a few polls.
fn callers(queue: &Arc<Queue<i64>>, seen: &Arc<Seen>, dropped: bool) {
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let (queue, seen) = (queue.clone(), seen.clone());
            spawn(async move {
                for _ in 0..2 {
                    let polls = if dropped { thread_rng().gen_range(1..6) } else { usize::MAX };
                    seen.note(polled(queue.add(&key("k"), 1, &SETTINGS), polls).await);
                }
            })
        })
        .collect();
    for task in tasks {
        block_on(task).unwrap();
    }
}

/// What is called now is answered, whatever went before.
fn goes_on(queue: &Arc<Queue<i64>>) {
    let last: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            spawn(async move { drop(queue.add(&key("last"), 1, &SETTINGS).await) })
        })
        .collect();
    for task in last {
        block_on(task).unwrap();
    }
}

/// The drivers end when there is nothing left.
fn until_idle(queue: &Arc<Queue<i64>>) {
    block_on(async {
        while !queue.is_idle() {
            yield_now().await;
        }
    });
}

fn total(store: &Store, name: &str) -> i64 {
    store.totals.lock().get(&key(name)).copied().unwrap_or(0)
}

#[test]
fn each_caller_gets_a_total_of_its_own() {
    check(|| {
        let (store, queue, seen) = stage();
        callers(&queue, &seen, false);
        goes_on(&queue);
        until_idle(&queue);
        seen.check(total(&store, "k"));
    });
}

#[test]
fn callers_that_are_dropped_hold_up_nobody() {
    check(|| {
        let (store, queue, seen) = stage();
        callers(&queue, &seen, true);
        goes_on(&queue);
        until_idle(&queue);
        seen.check(total(&store, "k"));
    });
}

#[test]
fn callers_that_are_held_hold_up_nobody() {
    check(|| {
        let (store, queue, seen) = stage();
        let key = key("k");
        let mut held: Vec<_> = (0..3).map(|_| Box::pin(queue.add(&key, 1, &SETTINGS))).collect();
        let mut polled = Vec::new();
        block_on(std::future::poll_fn(|context| {
            polled = held.iter_mut().map(|call| call.as_mut().poll(context)).collect();
            Poll::Ready(())
        }));
        callers(&queue, &seen, false);
        goes_on(&queue);
        // Held to the end, and answered when they are polled again.
        for (call, polled) in held.into_iter().zip(polled) {
            match polled {
                Poll::Ready(answer) => seen.note(Some(answer)),
                Poll::Pending => seen.note(Some(block_on(call))),
            }
        }
        until_idle(&queue);
        seen.check(total(&store, "k"));
    });
}

#[test]
fn drivers_that_are_lost_hold_up_nobody() {
    check(|| {
        runtime::LOST.set(2);
        let (store, queue, seen) = stage();
        callers(&queue, &seen, false);
        runtime::LOST.set(0);
        goes_on(&queue);
        until_idle(&queue);
        seen.check(total(&store, "k"));
    });
}
