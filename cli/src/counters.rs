//! `get`, `set`, `slices`, `instances`, `clear`.

use std::{
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
    error::{Error, Result},
    members,
    output::{print, table},
    server::Server,
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
    space: &Space,
    keys: &[String],
    instance_aware: bool,
    json: bool,
) -> Result<bool> {
    let keys = keys.iter().map(RedisKey::new).collect::<std::result::Result<Vec<_>, _>>()?;
    let outcomes: Vec<Outcome<i64>> = if instance_aware {
        server.store.totals(space, &keys).await?
    } else {
        server.store.read(space, &keys).await?
    };
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
    space: &Space,
    key: &str,
    value: i64,
    on: Option<Option<&str>>,
    json: bool,
) -> Result<()> {
    let key = RedisKey::new(key)?;
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

pub(crate) async fn slices(server: &Server, space: &Space, key: &str, json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Part {
        instance_id: String,
        name: Option<String>,
        value: i64,
    }
    let slices = server.store.slices(space, &RedisKey::new(key)?).await?;
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

pub(crate) async fn instances(server: &Server, space: &Space, json: bool) -> Result<()> {
    let all = members::all(server, space).await?;
    print(json, &all, |all| {
        let row = |seen: &members::Seen| {
            let duration = |ms: u64| format!("{:?}", Duration::from_millis(ms));
            let ends = duration(seen.ends_in_ms.unsigned_abs());
            vec![
                seen.id.clone(),
                seen.name.clone().unwrap_or_else(|| "-".to_owned()),
                seen.incarnation.to_string(),
                if seen.expired { "expired" } else { "live" }.to_owned(),
                seen.lease_ms.map_or_else(|| "?".to_owned(), duration),
                if seen.expired { format!("{ends} ago") } else { format!("in {ends}") },
                seen.counters.to_string(),
            ]
        };
        let header = ["instance", "name", "incarnation", "state", "lease", "ends", "counters"];
        table(&header, all.iter().map(row))
    })
}

/// Asks on the terminal; without one only `--yes` will do.
fn confirm(question: &str, expected: &str) -> Result<()> {
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
    Err(Error::failed("nothing was deleted"))
}

pub(crate) async fn clear(
    server: &Server,
    space: &Space,
    instance_aware: bool,
    yes: bool,
    json: bool,
) -> Result<()> {
    let (what, hash) = if instance_aware {
        ("instance-aware", format!("{}index", operator::instance_names(space)))
    } else {
        ("plain", operator::totals(space))
    };
    let count = server.number("HLEN", &[&hash]).await?;
    let prefix = space.prefix();
    if !yes {
        let question = format!(
            "This deletes the {count} {what} counters of the prefix {prefix} on {}.",
            server.name
        );
        confirm(&question, prefix)?;
    }
    if instance_aware {
        clear_instances(server, space).await?;
    } else {
        server.store.clear(space).await?;
    }
    // What was imported is gone: it may be imported anew.
    let field = if instance_aware { "instances" } else { "plain" };
    server.command("HDEL", &[&operator::import(space), field]).await?;
    let done = json!({ "prefix": prefix.as_str(), "family": what, "deleted": count });
    print(json, &done, |_| format!("{count} {what} counters of {prefix} deleted"))
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
