//! Additions that happen once for each token.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{AddedOnce, BackendError, Outcome, Space, TokenAdd};
use crate::{RedisKey, Token};

/// Adds once for each (prefix, key, token), whichever process asks.
///
/// A request is idempotent by itself: it may be sent again, by any process, until it is answered.
///
/// # Contract
///
/// Rules 1 to 6, 8, 10 and 11 of [`Backend`](super::Backend) hold for [`add_once`](Self::add_once), each item taken
/// as an unconditional addition, and:
///
/// 31. **Once.** An addition under a token that the space remembers for its key changes nothing. It is answered as the
///     first one was, whatever has happened since. One token under two keys is two tokens. A token that comes twice in
///     a batch is used by the first item.
/// 32. **One amount.** An addition of another amount under a remembered token is refused as
///     [`Refusal::TokenUsed`](super::Refusal::TokenUsed), which names the first amount.
/// 33. **Refusals use up nothing.** A token whose addition was refused, or whose request failed with
///     [`BackendError::NotApplied`], can be used afterwards.
/// 34. **Resolving.** [`resolve`](Self::resolve) tells what is remembered of a token, and changes nothing.
///     [`forbid`](Self::forbid) does the same, and leaves a mark where nothing is remembered: additions under a marked
///     token are refused as [`Refusal::TokenForbidden`](super::Refusal::TokenForbidden). Marks are kept as long as
///     additions are.
/// 35. **Memory.** A token is remembered for at least `keep` after its addition or mark, and at most 1.5 of that and
///     3 s, in the age of the space's tokens: each request that writes adds the time since the previous one, at most a
///     minute, and a clock that goes back adds nothing. `keep` counts in whole even seconds, rounded up, at least 2.
/// 36. **Lost records.** Where the store finds that it lost records while the counters stayed, an item whose token may
///     have been among them changes nothing and is refused as
///     [`Refusal::TokenForgotten`](super::Refusal::TokenForgotten), until they would have been forgotten anyway. A
///     store that lost all its data begins anew.
/// 37. **One `keep`.** A prefix has the `keep` with which its tokens are first used. Requests with another one change
///     nothing and fail with [`BackendError::ShapeMismatch`]. So do those for another number of shards (rule 9).
/// 38. **Apart from counters.** Assignments, removals and [`clear`](super::Backend::clear) forget no token.
/// 39. **Lasting counters only.** Requests for a space in a [window](Space::window), or one that
///     [expires](Space::idle), change nothing and fail with [`BackendError::NotApplied`].
#[async_trait]
pub trait Tokens: fmt::Debug + Send + Sync {
    /// Adds each item's count, in order, unless its token was used. One request; keep it to some hundred items. A missing
    /// key starts from 0.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use distkit::{RedisKey, Token, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let (key, token) = (RedisKey::try_from("sold")?, Token::new("order-4711")?);
    /// # let day = Duration::from_secs(86_400);
    /// let item = TokenAdd { key, count: 3, token };
    /// let first = store.add_once(&space, &[item.clone()], day).await?;
    /// assert_eq!(first, [Ok(AddedOnce { total: 3, replayed: false })]);
    /// let again = store.add_once(&space, &[item], day).await?;
    /// assert_eq!(again, [Ok(AddedOnce { total: 3, replayed: true })]);
    /// # Ok(())
    /// # }
    /// ```
    async fn add_once(
        &self,
        space: &Space,
        items: &[TokenAdd],
        keep: Duration,
    ) -> Result<Vec<Outcome<AddedOnce>>, BackendError>;

    /// Tells what is remembered of each token. Changes nothing. One request.
    ///
    /// Cancel-safe.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use distkit::{RedisKey, Token, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let (key, token) = (RedisKey::try_from("sold")?, Token::new("order-4711")?);
    /// # let day = Duration::from_secs(86_400);
    /// let asked = [(key.clone(), token.clone())];
    /// assert_eq!(store.resolve(&space, &asked, day).await?, [Ok(Resolved::Unseen)]);
    /// store.add_once(&space, &[TokenAdd { key, count: 3, token }], day).await?;
    /// let done = Resolved::Done { amount: 3, answer: 3 };
    /// assert_eq!(store.resolve(&space, &asked, day).await?, [Ok(done)]);
    /// # Ok(())
    /// # }
    /// ```
    async fn resolve(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError>;

    /// Tells what is remembered of each token, and forbids those of which nothing is. One request.
    ///
    /// Cancel-safe, as [rule 11](crate::backend::Backend#contract) has it: the outcome of a dropped call is unknown.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use distkit::{RedisKey, Token, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let (key, token) = (RedisKey::try_from("sold")?, Token::new("order-4711")?);
    /// # let day = Duration::from_secs(86_400);
    /// let asked = [(key.clone(), token.clone())];
    /// assert_eq!(store.forbid(&space, &asked, day).await?, [Ok(Resolved::Forbidden)]);
    /// let late = store.add_once(&space, &[TokenAdd { key, count: 3, token }], day).await?;
    /// assert_eq!(late, [Err(Refusal::TokenForbidden)]);
    /// # Ok(())
    /// # }
    /// ```
    async fn forbid(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError>;
}

/// What a store remembers of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resolved {
    /// The addition was applied.
    Done {
        /// What was added.
        amount: i64,
        /// The total right after it.
        answer: i64,
    },
    /// Nothing is remembered. That is not final: an attempt may still be in flight, or the token be older than `keep`.
    Unseen,
    /// The token was forbidden before any addition, by
    /// [`resolve_or_forbid`](crate::counter::CounterTrait::resolve_or_forbid): none is, or will be, applied.
    Forbidden,
}

/// Tokens outlive windows, and spaces that expire.
pub(crate) fn takes_tokens(space: &Space) -> Result<(), BackendError> {
    if space.window().is_none() && space.idle().is_none() {
        return Ok(());
    }
    Err(BackendError::not_applied(
        "tokens need a prefix without `windows` and `expire_after`; count under another one",
    ))
}

/// Half of `keep`, in whole seconds: how long one bucket of tokens takes.
pub(crate) fn half_of(keep: Duration) -> u64 {
    /// Longer than any server runs, and exact as a double.
    const LONGEST: u64 = 1 << 40;
    let seconds = keep.as_secs().saturating_add(u64::from(keep.subsec_nanos() > 0));
    seconds.div_ceil(2).clamp(1, LONGEST)
}

/// What a process, or a prefix, with tokens that are kept for so long says of itself.
pub(crate) fn kept_for(half: u64) -> String {
    format!("tokens kept for {} s", 2 * half)
}

/// So many buckets make the time for which a token is kept at most.
pub(crate) const BUCKETS: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_counts_in_even_seconds() {
        for (keep, half) in [(0, 1), (1, 1), (2000, 1), (2001, 2), (3000, 2), (86_400_000, 43_200)]
        {
            assert_eq!(half_of(Duration::from_millis(keep)), half, "{keep} ms");
        }
        assert!(half_of(Duration::MAX) < 1 << 53);
    }
}
