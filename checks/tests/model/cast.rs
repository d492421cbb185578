//! Who acts in a history, on what, and with which numbers.

use std::fmt;

use distkit::{CounterComparator, RedisKey, backend::Space};
use proptest::{prelude::*, sample::select};

/// A process with a link of its own to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Anna,
    Ben,
    Cleo,
    Dora,
}

impl Who {
    pub(crate) const ALL: [Self; 4] = [Self::Anna, Self::Ben, Self::Cleo, Self::Dora];

    /// Cleo and Dora claim the same name.
    pub(crate) fn instance_name(self) -> Option<RedisKey> {
        matches!(self, Self::Cleo | Self::Dora).then(|| RedisKey::try_from("pod").unwrap())
    }

    /// After how many milliseconds of silence the instance may be taken for expired.
    pub(crate) fn threshold(self) -> u64 {
        match self {
            Self::Anna | Self::Ben => 30_000,
            Self::Cleo | Self::Dora => 9_000,
        }
    }

    /// The id of the process after so many deaths.
    pub(crate) fn id(self, deaths: usize) -> String {
        if deaths == 0 { self.to_string() } else { format!("{self}-{}", deaths + 1) }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anna => "anna",
            Self::Ben => "ben",
            Self::Cleo => "cleo",
            Self::Dora => "dora",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Apples,
    Pears,
    Plums,
}

impl Key {
    pub(crate) const ALL: [Self; 3] = [Self::Apples, Self::Pears, Self::Plums];

    pub(crate) fn redis(self) -> RedisKey {
        RedisKey::try_from(self.to_string()).unwrap()
    }

    /// Its shard, of so many.
    pub(crate) fn shard(self, shards: usize) -> usize {
        usize::from(Space::shard_of(&self.redis(), u16::try_from(shards).unwrap()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apples => "apples",
            Self::Pears => "pears",
            Self::Plums => "plums",
        })
    }
}

pub(crate) fn who() -> impl Strategy<Value = Who> {
    select(&Who::ALL[..])
}

pub(crate) fn key() -> impl Strategy<Value = Key> {
    select(&Key::ALL[..])
}

pub(crate) fn keys() -> impl Strategy<Value = Vec<Key>> {
    proptest::collection::vec(key(), 1..4)
}

const P53: i64 = 1 << 53;

/// The ends of the range, and both sides of where doubles stop telling integers apart.
const EDGES: [i64; 12] = [
    i64::MAX,
    i64::MIN,
    i64::MAX - 1,
    i64::MIN + 1,
    i64::MAX / 2 + 1,
    i64::MIN / 2 - 1,
    P53 - 1,
    P53,
    P53 + 1,
    -P53 - 1,
    -P53,
    -P53 + 1,
];

pub(crate) fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![3 => -9_i64..=9, 1 => select(&EDGES[..])]
}

pub(crate) fn condition() -> impl Strategy<Value = CounterComparator> {
    use CounterComparator::{Eq, Ge, Gt, Le, Lt, Ne, Nil};
    prop_oneof![
        6 => Just(Nil),
        1 => amount().prop_map(Eq),
        1 => amount().prop_map(Ne),
        1 => amount().prop_map(Lt),
        1 => amount().prop_map(Gt),
        1 => amount().prop_map(Le),
        1 => amount().prop_map(Ge),
    ]
}

/// Steps of time around the thresholds and a third of them, and around the day of a writer.
pub(crate) fn wait() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => select(&[1_u64, 3_000, 10_000][..]),
        4 => select(&[8_999_u64, 9_000, 9_001, 29_999, 30_000, 30_001][..]),
        1 => select(&[86_399_999_u64, 86_400_001][..]),
    ]
}

/// `condition` as part of a sentence.
pub(crate) fn provided(condition: CounterComparator) -> String {
    match condition {
        CounterComparator::Nil => String::new(),
        CounterComparator::Eq(n) => format!(" if it is {n}"),
        CounterComparator::Ne(n) => format!(" if it is not {n}"),
        CounterComparator::Lt(n) => format!(" if it is below {n}"),
        CounterComparator::Gt(n) => format!(" if it is above {n}"),
        CounterComparator::Le(n) => format!(" if it is at most {n}"),
        CounterComparator::Ge(n) => format!(" if it is at least {n}"),
        other => format!(" if {other:?}"),
    }
}

pub(crate) fn listed<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A time in words.
pub(crate) fn time(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}
