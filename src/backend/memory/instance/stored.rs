//! Instance-aware counters as they are stored, for copies of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{Age, Counter, Instances, Joiner, lease_end};
use crate::{
    KeyFilter, RedisKey,
    backend::{
        BackendError, Cursor, Epoch, Incarnation, Page, Slice,
        memory::paging,
        transfer::{Export, Held, HeldSlice, Life, Part, Registered, differs},
    },
};

/// How many entries a portion has.
const PORTION: usize = 500;

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Instances {
    pub(in crate::backend::memory) fn export(
        &self,
        now: u64,
        what: Export<'_>,
    ) -> Result<Part, BackendError> {
        if self.lost_members {
            return Err(BackendError::Corrupt("who is joined is lost".to_owned()));
        }
        Ok(match what {
            Export::Life => Part::Life(self.life()),
            Export::Members(from) => Part::Members(self.registered(now, from)?),
            Export::Counters(keys) => {
                Part::Counters(keys.iter().map(|key| self.held(key)).collect())
            }
            Export::Epochs { old, from } => {
                let epochs = if old { &self.old_bare } else { &self.bare };
                let entry = |key: &RedisKey, epoch: &Epoch| (key.clone(), *epoch);
                let page = paging::page(epochs, from, &KeyFilter::all(), PORTION, entry);
                Part::Epochs { old, page }
            }
            Export::Gone(from) => Part::Gone(self.who_is_gone(from)?),
        })
    }

    fn life(&self) -> Option<Life> {
        (self.born != Epoch::default()).then(|| Life {
            born: self.born,
            floor: self.floor,
            base: self.base,
            former: self.former,
            latest: Epoch(self.highest),
            last: Incarnation(self.highest),
            age: milliseconds(self.age.now),
            turned: milliseconds(self.age.turned),
            max_absence: milliseconds(self.age.max_absence),
            gone_since: 0,
        })
    }

    fn registered(
        &self,
        now: u64,
        from: Option<&Cursor>,
    ) -> Result<Page<Registered>, BackendError> {
        let registered = |(who, joiner): (&Incarnation, &Joiner)| Registered {
            incarnation: *who,
            id: Arc::clone(&joiner.id),
            name: joiner.name.clone(),
            first: joiner.first,
            lease: milliseconds(joiner.lease),
            left: joiner.lease_ends.saturating_sub(now),
            late: joiner.late,
        };
        numbered(self.joined.iter().map(registered), from)
    }

    fn held(&self, key: &RedisKey) -> Held {
        let mut held = Held { key: key.clone(), epoch: self.epoch(key), slices: Vec::new() };
        if let Some(counter) = self.counters.get(key) {
            let slice = |(owner, value): (&Incarnation, &i64)| HeldSlice {
                owner: *owner,
                value: *value,
                put_back: counter.put_back.get(owner).map(|claim| (claim.epoch, claim.value)),
            };
            held.slices.extend(counter.slices.iter().map(slice));
        }
        held
    }

    fn who_is_gone(&self, from: Option<&Cursor>) -> Result<Page<(String, u64)>, BackendError> {
        numbered(self.gone.iter().map(|(id, age)| (id.to_string(), milliseconds(*age))), from)
    }

    pub(in crate::backend::memory) fn import(
        &mut self,
        now: u64,
        part: &Part,
    ) -> Result<Vec<Incarnation>, BackendError> {
        match part {
            Part::Life(None) => {}
            Part::Life(Some(life)) => self.begin(now, life)?,
            Part::Members(page) => {
                return Ok(page.entries.iter().map(|joiner| self.register(now, joiner)).collect());
            }
            Part::Counters(counters) => {
                counters.iter().try_for_each(|counter| self.put(counter))?;
            }
            Part::Epochs { old, page } => {
                for (key, epoch) in &page.entries {
                    self.put_epoch(key, *epoch, *old)?;
                }
            }
            Part::Gone(page) => {
                for (id, age) in &page.entries {
                    if !self.joined.values().any(|joiner| *joiner.id == **id) {
                        self.gone.insert(id.as_str().into(), Duration::from_millis(*age));
                    }
                }
            }
        }
        Ok(Vec::new())
    }

    fn begin(&mut self, now: u64, life: &Life) -> Result<(), BackendError> {
        if self.born != Epoch::default() {
            let same = [self.born, self.floor, self.base, self.former]
                == [life.born, life.floor, life.base, life.former];
            return if same { Ok(()) } else { Err(differs()) };
        }
        (self.born, self.floor, self.base, self.former) =
            (life.born, life.floor, life.base, life.former);
        self.highest = self.highest.max(life.latest.0).max(life.last.0).max(life.born.0);
        self.age = Age {
            now: Duration::from_millis(life.age),
            seen: Some(now),
            turned: Duration::from_millis(life.turned),
            max_absence: Duration::from_millis(life.max_absence),
        };
        Ok(())
    }

    fn register(&mut self, now: u64, registered: &Registered) -> Incarnation {
        let there = self.joined.iter().find(|(_, joiner)| joiner.id == registered.id);
        let there = there.map(|(who, _)| *who);
        let incarnation = there.unwrap_or_else(|| Incarnation(self.next_number(now)));
        let joiner = Joiner {
            id: Arc::clone(&registered.id),
            name: registered.name.clone(),
            first: registered.first,
            lease_ends: lease_end(now, Duration::from_millis(registered.left)),
            lease: Duration::from_millis(registered.lease),
            version: 1,
            late: registered.late,
            sequence: 0,
            refused: BTreeMap::new(),
        };
        self.joined.insert(incarnation, joiner);
        self.gone.remove(&registered.id);
        incarnation
    }

    fn put(&mut self, held: &Held) -> Result<(), BackendError> {
        let key = &held.key;
        let slices: Vec<_> =
            held.slices.iter().filter(|slice| self.joined.contains_key(&slice.owner)).collect();
        if slices.is_empty() {
            return self.put_epoch(key, held.epoch, false);
        }
        if self.knows(key) && self.epoch(key) != held.epoch {
            return Err(differs());
        }
        self.bare.remove(key);
        self.old_bare.remove(key);
        let empty =
            || Counter { epoch: held.epoch, slices: BTreeMap::new(), put_back: BTreeMap::new() };
        let counter = self.counters.entry(key.clone()).or_insert_with(empty);
        for slice in slices {
            counter.slices.insert(slice.owner, slice.value);
            if let Some((epoch, value)) = slice.put_back {
                let claim = Slice { key: key.clone(), epoch, value };
                counter.put_back.insert(slice.owner, claim);
            }
        }
        Ok(())
    }

    fn put_epoch(&mut self, key: &RedisKey, epoch: Epoch, old: bool) -> Result<(), BackendError> {
        if self.knows(key) {
            return if self.epoch(key) == epoch { Ok(()) } else { Err(differs()) };
        }
        if epoch != self.base {
            let epochs = if old { &mut self.old_bare } else { &mut self.bare };
            epochs.insert(key.clone(), epoch);
        }
        Ok(())
    }

    /// Whether the key has an epoch of its own.
    fn knows(&self, key: &RedisKey) -> bool {
        self.counters.contains_key(key)
            || self.bare.contains_key(key)
            || self.old_bare.contains_key(key)
    }
}

/// A page of entries that do not move meanwhile, by their numbers.
fn numbered<T>(
    entries: impl Iterator<Item = T>,
    from: Option<&Cursor>,
) -> Result<Page<T>, BackendError> {
    let from = match from {
        None => 0,
        Some(place) => place
            .as_str()
            .parse()
            .map_err(|_| BackendError::not_applied("that is no place in a copy"))?,
    };
    let mut entries = entries.skip(from);
    let some: Vec<_> = entries.by_ref().take(PORTION).collect();
    let next = entries.next().map(|_| Cursor::new((from + some.len()).to_string()));
    Ok(Page::new(some, next))
}
