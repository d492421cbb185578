//! The instance-aware counters of one space.

mod stored;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    paging,
    records::{Lanes, reused},
};
use crate::{
    KeyFilter, RedisKey,
    backend::{
        Applied, BackendError, Cursor, Epoch, Incarnation, Instance, InstanceSlice, Joined, Member,
        Ordered, Outcome, Page, Refusal, ReplayGuard, Scope, Slice, SliceChange, SliceWrite,
        Standing, Written, fitting,
    },
};

/// What one joined instance is.
#[derive(Debug)]
struct Joiner {
    id: Arc<str>,
    name: Option<RedisKey>,
    first: Incarnation,
    /// In milliseconds of the store's clock.
    lease_ends: u64,
    lease: Duration,
    version: u64,
    /// Its claims were refused, and it has done nothing since: perhaps it was never told.
    late: bool,
    sequence: u64,
    /// What the batch of that sequence refused.
    refused: BTreeMap<usize, Refusal>,
}

/// A counter that has slices.
#[derive(Debug)]
struct Counter {
    epoch: Epoch,
    slices: BTreeMap<Incarnation, i64>,
    /// What of these slices was put back under an epoch from before the data was lost: it goes when a claim
    /// tells of a later change.
    put_back: BTreeMap<Incarnation, Slice>,
}

impl Counter {
    fn sum(&self) -> i128 {
        self.slices.values().copied().map(i128::from).sum()
    }
}

/// How long a space was in use: by one step of the clock it becomes a minute older at most.
#[derive(Debug, Default)]
struct Age {
    now: Duration,
    /// The time of the latest join or heartbeat, in milliseconds.
    seen: Option<u64>,
    turned: Duration,
    max_absence: Duration,
}

const LONGEST_STEP: Duration = Duration::from_secs(60);

/// Whether an epoch is that of a change, and not of a store's beginning: those are even.
fn is_change(epoch: Epoch) -> bool {
    epoch.0 % 2 == 1
}

/// The instance-aware counters of one space, and their members.
///
/// Totals are not kept but summed, and expired instances are collected whole: nobody else waits for this store.
#[derive(Debug, Default)]
pub(super) struct Instances {
    /// Above every number given so far. It outlives a loss of data, as a real server's time does.
    highest: u64,
    /// When the data came to be, as an epoch; 0 while there is none.
    born: Epoch,
    /// No key has an epoch below; 0 before the first clear.
    floor: Epoch,
    /// The epoch of the keys that know none of their own, now and before the last turn.
    base: Epoch,
    former: Epoch,
    age: Age,
    lost_members: bool,
    joined: BTreeMap<Incarnation, Joiner>,
    counters: BTreeMap<RedisKey, Counter>,
    /// The epochs of keys without slices, unless they are the base; and those from before the last turn.
    bare: BTreeMap<RedisKey, Epoch>,
    old_bare: BTreeMap<RedisKey, Epoch>,
    /// Those that expired or left, and how old the space was then.
    gone: BTreeMap<Arc<str>, Duration>,
    lanes: Option<Lanes<Answer>>,
}

/// What a request in a lane was answered.
#[derive(Debug, Clone)]
enum Answer {
    Applied(Ordered<Applied<Standing>>),
    Cleared,
}

impl Instances {
    /// Loses all data, as a server that restarts empty.
    pub(super) fn wipe(&mut self) {
        *self = Self { highest: self.highest, ..Self::default() };
    }

    /// Joins `instance` at `now`, in milliseconds.
    pub(super) fn join(
        &mut self,
        now: u64,
        instance: &Instance,
        claims: &[Slice],
    ) -> Result<Joined, BackendError> {
        if self.born == Epoch::default() {
            self.born = Epoch(self.next_number(now).next_multiple_of(2));
            self.highest = self.born.0;
            (self.base, self.former) = (self.born, self.born);
        }
        self.look_at_the_clock(now);
        self.age.max_absence = instance.max_absence;
        self.grow_older(now);
        if std::mem::take(&mut self.lost_members) {
            let all = self.joined.keys().copied().collect();
            self.remove_members(&all);
        }
        self.collect(now);
        let older = self.older(instance)?;
        let late = self.was_away_too_long(instance);
        self.remove_members(&older);
        let incarnation = Incarnation(self.next_number(now));
        let joiner = Joiner {
            id: Arc::clone(&instance.id),
            name: instance.name.clone(),
            first: instance.first_joined.unwrap_or(incarnation),
            lease_ends: lease_end(now, instance.lease),
            lease: instance.lease,
            version: 1,
            late,
            sequence: 0,
            refused: BTreeMap::new(),
        };
        self.joined.insert(incarnation, joiner);
        self.gone.remove(&instance.id);
        let stand = |claim: &Slice| match late {
            true => self.standing(&claim.key, incarnation),
            false => self.put_back(incarnation, claim),
        };
        let standings = claims.iter().map(stand).map(Ok).collect();
        Ok(Joined { incarnation, born: Some(self.born.0), standings })
    }

    /// Where the clock went back, no lease has more left than its own length.
    fn look_at_the_clock(&mut self, now: u64) {
        if self.age.seen.is_some_and(|seen| now < seen) {
            self.age.seen = Some(now);
            for joiner in self.joined.values_mut() {
                joiner.lease_ends = joiner.lease_ends.min(lease_end(now, joiner.lease));
            }
        }
    }

    /// Loses who is joined: the next join finds all others gone.
    pub(super) fn lose_members(&mut self) {
        self.lost_members = true;
    }

    /// Whether an instance that joined since the store began was gone for longer than its claims are kept.
    fn was_away_too_long(&self, instance: &Instance) -> bool {
        // The same join once more: its answer may have been lost.
        if let Some(joiner) = self.joined.values().find(|joiner| joiner.id == instance.id) {
            return joiner.late;
        }
        let is_away = |gone: &Duration| self.age.now - *gone <= instance.max_absence;
        instance.first_joined.is_some_and(|first| first.0 > self.born.0)
            && self.age.now > instance.max_absence
            && !self.gone.get(&instance.id).is_some_and(is_away)
    }

    /// Makes the space older, and forgets what was kept for those who were away for too long.
    fn grow_older(&mut self, now: u64) {
        let age = &mut self.age;
        let step = now.saturating_sub(age.seen.unwrap_or(now));
        age.now += Duration::from_millis(step).min(LONGEST_STEP);
        age.seen = Some(now);
        let (limit, max_absence) = (age.now, age.max_absence);
        self.gone.retain(|_, gone| limit - *gone <= max_absence);
        if limit - age.turned < max_absence {
            return;
        }
        age.turned = limit;
        if self.bare.is_empty() && self.old_bare.is_empty() {
            return;
        }
        self.old_bare = std::mem::take(&mut self.bare);
        // Even, as it is no change.
        self.highest = (self.highest + 1).next_multiple_of(2);
        (self.former, self.base) = (self.base, Epoch(self.highest));
    }

    /// The members that must go when `instance` joins.
    fn older(&self, instance: &Instance) -> Result<BTreeSet<Incarnation>, BackendError> {
        let mut older = BTreeSet::new();
        for (incarnation, holder) in &self.joined {
            if holder.id == instance.id {
                older.insert(*incarnation);
            } else if instance.name.is_some() && holder.name == instance.name {
                if instance.first_joined.is_some_and(|mine| holder.first > mine) {
                    return Err(BackendError::Replaced);
                }
                older.insert(*incarnation);
            }
        }
        Ok(older)
    }

    fn put_back(&mut self, who: Incarnation, claim: &Slice) -> Standing {
        let key = &claim.key;
        let taken = self.counters.get(key).is_some_and(|c| c.slices.contains_key(&who));
        if !taken && self.admit(key, claim.epoch) && claim.value != 0 {
            self.give_slice(key, who, claim.value);
            if let Some(counter) = self.counters.get_mut(key)
                && claim.epoch < self.born
            {
                counter.put_back.insert(who, claim.clone());
            }
        }
        self.standing(key, who)
    }

    /// Whether a claim counts. Of a key without a change since the data was lost only claims can tell what it
    /// was: it takes over the latest change that one of them knows of.
    fn admit(&mut self, key: &RedisKey, claimed: Epoch) -> bool {
        let current = self.epoch(key);
        // The latter for a key that has known no epoch since before the last turn.
        if claimed == current || current == self.base && claimed == self.former {
            return true;
        }
        if self.floor > self.born
            || claimed < self.floor
            || current > self.born
            || claimed > self.born
        {
            return false;
        }
        let last_change = if is_change(current) { current } else { Epoch::default() };
        if claimed < last_change {
            return false;
        }
        if is_change(claimed) {
            self.take_over(key, claimed);
        }
        true
    }

    /// Makes a change from before the loss the key's epoch. What was put back from before that change goes;
    /// what was written since the loss stays.
    fn take_over(&mut self, key: &RedisKey, change: Epoch) {
        let Some(counter) = self.counters.get_mut(key) else {
            self.keep_epoch(key, change);
            return;
        };
        counter.epoch = change;
        let slices = &mut counter.slices;
        counter.put_back.retain(|who, claim| {
            let stays = claim.epoch >= change;
            if let Some(slice) = slices.get_mut(who).filter(|_| !stays) {
                *slice = slice.saturating_sub(claim.value);
                if *slice == 0 {
                    slices.remove(who);
                }
            }
            stays
        });
        self.drop_if_empty(key);
    }

    pub(super) fn heartbeat(&mut self, now: u64, member: &Member) -> Result<(), BackendError> {
        if self.joined.contains_key(&member.incarnation) && !self.lost_members {
            self.look_at_the_clock(now);
            self.grow_older(now);
        }
        self.enter(now, member).map(drop)
    }

    /// Begins an operation whose caller has heard what its join was answered.
    fn enter_as_heard(&mut self, now: u64, member: &Member) -> Result<u64, BackendError> {
        let version = self.enter(now, member)?;
        if let Some(me) = self.joined.get_mut(&member.incarnation) {
            me.late = false;
        }
        Ok(version)
    }

    /// Begins an operation: renews the lease, collects expired instances, and numbers the answer.
    pub(super) fn enter(&mut self, now: u64, member: &Member) -> Result<u64, BackendError> {
        let me = self.joined.get_mut(&member.incarnation).filter(|_| !self.lost_members);
        let me = me.ok_or(BackendError::NotJoined)?;
        me.lease = member.lease;
        me.lease_ends = lease_end(now, member.lease);
        me.version += 1;
        let version = me.version;
        self.look_at_the_clock(now);
        self.collect(now);
        Ok(version)
    }

    pub(super) fn apply(
        &mut self,
        now: u64,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let version = self.enter_as_heard(now, member)?;
        let who = member.incarnation;
        let me = self.joined.get_mut(&who).ok_or(BackendError::NotJoined)?;
        let replayed = sequence.is_some_and(|sequence| sequence <= me.sequence);
        let outcomes: Vec<_> = if replayed {
            let refused =
                if sequence == Some(me.sequence) { me.refused.clone() } else { BTreeMap::new() };
            let replay = |(at, write): (usize, &SliceWrite)| match refused.get(&at) {
                Some(refusal) => Err(refusal.clone()),
                None => {
                    let standing = self.standing(&write.key, who);
                    Ok(Written { old: standing, new: standing, condition_met: true })
                }
            };
            writes.iter().enumerate().map(replay).collect()
        } else {
            writes.iter().map(|write| self.write(who, write)).collect()
        };
        if let Some(sequence) = sequence.filter(|_| !replayed)
            && let Some(me) = self.joined.get_mut(&who)
        {
            me.sequence = sequence;
            let refused = outcomes.iter().enumerate();
            me.refused = refused.filter_map(|(at, o)| Some((at, o.clone().err()?))).collect();
        }
        Ok(Ordered { version, answer: Applied { replayed, record: None, outcomes } })
    }

    pub(super) fn apply_recorded(
        &mut self,
        now: u64,
        member: &Member,
        writes: &[SliceWrite],
        lane: &ReplayGuard,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let answer = self.answer_once(now, lane, |members| {
            members.apply(now, member, writes, None).map(Answer::Applied)
        })?;
        match answer {
            Answer::Applied(applied) => Ok(applied),
            Answer::Cleared => Err(reused()),
        }
    }

    pub(super) fn clear_recorded(
        &mut self,
        now: u64,
        member: &Member,
        lane: &ReplayGuard,
    ) -> Result<(), BackendError> {
        let answer = self.answer_once(now, lane, |members| {
            members.clear(now, member, Scope::Total).map(|()| Answer::Cleared)
        })?;
        match answer {
            Answer::Cleared => Ok(()),
            Answer::Applied(_) => Err(reused()),
        }
    }

    fn answer_once(
        &mut self,
        now: u64,
        lane: &ReplayGuard,
        run: impl FnOnce(&mut Self) -> Result<Answer, BackendError>,
    ) -> Result<Answer, BackendError> {
        let time = Duration::from_millis(now);
        let lanes = self.lanes.get_or_insert_with(|| Lanes::lanes(time));
        if let Some(answer) = lanes.first_answer(lane) {
            return answer;
        }
        lanes.admit(time, lane)?;
        let answer = run(self);
        if let Some(lanes) = &mut self.lanes {
            match &answer {
                Ok(answer) => lanes.keep(lane, answer.clone()),
                Err(_) => lanes.keep_failed(lane),
            }
        }
        answer
    }

    pub(super) fn has_lanes(&self) -> bool {
        self.lanes.is_some()
    }

    /// Loses what the lanes were answered, and nothing else.
    pub(super) fn lose_lanes(&mut self, now: Duration) {
        self.lanes.get_or_insert_with(|| Lanes::lanes(now)).lose(now);
    }

    fn write(&mut self, who: Incarnation, write: &SliceWrite) -> Outcome<Written<Standing>> {
        let key = &write.key;
        let old = self.standing(key, who);
        let subject = if write.change.is_on_slice() { old.slice } else { old.total };
        if !write.condition.matches(subject) {
            return Ok(Written { old, new: old, condition_met: false });
        }
        let slice = match write.change {
            SliceChange::Add(count) => old.slice.checked_add(count).ok_or(Refusal::Overflow)?,
            SliceChange::SetTotal(count) => {
                self.renew_epoch(key);
                count
            }
            SliceChange::SetSlice(count) => count,
            SliceChange::AddWithin { count, least, most } => {
                let fits = fitting(count, least, most, old.total);
                if fits == 0 {
                    return Ok(Written { old, new: old, condition_met: true });
                }
                old.slice.checked_add(fits).ok_or(Refusal::Overflow)?
            }
            SliceChange::Remove => {
                self.renew_epoch(key);
                return Ok(Written { old, new: self.standing(key, who), condition_met: true });
            }
            SliceChange::RemoveSlice => {
                self.check_total(key, who, 0)?;
                self.take_slices(key, &BTreeSet::from([who]));
                return Ok(Written { old, new: self.standing(key, who), condition_met: true });
            }
        };
        self.check_total(key, who, slice)?;
        if let Some(counter) = self.counters.get_mut(key)
            && matches!(write.change, SliceChange::SetSlice(_))
        {
            counter.put_back.remove(&who);
        }
        self.give_slice(key, who, slice);
        Ok(Written { old, new: self.standing(key, who), condition_met: true })
    }

    pub(super) fn read(
        &mut self,
        now: u64,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        let version = self.enter_as_heard(now, member)?;
        let answer = keys.iter().map(|key| Ok(self.standing(key, member.incarnation))).collect();
        Ok(Ordered { version, answer })
    }

    pub(super) fn clear(
        &mut self,
        now: u64,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        self.enter(now, member)?;
        match scope {
            Scope::Total => {
                self.floor = self.next_epoch();
                (self.base, self.former) = (self.floor, self.floor);
                self.counters.clear();
                self.bare.clear();
                self.old_bare.clear();
                // A server does so as it frees what there was.
                self.grow_older(now);
            }
            Scope::Slice => self.take_all_slices(&BTreeSet::from([member.incarnation])),
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, member: &Member) {
        self.remove_members(&BTreeSet::from([member.incarnation]));
    }

    /// The total of the slices of live instances, for a caller that is no member.
    pub(super) fn total(&self, now: u64, key: &RedisKey) -> i64 {
        clamp(self.living_slices(now, key).map(|(_, value)| i128::from(value)).sum())
    }

    /// The key's slices of live instances, for a caller that is no member.
    pub(super) fn slices(&self, now: u64, key: &RedisKey) -> Vec<InstanceSlice> {
        let list = |(joiner, value): (&Joiner, i64)| InstanceSlice {
            instance_id: joiner.id.to_string(),
            name: joiner.name.clone(),
            value,
        };
        let mut listed: Vec<_> = self.living_slices(now, key).map(list).collect();
        listed.sort();
        listed
    }

    fn living_slices(&self, now: u64, key: &RedisKey) -> impl Iterator<Item = (&Joiner, i64)> {
        let slices = self.counters.get(key).into_iter().flat_map(|counter| &counter.slices);
        let slices = slices.filter(|(_, value)| **value != 0);
        slices.filter_map(move |(who, value)| {
            let joiner = self.joined.get(who).filter(|joiner| joiner.lease_ends > now)?;
            Some((joiner, *value))
        })
    }

    /// Some of the counters that have slices, for a caller that is no member.
    pub(super) fn page(
        &self,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Page<RedisKey> {
        paging::page(&self.counters, from, filter, count, |key, _| key.clone())
    }

    /// How many counters have slices.
    pub(super) fn len(&self) -> usize {
        self.counters.len()
    }

    /// The ids of those who are joined and whose lease has not expired.
    pub(super) fn living(&self, now: u64) -> Vec<Arc<str>> {
        let lives = |joiner: &&Joiner| joiner.lease_ends > now && !self.lost_members;
        let living = self.joined.values().filter(lives);
        let mut ids: Vec<_> = living.map(|joiner| Arc::clone(&joiner.id)).collect();
        ids.sort();
        ids
    }

    fn standing(&self, key: &RedisKey, who: Incarnation) -> Standing {
        let counter = self.counters.get(key);
        Standing {
            total: counter.map_or(0, |counter| clamp(counter.sum())),
            slice: counter.and_then(|counter| counter.slices.get(&who)).copied().unwrap_or(0),
            epoch: self.epoch(key),
        }
    }

    fn epoch(&self, key: &RedisKey) -> Epoch {
        match self.counters.get(key) {
            Some(counter) => counter.epoch,
            None => {
                let bare = self.bare.get(key).or_else(|| self.old_bare.get(key));
                bare.copied().unwrap_or(self.base)
            }
        }
    }

    /// Refuses a slice with which the total would be no `i64`.
    fn check_total(&self, key: &RedisKey, who: Incarnation, slice: i64) -> Result<(), Refusal> {
        let Some(counter) = self.counters.get(key) else { return Ok(()) };
        let own = counter.slices.get(&who).copied().unwrap_or(0);
        let total = counter.sum() - i128::from(own) + i128::from(slice);
        i64::try_from(total).map(drop).map_err(|_| Refusal::Overflow)
    }

    fn give_slice(&mut self, key: &RedisKey, who: Incarnation, slice: i64) {
        let epoch = self.epoch(key);
        self.bare.remove(key);
        self.old_bare.remove(key);
        let empty = || Counter { epoch, slices: BTreeMap::new(), put_back: BTreeMap::new() };
        let counter = self.counters.entry(key.clone()).or_insert_with(empty);
        counter.slices.insert(who, slice);
        // What was put back may have to be taken away from it later.
        if slice == 0 && !counter.put_back.contains_key(&who) {
            counter.slices.remove(&who);
            self.drop_if_empty(key);
        }
    }

    /// Drops a key under a new epoch.
    fn renew_epoch(&mut self, key: &RedisKey) {
        self.counters.remove(key);
        let epoch = self.next_epoch();
        self.keep_epoch(key, epoch);
    }

    fn take_slices(&mut self, key: &RedisKey, whose: &BTreeSet<Incarnation>) {
        let Some(counter) = self.counters.get_mut(key) else { return };
        counter.slices.retain(|who, _| !whose.contains(who));
        counter.put_back.retain(|who, _| !whose.contains(who));
        self.drop_if_empty(key);
    }

    /// Drops a key without slices; its epoch must not be forgotten.
    fn drop_if_empty(&mut self, key: &RedisKey) {
        if let Some(counter) = self.counters.get(key)
            && counter.slices.is_empty()
        {
            let epoch = counter.epoch;
            self.counters.remove(key);
            self.keep_epoch(key, epoch);
        }
    }

    /// Keeps the epoch of a key without slices.
    fn keep_epoch(&mut self, key: &RedisKey, epoch: Epoch) {
        if epoch != self.base {
            self.bare.insert(key.clone(), epoch);
        }
    }

    fn take_all_slices(&mut self, whose: &BTreeSet<Incarnation>) {
        let keys: Vec<_> = self.counters.keys().cloned().collect();
        for key in &keys {
            self.take_slices(key, whose);
        }
    }

    /// Removes all instances whose lease has ended.
    fn collect(&mut self, now: u64) {
        let expired = self.joined.iter().filter(|(_, joiner)| joiner.lease_ends <= now);
        let expired: BTreeSet<_> = expired.map(|(who, _)| *who).collect();
        self.remove_members(&expired);
    }

    fn remove_members(&mut self, gone: &BTreeSet<Incarnation>) {
        if !gone.is_empty() {
            for joiner in gone.iter().filter_map(|who| self.joined.remove(who)) {
                // Of one that came too late and never heard so, nothing is remembered.
                if !joiner.late {
                    self.gone.insert(joiner.id, self.age.now);
                }
            }
            self.take_all_slices(gone);
        }
    }

    /// The epoch of a change: an odd number above all others.
    fn next_epoch(&mut self) -> Epoch {
        self.highest += 1 + self.highest % 2;
        Epoch(self.highest)
    }

    /// A number above all others, and near the time in microseconds.
    fn next_number(&mut self, now: u64) -> u64 {
        self.highest = now.saturating_mul(1000).max(self.highest + 1);
        self.highest
    }
}

fn lease_end(now: u64, lease: Duration) -> u64 {
    now.saturating_add(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX))
}

fn clamp(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}
