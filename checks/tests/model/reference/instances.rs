use std::collections::{BTreeMap, BTreeSet};

use distkit::backend::{Scope, SliceChange};

use super::{Item, Outcomes, Overflow, Stand, Wrote, plain::room};
use crate::cast::Key;

/// Numbers a membership, greater than any before in its shard: the time in microseconds, or one more than the last. So
/// memberships in different shards are in an order, too.
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
/// Nothing is ever subtracted: what was counted before the key's last change and the slices of those who are
/// gone just do not count.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Instances {
    /// By the epoch under which it was counted. One member has several of a key where a claim from before a
    /// loss was put back.
    slices: BTreeMap<(Key, Epoch, Member), i128>,
    joined: BTreeMap<Member, Joined>,
    epochs: BTreeMap<Key, Epoch>,
    /// The epoch of the keys that were not set or deleted since everything was cleared or lost.
    floor: Epoch,
    /// The epoch with which the store began; 0 before anybody joined.
    born: Epoch,
    /// All epochs with which the store ever began: nothing was changed then.
    births: BTreeSet<Epoch>,
    last_epoch: Epoch,
    last_member: Member,
    /// Who is joined is lost, and nobody has joined since.
    lost: bool,
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

    /// The last change of the key that anybody has told of; 0 for none.
    fn last_change(&self, key: Key) -> Epoch {
        let current = self.current(key);
        if self.births.contains(&current) { 0 } else { current }
    }

    /// Under which epoch it is counted what is written now.
    fn writing(&self, key: Key) -> Epoch {
        self.current(key).max(self.born)
    }

    /// What counts of a key: all that was counted at or after its last change.
    fn counted(&self, key: Key) -> BTreeMap<Member, i128> {
        let mut counted = BTreeMap::new();
        let from = (key, self.last_change(key), Member::MIN);
        for ((of, _, who), value) in self.slices.range(from..) {
            if *of == key && self.joined.contains_key(who) {
                *counted.entry(*who).or_default() += *value;
            }
        }
        counted
    }

    /// The sum, which need not fit into an `i64` when some of those who kept it there are gone.
    fn sum(&self, key: Key) -> i128 {
        self.counted(key).values().sum()
    }

    fn slice(&self, key: Key, who: Member) -> i64 {
        clamped(self.counted(key).get(&who).copied().unwrap_or(0))
    }

    pub(crate) fn stand(&self, key: Key, who: Member) -> Stand {
        Stand {
            total: clamped(self.sum(key)),
            slice: self.slice(key, who),
            epoch: self.current(key),
        }
    }

    fn new_epoch(&mut self) -> Epoch {
        self.last_epoch += 1;
        self.last_epoch
    }

    /// An operation looks: an instance whose lease has ended is expired.
    fn collect(&mut self, now: u64) {
        self.joined.retain(|_, joined| now < joined.lease_ends);
    }

    /// Begins each operation of a member.
    pub(crate) fn enter(&mut self, now: u64, who: Member) -> Result<(), Turned> {
        let joined = self.joined.get_mut(&who).filter(|_| !self.lost);
        let joined = joined.ok_or(Turned::NotJoined)?;
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
            self.births.insert(self.born);
            self.floor = self.born;
        }
        if std::mem::take(&mut self.lost) {
            self.joined.clear();
        }
        self.collect(now);
        let Newcomer { id, name, lease, first } = newcomer;
        let namesake = |joined: &Joined| joined.id == id || name.is_some() && joined.name == name;
        let newer = |joined: &Joined| joined.id != id && first.is_some_and(|f| joined.first > f);
        if self.joined.values().any(|joined| namesake(joined) && newer(joined)) {
            return Err(Turned::Replaced);
        }
        self.joined.retain(|_, joined| !namesake(joined));
        self.last_member = (self.last_member + 1).max(now * 1000);
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
    /// since the store began, the store cannot know the last change: it believes the claims.
    fn put_back(&mut self, who: Member, claim: &Claim) {
        let Claim { key, epoch, value } = *claim;
        let current = self.current(key);
        let untouched = self.floor == self.born && current <= self.born;
        let counts =
            epoch == current || untouched && epoch <= self.born && epoch >= self.last_change(key);
        if !counts || self.counted(key).contains_key(&who) {
            return;
        }
        if epoch != current && !self.births.contains(&epoch) {
            self.learn_of_change(key, epoch);
        }
        if value != 0 {
            self.slices.insert((key, epoch, who), value.into());
        }
    }

    /// A claim tells of a change before the loss: what was counted before it does not count, and an instance of
    /// which nothing is left has no slice.
    fn learn_of_change(&mut self, key: Key, change: Epoch) {
        self.epochs.insert(key, change);
        let left = self.counted(key);
        let outdated = |(of, epoch, _): &(Key, Epoch, Member)| *of == key && *epoch < change;
        let whose: BTreeSet<_> =
            self.slices.keys().filter(|at| outdated(at)).map(|(.., who)| *who).collect();
        let gone =
            |who: &Member| whose.contains(who) && left.get(who).is_none_or(|left| *left == 0);
        self.slices.retain(|(of, _, who), _| *of != key || !gone(who));
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
        let change = match change {
            SliceChange::AddWithin { count, least, most } => {
                match room(count, least, most, old.total) {
                    0 => return Ok(Wrote { old, new: old, met: true }),
                    fits => SliceChange::Add(fits),
                }
            }
            change => change,
        };
        match change {
            SliceChange::Add(count) => {
                let slice = old.slice.checked_add(count).ok_or(Overflow)?;
                self.check(key, who, slice)?;
                *self.slices.entry((key, self.writing(key), who)).or_default() += i128::from(count);
            }
            SliceChange::SetSlice(count) => {
                self.check(key, who, count)?;
                self.slices.retain(|(of, _, whose), _| (*of, *whose) != (key, who));
                self.slices.insert((key, self.writing(key), who), count.into());
            }
            SliceChange::SetTotal(count) => {
                let epoch = self.new_epoch();
                self.epochs.insert(key, epoch);
                self.slices.insert((key, epoch, who), count.into());
            }
            other => panic!("{other:?} is new"),
        }
        Ok(Wrote { old, new: self.stand(key, who), met: true })
    }

    /// Whether the total would fit with another slice.
    fn check(&self, key: Key, who: Member, slice: i64) -> Result<(), Overflow> {
        let total = self.sum(key) - i128::from(self.slice(key, who)) + i128::from(slice);
        i64::try_from(total).map(drop).map_err(|_| Overflow)
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
                self.check(key, who, 0)?;
                self.slices.retain(|(of, _, whose), _| (*of, *whose) != (key, who));
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

    /// Those of the living, whoever asks.
    pub(crate) fn slices(&self, now: u64, key: Key) -> Vec<(String, i64)> {
        let lives = |who: &Member| self.joined[who].lease_ends > now;
        let counted = self.counted(key).into_iter();
        let counted = counted.filter(|(who, value)| *value != 0 && lives(who));
        let mut slices: Vec<_> =
            counted.map(|(who, value)| (self.joined[&who].id.clone(), clamped(value))).collect();
        slices.sort();
        slices
    }

    /// The store takes everybody for gone.
    pub(crate) fn lose_members(&mut self) {
        self.lost = true;
    }

    /// The store restarts empty. Numbers given before do not come again.
    pub(crate) fn lose_data(&mut self) {
        let Self { last_epoch, last_member, .. } = *self;
        let births = std::mem::take(&mut self.births);
        *self = Self { last_epoch, last_member, births, ..Self::default() };
    }
}

fn clamped(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}
