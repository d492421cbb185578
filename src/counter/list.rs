//! The plain counters of a shard, as pages.

use crate::{
    DistkitError, KeyFilter, RedisKey,
    backend::Backend,
    listing::{PAGE, Pages, foreign, pages},
    space_store::SpaceStore,
};

pub(super) fn totals_of<B: Backend + ?Sized>(
    store: &SpaceStore<B>,
    filter: &KeyFilter,
) -> Pages<(RedisKey, i64)> {
    let (store, filter) = (store.clone(), filter.clone());
    pages(move |from| {
        let (store, filter) = (store.clone(), filter.clone());
        async move {
            let page = store.page(from.as_ref(), &filter, PAGE).await?;
            let entries = page.entries.into_iter();
            let totals = entries.map(|(key, total)| match total {
                Ok(total) => Ok((key, total)),
                Err(refusal) => Err(DistkitError::refused(&key, refusal)),
            });
            Ok((totals.chain(foreign(page.foreign)).collect(), page.next))
        }
    })
}
