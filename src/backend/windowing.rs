//! Counters that belong to windows of time.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{BackendError, Outcome, Space};
use crate::RedisKey;

/// Keeps plain counters in windows of time: in spaces that have a [`window`](Space::window). Lets spaces expire that
/// have an [`idle`](Space::idle) time.
///
/// Every method of [`Backend`](super::Backend), [`RecordedAnswers`](super::RecordedAnswers) and
/// [`Enumeration`](super::Enumeration) takes such a space. A window is *open* from the first write to it until it is
/// *closed*.
///
/// # Contract
///
/// 40. **Windows are apart.** Each window of a space holds counters of its own, and so do windows of another length or
///     offset. What is remembered of writers and lanes is that of the [whole](Space::whole) space: a batch is known by
///     its guard also in another window, and is answered as rules 7, 21 and 22 have it whatever the time is.
/// 41. **Current writes.** A write without a guard or in a lane takes effect in the window only that contains the
///     store's time. In another one it changes nothing, uses up no sequence, and fails with
///     [`BackendError::NotCurrent`], which names the time. [`read_current`](Self::read_current) fails alike.
/// 42. **Late writes.** A batch of a writer takes effect in its window whatever the time is, until that is closed.
///     So do [`clear`](super::Backend::clear), reads and listings.
/// 43. **Closing.** A window is closed at its [`kept_until`](crate::Window::kept_until), the latest of all with which it
///     was written to before. A closed window reads 0 and lists nothing. A write fails with
///     [`BackendError::WindowClosed`], and changes nothing, also one that would have kept it for longer. It takes no
///     memory for long. Once a later window was opened a step of the clock back does
///     not open it again.
/// 44. **Lost windows.** Where the store finds that it lost the counters of a window that is not closed, and not what
///     it knows of windows, reads and writes in it fail with [`BackendError::WindowLost`]. Other windows are not
///     concerned. An empty window is not a lost one.
/// 45. **The time** of [`time`](Self::time) is that of the clock by which the others are judged.
/// 46. **Idle expiry.** A space with an [idle time](Space::idle) is empty again, with all that is remembered of its
///     writers and lanes, when it was not written to for that time: no earlier, and a few seconds later at most. Every
///     write renews it; a read does not. The idle time belongs to what the processes of a prefix agree on: requests
///     for another one change nothing and fail with [`BackendError::ShapeMismatch`], which names both. A write to an
///     expired space begins it anew. [`expire_idle`](Self::expire_idle) takes no counter away before. Windows go by their
///     own time; what is remembered of writers and lanes, and what the
///     processes agree on, stays until the last of them is closed.
#[async_trait]
pub trait Windowing: fmt::Debug + Send + Sync {
    /// Returns the store's time, since its epoch. One round trip. On a cluster it is that of the node of the space.
    ///
    /// Cancel-safe.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use distkit::{RedisKey, backend::{Backend, Space, Write, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use distkit::Windows;
    ///
    /// # let store = MemoryBackend::new();
    /// let windowing = store.capabilities().windows.ok_or("no windows")?;
    /// let space = Space::new(RedisKey::try_from("shop")?);
    /// let hour = Windows::every(Duration::from_secs(3600)).at(windowing.time(&space).await?);
    /// let (space, hits) = (space.in_window(hour), RedisKey::try_from("hits")?);
    /// store.apply(&space, &[Write::add(hits.clone(), 2)], None).await?;
    /// assert_eq!(windowing.read_current(&space, &[hits]).await?, [Ok(2)]);
    /// # Ok(()) }
    /// ```
    async fn time(&self, space: &Space) -> Result<Duration, BackendError>;

    /// [`Backend::read`](super::Backend::read) in a window that must be the current one; of a space without a window
    /// it is the same. A missing key reads 0. Changes nothing.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`BackendError::NotCurrent`], [`BackendError::WindowLost`], and those of a read.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use distkit::{RedisKey, backend::{Backend, Space, Write, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use distkit::Windows;
    ///
    /// # let store = MemoryBackend::new();
    /// let windowing = store.capabilities().windows.ok_or("no windows")?;
    /// let space = Space::new(RedisKey::try_from("shop")?);
    /// let hour = Windows::every(Duration::from_secs(3600)).at(windowing.time(&space).await?);
    /// let (space, hits) = (space.in_window(hour), RedisKey::try_from("hits")?);
    /// store.apply(&space, &[Write::add(hits.clone(), 2)], None).await?;
    /// assert_eq!(windowing.read_current(&space, &[hits]).await?, [Ok(2)]);
    /// # Ok(()) }
    /// ```
    async fn read_current(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError>;

    /// Returns whether the [whole](Space::whole) space has a window that is not closed, of any length and offset; also an
    /// empty one. [`copy_prefix`](crate::counter::copy_prefix) asks for it: it copies no windows. One round trip. Changes
    /// nothing.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of a read. By default [`BackendError::NotApplied`]: the store cannot tell.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use distkit::{RedisKey, Windows, backend::{Backend, Space, Write, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryBackend::new();
    /// let windowing = store.capabilities().windows.ok_or("no windows")?;
    /// let space = Space::new(RedisKey::try_from("shop")?);
    /// assert!(!windowing.any_open(&space).await?);
    /// let hour = Windows::every(Duration::from_secs(3600)).at(windowing.time(&space).await?);
    /// let hits = Write::add(RedisKey::try_from("hits")?, 2);
    /// store.apply(&space.in_window(hour), &[hits], None).await?;
    /// assert!(windowing.any_open(&space).await?);
    /// # Ok(()) }
    /// ```
    async fn any_open(&self, _: &Space) -> Result<bool, BackendError> {
        Err(BackendError::not_applied("the store does not tell whether there are windows"))
    }

    /// Lets a space expire that has been [idle](Space::idle) for long enough, where the store has a better way than to
    /// wait until it does so by itself: a Redis server stops while it frees many counters that expire. Gives after how
    /// long to ask again; `None` where there is nothing to be done. Counters that wrote to the space ask for it.
    ///
    /// It may be repeated, by any number of processes at the same time. Takes away nothing else, no window and no space
    /// that does not expire. By default there is nothing to be done.
    ///
    /// # Errors
    ///
    /// Those of a write. Where its outcome is unknown, it may be repeated as well.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use distkit::{RedisKey, backend::{Backend, Space, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryBackend::new();
    /// let windowing = store.capabilities().windows.ok_or("no windows")?;
    /// let cart = Space::new(RedisKey::try_from("cart")?).expiring_after(Duration::from_secs(60));
    /// assert_eq!(windowing.expire_idle(&cart).await?, None, "memory is freed at once");
    /// # Ok(()) }
    /// ```
    async fn expire_idle(&self, _: &Space) -> Result<Option<Duration>, BackendError> {
        Ok(None)
    }
}
