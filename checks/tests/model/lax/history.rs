use std::fmt;

use distkit::CounterComparator;
use proptest::{collection::vec, prelude::*, sample::select};

use super::truth::PROCESSES;
use crate::{
    cast::{Key, Who, key, time},
    store::history::fault,
    world::Fault,
};

/// How the total must compare with what the process was answered last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Compared {
    Equal,
    Different,
    Below,
    Above,
}

impl Compared {
    pub(crate) fn with(self, seen: i64) -> CounterComparator {
        match self {
            Self::Equal => CounterComparator::Eq(seen),
            Self::Different => CounterComparator::Ne(seen),
            Self::Below => CounterComparator::Lt(seen),
            Self::Above => CounterComparator::Gt(seen),
        }
    }

    pub(crate) fn holds(self, total: i64, seen: i64) -> bool {
        match self {
            Self::Equal => total == seen,
            Self::Different => total != seen,
            Self::Below => total < seen,
            Self::Above => total > seen,
        }
    }
}

/// What a process asks of its counter. Amounts are in digits of its own; batches are about the first keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ask {
    Inc(Key, i64),
    IncAll([i64; 2]),
    IncIf(Key, Compared, i64),
    Get(Key),
    GetAll,
    Set(Key, i64),
    SetAll([i64; 2]),
    SetIf(Key, Compared, i64),
    Del(Key),
    /// Skipped by plain counters.
    SetOnInstance(Key, i64),
    /// Skipped by plain counters.
    DelOnInstance(Key),
    Clear,
    /// Skipped by plain counters.
    ClearOnInstance,
    Flush,
}

impl Ask {
    pub(crate) fn is_about_slices(self) -> bool {
        matches!(self, Self::SetOnInstance(..) | Self::DelOnInstance(_) | Self::ClearOnInstance)
    }

    /// What it makes of which key's total, if nothing else.
    pub(crate) fn sets(self) -> Vec<(Key, i64)> {
        match self {
            Self::Set(key, count) => vec![(key, count)],
            Self::SetAll(counts) => Key::ALL.into_iter().zip(counts).collect(),
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Call(Who, Ask),
    Wait(u64),
    Fault(Who, Fault),
    /// How long the link takes, there and back.
    Latency(Who, u64),
    /// The process dies, and what it has not sent dies with it.
    Dies(Who),
    /// The process shuts its counter down, and starts anew.
    ShutsDown(Who),
    /// Skipped by plain counters.
    LosesData,
    /// The store takes all instances for gone. Skipped by plain counters.
    LosesMembers,
}

#[derive(Clone)]
pub(crate) struct History(pub(crate) Vec<Step>);

pub(crate) fn histories(all_add: bool) -> BoxedStrategy<History> {
    vec(step(all_add), 1..50).prop_map(History).boxed()
}

fn step(all_add: bool) -> BoxedStrategy<Step> {
    let who = || select(&PROCESSES[..]);
    let wait = prop_oneof![
        8 => select(&[1_u64, 9, 10, 19, 20, 21, 60, 500][..]),
        3 => select(&[10_000_u64, 29_999, 30_000, 30_001, 60_000][..]),
    ];
    prop_oneof![
        30 => (who(), ask(all_add)).prop_map(|(who, ask)| Step::Call(who, ask)),
        14 => wait.prop_map(Step::Wait),
        6 => (who(), fault()).prop_map(|(who, fault)| Step::Fault(who, fault)),
        2 => (who(), select(&[0_u64, 2, 10, 30][..])).prop_map(|(who, ms)| Step::Latency(who, ms)),
        1 => who().prop_map(Step::Dies),
        1 => who().prop_map(Step::ShutsDown),
        1 => Just(Step::LosesData),
        1 => Just(Step::LosesMembers),
    ]
    .boxed()
}

fn ask(all_add: bool) -> BoxedStrategy<Ask> {
    let amounts = if all_add { 1..10_i64 } else { -9..10 };
    let amount = || amounts.clone();
    let adding = prop_oneof![
        10 => (key(), amount()).prop_map(|(key, n)| Ask::Inc(key, n)),
        2 => [amount(), amount()].prop_map(Ask::IncAll),
        8 => key().prop_map(Ask::Get),
        1 => Just(Ask::GetAll),
        2 => Just(Ask::Flush),
    ];
    if all_add {
        return adding.boxed();
    }
    use Compared::{Above, Below, Different, Equal};
    let compared = || select(&[Equal, Equal, Different, Below, Above][..]);
    prop_oneof![
        20 => adding,
        2 => (key(), compared(), amount()).prop_map(|(key, how, n)| Ask::IncIf(key, how, n)),
        1 => (key(), compared(), amount()).prop_map(|(key, how, n)| Ask::SetIf(key, how, n)),
        1 => [amount(), amount()].prop_map(Ask::SetAll),
        2 => (key(), amount()).prop_map(|(key, n)| Ask::Set(key, n)),
        2 => key().prop_map(Ask::Del),
        3 => (key(), amount()).prop_map(|(key, n)| Ask::SetOnInstance(key, n)),
        2 => key().prop_map(Ask::DelOnInstance),
        1 => Just(Ask::Clear),
        1 => Just(Ask::ClearOnInstance),
    ]
    .boxed()
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "if it is as it was seen last",
            Self::Different => "if it is not as it was seen last",
            Self::Below => "if it is below what was seen last",
            Self::Above => "if it is above what was seen last",
        })
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inc(key, n) => write!(f, "inc {key} {n}"),
            Self::IncAll(counts) => write!(f, "inc {}", batch(counts)),
            Self::IncIf(key, how, n) => write!(f, "inc {key} {n} {how}"),
            Self::Get(key) => write!(f, "get {key}"),
            Self::GetAll => f.write_str("get all"),
            Self::Set(key, n) => write!(f, "set {key} {n}"),
            Self::SetAll(counts) => write!(f, "set {}", batch(counts)),
            Self::SetIf(key, how, n) => write!(f, "set {key} {n} {how}"),
            Self::Del(key) => write!(f, "del {key}"),
            Self::SetOnInstance(key, n) => write!(f, "set_on_instance {key} {n}"),
            Self::DelOnInstance(key) => write!(f, "del_on_instance {key}"),
            Self::Clear => f.write_str("clear"),
            Self::ClearOnInstance => f.write_str("clear_on_instance"),
            Self::Flush => f.write_str("flush"),
        }
    }
}

fn batch(counts: &[i64]) -> String {
    let items: Vec<_> = Key::ALL.iter().zip(counts).map(|(key, n)| format!("{key} {n}")).collect();
    items.join(" and ")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(who, ask) => write!(f, "{who}: {ask}"),
            Self::Wait(ms) => write!(f, "{} pass", time(*ms)),
            Self::Fault(who, Fault::Cut) => write!(f, "{who}'s link is cut"),
            Self::Fault(who, Fault::Denied) => write!(f, "the store denies {who} all"),
            Self::LosesMembers => f.write_str("the store takes everybody for gone"),
            Self::Fault(who, Fault::Restored) => write!(f, "{who}'s link is whole"),
            Self::Fault(who, Fault::LosesRequest) => {
                write!(f, "{who}'s link loses the next request")
            }
            Self::Fault(who, Fault::LosesReply) => write!(f, "{who}'s link loses the next reply"),
            Self::Latency(who, ms) => write!(f, "{who}'s link takes {}", time(*ms)),
            Self::Dies(who) => write!(f, "{who} dies without a word and starts anew"),
            Self::ShutsDown(who) => write!(f, "{who} shuts down and starts anew"),
            Self::LosesData => f.write_str("the store restarts and is empty"),
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}
