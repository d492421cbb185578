//! Joins concurrent additions into requests.
//!
//! An addition with nothing else in flight is sent by its caller, so an unpolled caller blocks no other. A few tasks,
//! the drivers, send all others. Additions that arrive during a request join the next one; there is no waiting window.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::yield_now,
    time::{Instant, timeout_at},
};

use super::{
    Settings,
    settle::{Tally, in_order},
};
use crate::{
    DistkitError, RedisKey,
    answers::{Item, named, only},
    backend::{BackendError, Outcome, Refusal, progress::Progress},
    counted::counted,
};

/// How many keys one request has at most.
const BATCH: usize = 500;

/// How many requests are in flight at most, besides that of a caller.
const DRIVERS: (usize, usize) = (2, 16);
/// A round trip so long is worth another request in flight: the server is idle meanwhile.
const ROUND_TRIP: Duration = Duration::from_micros(100);

/// Waiters whose deadlines are no farther apart give up together.
const SLACK: Duration = Duration::from_millis(50);

/// What additions are to. Concurrent ones to the same are summed.
pub(crate) trait Target: Item + Clone + Eq + Hash + Send + Sync + 'static {}

impl<K: Item + Clone + Eq + Hash + Send + Sync + 'static> Target for K {}

/// What a queue's additions are for.
#[async_trait]
pub(crate) trait Joint<T, K = RedisKey>: Send + Sync + 'static {
    /// Adds to each key in one request, which counts as unknown after the deadline. A key may be named twice.
    async fn add(
        &self,
        items: &[(K, i64)],
        deadline: Option<Instant>,
    ) -> Result<Vec<Outcome<T>>, DistkitError>;

    /// Counts the calls of a request that several share.
    fn note_joined(&self, calls: usize);
}

/// The additions of one runtime's calls.
pub(crate) struct Queue<T, K = RedisKey> {
    joint: Box<dyn Joint<T, K>>,
    state: Mutex<State<T, K>>,
}

struct State<T, K> {
    /// A caller sends its own addition, and there was nothing else when it began.
    alone: bool,
    drivers: usize,
    /// In the order of their first callers.
    groups: VecDeque<Group<T, K>>,
    /// The place of each key's group, counted from the queue's beginning.
    places: HashMap<K, u64, foldhash::fast::RandomState>,
    /// How many groups have been taken.
    taken: u64,
    waiting: usize,
    /// Smoothed.
    round_trip: Duration,
}

/// The calls on one target.
struct Group<T, K> {
    key: K,
    waiters: Vec<Waiter<T>>,
}

struct Waiter<T> {
    count: i64,
    deadline: Option<Instant>,
    reply: oneshot::Sender<Result<T, DistkitError>>,
}

impl<T: Tally, K: Target> Queue<T, K> {
    pub(crate) fn new(joint: Box<dyn Joint<T, K>>) -> Arc<Self> {
        let state = State {
            alone: false,
            drivers: 0,
            groups: VecDeque::new(),
            places: HashMap::default(),
            taken: 0,
            waiting: 0,
            round_trip: Duration::ZERO,
        };
        Arc::new(Self { joint, state: Mutex::new(state) })
    }

    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        !state.alone && state.drivers == 0 && state.groups.is_empty()
    }

    /// Adds `count`, and answers the total right after it in one order of all additions.
    ///
    /// Cancel safe: a call that is dropped before it is sent is not applied, and one that is dropped later is
    /// applied once at most.
    pub(crate) async fn add(
        self: &Arc<Self>,
        key: &K,
        count: i64,
        settings: &Settings,
    ) -> Result<T, DistkitError> {
        let deadline = settings.deadline();
        match self.enter(key, count, deadline, settings.max_waiting)? {
            None => {
                let _alone = Alone(self);
                let items = [(key.clone(), count)];
                let outcomes = self.joint.add(&items, deadline).await?;
                only(named(std::slice::from_ref(key), outcomes))
            }
            Some(answer) => answer.await.unwrap_or_else(|_| Err(runtime_ended().into())),
        }
    }

    /// Queues an addition, unless there is nothing else in flight.
    fn enter(
        self: &Arc<Self>,
        key: &K,
        count: i64,
        deadline: Option<Instant>,
        max_waiting: usize,
    ) -> Result<Option<oneshot::Receiver<Result<T, DistkitError>>>, DistkitError> {
        let (answer, drives) = {
            let mut state = self.state.lock();
            if !state.alone && state.drivers == 0 {
                state.alone = true;
                return Ok(None);
            }
            if state.waiting >= max_waiting {
                let text = format!("{} waiting to be sent already", counted(max_waiting, "call"));
                return Err(BackendError::not_applied(text).into());
            }
            let (reply, answer) = oneshot::channel();
            state.push(key, Waiter { count, deadline, reply });
            let drives = state.drivers < state.most_drivers();
            state.drivers += usize::from(drives);
            (answer, drives)
        };
        if drives {
            // Dropped at once where the runtime is shutting down: then it answers that nothing was sent.
            let driver = Driver { queue: Arc::clone(self), counted: true };
            Handle::current().spawn(driver.drive());
        }
        Ok(Some(answer))
    }

    async fn commit(&self, groups: Vec<Group<T, K>>) {
        let now = Instant::now();
        let (mut items, mut parts) = (Vec::with_capacity(groups.len()), Vec::new());
        for Group { key, waiters } in groups {
            let (mut sum, mut part) = (0_i64, Vec::with_capacity(waiters.len()));
            for waiter in waiters {
                // Dropped before it was sent.
                if waiter.reply.is_closed() {
                    continue;
                }
                if waiter.deadline.is_some_and(|deadline| deadline <= now) {
                    let error = BackendError::not_applied("it was not sent in time");
                    let _ = waiter.reply.send(Err(error.into()));
                    continue;
                }
                match sum.checked_add(waiter.count) {
                    Some(more) => sum = more,
                    None => {
                        items.push((key.clone(), sum));
                        parts.push(std::mem::take(&mut part));
                        sum = waiter.count;
                    }
                }
                part.push(waiter);
            }
            if !part.is_empty() {
                items.push((key, sum));
                parts.push(part);
            }
        }
        let alone = self.send(items, parts).await;
        if !alone.is_empty() {
            // A sum that did not fit added nothing: the refusal concerns single calls.
            let mut alone = alone.into_iter().filter(|(_, waiter)| !waiter.reply.is_closed());
            loop {
                let some = alone.by_ref().take(BATCH).map(|(item, waiter)| (item, vec![waiter]));
                let (items, parts): (Vec<_>, Vec<_>) = some.unzip();
                if items.is_empty() {
                    break;
                }
                self.send(items, parts).await;
            }
        }
    }

    /// Sends the items in one request and answers their waiters; gives those of the joined sums that overflowed.
    async fn send(
        &self,
        items: Vec<(K, i64)>,
        mut parts: Vec<Vec<Waiter<T>>>,
    ) -> Vec<((K, i64), Waiter<T>)> {
        if items.is_empty() {
            return Vec::new();
        }
        let calls = parts.iter().map(Vec::len).sum();
        let began = Instant::now();
        let deadline = parts.iter().flatten().filter_map(|waiter| waiter.deadline).max();
        let answer = {
            let progress = Progress::default();
            let mut request = pin!(progress.of(self.joint.add(&items, deadline)));
            loop {
                // Those who wait for less long give up before.
                let next = earliest(&parts, deadline);
                let Some(next) = next else { break Some(request.await) };
                match timeout_at(next, &mut request).await {
                    Ok(answer) => break Some(answer),
                    Err(_) if progress.is_waiting() => break None,
                    Err(_) => give_up(&mut parts, next),
                }
            }
        };
        let Some(answer) = answer else {
            // Nothing was sent, nor will be: the others' additions go without those that are late.
            let groups = items.into_iter().zip(parts);
            let groups = groups.map(|((key, _), waiters)| Group { key, waiters }).collect();
            Box::pin(self.commit(groups)).await;
            return Vec::new();
        };
        if calls > 1 {
            self.joint.note_joined(calls);
        }
        let outcomes = match answer {
            Ok(outcomes) => outcomes,
            Err(error) => {
                for waiter in parts.into_iter().flatten() {
                    let _ = waiter.reply.send(Err(error.clone()));
                }
                return Vec::new();
            }
        };
        self.state.lock().note_round_trip(began.elapsed());
        let mut alone = Vec::new();
        for (((key, _), part), outcome) in items.into_iter().zip(parts).zip(outcomes) {
            match outcome {
                Ok(total) => answer_all(total, part),
                Err(Refusal::Overflow) if part.len() > 1 => {
                    alone.extend(part.into_iter().map(|w| ((key.clone(), w.count), w)));
                }
                Err(refusal) => {
                    for waiter in part {
                        let error = DistkitError::refused(key.key(), refusal.clone());
                        let _ = waiter.reply.send(Err(error));
                    }
                }
            }
        }
        alone
    }
}

impl<T, K: Target> State<T, K> {
    fn push(&mut self, key: &K, waiter: Waiter<T>) {
        self.waiting += 1;
        let next = self.taken + self.groups.len() as u64;
        let at = match self.places.get(key) {
            Some(at) => *at,
            None => {
                self.places.insert(key.clone(), next);
                next
            }
        };
        match self.groups.get_mut(usize::try_from(at - self.taken).unwrap_or(usize::MAX)) {
            Some(group) => group.waiters.push(waiter),
            None => self.groups.push_back(Group { key: key.clone(), waiters: vec![waiter] }),
        }
    }

    fn take(&mut self) -> Vec<Group<T, K>> {
        let count = self.groups.len().min(BATCH);
        let groups: Vec<_> = self.groups.drain(..count).collect();
        self.taken += count as u64;
        if self.groups.is_empty() {
            self.places.clear();
        } else {
            for group in &groups {
                self.places.remove(&group.key);
            }
        }
        self.waiting -= groups.iter().map(|group| group.waiters.len()).sum::<usize>();
        groups
    }

    fn most_drivers(&self) -> usize {
        let (least, most) = DRIVERS;
        let trips = self.round_trip.as_micros() / ROUND_TRIP.as_micros();
        usize::try_from(trips).unwrap_or(most).clamp(least, most)
    }

    fn note_round_trip(&mut self, latest: Duration) {
        self.round_trip = (self.round_trip * 7 + latest) / 8;
    }
}

/// The earliest deadline of a waiter that gives up before the request does.
fn earliest<T>(parts: &[Vec<Waiter<T>>], last: Option<Instant>) -> Option<Instant> {
    let deadlines = parts.iter().flatten().filter_map(|waiter| waiter.deadline);
    let earliest = deadlines.min()?;
    (earliest + SLACK < last?).then_some(earliest)
}

/// Tells those whose deadline has passed that the outcome is unknown, and keeps their counts in the sum.
fn give_up<T>(parts: &mut [Vec<Waiter<T>>], now: Instant) {
    for waiter in parts.iter_mut().flatten() {
        if waiter.deadline.is_some_and(|deadline| deadline <= now) {
            waiter.deadline = None;
            let (gone, _) = oneshot::channel();
            let reply = std::mem::replace(&mut waiter.reply, gone);
            let _ = reply.send(Err(BackendError::outcome_unknown("no answer came in time").into()));
        }
    }
}

fn answer_all<T: Tally>(total: T, waiters: Vec<Waiter<T>>) {
    let counts: Vec<_> = waiters.iter().map(|waiter| waiter.count).collect();
    for (waiter, answer) in waiters.into_iter().zip(in_order(total, &counts)) {
        let _ = waiter.reply.send(Ok(answer));
    }
}

fn runtime_ended() -> BackendError {
    BackendError::outcome_unknown("the runtime that sent the request has ended")
}

/// A caller that sends its own addition. Dropped with its future, also half way.
struct Alone<'q, T, K>(&'q Queue<T, K>);

impl<T, K> Drop for Alone<'_, T, K> {
    fn drop(&mut self) {
        self.0.state.lock().alone = false;
    }
}

/// A task that sends what has gathered, until nothing has.
struct Driver<T, K> {
    queue: Arc<Queue<T, K>>,
    counted: bool,
}

impl<T: Tally, K: Target> Driver<T, K> {
    async fn drive(mut self) {
        while let Some(groups) = self.take() {
            self.queue.commit(groups).await;
            // Those who were answered call again before the next batch is taken.
            yield_now().await;
        }
    }

    fn take(&mut self) -> Option<Vec<Group<T, K>>> {
        let mut state = self.queue.state.lock();
        if state.groups.is_empty() {
            state.drivers -= 1;
            self.counted = false;
            return None;
        }
        Some(state.take())
    }
}

impl<T, K> Drop for Driver<T, K> {
    /// Where its runtime has ended with work to do: nobody else sends what is left.
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let left = {
            let mut state = self.queue.state.lock();
            state.drivers -= 1;
            if state.drivers > 0 { VecDeque::new() } else { state.take_all() }
        };
        for waiter in left.into_iter().flat_map(|group| group.waiters) {
            let error = BackendError::not_applied("the runtime has ended");
            let _ = waiter.reply.send(Err(error.into()));
        }
    }
}

impl<T, K> State<T, K> {
    fn take_all(&mut self) -> VecDeque<Group<T, K>> {
        self.places.clear();
        self.waiting = 0;
        self.taken += self.groups.len() as u64;
        std::mem::take(&mut self.groups)
    }
}
