//! All counters of a space, a page at a time.

use std::fmt;

use async_trait::async_trait;

use super::{BackendError, Outcome, Space};
use crate::{KeyFilter, RedisKey};

/// Lists the plain counters of a space.
///
/// A *listing* begins with a page without a cursor, and goes on with the cursor of each page until one has none.
///
/// # Contract
///
/// 25. **Complete.** A counter that the space holds from the beginning of a listing to its end is in it at least
///     once, whatever is written meanwhile, with a total that it had at some time during the listing. It may be in
///     more than one page. A listing is no snapshot.
/// 26. **Nothing invented.** What the space did not hold at any time during the listing is not in it. What a store
///     keeps for itself among the counters is left out.
/// 27. **Bounded.** A page has about `count` counters, or fewer, as the store likes; it may be empty and not the
///     last. Its cost does not grow with the number of counters. A listing during which nothing is written ends.
/// 28. **Foreign data is named.** A value that is no number is listed with its [refusal](super::Refusal); a name
///     that is no [`RedisKey`] is in [`Page::foreign`].
/// 29. **Filters.** A counter that the filter selects is not left out. Others may be listed: callers filter again.
/// 30. **Reads.** Rules 9 and 10 hold: a space of another number of shards is refused, nothing is changed, and an
///     outcome is never unknown. [`count`](Self::count) is the number of counters that the space holds, those that
///     are 0 or no number included.
#[async_trait]
pub trait Enumeration: fmt::Debug + Send + Sync {
    /// Returns some counters and their totals, from the beginning or from where an earlier page ended.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotApplied`] also for a cursor that the store did not give, or that it can no longer use.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// use distkit::KeyFilter;
    ///
    /// store.apply(&space, &[Write::add(key.clone(), 2)], None).await?;
    /// let page = store.page(&space, None, &KeyFilter::all(), 100).await?;
    /// assert_eq!(page.entries, [(key, Ok(2))]);
    /// assert!(page.next.is_none(), "it is the last one");
    /// # Ok(())
    /// # }
    /// ```
    async fn page(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<(RedisKey, Outcome<i64>)>, BackendError>;

    /// Counts the counters that the space holds. One request, of constant cost.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`page`](Self::page).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// assert_eq!(store.count(&space).await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    async fn count(&self, space: &Space) -> Result<u64, BackendError>;
}

/// Lists the instance-aware counters of a space, for a process that need be no member of it.
///
/// Rules 25 to 30 of [`Enumeration`] hold for counters of which a joined instance has a slice. Those of which only
/// expired instances have one may be listed and counted until they are swept; their total reads 0. What a counter
/// holds is asked for with [`InstanceBackend::totals`](super::InstanceBackend::totals) and
/// [`InstanceBackend::slices`](super::InstanceBackend::slices).
#[async_trait]
pub trait SliceEnumeration: fmt::Debug + Send + Sync {
    /// Returns some counters, from the beginning or from where an earlier page ended.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`Enumeration::page`].
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// # let joined = store.join(&space, &Instance::new(store.fresh_id(), LEASE), &[]).await?;
    /// # let member = Member { incarnation: joined.incarnation, lease: LEASE };
    /// # const LEASE: std::time::Duration = std::time::Duration::from_secs(30);
    /// use distkit::KeyFilter;
    ///
    /// let write = SliceWrite::new(key.clone(), SliceChange::Add(5));
    /// store.apply_on(&space, &member, &[write], None).await?;
    /// let page = store.page_on(&space, None, &KeyFilter::all(), 100).await?;
    /// assert_eq!(page.entries, [key]);
    /// # Ok(())
    /// # }
    /// ```
    async fn page_on(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<RedisKey>, BackendError>;

    /// Counts the counters that the space holds. One request, of constant cost.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`Enumeration::page`].
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// assert_eq!(store.count_on(&space).await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    async fn count_on(&self, space: &Space) -> Result<u64, BackendError>;
}

/// Where the next page of a listing begins, in the store's own terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// Creates a place, as the store writes it.
    pub fn new(place: impl Into<String>) -> Self {
        Self(place.into())
    }

    /// Returns what the store wrote.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The listed counters.
    pub entries: Vec<T>,
    /// Where the next page begins; `None` of the last one.
    pub next: Option<Cursor>,
    /// Names that the store holds in the place of counters' names, and that are none; shortened.
    pub foreign: Vec<String>,
}

impl<T> Page<T> {
    /// Creates a page without foreign names.
    pub fn new(entries: Vec<T>, next: Option<Cursor>) -> Self {
        Self { entries, next, foreign: Vec::new() }
    }
}
