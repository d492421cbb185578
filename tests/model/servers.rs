//! The same histories on real servers, whose clock the test moves.
//!
//! Their answers are held against the model, and must be the simulator's to the letter.
#![cfg(all(feature = "redis-rs", feature = "fred"))]

#[path = "../support/real_store.rs"]
mod real_store;

use std::{cell::Cell, sync::Arc, time::Duration};

use distkit::backend::Backend;
use distkit_testkit::{Server, ServerBuilder};

use self::real_store::{Client, RealStore};
use crate::{
    cases::{Verdict, check},
    cast::Who,
    store,
    world::{Fault, Powers, Simulated, World, runtime},
};

impl World for RealStore {
    fn powers(&self) -> Powers {
        Powers { cut: true, lose: true, restart: true, lose_data: true }
    }

    fn link(&self, who: Who) -> Arc<dyn Backend> {
        self.link(who as usize)
    }

    fn fault(&self, who: Who, fault: Fault) {
        let link = who as usize;
        match fault {
            Fault::Cut => self.set_cut(link, true),
            Fault::Restored => self.set_cut(link, false),
            Fault::LosesRequest => self.lose_next_request(link),
            Fault::LosesReply => self.lose_next_reply(link),
        }
    }

    async fn advance(&self, step: Duration) {
        self.advance(step);
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

/// One server for all the histories of a test, each under a prefix of its own.
struct Played {
    /// In real time: there are sockets.
    runtime: tokio::runtime::Runtime,
    store: RealStore,
    histories: Cell<u32>,
}

impl Played {
    fn on(builder: ServerBuilder, client: Client) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(RealStore::start(builder, client, Who::ALL.len()));
        Self { runtime, store, histories: Cell::new(0) }
    }

    fn as_simulated(&self, history: &store::history::History) -> Verdict {
        let simulated =
            runtime().block_on(store::play::play(&Simulated::new(), "shop", &history.0))?;
        self.histories.set(self.histories.get() + 1);
        let prefix = format!("shop {}", self.histories.get());
        self.store.mend();
        let served = self.runtime.block_on(store::play::play(&self.store, &prefix, &history.0))?;
        let parts = simulated.iter().zip(&served).position(|(ours, theirs)| ours != theirs);
        match parts {
            None => Ok(()),
            Some(at) => {
                let before = simulated[..at].join("\n    ");
                let (ours, theirs) = (&simulated[at], &served[at]);
                Err(format!("    {before}\n  ! simulator: {ours}\n  ! server:    {theirs}"))
            }
        }
    }
}

const CASES: u32 = 100;

#[test]
fn redis_through_redis_rs_answers_as_the_model_and_the_simulator() {
    let played = Played::on(Server::redis(), Client::RedisRs);
    check("store_redis_redis_rs", CASES, &store::history::histories(), |history| {
        played.as_simulated(history)
    });
}

#[test]
fn redis_through_fred_answers_as_the_model_and_the_simulator() {
    let played = Played::on(Server::redis(), Client::Fred);
    check("store_redis_fred", CASES, &store::history::histories(), |history| {
        played.as_simulated(history)
    });
}

#[test]
fn valkey_through_redis_rs_answers_as_the_model_and_the_simulator() {
    let played = Played::on(Server::valkey(), Client::RedisRs);
    check("store_valkey_redis_rs", CASES, &store::history::histories(), |history| {
        played.as_simulated(history)
    });
}

#[test]
fn valkey_through_fred_answers_as_the_model_and_the_simulator() {
    let played = Played::on(Server::valkey(), Client::Fred);
    check("store_valkey_fred", CASES, &store::history::histories(), |history| {
        played.as_simulated(history)
    });
}
