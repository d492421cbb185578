//! Copies a prefix, so that it gets another number of shards.

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

/// Copies all plain counters of one prefix to another, which may have another number of shards, be in another store, or
/// both. Answers how many there are.
///
/// No process may use either prefix meanwhile. The source is only read. The target must be empty, or hold a part of an
/// earlier, interrupted copy: call it again to complete that one. Afterwards all is read and compared once more.
///
/// Instance-aware counters are not copied, and need not be: their totals are those of living instances, so a prefix that
/// nobody uses has none once all have left or expired. This function does not look whether that is so, and leaves slices
/// that still live in the source. An instance-aware counter's `list_slices` on the source shows them, and none
/// when nobody is left; wait for that before the new processes start. The records of requests are not copied, either, nor are
/// counters in windows.
///
/// # Errors
///
/// [`NotApplied`](DistkitError::NotApplied) where the target holds something else, either changed meanwhile, the store
/// cannot enumerate its counters (one of a third party), or does not answer, and
/// [`OutcomeUnknown`](DistkitError::OutcomeUnknown) where it does not answer to a write. What has been copied until then
/// stays. [`CounterError`](DistkitError::CounterError) where the source holds something that is no number.
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
/// assert_eq!(copy_prefix(&old, &new).await?, 1);
/// assert_eq!(StrictCounter::new(new).get(&apples).await?, 3);
/// # Ok(()) }
/// ```
pub async fn copy_prefix<B: Backend + ?Sized, C: Backend + ?Sized>(
    from: &CounterOptions<B>,
    to: &CounterOptions<C>,
) -> Result<u64, DistkitError> {
    let (source, target) = (&from.stores, &to.stores);
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
    compare(source, target).await?;
    compare(target, source).await
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

type Entries = Vec<(RedisKey, i64)>;

fn by_shard<C: Backend + ?Sized>(
    shards: &Shards<SpaceStore<C>>,
    entries: Entries,
) -> impl Iterator<Item = (&SpaceStore<C>, Entries)> {
    let mut parts: std::collections::BTreeMap<u16, Entries> = Default::default();
    for entry in entries {
        parts.entry(shards.of(&entry.0).space().shard()).or_default().push(entry);
    }
    parts.into_iter().map(|(shard, entries)| (shards.at(shard), entries))
}
