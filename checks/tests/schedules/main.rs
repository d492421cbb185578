//! The whole buffering of the lax counters, task and all, under schedules that shuttle chooses.
//!
//! The files of `src/lax` are included as they are. What they wait with is replaced: atomics, locks and the
//! map by shuttle's, and time by one in which every sleep ends when it likes. So a timer may fire
//! before, between or after anything else that can happen.
//!
//! `DISTKIT_SCHEDULES=100000 cargo test -p distkit-checks --test schedules` tries that many schedules
//! for each model.
#![allow(dead_code, unreachable_pub, reason = "the included files have more than the models need")]
#![allow(missing_docs, reason = "stand-ins for documented crates")]

// The included files find these under the names that they use.
extern crate self as dashmap;
extern crate self as parking_lot;
extern crate self as tokio;
extern crate tokio as real_tokio;

#[path = "../../../src/answers.rs"]
mod answers;
#[path = "../../../src/backoff.rs"]
mod backoff;
#[path = "../../../src/counted.rs"]
mod counted;
#[allow(unexpected_cfgs, reason = "features that only the library has")]
#[path = "../../../src/counts.rs"]
mod counts;
#[path = "../../../src/detached.rs"]
mod detached;
#[allow(unexpected_cfgs, reason = "rate limiting has no part here")]
#[path = "../../../src/error.rs"]
mod error;
#[allow(unexpected_cfgs, reason = "features that only the library has")]
#[path = "../../../src/gauges.rs"]
mod gauges;
#[path = "../../../src/key.rs"]
mod key;
#[path = "../../../src/outage.rs"]
mod outage;
#[path = "../../../src/parse_key.rs"]
mod parse_key;
#[path = "../../../src/parse_token.rs"]
mod parse_token;
#[allow(unexpected_cfgs, reason = "features that only the library has")]
#[path = "../../../src/stats.rs"]
mod stats;
#[path = "../../../src/token.rs"]
mod token;

mod backend;
mod counter;
mod lax;
mod map;
mod models;
mod store;
pub mod task;
pub mod time;
mod watch;

pub use backend::CounterComparator;
pub use error::DistkitError;
pub use key::RedisKey;
pub use map::DashMap;
pub use real_tokio::{select, sync};
pub use task::runtime;
pub use token::Token;

/// `parking_lot`'s, which knows no poison.
#[derive(Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

pub use shuttle::sync::MutexGuard;

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}
