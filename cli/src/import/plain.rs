//! Strict and lax totals, which are one kind of counter now.
//!
//! Each total is set where the new counter reads 0. So a request that is sent again, a second import beside this
//! one and one after a kill find it there, and change nothing.

use std::collections::{BTreeMap, HashMap};

use distkit::{
    CounterComparator, RedisKey,
    backend::{Space, Write, operator},
};

use super::{Progress, again, record::Record};
use crate::{
    error::{Error, Result},
    server::{Server, each_field},
};

/// How many totals one request sets: about 2 ms of the server.
const BATCH: usize = 500;

pub(super) const FIELD: &str = "plain";

/// What is in the new layout, beside what should be.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) todo: Vec<RedisKey>,
    /// What cannot come from this import.
    pub(super) moved: Vec<String>,
}

pub(super) async fn standing(
    server: &Server,
    space: &Space,
    totals: &BTreeMap<RedisKey, i64>,
    record: Option<&Record>,
) -> Result<Standing> {
    let mut held: HashMap<String, String> = HashMap::new();
    each_field(server, &operator::totals(space), |field, value| {
        held.insert(field, value);
    })
    .await?;
    let mut standing = Standing::default();
    for (key, total) in totals {
        match held.remove(key.as_str()) {
            None if record.is_some_and(|record| record.put(key)) => {
                standing.moved.push(format!("{key}: {total} was imported, and is deleted"));
            }
            None => standing.todo.push(key.clone()),
            Some(value) if value == total.to_string() => {}
            Some(value) => {
                standing
                    .moved
                    .push(format!("{key}: {total} in the old layout, {value} in the new one"));
            }
        }
    }
    // Fields that begin with a colon are no counters.
    let others = held.into_iter().filter(|(key, _)| !key.starts_with(':'));
    standing.moved.extend(
        others.map(|(key, value)| format!("{key}: {value} in the new layout, not in the old one")),
    );
    standing.moved.sort();
    Ok(standing)
}

pub(super) async fn apply(
    server: &Server,
    space: &Space,
    totals: &BTreeMap<RedisKey, i64>,
    todo: &[RedisKey],
    record: &mut Record,
    progress: &Progress,
) -> Result<()> {
    for batch in todo.chunks(BATCH) {
        let writes: Vec<Write> = batch
            .iter()
            .filter_map(|key| Some((key, *totals.get(key)?)))
            .map(|(key, total)| Write::set(key.clone(), total).only_if(CounterComparator::Eq(0)))
            .collect();
        // An attempt that was applied and not answered is seen as done by the next one.
        let applied = again(|| server.store.apply(space, &writes, None)).await?;
        for (key, outcome) in batch.iter().zip(applied.outcomes) {
            let total = totals.get(key).copied().unwrap_or(0);
            let moved = |found: String| {
                Error::failed(format!(
                    "{key} holds {found} and not {total}: somebody counts under this prefix. What was imported before \
                     stays; nothing was overwritten"
                ))
            };
            match outcome {
                Ok(written) if written.condition_met || written.old == total => {}
                Ok(written) => return Err(moved(written.old.to_string())),
                Err(refusal) => return Err(moved(refusal.to_string())),
            }
        }
        record.through = batch.last().map(ToString::to_string);
        record.write(server, space, FIELD).await?;
        progress.advance(batch.len())?;
    }
    Ok(())
}
