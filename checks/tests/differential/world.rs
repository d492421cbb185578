//! A store and the ways to it, with everything that can go wrong.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use distkit::{
    RedisKey,
    backend::{
        InstanceBackend, Space,
        memory::{ManualClock, MemoryBackend, MemoryLink},
    },
};

use crate::real_store::RealStore;

/// How many ways there are to the store, each with its own faults.
pub(crate) const LINKS: usize = 3;

/// How long a restart takes. That time has passed is all that an empty server knows of what was before.
const RESTART: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    Cut,
    Restore,
    /// The next request gets lost.
    LoseRequest,
    /// The next request is applied, and its answer gets lost.
    LoseReply,
}

/// What happens to the world by itself.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Strike {
        link: usize,
        fault: Fault,
    },
    Plant {
        key: RedisKey,
        text: String,
    },
    /// Milliseconds.
    Advance(u64),
    Restart,
    LoseData,
    /// The store takes everybody for gone.
    LoseMembers,
    /// The store loses what it remembers of writers, as by an eviction.
    LoseGuards,
}

impl Event {
    pub(crate) async fn happen(&self, world: &dyn World, space: &Space) {
        match self {
            Self::Strike { link, fault } => world.fault(*link, *fault),
            Self::Plant { key, text } => world.plant(space, key, text),
            Self::Advance(ms) => world.advance(Duration::from_millis(*ms)),
            Self::Restart => world.restart().await,
            Self::LoseData => world.lose_data().await,
            Self::LoseMembers => world.lose_members(space),
            // A server tells two hashes of guards apart by when they were made.
            Self::LoseGuards => {
                world.lose_guards(space);
                world.advance(Duration::from_millis(1));
            }
        }
    }
}

/// What a history is played on.
#[async_trait]
pub(crate) trait World {
    fn link(&self, link: usize) -> Arc<dyn InstanceBackend>;

    fn fault(&self, link: usize, fault: Fault);

    /// Ends all faults, and numbers fresh ids from 1 again: the next history uses another prefix.
    fn mend(&self);

    fn advance(&self, step: Duration);

    /// Puts text where a plain counter is kept.
    fn plant(&self, space: &Space, key: &RedisKey, text: &str);

    /// A restart of the store that keeps its data.
    async fn restart(&self);

    /// Loses who is joined to the instance-aware counters.
    fn lose_members(&self, space: &Space);

    fn lose_guards(&self, space: &Space);

    /// A restart that loses them.
    async fn lose_data(&self);
}

/// The memory store, with a clock of its own.
pub(crate) struct Simulated {
    clock: ManualClock,
    store: MemoryBackend,
    links: Vec<MemoryLink>,
}

impl Simulated {
    pub(crate) fn at(time: Duration) -> Self {
        let clock = ManualClock::new();
        clock.advance(time);
        let store = MemoryBackend::with_clock(clock.clone());
        let links = (0..LINKS).map(|_| store.link()).collect();
        Self { clock, store, links }
    }
}

#[async_trait]
impl World for Simulated {
    fn link(&self, link: usize) -> Arc<dyn InstanceBackend> {
        Arc::new(self.links[link].clone())
    }

    fn fault(&self, link: usize, fault: Fault) {
        let link = &self.links[link];
        match fault {
            Fault::Cut => link.cut(),
            Fault::Restore => link.restore(),
            Fault::LoseRequest => link.lose_next_requests(1),
            Fault::LoseReply => link.lose_next_replies(1),
        }
    }

    fn mend(&self) {
        for link in &self.links {
            link.restore();
            link.lose_next_requests(0);
            link.lose_next_replies(0);
        }
    }

    fn advance(&self, step: Duration) {
        self.clock.advance(step);
    }

    fn plant(&self, space: &Space, key: &RedisKey, text: &str) {
        self.store.corrupt(space, key, text);
    }

    fn lose_members(&self, space: &Space) {
        self.store.lose_members(space);
    }

    fn lose_guards(&self, space: &Space) {
        self.store.lose_guards(space);
    }

    async fn restart(&self) {}

    async fn lose_data(&self) {
        self.store.wipe();
        self.advance(RESTART);
    }
}

#[async_trait]
impl World for RealStore {
    fn link(&self, link: usize) -> Arc<dyn InstanceBackend> {
        self.link(link)
    }

    fn fault(&self, link: usize, fault: Fault) {
        match fault {
            Fault::Cut => self.set_cut(link, true),
            Fault::Restore => self.set_cut(link, false),
            Fault::LoseRequest => self.lose_next_request(link),
            Fault::LoseReply => self.lose_next_reply(link),
        }
    }

    fn mend(&self) {
        self.mend();
    }

    fn advance(&self, step: Duration) {
        self.advance(step);
    }

    fn plant(&self, space: &Space, key: &RedisKey, text: &str) {
        self.plant(space, key, text);
    }

    fn lose_members(&self, space: &Space) {
        self.lose_members(space);
    }

    fn lose_guards(&self, space: &Space) {
        self.lose_guards(space);
    }

    async fn restart(&self) {
        self.restart();
    }

    async fn lose_data(&self) {
        self.wipe();
        self.advance(RESTART);
    }
}
