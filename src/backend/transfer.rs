//! What `copy_prefix` reads and writes of the instance-aware counters of a space, as they are stored.
//!
//! No part of the public interface: it follows the layout, and changes with it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{BackendError, Cursor, Epoch, Incarnation, Page, Space};
use crate::RedisKey;

/// Reads the instance-aware counters of a space as they are stored, and writes them to another one, while neither is in
/// use. Each call is a portion of the work and may be repeated.
///
/// What is kept of requests (guards, lanes) stays behind: the incarnations of the copy are new, so whoever comes back
/// joins anew, puts back what was acknowledged, and sends again what was not.
#[async_trait]
pub trait SliceTransfer: fmt::Debug + Send + Sync {
    /// Reads a portion. Changes nothing.
    async fn export(&self, space: &Space, what: Export<'_>) -> Result<Part, BackendError>;

    /// Writes a portion. Gives the incarnations of [`Part::Members`] in this space, in order, and nothing for others.
    /// What is there already stays; where it differs, the portion is refused.
    async fn import(&self, space: &Space, part: &Part) -> Result<Vec<Incarnation>, BackendError>;
}

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub enum Export<'a> {
    /// What all of the space has in common.
    Life,
    /// Who is registered, or expired and not swept yet.
    Members(Option<&'a Cursor>),
    /// How these counters stand: the first of them at least.
    Counters(&'a [RedisKey]),
    /// The epochs of keys without slices: those from before the last turn, or the later ones.
    Epochs {
        /// From before the last turn.
        old: bool,
        /// Where the portion begins.
        from: Option<&'a Cursor>,
    },
    /// Who left or was swept, by id, and the age of the space then.
    Gone(Option<&'a Cursor>),
}

/// A portion.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// `None` where nobody has ever joined.
    Life(Option<Life>),
    /// A page of members.
    Members(Page<Registered>),
    /// The counters that were asked for, or the first of them.
    Counters(Vec<Held>),
    /// A page of epochs.
    Epochs {
        /// Those from before the last turn.
        old: bool,
        /// By key.
        page: Page<(RedisKey, Epoch)>,
    },
    /// A page of ids, and the age of the space in milliseconds when each was gone.
    Gone(Page<(String, u64)>),
}

/// What the instance-aware counters of a space have in common. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// When the data came to be, as an epoch.
    pub born: Epoch,
    /// No key has an epoch below; 0 before the first `clear`.
    pub floor: Epoch,
    /// The epoch of the keys that know none of their own, now and before the last turn.
    pub base: Epoch,
    /// See [`base`](Self::base).
    pub former: Epoch,
    /// No epoch was given above.
    pub latest: Epoch,
    /// No incarnation was given above.
    pub last: Incarnation,
    /// For how long the space was in use.
    pub age: u64,
    /// Its age at the last turn.
    pub turned: u64,
    /// For how long the claims of an absent instance are kept.
    pub max_absence: u64,
    /// Since which age it is known who is gone.
    pub gone_since: u64,
}

impl Life {
    /// That of a space which holds the keys of all of these; `None` where there are none.
    ///
    /// Of one it is the same. Of several, each with epochs of its own, it is that of a space which lost its data and
    /// knows again what each key was: a claim counts unless a later change of its key is known. Which of two epochs
    /// of different spaces is earlier is not known, so no floor is above that of any.
    pub fn of_all(lives: &[Self]) -> Option<Self> {
        let [first, others @ ..] = lives else { return None };
        if others.is_empty() {
            return Some(first.clone());
        }
        let highest = |number: fn(&Self) -> u64| lives.iter().map(number).max().unwrap_or_default();
        let lowest = |number: fn(&Self) -> u64| lives.iter().map(number).min().unwrap_or_default();
        // Even, as that of a beginning.
        let latest =
            highest(|life| life.latest.0.max(life.born.0).max(life.base.0).max(life.floor.0));
        let born = Epoch(latest.next_multiple_of(2));
        let age = highest(|life| life.age);
        Some(Self {
            born,
            floor: Epoch(lowest(|life| life.floor.0)),
            base: born,
            former: born,
            latest: born,
            last: Incarnation(highest(|life| life.last.0)),
            age,
            turned: age - lowest(|life| life.age.saturating_sub(life.turned)),
            max_absence: highest(|life| life.max_absence),
            gone_since: age - lowest(|life| life.age.saturating_sub(life.gone_since)),
        })
    }
}

/// An instance as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// In this space.
    pub incarnation: Incarnation,
    /// Its id.
    pub id: Arc<str>,
    /// Its name, where it has one.
    pub name: Option<RedisKey>,
    /// The incarnation of its first join.
    pub first: Incarnation,
    /// How long its lease is, in milliseconds.
    pub lease: u64,
    /// What is left of that; 0 of one that has expired.
    pub left: u64,
    /// Its claims were refused, and it has done nothing since.
    pub late: bool,
}

/// A counter as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub key: RedisKey,
    /// Its epoch: its own, or that of all keys that know none.
    pub epoch: Epoch,
    /// The slices of all, those of expired instances among them.
    pub slices: Vec<HeldSlice>,
}

/// A slice as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldSlice {
    /// Whose it is.
    pub owner: Incarnation,
    /// All of it.
    pub value: i64,
    /// What of it was put back from before the space lost its data, and the epoch of that.
    pub put_back: Option<(Epoch, i64)>,
}

/// The error of a portion that does not fit what is there.
pub(crate) fn differs() -> BackendError {
    BackendError::not_applied("the target holds other instance-aware counters, or is in use")
}

/// The error of a part that was not asked for.
#[cfg(feature = "counter")]
pub(crate) fn unasked() -> BackendError {
    BackendError::not_applied("the store gave another part than it was asked for")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(born: u64, floor: u64, latest: u64, age: u64) -> Life {
        Life {
            born: Epoch(born),
            floor: Epoch(floor),
            base: Epoch(born),
            former: Epoch(born),
            latest: Epoch(latest),
            last: Incarnation(latest),
            age,
            turned: 0,
            max_absence: 100,
            gone_since: 10,
        }
    }

    #[test]
    fn the_life_of_one_space_stays_as_it_is() {
        let one = life(10, 0, 15, 50);
        assert_eq!(Life::of_all(std::slice::from_ref(&one)), Some(one));
        assert_eq!(Life::of_all(&[]), None);
    }

    #[test]
    fn of_several_spaces_no_epoch_is_above_the_beginning_and_none_below_the_floor() {
        let merged = Life::of_all(&[life(10, 0, 15, 50), life(20, 27, 27, 90)]).unwrap();
        assert_eq!((merged.born, merged.base, merged.former), (Epoch(28), Epoch(28), Epoch(28)));
        assert_eq!((merged.floor, merged.last), (Epoch(0), Incarnation(27)));
        assert_eq!((merged.age, merged.turned, merged.gone_since), (90, 40, 50));
    }
}
