use std::collections::{BTreeMap, BTreeSet};

use distkit::backend::{Scope, SliceChange};

use super::{Item, Outcomes, Overflow, Stand, Wrote};
use crate::cast::Key;

/// Numbers a membership, greater than any before.
type Member = u64;
type Epoch = u64;

/// Why an instance is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    NotJoined,
    Replaced,
}

/// Who joins.
pub(crate) struct Newcomer {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    pub(crate) lease: u64,
    pub(crate) first: Option<Member>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub(crate) key: Key,
    pub(crate) epoch: Epoch,
    pub(crate) value: i64,
}

/// Instance-aware counters.
///
///     total(key) = sum of the slices, under the key's current epoch, of the instances that are joined
///
/// Nothing is ever subtracted: slices of other epochs and of those who are gone just do not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Instances {
    slices: BTreeMap<(Key, Epoch, Member), i64>,
    joined: BTreeMap<Member, Joined>,
    epochs: BTreeMap<Key, Epoch>,
    /// The epoch of the keys that were not set or deleted since everything was cleared or lost.
    floor: Epoch,
    /// The epoch with which the store began; 0 before anybody joined.
    born: Epoch,
    last_epoch: Epoch,
    last_member: Member,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Joined {
    id: String,
    name: Option<String>,
    first: Member,
    lease: u64,
    lease_ends: u64,
    sequence: u64,
    refused: BTreeSet<usize>,
}

impl Instances {
    fn current(&self, key: Key) -> Epoch {
        self.epochs.get(&key).copied().unwrap_or(self.floor)
    }

    fn counted(&self, key: Key) -> impl Iterator<Item = (&Joined, i64)> {
        let epoch = self.current(key);
        self.slices
            .iter()
            .filter(move |((of, under, _), _)| *of == key && *under == epoch)
            .filter_map(|((_, _, who), value)| Some((self.joined.get(who)?, *value)))
    }

    /// The sum, which need not fit into an `i64` when some of those who kept it there are gone.
    fn sum(&self, key: Key) -> i128 {
        self.counted(key).map(|(_, value)| i128::from(value)).sum()
    }

    fn slice(&self, key: Key, who: Member) -> i64 {
        self.slices.get(&(key, self.current(key), who)).copied().unwrap_or(0)
    }

    pub(crate) fn stand(&self, key: Key, who: Member) -> Stand {
        let total = self.sum(key).clamp(i64::MIN.into(), i64::MAX.into());
        Stand {
            total: i64::try_from(total).unwrap(),
            slice: self.slice(key, who),
            epoch: self.current(key),
        }
    }

    fn new_epoch(&mut self) -> Epoch {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// Somebody looks: whose lease has run out is dead.
    fn collect(&mut self, now: u64) {
        self.joined.retain(|_, joined| now < joined.lease_ends);
    }

    /// Begins each operation of a member.
    pub(crate) fn enter(&mut self, now: u64, who: Member) -> Result<(), Turned> {
        let joined = self.joined.get_mut(&who).ok_or(Turned::NotJoined)?;
        joined.lease_ends = now + joined.lease;
        self.collect(now);
        Ok(())
    }

    pub(crate) fn join(
        &mut self,
        now: u64,
        newcomer: Newcomer,
        claims: &[Claim],
    ) -> Result<(Member, Vec<Stand>), Turned> {
        if self.born == 0 {
            self.born = self.new_epoch();
            self.floor = self.born;
        }
        self.collect(now);
        let Newcomer { id, name, lease, first } = newcomer;
        let namesake = |joined: &Joined| joined.id == id || name.is_some() && joined.name == name;
        let newer = |joined: &Joined| joined.id != id && first.is_some_and(|f| joined.first > f);
        if self.joined.values().any(|joined| namesake(joined) && newer(joined)) {
            return Err(Turned::Replaced);
        }
        self.joined.retain(|_, joined| !namesake(joined));
        self.last_member += 1;
        let who = self.last_member;
        let (lease_ends, first) = (now + lease, first.unwrap_or(who));
        let (sequence, refused) = Default::default();
        self.joined.insert(who, Joined { id, name, first, lease, lease_ends, sequence, refused });
        let stands = claims.iter().map(|claim| {
            self.put_back(who, claim);
            self.stand(claim.key, who)
        });
        let stands = stands.collect();
        Ok((who, stands))
    }

    /// A claim counts if its epoch is the key's current one. Of a key that nobody set, deleted or cleared
    /// since the store began, the store cannot know the epoch: what came before the loss is believed, and of
    /// two claims the one of the later epoch.
    fn put_back(&mut self, who: Member, claim: &Claim) {
        let current = self.current(claim.key);
        let untouched = self.floor == self.born && current <= self.born;
        if claim.epoch != current && untouched && claim.epoch < self.born {
            if current == self.born {
                self.rename_epoch(claim.key, claim.epoch);
            } else if claim.epoch > current {
                self.epochs.insert(claim.key, claim.epoch);
            }
        }
        let counts =
            claim.epoch == self.current(claim.key) || untouched && claim.epoch == self.born;
        if counts {
            self.slices.insert((claim.key, self.current(claim.key), who), claim.value);
        }
    }

    /// What was written since the loss counts beside what is put back.
    fn rename_epoch(&mut self, key: Key, epoch: Epoch) {
        let before = self.current(key);
        let slices = std::mem::take(&mut self.slices);
        let renamed = |((of, under, who), value)| {
            let under = if of == key && under == before { epoch } else { under };
            ((of, under, who), value)
        };
        // Whoever held slices before the loss is not joined any more, so no two of them become one.
        self.slices = slices.into_iter().map(renamed).collect();
        self.epochs.insert(key, epoch);
    }

    pub(crate) fn write(
        &mut self,
        now: u64,
        who: Member,
        items: &[Item<SliceChange>],
        sequence: Option<u64>,
    ) -> Result<(bool, Outcomes<Stand>), Turned> {
        self.enter(now, who)?;
        let joined = &self.joined[&who];
        if let Some(sequence) = sequence.filter(|sequence| *sequence <= joined.sequence) {
            let stands = |(at, item): (usize, &Item<SliceChange>)| {
                if sequence == joined.sequence && joined.refused.contains(&at) {
                    return Err(Overflow);
                }
                let stand = self.stand(item.key, who);
                Ok(Wrote { old: stand, new: stand, met: true })
            };
            return Ok((true, items.iter().enumerate().map(stands).collect()));
        }
        let outcomes: Outcomes<Stand> =
            items.iter().map(|item| self.write_one(who, item)).collect();
        if let (Some(sequence), Some(joined)) = (sequence, self.joined.get_mut(&who)) {
            joined.sequence = sequence;
            joined.refused = (0..items.len()).filter(|at| outcomes[*at].is_err()).collect();
        }
        Ok((false, outcomes))
    }

    fn write_one(
        &mut self,
        who: Member,
        item: &Item<SliceChange>,
    ) -> Result<Wrote<Stand>, Overflow> {
        let Item { key, change, condition } = *item;
        let old = self.stand(key, who);
        let subject =
            if matches!(change, SliceChange::SetSlice(_)) { old.slice } else { old.total };
        if !condition.matches(subject) {
            return Ok(Wrote { old, new: old, met: false });
        }
        match change {
            SliceChange::Add(count) => {
                let slice = old.slice.checked_add(count).ok_or(Overflow)?;
                self.give(key, who, slice)?;
            }
            SliceChange::SetSlice(count) => self.give(key, who, count)?,
            SliceChange::SetTotal(count) => {
                let epoch = self.new_epoch();
                self.epochs.insert(key, epoch);
                self.slices.insert((key, epoch, who), count);
            }
        }
        Ok(Wrote { old, new: self.stand(key, who), met: true })
    }

    /// Replaces a slice, unless the total would not fit.
    fn give(&mut self, key: Key, who: Member, slice: i64) -> Result<(), Overflow> {
        let total = self.sum(key) - i128::from(self.slice(key, who)) + i128::from(slice);
        i64::try_from(total).map_err(|_| Overflow)?;
        self.slices.insert((key, self.current(key), who), slice);
        Ok(())
    }

    pub(crate) fn remove(
        &mut self,
        who: Member,
        key: Key,
        scope: Scope,
    ) -> Result<Wrote<Stand>, Overflow> {
        let old = self.stand(key, who);
        match scope {
            Scope::Total => {
                let epoch = self.new_epoch();
                self.epochs.insert(key, epoch);
            }
            Scope::Slice => {
                self.give(key, who, 0)?;
                self.slices.remove(&(key, old.epoch, who));
            }
        }
        Ok(Wrote { old, new: self.stand(key, who), met: true })
    }

    pub(crate) fn clear(&mut self, who: Member, scope: Scope) {
        match scope {
            Scope::Total => {
                self.floor = self.new_epoch();
                self.epochs.clear();
                self.slices.clear();
            }
            Scope::Slice => self.slices.retain(|(_, _, whose), _| *whose != who),
        }
    }

    pub(crate) fn leave(&mut self, who: Member) {
        self.joined.remove(&who);
    }

    pub(crate) fn slices(&self, key: Key) -> Vec<(String, i64)> {
        let mut slices: Vec<_> =
            self.counted(key).map(|(joined, value)| (joined.id.clone(), value)).collect();
        slices.sort();
        slices
    }

    /// The store restarts empty. Numbers given before do not come again.
    pub(crate) fn lose_data(&mut self) {
        let Self { last_epoch, last_member, .. } = *self;
        *self = Self { last_epoch, last_member, ..Self::default() };
    }
}
