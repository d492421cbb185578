//! The works, by family.

mod flush;
mod growth;
mod lax;
mod rest;
mod strict;

use crate::{measure::Outcome, stage::Stage};

pub(crate) use rest::probe;

/// A group of works under a name that the command line knows.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Stage) -> Vec<Outcome>,
}

pub(crate) const GROUPS: &[Group] = &[
    Group { name: "lax", about: "lax counters, in the process", run: lax::plain },
    Group { name: "lax-instances", about: "the same, instance-aware", run: lax::instances },
    Group { name: "latency", about: "how long the slowest lax calls take", run: lax::latency },
    Group { name: "strict", about: "strict counters, over both clients", run: strict::plain },
    Group { name: "strict-instances", about: "the same, instance-aware", run: strict::instances },
    Group { name: "flush", about: "a flush of very many keys", run: flush::run },
    Group { name: "rest", about: "what idle counters and known keys cost", run: rest::run },
    Group {
        name: "growth",
        about: "how cost grows with keys, instances and tasks",
        run: growth::run,
    },
];
