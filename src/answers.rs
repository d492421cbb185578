//! The answers to a batch, next to what was asked.

#[cfg(feature = "instance-aware-counter")]
use crate::backend::SliceWrite;
use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Outcome, Write},
};
#[cfg(feature = "counter")]
use crate::{Token, backend::TokenAdd};

/// An item of a batch.
pub(crate) trait Item {
    fn key(&self) -> &RedisKey;
}

impl Item for RedisKey {
    fn key(&self) -> &RedisKey {
        self
    }
}

impl Item for Write {
    fn key(&self) -> &RedisKey {
        &self.key
    }
}

#[cfg(feature = "counter")]
impl Item for TokenAdd {
    fn key(&self) -> &RedisKey {
        &self.key
    }
}

#[cfg(feature = "counter")]
impl Item for (RedisKey, Token) {
    fn key(&self) -> &RedisKey {
        &self.0
    }
}

#[cfg(feature = "instance-aware-counter")]
impl Item for SliceWrite {
    fn key(&self) -> &RedisKey {
        &self.key
    }
}

/// A key of a batch and its outcome.
pub type Keyed<'k, T> = (&'k RedisKey, Result<T, DistkitError>);

/// The outcomes, one for each item, the refused ones with their keys.
pub(crate) fn named<T>(
    items: &[impl Item],
    outcomes: Vec<Outcome<T>>,
) -> Vec<Result<T, DistkitError>> {
    let named = items.iter().zip(outcomes);
    named
        .map(|(item, outcome)| {
            outcome.map_err(|refusal| DistkitError::refused(item.key(), refusal))
        })
        .collect()
}

/// The answer to a question about one item.
pub(crate) fn only<T>(outcomes: Vec<Result<T, DistkitError>>) -> Result<T, DistkitError> {
    let none = || Err(BackendError::outcome_unknown("the store gave no answer").into());
    outcomes.into_iter().next().unwrap_or_else(none)
}

/// Puts each key next to its outcome.
#[cfg(feature = "counter")]
pub(crate) fn keyed<'k, T, U>(
    keys: impl Iterator<Item = &'k RedisKey>,
    outcomes: Vec<Result<T, DistkitError>>,
    answer: impl Fn(T) -> U,
) -> Vec<Keyed<'k, U>> {
    keys.zip(outcomes).map(|(key, outcome)| (key, outcome.map(&answer))).collect()
}
