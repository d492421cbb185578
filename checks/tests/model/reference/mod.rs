//! What counters mean, without a thought for speed.

mod instances;
mod plain;

use std::fmt;

use distkit::backend::Scope;

use crate::cast::{Key, listed, provided};
use distkit::{
    CounterComparator,
    backend::{Change, SliceChange},
};

pub(crate) use instances::{Claim, Instances, Newcomer, Turned};
pub(crate) use plain::Plain;

/// One write of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Item<C> {
    pub(crate) key: Key,
    pub(crate) change: C,
    pub(crate) condition: CounterComparator,
}

/// How a key stands: the total, the asker's slice of it, and the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) total: i64,
    pub(crate) slice: i64,
    pub(crate) epoch: u64,
}

/// The result did not fit into an `i64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

/// Before a write, after it, and whether its condition held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrote<V> {
    pub(crate) old: V,
    pub(crate) new: V,
    pub(crate) met: bool,
}

pub(crate) type Outcomes<V> = Vec<Result<Wrote<V>, Overflow>>;

/// What a call asks of the store, without who asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    PlainWrite(Vec<Item<Change>>),
    PlainRead(Vec<Key>),
    PlainRemove(Vec<Key>),
    PlainClear,
    Join,
    Write(Vec<Item<SliceChange>>),
    Read(Vec<Key>),
    Remove(Vec<Key>, Scope),
    Clear(Scope),
    Heartbeat,
    /// A heartbeat of the asker's membership before the current one, late on its way.
    LateHeartbeat,
    Leave,
    Slices(Key),
}

impl Ask {
    /// Whether a guarded counter sends it again until it is answered.
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(
            self,
            Self::PlainWrite(_)
                | Self::PlainRemove(_)
                | Self::PlainClear
                | Self::Write(_)
                | Self::Remove(..)
                | Self::Clear(_)
        )
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Self::PlainRead(_) | Self::Read(_) | Self::Slices(_))
    }

    pub(crate) fn needs_membership(&self) -> bool {
        !matches!(
            self,
            Self::PlainWrite(_)
                | Self::PlainRead(_)
                | Self::PlainRemove(_)
                | Self::PlainClear
                | Self::Join
                | Self::LateHeartbeat
                | Self::Slices(_)
        )
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    NotJoined,
    Replaced,
    /// The store does not know any more whether it has applied the batch.
    Forgotten,
    /// The connection failed before anything happened.
    NotApplied,
    /// The connection failed, and nobody knows what happened.
    Unknown,
    /// The counter has been left.
    Left,
    Joined(Vec<Stand>),
    Wrote {
        replayed: bool,
        outcomes: Outcomes<Stand>,
    },
    Stands(Vec<Stand>),
    Slices(Vec<(String, i64)>),
    PlainWrote {
        replayed: bool,
        outcomes: Outcomes<i64>,
    },
    Values(Vec<i64>),
}

impl fmt::Display for Item<Change> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.change {
            Change::Add(n) => write!(f, "inc plain {} {n}", self.key)?,
            Change::Set(n) => write!(f, "set plain {} {n}", self.key)?,
            Change::AddWithin { count, least, most } => {
                write!(f, "inc plain {} {count} within {least} to {most}", self.key)?;
            }
            other => panic!("{other:?} is new"),
        }
        f.write_str(&provided(self.condition))
    }
}

impl fmt::Display for Item<SliceChange> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.change {
            SliceChange::Add(n) => write!(f, "inc {} {n}", self.key)?,
            SliceChange::SetTotal(n) => write!(f, "set {} {n}", self.key)?,
            SliceChange::SetSlice(n) => write!(f, "set_on_instance {} {n}", self.key)?,
            SliceChange::AddWithin { count, least, most } => {
                write!(f, "inc {} {count} within {least} to {most}", self.key)?;
            }
            other => panic!("{other:?} is new"),
        }
        f.write_str(&provided(self.condition))
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainWrite(items) => f.write_str(&listed(items)),
            Self::PlainRead(keys) => write!(f, "get plain {}", listed(keys)),
            Self::PlainRemove(keys) => write!(f, "del plain {}", listed(keys)),
            Self::PlainClear => f.write_str("clear plain"),
            Self::Join => f.write_str("join"),
            Self::Write(items) => f.write_str(&listed(items)),
            Self::Read(keys) => write!(f, "get {}", listed(keys)),
            Self::Remove(keys, Scope::Total) => write!(f, "del {}", listed(keys)),
            Self::Remove(keys, Scope::Slice) => write!(f, "del_on_instance {}", listed(keys)),
            Self::Clear(Scope::Total) => f.write_str("clear"),
            Self::Clear(Scope::Slice) => f.write_str("clear_on_instance"),
            Self::Heartbeat => f.write_str("heartbeat"),
            Self::LateHeartbeat => f.write_str("a late heartbeat of the former membership"),
            Self::Leave => f.write_str("leave"),
            Self::Slices(key) => write!(f, "slices {key}"),
        }
    }
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", self.total, self.slice)?;
        // Counters do not show it.
        if self.epoch == 0 { Ok(()) } else { write!(f, " in epoch {}", self.epoch) }
    }
}

fn outcomes<V: fmt::Display>(replayed: bool, outcomes: &Outcomes<V>) -> String {
    let line = |outcome: &Result<Wrote<V>, Overflow>| match outcome {
        Ok(Wrote { new, met: true, .. }) => new.to_string(),
        Ok(Wrote { old, .. }) => format!("stays {old}"),
        Err(Overflow) => "overflow".to_owned(),
    };
    let lines: Vec<_> = outcomes.iter().map(line).collect();
    format!("{}{}", if replayed { "had been done: " } else { "" }, lines.join(", "))
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::NotJoined => f.write_str("not joined"),
            Self::Replaced => f.write_str("replaced"),
            Self::Forgotten => f.write_str("forgotten"),
            Self::NotApplied => f.write_str("not applied"),
            Self::Unknown => f.write_str("outcome unknown"),
            Self::Left => f.write_str("has left"),
            Self::Joined(stands) => write!(f, "joined [{}]", listed(stands)),
            Self::Wrote { replayed, outcomes: o } => f.write_str(&outcomes(*replayed, o)),
            Self::Stands(stands) => f.write_str(&listed(stands)),
            Self::Slices(slices) => {
                let lines: Vec<_> = slices.iter().map(|(id, n)| format!("{id} {n}")).collect();
                write!(f, "[{}]", lines.join(", "))
            }
            Self::PlainWrote { replayed, outcomes: o } => f.write_str(&outcomes(*replayed, o)),
            Self::Values(values) => f.write_str(&listed(values)),
        }
    }
}
