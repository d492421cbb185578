//! A warning for servers that may evict counters.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{Arg, Command, LuaStore, Reply, ScriptRunner};

/// Whether the server was asked for its policy.
#[derive(Debug, Default)]
pub(super) struct Asked(AtomicBool);

impl<R: ScriptRunner> LuaStore<R> {
    /// Warns once if the server evicts keys without a TTL. One that does not tell is taken to be sound.
    pub(super) async fn check_policy(&self) {
        // Which node of a cluster answers is not ours to say.
        if self.runner.resends() || self.policy.0.swap(true, Relaxed) {
            return;
        }
        let args = [Arg::Text("GET"), Arg::Text("maxmemory-policy")];
        let Ok(reply) = self.runner.run(Command::keyed("CONFIG", &args)).await else { return };
        if let Some(policy) = evicting(&reply) {
            tracing::warn!(
                target: "distkit::connection",
                policy,
                "the server may evict counters; set maxmemory-policy to noeviction or volatile-*"
            );
        }
    }
}

/// The policy that a server told, if it may take keys without a TTL.
fn evicting(reply: &Reply) -> Option<&'static str> {
    let text = match reply {
        Reply::Array(items) => match items.last() {
            Some(Reply::Bytes(text)) => String::from_utf8_lossy(text).into_owned(),
            _ => return None,
        },
        // A map of RESP3, described.
        Reply::Other(text) => text.clone(),
        _ => return None,
    };
    ["allkeys-lru", "allkeys-lfu", "allkeys-random"]
        .into_iter()
        .find(|policy| text.contains(policy))
}
