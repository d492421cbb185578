//! Instance-aware totals.
//!
//! Such a total is the sum of living instances' slices, and the old instances are gone. So one instance holds them
//! all, with a long lease. It joins anew in each run, which takes away what an interrupted one put there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{Instance, Member, SliceChange, SliceWrite, Space, operator},
};

use super::{Progress, again, record::Record};
use crate::{
    error::{Error, Result},
    members,
    server::{Server, each_field},
};

const BATCH: usize = 200;

pub(super) const FIELD: &str = "instances";

/// The id and the name of the instance that holds what was imported.
pub(super) const HOLDER: &str = "distkit-import";

/// What cannot come from an import of these totals.
pub(super) async fn moved(
    server: &Server,
    space: &Space,
    totals: &BTreeMap<RedisKey, i64>,
    record: Option<&Record>,
) -> Result<Vec<String>> {
    let mut moved: Vec<String> = members::all(server, space)
        .await?
        .into_iter()
        .filter(|seen| !seen.expired && seen.id != HOLDER)
        .map(|seen| format!("instance {} is joined", seen.id))
        .collect();
    let index = format!("{}index", operator::instance_names(space));
    let mut held = Vec::new();
    each_field(server, &index, |key, _| held.push(key)).await?;
    held.sort();
    held.dedup();
    let mut present = BTreeMap::new();
    for batch in held.chunks(BATCH) {
        let keys = batch.iter().map(RedisKey::new).collect::<std::result::Result<Vec<_>, _>>()?;
        for (key, outcome) in keys.iter().zip(server.store.totals(space, &keys).await?) {
            match outcome {
                // Of instances that are gone.
                Ok(0) => {}
                Ok(total) if totals.get(key) == Some(&total) => {
                    present.insert(key.clone(), total);
                }
                Ok(total) => moved.push(format!("{key}: {total} in the new layout")),
                Err(refusal) => moved.push(format!("{key}: {refusal}")),
            }
        }
    }
    match record {
        Some(record) if record.done => moved.extend(
            totals
                .iter()
                .filter(|(key, total)| **total != 0 && !present.contains_key(*key))
                .map(|(key, total)| format!("{key}: {total} was imported, and is gone")),
        ),
        Some(_) => {}
        None => moved.extend(present.keys().map(|key| format!("{key} is there before any import"))),
    }
    Ok(moved)
}

pub(super) async fn apply(
    server: &Server,
    space: &Space,
    totals: &BTreeMap<RedisKey, i64>,
    lease: Duration,
    progress: &Progress,
) -> Result<()> {
    let mut holder = Instance::new(Arc::from(HOLDER), lease);
    holder.name = Some(RedisKey::new(HOLDER)?);
    let joined = again(|| server.store.join(space, &holder, &[])).await?;
    let member = Member { incarnation: joined.incarnation, lease };
    let all: Vec<(&RedisKey, i64)> =
        totals.iter().map(|(key, total)| (key, *total)).filter(|(_, total)| *total != 0).collect();
    for (batch, sequence) in all.chunks(BATCH).zip(1u64..) {
        let writes: Vec<SliceWrite> = batch
            .iter()
            .map(|(key, total)| SliceWrite::new((*key).clone(), SliceChange::SetSlice(*total)))
            .collect();
        let answer =
            again(|| server.store.apply_on(space, &member, &writes, Some(sequence))).await?;
        for ((key, total), outcome) in batch.iter().zip(answer.answer.outcomes) {
            let standing = outcome.map_err(|refusal| Error::failed(format!("{key}: {refusal}")))?;
            if standing.new.total != *total {
                return Err(Error::failed(format!(
                    "{key} holds {} and not {total}: somebody counts under this prefix",
                    standing.new.total
                )));
            }
        }
        progress.advance(batch.len())?;
    }
    Ok(())
}
