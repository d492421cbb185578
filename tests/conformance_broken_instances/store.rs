//! A store of instance-aware counters in maps, right but for its fault.
//!
//! Unlike the memory store it keeps the totals, and slices of older epochs until their owners go, so
//! that what can go wrong with either does.

mod operations;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use distkit::{
    RedisKey,
    backend::{
        BackendError, Epoch, Incarnation, Instance, InstanceSlice, Joined, Member, Outcome, Slice,
        Standing, Written,
    },
};

use super::Fault;

struct Seat {
    id: Arc<str>,
    name: Option<RedisKey>,
    first: u64,
    ends: u64,
    version: u64,
    /// Its claims were refused, and it has done nothing since.
    late: bool,
}

#[derive(Default)]
struct Guard {
    sequence: u64,
    outcomes: Vec<Outcome<Written<Standing>>>,
}

#[derive(Clone, Copy)]
struct Part {
    epoch: u64,
    value: i64,
    /// A claim from before a loss that is part of the value: its epoch, and how much it is.
    put_back: Option<(u64, i64)>,
}

pub(super) struct Instances {
    fault: Fault,
    highest: u64,
    born: u64,
    floor: u64,
    age: u64,
    seen: u64,
    /// When they left, by the age.
    gone: BTreeMap<Arc<str>, u64>,
    seats: BTreeMap<u64, Seat>,
    /// Those who were collected, as far as their names go.
    ghosts: Vec<Seat>,
    guards: BTreeMap<String, Guard>,
    epochs: BTreeMap<RedisKey, u64>,
    totals: BTreeMap<RedisKey, i128>,
    parts: BTreeMap<(RedisKey, u64), Part>,
}

impl Instances {
    pub(super) fn new(fault: Fault) -> Self {
        Self {
            fault,
            highest: 1000,
            born: 0,
            floor: 0,
            age: 0,
            seen: 0,
            gone: BTreeMap::new(),
            seats: BTreeMap::new(),
            ghosts: Vec::new(),
            guards: BTreeMap::new(),
            epochs: BTreeMap::new(),
            totals: BTreeMap::new(),
            parts: BTreeMap::new(),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn next(&mut self) -> u64 {
        self.highest += 1;
        self.highest
    }

    /// The epoch of a change is odd, that of a beginning even.
    fn next_change(&mut self) -> u64 {
        self.highest += 1 + self.highest % 2;
        self.highest
    }

    pub(super) fn wipe(&mut self) {
        *self = Self { highest: self.highest, ..Self::new(self.fault) };
    }

    pub(super) fn join(
        &mut self,
        now: u64,
        instance: &Instance,
        claims: &[Slice],
    ) -> Result<Joined, BackendError> {
        if self.born == 0 {
            self.born = self.next_change() + 1;
            self.highest = self.born;
            self.floor = self.born;
        }
        self.grow_older(now);
        if !self.is(Fault::JoinsFindNoDead) {
            self.collect(now, None);
        }
        let absence = instance.max_absence.as_millis() as u64;
        let seat = self.seats.values().find(|seat| seat.id == instance.id);
        let (lives, unheard) = (seat.is_some(), seat.is_some_and(|seat| seat.late));
        let late = instance.first_joined.is_some_and(|first| first.0 > self.born)
            && self.age > absence
            && !lives
            && self.gone.get(&instance.id).is_none_or(|gone| self.age - gone > absence)
            || unheard;
        let late = late && !self.is(Fault::AcceptsClaimsAfterAnyAbsence);
        if self.is(Fault::DropsEpochsTooEarly) && self.age > absence {
            let (epochs, floor) = (&self.epochs, self.floor);
            let current = |key: &RedisKey| epochs.get(key).copied().unwrap_or(floor);
            self.parts.retain(|(key, _), part| part.epoch == current(key));
            self.epochs.retain(|key, _| self.parts.keys().any(|(of, _)| of == key));
        }
        let mut older = BTreeSet::new();
        let ghosts = self.ghosts.iter().map(|ghost| (&0, ghost));
        for (inc, seat) in self.seats.iter().chain(ghosts) {
            let same_name = instance.name.is_some() && seat.name == instance.name;
            if seat.id == instance.id {
                if !self.is(Fault::KeepsEarlierIncarnations) {
                    older.insert(*inc);
                }
            } else if same_name && !self.is(Fault::SharesNames) {
                let newer = instance.first_joined.is_some_and(|mine| seat.first > mine.0);
                if newer && !self.is(Fault::NamesGoToTheLatestJoin) {
                    return Err(BackendError::Replaced);
                }
                older.insert(*inc);
            }
        }
        for inc in older {
            self.unseat(inc);
        }
        let inc = self.next();
        let mut seat = Seat {
            id: instance.id.clone(),
            name: instance.name.clone(),
            first: instance.first_joined.map_or(inc, |first| first.0),
            ends: now + instance.lease.as_millis() as u64,
            version: 0,
            late,
        };
        if self.is(Fault::TrimsNames) {
            seat.name = seat.name.and_then(|name| RedisKey::new(name.trim_matches(' ')).ok());
            seat.name = seat.name.map(|name| RedisKey::new(name.replace("\r\n", " ")).unwrap());
        }
        self.seats.insert(inc, seat);
        let mut standings = Vec::new();
        for (n, claim) in claims.iter().enumerate() {
            if !(late || self.is(Fault::JoinsTakeAThousandClaims) && n >= 1000) {
                self.put_back(inc, claim);
            }
            standings.push(Ok(self.standing(&claim.key, inc)));
        }
        Ok(Joined { incarnation: Incarnation(inc), born: None, standings })
    }

    fn put_back(&mut self, inc: u64, claim: &Slice) {
        let again = self.parts.contains_key(&(claim.key.clone(), inc));
        if (again && !self.is(Fault::PutsClaimsBackTwice))
            || !self.admits(&claim.key, claim.epoch.0)
        {
            return;
        }
        let epoch = self.epoch(&claim.key);
        *self.totals.entry(claim.key.clone()).or_default() += i128::from(claim.value);
        let nothing = Part { epoch, value: 0, put_back: None };
        let mine = self.parts.entry((claim.key.clone(), inc)).or_insert(nothing);
        mine.value += claim.value;
        mine.put_back = (claim.epoch.0 < self.born).then_some((claim.epoch.0, claim.value));
    }

    /// Whether a claim under this epoch counts.
    fn admits(&mut self, key: &RedisKey, claimed: u64) -> bool {
        let current = self.epoch(key);
        if claimed == current || self.is(Fault::PutsStaleClaimsBack) {
            return true;
        }
        if self.is(Fault::BelievesInventedEpochs) && claimed > current {
            return true;
        }
        let cleared = self.floor != self.born && !self.is(Fault::TakesAClearForALoss);
        if cleared || self.is(Fault::TakesALossForAClear) {
            return false;
        }
        let since = if self.is(Fault::TakesAClearForALoss) { self.floor } else { self.born };
        if current > since || claimed > since {
            return false;
        }
        let is_change = |epoch| epoch % 2 == 1 || self.is(Fault::TakesBeginningsForChanges);
        let last = if is_change(current) && current < since { current } else { 0 };
        if claimed < last {
            return false;
        }
        let others = self.parts.iter().any(|((of, _), part)| of == key && part.put_back.is_some());
        if others && self.is(Fault::FirstClaimAfterALossWins) {
            return false;
        }
        if is_change(claimed) && claimed < since {
            self.take_over(key, claimed);
        }
        true
    }

    fn take_over(&mut self, key: &RedisKey, change: u64) {
        self.epochs.insert(key.clone(), change);
        let mut total = 0;
        let (keeps, drops) =
            (self.is(Fault::LateClaimsTakeNothingAway), self.is(Fault::ClaimsDropCountsSinceALoss));
        self.parts.retain(|(of, _), part| {
            if of != key {
                return true;
            }
            if let Some((_, value)) = part.put_back.take_if(|(epoch, _)| *epoch < change && !keeps)
            {
                part.value -= value;
                if part.value == 0 {
                    return false;
                }
            }
            part.epoch = change;
            total += i128::from(part.value);
            !drops
        });
        self.totals.insert(key.clone(), if drops { 0 } else { total });
    }

    fn grow_older(&mut self, now: u64) {
        let step = now - std::mem::replace(&mut self.seen, now);
        self.age += if self.is(Fault::CountsClockStepsAsAbsence) { step } else { step.min(60_000) };
    }

    fn collect(&mut self, now: u64, mine: Option<u64>) {
        let grace = u64::from(self.is(Fault::LeasesEndLate));
        let finds_itself = self.is(Fault::FindsItselfDead);
        let dead: Vec<_> = self
            .seats
            .iter()
            .filter(|(inc, seat)| seat.ends + grace <= now && (finds_itself || Some(**inc) != mine))
            .map(|(inc, _)| *inc)
            .collect();
        for inc in dead {
            if let Some(seat) = self.unseat(inc)
                && self.is(Fault::DeadKeepTheirNames)
                && seat.name.is_some()
            {
                self.ghosts.push(seat);
            }
        }
    }

    /// Removes an instance and its slices.
    fn unseat(&mut self, inc: u64) -> Option<Seat> {
        let seat = self.seats.remove(&inc)?;
        self.gone.insert(seat.id.clone(), self.age);
        self.guards.remove(&inc.to_string());
        let keys = self.parts.keys().filter(|(_, of)| *of == inc);
        let keys: Vec<_> = keys.map(|(key, _)| key.clone()).collect();
        for (n, key) in keys.into_iter().enumerate() {
            if self.is(Fault::CollectsFiftySlices) && n >= 50 {
                break;
            }
            if self.is(Fault::TheDeadTakeWholeKeys) {
                self.totals.remove(&key);
                self.parts.retain(|(of, _), _| *of != key);
            } else {
                self.take_part(&key, inc);
            }
        }
        Some(seat)
    }

    fn take_part(&mut self, key: &RedisKey, inc: u64) {
        let Some(part) = self.parts.remove(&(key.clone(), inc)) else { return };
        if part.epoch == self.epoch(key) || self.is(Fault::SubtractsStaleSlices) {
            *self.totals.entry(key.clone()).or_default() -= i128::from(part.value);
        }
    }

    /// Begins an operation, and numbers it.
    fn enter(&mut self, now: u64, member: &Member, kind: Kind) -> Result<u64, BackendError> {
        let inc = member.incarnation.0;
        if !self.seats.contains_key(&inc) {
            let forgiven = match self.fault {
                Fault::AnswersReadsOfTheNotJoined => kind == Kind::Read,
                Fault::RenewsLeasesThatWereCollected => kind == Kind::Heartbeat,
                _ => false,
            };
            return if forgiven { Ok(0) } else { Err(BackendError::NotJoined) };
        }
        let renews = match self.fault {
            Fault::ReadsRenewNoLease => kind != Kind::Read,
            Fault::HeartbeatsRenewNoLease => kind != Kind::Heartbeat,
            Fault::FindsItselfDead => now < self.seats[&inc].ends,
            _ => true,
        };
        if !(self.is(Fault::ReadsFindNoDead) && kind == Kind::Read) {
            self.collect(now, Some(inc));
        }
        let seat = self.seats.get_mut(&inc).ok_or(BackendError::NotJoined)?;
        seat.late = false;
        if renews {
            seat.ends = now + member.lease.as_millis() as u64;
        }
        if self.fault != Fault::ReadsAreNotNumbered || kind != Kind::Read {
            seat.version += 1;
        }
        Ok(seat.version)
    }

    pub(super) fn heartbeat(&mut self, now: u64, member: &Member) -> Result<(), BackendError> {
        self.grow_older(now);
        self.enter(now, member, Kind::Heartbeat).map(drop)
    }

    pub(super) fn leave(&mut self, member: &Member) {
        if self.is(Fault::LeavingKeepsTheSlices) {
            self.seats.remove(&member.incarnation.0);
        } else {
            self.unseat(member.incarnation.0);
        }
    }

    pub(super) fn total(&self, now: u64, key: &RedisKey) -> i64 {
        let epoch = self.epoch(key);
        let mine = self.parts.iter().filter(|((of, _), part)| of == key && part.epoch == epoch);
        let living = mine.filter(|((_, inc), _)| self.is_listed(now, *inc));
        clamp(living.map(|(_, part)| i128::from(part.value)).sum())
    }

    fn is_listed(&self, now: u64, inc: u64) -> bool {
        let expired = |seat: &Seat| seat.ends <= now && !self.is(Fault::ListsTheExpired);
        self.seats.get(&inc).is_some_and(|seat| !expired(seat))
    }

    pub(super) fn slices(&mut self, now: u64, key: &RedisKey) -> Vec<InstanceSlice> {
        if self.is(Fault::LookingOnCollects) {
            self.collect(now, None);
        }
        let epoch = self.epoch(key);
        let mut listed: Vec<_> = self
            .parts
            .iter()
            .filter(|((of, _), part)| {
                of == key
                    && (part.value != 0 || self.is(Fault::ReadsMakeSlices))
                    && (part.epoch == epoch || self.is(Fault::ListsStaleSlices))
            })
            .filter_map(|((_, inc), part)| {
                let seat = self.seats.get(inc).filter(|_| self.is_listed(now, *inc))?;
                let (instance_id, name) = (seat.id.to_string(), seat.name.clone());
                Some(InstanceSlice { instance_id, name, value: part.value })
            })
            .collect();
        match self.fault {
            Fault::ListsSlicesInReverse => listed.sort_by(|a, b| b.cmp(a)),
            _ => listed.sort(),
        }
        listed
    }

    pub(super) fn standing(&self, key: &RedisKey, inc: u64) -> Standing {
        let epoch = self.epoch(key);
        let total = self.totals.get(key).copied().unwrap_or(0);
        let part = self.parts.get(&(key.clone(), inc)).filter(|part| part.epoch == epoch);
        Standing {
            total: if self.is(Fault::TotalsWrapAround) { total as i64 } else { clamp(total) },
            slice: part.map_or(0, |part| part.value),
            epoch: Epoch(epoch),
        }
    }

    fn epoch(&self, key: &RedisKey) -> u64 {
        self.epochs.get(key).copied().unwrap_or(self.floor)
    }
}

#[derive(PartialEq)]
enum Kind {
    Read,
    Write,
    Heartbeat,
}

fn clamp(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}
