//! Looks at the store as it is, with nothing in between, and compares it with the reference.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{
        Backend, BackendError, Instance, InstanceBackend, InstanceSlice, Member as Seat, Space,
        Standing,
    },
};

use super::{
    Sample,
    process::{fresh_since, lane},
    world::{FRESH, Family, HEAL, Member, Model, PLAIN_KEYS, Parts, TRAFFIC_KEYS, World, key},
};

pub(crate) struct Inspector {
    world: Arc<World>,
    id: Arc<str>,
    seats: BTreeMap<Space, Seat>,
    /// The shards of each prefix.
    spaces: BTreeMap<RedisKey, Vec<Space>>,
}

impl Inspector {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let id = world.store.fresh_id();
        let prefixes = [Family::Traffic.prefix(), Family::Stock.prefix(), key("plain")];
        let shards = |prefix: RedisKey| {
            let spaces = Space::shards_of(prefix.clone(), world.config.shards);
            (prefix, spaces)
        };
        let spaces = prefixes.map(shards).into();
        Self { world, id, seats: BTreeMap::new(), spaces }
    }

    /// All that must hold at any moment. Nothing else runs meanwhile: the store answers at once.
    pub(crate) async fn inspect(&mut self) {
        for family in [Family::Traffic, Family::Stock] {
            for name in family.keys() {
                let (standing, slices) = self.look(family, name).await;
                let sum: i64 = slices.iter().map(|slice| slice.value).sum();
                if standing.total != sum {
                    let total = standing.total;
                    self.world.broken(format!(
                        "the total of {name} is {total}, the slices of the joined are {sum}: {slices:?}"
                    ));
                }
                self.check_slices(family, name, &slices);
            }
        }
        self.check_plain().await;
        self.end_drift();
        self.world.model().stats.inspections += 1;
    }

    /// After the quiet time nobody has an excuse any more.
    pub(crate) async fn inspect_the_healed(&mut self) {
        if self.world.violation().is_some() {
            return;
        }
        self.inspect().await;
        let (now, model) = (self.world.now(), self.world.model());
        let slots = model.slots.iter().enumerate();
        let ailing = slots.filter(|(slot, _)| model.ailing_since(*slot, now).is_some()).count();
        let absent = model.slots.iter().filter(|slot| slot.process.is_none()).count();
        let adrift = model.stock_adrift;
        drop(model);
        if ailing > 0 || absent > 0 || adrift {
            self.world.broken(format!(
                "the simulation ended with {ailing} processes ailing, {absent} absent, adrift: {adrift}"
            ));
        }
    }

    pub(crate) async fn sample(&mut self) -> Sample {
        let name = TRAFFIC_KEYS[0];
        let (standing, slices) = self.look(Family::Traffic, name).await;
        let model = self.world.model();
        let living = |member: &&Member| member.ends.is_none() && member.family == Family::Traffic;
        let open = model.members.iter().filter(|(_, member)| living(member)).map(|(id, member)| {
            match &member.parts {
                Parts::Buffered(parts) => parts.get(name).map_or(0, |part| part.sum()),
                // What a strict counter has is known when the store has it.
                _ => slices.iter().filter(|s| s.instance_id == *id).map(|s| s.value).sum(),
            }
        });
        Sample {
            at: self.world.now(),
            total: standing.total,
            open: open.sum(),
            beliefs: model.slots.iter().map(|slot| slot.belief).collect(),
        }
    }

    /// The shard of a key.
    fn space(&self, prefix: &RedisKey, key: &RedisKey) -> Space {
        self.spaces[prefix][usize::from(Space::shard_of(key, self.world.config.shards))].clone()
    }

    async fn look(&mut self, family: Family, name: &str) -> (Standing, Vec<InstanceSlice>) {
        let (key, store) = (key(name), self.world.store.clone());
        let space = self.space(&family.prefix(), &key);
        loop {
            let lease = Duration::from_secs(3600);
            let seat = match self.seats.get(&space) {
                Some(seat) => seat.clone(),
                None => {
                    let id = self.id.clone();
                    let instance = Instance::new(id, lease);
                    let joined = store.join(&space, &instance, &[]).await.unwrap();
                    let seat = Seat { incarnation: joined.incarnation, lease };
                    self.seats.insert(space.clone(), seat.clone());
                    seat
                }
            };
            match store.read_on(&space, &seat, std::slice::from_ref(&key)).await {
                Err(BackendError::NotJoined) => {
                    self.seats.remove(&space);
                }
                answer => {
                    let standing = answer.unwrap().answer.remove(0).unwrap();
                    return (standing, store.slices(&space, &key).await.unwrap());
                }
            }
        }
    }

    fn check_slices(&self, family: Family, name: &'static str, slices: &[InstanceSlice]) {
        let world = &self.world;
        let now = world.now();
        // Nobody writes to stock while this is held, or has a write to it under way.
        let quiet = world.stock_gate.try_write().is_ok();
        let mut broken = Vec::new();
        let mut names = BTreeMap::new();
        let mut model = world.model();
        for slice in slices {
            if !model.members.contains_key(&slice.instance_id) {
                broken.push(format!("{slice:?} of {name} belongs to nobody who can be joined"));
            }
            if let Some(holder) = &slice.name
                && let Some(other) = names.insert(holder.as_str(), &slice.instance_id)
            {
                let id = &slice.instance_id;
                broken.push(format!("{id} and {other} are counted under the one name {holder}"));
            }
        }
        let found: BTreeMap<_, _> =
            slices.iter().map(|slice| (slice.instance_id.as_str(), slice.value)).collect();
        let Model { members, slots, stats, stock_adrift, .. } = &mut *model;
        members.retain(|id, member| {
            if member.family != family {
                return true;
            }
            let value = found.get(id.as_str()).copied();
            if let Some(ends) = member.ends {
                if now <= ends {
                    return true;
                }
                if let Some(value) = value {
                    broken.push(format!(
                        "{}, which expired long ago, still counts {value} in {name}",
                        who(member)
                    ));
                }
                return value.is_some() || name != family.keys()[family.keys().len() - 1];
            }
            let trouble = slots[member.slot].trouble;
            let ailing = trouble.filter(|(_, to)| to + HEAL > now).map(|(from, _)| from);
            if matches!(member.parts, Parts::Contended(_))
                && (!quiet || *stock_adrift || ailing.is_some())
            {
                return true;
            }
            stats.comparisons += 1;
            if let Err(expected) = compare(member, name, value, ailing, now) {
                let held = value.map_or("nothing".to_owned(), |value| value.to_string());
                broken.push(format!(
                    "of {name} the store holds {held} for {}; {expected}",
                    who(member)
                ));
            }
            true
        });
        drop(model);
        broken.into_iter().for_each(|what| world.broken(what));
    }

    async fn check_plain(&self) {
        let world = &self.world;
        let mut totals = Vec::new();
        for name in PLAIN_KEYS.map(key) {
            let space = self.space(&key("plain"), &name);
            totals.append(&mut world.store.read(&space, &[name]).await.unwrap());
        }
        let now = world.now();
        let mut model = world.model();
        let healthy: Vec<_> = (0..model.slots.len())
            .filter(|slot| model.ailing_since(*slot, now).is_none())
            .filter_map(|slot| model.slots[slot].process)
            .collect();
        for (name, total) in PLAIN_KEYS.iter().zip(totals) {
            let total = total.unwrap();
            model.stats.comparisons += 1;
            let Some(reference) = model.plain.get_mut(name) else { continue };
            for process in &healthy {
                reference.arrived(*process, fresh_since(now));
            }
            let (least, most) = reference.range();
            if (least..=most).contains(&total) {
                reference.seen(total);
            } else {
                drop(model);
                world.broken(format!(
                    "the total of {name} is {total}; acknowledged are {least}, and at most {most}"
                ));
                return;
            }
        }
    }

    /// When everybody is well again after a loss of data, stock is whatever the store holds.
    fn end_drift(&self) {
        let now = self.world.now();
        let mut model = self.world.model();
        let ailing = (0..model.slots.len()).any(|slot| model.ailing_since(slot, now).is_some());
        if !model.stock_adrift || ailing || self.world.stock_gate.try_write().is_err() {
            return;
        }
        model.stock_adrift = false;
        for member in model.members.values_mut() {
            if let Parts::Contended(parts) = &mut member.parts {
                parts.values_mut().for_each(|part| part.adopts = true);
            }
        }
    }
}

fn who(member: &Member) -> String {
    let kind = match member.parts {
        Parts::Buffered(_) => "the lax counter",
        Parts::Direct(_) => "the strict counter",
        Parts::Contended(_) => "a counter of stock",
    };
    format!("{kind} of {}.{}", lane(member.slot), member.process)
}

/// Says what was to be expected, if it is not what the store holds.
fn compare(
    member: &mut Member,
    name: &str,
    value: Option<i64>,
    ailing: Option<u64>,
    now: u64,
) -> Result<(), String> {
    // A process that is cut off may have expired.
    if value.is_none() && ailing.is_some() {
        return Ok(());
    }
    let value = value.unwrap_or(0);
    match &mut member.parts {
        Parts::Buffered(parts) => {
            let Some(part) = parts.get_mut(name) else { return Ok(()) };
            let since = fresh_since(ailing.unwrap_or(now));
            if !part.was(value, since) {
                let (sum, age) = (part.sum(), now - since);
                return Err(format!(
                    "{sum} was acknowledged, and nothing else in the last {age} ms"
                ));
            }
            part.forget_before(since);
        }
        Parts::Direct(parts) => {
            let Some(part) = parts.get_mut(name) else { return Ok(()) };
            if !part.may_be(value) {
                return Err(format!("it must be {part:?}"));
            }
        }
        Parts::Contended(parts) => {
            let Some(part) = parts.get_mut(name) else { return Ok(()) };
            if part.used_at + FRESH < now {
                if part.adopts {
                    part.is(value);
                } else if !part.values().contains(&value) {
                    return Err(format!("it must be one of {:?}: {part:?}", part.values()));
                }
                part.seen(value);
            }
        }
    }
    Ok(())
}
