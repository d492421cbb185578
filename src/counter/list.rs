//! The plain counters of a shard, as pages.

use std::sync::{Arc, OnceLock};

use crate::{
    DistkitError, KeyFilter, RedisKey, Window,
    backend::Backend,
    listing::{PAGE, Pages, foreign, pages},
    space_store::SpaceStore,
};

/// Those of a window; by default of the one that is current when the listing begins.
pub(super) fn totals_of<B: Backend + ?Sized>(
    store: &SpaceStore<B>,
    window: Option<Window>,
    filter: &KeyFilter,
) -> Pages<(RedisKey, i64)> {
    let (store, filter) = (store.clone(), filter.clone());
    let listed: Arc<OnceLock<Option<Window>>> = Arc::default();
    if window.is_some() {
        _ = listed.set(window);
    }
    pages(move |from| {
        let (store, filter, listed) = (store.clone(), filter.clone(), Arc::clone(&listed));
        async move {
            let window = match listed.get() {
                Some(window) => *window,
                None => *listed.get_or_init({
                    let current = store.window().await?;
                    move || current
                }),
            };
            let page = store.page_in(window, from.as_ref(), &filter, PAGE).await?;
            let entries = page.entries.into_iter();
            let totals = entries.map(|(key, total)| match total {
                Ok(total) => Ok((key, total)),
                Err(refusal) => Err(DistkitError::refused(&key, refusal)),
            });
            Ok((totals.chain(foreign(page.foreign)).collect(), page.next))
        }
    })
}
