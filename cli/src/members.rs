//! The instances of a prefix, looked at without joining them.

use std::time::Duration;

use distkit::backend::{Incarnation, Member, Space, operator};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    server::Server,
};

/// How many requests are in flight at once.
pub(crate) const AT_ONCE: usize = 64;

/// An instance that is joined, or was until its lease expired.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) name: Option<String>,
    /// Where it is joined: it joins each shard of a prefix by itself.
    pub(crate) shard: u16,
    pub(crate) incarnation: u64,
    /// Whether its lease has run out. Its slices count no more; the next operation of another one collects it.
    pub(crate) expired: bool,
    pub(crate) lease_ms: Option<u64>,
    /// Negative since it ended.
    pub(crate) ends_in_ms: i64,
    /// Of how many counters it has a slice.
    pub(crate) counters: u64,
}

/// All instances of a shard, in the order of their joins.
pub(crate) async fn all(server: &Server, space: &Space) -> Result<Vec<Seen>> {
    let names = operator::instance_names(space);
    let leases = format!("{names}leases");
    let now = server.time_us().await? / 1000;
    let mut joined = Vec::new();
    let mut from = 0usize;
    loop {
        let (first, last) = (from.to_string(), (from + 499).to_string());
        let part = server.texts("ZRANGE", &[&leases, &first, &last, "WITHSCORES"]).await?;
        let count = part.len() / 2;
        let mut part = part.into_iter().flatten();
        while let (Some(who), Some(ends)) = (part.next(), part.next()) {
            // ':' marks the set itself.
            if let (Ok(incarnation), Ok(ends)) = (who.parse::<u64>(), ends.parse::<f64>()) {
                joined.push((incarnation, ends as i64));
            }
        }
        from += count;
        if count < 500 {
            break;
        }
    }
    let names = &names;
    let mut seen: Vec<Seen> = stream::iter(joined)
        .map(|(incarnation, ends)| one(server, space.shard(), names, incarnation, ends, now))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    seen.sort_by_key(|seen| seen.incarnation);
    Ok(seen)
}

async fn one(
    server: &Server,
    shard: u16,
    names: &str,
    incarnation: u64,
    ends: i64,
    now: i64,
) -> Result<Seen> {
    let inst = format!("{names}inst:{incarnation}");
    let known = server.texts("HMGET", &[&inst, "id", "name", "lease"]).await?;
    let mut known = known.into_iter();
    let (id, name, lease) = (known.next(), known.next(), known.next());
    // Quick operations renew the key alone.
    let left = server.number("PTTL", &[&format!("{names}lease:{incarnation}")]).await?;
    let in_set = server.number("SCARD", &[&format!("{names}keys:{incarnation}")]).await?;
    let ends_in_ms = if left >= 0 { (left + 1).max(ends - now) } else { ends - now };
    Ok(Seen {
        id: id.flatten().unwrap_or_else(|| incarnation.to_string()),
        name: name.flatten(),
        shard,
        incarnation,
        expired: ends_in_ms <= 0,
        lease_ms: lease.flatten().and_then(|lease| lease.parse().ok()),
        ends_in_ms,
        // Without the mark of the set itself.
        counters: in_set.saturating_sub(1).max(0) as u64,
    })
}

/// The living instance of a shard that `wanted` names by id, name or incarnation; without it the only one that lives.
pub(crate) async fn living(
    server: &Server,
    space: &Space,
    wanted: Option<&str>,
) -> Result<(Seen, Member)> {
    let mut living = all(server, space).await?;
    living.retain(|seen| !seen.expired);
    if living.is_empty() {
        return Err(Error::failed(format!(
            "no instance lives{}: the total of an instance-aware counter is the sum of living instances' \
             slices, so nothing could hold the value",
            in_shard(space)
        )));
    }
    if let Some(wanted) = wanted {
        living.retain(|seen| {
            seen.id == wanted
                || seen.name.as_deref() == Some(wanted)
                || seen.incarnation.to_string() == wanted
        });
    }
    match (living.len(), living.pop()) {
        (1, Some(seen)) => {
            let lease = Duration::from_millis(seen.lease_ms.ok_or_else(|| {
                Error::failed(format!("the lease of {} is not known: run distkit doctor", seen.id))
            })?);
            let member = Member { incarnation: Incarnation(seen.incarnation), lease };
            Ok((seen, member))
        }
        (0, _) => Err(Error::failed(format!(
            "no living instance{} is called {}: see distkit instances",
            in_shard(space),
            wanted.unwrap_or_default()
        ))),
        (several, _) => Err(Error::Usage(format!(
            "{several} instances live{}: say with --on whose slice the total becomes (see distkit instances)",
            in_shard(space)
        ))),
    }
}

/// An instance joins a shard with its first operation there, so it may live in others only.
fn in_shard(space: &Space) -> String {
    match space.shards() {
        1 => String::new(),
        shards => format!(" in the counter's shard, {} of {shards}", space.shard()),
    }
}
