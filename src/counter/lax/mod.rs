mod add;
mod handle;
mod ledger;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;

use super::{
    CounterOptions, CounterTrait, Keyed,
    list::totals_of,
    window_reads::{sum, total_of, window_of, window_reads},
};
use crate::{
    DistkitError, KeyFilter, RedisKey, Stats, Token, Window,
    answers::keyed,
    backend::{Backend, BackendError, Refusal, Resolved, Scope, Write, Written},
    lax::{Engine, Hold, Owner, Settings},
    listing::{self, Listing},
    parts::in_parts,
    shards::{Answers, Shards, done_in_all, share},
    space_store::SpaceStore,
};

pub use crate::lax::{TokenFate, Unflushed, UnflushedShard, UnflushedToken};
pub use handle::LaxHandle;
use ledger::Plain;

/// A counter that buffers writes in the process and brings them to the store every
/// [`allowed_lag`](CounterOptions::allowed_lag).
///
/// `inc`, `dec` and `get` of a key in use do no I/O. They answer with an estimate: the last known total plus
/// all writes of this process that the store has not acknowledged. Own writes are visible at once, and as
/// long as no process subtracts, sets or deletes, successive answers never go down. Every write reaches a
/// healthy store within `allowed_lag` plus a round trip, exactly once, whatever gets lost on the way.
///
/// `set`, `set_if`, `inc_if`, `del` and `clear` act on the store at once and answer exactly; writes made
/// before them never reach the store after them.
///
/// One process should have one counter for a prefix: two of them see each other's writes only through the
/// store. It works on any tokio runtime; making one does no I/O and needs none. When the last handle is
/// dropped, what is pending is flushed in the background, for up to 30 s; call
/// [`shutdown`](Self::shutdown) before the runtime ends to be sure of it.
///
/// # Runtimes
///
/// The first call that needs it starts a task on its runtime, which does the counter's I/O. If that runtime ends,
/// the next call starts another task on its own. If it is a current-thread runtime that is kept without being
/// driven (`block_on` returned), calls from another runtime replace the task after about two
/// [`allowed_lag`](CounterOptions::allowed_lag)s, at least 20 ms and at most 1 s each. Until such a call is made,
/// what is pending stays pending. A thread named `distkit-watch` does this for the tasks on current-thread
/// runtimes.
///
/// The connection is a matter of its client. If the connection's own task lives on a runtime that is not driven,
/// calls fail by the client's time-outs.
///
/// No call depends on another one's future being polled: one that was polled once and is then held, as in a
/// `select!` in a loop, blocks no other call. Dropping it cancels the call.
///
/// ```
/// use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, LaxCounter}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let options = CounterOptions::new(RedisKey::try_from("shop")?, MemoryBackend::new());
/// let counter = LaxCounter::new(options);
/// let key = RedisKey::try_from("visits")?;
/// assert_eq!(counter.inc(&key, 2).await?, 2);
/// assert_eq!(counter.get(&key).await?, 2);
/// counter.shutdown(std::time::Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
pub struct LaxCounter<B: Backend + ?Sized = dyn Backend> {
    owners: Shards<Arc<Owner<Plain<B>>>>,
}

impl<B: Backend + ?Sized> LaxCounter<B> {
    /// Creates a counter with these options. No I/O; may be called outside of a runtime.
    pub fn new(options: CounterOptions<B>) -> Arc<Self> {
        let CounterOptions { stores, settings, strict, keep_tokens, .. } = options;
        let max_pending = share(settings.max_pending, stores.number());
        let settings = Settings { max_pending, ..settings };
        let owner = |store: &SpaceStore<B>| {
            let ledger = Plain { store: store.clone(), keep_tokens, strict };
            Arc::new(Owner(Engine::new(ledger, settings)))
        };
        Arc::new(Self { owners: SpaceStore::counted_apart(&stores, "lax").map(owner) })
    }

    /// Returns the store.
    pub fn store(&self) -> &B {
        self.owners.first().0.ledger().store.store()
    }

    /// Returns what the counter has done, and how it stands, in all shards together. No I/O, and no cost to `inc`.
    pub fn stats(&self) -> Stats {
        self.owners.stats(|owner| owner.0.stats())
    }

    /// The engine of the key's shard.
    #[inline]
    fn engine(&self, key: &RedisKey) -> &Arc<Engine<Plain<B>>> {
        &self.owners.of(key).0
    }

    /// Adds `count`, which may be negative, and answers the estimate of the new total. A missing key
    /// starts from 0. No I/O, unless this process has not used the key lately: then its total is read
    /// first.
    ///
    /// Cancel-safe: a dropped call counts in full or not at all.
    ///
    /// # Errors
    ///
    /// Nothing is changed by a call that fails, with
    /// - [`NotApplied`](DistkitError::NotApplied): the key's total could not be read;
    /// - [`CounterError`](DistkitError::CounterError): the sum would not fit into an `i64`, or the store
    ///   holds a non-integer value;
    /// - [`TooManyPending`](DistkitError::TooManyPending): the store has been unreachable, and
    ///   [`max_pending_keys`](CounterOptions::max_pending_keys) is reached;
    /// - [`ShutDown`](DistkitError::ShutDown).
    pub async fn inc(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        // Not left to a function that is awaited: its answer would be copied.
        let engine = self.engine(key);
        match engine.add_to_key_quickly(key, count) {
            Some(total) => Ok(total),
            None => engine.add_to_key(key, count).await,
        }
    }

    /// Adds `count`, which may be negative or 0, once for this key and token, whatever process asks how often, and
    /// answers the estimate of the new total. No I/O, as [`inc`](Self::inc).
    ///
    /// It is accepted at once and sent with the next flush, by itself: [`max_pending_keys`] limits how many may be
    /// pending. What the store says of the token is known only then:
    ///
    /// - It was not used before: the addition is applied.
    /// - It was used for the same amount. Nothing is added, the estimate is put right, and
    ///   [`take_replayed`](Self::take_replayed) and [`Stats::replayed`] tell of it.
    /// - The store refuses it: another amount was added under it, it was forbidden, the sum does not fit, the key holds
    ///   no number, or the records of tokens are lost. The addition is dropped, the estimate is put right, and the next
    ///   [`flush`](Self::flush), or else [`shutdown`](Self::shutdown), tells of it, as do [`Stats::refused`] and the log.
    ///
    /// A process that crashes loses what it has not flushed: have the event counted again, with the same token.
    ///
    /// [`max_pending_keys`]: CounterOptions::max_pending_keys
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc). Nothing is changed by a call that fails.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, LaxCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = LaxCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::Token;
    ///
    /// let (sold, order) = (RedisKey::try_from("sold")?, Token::new("order-4711")?);
    /// assert_eq!(counter.inc_once(&sold, 3, &order).await?, 3);
    /// counter.flush().await?;
    /// // The message comes again.
    /// assert_eq!(counter.inc_once(&sold, 3, &order).await?, 6, "not known yet");
    /// counter.flush().await?;
    /// assert_eq!(counter.get(&sold).await?, 3);
    /// assert_eq!(counter.take_replayed()[0].token, order);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn inc_once(
        &self,
        key: &RedisKey,
        count: i64,
        token: &Token,
    ) -> Result<i64, DistkitError> {
        let engine = self.engine(key);
        engine.ledger().store.takes_tokens()?;
        let known = engine.with_known(key, |cell| engine.promise(cell, count, token));
        match known {
            Some(promised) => promised,
            None => engine.promise(&engine.known_in_a_box(key).await?, count, token),
        }
    }

    /// Takes the additions under tokens that were found to have been added before, since the last call. No I/O.
    ///
    /// It tells of a thousand of each shard at most; [`Stats::replayed`] counts all. Where the answer to a request was
    /// lost and it was sent again, nothing tells whether its additions were made by an earlier attempt of it or by
    /// another process: these are not reported.
    pub fn take_replayed(&self) -> Vec<UnflushedToken> {
        self.owners.iter().flat_map(|owner| owner.0.take_replayed()).collect()
    }

    /// Subtracts `count`. Like [`inc`](Self::inc), its I/O and cancel safety included, and refuses [`i64::MIN`], which has
    /// no negation.
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc).
    pub async fn dec(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        match count.checked_neg() {
            Some(negated) => self.inc(key, negated).await,
            None => Err(DistkitError::refused(key, Refusal::Overflow)),
        }
    }

    /// Returns the estimate of the total; a missing key reads 0. From memory when the known total is at most
    /// [`allowed_lag`](CounterOptions::allowed_lag) old; keys in use are kept that fresh in the
    /// background.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`NotApplied`](DistkitError::NotApplied) when the total is not fresh and the store does not answer,
    /// [`CounterError`](DistkitError::CounterError) when it holds a non-integer value.
    pub async fn get(&self, key: &RedisKey) -> Result<i64, DistkitError> {
        self.engine(key).get(key).await
    }

    /// Returns a handle to one key, for hot paths: adding through it takes a few nanoseconds. Reads the key's
    /// total when it is not known. The key stays in memory as long as the handle lives.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc).
    pub async fn handle(&self, key: &RedisKey) -> Result<LaxHandle<B>, DistkitError> {
        let owner = self.owners.of(key);
        let cell = owner.0.known(key).await?;
        Ok(LaxHandle::new(Hold::new(owner, cell)))
    }

    /// Returns when all that was written before the call is in the store. No I/O where that is so already, else requests
    /// for all that is pending.
    ///
    /// Cancel-safe: what is pending stays so, and is sent in the background.
    ///
    /// # Errors
    ///
    /// Why some of it is not. [`NotApplied`](DistkitError::NotApplied) and
    /// [`OutcomeUnknown`](DistkitError::OutcomeUnknown): the store is unreachable; everything is kept, and
    /// sent when it is back, unless that takes most of a day (the latter is then said once more). [`CounterError`](DistkitError::CounterError): a sum was refused, now or in
    /// the background since the last `flush`; one that would not fit into an `i64`, or whose window is closed, is lost;
    /// one whose place holds a non-integer value is kept and tried again. All else is in the store.
    /// Also an addition under a token may have been refused: see [`inc_once`](Self::inc_once). Where several keys
    /// are concerned, the log names each. [`ShutDown`](DistkitError::ShutDown): an earlier
    /// [`shutdown`](Self::shutdown) reported what is lost.
    pub async fn flush(&self) -> Result<(), DistkitError> {
        done_in_all(self.owners.all(|owner| owner.0.flush()).await)
    }

    /// Takes no more writes, and brings what is pending to the store, trying again until `within` is
    /// over. Reads go on working. No I/O where nothing is pending.
    ///
    /// Of a call that is dropped nothing tells what is left: what is pending goes on being sent in the background.
    ///
    /// # Errors
    ///
    /// What is left, and what was refused. It is given up: none of it is sent later, and only this report tells
    /// of it; another `shutdown` has nothing left.
    pub async fn shutdown(&self, within: Duration) -> Result<(), Unflushed> {
        let reports = self.owners.all(|owner| owner.0.shutdown(within)).await;
        Unflushed::of_shards(reports).map_or(Ok(()), Err)
    }
}

/// Reads of other windows than the current one. What this process has written to them is brought to the store first.
impl<B: Backend + ?Sized> LaxCounter<B> {
    fn store_of(&self, key: &RedisKey) -> &SpaceStore<B> {
        &self.engine(key).ledger().store
    }

    async fn total_in(&self, window: Window, key: &RedisKey) -> Result<i64, DistkitError> {
        let engine = self.engine(key);
        let store = &engine.ledger().store;
        if let Some(clock) = store.clock()
            && clock.windows().every_same(window.windows())
        {
            if clock.current().is_some_and(|current| current.start() == window.start()) {
                return engine.get(key).await;
            }
            engine.flush_key_in(key, window.start_ms()).await?;
        }
        total_of(store, window, key).await
    }

    fn stores(&self) -> impl Iterator<Item = &SpaceStore<B>> {
        self.owners.iter().map(|owner| &owner.0.ledger().store)
    }

    window_reads!();
}

impl<B: Backend + ?Sized> fmt::Debug for LaxCounter<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaxCounter")
            .field("prefix", self.owners.first().0.ledger().store.prefix())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<B: Backend + ?Sized> CounterTrait for LaxCounter<B> {
    /// A batch of additions only is buffered like [`inc`](LaxCounter::inc). Any other batch acts on the
    /// store at once, in one guarded request, after what is pending on keys whose condition or sum
    /// depends on it.
    async fn write_all(
        &self,
        writes: &[Write],
    ) -> Result<Vec<Result<Written, DistkitError>>, DistkitError> {
        let Some(counts) =
            writes.iter().map(Write::unconditional_addition).collect::<Option<Vec<_>>>()
        else {
            return self
                .owners
                .batch(writes, |owner, part| async move { write_now(owner, &part).await })
                .await;
        };
        let keys = writes.iter().map(|write| (self.engine(&write.key), &write.key));
        let cells = Engine::all_known(keys).await;
        let outcomes = writes.iter().zip(counts).zip(cells).map(|((write, count), cell)| {
            let new = self.engine(&write.key).add_to(&cell?, count)?;
            Ok(Written { old: new.saturating_sub(count), new, condition_met: true })
        });
        Ok(outcomes.collect())
    }

    async fn get_all<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        // All at once, so that the keys that must be read are read in one request.
        let totals = join_all(keys.iter().map(|key| self.get(key))).await;
        Ok(keyed(keys.iter().copied(), totals, |total| total))
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        done_in_all(self.owners.all(|owner| owner.0.clear(Scope::Total)).await)
    }

    async fn inc(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        self.inc(key, count).await
    }

    async fn get(&self, key: &RedisKey) -> Result<i64, DistkitError> {
        self.engine(key).get(key).await
    }

    async fn inc_once(
        &self,
        key: &RedisKey,
        count: i64,
        token: &Token,
    ) -> Result<i64, DistkitError> {
        self.inc_once(key, count, token).await
    }

    async fn inc_once_all<'k>(
        &self,
        items: &[(&'k RedisKey, i64, &Token)],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        self.owners.first().0.ledger().store.takes_tokens()?;
        let cells = Engine::all_known(items.iter().map(|&(key, ..)| (self.engine(key), key))).await;
        let promised = items.iter().zip(cells).map(|(&(key, count, token), cell)| {
            let promised = cell.and_then(|cell| self.engine(key).promise(&cell, count, token));
            (key, promised)
        });
        Ok(promised.collect())
    }

    /// The key's pending additions under tokens are sent first.
    async fn resolve(&self, key: &RedisKey, token: &Token) -> Result<Resolved, DistkitError> {
        let engine = self.engine(key);
        engine.flush_promises(key).await?;
        engine.ledger().resolve(&[(key.clone(), token.clone())]).await
    }

    /// The key's pending additions under tokens are sent first.
    async fn resolve_or_forbid(
        &self,
        key: &RedisKey,
        token: &Token,
    ) -> Result<Resolved, DistkitError> {
        let engine = self.engine(key);
        engine.flush_promises(key).await?;
        engine.ledger().forbid(&[(key.clone(), token.clone())]).await
    }

    fn list(&self, filter: &KeyFilter) -> Listing<(RedisKey, i64)> {
        let stores = self.owners.iter().map(|owner| &owner.0.ledger().store);
        Listing::of_shards(stores.map(|store| totals_of(store, None, filter)))
    }

    async fn len(&self) -> Result<u64, DistkitError> {
        listing::sum(self.owners.all(|owner| owner.0.ledger().store.count()).await)
    }
}

/// Does the writes of one shard at once.
async fn write_now<B: Backend + ?Sized>(
    owner: &Owner<Plain<B>>,
    writes: &[Write],
) -> Answers<Written> {
    in_parts!(writes, part => owner.0.write_now(part).await)
}
