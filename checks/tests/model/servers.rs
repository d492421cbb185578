//! The same histories on real servers, whose clock the test moves.
//!
//! Their answers are held against the model, and must be the simulator's to the letter.

#[path = "../support/real_store.rs"]
mod real_store;

use std::{cell::Cell, sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{InstanceBackend, Space},
};
use distkit_testkit::{Server, ServerBuilder};
use tokio::time::Instant;

use self::real_store::{Client, RealStore};
use crate::{
    cases::{Verdict, check, times},
    cast::Who,
    listing,
    store::{self, history::histories},
    strict, tokens, windows,
    world::{Fault, Powers, Simulated, World, runtime},
};

impl World for RealStore {
    fn powers(&self) -> Powers {
        Powers { cut: true, lose: true, restart: true, lose_data: true }
    }

    fn link(&self, who: Who) -> Arc<dyn InstanceBackend> {
        self.link(who as usize)
    }

    fn fault(&self, who: Who, _: Option<u16>, fault: Fault) {
        let link = who as usize;
        match fault {
            // What a client says of a server that denies has tests of its own.
            Fault::Cut | Fault::Denied => self.set_cut(link, true),
            Fault::Restored => self.set_cut(link, false),
            Fault::LosesRequest => self.lose_next_request(link),
            Fault::LosesReply => self.lose_next_reply(link),
        }
    }

    async fn advance(&self, step: Duration) {
        self.advance(step);
    }

    fn step_back(&self, step: Duration) {
        self.go_back(step);
    }

    fn plant(&self, space: &Space, key: &RedisKey, text: &str) {
        self.plant(space, key, text);
    }

    fn lose_window(&self, space: &Space) {
        self.lose_totals(space);
    }

    fn lose_members(&self, space: &Space) {
        self.lose_members(space);
    }

    fn lose_guards(&self, space: &Space) {
        self.lose_guards(space);
    }

    fn lose_tokens(&self, space: &Space) {
        self.lose_tokens(space);
    }

    async fn restart(&self, keep_data: bool) {
        if keep_data {
            self.restart();
        } else {
            self.wipe();
        }
        self.advance(Duration::from_millis(1));
    }
}

/// How many histories are played on each server in each way.
const CASES: u32 = 60;

/// Well before the first heartbeat of an instance. On a server timers run in real time.
const BEFORE_ANY_TIMER: Duration = Duration::from_secs(2);

/// One server for all the histories of a test, each under a prefix of its own.
struct Served {
    /// In real time: there are sockets.
    runtime: tokio::runtime::Runtime,
    store: RealStore,
    histories: Cell<u32>,
}

impl Served {
    fn by(server: ServerBuilder, client: Client) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(RealStore::start(server, client, Who::ALL.len()));
        Self { runtime, store, histories: Cell::new(0) }
    }

    /// So that no fault meets the first look at the shape of the space, which the simulator does not need.
    fn open(&self, prefix: &str) {
        let space = Space::new(RedisKey::try_from(prefix).unwrap());
        for link in 0..Who::ALL.len() {
            self.runtime.block_on(self.store.link(link).clear(&space)).unwrap();
        }
    }

    /// Plays a history in so short a time that nothing but the history can have moved anything.
    fn play(&self, play: impl AsyncFn(&RealStore, &str) -> Transcript) -> Transcript {
        for _ in 0..10 {
            self.histories.set(self.histories.get() + 1);
            let prefix = format!("shop {}", self.histories.get());
            self.store.mend();
            self.open(&prefix);
            let start = Instant::now();
            let transcript = self.runtime.block_on(play(&self.store, &prefix));
            if start.elapsed() < BEFORE_ANY_TIMER {
                return transcript;
            }
        }
        Err("this machine is too busy to play a history in two seconds".to_owned())
    }
}

type Transcript = Result<Vec<String>, String>;

fn compare(simulated: Transcript, served: Transcript) -> Verdict {
    let (simulated, served) = (simulated?, served?);
    if simulated == served {
        return Ok(());
    }
    let mut story = String::new();
    for (ours, theirs) in simulated.iter().zip(&served) {
        if ours != theirs {
            return Err(format!("{story}  ! simulator: {ours}\n  ! server:    {theirs}"));
        }
        story += &format!("    {ours}\n");
    }
    Err(format!("{story}  ! one of them goes on"))
}

fn stores_agree(name: &'static str, server: ServerBuilder, client: Client) {
    let served = Served::by(server, client);
    check(name, CASES, &histories(), |history| {
        let history = &history.0;
        let simulated = runtime().block_on(store::play::play(&Simulated::new(), "shop", history));
        compare(
            simulated,
            served.play(async |store, prefix| store::play::play(store, prefix, history).await),
        )
    });
}

fn strict_counters_agree(name: &'static str, server: ServerBuilder, client: Client) {
    let served = Served::by(server, client);
    check(name, CASES, &histories(), |history| {
        let history = &history.0;
        let simulated = runtime().block_on(strict::play(&Simulated::new(), "shop", 1, history));
        compare(
            simulated,
            served.play(async |store, prefix| strict::play(store, prefix, 1, history).await),
        )
    });
}

fn tokens_agree(name: &'static str, server: ServerBuilder, client: Client) {
    let served = Served::by(server, client);
    for seed in 0..u64::from(CASES * times()) {
        let simulated = runtime().block_on(tokens::play(&Simulated::new(), "shop", seed));
        let play = async |store: &RealStore, prefix: &str| tokens::play(store, prefix, seed).await;
        let verdict = compare(simulated, served.play(play));
        verdict.unwrap_or_else(|why| panic!("{name}, seed {seed}: {why}"));
    }
}

/// Nothing in these histories has a timer, so they may take their time.
fn windows_agree(name: &'static str, server: ServerBuilder, client: Client) {
    let served = Served::by(server, client);
    for seed in 0..u64::from(CASES * times()) {
        let simulated = runtime().block_on(windows::play(&Simulated::new(), "shop", seed));
        let prefix = format!("shop {seed}");
        served.store.mend();
        let played = served.runtime.block_on(windows::play(&served.store, &prefix, seed));
        let verdict = compare(simulated, played);
        verdict.unwrap_or_else(|why| panic!("{name}, seed {seed}: {why}"));
    }
}

/// Where a page ends is the server's business, so there is nothing to compare.
fn listings_hold(name: &'static str, server: ServerBuilder, client: Client) {
    let served = Served::by(server, client);
    let mut parts = 0;
    for seed in 0..u64::from(CASES / 2 * times()) {
        served.store.mend();
        let prefix = format!("shop {seed}");
        let played = served.runtime.block_on(listing::play(&served.store, &prefix, seed));
        parts += played.unwrap_or_else(|why| panic!("{name}, seed {seed}: {why}"));
    }
    assert!(parts > 1000, "the listings had {parts} pages that were not their last");
}

macro_rules! on_each_server {
    ($($agree:ident),+) => {$(
        mod $agree {
            use super::*;

            #[test]
            fn redis_through_redis_rs() {
                let name = concat!(stringify!($agree), "_redis_redis_rs");
                super::$agree(name, Server::redis(), Client::RedisRs);
            }

            #[test]
            fn redis_through_fred() {
                let name = concat!(stringify!($agree), "_redis_fred");
                super::$agree(name, Server::redis(), Client::Fred);
            }

            #[test]
            fn valkey_through_redis_rs() {
                let name = concat!(stringify!($agree), "_valkey_redis_rs");
                super::$agree(name, Server::valkey(), Client::RedisRs);
            }

            #[test]
            fn valkey_through_fred() {
                let name = concat!(stringify!($agree), "_valkey_fred");
                super::$agree(name, Server::valkey(), Client::Fred);
            }
        }
    )+};
}

on_each_server!(stores_agree, strict_counters_agree, tokens_agree, windows_agree, listings_hold);
