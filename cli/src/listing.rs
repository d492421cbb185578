//! `ls`.

use std::io::{BufWriter, ErrorKind, Write, stdout};

use distkit::{
    DistkitError, KeyFilter, Listing, RedisKey,
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
        TotalAndSlices,
    },
};
use serde_json::{Value, json};

use crate::{
    args::List,
    error::{Error, Result, chain},
    output::{print, printable, table},
    server::Server,
    shards::Prefix,
};

/// Gives whether every counter could be read.
pub(crate) async fn ls(server: &Server, prefix: &Prefix, list: &List, json: bool) -> Result<bool> {
    let filter = match (&list.glob, &list.starting_with) {
        (Some(glob), _) => KeyFilter::glob(glob),
        (None, Some(text)) => KeyFilter::prefix(text),
        (None, None) => KeyFilter::all(),
    };
    let (shards, store) = (prefix.count(), server.store.clone());
    let prefix = prefix.name().clone();
    if !list.family.instance_aware {
        let options = CounterOptions::new(prefix, store).shards(shards);
        let all = StrictCounter::new(options).list(&filter);
        return totals(all, list.top, json).await;
    }
    // It lists without joining.
    let options = StrictInstanceAwareCounterOptions::new(prefix, store).shards(shards);
    let counter = StrictInstanceAwareCounter::new(options);
    if list.slices {
        return stream(counter.list_slices(&filter), json, slices_of).await;
    }
    totals(counter.list(&filter), list.top, json).await
}

async fn totals(all: Listing<(RedisKey, i64)>, top: Option<usize>, json: bool) -> Result<bool> {
    let Some(top) = top else {
        return stream(all, json, |key, total| {
            (format!("{}\t{total}", printable(key)), json!({ "key": &**key, "total": total }))
        })
        .await;
    };
    let greatest = all.greatest(top).await.map_err(failed)?;
    let rows: Vec<_> = greatest
        .iter()
        .map(|(key, total)| json!({ "key": key.as_str(), "total": total }))
        .collect();
    print(json, &rows, |_| {
        let row = |(key, total): &(RedisKey, i64)| vec![key.to_string(), total.to_string()];
        table(&["key", "total"], greatest.iter().map(row))
    })?;
    Ok(true)
}

fn slices_of(key: &RedisKey, held: &TotalAndSlices) -> (String, Value) {
    let mut line = format!("{}\t{}", printable(key), held.total);
    for slice in &held.slices {
        let who = slice.name.as_deref().unwrap_or(&slice.instance_id);
        line.push_str(&format!("\t{}={}", printable(who), slice.value));
    }
    let slices: Vec<_> = held
        .slices
        .iter()
        .map(|slice| {
            let name = slice.name.as_deref();
            json!({ "instance_id": slice.instance_id, "name": name, "value": slice.value })
        })
        .collect();
    (line, json!({ "key": &**key, "total": held.total, "slices": slices }))
}

fn failed(error: DistkitError) -> Error {
    match error {
        DistkitError::NotApplied(error) => error.into(),
        error => Error::failed(chain(&error)),
    }
}

/// Prints counters as they come: a line each, or an array of JSON. What is no counter is named, and the rest goes on.
async fn stream<V: Send + 'static>(
    mut all: Listing<(RedisKey, V)>,
    json: bool,
    shown: impl Fn(&RedisKey, &V) -> (String, Value),
) -> Result<bool> {
    let mut out = BufWriter::new(stdout().lock());
    let (mut sound, mut separator) = (true, "[\n");
    while let Some(item) = all.next().await {
        let (line, value) = match item {
            Ok((key, held)) => shown(&key, &held),
            Err(error) => {
                let text = chain(&error);
                match &error {
                    DistkitError::CounterError { key, .. } => {
                        sound = false;
                        let line = format!("{}\t{}", printable(key), printable(&text));
                        (line, json!({ "key": &**key, "total": null, "error": text }))
                    }
                    DistkitError::InvalidRedisKey(_) => {
                        sound = false;
                        (printable(&text), json!({ "key": null, "total": null, "error": text }))
                    }
                    // What is left of a shard is missing: not a list to go by.
                    _ => return Err(failed(error)),
                }
            }
        };
        let written = match json {
            true => write!(out, "{separator}  {value}"),
            false => writeln!(out, "{line}"),
        };
        if !goes_on(written)? {
            return Ok(sound);
        }
        separator = ",\n";
    }
    let end = match (json, separator) {
        (true, "[\n") => writeln!(out, "[]"),
        (true, _) => writeln!(out, "\n]"),
        (false, _) => Ok(()),
    };
    goes_on(end.and_then(|()| out.flush()))?;
    Ok(sound)
}

/// Whether somebody reads on: `distkit ls | head`.
fn goes_on(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}
