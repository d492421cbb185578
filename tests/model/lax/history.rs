use std::fmt;

use proptest::{collection::vec, prelude::*, sample::select};

use super::truth::PROCESSES;
use crate::{
    cast::{Key, Who, key, time},
    store::history::fault,
    world::Fault,
};

/// What a process asks of its counter. Amounts are in digits of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ask {
    Inc(Key, i64),
    Get(Key),
    Set(Key, i64),
    Del(Key),
    /// Skipped by plain counters.
    SetOnInstance(Key, i64),
    /// Skipped by plain counters.
    DelOnInstance(Key),
    Clear,
    Flush,
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
    /// Skipped by plain counters.
    LosesData,
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
        1 => Just(Step::LosesData),
    ]
    .boxed()
}

fn ask(all_add: bool) -> BoxedStrategy<Ask> {
    let amounts = if all_add { 1..10_i64 } else { -9..10 };
    let amount = || amounts.clone();
    let adding = prop_oneof![
        10 => (key(), amount()).prop_map(|(key, n)| Ask::Inc(key, n)),
        8 => key().prop_map(Ask::Get),
        2 => Just(Ask::Flush),
    ];
    if all_add {
        return adding.boxed();
    }
    prop_oneof![
        20 => adding,
        2 => (key(), amount()).prop_map(|(key, n)| Ask::Set(key, n)),
        2 => key().prop_map(Ask::Del),
        3 => (key(), amount()).prop_map(|(key, n)| Ask::SetOnInstance(key, n)),
        2 => key().prop_map(Ask::DelOnInstance),
        1 => Just(Ask::Clear),
    ]
    .boxed()
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inc(key, n) => write!(f, "inc {key} {n}"),
            Self::Get(key) => write!(f, "get {key}"),
            Self::Set(key, n) => write!(f, "set {key} {n}"),
            Self::Del(key) => write!(f, "del {key}"),
            Self::SetOnInstance(key, n) => write!(f, "set_on_instance {key} {n}"),
            Self::DelOnInstance(key) => write!(f, "del_on_instance {key}"),
            Self::Clear => f.write_str("clear"),
            Self::Flush => f.write_str("flush"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(who, ask) => write!(f, "{who}: {ask}"),
            Self::Wait(ms) => write!(f, "{} pass", time(*ms)),
            Self::Fault(who, Fault::Cut) => write!(f, "{who}'s link is cut"),
            Self::Fault(who, Fault::Restored) => write!(f, "{who}'s link is whole"),
            Self::Fault(who, Fault::LosesRequest) => {
                write!(f, "{who}'s link loses the next request")
            }
            Self::Fault(who, Fault::LosesReply) => write!(f, "{who}'s link loses the next reply"),
            Self::Latency(who, ms) => write!(f, "{who}'s link takes {}", time(*ms)),
            Self::Dies(who) => write!(f, "{who} dies without a word and starts anew"),
            Self::LosesData => f.write_str("the store restarts and is empty"),
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}
