//! What a counter tells about writes that did not arrive.

use std::fmt;

use super::promises::Promise;
use crate::{DistkitError, RedisKey, Token, backend::Refusal, counted::counted};

/// What a shutdown could not bring to the store. It has been given up: nothing of it is sent later.
///
/// Of a counter in [windows](crate::Windows) a key comes once for each window that something of it is left of.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Unflushed {
    /// Keys, in order, with the sums that the store has not taken.
    pub pending: Vec<(RedisKey, i64)>,
    /// Keys, in order, with sums that were sent, or about to be, and whose answer never came: the store may hold
    /// them.
    pub unknown: Vec<(RedisKey, i64)>,
    /// Sums that the store refused since the last `flush`, with the reason.
    pub refused: Vec<(RedisKey, i64, Refusal)>,
    /// Additions under tokens that are still pending, may have been added, or were refused since the last `flush`. Where
    /// there are any, also those that were found to have been added before.
    pub tokens: Vec<UnflushedToken>,
    /// The error of the last attempt; of several shards, of the first one that has any.
    pub cause: Option<DistkitError>,
    /// The shards from which something is left, or that have a cause of their own, in order. Empty where the prefix has
    /// one shard.
    pub shards: Vec<UnflushedShard>,
}

/// What became of an addition under a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnflushedToken {
    /// The counter.
    pub key: RedisKey,
    /// The token.
    pub token: Token,
    /// The amount.
    pub count: i64,
    /// Its outcome.
    pub fate: TokenFate,
}

/// What became of an addition under a token that did not simply arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenFate {
    /// The store has not taken it.
    Pending,
    /// It was sent, or about to be, and no answer came: the store may have added it.
    Unknown,
    /// The store refused it, for this reason.
    Refused(Refusal),
    /// It had been added before, by whatever process: nothing was added now.
    Replayed {
        /// The total right after the first addition.
        answer: i64,
    },
}

impl UnflushedToken {
    pub(super) fn of(promise: &Promise, fate: TokenFate) -> Self {
        let Promise { cell, token, count } = promise;
        Self { key: cell.key.clone(), token: token.clone(), count: *count, fate }
    }

    fn is_replayed(&self) -> bool {
        matches!(self.fate, TokenFate::Replayed { .. })
    }
}

/// What a shutdown left in one of several shards.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct UnflushedShard {
    /// The number of the shard. [`Space::shard_of`](crate::backend::Space::shard_of) gives that of a key.
    pub shard: u16,
    /// The number of [`Unflushed::pending`] that are this shard's.
    pub pending: usize,
    /// The number of [`Unflushed::unknown`].
    pub unknown: usize,
    /// The number of [`Unflushed::refused`].
    pub refused: usize,
    /// The number of [`Unflushed::tokens`].
    pub tokens: usize,
    /// The error of the last attempt in this shard.
    pub cause: Option<DistkitError>,
}

/// Losses that are not reported yet.
#[derive(Default)]
pub(super) struct Losses {
    pub(super) refused: Vec<(RedisKey, i64, Refusal)>,
    /// Sums whose outcome can no longer be determined.
    pub(super) abandoned: Vec<(RedisKey, i64)>,
    /// What became of additions under tokens.
    pub(super) tokens: Vec<UnflushedToken>,
    /// Why the last attempt to send failed, until one succeeds. A report leaves it.
    pub(super) last_failure: Option<DistkitError>,
}

impl Losses {
    pub(super) fn report(&mut self) -> Unflushed {
        let refused = std::mem::take(&mut self.refused);
        let abandoned = std::mem::take(&mut self.abandoned);
        let tokens = std::mem::take(&mut self.tokens);
        Unflushed { refused, unknown: abandoned, tokens, ..Unflushed::default() }
    }

    /// Takes those that had been added before.
    pub(super) fn take_replayed(&mut self) -> Vec<UnflushedToken> {
        self.tokens.extract_if(.., |token| token.is_replayed()).collect()
    }
}

impl Unflushed {
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
            && self.unknown.is_empty()
            && self.refused.is_empty()
            && self.tokens.iter().all(UnflushedToken::is_replayed)
    }

    /// The reports of all shards in one, if any has something to report.
    pub(crate) fn of_shards(mut reports: Vec<Result<(), Self>>) -> Option<Self> {
        if reports.len() == 1 {
            return reports.pop()?.err();
        }
        let mut all = Self::default();
        for (shard, report) in (0..).zip(reports) {
            let Err(report) = report else { continue };
            all.shards.push(UnflushedShard {
                shard,
                pending: report.pending.len(),
                unknown: report.unknown.len(),
                refused: report.refused.len(),
                tokens: report.tokens.len(),
                cause: report.cause.clone(),
            });
            all.pending.extend(report.pending);
            all.unknown.extend(report.unknown);
            all.refused.extend(report.refused);
            all.tokens.extend(report.tokens);
            all.cause = all.cause.or(report.cause);
        }
        all.pending.sort_unstable();
        all.unknown.sort_unstable();
        all.refused.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        (!all.shards.is_empty()).then_some(all)
    }
}

impl fmt::Display for Unflushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_one = |number, one, more| if number == 1 { one } else { more };
        write!(
            f,
            "{} {} writes that did not reach the store, {} may have reached it, {} {} refused",
            counted(self.pending.len(), "key"),
            of_one(self.pending.len(), "has", "have"),
            self.unknown.len(),
            self.refused.len(),
            of_one(self.refused.len(), "was", "were"),
        )?;
        let tokens = self.tokens.iter().filter(|token| !token.is_replayed()).count();
        if tokens > 0 {
            write!(f, "; {tokens} additions under tokens did not simply arrive")?;
        }
        if !self.shards.is_empty() {
            let shards: Vec<_> = self.shards.iter().map(|of| of.shard.to_string()).collect();
            let noun = of_one(shards.len(), "shard", "shards");
            write!(f, ", in {noun} {}", shards.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Unflushed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
