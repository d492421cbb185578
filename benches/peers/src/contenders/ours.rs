//! This crate.

use std::sync::Arc;

use distkit::{
    DistkitError, RedisKey,
    backend::ReconnectingConnection,
    counter::{CounterOptions, CounterTrait as _, LaxCounter, StrictCounter},
};

use super::{Adds, Names, Told};

pub(super) const HASH: &str = "distkit:{peers}:totals";

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).expect("a valid key")
}

async fn options(url: &str) -> CounterOptions {
    let client = redis::Client::open(url).expect("a valid URL");
    let connection = ReconnectingConnection::connect(client).await.expect("the server is there");
    CounterOptions::new(key("peers"), connection)
}

fn told(result: Result<i64, DistkitError>) -> Told {
    match result {
        Ok(_) => Told::Counted,
        Err(
            DistkitError::NotApplied(_)
            | DistkitError::CounterError { .. }
            | DistkitError::TooManyPending { .. }
            | DistkitError::ShutDown,
        ) => Told::NotApplied,
        Err(_) => Told::Unknown,
    }
}

/// A lax counter and its keys.
#[derive(Debug)]
pub struct Lax {
    counter: Arc<LaxCounter>,
    keys: Vec<RedisKey>,
}

impl Lax {
    pub(super) async fn connect(url: &str, names: &Names) -> Self {
        let keys = names.iter().map(|name| key(name)).collect();
        Self { counter: LaxCounter::new(options(url).await), keys }
    }
}

impl Adds for Lax {
    async fn add(&self, key: usize) -> Told {
        told(self.counter.inc(&self.keys[key], 1).await)
    }
}

/// A strict counter and its keys.
#[derive(Debug)]
pub struct Strict {
    counter: Arc<StrictCounter>,
    keys: Vec<RedisKey>,
}

impl Strict {
    pub(super) async fn connect(url: &str, names: &Names) -> Self {
        let keys = names.iter().map(|name| key(name)).collect();
        Self { counter: StrictCounter::new(options(url).await), keys }
    }
}

impl Adds for Strict {
    async fn add(&self, key: usize) -> Told {
        told(self.counter.inc(&self.keys[key], 1).await)
    }
}
