//! The answers of a store, put next to what was asked. A store that gives another number of answers than it was
//! asked for is not trusted with any.

use crate::{
    DistkitError, RedisKey,
    backend::{BackendError, Outcome},
};

/// A key of a batch and its outcome.
pub type Keyed<'k, T> = (&'k RedisKey, Result<T, DistkitError>);

/// The answers, one for each item that was asked about.
pub(crate) fn counted<T>(asked: usize, answers: Vec<T>) -> Result<Vec<T>, DistkitError> {
    if answers.len() == asked { Ok(answers) } else { Err(miscounted(asked, answers.len())) }
}

/// A store broke its contract: nobody knows what it did.
pub(crate) fn miscounted(asked: usize, answered: usize) -> DistkitError {
    let text = format!("the store gave {answered} answers to a request for {asked} items");
    BackendError::outcome_unknown(text).into()
}

/// The outcomes, the refused ones with their keys.
pub(crate) fn named<'k, T>(
    keys: impl Iterator<Item = &'k RedisKey>,
    outcomes: Vec<Outcome<T>>,
) -> Vec<Result<T, DistkitError>> {
    let named = |(key, outcome): (&RedisKey, Outcome<T>)| {
        outcome.map_err(|refusal| DistkitError::refused(key, refusal))
    };
    keys.zip(outcomes).map(named).collect()
}

/// The answer to a question about one item.
pub(crate) fn only<T>(outcomes: Vec<Result<T, DistkitError>>) -> Result<T, DistkitError> {
    outcomes.into_iter().next().unwrap_or_else(|| Err(miscounted(1, 0)))
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
