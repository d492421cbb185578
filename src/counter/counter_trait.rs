use std::ops::RangeInclusive;

use async_trait::async_trait;

use crate::{
    CounterComparator, DistkitError, KeyFilter, RedisKey, Token,
    answers::{Keyed, keyed, only},
    backend::{Refusal, Resolved, Write, Written, missing},
    listing::{self, Listing},
};

/// The operations of every plain counter.
///
/// The trait is dyn-compatible. Batches keep their order: a key that is named twice is written
/// twice, and answers come in the order of the input. An empty batch does no I/O.
///
/// # I/O and cancellation
///
/// Each call of a strict counter is a request to the store; concurrent `inc`, `dec` and `inc_once` share requests. `inc`,
/// `dec` and `get` of a lax counter do no I/O for a key in use, and everything else of it is a request.
///
/// Dropping a future that was never polled does nothing. Dropping a strict call before it was sent cancels it; one that
/// was sent is applied once at most. A lax `inc` or `dec` is taken or not when its future is dropped, never in part.
///
/// # Errors
///
/// Unless a method says otherwise, each fails with
/// - [`NotApplied`](DistkitError::NotApplied): the store could not be reached or turned the call down;
///   nothing happened.
/// - [`OutcomeUnknown`](DistkitError::OutcomeUnknown): the call was sent, and no answer came in time. It was applied
///   once, or not at all. A strict counter sends a write again until
///   [`unknown_after`](super::CounterOptions::unknown_after) is over, a lax counter's `set` or `del` is sent once.
/// - [`CounterError`](DistkitError::CounterError): this key was refused and nothing changed, because the
///   result would not fit into an `i64`, or because the store holds a non-integer value there.
/// - [`TooManyPending`](DistkitError::TooManyPending) and [`ShutDown`](DistkitError::ShutDown), of a lax counter
///   only: nothing was taken.
///
/// # Example
///
/// Code that does not care which kind of counter it uses:
///
/// ```
/// use distkit::{DistkitError, RedisKey, counter::CounterTrait};
///
/// async fn hit(counter: &impl CounterTrait, page: &RedisKey) -> Result<i64, DistkitError> {
///     counter.inc(page, 1).await
/// }
/// ```
#[async_trait]
pub trait CounterTrait: Send + Sync {
    /// Does each write, in order, and answers what it found and left behind, item by item.
    ///
    /// The other writing methods are short forms of this one. One round trip of a strict counter; more than 500 items go
    /// in parts. A lax counter buffers a batch of additions, and does any other at once.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// For an item: [`CounterError`](DistkitError::CounterError), it was refused. As a whole, for a batch of one part:
    /// those of the trait. A part that fails fails for its items, and later ones are not sent.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::backend::Write;
    ///
    /// let key = RedisKey::try_from("stock")?;
    /// let writes = [Write::set(key.clone(), 10), Write::add(key, -3)];
    /// let outcomes = counter.write_all(&writes).await?;
    /// assert_eq!(outcomes[1].as_ref().unwrap().old, 10);
    /// assert_eq!(outcomes[1].as_ref().unwrap().new, 7);
    /// # Ok(())
    /// # }
    /// ```
    async fn write_all(
        &self,
        writes: &[Write],
    ) -> Result<Vec<Result<Written, DistkitError>>, DistkitError>;

    /// Does one write and returns the totals before and after it, and whether its condition held.
    ///
    /// Unlike the two numbers of [`inc_if`](Self::inc_if) and [`set_if`](Self::set_if) this also tells whether the
    /// condition held where the write changes nothing.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::{CounterComparator, backend::Write};
    ///
    /// let seats = RedisKey::try_from("seats")?;
    /// let open = Write::add(seats, 0).only_if(CounterComparator::Le(2));
    /// assert!(counter.write(open).await?.condition_met);
    /// # Ok(())
    /// # }
    /// ```
    async fn write(&self, write: Write) -> Result<Written, DistkitError> {
        only(self.write_all(&[write]).await?)
    }

    /// Reads the total of each key. A missing key reads 0. One round trip of a strict counter; more than 500 keys go in
    /// parts. A lax counter reads those that are not fresh in one request.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get), for each key.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let (apples, pears) = (RedisKey::try_from("apples")?, RedisKey::try_from("pears")?);
    /// counter.set(&apples, 5).await?;
    /// for (key, total) in counter.get_all(&[&apples, &pears]).await? {
    ///     assert_eq!(total?, if *key == apples { 5 } else { 0 });
    /// }
    /// # Ok(())
    /// # }
    /// ```
    async fn get_all<'k>(&self, keys: &[&'k RedisKey])
    -> Result<Vec<Keyed<'k, i64>>, DistkitError>;

    /// Deletes the key and answers the total that it held: 0 when it was missing.
    ///
    /// What is not a number is deleted all the same, and reported as
    /// [`CounterError`](DistkitError::CounterError), for there is no total to answer with.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let key = RedisKey::try_from("visits")?;
    /// counter.set(&key, 7).await?;
    /// assert_eq!(counter.del(&key).await?, 7);
    /// assert_eq!(counter.del(&key).await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    async fn del(&self, key: &RedisKey) -> Result<i64, DistkitError> {
        Ok(self.write(Write::remove(key.clone())).await?.old)
    }

    /// Deletes every plain counter under the prefix, also those that other processes made. One round trip, to all shards
    /// side by side; atomic in each.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of the trait, and [`InShards`](DistkitError::InShards). It may be repeated.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let key = RedisKey::try_from("visits")?;
    /// counter.inc(&key, 7).await?;
    /// counter.clear().await?;
    /// assert_eq!(counter.get(&key).await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    async fn clear(&self) -> Result<(), DistkitError>;

    /// Adds `count`, which may be negative, and answers the new total. A missing key starts from 0.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let key = RedisKey::try_from("visits")?;
    /// assert_eq!(counter.inc(&key, 5).await?, 5);
    /// assert_eq!(counter.inc(&key, 5).await?, 10);
    /// # Ok(())
    /// # }
    /// ```
    async fn inc(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        let outcomes = self.write_all(&[Write::add(key.clone(), count)]).await?;
        Ok(only(outcomes)?.new)
    }

    /// Subtracts `count` and answers the new total. A missing key starts from 0; totals may be negative.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Also [`CounterError`](DistkitError::CounterError), without any I/O, when `count` is [`i64::MIN`],
    /// which has no negation.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let key = RedisKey::try_from("visits")?;
    /// assert_eq!(counter.dec(&key, 2).await?, -2);
    /// assert!(counter.dec(&key, i64::MIN).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    async fn dec(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        match count.checked_neg() {
            Some(negated) => self.inc(key, negated).await,
            None => Err(DistkitError::refused(key, Refusal::Overflow)),
        }
    }

    /// Reads the total. A missing key reads 0.
    ///
    /// Cancel-safe.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let key = RedisKey::try_from("visits")?;
    /// assert_eq!(counter.get(&key).await?, 0);
    /// # Ok(())
    /// # }
    /// ```
    async fn get(&self, key: &RedisKey) -> Result<i64, DistkitError> {
        let answers = self.get_all(&[key]).await?;
        only(answers.into_iter().map(|(_, total)| total).collect())
    }

    /// Makes the total `count`, whatever the key held, and answers it.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let key = RedisKey::try_from("visits")?;
    /// assert_eq!(counter.set(&key, 100).await?, 100);
    /// # Ok(())
    /// # }
    /// ```
    async fn set(&self, key: &RedisKey, count: i64) -> Result<i64, DistkitError> {
        let outcomes = self.write_all(&[Write::set(key.clone(), count)]).await?;
        Ok(only(outcomes)?.new)
    }

    /// Adds `count` if the total satisfies `comparator`, in one atomic step. Answers the new total and
    /// the old one: the same twice when the condition did not hold.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::CounterComparator;
    ///
    /// let seats = RedisKey::try_from("seats")?;
    /// assert_eq!(counter.inc_if(&seats, CounterComparator::Lt(2), 2).await?, (2, 0));
    /// assert_eq!(counter.inc_if(&seats, CounterComparator::Lt(2), 2).await?, (2, 2));
    /// # Ok(())
    /// # }
    /// ```
    async fn inc_if(
        &self,
        key: &RedisKey,
        comparator: CounterComparator,
        count: i64,
    ) -> Result<(i64, i64), DistkitError> {
        let write = Write::add(key.clone(), count).only_if(comparator);
        only(self.write_all(&[write]).await?).map(new_and_old)
    }

    /// Makes the total `count` if it satisfies `comparator`, in one atomic step. Answers the new total
    /// and the old one: the same twice when the condition did not hold.
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::CounterComparator;
    ///
    /// let leader = RedisKey::try_from("leader")?;
    /// assert_eq!(counter.set_if(&leader, CounterComparator::Eq(0), 42).await?, (42, 0));
    /// assert_eq!(counter.set_if(&leader, CounterComparator::Eq(0), 43).await?, (42, 42));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_if(
        &self,
        key: &RedisKey,
        comparator: CounterComparator,
        count: i64,
    ) -> Result<(i64, i64), DistkitError> {
        let write = Write::set(key.clone(), count).only_if(comparator);
        only(self.write_all(&[write]).await?).map(new_and_old)
    }

    /// Adds as much of `count` as keeps the total within `bounds`, in one atomic step. Answers the new total and how
    /// much was added.
    ///
    /// A positive `count` raises the total up to the end of `bounds` at the furthest, a negative one lowers it down
    /// to their start. A total that is there already, or beyond, stays. Nothing fits into empty bounds. A missing
    /// key starts from 0, and stays missing where nothing is added. A lax counter does this at once, like
    /// [`inc_if`](Self::inc_if).
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc), but an overflow: the bounds are numbers.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let seats = RedisKey::try_from("seats")?;
    /// assert_eq!(counter.add_within(&seats, 3, 0..=5).await?, (3, 3));
    /// assert_eq!(counter.add_within(&seats, 3, 0..=5).await?, (5, 2), "one did not get a seat");
    /// assert_eq!(counter.add_within(&seats, -9, 0..=5).await?, (0, -5));
    /// # Ok(())
    /// # }
    /// ```
    async fn add_within(
        &self,
        key: &RedisKey,
        count: i64,
        bounds: RangeInclusive<i64>,
    ) -> Result<(i64, i64), DistkitError> {
        let written = self.write(Write::add_within(key.clone(), count, bounds)).await?;
        Ok((written.new, written.new.wrapping_sub(written.old)))
    }

    /// Adds `count`, which may be negative or 0, once for this key and token, whatever process asks how often, and
    /// answers the total right after the addition. A missing key starts from 0.
    ///
    /// A repetition changes nothing and gets the *first* answer, whatever has happened since. That holds for as long as
    /// the store remembers the token: at least [`keep_tokens`](super::CounterOptions::keep_tokens). `set`, `del` and
    /// `clear` forget no token. [`Token`] says what makes a good one.
    ///
    /// After any error the call may be repeated with the same token, also by another process. So what counts must be
    /// decided before the first attempt, the token made, and both stored with the event.
    ///
    /// A strict counter asks the store, and sends again until it is answered as other writes; concurrent calls share
    /// requests. A lax one accepts the addition at once; what it then answers, and tells later, is in
    /// [`LaxCounter::inc_once`](super::LaxCounter::inc_once).
    ///
    /// Cancel-safe: a dropped call [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`inc`](Self::inc), where [`CounterError`](DistkitError::CounterError) has one of these reasons besides.
    /// Nothing changed then:
    /// - [`TokenUsed`](Refusal::TokenUsed): another amount was added under the token. It names that amount.
    /// - [`TokenForbidden`](Refusal::TokenForbidden): see [`resolve_or_forbid`](Self::resolve_or_forbid).
    ///
    /// [`OutcomeUnknown`](DistkitError::OutcomeUnknown) with
    /// [`Forgotten`](crate::backend::BackendError::Forgotten): the store lost records of tokens, by an eviction, and this
    /// token may have been among them. This call changed nothing.
    ///
    /// [`NotApplied`](DistkitError::NotApplied) from a store that does not have [`Tokens`](crate::backend::Tokens).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::Token;
    ///
    /// let (sold, order) = (RedisKey::try_from("sold")?, Token::new("order-4711")?);
    /// assert_eq!(counter.inc_once(&sold, 3, &order).await?, 3);
    /// counter.inc(&sold, 10).await?;
    /// assert_eq!(counter.inc_once(&sold, 3, &order).await?, 3, "the first answer");
    /// assert_eq!(counter.get(&sold).await?, 13);
    /// assert!(counter.inc_once(&sold, 4, &order).await.is_err(), "3 were added under it");
    /// # Ok(())
    /// # }
    /// ```
    async fn inc_once(
        &self,
        key: &RedisKey,
        count: i64,
        token: &Token,
    ) -> Result<i64, DistkitError> {
        let answers = self.inc_once_all(&[(key, count, token)]).await?;
        only(answers.into_iter().map(|(_, total)| total).collect())
    }

    /// [`inc_once`](Self::inc_once) for each item.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::Token;
    ///
    /// let bytes = RedisKey::try_from("bytes")?;
    /// let (first, second) = (Token::new("line 1")?, Token::new("line 2")?);
    /// let lines = [(&bytes, 70, &first), (&bytes, 30, &second)];
    /// // The first import was cut off after a line, say.
    /// counter.inc_once_all(&lines[..1]).await?;
    /// counter.inc_once_all(&lines).await?;
    /// assert_eq!(counter.get(&bytes).await?, 100);
    /// # Ok(())
    /// # }
    /// ```
    async fn inc_once_all<'k>(
        &self,
        items: &[(&'k RedisKey, i64, &Token)],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        _ = items;
        Err(missing("tokens").into())
    }

    /// Tells what the store remembers of a token of this key. Changes nothing, and asks the store each time.
    ///
    /// [`Unseen`](Resolved::Unseen) is not final: an attempt may still be on its way, pending in a lax counter, or the
    /// token be older than [`keep_tokens`](super::CounterOptions::keep_tokens).
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`NotApplied`](DistkitError::NotApplied), and
    /// [`OutcomeUnknown`](DistkitError::OutcomeUnknown) with [`Forgotten`](crate::backend::BackendError::Forgotten) where
    /// the record may be lost.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::{Token, backend::Resolved};
    ///
    /// let (sold, order) = (RedisKey::try_from("sold")?, Token::new("order-4711")?);
    /// assert_eq!(counter.resolve(&sold, &order).await?, Resolved::Unseen);
    /// counter.inc_once(&sold, 3, &order).await?;
    /// assert_eq!(counter.resolve(&sold, &order).await?, Resolved::Done { amount: 3, answer: 3 });
    /// # Ok(())
    /// # }
    /// ```
    async fn resolve(&self, key: &RedisKey, token: &Token) -> Result<Resolved, DistkitError> {
        _ = (key, token);
        Err(missing("tokens").into())
    }

    /// Settles what became of a token of this key: it was used, or never will be.
    ///
    /// Where nothing is remembered of it, it leaves a mark that refuses later additions as
    /// [`TokenForbidden`](Refusal::TokenForbidden), also those that are on their way. The mark is kept as long as a used
    /// token. So the answer is final, within that time: [`Done`](Resolved::Done) or [`Forbidden`](Resolved::Forbidden).
    ///
    /// # Errors
    ///
    /// Those of [`inc_once`](Self::inc_once). After [`OutcomeUnknown`](DistkitError::OutcomeUnknown) the token may be
    /// forbidden.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::{Token, backend::Resolved};
    ///
    /// let (sold, order) = (RedisKey::try_from("sold")?, Token::new("order-4711")?);
    /// // The order is cancelled. Was it counted?
    /// assert_eq!(counter.resolve_or_forbid(&sold, &order).await?, Resolved::Forbidden);
    /// assert!(counter.inc_once(&sold, 3, &order).await.is_err(), "a late attempt");
    /// # Ok(())
    /// # }
    /// ```
    async fn resolve_or_forbid(
        &self,
        key: &RedisKey,
        token: &Token,
    ) -> Result<Resolved, DistkitError> {
        _ = (key, token);
        Err(missing("tokens").into())
    }

    /// Does [`inc`](Self::inc) for each item, in order.
    ///
    /// A lax counter buffers it, a strict one takes one round trip; more than 500 items go in parts. Each item is atomic;
    /// the batch as a whole is not.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let (full, free) = (RedisKey::try_from("full")?, RedisKey::try_from("free")?);
    /// counter.set(&full, i64::MAX).await?;
    /// let answers = counter.inc_all(&[(&full, 1), (&free, 1)]).await?;
    /// assert!(answers[0].1.is_err(), "an overflow stops no other item");
    /// assert_eq!(*answers[1].1.as_ref().unwrap(), 1);
    /// # Ok(())
    /// # }
    /// ```
    async fn inc_all<'k>(
        &self,
        updates: &[(&'k RedisKey, i64)],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        let writes: Vec<_> = updates.iter().map(|&(key, n)| Write::add(key.clone(), n)).collect();
        let outcomes = self.write_all(&writes).await?;
        Ok(keyed(updates.iter().map(|&(key, _)| key), outcomes, |written| written.new))
    }

    /// Does [`set`](Self::set) for each item, in order.
    ///
    /// One round trip; more than 500 items go in parts. Each item is atomic; the batch as a whole is not.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// let (red, blue) = (RedisKey::try_from("red")?, RedisKey::try_from("blue")?);
    /// counter.set_all(&[(&red, 1), (&blue, 2)]).await?;
    /// assert_eq!(counter.get(&blue).await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    async fn set_all<'k>(
        &self,
        updates: &[(&'k RedisKey, i64)],
    ) -> Result<Vec<Keyed<'k, i64>>, DistkitError> {
        let writes: Vec<_> = updates.iter().map(|&(key, n)| Write::set(key.clone(), n)).collect();
        let outcomes = self.write_all(&writes).await?;
        Ok(keyed(updates.iter().map(|&(key, _)| key), outcomes, |written| written.new))
    }

    /// Does [`inc_if`](Self::inc_if) for each item, in order.
    ///
    /// One round trip; more than 500 items go in parts. Each item is atomic; the batch as a whole is not.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::CounterComparator;
    ///
    /// let key = RedisKey::try_from("seats")?;
    /// let item = (&key, CounterComparator::Lt(1), 1);
    /// let answers = counter.inc_all_if(&[item, item]).await?;
    /// assert_eq!(*answers[0].1.as_ref().unwrap(), (1, 0));
    /// assert_eq!(*answers[1].1.as_ref().unwrap(), (1, 1));
    /// # Ok(())
    /// # }
    /// ```
    async fn inc_all_if<'k>(
        &self,
        updates: &[(&'k RedisKey, CounterComparator, i64)],
    ) -> Result<Vec<Keyed<'k, (i64, i64)>>, DistkitError> {
        let writes: Vec<_> = updates
            .iter()
            .map(|&(key, comparator, n)| Write::add(key.clone(), n).only_if(comparator))
            .collect();
        let outcomes = self.write_all(&writes).await?;
        Ok(keyed(updates.iter().map(|&(key, _, _)| key), outcomes, new_and_old))
    }

    /// Does [`set_if`](Self::set_if) for each item, in order.
    ///
    /// One round trip; more than 500 items go in parts. Each item is atomic; the batch as a whole is not.
    ///
    /// Cancel-safe: each part of a dropped batch [is applied once at most](CounterTrait#io-and-cancellation).
    ///
    /// # Errors
    ///
    /// Those of [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::CounterComparator;
    ///
    /// let key = RedisKey::try_from("highest")?;
    /// let answers = counter
    ///     .set_all_if(&[(&key, CounterComparator::Lt(8), 8), (&key, CounterComparator::Lt(3), 3)])
    ///     .await?;
    /// assert_eq!(*answers[1].1.as_ref().unwrap(), (8, 8));
    /// # Ok(())
    /// # }
    /// ```
    async fn set_all_if<'k>(
        &self,
        updates: &[(&'k RedisKey, CounterComparator, i64)],
    ) -> Result<Vec<Keyed<'k, (i64, i64)>>, DistkitError> {
        let writes: Vec<_> = updates
            .iter()
            .map(|&(key, comparator, n)| Write::set(key.clone(), n).only_if(comparator))
            .collect();
        let outcomes = self.write_all(&writes).await?;
        Ok(keyed(updates.iter().map(|&(key, _, _)| key), outcomes, new_and_old))
    }

    /// Lists the counters of the prefix that the filter selects, with their totals, all shards included.
    ///
    /// It reads what the store holds. Pending writes of a lax counter, this process's own included, are not in it:
    /// call [`flush`](super::LaxCounter::flush) before. The server looks at every counter of the prefix, whatever the
    /// filter: a filter saves what is sent, not what is read. No I/O before the first poll. For what comes, what may
    /// come twice, and what ends it, see [`Listing`].
    ///
    /// A counter of one's own that does not implement it lists one [`NotApplied`](DistkitError::NotApplied), as does
    /// one on a store that cannot list.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// use distkit::KeyFilter;
    ///
    /// for page in ["home", "about", "logo.png"] {
    ///     counter.inc(&RedisKey::try_from(page)?, 1).await?;
    /// }
    /// let images = counter.list(&KeyFilter::glob("*.png")).into_map().await?;
    /// assert_eq!(images.into_keys().collect::<Vec<_>>(), [RedisKey::try_from("logo.png")?]);
    /// # Ok(())
    /// # }
    /// ```
    fn list(&self, filter: &KeyFilter) -> Listing<(RedisKey, i64)> {
        let _ = filter;
        Listing::failed(listing::unsupported())
    }

    /// Counts the counters of the prefix that the store holds, those that are 0 included: exact for one shard, and the
    /// sum of what the shards hold, each at its own time. One round trip; the server looks at no counter.
    ///
    /// A counter exists from its first write to its `del`. Pending writes of a lax counter make none.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`NotApplied`](DistkitError::NotApplied) where the store, or one of the shards, does not answer or cannot list.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, CounterTrait, StrictCounter}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), distkit::DistkitError> {
    /// # let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("docs")?, MemoryBackend::new()));
    /// counter.set(&RedisKey::try_from("used up")?, 0).await?;
    /// assert_eq!(counter.len().await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    async fn len(&self) -> Result<u64, DistkitError> {
        Err(listing::unsupported())
    }

    /// Tells whether [`len`](Self::len) is 0. One round trip.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// Those of [`len`](Self::len).
    async fn is_empty(&self) -> Result<bool, DistkitError> {
        Ok(self.len().await? == 0)
    }

    /// Returns the `n` counters with the greatest totals among those that the filter selects, the greatest first;
    /// equal ones in the order of their keys.
    ///
    /// It reads all counters as [`list`](Self::list) does, and keeps `n` of them in memory. It is no snapshot: each
    /// total is one that the counter had meanwhile. For `n` = 0 it does no I/O. Where foreign data is expected among
    /// the counters, filter the items of [`list`](Self::list) and use [`Listing::greatest`].
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// The first error that the listing gives.
    ///
    /// # Recipe: top pages
    ///
    /// Views are counted by a lax counter, one key for each page and day. A report reads the pages of a day:
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::memory::MemoryBackend};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use distkit::{KeyFilter, counter::{CounterOptions, CounterTrait, LaxCounter}};
    ///
    /// let options = CounterOptions::new(RedisKey::try_from("views")?, MemoryBackend::new());
    /// let views = LaxCounter::new(options);
    /// for (page, count) in [("/", 30), ("/docs", 70), ("/blog", 20)] {
    ///     views.inc(&RedisKey::try_from(format!("2026-11-27 {page}"))?, count).await?;
    /// }
    ///
    /// // What this process has counted so far is to be in the report.
    /// views.flush().await?;
    /// let top = views.top(2, &KeyFilter::prefix("2026-11-27 ")).await?;
    /// let top: Vec<_> = top.iter().map(|(page, count)| (&**page, *count)).collect();
    /// assert_eq!(top, [("2026-11-27 /docs", 70), ("2026-11-27 /", 30)]);
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

fn new_and_old(written: Written) -> (i64, i64) {
    (written.new, written.old)
}
