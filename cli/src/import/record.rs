//! What the server keeps of an import, so that it can go on after an interruption and is not done twice.

use std::collections::BTreeMap;

use distkit::{
    RedisKey,
    backend::{Space, operator},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    server::Server,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of the names and totals that are moved.
    pub(super) digest: String,
    pub(super) counters: usize,
    /// The last counter, in the order of names, that is certainly there.
    pub(super) through: Option<String>,
    pub(super) done: bool,
}

impl Record {
    pub(super) fn new(totals: &BTreeMap<RedisKey, i64>) -> Self {
        Self { digest: digest(totals), counters: totals.len(), through: None, done: false }
    }

    pub(super) async fn read(server: &Server, space: &Space, field: &str) -> Result<Option<Self>> {
        let key = operator::import(space);
        let Some(text) = server.text("HGET", &[&key, field]).await? else { return Ok(None) };
        let unreadable =
            |error| Error::failed(format!("{key} holds no record of an import: {error}"));
        serde_json::from_str(&text).map(Some).map_err(unreadable)
    }

    pub(super) async fn write(&self, server: &Server, space: &Space, field: &str) -> Result<()> {
        let text = serde_json::to_string(self)?;
        server.command("HSET", &[&operator::import(space), field, &text]).await?;
        Ok(())
    }

    /// Whether an import put this counter into the store, for certain.
    pub(super) fn put(&self, key: &RedisKey) -> bool {
        self.done || self.through.as_deref().is_some_and(|through| key.as_str() <= through)
    }
}

pub(super) fn digest(totals: &BTreeMap<RedisKey, i64>) -> String {
    let mut hash = sha1_smol::Sha1::new();
    for (key, total) in totals {
        // No name has a colon.
        hash.update(format!("{key}:{total}\n").as_bytes());
    }
    hash.digest().to_string()
}
