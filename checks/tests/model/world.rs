//! A store, its clock, and the ways to it, with everything that can go wrong.

use std::{sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{
        InstanceBackend, Space,
        memory::{ManualClock, MemoryBackend, MemoryLink},
    },
};

use crate::cast::Who;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Requests fail, and nothing of them happens.
    Cut,
    Restored,
    /// The store denies all requests, until the link is restored.
    Denied,
    /// The next request gets lost.
    LosesRequest,
    /// The next request is applied, and its answer gets lost.
    LosesReply,
}

/// What a world can do to those who live in it. Steps that ask for more are skipped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Powers {
    pub(crate) cut: bool,
    pub(crate) lose: bool,
    pub(crate) restart: bool,
    pub(crate) lose_data: bool,
}

/// What a history is played on. Between two calls of [`advance`](Self::advance) its time stands still.
#[allow(async_fn_in_trait, reason = "nothing outside of this test implements it")]
pub(crate) trait World {
    fn powers(&self) -> Powers;

    /// The way of this process to the store.
    fn link(&self, who: Who) -> Arc<dyn InstanceBackend>;

    /// Strikes the requests to one shard, or to all.
    fn fault(&self, who: Who, shard: Option<u16>, fault: Fault);

    async fn advance(&self, step: Duration);

    /// The store's clock is set back, as an administrator or a time service may.
    fn step_back(&self, step: Duration);

    /// Somebody puts text where a plain counter is kept.
    fn plant(&self, space: &Space, key: &RedisKey, text: &str);

    /// The store loses the counters of an open window, which is that of `space`.
    fn lose_window(&self, space: &Space);

    /// The store takes everybody for gone who is joined to the instance-aware counters.
    fn lose_members(&self, space: &Space);

    /// The store loses what it remembers of writers.
    fn lose_guards(&self, space: &Space);

    /// The store loses what it remembers of tokens.
    fn lose_tokens(&self, space: &Space);

    /// A restart of the store, with its data or without, that takes a millisecond at least.
    async fn restart(&self, keep_data: bool);
}

/// The memory store with a clock that is moved by hand.
pub(crate) struct Simulated {
    clock: ManualClock,
    store: MemoryBackend,
    links: [MemoryLink; Who::ALL.len()],
}

impl Simulated {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new();
        let store = MemoryBackend::with_clock(clock.clone());
        let links = Who::ALL.map(|_| store.link());
        Self { clock, store, links }
    }
}

impl World for Simulated {
    fn powers(&self) -> Powers {
        Powers { cut: true, lose: true, restart: true, lose_data: true }
    }

    fn link(&self, who: Who) -> Arc<dyn InstanceBackend> {
        Arc::new(self.links[who as usize].clone())
    }

    fn fault(&self, who: Who, shard: Option<u16>, fault: Fault) {
        let link = &self.links[who as usize];
        let line = match shard {
            Some(shard) => &link.shard(shard),
            None => link.layer(),
        };
        match fault {
            Fault::Cut => line.cut(),
            Fault::Denied => line.set_denied(true),
            Fault::Restored => {
                line.restore();
                line.set_denied(false);
            }
            Fault::LosesRequest => line.lose_next_requests(1),
            Fault::LosesReply => line.lose_next_replies(1),
        }
    }

    async fn advance(&self, step: Duration) {
        self.clock.advance(step);
    }

    fn step_back(&self, step: Duration) {
        self.store.set_clock_back(step);
    }

    fn plant(&self, space: &Space, key: &RedisKey, text: &str) {
        self.store.corrupt(space, key, text);
    }

    fn lose_window(&self, space: &Space) {
        self.store.lose_window(space);
    }

    fn lose_members(&self, space: &Space) {
        self.store.lose_members(space);
    }

    fn lose_guards(&self, space: &Space) {
        self.store.lose_guards(space);
    }

    fn lose_tokens(&self, space: &Space) {
        self.store.lose_tokens(space);
    }

    async fn restart(&self, keep_data: bool) {
        if !keep_data {
            self.store.wipe();
        }
        self.clock.advance(Duration::from_millis(1));
    }
}

/// A runtime of one thread whose timers cost no time.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}
