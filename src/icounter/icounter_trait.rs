use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::list::TotalAndSlices;
use crate::{
    CounterComparator, DistkitError, KeyFilter, RedisKey,
    answers::{Keyed, only},
    backend::{InstanceSlice, SliceChange, SliceWrite, Standing, Written},
    listing::{self, Listing},
    parts::{PART, PART_OF_TOTALS},
};

/// `(total, own slice)`: the sum over all living instances, and this instance's part of it.
pub type TotalAndSlice = (i64, i64);

/// The operations of every instance-aware counter.
///
/// Each instance owns a slice of every total. The trait is dyn-compatible.
///
/// `total(key)` is the sum of the slices that live instances hold under the key's current epoch. A
/// missing key reads `(0, 0)`. Batches answer per item: the outer error concerns the whole batch, the
/// inner one a single key, and the other keys are not affected by it.
///
/// # I/O and cancellation
///
/// Every operation but [`instance_id`](Self::instance_id) may do I/O; which ones of a lax counter do, its type
/// says.
///
/// Every future may be dropped. Of a write that was dropped, nothing was sent, or it is applied once at most; of a
/// batch, that holds for each part. [Shutdown and cancellation](crate::guide::shutdown) has the cases.
///
/// # Errors
///
/// Unless a method says otherwise, each fails with
/// - [`NotApplied`](DistkitError::NotApplied): the store could not be reached or turned the call down; nothing
///   happened.
/// - [`OutcomeUnknown`](DistkitError::OutcomeUnknown): the call was sent, and no answer came in time. It was applied
///   once, or not at all. A strict counter sends a write again until
///   [`unknown_after`](super::StrictInstanceAwareCounterOptions::unknown_after) is over, a lax counter's `set` or
///   `del` is sent once.
/// - [`CounterError`](DistkitError::CounterError): this key was refused and nothing changed, because a sum would
///   not fit into an `i64`, or because the store holds a non-integer value there. (`del` of such a thing
///   deletes it.)
/// - [`InstanceReplaced`](DistkitError::InstanceReplaced) once a newer instance has taken this one's name, and
///   [`ShutDown`](DistkitError::ShutDown) after the instance left: nothing was done.
/// - [`TooManyPending`](DistkitError::TooManyPending), of a lax counter only: nothing was taken.
///
/// # Example
///
/// ```
/// use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), distkit::DistkitError> {
/// let store = MemoryBackend::new();
/// let prefix = RedisKey::try_from("gateway")?;
/// let options = StrictInstanceAwareCounterOptions::new(prefix, store);
/// let a = StrictInstanceAwareCounter::new(options.clone());
/// let b = StrictInstanceAwareCounter::new(options);
///
/// let key = RedisKey::try_from("connections")?;
/// assert_eq!(a.inc(&key, 10).await?, (10, 10));
/// assert_eq!(b.inc(&key, 5).await?, (15, 5));
/// assert_eq!(a.set_on_instance(&key, 7).await?, (12, 7));
/// assert_eq!(b.set(&key, 100).await?, (100, 100));
/// assert_eq!(a.get(&key).await?, (100, 0));
/// b.leave().await?;
/// assert_eq!(a.get(&key).await?, (0, 0));
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait InstanceAwareCounterTrait: Send + Sync {
    /// Returns this instance's unique id. No I/O.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// assert_ne!(a.instance_id(), b.instance_id());
    /// # Ok(())
    /// # }
    /// ```
    fn instance_id(&self) -> &str;

    /// Does the writes in order, and returns how each key stood before and after its write, item by item.
    ///
    /// The other writing methods are short forms of this one. More than 500 items go to the store in parts, 50 where one sets
    /// a total. A part that fails fails for each of its items; later parts are not sent, and their items are
    /// [`NotApplied`](DistkitError::NotApplied). An empty batch does no I/O.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// For an item: [`CounterError`](DistkitError::CounterError), it was refused. As a whole, for a batch of one part: those of
    /// every operation.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// use distkit::backend::{SliceChange, SliceWrite};
    ///
    /// let writes = [
    ///     SliceWrite::new(key.clone(), SliceChange::Add(10)),
    ///     SliceWrite::new(key.clone(), SliceChange::SetSlice(7)),
    /// ];
    /// let outcomes = a.write_all(&writes).await?;
    /// let last = outcomes[1].as_ref().unwrap();
    /// assert_eq!((last.old.slice, last.new.slice), (10, 7));
    /// # Ok(())
    /// # }
    /// ```
    async fn write_all(
        &self,
        writes: &[SliceWrite],
    ) -> Result<Vec<Result<Written<Standing>, DistkitError>>, DistkitError>;

    /// Does one write, and returns how the key stood before and after it, and whether its condition held.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of every operation.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// use distkit::{CounterComparator, backend::{SliceChange, SliceWrite}};
    ///
    /// let write = SliceWrite {
    ///     key: key.clone(),
    ///     change: SliceChange::Add(1),
    ///     condition: CounterComparator::Lt(1),
    /// };
    /// assert!(a.write(write.clone()).await?.condition_met);
    /// assert!(!b.write(write).await?.condition_met, "the total is 1 already");
    /// # Ok(())
    /// # }
    /// ```
    async fn write(&self, write: SliceWrite) -> Result<Written<Standing>, DistkitError> {
        only(self.write_all(std::slice::from_ref(&write)).await?)
    }

    /// Reads the total and the own slice of each key. A missing key reads `(0, 0)`. An empty batch does no I/O.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of every operation; reads are never [`OutcomeUnknown`](DistkitError::OutcomeUnknown).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// a.inc(&key, 10).await?;
    /// b.inc(&key, 5).await?;
    /// let answers = a.get_all(&[&key]).await?;
    /// assert_eq!(*answers[0].1.as_ref().unwrap(), (15, 10));
    /// # Ok(())
    /// # }
    /// ```
    async fn get_all<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError>;

    /// Deletes the key for every instance, under a new epoch, and returns the old total and this instance's old slice.
    ///
    /// Slices of older epochs count nothing from then on, also those of instances that rejoin. A missing key gives `(0, 0)`.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of every operation. A non-integer value is deleted and reported as
    /// [`CounterError`](DistkitError::CounterError).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// a.inc(&key, 10).await?;
    /// b.inc(&key, 5).await?;
    /// assert_eq!(a.del(&key).await?, (15, 10));
    /// assert_eq!(b.get(&key).await?, (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    async fn del(&self, key: &RedisKey) -> Result<TotalAndSlice, DistkitError> {
        let write = SliceWrite::new(key.clone(), SliceChange::Remove);
        Ok(pair(&self.write(write).await?.old))
    }

    /// Removes this instance's slice of the key, and returns the new total and the slice that was removed.
    ///
    /// The epoch stays, and so do the slices of the others. Without a slice under the current epoch the second number is 0.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of every operation.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// a.inc(&key, 10).await?;
    /// b.inc(&key, 5).await?;
    /// assert_eq!(a.del_on_instance(&key).await?, (5, 10));
    /// # Ok(())
    /// # }
    /// ```
    async fn del_on_instance(&self, key: &RedisKey) -> Result<(i64, i64), DistkitError> {
        let write = SliceWrite::new(key.clone(), SliceChange::RemoveSlice);
        let written = self.write(write).await?;
        Ok((written.new.total, written.old.slice))
    }

    /// Removes every instance-aware counter of the prefix, of all instances. No earlier slice is put back.
    ///
    /// Atomic in each shard. Memberships stay.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of every operation, and [`InShards`](DistkitError::InShards); it may be repeated.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// a.inc(&key, 10).await?;
    /// b.clear().await?;
    /// assert_eq!(a.get(&key).await?, (0, 0));
    /// # Ok(())
    /// # }
    /// ```
    async fn clear(&self) -> Result<(), DistkitError>;

    /// Removes this instance's slices of all keys, and no other instance's.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of every operation, and [`InShards`](DistkitError::InShards); it may be repeated.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// a.inc(&key, 10).await?;
    /// b.inc(&key, 5).await?;
    /// a.clear_on_instance().await?;
    /// assert_eq!(a.get(&key).await?, (5, 0));
    /// # Ok(())
    /// # }
    /// ```
    async fn clear_on_instance(&self) -> Result<(), DistkitError>;

    /// Returns the slice of the key that each living instance holds, in the order of their ids.
    ///
    /// Instances without a slice are left out; a missing key gives an empty list. One round trip. It joins nothing.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of every operation; reads are never [`OutcomeUnknown`](DistkitError::OutcomeUnknown).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// a.inc(&key, 10).await?;
    /// b.inc(&key, 5).await?;
    /// let slices = a.slices(&key).await?;
    /// assert_eq!(slices.iter().map(|held| held.value).sum::<i64>(), 15);
    /// assert!(slices.iter().any(|held| held.instance_id == b.instance_id()));
    /// # Ok(())
    /// # }
    /// ```
    async fn slices(&self, key: &RedisKey) -> Result<Vec<InstanceSlice>, DistkitError>;

    /// Adds `count`, which may be negative, to this instance's slice, and returns the new total and the slice.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of every operation. A result outside of `i64`, of the total or the slice, is refused as
    /// [`CounterError`](DistkitError::CounterError) and changes nothing.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// assert_eq!(a.inc(&key, 10).await?, (10, 10));
    /// assert_eq!(b.inc(&key, 5).await?, (15, 5));
    /// # Ok(())
    /// # }
    /// ```
    async fn inc(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        Ok(self.inc_if(key, CounterComparator::Nil, count).await?.0)
    }

    /// Adds `count` to this instance's slice if the condition holds for the *total*, in one atomic step.
    ///
    /// Returns `(new, old)`, each as total and own slice: the same twice when the condition did not hold.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// use distkit::CounterComparator;
    ///
    /// let below_two = CounterComparator::Lt(2);
    /// assert_eq!(a.inc_if(&key, below_two, 2).await?, ((2, 2), (0, 0)));
    /// assert_eq!(b.inc_if(&key, below_two, 2).await?, ((2, 0), (2, 0)));
    /// # Ok(())
    /// # }
    /// ```
    async fn inc_if(
        &self,
        key: &RedisKey,
        comparator: CounterComparator,
        count: i64,
    ) -> Result<(TotalAndSlice, TotalAndSlice), DistkitError> {
        write_one(self, key, SliceChange::Add(count), comparator).await
    }

    /// Subtracts `count` from this instance's slice, and returns the new total and the slice. Both may be negative.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc). `i64::MIN` has no negation, and is refused without I/O.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// a.inc(&key, 10).await?;
    /// assert_eq!(a.dec(&key, 1).await?, (9, 9));
    /// assert!(a.dec(&key, i64::MIN).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    async fn dec(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        let negated = count
            .checked_neg()
            .ok_or_else(|| DistkitError::refused(key, crate::backend::Refusal::Overflow))?;
        self.inc(key, negated).await
    }

    /// Adds as much of `count` to this instance's slice as keeps the *total* within `bounds`, in one atomic step.
    /// Answers `(total, own slice)` and how much was added.
    ///
    /// A positive `count` raises the total up to the end of `bounds` at the furthest, a negative one lowers it down
    /// to their start. A total that is there already, or beyond, stays. Nothing fits into empty bounds. A missing
    /// key starts from 0. A lax counter does this at once, like [`inc_if`](Self::inc_if).
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc). The bounds are those of the total: the own slice may still overflow.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let counter = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(prefix, store));
    /// let connections = RedisKey::try_from("connections")?;
    /// assert_eq!(counter.add_within(&connections, 70, 0..=100).await?, ((70, 70), 70));
    /// assert_eq!(counter.add_within(&connections, 70, 0..=100).await?, ((100, 100), 30));
    /// # Ok(())
    /// # }
    /// ```
    async fn add_within(
        &self,
        key: &RedisKey,
        count: i64,
        bounds: RangeInclusive<i64>,
    ) -> Result<(TotalAndSlice, i64), DistkitError> {
        let (least, most) = bounds.into_inner();
        let change = SliceChange::AddWithin { count, least, most };
        let written = self.write(SliceWrite::new(key.clone(), change)).await?;
        Ok((pair(&written.new), written.new.slice.wrapping_sub(written.old.slice)))
    }

    /// Reads the total and the own slice. A missing key reads `(0, 0)`.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of every operation; reads are never [`OutcomeUnknown`](DistkitError::OutcomeUnknown).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// assert_eq!(a.get(&key).await?, (0, 0));
    /// b.inc(&key, 5).await?;
    /// assert_eq!(a.get(&key).await?, (5, 0));
    /// # Ok(())
    /// # }
    /// ```
    async fn get(&self, key: &RedisKey) -> Result<TotalAndSlice, DistkitError> {
        self.get_all(&[key]).await?.into_iter().next().map_or(Ok((0, 0)), |(_, answer)| answer)
    }

    /// Makes the total `count`, all of it this instance's slice, under a new epoch, and returns both.
    ///
    /// The slices of all other instances count 0 from then on.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of every operation. It may be repeated if no other process writes the key.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// a.inc(&key, 10).await?;
    /// assert_eq!(b.set(&key, 100).await?, (100, 100));
    /// assert_eq!(a.get(&key).await?, (100, 0));
    /// # Ok(())
    /// # }
    /// ```
    async fn set(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        Ok(self.set_if(key, CounterComparator::Nil, count).await?.0)
    }

    /// Does [`set`](Self::set) if the condition holds for the total, in one atomic step. Returns `(new, old)`, each as total
    /// and own slice: the same twice when the condition did not hold.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of every operation.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// use distkit::CounterComparator;
    ///
    /// let unset = CounterComparator::Eq(0);
    /// assert_eq!(a.set_if(&key, unset, 7).await?, ((7, 7), (0, 0)));
    /// assert_eq!(b.set_if(&key, unset, 8).await?, ((7, 0), (7, 0)));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_if(
        &self,
        key: &RedisKey,
        comparator: CounterComparator,
        count: i64,
    ) -> Result<(TotalAndSlice, TotalAndSlice), DistkitError> {
        write_one(self, key, SliceChange::SetTotal(count), comparator).await
    }

    /// Makes this instance's slice `count`, and returns the new total and the slice. The epoch stays.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc). It may be repeated: no one else changes this slice.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// b.inc(&key, 5).await?;
    /// assert_eq!(a.set_on_instance(&key, 7).await?, (12, 7));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_on_instance(
        &self,
        key: &RedisKey,
        count: i64,
    ) -> Result<TotalAndSlice, DistkitError> {
        Ok(self.set_on_instance_if(key, CounterComparator::Nil, count).await?.0)
    }

    /// Does [`set_on_instance`](Self::set_on_instance) if the condition holds for this instance's *slice*. Returns
    /// `(new, old)`, each as total and own slice.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// use distkit::CounterComparator;
    ///
    /// b.inc(&key, 5).await?;
    /// assert_eq!(a.set_on_instance_if(&key, CounterComparator::Eq(0), 7).await?, ((12, 7), (5, 0)));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_on_instance_if(
        &self,
        key: &RedisKey,
        comparator: CounterComparator,
        count: i64,
    ) -> Result<(TotalAndSlice, TotalAndSlice), DistkitError> {
        write_one(self, key, SliceChange::SetSlice(count), comparator).await
    }

    /// Reads this instance's slice of each key.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// b.inc(&key, 5).await?;
    /// assert_eq!(*a.get_all_on_instance(&[&key]).await?[0].1.as_ref().unwrap(), 0);
    /// # Ok(())
    /// # }
    /// ```
    async fn get_all_on_instance<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        let answers = self.get_all(keys).await?;
        Ok(answers.into_iter().map(|(key, answer)| (key, answer.map(|(_, slice)| slice))).collect())
    }

    /// Does [`inc`](Self::inc) for each item, in order.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// for (_, answer) in a.inc_all(&[(&key, 2), (&key, 3)]).await? {
    ///     let (total, own) = answer?;
    ///     assert_eq!(total, own);
    /// }
    /// assert_eq!(a.get(&key).await?, (5, 5));
    /// # Ok(())
    /// # }
    /// ```
    async fn inc_all<'k>(
        &self,
        updates: &[(&'k RedisKey, i64)],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
        write_plain(self, updates, SliceChange::Add).await
    }

    /// Does [`inc_if`](Self::inc_if) for each item, in order.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// use distkit::CounterComparator;
    ///
    /// let below_two = CounterComparator::Lt(2);
    /// let answers = a.inc_all_if(&[(&key, below_two, 2), (&key, below_two, 2)]).await?;
    /// assert_eq!(*answers[1].1.as_ref().unwrap(), ((2, 2), (2, 2)), "the second one did not hold");
    /// # Ok(())
    /// # }
    /// ```
    async fn inc_all_if<'k>(
        &self,
        updates: &[(&'k RedisKey, CounterComparator, i64)],
    ) -> Result<Vec<Keyed<'k, (TotalAndSlice, TotalAndSlice)>>, DistkitError> {
        write_many(self, updates, SliceChange::Add).await
    }

    /// Does [`set`](Self::set) for each item, in order.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// let other = RedisKey::try_from("sessions")?;
    /// a.set_all(&[(&key, 1), (&other, 2)]).await?;
    /// assert_eq!(b.get(&other).await?, (2, 0));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_all<'k>(
        &self,
        updates: &[(&'k RedisKey, i64)],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
        write_plain(self, updates, SliceChange::SetTotal).await
    }

    /// Does [`set_if`](Self::set_if) for each item, in order.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// use distkit::CounterComparator;
    ///
    /// let answers = a.set_all_if(&[(&key, CounterComparator::Eq(0), 7)]).await?;
    /// assert_eq!(*answers[0].1.as_ref().unwrap(), ((7, 7), (0, 0)));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_all_if<'k>(
        &self,
        updates: &[(&'k RedisKey, CounterComparator, i64)],
    ) -> Result<Vec<Keyed<'k, (TotalAndSlice, TotalAndSlice)>>, DistkitError> {
        write_many(self, updates, SliceChange::SetTotal).await
    }

    /// Does [`set_on_instance`](Self::set_on_instance) for each item, in order.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// b.inc(&key, 5).await?;
    /// let answers = a.set_all_on_instance(&[(&key, 7)]).await?;
    /// assert_eq!(*answers[0].1.as_ref().unwrap(), (12, 7));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_all_on_instance<'k>(
        &self,
        updates: &[(&'k RedisKey, i64)],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
        write_plain(self, updates, SliceChange::SetSlice).await
    }

    /// Does [`set_on_instance_if`](Self::set_on_instance_if) for each item, in order.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](InstanceAwareCounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// use distkit::CounterComparator;
    ///
    /// let answers = a.set_all_on_instance_if(&[(&key, CounterComparator::Eq(0), 7)]).await?;
    /// assert_eq!(*answers[0].1.as_ref().unwrap(), ((7, 7), (0, 0)));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_all_on_instance_if<'k>(
        &self,
        updates: &[(&'k RedisKey, CounterComparator, i64)],
    ) -> Result<Vec<Keyed<'k, (TotalAndSlice, TotalAndSlice)>>, DistkitError> {
        write_many(self, updates, SliceChange::SetSlice).await
    }

    /// Lists the counters of the prefix of which an instance has a slice, and that the filter selects, with their
    /// totals, all shards included.
    ///
    /// It reads what the store holds. Pending writes of a lax counter are not in it: call
    /// [`flush`](super::LaxInstanceAwareCounter::flush) before. It joins nothing and renews no lease. A counter whose
    /// last slice was that of an expired instance may be listed with 0 until it is swept. No I/O before the first
    /// poll; about one request for 10 counters. For what comes, what may come twice, and what ends it, see [`Listing`].
    ///
    /// A counter of one's own that does not implement it lists one [`NotApplied`](DistkitError::NotApplied), as does
    /// one on a store that cannot list.
    ///
    /// ```
    /// # use distkit::{RedisKey, KeyFilter, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let counter = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(prefix, store));
    /// counter.inc(&RedisKey::try_from("eu connections")?, 5).await?;
    /// let all = counter.list(&KeyFilter::prefix("eu ")).into_map().await?;
    /// assert_eq!(all[&RedisKey::try_from("eu connections")?], 5);
    /// # Ok(())
    /// # }
    /// ```
    fn list(&self, filter: &KeyFilter) -> Listing<(RedisKey, i64)> {
        let _ = filter;
        Listing::failed(listing::unsupported())
    }

    /// [`list`](Self::list) with the slices of the living instances, read together with their sum. Counters of which
    /// none of them has a slice are left out. One request for each counter, 8 in flight.
    ///
    /// ```
    /// # use distkit::{RedisKey, KeyFilter, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let counter = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(prefix, store));
    /// counter.inc(&RedisKey::try_from("connections")?, 5).await?;
    /// let mut listing = counter.list_slices(&KeyFilter::all());
    /// while let Some(item) = listing.next().await {
    ///     let (key, held) = item?;
    ///     assert_eq!((&*key, held.total), ("connections", 5));
    ///     assert_eq!(held.slices[0].instance_id, counter.instance_id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    fn list_slices(&self, filter: &KeyFilter) -> Listing<(RedisKey, TotalAndSlices)> {
        let _ = filter;
        Listing::failed(listing::unsupported())
    }

    /// Counts the counters of the prefix of which an instance has a slice. One round trip.
    ///
    /// Those of expired instances count until they are swept, so it may be too great after an instance has crashed.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`NotApplied`](DistkitError::NotApplied) where the store, or one of the shards, does not answer or cannot list;
    /// [`ShutDown`](DistkitError::ShutDown) and [`InstanceReplaced`](DistkitError::InstanceReplaced).
    ///
    /// ```
    /// # use distkit::{RedisKey, KeyFilter, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let counter = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(prefix, store));
    /// counter.inc(&RedisKey::try_from("connections")?, 5).await?;
    /// assert_eq!(counter.len().await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    async fn len(&self) -> Result<u64, DistkitError> {
        Err(listing::unsupported())
    }

    /// Returns whether [`len`](Self::len) is 0. One round trip.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`len`](Self::len).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let options = StrictInstanceAwareCounterOptions::new(prefix, store);
    /// # let (a, b) = (StrictInstanceAwareCounter::new(options.clone()), StrictInstanceAwareCounter::new(options));
    /// # let key = RedisKey::try_from("connections")?;
    /// assert!(a.is_empty().await?);
    /// a.inc(&key, 1).await?;
    /// assert!(!b.is_empty().await?);
    /// # Ok(())
    /// # }
    /// ```
    async fn is_empty(&self) -> Result<bool, DistkitError> {
        Ok(self.len().await? == 0)
    }

    /// Returns the `n` counters with the greatest totals among those that the filter selects, the greatest first;
    /// equal ones in the order of their keys. It reads all of them as [`list`](Self::list) does, and keeps `n` in
    /// memory.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// The first error that the listing gives.
    ///
    /// ```
    /// # use distkit::{RedisKey, KeyFilter, backend::memory::MemoryBackend, icounter::*};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let (prefix, store) = (RedisKey::try_from("docs")?, MemoryBackend::new());
    /// # let counter = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(prefix, store));
    /// for (host, connections) in [("a", 20), ("b", 70), ("c", 50)] {
    ///     counter.inc(&RedisKey::try_from(host)?, connections).await?;
    /// }
    /// let busiest = counter.top(1, &KeyFilter::all()).await?;
    /// assert_eq!(busiest, [(RedisKey::try_from("b")?, 70)]);
    /// # Ok(())
    /// # }
    /// ```
    async fn top(
        &self,
        n: usize,
        filter: &KeyFilter,
    ) -> Result<Vec<(RedisKey, i64)>, DistkitError> {
        self.list(filter).greatest(n).await
    }
}

pub(super) fn pair(standing: &Standing) -> TotalAndSlice {
    (standing.total, standing.slice)
}

async fn write_one<C: InstanceAwareCounterTrait + ?Sized>(
    counter: &C,
    key: &RedisKey,
    change: SliceChange,
    condition: CounterComparator,
) -> Result<(TotalAndSlice, TotalAndSlice), DistkitError> {
    let write = SliceWrite { key: key.clone(), change, condition };
    let written = counter.write(write).await?;
    Ok((pair(&written.new), pair(&written.old)))
}

async fn write_many<'k, C: InstanceAwareCounterTrait + ?Sized>(
    counter: &C,
    updates: &[(&'k RedisKey, CounterComparator, i64)],
    change: fn(i64) -> SliceChange,
) -> Result<Vec<Keyed<'k, (TotalAndSlice, TotalAndSlice)>>, DistkitError> {
    let writes: Vec<_> = updates
        .iter()
        .map(|(key, condition, count)| SliceWrite {
            key: (*key).clone(),
            change: change(*count),
            condition: *condition,
        })
        .collect();
    let outcomes = counter.write_all(&writes).await?;
    Ok(updates
        .iter()
        .zip(outcomes)
        .map(|((key, ..), outcome)| {
            (*key, outcome.map(|written| (pair(&written.new), pair(&written.old))))
        })
        .collect())
}

async fn write_plain<'k, C: InstanceAwareCounterTrait + ?Sized>(
    counter: &C,
    updates: &[(&'k RedisKey, i64)],
    change: fn(i64) -> SliceChange,
) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
    let updates: Vec<_> =
        updates.iter().map(|(key, count)| (*key, CounterComparator::Nil, *count)).collect();
    let answers = write_many(counter, &updates, change).await?;
    Ok(answers.into_iter().map(|(key, answer)| (key, answer.map(|(new, _)| new))).collect())
}

/// How many items of a batch go in one request.
pub(super) fn part_of(writes: &[SliceWrite]) -> usize {
    if writes.iter().any(|write| write.change.is_total()) { PART_OF_TOTALS } else { PART }
}
