mod batch;
mod ending;
mod handle;
mod ledger;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;

use self::{
    batch::{can_replace, write_now},
    ledger::Slices,
};
use super::{
    InstanceAwareCounterTrait, LaxInstanceAwareCounterOptions, TotalAndSlice, TotalAndSlices,
    icounter_trait::part_of,
    list::{list, slices_of, totals_of},
    membership::Membership,
};
use crate::{
    DistkitError, KeyFilter, RedisKey, Stats,
    answers::Keyed,
    backend::{InstanceBackend, InstanceSlice, Refusal, Scope, SliceWrite, Standing, Written},
    lax::{Cell, Engine, Hold, Owner, Settings, in_fast_range},
    listing::{self, Listing},
    shards::{Shards, done_in_all, share},
};

pub use handle::LaxInstanceAwareHandle;

/// Instance-aware counters that buffer writes in the process.
///
/// `inc`, `dec`, `set_on_instance` and `get` of a key in use do no I/O. They answer `(total, own slice)` as
/// estimates: the last known numbers plus all writes of this process that the store has not
/// acknowledged. Own writes are visible at once, and as long as no instance subtracts, sets, deletes or expires,
/// successive answers never go down. Every write reaches a healthy store within
/// [`allowed_lag`](LaxInstanceAwareCounterOptions::allowed_lag), or
/// [`flush_interval`](LaxInstanceAwareCounterOptions::flush_interval) where that is longer, plus a round
/// trip; exactly once, whatever gets lost on the way and however often the instance is taken for expired in
/// between.
///
/// `set`, `del`, `clear`, everything with a condition and the other `*_on_instance` flush what was written
/// before to the keys that they concern, then act on the store at once and answer exactly. A batch that
/// [`write_all`](InstanceAwareCounterTrait::write_all) answers from memory gives the epoch as 0.
///
/// Each object is an instance of its own, like a
/// [`StrictInstanceAwareCounter`](super::StrictInstanceAwareCounter). When it is dropped, what is pending is
/// flushed in the background, for up to 30 s, then its heartbeat ends; its slices count until its lease
/// has run out. [`shutdown`](Self::shutdown) and [`leave`](Self::leave) take them away at once.
///
/// What a [`LaxCounter`](crate::counter::LaxCounter#runtimes) says of runtimes goes for this counter, too. An
/// operation that finds a heartbeat overdue, on a runtime that is not driven, starts it on its own.
///
/// ```
/// use distkit::{RedisKey, backend::memory::MemoryBackend, icounter::*};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options =
///     LaxInstanceAwareCounterOptions::new(RedisKey::try_from("gateway")?, MemoryBackend::new());
/// let counter = LaxInstanceAwareCounter::new(options);
/// let key = RedisKey::try_from("connections")?;
/// assert_eq!(counter.inc(&key, 2).await?, (2, 2));
/// assert_eq!(counter.set_on_instance(&key, 7).await?, (7, 7));
/// counter.shutdown(std::time::Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
pub struct LaxInstanceAwareCounter<B: InstanceBackend + ?Sized = dyn InstanceBackend> {
    owners: Shards<Arc<Owner<Slices<B>>>>,
}

impl<B: InstanceBackend + ?Sized> LaxInstanceAwareCounter<B> {
    /// Creates a new instance. No I/O; it may be called outside of a runtime.
    pub fn new(options: LaxInstanceAwareCounterOptions<B>) -> Arc<Self> {
        let memberships = options.instance.memberships("lax_instance_aware");
        let max_pending = share(options.settings.max_pending, memberships.number());
        let settings = Settings { max_pending, ..options.settings };
        let owner = |membership: &Arc<Membership<B>>| {
            let membership = Arc::clone(membership);
            Arc::new(Owner(Engine::new(Slices { membership }, settings)))
        };
        Arc::new(Self { owners: memberships.map(owner) })
    }

    /// Returns the store.
    pub fn store(&self) -> &B {
        self.membership().store()
    }

    /// Returns what the counter has done, and how it stands, in all shards together. No I/O, and no cost to `inc`.
    pub fn stats(&self) -> Stats {
        self.owners.stats(|owner| owner.0.stats())
    }

    /// The engine of the key's shard.
    #[inline]
    fn engine(&self, key: &RedisKey) -> &Arc<Engine<Slices<B>>> {
        &self.owners.of(key).0
    }

    /// That of the first shard, for what all have in common.
    fn membership(&self) -> &Arc<Membership<B>> {
        &self.owners.first().0.ledger().membership
    }

    /// Adds `count`, which may be negative, to this instance's slice, and answers the new estimates. No
    /// I/O, unless this process has not used the key lately: then its numbers are read first.
    ///
    /// Cancel-safe: a dropped call counts in full or not at all.
    ///
    /// # Errors
    ///
    /// Nothing is changed by a call that fails, with
    /// - [`NotApplied`](DistkitError::NotApplied): the key's numbers could not be read;
    /// - [`CounterError`](DistkitError::CounterError): a sum would not fit into an `i64`, or the store
    ///   holds a non-integer value;
    /// - [`TooManyPending`](DistkitError::TooManyPending): the store has been unreachable, and
    ///   [`max_pending_keys`](LaxInstanceAwareCounterOptions::max_pending_keys) is reached;
    /// - [`ShutDown`](DistkitError::ShutDown) or [`InstanceReplaced`](DistkitError::InstanceReplaced).
    #[inline]
    pub async fn inc(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        let engine = self.engine(key);
        // Not left to a function that is awaited: its answer would be copied.
        match engine.with_known(key, |cell| engine.add_slice_quickly(cell, count)).flatten() {
            Some(added) => Ok(added),
            None => engine.add_slice_to_key(key, count).await,
        }
    }

    /// Subtracts `count`. Like [`inc`](Self::inc), its I/O and cancel safety included, and refuses [`i64::MIN`], which has
    /// no negation.
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc).
    pub async fn dec(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        match count.checked_neg() {
            Some(negated) => self.inc(key, negated).await,
            None => Err(DistkitError::refused(key, Refusal::Overflow)),
        }
    }

    /// Returns the estimates `(total, own slice)`; a missing key reads `(0, 0)`. From memory when the known
    /// numbers are at most [`allowed_lag`](LaxInstanceAwareCounterOptions::allowed_lag) old; keys in use
    /// are kept that fresh in the background.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`NotApplied`](DistkitError::NotApplied) when the numbers are not fresh and the store does not
    /// answer, [`CounterError`](DistkitError::CounterError) when it holds a non-integer value,
    /// [`ShutDown`](DistkitError::ShutDown) and [`InstanceReplaced`](DistkitError::InstanceReplaced).
    #[inline]
    pub async fn get(&self, key: &RedisKey) -> Result<TotalAndSlice, DistkitError> {
        let engine = self.engine(key);
        if engine.is_closed() {
            return Err(engine.why(DistkitError::ShutDown));
        }
        match engine.with_known(key, |cell| engine.is_fresh(cell).then(|| numbers(cell))).flatten()
        {
            Some(numbers) => Ok(numbers),
            None => match engine.read_again(key).await {
                Ok(cell) => Ok(numbers(&cell)),
                Err(error) => Err(engine.why(error)),
            },
        }
    }

    /// Returns a handle to one key, for hot paths: adding through it needs no look-up. Reads the key's numbers
    /// when they are not known. The key stays in memory as long as the handle lives.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc).
    pub async fn handle(&self, key: &RedisKey) -> Result<LaxInstanceAwareHandle<B>, DistkitError> {
        let owner = self.owners.of(key);
        match owner.0.known(key).await {
            Ok(cell) => Ok(LaxInstanceAwareHandle::new(Hold::new(owner, cell))),
            Err(error) => Err(owner.0.why(error)),
        }
    }
}

impl<B: InstanceBackend + ?Sized> Engine<Slices<B>> {
    /// Adds to a key, whatever must be done besides; reads its numbers first when they are not known.
    #[cold]
    async fn add_slice_to_key(
        self: &Arc<Self>,
        key: &RedisKey,
        count: i64,
    ) -> Result<TotalAndSlice, DistkitError> {
        let added = match self.with_known(key, |cell| self.add_slice(cell, count)) {
            Some(added) => added,
            None => self.known_in_a_box(key).await.and_then(|cell| self.add_slice(&cell, count)),
        };
        added.map_err(|error| self.why(error))
    }

    /// [`add_quickly`](Engine::add_quickly), for both numbers.
    #[inline]
    fn add_slice_quickly(self: &Arc<Self>, cell: &Arc<Cell>, count: i64) -> Option<TotalAndSlice> {
        let others = cell.others();
        if !in_fast_range(others) {
            return None;
        }
        // Two numbers in the fast range have a sum.
        self.add_quickly(cell, count).map(|own| (own.wrapping_add(others), own))
    }

    #[inline]
    fn add_slice(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        count: i64,
    ) -> Result<TotalAndSlice, DistkitError> {
        if cell.estimate().checked_add(count).is_none() {
            return Err(DistkitError::refused(&cell.key, Refusal::Overflow));
        }
        let own = self.add_to_own(cell, count)?;
        Ok((cell.with_others(own), own))
    }

    #[inline]
    fn replace_slice(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        count: i64,
    ) -> Result<TotalAndSlice, DistkitError> {
        self.replace(cell, count)?;
        Ok((cell.with_others(count), count))
    }

    /// A closed engine does not know why it was closed.
    #[cold]
    fn why(&self, error: DistkitError) -> DistkitError {
        match error {
            DistkitError::ShutDown => self.ledger().membership.check().err().unwrap_or(error),
            _ => error,
        }
    }
}

async fn clear<B: InstanceBackend + ?Sized>(
    owner: &Owner<Slices<B>>,
    scope: Scope,
) -> Result<(), DistkitError> {
    owner.0.clear(scope).await.map_err(|error| owner.0.why(error))
}

#[inline]
fn numbers(cell: &Cell) -> TotalAndSlice {
    let own = cell.tally.estimate();
    (cell.with_others(own), own)
}

#[async_trait]
impl<B: InstanceBackend + ?Sized> InstanceAwareCounterTrait for LaxInstanceAwareCounter<B> {
    fn instance_id(&self) -> &str {
        self.membership().id()
    }

    async fn write_all(
        &self,
        writes: &[SliceWrite],
    ) -> Result<Vec<Result<Written<Standing>, DistkitError>>, DistkitError> {
        if let Some(outcomes) = self.write_later(writes).await? {
            return Ok(outcomes);
        }
        let size = part_of(writes);
        self.owners
            .batch(writes, |owner, part| async move { write_now(owner, &part, size).await })
            .await
    }

    async fn get_all<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
        let answers = join_all(keys.iter().map(|key| self.get(key))).await;
        Ok(keys.iter().copied().zip(answers).collect())
    }

    async fn get(&self, key: &RedisKey) -> Result<TotalAndSlice, DistkitError> {
        self.get(key).await
    }

    async fn inc(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        self.inc(key, count).await
    }

    async fn inc_all<'k>(
        &self,
        updates: &[(&'k RedisKey, i64)],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
        let answers = join_all(updates.iter().map(|(key, count)| self.inc(key, *count))).await;
        Ok(updates.iter().map(|(key, _)| *key).zip(answers).collect())
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        done_in_all(self.owners.all(|owner| clear(owner, Scope::Total)).await)
    }

    async fn clear_on_instance(&self) -> Result<(), DistkitError> {
        done_in_all(self.owners.all(|owner| clear(owner, Scope::Slice)).await)
    }

    async fn slices(&self, key: &RedisKey) -> Result<Vec<InstanceSlice>, DistkitError> {
        let engine = self.engine(key);
        if let Err(error) = engine.flush_key(key).await {
            return Err(engine.why(error));
        }
        engine.ledger().membership.slices(key).await
    }

    fn list(&self, filter: &KeyFilter) -> Listing<(RedisKey, i64)> {
        let memberships = self.owners.iter().map(|owner| &owner.0.ledger().membership);
        list(memberships, |store| totals_of(store, filter))
    }

    fn list_slices(&self, filter: &KeyFilter) -> Listing<(RedisKey, TotalAndSlices)> {
        let memberships = self.owners.iter().map(|owner| &owner.0.ledger().membership);
        list(memberships, |store| slices_of(store, filter))
    }

    async fn len(&self) -> Result<u64, DistkitError> {
        listing::sum(self.owners.all(|owner| owner.0.ledger().membership.count()).await)
    }
}

impl<B: InstanceBackend + ?Sized> fmt::Debug for LaxInstanceAwareCounter<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaxInstanceAwareCounter")
            .field("instance_id", &self.instance_id())
            .field("prefix", self.membership().prefix())
            .finish_non_exhaustive()
    }
}
