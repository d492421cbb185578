//! One `HINCRBY` for each call.

use std::fmt;

use redis::aio::ConnectionManager;

use super::{Adds, Names, Told};

pub(super) const HASH: &str = "raw";

/// A connection.
pub struct Raw {
    connection: ConnectionManager,
    names: Names,
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").finish_non_exhaustive()
    }
}

impl Raw {
    pub(super) fn new(connection: ConnectionManager, names: &Names) -> Self {
        Self { connection, names: names.clone() }
    }
}

impl Adds for Raw {
    async fn add(&self, key: usize) -> Told {
        let mut command = redis::cmd("HINCRBY");
        command.arg(HASH).arg(&self.names[key]).arg(1);
        let total = command.query_async::<i64>(&mut self.connection.clone()).await;
        total.map_or(Told::Unknown, |_| Told::Counted)
    }
}
