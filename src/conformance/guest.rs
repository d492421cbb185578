use std::{fmt, sync::Arc, time::Duration};

use super::fixture::{Fixture, Probe};
use crate::{
    RedisKey,
    backend::{
        Applied, BackendError, Epoch, Instance, InstanceBackend, Joined, Member, Outcome, Scope,
        Slice, SliceChange, SliceWrite, Standing, Written,
    },
};

/// A lease that no test outlasts.
pub(super) const LONG: Duration = Duration::from_secs(3600);

/// How long the store may take to detect an expired instance, or to clear bit by bit, on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// An instance in one space, with calls that panic on an error of the whole request.
#[derive(Clone)]
pub(super) struct Guest {
    pub(super) probe: Probe,
    pub(super) store: Arc<dyn InstanceBackend>,
    pub(super) instance: Instance,
    pub(super) member: Member,
}

impl Guest {
    /// A nameless instance that joins.
    pub(super) async fn join(probe: &Probe) -> Self {
        Self::named(probe, None).await
    }

    pub(super) async fn named(probe: &Probe, name: Option<&RedisKey>) -> Self {
        let id = probe.backend.fresh_id();
        let mut instance = Instance { name: name.cloned(), ..Instance::new(id, LONG) };
        let store = probe.instances();
        let joined = ok("join", store.join(&probe.space, &instance, &[]).await);
        instance.first_joined = Some(joined.incarnation);
        let member = Member { incarnation: joined.incarnation, lease: LONG };
        Self { probe: probe.clone(), store, instance, member }
    }

    /// Several nameless instances.
    pub(super) async fn crowd(probe: &Probe, count: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(Self::join(probe).await);
        }
        all
    }

    pub(super) async fn try_rejoin(&mut self, claims: &[Slice]) -> Result<Joined, BackendError> {
        let (backend, space) = (&self.store, &self.probe.space);
        let joined = backend.join(space, &self.instance, claims).await?;
        assert!(joined.incarnation > self.member.incarnation, "a later join has a greater number");
        assert_eq!(joined.standings.len(), claims.len(), "join: one standing for each claim");
        self.member.incarnation = joined.incarnation;
        Ok(joined)
    }

    /// Joins again and gives the claims' standings.
    pub(super) async fn rejoin(&mut self, claims: &[Slice]) -> Vec<Standing> {
        let joined = ok("join", self.try_rejoin(claims).await);
        joined.standings.into_iter().map(accepted).collect()
    }

    pub(super) async fn send(
        &self,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Applied<Standing> {
        let (backend, space) = (&self.store, &self.probe.space);
        let ordered = ok("apply_on", backend.apply_on(space, &self.member, writes, sequence).await);
        assert_eq!(ordered.answer.outcomes.len(), writes.len(), "one outcome for each write");
        ordered.answer
    }

    pub(super) async fn apply(&self, writes: &[SliceWrite]) -> Vec<Outcome<Written<Standing>>> {
        let applied = self.send(writes, None).await;
        assert!(!applied.replayed, "a batch without a sequence was answered as replayed");
        applied.outcomes
    }

    pub(super) async fn write(&self, write: SliceWrite) -> Outcome<Written<Standing>> {
        self.apply(&[write]).await.remove(0)
    }

    pub(super) async fn add(&self, key: &RedisKey, count: i64) -> Standing {
        accepted(self.write(add(key, count)).await).new
    }

    pub(super) async fn set(&self, key: &RedisKey, count: i64) -> Standing {
        accepted(self.write(change(key, SliceChange::SetTotal(count))).await).new
    }

    pub(super) async fn set_slice(&self, key: &RedisKey, count: i64) -> Standing {
        accepted(self.write(change(key, SliceChange::SetSlice(count))).await).new
    }

    pub(super) async fn read_all(&self, keys: &[RedisKey]) -> Vec<Standing> {
        let (backend, space) = (&self.store, &self.probe.space);
        let ordered = ok("read_on", backend.read_on(space, &self.member, keys).await);
        assert_eq!(ordered.answer.len(), keys.len(), "one standing for each key");
        ordered.answer.into_iter().map(accepted).collect()
    }

    pub(super) async fn read(&self, key: &RedisKey) -> Standing {
        self.read_all(std::slice::from_ref(key)).await[0]
    }

    pub(super) async fn total(&self, key: &RedisKey) -> i64 {
        self.read(key).await.total
    }

    pub(super) async fn try_remove(
        &self,
        key: &RedisKey,
        scope: Scope,
    ) -> Outcome<Written<Standing>> {
        let (backend, space) = (&self.store, &self.probe.space);
        let write = [removal(key, scope)];
        let applied = backend.apply_on(space, &self.member, &write, None).await;
        let mut outcomes = ok("a removal", applied).answer.outcomes;
        assert_eq!(outcomes.len(), 1, "one outcome for each key");
        outcomes.remove(0)
    }

    pub(super) async fn remove(&self, key: &RedisKey, scope: Scope) -> Written<Standing> {
        accepted(self.try_remove(key, scope).await)
    }

    pub(super) async fn clear(&self, scope: Scope) {
        let (backend, space) = (&self.store, &self.probe.space);
        let cleared = backend.clear_on(space, &self.member, scope);
        let cleared = tokio::time::timeout(DEADLINE, cleared).await;
        ok("clear_on", cleared.expect("clear_on comes to no end"));
    }

    pub(super) async fn leave(&self) {
        let (backend, space) = (&self.store, &self.probe.space);
        ok("leave", backend.leave(space, &self.member).await);
    }

    pub(super) async fn heartbeat(&self) -> Result<(), BackendError> {
        self.store.heartbeat(&self.probe.space, &self.member).await
    }

    /// The values of the slices that the store lists, by instance id.
    pub(super) async fn slices(&self, key: &RedisKey) -> Vec<(String, i64)> {
        let (backend, space) = (&self.store, &self.probe.space);
        let listed = ok("slices", backend.slices(space, key).await);
        assert!(listed.is_sorted(), "slices come in the order of the ids");
        listed.into_iter().map(|slice| (slice.instance_id, slice.value)).collect()
    }

    /// What it knows of a key: its claim when it joins again.
    pub(super) async fn claim(&self, key: &RedisKey) -> Slice {
        let Standing { slice, epoch, .. } = self.read(key).await;
        Slice { key: key.clone(), epoch, value: slice }
    }

    /// Whether every kind of call finds this instance not joined.
    pub(super) async fn assert_not_joined(&self, key: &RedisKey) {
        let (backend, space) = (&self.store, &self.probe.space);
        let (me, keys) = (&self.member, std::slice::from_ref(key));
        let add = [add(key, 1)];
        not_joined("apply_on", backend.apply_on(space, me, &add, None).await);
        not_joined("apply_on, guarded", backend.apply_on(space, me, &add, Some(1)).await);
        not_joined("read_on", backend.read_on(space, me, keys).await);
        for scope in [Scope::Slice, Scope::Total] {
            let removal = [removal(key, scope)];
            not_joined("a removal", backend.apply_on(space, me, &removal, None).await);
            not_joined("clear_on", backend.clear_on(space, me, scope).await);
        }
        not_joined("heartbeat", backend.heartbeat(space, me).await);
    }

    /// Lets its lease run out, and waits until `witness` detects it. It must have a slice of `key`.
    pub(super) async fn expire(&self, fixture: &Fixture, witness: &Self, key: &RedisKey) {
        let mut last = self.clone();
        last.member.lease = Duration::from_millis(1);
        ok("heartbeat", last.heartbeat().await);
        fixture.pass(Duration::from_millis(1));
        let start = tokio::time::Instant::now();
        witness.read(key).await;
        while witness.slices(key).await.iter().any(|(id, _)| **id == *self.instance.id) {
            assert!(
                start.elapsed() < DEADLINE,
                "an instance whose lease ran out was not collected"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
            witness.read(key).await;
        }
    }
}

fn not_joined<T: fmt::Debug>(what: &str, answer: Result<T, BackendError>) {
    assert!(matches!(answer, Err(BackendError::NotJoined)), "{what}: {answer:?}");
}

#[track_caller]
pub(super) fn ok<T>(what: &str, answer: Result<T, BackendError>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("{what} failed: {error}"),
    }
}

#[track_caller]
pub(super) fn accepted<T>(outcome: Outcome<T>) -> T {
    match outcome {
        Ok(value) => value,
        Err(refusal) => panic!("refused: {refusal}"),
    }
}

pub(super) fn change(key: &RedisKey, change: SliceChange) -> SliceWrite {
    SliceWrite::new(key.clone(), change)
}

pub(super) fn removal(key: &RedisKey, scope: Scope) -> SliceWrite {
    change(
        key,
        match scope {
            Scope::Total => SliceChange::Remove,
            Scope::Slice => SliceChange::RemoveSlice,
        },
    )
}

pub(super) fn add(key: &RedisKey, count: i64) -> SliceWrite {
    change(key, SliceChange::Add(count))
}

pub(super) fn standing(total: i64, slice: i64, epoch: Epoch) -> Standing {
    Standing { total, slice, epoch }
}

/// The total as every guest reads it, which must be the sum of what they read as their slices, and of
/// what the store lists.
pub(super) async fn agreed_total(guests: &[Guest], key: &RedisKey) -> i64 {
    let mut sum = 0_i128;
    let mut totals = Vec::new();
    for guest in guests {
        let standing = guest.read(key).await;
        sum += i128::from(standing.slice);
        totals.push(standing.total);
    }
    let listed: i128 = guests[0].slices(key).await.iter().map(|(_, v)| i128::from(*v)).sum();
    assert_eq!(listed, sum, "{key:?}: the sum of the slices that are listed, and of those read");
    for total in &totals {
        assert_eq!(i128::from(*total), sum, "{key:?}: the total, and the sum of the slices");
    }
    totals[0]
}
