use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    InstanceAwareCounterTrait, StrictInstanceAwareCounterOptions, TotalAndSlice, TotalAndSlices,
    icounter_trait::{pair, part_of},
    list::{list, slices_of, totals_of},
    membership::Membership,
};
use crate::{
    DistkitError, KeyFilter, RedisKey, Stats,
    answers::{Keyed, named, only},
    backend::{
        InstanceBackend, InstanceSlice, Outcome, Scope, SliceChange, SliceWrite, Standing, Written,
    },
    counts::Counts,
    gauges::Level,
    listing::{self, Listing},
    parts::in_parts,
    shards::{Answers, Shards, done_in_all, share},
    stats::Count,
    strict::{Joint, Queues, Sender, Settings, Tally},
};

/// Instance-aware counters of which each call is one atomic operation in the store.
///
/// A write whose answer was lost is sent again until it is answered, and applied once; its outcome is unknown only
/// after [`unknown_after`](StrictInstanceAwareCounterOptions::unknown_after). `inc` and `dec` that run at the same
/// time share requests. Two calls of one task that are not awaited in turn may swap.
///
/// Each object is an instance of its own: it joins the store with its first operation, and a background
/// task renews its lease about every third of the threshold for as long as the object lives. The task
/// ends with the object; the object's slices count until the lease has run out, or until
/// [`leave`](Self::leave). It ends also with the tokio runtime on which an operation has started it; the
/// next operation then starts it on its own.
///
/// An instance that was taken for expired joins again by itself, with the slices that were last
/// acknowledged, and it shows in the totals only.
pub struct StrictInstanceAwareCounter<B: InstanceBackend + ?Sized = dyn InstanceBackend> {
    shards: Shards<Shard<B>>,
}

impl<B: InstanceBackend + ?Sized> StrictInstanceAwareCounter<B> {
    /// Creates a new instance. No I/O; it may be called outside of a runtime.
    pub fn new(options: StrictInstanceAwareCounterOptions<B>) -> Arc<Self> {
        let strict = options.strict;
        let memberships = options.memberships("strict_instance_aware");
        let max_waiting = share(strict.max_waiting, memberships.number());
        let settings = Settings { max_waiting, ..strict };
        let shard = |membership: &Arc<Membership<B>>| Shard {
            membership: Arc::clone(membership),
            settings,
            sender: Arc::default(),
            queues: Queues::default(),
        };
        Arc::new(Self { shards: memberships.map(shard) })
    }

    /// Returns the store.
    pub fn store(&self) -> &B {
        self.shards.first().membership.store()
    }

    /// Returns what the counter has done, and how it stands. No I/O.
    pub fn stats(&self) -> Stats {
        self.shards.stats(|shard| shard.counts().stats(Level::default()))
    }

    /// Leaves for good: this instance's slices are subtracted from all totals now, and later operations
    /// fail with [`DistkitError::ShutDown`]. One round trip, to each shard that it joined.
    ///
    /// A call that is dropped may not have left: call it again, or the slices stay until the lease expires.
    ///
    /// # Errors
    ///
    /// [`NotApplied`](DistkitError::NotApplied) and [`OutcomeUnknown`](DistkitError::OutcomeUnknown), of several shards
    /// [`InShards`](DistkitError::InShards): the slices stay until the lease expires, or until `leave` is called again.
    pub async fn leave(&self) -> Result<(), DistkitError> {
        done_in_all(self.shards.all(|shard| shard.membership.leave()).await)
    }

    async fn clear_all(&self, scope: Scope) -> Result<(), DistkitError> {
        done_in_all(self.shards.all(|shard| shard.clear(scope)).await)
    }
}

/// The instance in one shard.
struct Shard<B: ?Sized> {
    membership: Arc<Membership<B>>,
    settings: Settings,
    sender: Arc<Sender>,
    queues: Queues<Numbers>,
}

impl<B: InstanceBackend + ?Sized> Shard<B> {
    async fn write_all(&self, writes: &[SliceWrite], part: usize) -> Answers<Written<Standing>> {
        in_parts!(writes, part, part => self.write_part(part).await)
    }

    fn counts(&self) -> &Counts {
        self.membership.counts()
    }

    async fn write_part(&self, writes: &[SliceWrite]) -> Answers<Written<Standing>> {
        let deadline = self.settings.deadline();
        let applied = self.membership.apply_once(writes, &self.sender, deadline).await;
        self.counts().told_all(applied.map(|applied| named(writes, applied.outcomes)))
    }

    async fn write(&self, write: SliceWrite) -> Result<Written<Standing>, DistkitError> {
        only(self.write_part(&[write]).await?)
    }

    async fn inc(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        let joint = || -> Box<dyn Joint<Numbers>> {
            let membership = Arc::clone(&self.membership);
            Box::new(Slices { membership, sender: Arc::clone(&self.sender) })
        };
        match self.queues.current((self.settings.unknown_after, None), joint) {
            Some(queue) => {
                let added = queue.add(key, count, &self.settings).await;
                let Numbers { total, slice } = self.counts().told(added)?;
                Ok((total, slice))
            }
            None => {
                let write = SliceWrite::new(key.clone(), SliceChange::Add(count));
                Ok(pair(&self.write(write).await?.new))
            }
        }
    }

    async fn clear(&self, scope: Scope) -> Result<(), DistkitError> {
        let deadline = self.settings.deadline();
        let once = deadline.map(|deadline| (Arc::clone(&self.sender), deadline));
        self.counts().told(self.membership.clear(scope, once).await)
    }

    async fn read_all(&self, keys: &[RedisKey]) -> Answers<TotalAndSlice> {
        in_parts!(keys, part => self.read_part(part).await)
    }

    async fn read_part(&self, keys: &[RedisKey]) -> Answers<TotalAndSlice> {
        let standings = named(keys, self.membership.read(keys).await?).into_iter();
        Ok(standings.map(|standing| standing.map(|standing| pair(&standing))).collect())
    }
}

#[async_trait]
impl<B: InstanceBackend + ?Sized> InstanceAwareCounterTrait for StrictInstanceAwareCounter<B> {
    fn instance_id(&self) -> &str {
        self.shards.first().membership.id()
    }

    async fn write_all(
        &self,
        writes: &[SliceWrite],
    ) -> Result<Vec<Result<Written<Standing>, DistkitError>>, DistkitError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let size = part_of(writes);
        self.shards
            .batch(writes, |shard, part| async move { shard.write_all(&part, size).await })
            .await
    }

    async fn write(&self, write: SliceWrite) -> Result<Written<Standing>, DistkitError> {
        self.shards.of(&write.key).write(write).await
    }

    async fn inc(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        self.shards.of(key).inc(key, count).await
    }

    async fn get_all<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let owned: Vec<RedisKey> = keys.iter().map(|key| (*key).clone()).collect();
        let read =
            self.shards.batch(&owned, |shard, part| async move { shard.read_all(&part).await });
        let answers = read.await?;
        Ok(keys.iter().copied().zip(answers).collect())
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        self.clear_all(Scope::Total).await
    }

    async fn clear_on_instance(&self) -> Result<(), DistkitError> {
        self.clear_all(Scope::Slice).await
    }

    async fn slices(&self, key: &RedisKey) -> Result<Vec<InstanceSlice>, DistkitError> {
        self.shards.of(key).membership.slices(key).await
    }

    fn list(&self, filter: &KeyFilter) -> Listing<(RedisKey, i64)> {
        let memberships = self.shards.iter().map(|shard| &shard.membership);
        list(memberships, |store| totals_of(store, filter))
    }

    fn list_slices(&self, filter: &KeyFilter) -> Listing<(RedisKey, TotalAndSlices)> {
        let memberships = self.shards.iter().map(|shard| &shard.membership);
        list(memberships, |store| slices_of(store, filter))
    }

    async fn len(&self) -> Result<u64, DistkitError> {
        listing::sum(self.shards.all(|shard| shard.membership.count()).await)
    }
}

impl<B: InstanceBackend + ?Sized> fmt::Debug for StrictInstanceAwareCounter<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictInstanceAwareCounter")
            .field("instance_id", &self.instance_id())
            .field("prefix", self.shards.first().membership.prefix())
            .finish_non_exhaustive()
    }
}

/// Joined additions to slices.
struct Slices<B: ?Sized> {
    membership: Arc<Membership<B>>,
    sender: Arc<Sender>,
}

#[async_trait]
impl<B: InstanceBackend + ?Sized> Joint<Numbers> for Slices<B> {
    async fn add(
        &self,
        items: &[(RedisKey, i64)],
        deadline: Option<Instant>,
    ) -> Result<Vec<Outcome<Numbers>>, DistkitError> {
        let add =
            |(key, count): &(RedisKey, i64)| SliceWrite::new(key.clone(), SliceChange::Add(*count));
        let writes: Vec<_> = items.iter().map(add).collect();
        let applied = self.membership.apply_once(&writes, &self.sender, deadline).await?;
        let numbers = |outcome: Outcome<Written<Standing>>| {
            outcome.map(|w| Numbers { total: w.new.total, slice: w.new.slice })
        };
        Ok(applied.outcomes.into_iter().map(numbers).collect())
    }

    fn note_joined(&self, calls: usize) {
        self.membership.counts().add(Count::JoinedCalls, calls);
    }
}

/// A total and the slice in it, which an addition moves both.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    total: i64,
    slice: i64,
}

impl Tally for Numbers {
    fn moved(self, by: i128) -> Option<Self> {
        Some(Self { total: self.total.moved(by)?, slice: self.slice.moved(by)? })
    }

    fn moved_within(self, by: i128) -> Self {
        Self { total: self.total.moved_within(by), slice: self.slice.moved_within(by) }
    }
}
