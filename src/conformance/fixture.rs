use std::{any::Any, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use crate::{
    RedisKey,
    backend::{
        Applied, Backend, InstanceBackend, IntoBackend, Outcome, ReplayGuard, Space, Write, Written,
    },
};

type Plant =
    dyn Fn(Space, RedisKey, String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

type Wipe = dyn Fn(Space) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// The store under test, and what a test needs besides [`Backend`].
#[derive(Clone)]
pub struct Fixture {
    backend: Arc<dyn Backend>,
    instances: Option<Arc<dyn InstanceBackend>>,
    plant: Option<Arc<Plant>>,
    advance: Option<Arc<dyn Fn(Duration) + Send + Sync>>,
    wipe: Option<Arc<Wipe>>,
    lose_records: Option<Arc<Wipe>>,
    lose_window: Option<Arc<Wipe>>,
    step_back: Option<Arc<dyn Fn(Duration) + Send + Sync>>,
    lose_tokens: Option<Arc<Wipe>>,
    /// What the test cannot do, and says so.
    waived: Waived,
    kept: Vec<Arc<dyn Any + Send + Sync>>,
}

#[derive(Clone, Copy, Default)]
struct Waived {
    plant: bool,
    advance: bool,
    wipe: bool,
    lose_records: bool,
    lose_window: bool,
    step_back: bool,
    lose_tokens: bool,
}

impl Fixture {
    /// Tests a store of both halves.
    pub fn new(store: impl IntoBackend<dyn InstanceBackend>) -> Self {
        let store = store.into_backend();
        Self { instances: Some(store.clone()), ..Self::over(store) }
    }

    /// Tests a store of the plain half. The rules of the instance-aware half fail on it: see
    /// [`plain_conformance_suite!`](crate::plain_conformance_suite).
    pub fn plain(store: impl IntoBackend) -> Self {
        Self::over(store.into_backend())
    }

    fn over(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            instances: None,
            plant: None,
            advance: None,
            wipe: None,
            lose_records: None,
            lose_window: None,
            step_back: None,
            lose_tokens: None,
            waived: Waived::default(),
            kept: Vec::new(),
        }
    }

    /// How to write raw text where the store keeps the plain counter `(space, key)`, as a stranger
    /// would. Without it [`foreign_data_is_named_and_kept`](super::foreign_data_is_named_and_kept)
    /// fails, for it can check nothing: see [`without_planting`](Self::without_planting).
    pub fn plant_with<F, P>(mut self, plant: F) -> Self
    where
        F: Fn(Space, RedisKey, String) -> P + Send + Sync + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        self.plant = Some(Arc::new(move |space, key, text| Box::pin(plant(space, key, text))));
        self
    }

    /// How to move the store's time forward, where a test can. It must stand still in between, and the
    /// test be the only one that uses the store: some rules let a day pass. Without it the rules
    /// that need it fail: see [`without_a_clock`](Self::without_a_clock).
    pub fn advance_with(mut self, advance: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.advance = Some(Arc::new(advance));
        self
    }

    /// How to make the store lose all instance-aware data of a space, as a server does that restarts
    /// empty. Without it the rules about lost data fail: see [`without_wiping`](Self::without_wiping).
    pub fn wipe_with<F, P>(mut self, wipe: F) -> Self
    where
        F: Fn(Space) -> P + Send + Sync + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        self.wipe = Some(Arc::new(move |space| Box::pin(wipe(space))));
        self
    }

    /// How to make the store lose what it remembers of the writers of a space, as an eviction does. Without it
    /// [`a_batch_whose_record_is_lost_is_not_applied`](super::a_batch_whose_record_is_lost_is_not_applied) fails:
    /// see [`without_losing_records`](Self::without_losing_records).
    pub fn lose_records_with<F, P>(mut self, lose: F) -> Self
    where
        F: Fn(Space) -> P + Send + Sync + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        self.lose_records = Some(Arc::new(move |space| Box::pin(lose(space))));
        self
    }

    /// How to make the store lose what it remembers of the tokens of a space, and keep the counters, as an eviction
    /// does. Without it [`lost_tokens_are_not_used_again`](super::lost_tokens_are_not_used_again) fails: see
    /// [`without_losing_tokens`](Self::without_losing_tokens).
    pub fn lose_tokens_with<F, P>(mut self, lose: F) -> Self
    where
        F: Fn(Space) -> P + Send + Sync + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        self.lose_tokens = Some(Arc::new(move |space| Box::pin(lose(space))));
        self
    }

    /// Lets the rule pass unchecked that needs [`lose_tokens_with`](Self::lose_tokens_with). It is for stores that
    /// cannot lose their tokens and keep the counters.
    pub fn without_losing_tokens(mut self) -> Self {
        self.waived.lose_tokens = true;
        self
    }

    /// Lets the rule pass unchecked that needs [`lose_records_with`](Self::lose_records_with). It is for stores
    /// that cannot lose their records and keep the counters.
    pub fn without_losing_records(mut self) -> Self {
        self.waived.lose_records = true;
        self
    }

    /// How to make the store lose the counters of a space that is an open window, as an eviction does. Without it
    /// [`a_lost_window_is_named`](super::a_lost_window_is_named) fails: see
    /// [`without_losing_windows`](Self::without_losing_windows).
    pub fn lose_window_with<F, P>(mut self, lose: F) -> Self
    where
        F: Fn(Space) -> P + Send + Sync + 'static,
        P: Future<Output = ()> + Send + 'static,
    {
        self.lose_window = Some(Arc::new(move |space| Box::pin(lose(space))));
        self
    }

    /// How to move the store's time back, on the terms of [`advance_with`](Self::advance_with). Without it
    /// [`a_step_of_the_clock_opens_no_window`](super::a_step_of_the_clock_opens_no_window) fails: see
    /// [`without_stepping_back`](Self::without_stepping_back).
    pub fn step_back_with(mut self, step_back: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        self.step_back = Some(Arc::new(step_back));
        self
    }

    /// Lets the rule pass unchecked that needs [`lose_window_with`](Self::lose_window_with). It is for stores that
    /// cannot lose one window alone.
    pub fn without_losing_windows(mut self) -> Self {
        self.waived.lose_window = true;
        self
    }

    /// Lets the rule pass unchecked that needs [`step_back_with`](Self::step_back_with).
    pub fn without_stepping_back(mut self) -> Self {
        self.waived.step_back = true;
        self
    }

    /// Lets the rules pass unchecked that need [`plant_with`](Self::plant_with).
    pub fn without_planting(mut self) -> Self {
        self.waived.plant = true;
        self
    }

    /// Lets the rules pass unchecked that need [`advance_with`](Self::advance_with).
    pub fn without_a_clock(mut self) -> Self {
        self.waived.advance = true;
        self
    }

    /// Lets the rules pass unchecked that need [`wipe_with`](Self::wipe_with).
    pub fn without_wiping(mut self) -> Self {
        self.waived.wipe = true;
        self
    }

    /// Keeps something, such as a private server, until the test is over.
    pub fn keep(mut self, guard: impl Send + Sync + 'static) -> Self {
        self.kept.push(Arc::new(guard));
        self
    }

    /// The store.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(super) fn can_plant(&self) -> bool {
        can(self.plant.is_some(), self.waived.plant, "plant_with, or without_planting")
    }

    pub(super) async fn plant(&self, space: &Space, key: &RedisKey, text: &str) {
        if let Some(plant) = &self.plant {
            plant(space.clone(), key.clone(), text.to_owned()).await;
        }
    }

    pub(super) fn has_clock(&self) -> bool {
        can(self.advance.is_some(), self.waived.advance, "advance_with, or without_a_clock")
    }

    /// Moves the store's time, if that can be done.
    pub(super) fn pass(&self, time: Duration) {
        if let Some(advance) = &self.advance {
            advance(time);
        }
    }

    pub(super) fn can_wipe(&self) -> bool {
        can(self.wipe.is_some(), self.waived.wipe, "wipe_with, or without_wiping")
    }

    pub(super) async fn wipe(&self, space: &Space) {
        if let Some(wipe) = &self.wipe {
            wipe(space.clone()).await;
        }
    }

    pub(super) fn can_lose_windows(&self) -> bool {
        let needs = "lose_window_with, or without_losing_windows";
        can(self.lose_window.is_some(), self.waived.lose_window, needs)
    }

    pub(super) async fn lose_window(&self, space: &Space) {
        if let Some(lose) = &self.lose_window {
            lose(space.clone()).await;
        }
    }

    pub(super) fn can_step_back(&self) -> bool {
        let needs = "step_back_with, or without_stepping_back";
        can(self.step_back.is_some(), self.waived.step_back, needs)
    }

    pub(super) fn step_back(&self, step: Duration) {
        if let Some(step_back) = &self.step_back {
            step_back(step);
        }
    }

    pub(super) fn can_lose_records(&self) -> bool {
        let needs = "lose_records_with, or without_losing_records";
        can(self.lose_records.is_some(), self.waived.lose_records, needs)
    }

    pub(super) async fn lose_records(&self, space: &Space) {
        if let Some(lose) = &self.lose_records {
            lose(space.clone()).await;
        }
    }

    pub(super) fn can_lose_tokens(&self) -> bool {
        let needs = "lose_tokens_with, or without_losing_tokens";
        can(self.lose_tokens.is_some(), self.waived.lose_tokens, needs)
    }

    pub(super) async fn lose_tokens(&self, space: &Space) {
        if let Some(lose) = &self.lose_tokens {
            lose(space.clone()).await;
        }
    }

    /// A part of the store that no other test uses.
    pub(super) fn fresh(&self) -> Probe {
        self.probe(&format!("conformance {}", self.fresh_name()))
    }

    /// The space of this prefix.
    pub(super) fn probe(&self, prefix: &str) -> Probe {
        let space = Space::new(key(prefix));
        Probe { backend: self.backend.clone(), instances: self.instances.clone(), space }
    }

    /// An id that may be part of a prefix.
    pub(super) fn fresh_name(&self) -> String {
        self.backend.fresh_id().replace(':', ".")
    }
}

impl<B: InstanceBackend> From<B> for Fixture {
    fn from(backend: B) -> Self {
        Self::new(backend)
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").finish_non_exhaustive()
    }
}

/// Whether a rule can check what it is about. A rule that cannot must not pass unnoticed.
fn can(able: bool, waived: bool, needs: &str) -> bool {
    assert!(able || waived, "this rule needs Fixture::{needs}");
    able
}

/// One space of the store, with calls that panic on an error of the whole request.
#[derive(Clone)]
pub(super) struct Probe {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) instances: Option<Arc<dyn InstanceBackend>>,
    pub(super) space: Space,
}

impl Probe {
    /// The same store with another space.
    pub(super) fn beside(&self, prefix: &str) -> Self {
        Self { space: Space::new(key(prefix)), ..self.clone() }
    }

    /// The instance-aware half of the store.
    pub(super) fn instances(&self) -> Arc<dyn InstanceBackend> {
        let instances = self.instances.clone();
        instances.expect("a store of both halves; plain_conformance_suite! tests the plain half")
    }

    pub(super) async fn apply(&self, writes: &[Write]) -> Vec<Outcome<Written>> {
        let applied = self.send(writes, None).await;
        assert!(!applied.replayed, "a batch without a guard was answered as replayed");
        applied.outcomes
    }

    /// Applies one write that must not be refused.
    pub(super) async fn write(&self, write: Write) -> Written {
        let outcomes = self.apply(std::slice::from_ref(&write)).await;
        match &outcomes[0] {
            Ok(written) => *written,
            Err(refusal) => panic!("{} was refused: {refusal}", show(&write)),
        }
    }

    pub(super) async fn send(&self, writes: &[Write], guard: Option<&ReplayGuard>) -> Applied {
        let applied = match self.backend.apply(&self.space, writes, guard).await {
            Ok(applied) => applied,
            Err(error) => panic!("apply of {} writes failed: {error}", writes.len()),
        };
        assert_eq!(applied.outcomes.len(), writes.len(), "one outcome for each write");
        applied
    }

    pub(super) async fn read_outcomes(&self, keys: &[RedisKey]) -> Vec<Outcome<i64>> {
        let values = match self.backend.read(&self.space, keys).await {
            Ok(values) => values,
            Err(error) => panic!("read of {} keys failed: {error}", keys.len()),
        };
        assert_eq!(values.len(), keys.len(), "read: one answer for each key");
        values
    }

    pub(super) async fn read(&self, keys: &[RedisKey]) -> Vec<i64> {
        numbers("read", keys, self.read_outcomes(keys).await)
    }

    pub(super) async fn total(&self, key: &RedisKey) -> i64 {
        self.read(std::slice::from_ref(key)).await[0]
    }

    pub(super) async fn remove_outcomes(&self, keys: &[RedisKey]) -> Vec<Outcome<i64>> {
        let outcomes = self.send(&removals(keys), None).await.outcomes.into_iter();
        outcomes.map(|outcome| outcome.map(|written| written.old)).collect()
    }

    pub(super) async fn remove(&self, keys: &[RedisKey]) -> Vec<i64> {
        numbers("remove", keys, self.remove_outcomes(keys).await)
    }

    pub(super) async fn clear(&self) {
        if let Err(error) = self.backend.clear(&self.space).await {
            panic!("clear failed: {error}");
        }
    }

    pub(super) fn guard(&self, sequence: u64) -> ReplayGuard {
        ReplayGuard { writer: self.backend.fresh_id(), sequence, resent: false }
    }
}

/// Unconditional removals.
pub(super) fn removals(keys: &[RedisKey]) -> Vec<Write> {
    keys.iter().cloned().map(Write::remove).collect()
}

fn numbers(what: &str, keys: &[RedisKey], outcomes: Vec<Outcome<i64>>) -> Vec<i64> {
    keys.iter()
        .zip(outcomes)
        .map(|(key, outcome)| match outcome {
            Ok(value) => value,
            Err(refusal) => panic!("{what} of {key:?} was refused: {refusal}"),
        })
        .collect()
}

pub(super) fn key(name: &str) -> RedisKey {
    match RedisKey::new(name) {
        Ok(key) => key,
        Err(error) => panic!("the suite made a bad key: {error}"),
    }
}

/// `count` keys, numbered.
pub(super) fn keys(count: usize) -> Vec<RedisKey> {
    (0..count).map(|i| key(&format!("k{i}"))).collect()
}

/// What came back must be what was expected, item by item, so that a message names one write and not
/// a list of thousands.
#[track_caller]
pub(super) fn check(
    writes: &[Write],
    outcomes: &[Outcome<Written>],
    expected: &[Outcome<Written>],
) {
    for (i, ((write, got), want)) in writes.iter().zip(outcomes).zip(expected).enumerate() {
        assert!(
            got == want,
            "write {i} of {}, {}: expected {want:?}, got {got:?}",
            writes.len(),
            show(write)
        );
    }
}

/// As [`check`], for the answers of `read` and `remove`.
#[track_caller]
pub(super) fn check_values(what: &str, keys: &[RedisKey], got: &[i64], expected: &[i64]) {
    for (i, ((key, got), want)) in keys.iter().zip(got).zip(expected).enumerate() {
        assert!(
            got == want,
            "{what}, item {i} of {}, {key:?}: expected {want}, got {got}",
            keys.len()
        );
    }
}

pub(super) fn show(write: &Write) -> String {
    format!("{:?} of {:?} if {:?}", write.change, write.key.as_str(), write.condition)
}

/// The outcome of a write that happened.
pub(super) fn wrote(old: i64, new: i64) -> Outcome<Written> {
    Ok(Written { old, new, condition_met: true })
}

/// The outcome of a write whose condition failed on `value`.
pub(super) fn kept(value: i64) -> Outcome<Written> {
    Ok(Written { old: value, new: value, condition_met: false })
}
