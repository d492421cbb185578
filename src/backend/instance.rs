//! The values that go in and out of the instance-aware half of [`Backend`](super::Backend).

use std::{fmt, sync::Arc, time::Duration};

use super::{CounterComparator, Outcome};
use crate::RedisKey;

/// Names one membership of an instance, from a [`join`](super::InstanceBackend::join) until it is collected,
/// leaves, or the store loses its data. Unique within a space for ever; a later join has a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// A process's identity towards the instance-aware counters of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Unique for ever.
    pub id: Arc<str>,
    /// A name that only one living instance of the space holds, such as a host's or a pod's.
    pub name: Option<RedisKey>,
    /// The length of the lease: for so long after its last operation the instance counts as live. Whole milliseconds,
    /// at least 1.
    pub lease: Duration,
    /// The incarnation of its first join; `None` before that. It decides which of two instances that
    /// claim one name is the newer.
    pub first_joined: Option<Incarnation>,
    /// After how long an absence its claims are refused. The value of the space's latest join decides how long
    /// the epochs of deleted keys are kept.
    pub max_absence: Duration,
}

impl Instance {
    /// Default of [`max_absence`](Self::max_absence): 7 days.
    pub const MAX_ABSENCE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// Creates an instance without a name that has never joined.
    pub fn new(id: Arc<str>, lease: Duration) -> Self {
        Self { id, name: None, lease, first_joined: None, max_absence: Self::MAX_ABSENCE }
    }
}

/// An instance that has joined: what the operations of instance-aware counters are done as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which membership.
    pub incarnation: Incarnation,
    /// The lease that each operation renews. Whole milliseconds.
    pub lease: Duration,
}

/// Numbers a key's history: `set`, `del` and `clear` give a greater one. Slices count only under the
/// key's current epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// What an instance knows of its part of a key: the claim it brings when it joins again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The counter.
    pub key: RedisKey,
    /// The epoch under which the slice was acknowledged.
    pub epoch: Epoch,
    /// The last acknowledged value.
    pub value: i64,
}

/// How a key stands, as one instance sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The sum of the slices of all living instances.
    pub total: i64,
    /// The asking instance's part of it.
    pub slice: i64,
    /// The key's current epoch.
    pub epoch: Epoch,
}

/// The answer to a [`join`](super::InstanceBackend::join).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The new membership.
    pub incarnation: Incarnation,
    /// Which life of the space's instance-aware counters this is: greater after the store lost them, or what it needs
    /// to tell old claims from new ones. `None` where the store does not tell.
    pub born: Option<u64>,
    /// For each claimed slice, in order, how its key stands now. A slice that was put back shows its
    /// value; one that was dropped as stale shows 0.
    pub standings: Vec<Outcome<Standing>>,
}

/// What a [`SliceWrite`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SliceChange {
    /// Adds to the caller's slice, and so to the total.
    Add(i64),
    /// Gives the key a new epoch with this total, all of it the caller's slice.
    SetTotal(i64),
    /// Replaces the caller's slice; the total changes by the difference, the epoch does not.
    SetSlice(i64),
    /// Removes the key with all its slices, under a new epoch.
    Remove,
    /// Removes the caller's slice; the epoch stays. Refused as [`Refusal::Overflow`](super::Refusal::Overflow) if
    /// the sum of the others does not fit.
    RemoveSlice,
    /// Adds as much of `count` to the caller's slice as the *total* has room for: see
    /// [`Change::AddWithin`](super::Change::AddWithin).
    AddWithin {
        /// How much to add at the furthest; may be negative.
        count: i64,
        /// What no subtraction takes the total below.
        least: i64,
        /// What no addition takes the total above.
        most: i64,
    },
}

impl SliceChange {
    /// Returns whether it concerns the whole key, and gives it a new epoch.
    pub fn is_total(self) -> bool {
        matches!(self, Self::SetTotal(_) | Self::Remove)
    }

    /// Returns whether it replaces the caller's slice, so that a condition is one on that slice.
    pub fn is_on_slice(self) -> bool {
        matches!(self, Self::SetSlice(_) | Self::RemoveSlice)
    }
}

/// One write of a batch on instance-aware counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SliceWrite {
    /// The counter.
    pub key: RedisKey,
    /// The change.
    pub change: SliceChange,
    /// When it happens: a condition on the total, or on the caller's own slice for
    /// [`SliceChange::SetSlice`] and [`SliceChange::RemoveSlice`].
    pub condition: CounterComparator,
}

impl SliceWrite {
    /// Creates an unconditional write.
    pub fn new(key: RedisKey, change: SliceChange) -> Self {
        Self { key, change, condition: CounterComparator::Nil }
    }

    /// Puts the write under a condition.
    pub fn only_if(self, condition: CounterComparator) -> Self {
        Self { condition, ..self }
    }
}

/// Whose part of all keys a [`clear_on`](super::InstanceBackend::clear_on) removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of it, under a new epoch.
    Total,
    /// The caller's slices only; the epochs stay.
    Slice,
}

/// The answer to an operation on instance-aware counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered<T> {
    /// Grows with each operation of one incarnation in the order in which the store ran them. Answers
    /// that overtook each other on the way back are put in order by it.
    pub version: u64,
    /// The answer itself.
    pub answer: T,
}

/// One living instance's part of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceSlice {
    /// The instance's unique id.
    pub instance_id: String,
    /// Its name, where it was given one.
    pub name: Option<RedisKey>,
    /// Its slice.
    pub value: i64,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
