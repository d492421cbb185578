//! Pages of a map in the order of its keys: the cursor is the name of the last one.

use std::{collections::BTreeMap, ops::Bound};

use crate::{
    KeyFilter, RedisKey,
    backend::{Cursor, Page},
};

/// The next counters, and what `entry` makes of them.
pub(super) fn page<V, T>(
    counters: &BTreeMap<RedisKey, V>,
    from: Option<&Cursor>,
    filter: &KeyFilter,
    count: usize,
    entry: impl Fn(&RedisKey, &V) -> T,
) -> Page<T> {
    let prefix = filter.literal_prefix();
    let start = match from {
        Some(last) => Bound::Excluded(last.as_str()),
        None => Bound::Included(prefix.as_str()),
    };
    let mut selected = counters
        .range::<str, _>((start, Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter(|(key, _)| filter.matches(key));
    let (mut entries, mut last) = (Vec::new(), None);
    for (key, value) in selected.by_ref().take(count.max(1)) {
        entries.push(entry(key, value));
        last = Some(key);
    }
    let more = selected.next().is_some();
    Page::new(entries, last.filter(|_| more).map(|key| Cursor::new(key.as_str())))
}
