//! The instance-aware counters of a shard, as pages.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::membership::Membership;
use crate::{
    DistkitError, KeyFilter, RedisKey,
    answers::named,
    backend::{BackendError, InstanceBackend, InstanceSlice, Refusal},
    listing::{Listing, PAGE, Pages, foreign, pages},
    space_store::SpaceStore,
};

/// How many requests for the keys of a page are in flight.
const IN_FLIGHT: usize = 8;

/// How many keys one of them is about, where it may be several.
const PART: usize = 50;

/// A total and the slices that it is the sum of, of one time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TotalAndSlices {
    /// The sum of the slices, or the end of the range of `i64` that it lies beyond.
    pub total: i64,
    /// The slices of living instances, in the order of their ids.
    pub slices: Vec<InstanceSlice>,
}

impl TotalAndSlices {
    /// Returns these slices and their sum.
    pub fn new(slices: Vec<InstanceSlice>) -> Self {
        let sum: i128 = slices.iter().map(|slice| i128::from(slice.value)).sum();
        let total = i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
        Self { total, slices }
    }
}

pub(super) fn totals_of<B: InstanceBackend + ?Sized>(
    store: &SpaceStore<B>,
    filter: &KeyFilter,
) -> Pages<(RedisKey, i64)> {
    let (store, filter) = (store.clone(), filter.clone());
    pages(move |from| {
        let (store, filter) = (store.clone(), filter.clone());
        async move {
            let page = store.page_on(from.as_ref(), &filter, PAGE).await?;
            let parts: Vec<_> = page.entries.chunks(PART).map(<[_]>::to_vec).collect();
            let totals = parts.into_iter().map(|part| read_totals(store.clone(), part));
            let totals: Vec<Vec<_>> =
                stream::iter(totals).buffered(IN_FLIGHT).try_collect().await?;
            let items = totals.into_iter().flatten().chain(foreign(page.foreign));
            Ok((items.collect(), page.next))
        }
    })
}

async fn read_totals<B: InstanceBackend + ?Sized>(
    store: SpaceStore<B>,
    keys: Vec<RedisKey>,
) -> Result<Vec<Result<(RedisKey, i64), DistkitError>>, BackendError> {
    let totals = named(&keys, store.totals(&keys).await?);
    Ok(keys.into_iter().zip(totals).map(|(key, total)| Ok((key, total?))).collect())
}

pub(super) fn slices_of<B: InstanceBackend + ?Sized>(
    store: &SpaceStore<B>,
    filter: &KeyFilter,
) -> Pages<(RedisKey, TotalAndSlices)> {
    let (store, filter) = (store.clone(), filter.clone());
    pages(move |from| {
        let (store, filter) = (store.clone(), filter.clone());
        async move {
            let page = store.page_on(from.as_ref(), &filter, PAGE).await?;
            let slices = page.entries.into_iter().map(|key| read_slices(store.clone(), key));
            let slices: Vec<_> = stream::iter(slices).buffered(IN_FLIGHT).try_collect().await?;
            let items = slices.into_iter().flatten().chain(foreign(page.foreign));
            Ok((items.collect(), page.next))
        }
    })
}

/// `None` where no live instance has a slice.
async fn read_slices<B: InstanceBackend + ?Sized>(
    store: SpaceStore<B>,
    key: RedisKey,
) -> Result<Option<Listed>, BackendError> {
    match store.slices(&key).await {
        Ok(slices) if slices.is_empty() => Ok(None),
        Ok(slices) => Ok(Some(Ok((key, TotalAndSlices::new(slices))))),
        // It concerns this key alone.
        Err(BackendError::Corrupt(found)) => {
            Ok(Some(Err(DistkitError::refused(&key, Refusal::NotANumber { found }))))
        }
        Err(error) => Err(error),
    }
}

type Listed = Result<(RedisKey, TotalAndSlices), DistkitError>;

/// The counters of all shards, as `of_shard` lists one.
pub(super) fn list<'m, B: InstanceBackend + ?Sized, T: Send + 'static>(
    memberships: impl Iterator<Item = &'m Arc<Membership<B>>>,
    of_shard: impl Fn(&SpaceStore<B>) -> Pages<T>,
) -> Listing<T> {
    let pages = memberships.map(|membership| Ok(of_shard(membership.space_store()?)));
    match pages.collect::<Result<Vec<_>, _>>() {
        Ok(pages) => Listing::of_shards(pages),
        Err(ended) => Listing::failed(ended),
    }
}
