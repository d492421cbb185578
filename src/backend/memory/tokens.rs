//! The tokens that a space remembers.

use std::collections::BTreeMap;

use super::plain::Plain;
use crate::{
    RedisKey, Token,
    backend::{AddedOnce, Outcome, Refusal, Resolved, Space, TokenAdd, tokens::BUCKETS},
};

/// By how much one request moves the age at most, in seconds.
const LONGEST_STEP: u64 = 60;

/// A token is in the bucket of its first use, which is half as long as tokens are kept at least. It is dropped with it,
/// once two others have passed: as on a server, whose buckets these are. All times are in seconds.
#[derive(Debug)]
pub(super) struct Tokens {
    half: u64,
    /// The store's time when the age was last looked at, since the records began.
    seen: Option<u64>,
    age: u64,
    /// Each with its bucket.
    records: BTreeMap<(RedisKey, Token), (u64, Resolved)>,
    /// Records of before the age began were lost.
    lost: bool,
}

impl Tokens {
    pub(super) fn new(half: u64) -> Self {
        Self { half, seen: None, age: 0, records: BTreeMap::new(), lost: false }
    }

    /// Loses all records, and knows so.
    pub(super) fn lose(&mut self) {
        *self = Self { lost: true, ..Self::new(self.half) };
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    fn age_at(&self, now: u64) -> u64 {
        let passed = self.seen.map_or(0, |seen| now.saturating_sub(seen));
        self.age + passed.min(LONGEST_STEP)
    }

    /// Moves the age, and drops what is too old.
    pub(super) fn advance(&mut self, now: u64) {
        let before = self.age / self.half;
        self.age = self.age_at(now);
        self.seen = Some(now);
        let bucket = self.age / self.half;
        if bucket != before {
            self.records.retain(|_, (kept, _)| *kept + BUCKETS > bucket);
        }
        self.lost &= bucket < BUCKETS;
    }

    /// Adds once, after [`advance`](Self::advance).
    pub(super) fn add(
        &mut self,
        plain: &mut Plain,
        space: &Space,
        item: &TokenAdd,
    ) -> Outcome<AddedOnce> {
        match self.known(self.age, &item.key, &item.token)? {
            Resolved::Done { amount, answer } if amount == item.count => {
                return Ok(AddedOnce { total: answer, replayed: true });
            }
            Resolved::Done { amount, .. } => return Err(Refusal::TokenUsed { amount }),
            Resolved::Forbidden => return Err(Refusal::TokenForbidden),
            Resolved::Unseen => {}
        }
        let written = plain.add(space, &item.key, item.count)?;
        let done = Resolved::Done { amount: item.count, answer: written.new };
        self.keep(&item.key, &item.token, done);
        Ok(AddedOnce { total: written.new, replayed: false })
    }

    pub(super) fn resolve(&self, now: u64, key: &RedisKey, token: &Token) -> Outcome<Resolved> {
        self.known(self.age_at(now), key, token)
    }

    /// Leaves a mark where nothing is remembered, after [`advance`](Self::advance).
    pub(super) fn forbid(&mut self, key: &RedisKey, token: &Token) -> Outcome<Resolved> {
        let known = self.known(self.age, key, token)?;
        if known != Resolved::Unseen {
            return Ok(known);
        }
        self.keep(key, token, Resolved::Forbidden);
        Ok(Resolved::Forbidden)
    }

    fn known(&self, age: u64, key: &RedisKey, token: &Token) -> Outcome<Resolved> {
        let bucket = age / self.half;
        match self.records.get(&(key.clone(), token.clone())) {
            Some((kept, record)) if kept + BUCKETS > bucket => Ok(*record),
            _ if self.lost && bucket < BUCKETS => Err(Refusal::TokenForgotten),
            _ => Ok(Resolved::Unseen),
        }
    }

    fn keep(&mut self, key: &RedisKey, token: &Token, record: Resolved) {
        let bucket = self.age / self.half;
        self.records.insert((key.clone(), token.clone()), (bucket, record));
    }
}
