//! What may happen, and random histories of it.

use distkit::{
    CounterComparator::{self, Eq, Ge, Gt, Le, Lt, Ne, Nil},
    RedisKey,
    backend::{Change, Scope, SliceChange, SliceWrite, Write},
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    player::ACTORS,
    world::{Event, Fault, LINKS},
};

/// The number of a guarded batch, seen from its writer's latest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Next,
    Same,
    Former,
}

/// What an instance claims when it joins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Claims {
    Nothing,
    /// What it knows of its slices.
    Known,
    /// What it knew of them under former epochs.
    Former,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Apply { link: usize, writes: Vec<Write>, guard: Option<Number> },
    Read { link: usize, keys: Vec<RedisKey> },
    Remove { link: usize, keys: Vec<RedisKey> },
    Clear { link: usize },
    Join { actor: usize, claims: Claims },
    ApplyOn { actor: usize, writes: Vec<SliceWrite>, guard: Option<Number> },
    ReadOn { actor: usize, keys: Vec<RedisKey> },
    RemoveOn { actor: usize, keys: Vec<RedisKey>, scope: Scope },
    ClearOn { actor: usize, scope: Scope },
    Heartbeat { actor: usize },
    Leave { actor: usize },
    SlicesOn { actor: usize, key: RedisKey },
    World(Event),
}

pub(crate) fn histories() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..60)
}

fn step() -> impl Strategy<Value = Step> {
    let link = || 0..LINKS;
    let actor = || 0..ACTORS;
    let keys = || vec(key(), 0..4);
    // Nothing is asked of a server about no plain counters, so no fault could strike.
    let some_keys = || vec(key(), 1..4);
    prop_oneof![
        8 => (link(), vec(write(), 1..4), guard())
            .prop_map(|(link, writes, guard)| Step::Apply { link, writes, guard }),
        2 => (link(), some_keys()).prop_map(|(link, keys)| Step::Read { link, keys }),
        2 => (link(), some_keys()).prop_map(|(link, keys)| Step::Remove { link, keys }),
        1 => link().prop_map(|link| Step::Clear { link }),
        6 => (actor(), claims()).prop_map(|(actor, claims)| Step::Join { actor, claims }),
        20 => (actor(), vec(slice_write(), 0..4), guard())
            .prop_map(|(actor, writes, guard)| Step::ApplyOn { actor, writes, guard }),
        6 => (actor(), keys()).prop_map(|(actor, keys)| Step::ReadOn { actor, keys }),
        6 => (actor(), keys(), scope())
            .prop_map(|(actor, keys, scope)| Step::RemoveOn { actor, keys, scope }),
        2 => (actor(), scope()).prop_map(|(actor, scope)| Step::ClearOn { actor, scope }),
        3 => actor().prop_map(|actor| Step::Heartbeat { actor }),
        2 => actor().prop_map(|actor| Step::Leave { actor }),
        3 => (actor(), key()).prop_map(|(actor, key)| Step::SlicesOn { actor, key }),
        20 => event(&KEYS, &TIMES).prop_map(Step::World),
    ]
}

/// What happens to the world. Foreign text is put under one of the keys `planted`, and the time moves on by
/// one of `times`.
pub(crate) fn event(
    planted: &'static [&'static str],
    times: &'static [u64],
) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..LINKS, fault()).prop_map(|(link, fault)| Event::Strike { link, fault }),
        1 => (select(planted).prop_map(named), select(&["abc", "-0", "9223372036854775808", "", "7"][..]))
            .prop_map(|(key, text)| Event::Plant { key, text: text.to_owned() }),
        11 => select(times).prop_map(Event::Advance),
        1 => Just(Event::Restart),
        1 => Just(Event::LoseData),
        1 => Just(Event::LoseMembers),
        1 => Just(Event::LoseGuards),
    ]
}

pub(crate) const KEYS: [&str; 3] = ["a", "b", "c"];

/// Around the leases of the actors, 1000 and 3000, and the day of a writer.
/// Those of a minute make the space older by as much as any.
const TIMES: [u64; 17] = [
    1, 2, 499, 500, 999, 1000, 1001, 2000, 2999, 3000, 3001, 60_000, 60_000, 60_000, 86_399_999,
    86_400_000, 86_400_001,
];

/// Ends of the range, both sides of where doubles stop telling integers apart, and small ones.
const AMOUNTS: [i64; 16] = [
    0,
    1,
    1,
    1,
    -1,
    2,
    -2,
    5,
    -7,
    1 << 53,
    (1 << 53) + 1,
    -(1 << 53) - 1,
    i64::MAX - 1,
    i64::MAX,
    i64::MIN + 1,
    i64::MIN,
];

pub(crate) fn key() -> impl Strategy<Value = RedisKey> {
    select(&KEYS[..]).prop_map(named)
}

pub(crate) fn named(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

pub(crate) fn amount() -> impl Strategy<Value = i64> {
    select(&AMOUNTS[..])
}

pub(crate) fn condition() -> impl Strategy<Value = CounterComparator> {
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

/// A count and its bounds.
fn bounded() -> impl Strategy<Value = (i64, i64, i64)> {
    (amount(), amount(), amount())
}

pub(crate) fn write() -> impl Strategy<Value = Write> {
    let change = prop_oneof![
        6 => amount().prop_map(Change::Add),
        2 => amount().prop_map(Change::Set),
        1 => bounded().prop_map(|(count, least, most)| Change::AddWithin { count, least, most }),
    ];
    (key(), change, condition()).prop_map(|(key, change, condition)| Write {
        key,
        change,
        condition,
    })
}

pub(crate) fn slice_write() -> impl Strategy<Value = SliceWrite> {
    let change = prop_oneof![
        5 => amount().prop_map(SliceChange::Add),
        1 => amount().prop_map(SliceChange::SetTotal),
        2 => amount().prop_map(SliceChange::SetSlice),
        1 => bounded().prop_map(|(count, least, most)| SliceChange::AddWithin { count, least, most }),
    ];
    (key(), change, condition()).prop_map(|(key, change, condition)| SliceWrite {
        key,
        change,
        condition,
    })
}

fn guard() -> impl Strategy<Value = Option<Number>> {
    let number =
        select(&[Number::Next, Number::Next, Number::Next, Number::Same, Number::Former][..]);
    proptest::option::of(number)
}

fn claims() -> impl Strategy<Value = Claims> {
    select(&[Claims::Nothing, Claims::Known, Claims::Known, Claims::Former][..])
}

fn scope() -> impl Strategy<Value = Scope> {
    select(&[Scope::Total, Scope::Slice, Scope::Slice][..])
}

fn fault() -> impl Strategy<Value = Fault> {
    // Ways are mended more often than cut, so that something is left to be seen.
    use Fault::{Cut, LoseReply, LoseRequest, Restore};
    select(&[Cut, Restore, Restore, LoseRequest, LoseReply, LoseReply][..])
}
