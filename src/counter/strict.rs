use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    CounterOptions, CounterTrait, Keyed,
    list::totals_of,
    once::{Events, Once},
    options::Sending,
    window_reads::{sum, total_of, window_of, window_reads},
};
use crate::{
    DistkitError, KeyFilter, RedisKey, Stats, Token, Window,
    answers::{keyed, named, only},
    backend::{Backend, BackendError, Outcome, Resolved, TokenAdd, Write, Written},
    gauges::Level,
    listing::{self, Listing},
    parts::in_parts,
    shards::{Answers, Shards, done_in_all, share},
    space_store::SpaceStore,
    stats::Count,
    strict::{Joint, Sender, Settings},
};

/// A counter whose every call is one atomic operation in the store.
///
/// Each call takes one round trip, and so does a batch; one of more than 500 items is sent in
/// parts. Calls on one key are linearizable on the store's primary. Nothing is kept in the process.
///
/// A write whose answer was lost is sent again, under a guard, until it is answered: it is applied once, and gets its
/// original answer. Its outcome is unknown only when that takes longer than
/// [`unknown_after`](CounterOptions::unknown_after).
///
/// `inc`, `dec` and `inc_once` that run at the same time, over clones of one options value, share requests: none waits for
/// others, but what gathers while requests are in flight goes with the next one. Two calls of one task that are not
/// awaited in turn may swap.
///
/// ```
/// use distkit::{
///     RedisKey,
///     backend::memory::MemoryBackend,
///     counter::{CounterOptions, CounterTrait, StrictCounter},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), distkit::DistkitError> {
/// let prefix = RedisKey::try_from("shop")?;
/// let counter = StrictCounter::new(CounterOptions::new(prefix, MemoryBackend::new()));
///
/// let orders = RedisKey::try_from("orders")?;
/// assert_eq!(counter.inc(&orders, 2).await?, 2);
/// assert_eq!(counter.dec(&orders, 1).await?, 1);
/// # Ok(())
/// # }
/// ```
pub struct StrictCounter<B: Backend + ?Sized = dyn Backend> {
    shards: Shards<Shard<B>>,
}

impl<B: Backend + ?Sized> StrictCounter<B> {
    /// Creates a counter with these options. No I/O.
    pub fn new(options: CounterOptions<B>) -> Arc<Self> {
        let CounterOptions { stores, strict, sending, keep_tokens, .. } = options;
        let max_waiting = share(strict.max_waiting, stores.number());
        let settings = Settings { max_waiting, ..strict };
        let each = |store: &SpaceStore<B>| Shard {
            store: store.clone(),
            settings,
            keep_tokens,
            sending: sending.clone(),
        };
        Arc::new(Self { shards: stores.map(each) })
    }

    /// Returns the store.
    pub fn store(&self) -> &B {
        self.shards.first().store.store()
    }

    /// Returns what the strict counters of clones of these options have done together, and how they stand, in all
    /// shards: they share requests. No I/O.
    pub fn stats(&self) -> Stats {
        self.shards.stats(|shard| shard.store.counts().stats(Level::default()))
    }
}

/// Reads of other windows than the current one.
impl<B: Backend + ?Sized> StrictCounter<B> {
    fn store_of(&self, key: &RedisKey) -> &SpaceStore<B> {
        &self.shards.of(key).store
    }

    async fn total_in(&self, window: Window, key: &RedisKey) -> Result<i64, DistkitError> {
        total_of(self.store_of(key), window, key).await
    }

    fn stores(&self) -> impl Iterator<Item = &SpaceStore<B>> {
        self.shards.iter().map(|shard| &shard.store)
    }

    window_reads!();
}

/// The counters of one shard.
struct Shard<B: ?Sized> {
    store: SpaceStore<B>,
    settings: Settings,
    keep_tokens: Duration,
    sending: Arc<Shards<Sending>>,
}

impl<B: Backend + ?Sized> Shard<B> {
    fn sending(&self) -> &Sending {
        self.sending.at(self.store.space().shard())
    }

    async fn write_all(&self, writes: &[Write]) -> Answers<Written> {
        in_parts!(writes, part => self.write_part(part).await)
    }

    async fn write_part(&self, writes: &[Write]) -> Answers<Written> {
        // Of each part: a batch that goes on is not cut off.
        let deadline = self.settings.deadline();
        let applied = self.store.apply_once(writes, &self.sending().sender, deadline).await;
        let answers = applied.map(|applied| named(writes, applied.outcomes));
        self.store.counts().told_all(answers.map_err(DistkitError::from))
    }

    async fn get_all(&self, keys: &[RedisKey]) -> Answers<i64> {
        in_parts!(keys, part => self.read_part(part).await)
    }

    async fn read_part(&self, keys: &[RedisKey]) -> Answers<i64> {
        Ok(named(keys, self.store.read(keys).await?))
    }

    async fn write(&self, write: Write) -> Result<Written, DistkitError> {
        only(self.write_part(&[write]).await?)
    }

    async fn inc(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        let sending = self.sending();
        let joint = || -> Box<dyn Joint<i64>> {
            let sender = Arc::clone(&sending.sender);
            Box::new(Totals { store: self.store.clone(), sender })
        };
        match sending.queues.current((self.settings.unknown_after, None), joint) {
            Some(queue) => {
                let added = queue.add(key, count, &self.settings).await;
                self.store.counts().told(added)
            }
            None => Ok(self.write(Write::add(key.clone(), count)).await?.new),
        }
    }

    async fn inc_once(
        &self,
        key: &RedisKey,
        count: i64,
        token: &Token,
    ) -> Result<i64, DistkitError> {
        let (sending, keep) = (self.sending(), self.keep_tokens);
        let joint = || -> Box<dyn Joint<i64, Once>> {
            Box::new(Events { store: self.store.clone(), keep })
        };
        let apart = (self.settings.unknown_after, Some(keep));
        let (key, token) = (key.clone(), token.clone());
        match sending.once.current(apart, joint) {
            Some(queue) => {
                let once = Once { key, token, number: sending.numbers.fetch_add(1, Relaxed) };
                let added = queue.add(&once, count, &self.settings).await;
                self.store.counts().told(added)
            }
            None => only(self.add_tokens_of_part(&[TokenAdd { key, count, token }]).await?),
        }
    }

    async fn add_tokens(&self, items: &[TokenAdd]) -> Answers<i64> {
        in_parts!(items, part => self.add_tokens_of_part(part).await)
    }

    async fn add_tokens_of_part(&self, items: &[TokenAdd]) -> Answers<i64> {
        // Of each part, as that of other writes.
        let deadline = self.settings.deadline();
        let added = self.store.add_tokens_once(items, self.keep_tokens, deadline).await;
        let totals = added.map(|added| {
            let totals = added.into_iter().map(|one| one.map(|one| one.total));
            named(items, totals.collect())
        });
        self.store.counts().told_all(totals.map_err(DistkitError::from))
    }

    async fn resolve(&self, asked: &[(RedisKey, Token)]) -> Result<Resolved, DistkitError> {
        only(named(asked, self.store.resolve_tokens(asked, self.keep_tokens).await?))
    }

    async fn forbid(&self, asked: &[(RedisKey, Token)]) -> Result<Resolved, DistkitError> {
        let deadline = self.settings.deadline();
        let known = self.store.forbid_tokens(asked, self.keep_tokens, deadline).await;
        self.store
            .counts()
            .told(known.map_err(DistkitError::from).and_then(|known| only(named(asked, known))))
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        let deadline = self.settings.deadline();
        let cleared = self.store.clear_once(&self.sending().sender, deadline).await;
        self.store.counts().told(cleared.map_err(DistkitError::from))
    }
}

#[async_trait]
impl<B: Backend + ?Sized> CounterTrait for StrictCounter<B> {
    async fn write_all(
        &self,
        writes: &[Write],
    ) -> Result<Vec<Result<Written, DistkitError>>, DistkitError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.shards.batch(writes, |shard, part| async move { shard.write_all(&part).await }).await
    }

    async fn get_all<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let owned: Vec<RedisKey> = keys.iter().map(|&key| key.clone()).collect();
        let read =
            self.shards.batch(&owned, |shard, part| async move { shard.get_all(&part).await });
        let answers = read.await?;
        Ok(keyed(keys.iter().copied(), answers, |total| total))
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        done_in_all(self.shards.all(Shard::clear).await)
    }

    async fn write(&self, write: Write) -> Result<Written, DistkitError> {
        self.shards.of(&write.key).write(write).await
    }

    async fn inc(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        self.shards.of(key).inc(key, count).await
    }

    async fn get(&self, key: &RedisKey) -> Result<i64, DistkitError> {
        only(self.shards.of(key).read_part(std::slice::from_ref(key)).await?)
    }

    async fn inc_once(
        &self,
        key: &RedisKey,
        count: i64,
        token: &Token,
    ) -> Result<i64, DistkitError> {
        self.shards.of(key).inc_once(key, count, token).await
    }

    async fn inc_once_all<'k>(
        &self,
        items: &[(&'k RedisKey, i64, &Token)],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let additions = additions(items);
        let added = self
            .shards
            .batch(&additions, |shard, part| async move { shard.add_tokens(&part).await });
        let answers = added.await?;
        Ok(keyed(items.iter().map(|&(key, ..)| key), answers, |total| total))
    }

    async fn resolve(&self, key: &RedisKey, token: &Token) -> Result<Resolved, DistkitError> {
        self.shards.of(key).resolve(&[(key.clone(), token.clone())]).await
    }

    async fn resolve_or_forbid(
        &self,
        key: &RedisKey,
        token: &Token,
    ) -> Result<Resolved, DistkitError> {
        self.shards.of(key).forbid(&[(key.clone(), token.clone())]).await
    }

    fn list(&self, filter: &KeyFilter) -> Listing<(RedisKey, i64)> {
        Listing::of_shards(self.shards.iter().map(|shard| totals_of(&shard.store, None, filter)))
    }

    async fn len(&self) -> Result<u64, DistkitError> {
        listing::sum(self.shards.all(|shard| shard.store.count()).await)
    }
}

impl<B: Backend + ?Sized> Clone for StrictCounter<B> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone() }
    }
}

impl<B: ?Sized> Clone for Shard<B> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            settings: self.settings,
            keep_tokens: self.keep_tokens,
            sending: Arc::clone(&self.sending),
        }
    }
}

impl<B: Backend + ?Sized> fmt::Debug for StrictCounter<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = &self.shards.first().store;
        f.debug_struct("StrictCounter").field("prefix", store.prefix()).finish_non_exhaustive()
    }
}

/// The items of a batch as a store takes them.
fn additions(items: &[(&RedisKey, i64, &Token)]) -> Vec<TokenAdd> {
    let addition = |&(key, count, token): &(&RedisKey, i64, &Token)| TokenAdd {
        key: key.clone(),
        count,
        token: token.clone(),
    };
    items.iter().map(addition).collect()
}

/// Joined additions to totals.
struct Totals<B: ?Sized> {
    store: SpaceStore<B>,
    sender: Arc<Sender>,
}

#[async_trait]
impl<B: Backend + ?Sized> Joint<i64> for Totals<B> {
    async fn add(
        &self,
        items: &[(RedisKey, i64)],
        deadline: Option<Instant>,
    ) -> Result<Vec<Outcome<i64>>, DistkitError> {
        let writes: Vec<_> =
            items.iter().map(|(key, count)| Write::add(key.clone(), *count)).collect();
        let applied = self.store.apply_once(&writes, &self.sender, deadline).await?;
        Ok(applied.outcomes.into_iter().map(|outcome| outcome.map(|w| w.new)).collect())
    }

    fn note_joined(&self, calls: usize) {
        self.store.counts().add(Count::JoinedCalls, calls);
    }
}
