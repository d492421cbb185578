use std::{ops::RangeInclusive, sync::Arc};

use crate::{RedisKey, Token};

/// A condition on the value that a key holds just before a write. A missing key holds 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CounterComparator {
    /// The value equals the operand.
    Eq(i64),
    /// The value is less than the operand.
    Lt(i64),
    /// The value is greater than the operand.
    Gt(i64),
    /// The value is less than the operand, or equal.
    Le(i64),
    /// The value is greater than the operand, or equal.
    Ge(i64),
    /// The value does not equal the operand.
    Ne(i64),
    /// No condition: the write always goes ahead.
    #[default]
    Nil,
}

impl CounterComparator {
    /// Returns whether the condition holds for `current`.
    pub fn matches(self, current: i64) -> bool {
        match self {
            Self::Eq(operand) => current == operand,
            Self::Lt(operand) => current < operand,
            Self::Gt(operand) => current > operand,
            Self::Le(operand) => current <= operand,
            Self::Ge(operand) => current >= operand,
            Self::Ne(operand) => current != operand,
            Self::Nil => true,
        }
    }
}

/// What a [`Write`] does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// Adds to the value.
    Add(i64),
    /// Replaces the value.
    Set(i64),
    /// Deletes the key, which reads 0 afterwards. A value that is not a decimal `i64` is deleted where there is
    /// no condition on it, and the write refused, for there is no number to answer with.
    Remove,
    /// Adds as much of `count` as fits: a positive count raises the value up to `most` at the furthest, a negative
    /// one lowers it down to `least`. A value that is there already, or beyond it, stays; so does every value when
    /// `least` is above `most`. Where nothing is added nothing is written: a missing key stays missing.
    AddWithin {
        /// How much to add at the furthest; may be negative.
        count: i64,
        /// What no subtraction goes below.
        least: i64,
        /// What no addition goes above.
        most: i64,
    },
}

impl Change {
    /// Returns the value that it makes of `old`; 0 when it removes the key. For stores and models of them.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overflow`] when that does not fit into an `i64`.
    ///
    /// ```
    /// use distkit::backend::Change;
    ///
    /// let take = Change::AddWithin { count: -5, least: 0, most: i64::MAX };
    /// assert_eq!(take.applied_to(7), Ok(2));
    /// assert_eq!(take.applied_to(3), Ok(0));
    /// ```
    pub fn applied_to(self, old: i64) -> Outcome<i64> {
        match self {
            Self::Add(count) => old.checked_add(count).ok_or(Refusal::Overflow),
            Self::Set(count) => Ok(count),
            Self::Remove => Ok(0),
            Self::AddWithin { count, least, most } => Ok(old + fitting(count, least, most, old)),
        }
    }
}

/// How much of `count` an [`AddWithin`](Change::AddWithin) adds to `total`.
pub(crate) fn fitting(count: i64, least: i64, most: i64, total: i64) -> i64 {
    let room = |bound: i64| i128::from(bound) - i128::from(total);
    let fits = match count {
        _ if least > most => 0,
        0.. => room(most).clamp(0, count.into()),
        _ => room(least).clamp(count.into(), 0),
    };
    // Between 0 and `count`.
    i64::try_from(fits).unwrap_or(0)
}

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Write {
    /// The counter.
    pub key: RedisKey,
    /// The change.
    pub change: Change,
    /// When it happens.
    pub condition: CounterComparator,
}

impl Write {
    /// Creates an unconditional addition.
    pub fn add(key: RedisKey, count: i64) -> Self {
        Self { key, change: Change::Add(count), condition: CounterComparator::Nil }
    }

    /// Creates an unconditional assignment.
    pub fn set(key: RedisKey, count: i64) -> Self {
        Self { key, change: Change::Set(count), condition: CounterComparator::Nil }
    }

    /// Creates an unconditional removal.
    pub fn remove(key: RedisKey) -> Self {
        Self { key, change: Change::Remove, condition: CounterComparator::Nil }
    }

    /// Creates an unconditional addition of as much of `count` as fits into `bounds`: see [`Change::AddWithin`].
    pub fn add_within(key: RedisKey, count: i64, bounds: RangeInclusive<i64>) -> Self {
        let (least, most) = bounds.into_inner();
        let change = Change::AddWithin { count, least, most };
        Self { key, change, condition: CounterComparator::Nil }
    }

    /// Returns the count of an unconditional addition; `None` for any other write.
    pub fn unconditional_addition(&self) -> Option<i64> {
        match (self.change, self.condition) {
            (Change::Add(count), CounterComparator::Nil) => Some(count),
            _ => None,
        }
    }

    /// Puts the write under a condition.
    pub fn only_if(self, condition: CounterComparator) -> Self {
        Self { condition, ..self }
    }
}

/// Makes a batch safe to send again.
///
/// The store remembers the highest sequence that it applied for each writer, for at least a day
/// after the writer's last batch. A writer numbers its batches upwards from 1 and has one of them in flight at a
/// time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplayGuard {
    /// The id of the writer. Unique for ever: take it from [`Backend::fresh_id`](super::Backend::fresh_id).
    pub writer: Arc<str>,
    /// The batch's number, 1 to 2^53.
    pub sequence: u64,
    /// Whether an earlier attempt of this batch may have reached the store. Such a batch is turned away as
    /// [`BackendError::Forgotten`](super::BackendError::Forgotten) where the store has lost its records.
    pub resent: bool,
}

/// Why one item of a batch was turned down. It changed nothing; the other items are not affected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The result does not fit into an `i64`.
    #[error("the result would not fit into an i64")]
    Overflow,
    /// The store holds something under this key that is not a decimal `i64`.
    #[error("the store holds {found:?}, which is not an i64")]
    NotANumber {
        /// What was found there, shortened when long.
        found: String,
    },
    /// The write came after its window was closed, so it is lost: a lax counter's, which the store did not take in time.
    #[error("its window is closed")]
    WindowClosed,
    /// The store lost the window to which the write of a lax counter belongs.
    #[error("the store lost the counters of its window")]
    WindowLost,
    /// Another amount was added under this token.
    #[error("the token was used to add {amount}")]
    TokenUsed {
        /// What was added.
        amount: i64,
    },
    /// The token was forbidden: see [`Tokens::forbid`](super::Tokens::forbid).
    #[error("the token was forbidden")]
    TokenForbidden,
    /// The store lost the record of this token, or what it may have had of it. Nothing changed now; an earlier attempt
    /// may have been applied.
    #[error("the store lost the records of tokens, which may have had this one")]
    TokenForgotten,
}

/// What one item of a batch gave.
pub type Outcome<T> = Result<T, Refusal>;

/// What a write found and what it left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written<V = i64> {
    /// Before the write.
    pub old: V,
    /// After it. The same as `old` when the condition did not hold.
    pub new: V,
    /// Whether the condition held, and so the write happened.
    pub condition_met: bool,
}

/// What a store had on record of a guard before a batch. Counters find by it that the store lost data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardRecord {
    /// Which life of the space's records this is: greater after the store lost them. 0 where it is unknown.
    pub generation: u64,
    /// Which life of the space's totals this is: another one after the store lost them, and the same after they were
    /// all removed. 0 where it is unknown.
    pub totals: u64,
    /// The latest sequence on record of the writer or lane; 0 for one without a record.
    pub sequence: u64,
}

/// The answer to a batch of writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied<V = i64> {
    /// The batch had been applied before, under the same guard: this time nothing changed, and each
    /// outcome holds the value as it stands, as both `old` and `new`, or the refusal of the first time.
    pub replayed: bool,
    /// Of a guarded batch on plain counters, what was on record of its guard. A store tells it where the record is not
    /// that of the batch before, where there were no totals, and with a replay. `None` where it has nothing to tell, or
    /// does not keep it.
    pub record: Option<GuardRecord>,
    /// One outcome for each write, in the order of the writes.
    pub outcomes: Vec<Outcome<Written<V>>>,
}

/// An addition under a token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenAdd {
    /// The counter.
    pub key: RedisKey,
    /// The amount, which may be negative, or 0.
    pub count: i64,
    /// The name of the addition.
    pub token: Token,
}

/// The answer to an addition under a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedOnce {
    /// The total right after the addition, when it was applied.
    pub total: i64,
    /// It was applied before: nothing has changed now.
    pub replayed: bool,
}
