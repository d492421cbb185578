//! `distkit` 0.7.1. Its errors do not say whether the addition counts.

use std::sync::Arc;

use old::{
    DistkitRedisKey,
    counter::{CounterOptions, CounterTrait as _, LaxCounter, StrictCounter},
};
use redis::aio::ConnectionManager;

use super::{Adds, Names, Told};

pub(super) const LAX_HASH: &str = "peers:lax_counter";
pub(super) const STRICT_HASH: &str = "peers:strict_counter";

fn key(name: &str) -> DistkitRedisKey {
    DistkitRedisKey::try_from(name.to_owned()).expect("a valid key")
}

/// A lax counter and its keys.
#[derive(Debug)]
pub struct Lax {
    counter: Arc<LaxCounter>,
    keys: Vec<DistkitRedisKey>,
}

impl Lax {
    pub(super) fn new(connection: ConnectionManager, names: &Names) -> Self {
        let keys = names.iter().map(|name| key(name)).collect();
        Self { counter: LaxCounter::new(CounterOptions::new(key("peers"), connection)), keys }
    }
}

impl Adds for Lax {
    async fn add(&self, key: usize) -> Told {
        self.counter.inc(&self.keys[key], 1).await.map_or(Told::Unknown, |_| Told::Counted)
    }
}

/// A strict counter and its keys.
#[derive(Debug)]
pub struct Strict {
    counter: Arc<StrictCounter>,
    keys: Vec<DistkitRedisKey>,
}

impl Strict {
    pub(super) fn new(connection: ConnectionManager, names: &Names) -> Self {
        let keys = names.iter().map(|name| key(name)).collect();
        Self { counter: StrictCounter::new(CounterOptions::new(key("peers"), connection)), keys }
    }
}

impl Adds for Strict {
    async fn add(&self, key: usize) -> Told {
        self.counter.inc(&self.keys[key], 1).await.map_or(Told::Unknown, |_| Told::Counted)
    }
}
