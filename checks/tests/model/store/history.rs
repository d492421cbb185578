use std::fmt;

use distkit::backend::{Change, Scope, SliceChange};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    cast::{Who, amount, condition, key, keys, time, wait, who},
    reference::{Ask, Item},
    world::Fault,
};

/// Whether a batch is numbered, so that it can be sent again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Guard {
    None,
    Next,
    /// The latest numbered batch once more. Skipped when there was none.
    Again,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Call(Who, Ask, Guard),
    Wait(u64),
    Fault(Who, Fault),
    /// The process dies without a word, and its successor has another id.
    Dies(Who),
    Restart {
        keep_data: bool,
    },
    /// The store loses who is joined.
    LosesMembers,
    /// The store loses what it remembers of writers.
    LosesGuards,
}

#[derive(Clone)]
pub(crate) struct History(pub(crate) Vec<Step>);

pub(crate) fn histories() -> BoxedStrategy<History> {
    vec(step(), 1..60).prop_map(History).boxed()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (who(), plain(), guard()).prop_map(|(who, ask, guard)| Step::Call(who, ask, guard)),
        40 => (who(), shared(), guard()).prop_map(|(who, ask, guard)| Step::Call(who, ask, guard)),
        12 => wait().prop_map(Step::Wait),
        5 => (who(), fault()).prop_map(|(who, fault)| Step::Fault(who, fault)),
        1 => who().prop_map(Step::Dies),
        1 => any::<bool>().prop_map(|keep_data| Step::Restart { keep_data }),
        1 => Just(Step::LosesMembers),
        1 => Just(Step::LosesGuards),
    ]
}

fn guard() -> impl Strategy<Value = Guard> {
    select(&[Guard::None, Guard::None, Guard::Next, Guard::Next, Guard::Again][..])
}

/// A link is mended more often than cut, so that something goes on.
pub(crate) fn fault() -> impl Strategy<Value = Fault> {
    use Fault::{Cut, Denied, LosesReply, LosesRequest, Restored};
    select(
        &[Cut, Cut, Denied, Restored, Restored, Restored, LosesRequest, LosesReply, LosesReply][..],
    )
}

/// A count and its bounds.
fn bounded() -> impl Strategy<Value = (i64, i64, i64)> {
    (amount(), amount(), amount())
}

fn plain() -> impl Strategy<Value = Ask> {
    let change = prop_oneof![
        6 => amount().prop_map(Change::Add),
        2 => amount().prop_map(Change::Set),
        1 => bounded().prop_map(|(count, least, most)| Change::AddWithin { count, least, most }),
    ];
    let item = (key(), change, condition()).prop_map(|(key, change, condition)| Item {
        key,
        change,
        condition,
    });
    prop_oneof![
        6 => vec(item, 1..4).prop_map(Ask::PlainWrite),
        2 => keys().prop_map(Ask::PlainRead),
        1 => keys().prop_map(Ask::PlainRemove),
        1 => Just(Ask::PlainClear),
    ]
}

fn slice_item() -> impl Strategy<Value = Item<SliceChange>> {
    let change = prop_oneof![
        5 => amount().prop_map(SliceChange::Add),
        1 => amount().prop_map(SliceChange::SetTotal),
        2 => amount().prop_map(SliceChange::SetSlice),
        1 => bounded().prop_map(|(count, least, most)| SliceChange::AddWithin { count, least, most }),
    ];
    (key(), change, condition()).prop_map(|(key, change, condition)| Item {
        key,
        change,
        condition,
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    select(&[Scope::Total, Scope::Slice][..])
}

fn shared() -> impl Strategy<Value = Ask> {
    prop_oneof![
        3 => Just(Ask::Join),
        16 => vec(slice_item(), 1..4).prop_map(Ask::Write),
        6 => keys().prop_map(Ask::Read),
        4 => (keys(), scope()).prop_map(|(keys, scope)| Ask::Remove(keys, scope)),
        2 => scope().prop_map(Ask::Clear),
        3 => Just(Ask::Heartbeat),
        1 => Just(Ask::LateHeartbeat),
        2 => Just(Ask::Leave),
        5 => key().prop_map(Ask::Slices),
    ]
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(who, ask, Guard::None) => write!(f, "{who}: {ask}"),
            Self::Call(who, ask, Guard::Next) => write!(f, "{who}: {ask} (numbered)"),
            Self::Call(who, _, Guard::Again) => write!(f, "{who}: the numbered batch again"),
            Self::Wait(ms) => write!(f, "the clock moves {}", time(*ms)),
            Self::Fault(who, Fault::Cut) => write!(f, "{who}'s link is cut"),
            Self::Fault(who, Fault::Denied) => write!(f, "the store denies {who} all"),
            Self::LosesMembers => f.write_str("the store takes everybody for gone"),
            Self::LosesGuards => f.write_str("the store forgets all writers"),
            Self::Fault(who, Fault::Restored) => write!(f, "{who}'s link is whole"),
            Self::Fault(who, Fault::LosesRequest) => {
                write!(f, "{who}'s link loses the next request")
            }
            Self::Fault(who, Fault::LosesReply) => write!(f, "{who}'s link loses the next reply"),
            Self::Dies(who) => write!(f, "{who} dies without a word and starts anew"),
            Self::Restart { keep_data: true } => f.write_str("the store restarts with its data"),
            Self::Restart { keep_data: false } => f.write_str("the store restarts and is empty"),
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}
