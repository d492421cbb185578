//! Streams of counters, page by page, over all shards of a prefix.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use foldhash::fast::RandomState;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use crate::{
    DistkitError, RedisKey,
    backend::{Cursor, missing},
};

/// About how many counters one request asks for.
pub(crate) const PAGE: usize = 500;

/// How many shards are listed at the same time: each holds a page.
const SIDE_BY_SIDE: usize = 8;

/// A stream of counters, as the store gives them: not a snapshot, in no order.
///
/// - A counter that the store holds from the first poll to the end comes at least once. It may come more than once,
///   with the total of each time; [`into_map`](Self::into_map) keeps the last one.
/// - A counter that is made or deleted meanwhile may come or not.
/// - It holds at most a page, about 500 counters, of each of up to 8 shards, whatever the number of counters.
/// - It asks the store only while it is polled. No request takes the server longer than a few milliseconds, so writers
///   are not held up.
///
/// Dropping it ends it. It is cancel-safe: a dropped [`next`](Self::next) loses nothing.
///
/// An item may be an error:
/// - [`CounterError`](DistkitError::CounterError), a counter that is no number, and
///   [`InvalidRedisKey`](DistkitError::InvalidRedisKey), a name in the store that is no counter's: the stream goes on.
/// - [`NotApplied`](DistkitError::NotApplied): the store, or the node of a shard, does not answer or cannot list. That
///   shard's remaining counters are missing; the stream goes on with the other shards.
///
/// ```
/// # use distkit::{RedisKey, KeyFilter, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), distkit::DistkitError> {
/// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
/// counter.inc(&RedisKey::try_from("page home")?, 3).await?;
/// counter.inc(&RedisKey::try_from("errors")?, 1).await?;
///
/// // Needs no import; it is a `futures` stream besides.
/// let mut pages = counter.list(&KeyFilter::prefix("page "));
/// while let Some(item) = pages.next().await {
///     let (key, total) = item?;
///     assert_eq!((&*key, total), ("page home", 3));
/// }
/// # Ok(()) }
/// ```
#[must_use = "it asks for nothing until it is polled"]
pub struct Listing<T>(BoxStream<'static, Result<T, DistkitError>>);

impl<T: Send + 'static> Listing<T> {
    /// Creates a listing of these items, for counters of one's own such as mocks.
    pub fn new(items: impl Stream<Item = Result<T, DistkitError>> + Send + 'static) -> Self {
        Self(items.fuse().boxed())
    }

    /// One of a counter that cannot list: the error, and no more.
    pub(crate) fn failed(error: DistkitError) -> Self {
        Self::new(stream::iter([Err(error)]))
    }

    /// Lists shards side by side.
    pub(crate) fn of_shards(shards: impl IntoIterator<Item = Pages<T>>) -> Self {
        let shards: Vec<_> = shards.into_iter().collect();
        let pages = stream::iter(shards).flatten_unordered(SIDE_BY_SIDE);
        Self::new(pages.map(stream::iter).flatten())
    }

    /// Returns the next counter; `None` after the last one. Asks the store for a page when the one before is used up,
    /// else no I/O. Cancel-safe: a dropped call loses no counter.
    ///
    /// # Errors
    ///
    /// See [`Listing`].
    pub async fn next(&mut self) -> Option<Result<T, DistkitError>> {
        self.0.next().await
    }
}

impl<V: Send + 'static> Listing<(RedisKey, V)> {
    /// Collects all counters, each once, with the last total that came. Takes memory for all of them, and a request for
    /// each page. A dropped call gives nothing.
    ///
    /// # Errors
    ///
    /// The first error that comes.
    pub async fn into_map(mut self) -> Result<BTreeMap<RedisKey, V>, DistkitError> {
        let mut all = BTreeMap::new();
        while let Some(item) = self.next().await {
            let (key, held) = item?;
            all.insert(key, held);
        }
        Ok(all)
    }
}

impl Listing<(RedisKey, i64)> {
    /// Collects the `n` greatest totals, the greatest first, and those that are equal in the order of their keys.
    ///
    /// Takes memory for `n` counters. A counter that comes more than once has the greatest total that came. For `n` =
    /// 0 the store is not asked, else once for each page. A dropped call gives nothing.
    ///
    /// # Errors
    ///
    /// The first error that comes.
    pub async fn greatest(mut self, n: usize) -> Result<Vec<(RedisKey, i64)>, DistkitError> {
        let mut greatest = Greatest::new(n);
        while n > 0
            && let Some(item) = self.next().await
        {
            let (key, total) = item?;
            greatest.offer(key, total);
        }
        Ok(greatest.ranked.into_iter().rev().map(|(total, Reverse(key))| (key, total)).collect())
    }
}

impl<T> Stream for Listing<T> {
    type Item = Result<T, DistkitError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for Listing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").finish_non_exhaustive()
    }
}

/// What a counter without a listing of its own answers.
pub(crate) fn unsupported() -> DistkitError {
    missing("listing").into()
}

/// The pages of one shard.
pub(crate) type Pages<T> = BoxStream<'static, Vec<Result<T, DistkitError>>>;

/// Items of a page, and where the next one begins.
pub(crate) type Paged<T> = Result<(Vec<Result<T, DistkitError>>, Option<Cursor>), DistkitError>;

/// All pages that `request` gives, up to the first that fails.
pub(crate) fn pages<T, F>(request: impl Fn(Option<Cursor>) -> F + Send + 'static) -> Pages<T>
where
    T: Send + 'static,
    F: Future<Output = Paged<T>> + Send + 'static,
{
    let next = move |from: Option<Option<Cursor>>| {
        let page = from.map(&request);
        async move {
            match page?.await {
                Ok((items, next)) => Some((items, next.map(Some))),
                Err(error) => Some((vec![Err(error)], None)),
            }
        }
    };
    stream::unfold(Some(None), next).boxed()
}

/// The errors of names that are none.
pub(crate) fn foreign<T>(names: Vec<String>) -> impl Iterator<Item = Result<T, DistkitError>> {
    let error = |name| DistkitError::InvalidRedisKey(format!("the store holds {name:?}"));
    names.into_iter().map(move |name| Err(error(name)))
}

/// The sum of what shards count, or the first error.
pub(crate) fn sum<E>(counts: Vec<Result<u64, E>>) -> Result<u64, DistkitError>
where
    DistkitError: From<E>,
{
    counts.into_iter().try_fold(0, |sum: u64, count| Ok(sum.saturating_add(count?)))
}

/// The greatest totals so far.
struct Greatest {
    n: usize,
    ranked: BTreeSet<(i64, Reverse<RedisKey>)>,
    totals: HashMap<RedisKey, i64, RandomState>,
}

impl Greatest {
    fn new(n: usize) -> Self {
        Self { n, ranked: BTreeSet::new(), totals: HashMap::default() }
    }

    fn offer(&mut self, key: RedisKey, total: i64) {
        if let Some(held) = self.totals.get_mut(&key) {
            if *held < total {
                self.ranked.remove(&(*held, Reverse(key.clone())));
                *held = total;
                self.ranked.insert((total, Reverse(key)));
            }
            return;
        }
        let entry = (total, Reverse(key));
        if self.ranked.len() == self.n {
            if self.ranked.first().is_some_and(|least| entry < *least) {
                return;
            }
            if let Some((_, Reverse(least))) = self.ranked.pop_first() {
                self.totals.remove(&least);
            }
        }
        self.totals.insert(entry.1.0.clone(), total);
        self.ranked.insert(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RedisKey {
        RedisKey::new(name).unwrap()
    }

    #[tokio::test]
    async fn the_greatest_of_what_comes_twice_counts() {
        let items = [("a", 5), ("b", 9), ("c", 1), ("b", 2), ("c", 7), ("d", 5), ("a", 5)];
        let items =
            || Listing::new(stream::iter(items.map(|(name, total)| Ok((key(name), total)))));
        let named = |pairs: &[(&str, i64)]| -> Vec<_> {
            pairs.iter().map(|(name, total)| (key(name), *total)).collect()
        };
        assert_eq!(items().greatest(3).await.unwrap(), named(&[("b", 9), ("c", 7), ("a", 5)]));
        assert_eq!(items().greatest(1).await.unwrap(), named(&[("b", 9)]));
        assert_eq!(items().greatest(9).await.unwrap().len(), 4);
        let all = items().into_map().await.unwrap();
        assert_eq!(
            all.into_iter().collect::<Vec<_>>(),
            named(&[("a", 5), ("b", 2), ("c", 7), ("d", 5)])
        );
    }

    #[tokio::test]
    async fn the_n_greatest_take_memory_for_n() {
        let mut greatest = Greatest::new(10);
        for total in 0..10_000 {
            greatest.offer(key(&format!("k{}", total % 7919)), total);
            assert!(greatest.ranked.len() <= 10 && greatest.totals.len() == greatest.ranked.len());
        }
        assert_eq!(greatest.ranked.first().unwrap().0, 9990);
    }

    #[tokio::test]
    async fn for_none_nothing_is_asked() {
        let items = stream::poll_fn(|_| -> Poll<Option<Result<(RedisKey, i64), DistkitError>>> {
            panic!("polled")
        });
        assert!(Listing::new(items).greatest(0).await.unwrap().is_empty());
    }
}
