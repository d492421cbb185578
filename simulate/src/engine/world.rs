use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use distkit::{
    DistkitError, RedisKey,
    backend::{
        Space,
        memory::{MemoryBackend, MemoryLink},
    },
};

use super::{
    Config,
    reference::{Buffered, Contended, Direct, Plain},
    trace::Trace,
};

/// How long an instance lives after its last sign of life, in milliseconds.
pub(crate) const LEASE: u64 = 30_000;
/// The lag of the lax counters.
pub(crate) const LAG: u64 = 20;
/// The longest round trip of a healthy link.
pub(crate) const ROUND_TRIP: u64 = 10;
/// Within this an acknowledged write of a healthy process is in the store. Paused timers round up to whole
/// milliseconds, here on at most five legs.
pub(crate) const FRESH: u64 = LAG + ROUND_TRIP + 5;
/// How long it may take until all is as it should be when a process is well again: one heartbeat, or the
/// greatest delay between attempts to flush.
pub(crate) const HEAL: u64 = LEASE / 3 + 1000 + FRESH;
/// The longest that a request of a hung process may be under way.
pub(crate) const LONGEST_TRIP: u64 = 90_000;
/// The quiet time at the end of a run: the last trips end, the last leases run out, all heals.
pub(crate) const QUIET: u64 = LONGEST_TRIP + LEASE + 2 * HEAL;

pub(crate) const TRAFFIC_KEYS: [&str; 3] = ["connections", "jobs", "uploads"];
pub(crate) const STOCK_KEYS: [&str; 2] = ["apples", "pears"];
/// How many nodes a cluster has.
pub(crate) const NODES: u16 = 3;

pub(crate) const PLAIN_KEYS: [&str; 2] = ["hits", "misses"];

pub(crate) fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) store: MemoryBackend,
    pub(crate) trace: Arc<Trace>,
    /// Held shared for writes to stock, exclusively for what concerns everybody's part of it.
    pub(crate) stock_gate: tokio::sync::RwLock<()>,
    model: Mutex<Model>,
}

pub(crate) struct Model {
    pub(crate) slots: Vec<Slot>,
    /// The instances that the store may know, by id.
    pub(crate) members: BTreeMap<String, Member>,
    pub(crate) plain: BTreeMap<&'static str, Plain>,
    /// The store lost its data, and not everybody is back: old slices of stock may show up.
    pub(crate) stock_adrift: bool,
    /// When the store lost data for the last time.
    pub(crate) lost_at: Option<u64>,
    pub(crate) store_down: Option<u64>,
    /// The node of the cluster that nobody reaches.
    pub(crate) node_down: Option<(u16, u64)>,
    /// Any prefix's: the shards of all are on the nodes in the same way.
    shards: Vec<Space>,
    pub(crate) stats: Stats,
    pub(crate) spans: Vec<Span>,
    violation: Option<String>,
    processes: u32,
}

/// The place of one process at a time, and of its successors.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) process: Option<u32>,
    pub(crate) link: Option<MemoryLink>,
    pub(crate) cut: bool,
    pub(crate) hung: bool,
    /// From when until when the way to the store is or was not healthy.
    pub(crate) trouble: Option<(u64, u64)>,
    /// The total of the first key as the process last saw it.
    pub(crate) belief: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Traffic,
    Stock,
}

impl Family {
    pub(crate) fn prefix(self) -> RedisKey {
        key(match self {
            Self::Traffic => "traffic",
            Self::Stock => "stock",
        })
    }

    pub(crate) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Traffic => &TRAFFIC_KEYS,
            Self::Stock => &STOCK_KEYS,
        }
    }
}

pub(crate) struct Member {
    pub(crate) slot: usize,
    pub(crate) process: u32,
    pub(crate) family: Family,
    /// When its slices must be gone, once it has crashed.
    pub(crate) ends: Option<u64>,
    pub(crate) parts: Parts,
}

pub(crate) enum Parts {
    Buffered(BTreeMap<&'static str, Buffered>),
    Direct(BTreeMap<&'static str, Direct>),
    Contended(BTreeMap<&'static str, Contended>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    Dead,
    Cut,
    Hung,
    /// Slow, or losing messages.
    Flaky,
    StoreDown,
    StoreLost,
    /// A node of the cluster is unreachable.
    NodeDown,
    /// The store takes everybody for gone.
    Evicted,
    /// The store's clock steps.
    ClockStep,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// `None` for the store.
    pub(crate) slot: Option<usize>,
    pub(crate) kind: SpanKind,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) acknowledged: u64,
    pub(crate) not_applied: u64,
    pub(crate) unknown: u64,
    pub(crate) inspections: u64,
    pub(crate) comparisons: u64,
    pub(crate) processes: u64,
    pub(crate) crashes: u64,
    pub(crate) departures: u64,
    pub(crate) cuts: u64,
    pub(crate) hangs: u64,
    pub(crate) flaky: u64,
    pub(crate) store_restarts: u64,
    pub(crate) data_losses: u64,
    pub(crate) evictions: u64,
    pub(crate) clock_steps: u64,
    pub(crate) node_outages: u64,
}

impl World {
    pub(crate) fn new(config: Config, sink: Option<Box<dyn std::io::Write + Send>>) -> Self {
        let model = Model {
            slots: (0..config.instances).map(|_| Slot::default()).collect(),
            members: BTreeMap::new(),
            plain: PLAIN_KEYS.map(|name| (name, Plain::default())).into(),
            stock_adrift: false,
            lost_at: None,
            store_down: None,
            node_down: None,
            shards: Space::shards_of(Family::Traffic.prefix(), config.shards),
            stats: Stats::default(),
            spans: Vec::new(),
            violation: None,
            processes: 0,
        };
        Self {
            config,
            store: MemoryBackend::new(),
            trace: Arc::new(Trace::new(sink)),
            stock_gate: tokio::sync::RwLock::new(()),
            model: Mutex::new(model),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.trace.now()
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.model().violation.clone()
    }

    pub(crate) fn history(&self) -> (Stats, Vec<Span>) {
        let model = self.model();
        (model.stats, model.spans.clone())
    }

    /// A rule is broken. Only the first time counts.
    pub(crate) fn broken(&self, what: String) {
        let seconds = self.now() as f64 / 1000.0;
        self.trace.line("BROKEN", format_args!("{what}"));
        let what = format!("Broken after {seconds} s: {what}");
        self.model().violation.get_or_insert(what);
    }

    /// Counts an answer. Errors that no fault of this simulation explains break a rule.
    pub(crate) fn count<T>(&self, who: &str, what: &str, answer: &Result<T, DistkitError>) {
        let mut model = self.model();
        match answer {
            Ok(_) => model.stats.acknowledged += 1,
            Err(DistkitError::NotApplied(_)) => model.stats.not_applied += 1,
            Err(DistkitError::OutcomeUnknown(_)) => model.stats.unknown += 1,
            // Of what concerns all shards, it happened in some.
            Err(DistkitError::InShards { .. }) => model.stats.unknown += 1,
            Err(error) => {
                drop(model);
                self.broken(format!("{who} was told of {what}: {error}"));
            }
        }
    }

    /// Notes a fault as it begins.
    pub(crate) fn span(&self, slot: Option<usize>, kind: SpanKind, to: u64) {
        let from = self.now();
        let mut model = self.model();
        let counted = match kind {
            SpanKind::Dead => None,
            SpanKind::Cut => Some(&mut model.stats.cuts),
            SpanKind::Hung => Some(&mut model.stats.hangs),
            SpanKind::Flaky => Some(&mut model.stats.flaky),
            SpanKind::StoreDown | SpanKind::StoreLost => Some(&mut model.stats.store_restarts),
            SpanKind::NodeDown => Some(&mut model.stats.node_outages),
            SpanKind::Evicted => Some(&mut model.stats.evictions),
            SpanKind::ClockStep => Some(&mut model.stats.clock_steps),
        };
        if let Some(counted) = counted {
            *counted += 1;
        }
        model.spans.push(Span { slot, kind, from, to });
    }
}

impl Model {
    /// A number for a new process.
    pub(crate) fn next_process(&mut self) -> u32 {
        self.stats.processes += 1;
        self.processes += 1;
        self.processes
    }

    pub(crate) fn member(&mut self, id: &str) -> &mut Member {
        self.members.get_mut(id).unwrap()
    }

    /// The slot's way to the store is not healthy from now until `until`.
    pub(crate) fn trouble(&mut self, slot: usize, now: u64, until: u64) {
        let slot = &mut self.slots[slot];
        slot.trouble = match slot.trouble {
            Some((from, to)) if to + HEAL > now => Some((from, to.max(until))),
            _ => Some((now, until)),
        };
    }

    /// Since when the trouble lasts that has not surely been overcome.
    pub(crate) fn ailing_since(&self, slot: usize, now: u64) -> Option<u64> {
        let (from, to) = self.slots[slot].trouble?;
        (to + HEAL > now).then_some(from)
    }

    /// Cuts or restores a link as the slot's, the store's and its nodes' state demand.
    pub(crate) fn settle_link(&self, slot: usize) {
        let Slot { link: Some(link), cut, .. } = &self.slots[slot] else { return };
        let down = self.node_down.map(|(node, _)| node);
        for node in 0..if self.shards.len() > 1 { NODES } else { 0 } {
            if down == Some(node) {
                link.cut_node(&self.shards, node, NODES);
            } else {
                link.restore_node(&self.shards, node, NODES);
            }
        }
        match *cut || self.store_down.is_some() {
            true if !link.is_cut() => link.cut(),
            false => link.restore(),
            true => {}
        }
    }

    /// What is known of the end of a process: when its slices are gone at the latest.
    pub(crate) fn process_ends(&mut self, process: u32, ends: u64) {
        for member in self.members.values_mut().filter(|member| member.process == process) {
            member.ends.get_or_insert(ends);
        }
    }
}
