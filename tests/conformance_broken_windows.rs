//! Each rule of windows catches a store that breaks it.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used)]

#[path = "common/faults.rs"]
#[allow(dead_code, unused_imports, reason = "made for other tests besides")]
mod faults;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use distkit::{
    CounterComparator, KeyFilter, RedisKey, Windows,
    backend::{
        Applied, Backend, BackendError, Capabilities, Cursor, Enumeration, Outcome, Page,
        RecordedAnswers, ReplayGuard, Space, Windowing, Write,
        memory::{ManualClock, MemoryBackend},
    },
    conformance::{self as rules, Fixture},
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    ClearsWhenItOpens,
    ExpiresWhateverIsAskedFor,
    IgnoresConditions,
    IgnoresOffsets,
    IgnoresTheTimeOfLanes,
    IgnoresTheTimeOfUnguardedWrites,
    KeepsAllForOneLength,
    KeepsForEver,
    KeepsIdleSpaces,
    KeepsTheShardsTogether,
    RecordsByWindow,
    RefusesLateBatches,
    ReopensForLonger,
    StartsLostWindowsAgain,
    TellsTheTimeOfAnotherClock,
    UsesUpTheSequenceOfRefusals,
}

/// A sound store around which the fault is.
#[derive(Debug)]
struct Broken {
    fault: Fault,
    store: MemoryBackend,
    /// Until when the writes to each window keep it.
    until: Mutex<BTreeMap<(Space, Duration), Duration>>,
}

impl Broken {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// The space in which a request ends up.
    fn space(&self, space: &Space) -> Space {
        if self.is(Fault::KeepsIdleSpaces) && space.idle().is_some() {
            return Space::shards_of(space.prefix().clone(), space.shards())
                [usize::from(space.shard())]
            .clone();
        }
        let Some(window) = space.window() else { return space.clone() };
        match self.fault {
            Fault::KeepsTheShardsTogether => {
                let shards = Space::shards_of(space.prefix().clone(), space.shards());
                shards[0].in_window(window)
            }
            Fault::IgnoresOffsets => {
                let windows = window.windows().offset(Duration::ZERO);
                space.in_window(windows.at(window.end() - Duration::from_millis(1)))
            }
            // That nobody writes to.
            Fault::ReopensForLonger if self.is_over(space) => {
                space.in_window(Windows::every(Duration::from_secs(1)).at(window.start()))
            }
            Fault::KeepsAllForOneLength | Fault::KeepsForEver | Fault::ReopensForLonger => {
                let keep = if self.is(Fault::KeepsAllForOneLength) { 1 } else { 10_000 };
                space.in_window(window.windows().keep(keep).at(window.start()))
            }
            _ => space.clone(),
        }
    }

    fn guard(&self, space: &Space, guard: &ReplayGuard) -> ReplayGuard {
        match space.window() {
            Some(window) if self.is(Fault::RecordsByWindow) => {
                let writer = format!("{} {:?}", guard.writer, window.start()).into();
                ReplayGuard { writer, ..guard.clone() }
            }
            _ => guard.clone(),
        }
    }

    fn writes(&self, space: &Space, writes: &[Write]) -> Vec<Write> {
        let mut writes = writes.to_vec();
        if self.is(Fault::IgnoresConditions) && space.window().is_some() {
            writes.iter_mut().for_each(|write| write.condition = CounterComparator::Nil);
        }
        writes
    }

    /// A guard of nobody else's.
    fn fresh_guard(&self) -> ReplayGuard {
        ReplayGuard { writer: self.store.fresh_id(), sequence: 1, resent: false }
    }

    async fn open(&self, space: &Space) {
        if self.is(Fault::ClearsWhenItOpens) && self.store.len(space) == 0 {
            tokio::task::yield_now().await;
            _ = self.store.clear(space).await;
        }
    }

    fn is_over(&self, space: &Space) -> bool {
        let Some(window) = space.window() else { return false };
        let until = self.until.lock().unwrap();
        until
            .get(&(space.whole().into_owned(), window.start()))
            .is_some_and(|until| self.store.now() >= *until)
    }

    /// Keeps a window for as long as a write says, also one that is closed.
    fn enter(&self, space: &Space) -> Result<(), BackendError> {
        let Some(window) = space.window() else { return Ok(()) };
        {
            let mut all = self.until.lock().unwrap();
            let until = all.entry((space.whole().into_owned(), window.start())).or_default();
            *until = window.kept_until().max(*until);
        }
        let closed = self.is(Fault::ReopensForLonger) && self.is_over(space);
        if closed { Err(BackendError::WindowClosed) } else { Ok(()) }
    }

    fn is_current(&self, space: &Space) -> bool {
        space.window().is_none_or(|window| window.contains(self.store.now()))
    }
}

#[async_trait]
impl Backend for Broken {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        self.enter(space)?;
        let (space, writes) = (&self.space(space), self.writes(space, writes));
        self.open(space).await;
        match guard {
            Some(_) if self.is(Fault::RefusesLateBatches) && !self.is_current(space) => {
                Err(BackendError::NotCurrent { now: self.store.now() })
            }
            Some(guard) => self.store.apply(space, &writes, Some(&self.guard(space, guard))).await,
            None if self.is(Fault::IgnoresTheTimeOfUnguardedWrites) => {
                self.store.apply(space, &writes, Some(&self.fresh_guard())).await
            }
            None => self.store.apply(space, &writes, None).await,
        }
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.store.read(&self.space(space), keys).await
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        self.enter(space)?;
        self.store.clear(&self.space(space)).await
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none().with_recorded(self).with_enumeration(self).with_windows(self)
    }

    fn fresh_id(&self) -> Arc<str> {
        self.store.fresh_id()
    }
}

#[async_trait]
impl RecordedAnswers for Broken {
    async fn apply_recorded(
        &self,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError> {
        let (space, writes) = (&self.space(space), self.writes(space, writes));
        self.open(space).await;
        if self.is(Fault::IgnoresTheTimeOfLanes) && !self.is_current(space) {
            return self.store.apply(space, &writes, Some(&self.fresh_guard())).await;
        }
        let lane = self.guard(space, lane);
        let sound = self.store.capabilities().recorded.unwrap();
        let answer = sound.apply_recorded(space, &writes, &lane).await;
        if self.is(Fault::UsesUpTheSequenceOfRefusals) && answer.is_err() {
            _ = sound.apply_recorded(&space.whole(), &[], &lane).await;
        }
        answer
    }

    async fn clear_recorded(&self, space: &Space, lane: &ReplayGuard) -> Result<(), BackendError> {
        let (space, sound) = (&self.space(space), self.store.capabilities().recorded.unwrap());
        sound.clear_recorded(space, &self.guard(space, lane)).await
    }
}

#[async_trait]
impl Enumeration for Broken {
    async fn page(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<(RedisKey, Outcome<i64>)>, BackendError> {
        let sound = self.store.capabilities().enumeration.unwrap();
        sound.page(&self.space(space), from, filter, count).await
    }

    async fn count(&self, space: &Space) -> Result<u64, BackendError> {
        self.store.capabilities().enumeration.unwrap().count(&self.space(space)).await
    }
}

#[async_trait]
impl Windowing for Broken {
    async fn time(&self, space: &Space) -> Result<Duration, BackendError> {
        let time = self.store.capabilities().windows.unwrap().time(space).await?;
        let another = self.is(Fault::TellsTheTimeOfAnotherClock);
        Ok(if another { time / 2 } else { time })
    }

    async fn read_current(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let sound = self.store.capabilities().windows.unwrap();
        sound.read_current(&self.space(space), keys).await
    }

    async fn any_open(&self, space: &Space) -> Result<bool, BackendError> {
        self.store.capabilities().windows.unwrap().any_open(space).await
    }

    async fn expire_idle(&self, space: &Space) -> Result<Option<Duration>, BackendError> {
        if self.is(Fault::ExpiresWhateverIsAskedFor) {
            self.store.clear(space).await?;
        }
        Ok(None)
    }
}

fn fixture(fault: Fault) -> Fixture {
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(1_000_000));
    let store = MemoryBackend::with_clock(clock.clone());
    let (stepping, losing) = (store.clone(), store.clone());
    Fixture::plain(Arc::new(Broken { fault, store, until: Mutex::default() }) as Arc<dyn Backend>)
        .advance_with(move |step| clock.advance(step))
        .step_back_with(move |step| stepping.set_clock_back(step))
        .lose_window_with(move |space| {
            let losing = losing.clone();
            async move {
                match fault {
                    Fault::StartsLostWindowsAgain => losing.clear(&space).await.unwrap(),
                    _ => losing.lose_window(&space),
                }
            }
        })
}

async fn sound() -> Fixture {
    fixture(Fault::None)
}

// Without a fault this store passes, so what fails below fails because of the fault.
distkit::windows_conformance_suite!(windows, sound);

faults::caught! {
    in "windows.rs";
    ClearsWhenItOpens by concurrent_writes_open_a_window_once,
    ExpiresWhateverIsAskedFor by only_what_is_idle_expires_when_asked_to,
    IgnoresConditions by a_window_does_what_a_space_does,
    IgnoresOffsets by windows_are_apart,
    IgnoresTheTimeOfLanes by only_the_current_window_takes_writes,
    IgnoresTheTimeOfUnguardedWrites by only_the_current_window_takes_writes,
    KeepsAllForOneLength by
        a_window_closes_when_it_is_no_longer_kept
        the_longest_keep_before_the_closing_holds,
    KeepsForEver by
        a_step_of_the_clock_opens_no_window
        a_window_closes_when_it_is_no_longer_kept
        the_longest_keep_before_the_closing_holds,
    KeepsIdleSpaces by
        an_idle_space_expires_whole
        another_idle_time_is_refused
        only_what_is_idle_expires_when_asked_to,
    KeepsTheShardsTogether by windows_of_shards_are_apart,
    RecordsByWindow by answers_outlive_their_window late_batches_take_effect_in_their_window,
    RefusesLateBatches by late_batches_take_effect_in_their_window,
    ReopensForLonger by the_longest_keep_before_the_closing_holds,
    StartsLostWindowsAgain by a_lost_window_is_named,
    TellsTheTimeOfAnotherClock by the_time_is_that_of_the_windows,
    UsesUpTheSequenceOfRefusals by only_the_current_window_takes_writes,
}
