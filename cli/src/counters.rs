//! `get`, `set`, `slices`, `instances`, `clear`.

use std::{
    collections::BTreeMap,
    io::{BufRead, IsTerminal, Write as _, stderr, stdin},
    time::Duration,
};

use distkit::{
    RedisKey,
    backend::{
        BackendError, Instance, Member, Outcome, Scope, SliceChange, SliceWrite, Space, Write,
        operator,
    },
};
use serde::Serialize;
use serde_json::json;

use crate::{
    error::{Error, Result, chain},
    members,
    output::{print, table},
    server::Server,
    shards::{Prefix, side_by_side},
};

#[derive(Serialize)]
struct Total<'a> {
    key: &'a str,
    total: Option<i64>,
    /// Why there is none.
    error: Option<String>,
}

/// Gives whether every key could be read.
pub(crate) async fn get(
    server: &Server,
    prefix: &Prefix,
    keys: &[String],
    instance_aware: bool,
    json: bool,
) -> Result<bool> {
    let keys = keys.iter().map(RedisKey::new).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut by_shard: BTreeMap<usize, (Vec<usize>, Vec<RedisKey>)> = BTreeMap::new();
    for (at, key) in keys.iter().enumerate() {
        let (places, keys) = by_shard.entry(prefix.shard_of(key)).or_default();
        places.push(at);
        keys.push(key.clone());
    }
    let answers = side_by_side(by_shard, |(shard, (places, keys))| async move {
        let space = &prefix.shards()[shard];
        let outcomes: Vec<Outcome<i64>> = if instance_aware {
            server.store.totals(space, &keys).await?
        } else {
            server.store.read(space, &keys).await?
        };
        Ok(places.into_iter().zip(outcomes).collect::<Vec<_>>())
    });
    let mut outcomes: Vec<(usize, Outcome<i64>)> = Vec::with_capacity(keys.len());
    for answer in answers.await {
        outcomes.extend(answer?);
    }
    outcomes.sort_unstable_by_key(|(at, _)| *at);
    let outcomes: Vec<Outcome<i64>> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let totals: Vec<Total<'_>> = keys
        .iter()
        .zip(&outcomes)
        .map(|(key, outcome)| Total {
            key,
            total: outcome.as_ref().ok().copied(),
            error: outcome.as_ref().err().map(ToString::to_string),
        })
        .collect();
    print(json, &totals, |totals| {
        let row = |total: &Total<'_>| {
            let shown = total.total.map(|total| total.to_string()).or(total.error.clone());
            vec![total.key.to_owned(), shown.unwrap_or_default()]
        };
        table(&["key", "total"], totals.iter().map(row))
    })?;
    Ok(outcomes.iter().all(std::result::Result::is_ok))
}

fn refused(key: &RedisKey) -> impl Fn(distkit::backend::Refusal) -> Error {
    move |refusal| Error::failed(format!("{key} was not changed: {refusal}"))
}

fn no_answer() -> Error {
    Error::failed("the store gave another number of answers than it was asked for")
}

pub(crate) async fn set(
    server: &Server,
    prefix: &Prefix,
    key: &str,
    value: i64,
    on: Option<Option<&str>>,
    json: bool,
) -> Result<()> {
    let key = RedisKey::new(key)?;
    let space = prefix.of_key(&key);
    let (old, holder) = match on {
        None => {
            let writes = [Write::set(key.clone(), value)];
            let applied = server.store.apply(space, &writes, None).await?;
            let written = applied.outcomes.into_iter().next().ok_or_else(no_answer)?;
            (written.map_err(refused(&key))?.old, None)
        }
        Some(wanted) => {
            let (seen, member) = members::living(server, space, wanted).await?;
            let writes = [SliceWrite::new(key.clone(), SliceChange::SetTotal(value))];
            let answer = server.store.apply_on(space, &member, &writes, None).await?;
            let written = answer.answer.outcomes.into_iter().next().ok_or_else(no_answer)?;
            (written.map_err(refused(&key))?.old.total, Some(seen.id))
        }
    };
    let done = json!({ "key": key.as_str(), "old": old, "total": value, "instance": holder });
    print(json, &done, |_| match &holder {
        None => format!("{key}: {old} -> {value}"),
        Some(holder) => format!("{key}: {old} -> {value}, the slice of {holder}"),
    })
}

pub(crate) async fn slices(server: &Server, prefix: &Prefix, key: &str, json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Part {
        instance_id: String,
        name: Option<String>,
        value: i64,
    }
    let key = RedisKey::new(key)?;
    let slices = server.store.slices(prefix.of_key(&key), &key).await?;
    let parts: Vec<Part> = slices
        .into_iter()
        .map(|slice| Part {
            instance_id: slice.instance_id,
            name: slice.name.map(|name| name.to_string()),
            value: slice.value,
        })
        .collect();
    print(json, &parts, |parts| {
        let row = |part: &Part| {
            let name = part.name.clone().unwrap_or_else(|| "-".to_owned());
            vec![part.instance_id.clone(), name, part.value.to_string()]
        };
        table(&["instance", "name", "slice"], parts.iter().map(row))
    })
}

pub(crate) async fn instances(server: &Server, prefix: &Prefix, json: bool) -> Result<()> {
    let mut all = Vec::new();
    for seen in side_by_side(prefix.shards(), |space| members::all(server, space)).await {
        all.extend(seen?);
    }
    print(json, &all, |all| {
        let row = |seen: &members::Seen| {
            let duration = |ms: u64| format!("{:?}", Duration::from_millis(ms));
            let ends = duration(seen.ends_in_ms.unsigned_abs());
            let mut row = vec![
                seen.id.clone(),
                seen.name.clone().unwrap_or_else(|| "-".to_owned()),
                seen.incarnation.to_string(),
                if seen.expired { "expired" } else { "live" }.to_owned(),
                seen.lease_ms.map_or_else(|| "?".to_owned(), duration),
                if seen.expired { format!("{ends} ago") } else { format!("in {ends}") },
                seen.counters.to_string(),
            ];
            if prefix.is_sharded() {
                row.push(seen.shard.to_string());
            }
            row
        };
        let header =
            ["instance", "name", "incarnation", "state", "lease", "ends", "counters", "shard"];
        let columns = if prefix.is_sharded() { header.len() } else { header.len() - 1 };
        table(&header[..columns], all.iter().map(row))
    })
}

/// Asks on the terminal; without one only `--yes` will do.
pub(crate) fn confirm(question: &str, expected: &str, refused: &str) -> Result<()> {
    if !stdin().is_terminal() {
        return Err(Error::Usage(format!("{question}: nobody can be asked here, give --yes")));
    }
    let mut errors = stderr();
    write!(errors, "{question}\nType {expected} to go on: ")?;
    errors.flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    if answer.trim() == expected {
        return Ok(());
    }
    Err(Error::failed(refused))
}

pub(crate) async fn clear(
    server: &Server,
    prefix: &Prefix,
    instance_aware: bool,
    yes: bool,
    json: bool,
) -> Result<()> {
    let what = if instance_aware { "instance-aware" } else { "plain" };
    let counts = side_by_side(prefix.shards(), |space| async move {
        let hash = if instance_aware {
            format!("{}index", operator::instance_names(space))
        } else {
            operator::totals(space)
        };
        server.number("HLEN", &[&hash]).await
    });
    let count: i64 = counts.await.into_iter().sum::<Result<i64>>()?;
    let name = prefix.name();
    if !yes {
        let question = format!(
            "This deletes the {count} {what} counters of the prefix {name} on {}.",
            server.name
        );
        confirm(&question, name, "nothing was deleted")?;
    }
    let cleared = side_by_side(prefix.shards(), |space| async move {
        if instance_aware {
            clear_instances(server, space).await
        } else {
            Ok(server.store.clear(space).await?)
        }
    });
    all_cleared(cleared.await)?;
    // What was imported is gone: it may be imported anew.
    let field = if instance_aware { "instances" } else { "plain" };
    server.command("HDEL", &[&operator::import(prefix.own()), field]).await?;
    let done = json!({ "prefix": name.as_str(), "family": what, "deleted": count });
    print(json, &done, |_| format!("{count} {what} counters of {name} deleted"))
}

/// Each shard is cleared by itself: the error says which ones are not.
fn all_cleared(results: Vec<Result<()>>) -> Result<()> {
    let shards = results.len();
    let mut failed: Vec<(usize, Error)> = results
        .into_iter()
        .enumerate()
        .filter_map(|(shard, result)| Some((shard, result.err()?)))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = failed.iter().map(|(shard, _)| shard.to_string()).collect();
    let (shard, error) = failed.swap_remove(0);
    if shards == 1 {
        return Err(error);
    }
    Err(Error::failed(format!(
        "of {shards} shards, all but these are cleared: {}. The clear may be repeated. Shard {shard}: {}",
        named.join(", "),
        chain(&error)
    )))
}

/// Whoever clears is a member: one for that alone where the space has none to do it for.
async fn clear_instances(server: &Server, space: &Space) -> Result<()> {
    let store = &server.store;
    let lease = Duration::from_secs(60);
    let joined = store.join(space, &Instance::new(store.fresh_id(), lease), &[]).await?;
    let member = Member { incarnation: joined.incarnation, lease };
    let cleared = store.clear_on(space, &member, Scope::Total).await;
    let left: std::result::Result<(), BackendError> = store.leave(space, &member).await;
    cleared?;
    Ok(left?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clear_names_the_shards_that_failed() {
        let failed = || Err(Error::failed("no answer"));
        assert!(all_cleared(vec![Ok(()), Ok(())]).is_ok());
        let error = all_cleared(vec![Ok(()), failed(), Ok(()), failed()]).unwrap_err().to_string();
        assert!(error.contains("of 4 shards") && error.contains(": 1, 3."), "{error}");
        assert!(error.contains("Shard 1: no answer"), "{error}");
        assert_eq!(all_cleared(vec![failed()]).unwrap_err().to_string(), "no answer");
    }
}
