//! Copies the instance-aware counters of a prefix.
//!
//! They are copied as they are stored, each from one shard to one: slices with their owners and epochs, the epochs of
//! counters without slices, who is registered, for how long, and who is gone. A shard of the target may get keys of
//! several shards of the source: see [`Life::of_all`]. Each is registered in all shards of the target.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::by_shard;
use crate::{
    DistkitError, RedisKey,
    backend::{
        Backend, BackendError, Epoch, Incarnation, Page, missing,
        transfer::{Held, HeldSlice, Life, Part, Registered, differs},
    },
    shards::Shards,
    space_store::SpaceStore,
};

/// A shard of the source as it was when the copy began.
struct Source {
    shard: u16,
    life: Life,
    members: Vec<Registered>,
    /// The ids of those whose leases had not expired.
    living: HashMap<Incarnation, Arc<str>>,
}

/// Who is registered in a shard, expired or not.
type Ids = HashMap<Incarnation, Arc<str>>;

/// A slice: whose it is, all of it, and what of it was put back.
type Owned<'i> = (&'i str, i64, Option<(Epoch, i64)>);

fn ids(members: &[Registered]) -> Ids {
    members.iter().map(|member| (member.incarnation, Arc::clone(&member.id))).collect()
}

/// Copies them. Gives how many counters with slices, and how many living instances there are.
pub(super) async fn copy<B: Backend + ?Sized, C: Backend + ?Sized>(
    source: &Shards<SpaceStore<B>>,
    target: &Shards<SpaceStore<C>>,
) -> Result<(u64, u64), DistkitError> {
    // Prefixes that expire have plain counters only.
    if source.first().space().idle().is_some() {
        return Ok((0, 0));
    }
    let sources = sources(source).await?;
    if sources.is_empty() {
        return nothing_in(target).await.map(|()| (0, 0));
    }
    if !target.first().can_transfer() {
        return Err(missing("copies of instance-aware counters").into());
    }
    // What an earlier copy has left is what the source holds, and nothing else.
    nothing_else(source, &sources, target).await?;
    let mut owners = Vec::new();
    for shard in target.iter() {
        owners.push(begin(source, &sources, shard, target.number()).await?);
    }
    for part in &sources {
        counters(source.at(part.shard), part, target, &owners).await?;
        epochs(source, &sources, part, target).await?;
    }
    let counters = verify(source, &sources, target).await?;
    let living: BTreeSet<_> = sources.iter().flat_map(|part| part.living.values()).collect();
    Ok((counters, living.len() as u64))
}

/// The shards of the source in which any instance has ever joined.
async fn sources<B: Backend + ?Sized>(
    source: &Shards<SpaceStore<B>>,
) -> Result<Vec<Source>, DistkitError> {
    let mut sources = Vec::new();
    if !source.first().can_transfer() {
        for shard in source.iter() {
            if shard.slices_to_transfer().await? > 0 {
                return Err(missing("copies of instance-aware counters").into());
            }
        }
        return Ok(sources);
    }
    for shard in source.iter() {
        let Some(life) = shard.life().await? else { continue };
        let members = shard.registered().await?;
        let living = members.iter().filter(|member| member.left > 0);
        let living = living.map(|member| (member.incarnation, Arc::clone(&member.id))).collect();
        sources.push(Source { shard: shard.space().shard(), life, members, living });
    }
    Ok(sources)
}

async fn nothing_in<C: Backend + ?Sized>(
    target: &Shards<SpaceStore<C>>,
) -> Result<(), DistkitError> {
    for shard in target.iter() {
        if shard.slices_to_transfer().await? > 0 {
            return Err(differs().into());
        }
    }
    Ok(())
}

/// The greatest number of shards of which both are made.
fn common(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { common(other, one % other) }
}

/// Those that may have keys of a shard of the target.
fn sources_of(sources: &[Source], from: u16, shard: u16, to: u16) -> impl Iterator<Item = &Source> {
    // Both are remainders of one hash.
    let step = common(from, to);
    sources.iter().filter(move |part| part.shard % step == shard % step)
}

/// Begins a shard of the target, and registers there who lives. Gives their incarnations.
async fn begin<B: Backend + ?Sized, C: Backend + ?Sized>(
    source: &Shards<SpaceStore<B>>,
    sources: &[Source],
    shard: &SpaceStore<C>,
    shards: u16,
) -> Result<HashMap<Arc<str>, Incarnation>, DistkitError> {
    let parts: Vec<_> =
        sources_of(sources, source.number(), shard.space().shard(), shards).collect();
    let lives: Vec<_> = parts.iter().map(|part| part.life.clone()).collect();
    let Some(life) = Life::of_all(&lives) else { return Ok(HashMap::new()) };
    shard.import(&Part::Life(Some(life.clone()))).await?;

    let mut members: BTreeMap<Arc<str>, Registered> = BTreeMap::new();
    for member in parts.iter().flat_map(|part| &part.members).filter(|member| member.left > 0) {
        let known = members.entry(Arc::clone(&member.id)).or_insert_with(|| member.clone());
        // Of several shards: it is as new as in any, and expires as late.
        known.first = known.first.max(member.first);
        known.lease = known.lease.max(member.lease);
        known.late &= member.late;
    }
    let mut gone: BTreeMap<String, u64> = BTreeMap::new();
    let mut leaves = |part: &Source, id: String, age: u64| {
        if members.contains_key(id.as_str()) {
            return;
        }
        let absent = part.life.age.saturating_sub(age);
        let age = life.age.saturating_sub(absent);
        let latest = gone.entry(id).or_insert(age);
        *latest = age.max(*latest);
    };
    for part in &parts {
        // Those of whom it was found out later are gone from now on.
        for member in part.members.iter().filter(|member| member.left == 0 && !member.late) {
            leaves(part, member.id.to_string(), part.life.age);
        }
        let mut from = Some(None);
        while let Some(at) = from {
            let page = source.at(part.shard).gone(at.as_ref()).await?;
            for (id, age) in page.entries {
                leaves(part, id, age);
            }
            from = page.next.map(Some);
        }
    }
    shard.import(&Part::Gone(Page::new(gone.into_iter().collect(), None))).await?;

    // Leases go on while all this is read: what is left of them is asked for last.
    members.values_mut().for_each(|member| member.left = 0);
    for part in &parts {
        for now in source.at(part.shard).registered().await? {
            if let Some(member) = members.get_mut(&now.id) {
                member.left = member.left.max(now.left);
            }
        }
    }
    let members: Vec<_> = members.into_values().collect();
    let ids: Vec<_> = members.iter().map(|member| Arc::clone(&member.id)).collect();
    let registered = shard.import(&Part::Members(Page::new(members, None))).await?;
    Ok(ids.into_iter().zip(registered).collect())
}

/// Copies the counters of a shard.
async fn counters<B: Backend + ?Sized, C: Backend + ?Sized>(
    shard: &SpaceStore<B>,
    part: &Source,
    target: &Shards<SpaceStore<C>>,
    owners: &[HashMap<Arc<str>, Incarnation>],
) -> Result<(), DistkitError> {
    let mut from = Some(None);
    while let Some(at) = from {
        let page = shard.held_page(at.as_ref()).await?;
        for (to, entries) in by_shard(target, by_key(page.entries)) {
            let owners = &owners[usize::from(to.space().shard())];
            let owned = |slice: HeldSlice| {
                let owner = *owners.get(part.living.get(&slice.owner)?)?;
                Some(HeldSlice { owner, ..slice })
            };
            let (mut counters, mut bare) = (Vec::new(), Vec::new());
            for (key, Held { epoch, slices, .. }) in entries {
                let slices: Vec<_> = slices.into_iter().filter_map(owned).collect();
                if slices.is_empty() {
                    bare.push((key, epoch));
                } else {
                    counters.push(Held { key, epoch, slices });
                }
            }
            if !counters.is_empty() {
                to.import(&Part::Counters(counters)).await?;
            }
            keep_epochs(to, bare, false).await?;
        }
        from = page.next.map(Some);
    }
    Ok(())
}

async fn keep_epochs<C: Backend + ?Sized>(
    shard: &SpaceStore<C>,
    epochs: Vec<(RedisKey, Epoch)>,
    old: bool,
) -> Result<(), DistkitError> {
    if !epochs.is_empty() {
        shard.import(&Part::Epochs { old, page: Page::new(epochs, None) }).await?;
    }
    Ok(())
}

/// Copies the epochs of the counters of a shard that nobody has a slice of.
async fn epochs<B: Backend + ?Sized, C: Backend + ?Sized>(
    source: &Shards<SpaceStore<B>>,
    sources: &[Source],
    part: &Source,
    target: &Shards<SpaceStore<C>>,
) -> Result<(), DistkitError> {
    let shard = source.at(part.shard);
    for old in [false, true] {
        let mut from = Some(None);
        while let Some(at) = from {
            let page = shard.bare_epochs(old, at.as_ref()).await?;
            for (to, entries) in by_shard(target, page.entries) {
                let (keys, epochs): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
                let held = shard.held(&keys).await?.into_iter().zip(epochs);
                // Of one that is there twice the later one counts.
                let counts = held.filter(|(held, epoch)| held.epoch == *epoch);
                let bare = counts.map(|(held, epoch)| (held.key, epoch)).collect();
                // Where several shards become one, which have turns of their own, it is kept for longer.
                let (from, to_all) = (source.number(), target.number());
                let several =
                    sources_of(sources, from, to.space().shard(), to_all).nth(1).is_some();
                keep_epochs(to, bare, old && !several).await?;
            }
            from = page.next.map(Some);
        }
    }
    Ok(())
}

/// Checks that nobody has used the source, and that both hold the same. Gives how many counters have slices.
async fn verify<B: Backend + ?Sized, C: Backend + ?Sized>(
    source: &Shards<SpaceStore<B>>,
    sources: &[Source],
    target: &Shards<SpaceStore<C>>,
) -> Result<u64, DistkitError> {
    for part in sources {
        let shard = source.at(part.shard);
        let life = shard.life().await?;
        if life.as_ref() != Some(&part.life)
            || ids(&shard.registered().await?) != ids(&part.members)
        {
            let text = format!("an instance uses `{}`, which is copied", shard.prefix());
            return Err(BackendError::not_applied(text).into());
        }
    }
    let there = all_ids(target).await?;
    for part in sources {
        let shard = source.at(part.shard);
        let mut from = Some(None);
        while let Some(at) = from {
            let page = shard.held_page(at.as_ref()).await?;
            all_there(source, page.entries, &part.living, target, &there).await?;
            from = page.next.map(Some);
        }
        for old in [false, true] {
            let mut from = Some(None);
            while let Some(at) = from {
                let page = shard.bare_epochs(old, at.as_ref()).await?;
                let keys: Vec<_> = page.entries.into_iter().map(|(key, _)| key).collect();
                let held = shard.held(&keys).await?;
                all_there(source, held, &part.living, target, &there).await?;
                from = page.next.map(Some);
            }
        }
    }
    nothing_else(source, sources, target).await
}

/// Checks that what one shard of the source holds of those who live is in the target, under the same epochs.
async fn all_there<B: Backend + ?Sized, C: Backend + ?Sized>(
    source: &Shards<SpaceStore<B>>,
    held: Vec<Held>,
    living: &Ids,
    target: &Shards<SpaceStore<C>>,
    there: &[Ids],
) -> Result<(), DistkitError> {
    for (shard, entries) in by_shard(target, by_key(held)) {
        let ids = &there[usize::from(shard.space().shard())];
        let (keys, held): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        for (ours, theirs) in held.iter().zip(shard.held(&keys).await?) {
            let complete = owned(&theirs, ids).is_superset(&owned(ours, living));
            if !complete || ours.epoch != theirs.epoch {
                return Err(other_slices(source, &ours.key, target));
            }
        }
    }
    Ok(())
}

/// Checks that the target has no slice which is not in the source. Gives how many counters have slices there.
async fn nothing_else<B: Backend + ?Sized, C: Backend + ?Sized>(
    source: &Shards<SpaceStore<B>>,
    sources: &[Source],
    target: &Shards<SpaceStore<C>>,
) -> Result<u64, DistkitError> {
    let there = all_ids(target).await?;
    let mut known = vec![Ids::new(); usize::from(source.number())];
    for part in sources {
        known[usize::from(part.shard)] = ids(&part.members);
    }
    let mut number = 0;
    for (shard, theirs) in target.iter().zip(&there) {
        let mut from = Some(None);
        while let Some(at) = from {
            let page = shard.held_page(at.as_ref()).await?;
            for (from, entries) in by_shard(source, by_key(page.entries)) {
                let ids = &known[usize::from(from.space().shard())];
                let (keys, held): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
                for (copied, ours) in held.iter().zip(from.held(&keys).await?) {
                    if !owned(&ours, ids).is_superset(&owned(copied, theirs)) {
                        return Err(other_slices(source, &ours.key, target));
                    }
                }
            }
            from = page.next.map(Some);
        }
        number += shard.slices_to_transfer().await?;
    }
    Ok(number)
}

async fn all_ids<C: Backend + ?Sized>(
    shards: &Shards<SpaceStore<C>>,
) -> Result<Vec<Ids>, DistkitError> {
    let mut all = Vec::new();
    for shard in shards.iter() {
        all.push(ids(&shard.registered().await?));
    }
    Ok(all)
}

fn by_key(held: Vec<Held>) -> Vec<(RedisKey, Held)> {
    held.into_iter().map(|held| (held.key.clone(), held)).collect()
}

/// The slices of a counter, by the ids of those of whom there is any record.
fn owned<'i>(held: &Held, ids: &'i Ids) -> BTreeSet<Owned<'i>> {
    let owned = held.slices.iter().filter_map(|slice| {
        let id = ids.get(&slice.owner)?;
        Some((&**id, slice.value, slice.put_back))
    });
    owned.collect()
}

fn other_slices<B: Backend + ?Sized, C: Backend + ?Sized>(
    source: &Shards<SpaceStore<B>>,
    key: &RedisKey,
    target: &Shards<SpaceStore<C>>,
) -> DistkitError {
    let (from, to) = (source.first().prefix(), target.first().prefix());
    let text = format!("`{key}` has other slices, or another epoch, in `{to}` than in `{from}`");
    BackendError::not_applied(text).into()
}

#[cfg(test)]
mod tests {
    use super::common;

    #[test]
    fn keys_of_a_shard_come_from_those_with_the_same_remainder() {
        assert_eq!([common(1, 3), common(3, 7), common(12, 48), common(48, 12)], [1, 1, 12, 12]);
        assert_eq!(common(6, 4), 2);
    }
}
