//! Copies a prefix, so that it gets another number of shards.

mod instances;

use super::CounterOptions;
use crate::{
    DistkitError, KeyFilter, RedisKey,
    answers::named,
    backend::{Backend, BackendError, Cursor, Outcome, Page, Write},
    shards::Shards,
    space_store::SpaceStore,
};

/// How many keys go in one request at most.
const PORTION: usize = 500;

/// What [`copy_prefix`] has copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Copied {
    /// Plain counters.
    pub counters: u64,
    /// Instance-aware counters that a living instance has a slice of.
    pub instance_aware_counters: u64,
    /// Living instances.
    pub instances: u64,
}

/// Copies all counters of one prefix to another, which may have another number of shards, be in another store, or both.
/// Answers how many there are.
///
/// No process may use either prefix meanwhile. The source is only read. The target must be empty, or hold a part of an
/// earlier, interrupted copy: call it again to complete that one. Afterwards all is read and compared once more. No
/// request takes a server more than some milliseconds.
///
/// # Instance-aware counters
///
/// They are copied with all that their answers depend on: slices, the epochs of all counters, the ids and names of
/// instances, what is left of their leases, and who has left. So in the copy, too,
///
/// - slices count until the lease ends, at the same moment as in the source (later by as long as a request takes);
/// - slices of instances that have expired do not count, and are not copied;
/// - an instance that comes back, such as one that was cut off while its server was replaced, finds that it is not joined.
///   It joins anew, takes the place of its copy, and gets its slices back, but for those of counters that were set,
///   deleted or cleared meanwhile;
/// - a new instance of the same name takes the place of the older one.
///
/// Where the number of shards of the target is no multiple of the source's, some get counters of several shards, which have
/// epochs of their own. There, an instance's lease is the longest that it had in any of them. And of a counter of which
/// nothing is known any more, an instance that comes back may get a slice from before a `clear`, or from before
/// [`max_absence`](crate::backend::Instance::max_absence). (No process does that whose counter has another number of
/// shards; only who implements an instance on [`InstanceBackend`](crate::backend::InstanceBackend) can.)
///
/// # What stays behind
///
/// - Records of requests: of tokens, so that an addition under the same token counts once more in the copy; of the
///   requests of writers, lanes and instances, which belong to processes that are gone or join anew.
/// - Counters in windows: they are refused, be it that the options have windows, or that the source holds any that are not
///   over. [`copy_prefix_without_windows`] copies the others. Prefixes with `expire_after` are copied; they begin to
///   expire anew.
/// - Instance-aware counters of a store that cannot copy them (one of a third party): a prefix that has any is refused.
///
/// # Errors
///
/// [`NotApplied`](DistkitError::NotApplied) where the target holds something else, either changed meanwhile, the store
/// cannot enumerate its counters (one of a third party), or does not answer, or there are windows, and
/// [`OutcomeUnknown`](DistkitError::OutcomeUnknown) where it does not answer to a write. What has been copied until then
/// stays. [`CounterError`](DistkitError::CounterError) where the source holds something that is no number, and
/// [`Corrupt`](crate::backend::BackendError::Corrupt) where a part of the instance-aware counters is lost.
///
/// ```
/// use distkit::{
///     RedisKey,
///     backend::memory::MemoryBackend,
///     counter::{CounterOptions, CounterTrait, StrictCounter, copy_prefix},
/// };
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), distkit::DistkitError> {
/// let store = MemoryBackend::new();
/// let old = CounterOptions::new(RedisKey::try_from("shop")?, store.clone());
/// let new = CounterOptions::new(RedisKey::try_from("shop-48")?, store).shards(48);
/// let apples = RedisKey::try_from("apples")?;
/// StrictCounter::new(old.clone()).inc(&apples, 3).await?;
///
/// assert_eq!(copy_prefix(&old, &new).await?.counters, 1);
/// assert_eq!(StrictCounter::new(new).get(&apples).await?, 3);
/// # Ok(()) }
/// ```
pub async fn copy_prefix<B: Backend + ?Sized, C: Backend + ?Sized>(
    from: &CounterOptions<B>,
    to: &CounterOptions<C>,
) -> Result<Copied, DistkitError> {
    if from.stores.first().clock().is_none() {
        for shard in from.stores.iter() {
            if shard.any_window_open().await? {
                let text = format!(
                    "`{}` has counters in windows, which cannot be copied: wait until they are over, or leave them behind \
                     with `copy_prefix_without_windows`",
                    shard.prefix()
                );
                return Err(BackendError::not_applied(text).into());
            }
        }
    }
    copy_prefix_without_windows(from, to).await
}

/// [`copy_prefix`] of a prefix that also has counters in windows: they are left behind, all others are copied.
///
/// # Errors
///
/// As there. Options with windows are refused here, too.
///
/// ```
/// use std::time::Duration;
///
/// use distkit::{
///     RedisKey, Windows,
///     backend::memory::MemoryBackend,
///     counter::{
///         CounterOptions, CounterTrait, StrictCounter, copy_prefix, copy_prefix_without_windows,
///     },
/// };
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), distkit::DistkitError> {
/// let store = MemoryBackend::new();
/// let old = CounterOptions::new(RedisKey::try_from("shop")?, store.clone());
/// let new = CounterOptions::new(RedisKey::try_from("shop-48")?, store).shards(48);
/// let apples = RedisKey::try_from("apples")?;
/// let hourly = Windows::every(Duration::from_secs(3600));
/// StrictCounter::new(old.clone().windows(hourly)).inc(&apples, 5).await?;
/// StrictCounter::new(old.clone()).inc(&apples, 3).await?;
///
/// assert!(copy_prefix(&old, &new).await.is_err());
/// assert_eq!(copy_prefix_without_windows(&old, &new).await?.counters, 1);
/// assert_eq!(StrictCounter::new(new).get(&apples).await?, 3);
/// # Ok(()) }
/// ```
pub async fn copy_prefix_without_windows<B: Backend + ?Sized, C: Backend + ?Sized>(
    from: &CounterOptions<B>,
    to: &CounterOptions<C>,
) -> Result<Copied, DistkitError> {
    let (source, target) = (&from.stores, &to.stores);
    if source.first().clock().is_some() || target.first().clock().is_some() {
        return Err(BackendError::not_applied("counters in windows cannot be copied").into());
    }
    // What an earlier copy has left is what the source holds, and nothing else.
    compare(target, source).await?;
    for shard in source.iter() {
        let mut from = Some(None);
        while let Some(at) = from {
            let page = page(shard, at).await?;
            for entries in page.entries.chunks(PORTION) {
                let totals = numbers(entries)?;
                for (shard, entries) in by_shard(target, totals) {
                    let writes: Vec<_> =
                        entries.into_iter().map(|(key, total)| Write::set(key, total)).collect();
                    let applied = shard.apply_in(None, &writes, None).await?;
                    named(&writes, applied.outcomes).into_iter().collect::<Result<Vec<_>, _>>()?;
                }
            }
            from = page.next.map(Some);
        }
    }
    let (instance_aware_counters, instances) = instances::copy(source, target).await?;
    compare(source, target).await?;
    let counters = compare(target, source).await?;
    Ok(Copied { counters, instance_aware_counters, instances })
}

/// Checks that each counter of `these` has the same total in `those`, and gives their number. One that is enumerated
/// more than once is counted once.
async fn compare<B: Backend + ?Sized, C: Backend + ?Sized>(
    these: &Shards<SpaceStore<B>>,
    those: &Shards<SpaceStore<C>>,
) -> Result<u64, DistkitError> {
    let mut number = 0;
    for shard in these.iter() {
        let mut from = Some(None);
        while let Some(at) = from {
            let page = page(shard, at).await?;
            for entries in page.entries.chunks(PORTION) {
                for (shard, entries) in by_shard(those, numbers(entries)?) {
                    let (keys, totals): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
                    let held = named(&keys, shard.read_in(None, &keys).await?);
                    for ((key, total), held) in keys.iter().zip(totals).zip(held) {
                        let held = held?;
                        if held != total {
                            let text = format!(
                                "`{key}` is {total} in `{}`, and {held} in `{}`",
                                these.first().prefix(),
                                those.first().prefix()
                            );
                            return Err(BackendError::not_applied(text).into());
                        }
                    }
                }
            }
            from = page.next.map(Some);
        }
        number += shard.whole().count().await?;
    }
    Ok(number)
}

/// Some counters. A name that is none cannot be copied.
async fn page<B: Backend + ?Sized>(
    shard: &SpaceStore<B>,
    from: Option<Cursor>,
) -> Result<Page<(RedisKey, Outcome<i64>)>, DistkitError> {
    let page = shard.page(from.as_ref(), &KeyFilter::all(), PORTION).await?;
    match page.foreign.first() {
        None => Ok(page),
        Some(name) => Err(BackendError::Corrupt(format!("{name:?} is no counter's name")).into()),
    }
}

fn numbers(entries: &[(RedisKey, Outcome<i64>)]) -> Result<Vec<(RedisKey, i64)>, DistkitError> {
    let number = |(key, total): &(RedisKey, Outcome<i64>)| match total {
        Ok(total) => Ok((key.clone(), *total)),
        Err(refusal) => Err(DistkitError::refused(key, refusal.clone())),
    };
    entries.iter().map(number).collect()
}

/// The entries of each shard.
fn by_shard<C: Backend + ?Sized, T>(
    shards: &Shards<SpaceStore<C>>,
    entries: Vec<(RedisKey, T)>,
) -> impl Iterator<Item = (&SpaceStore<C>, Vec<(RedisKey, T)>)> {
    let mut parts: std::collections::BTreeMap<u16, Vec<(RedisKey, T)>> = Default::default();
    for entry in entries {
        parts.entry(shards.of(&entry.0).space().shard()).or_default().push(entry);
    }
    parts.into_iter().map(|(shard, entries)| (shards.at(shard), entries))
}
