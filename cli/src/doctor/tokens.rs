//! The records of tokens: `tokens.lua` of the library says what they are.

use std::collections::{BTreeSet, HashMap};

use distkit::backend::{Space, operator};

use super::{
    findings::{Code, Findings},
    plain,
};
use crate::{
    error::Result,
    server::{Server, each_field},
};

/// Checks the index of a space's tokens, and that its live buckets are there. `generation` is that of the shape.
pub(super) async fn check(
    server: &Server,
    space: &Space,
    at: &str,
    generation: Option<&String>,
    found: &mut Findings,
) -> Result<()> {
    let key = operator::tokens(space);
    if !plain::is_sound(server, at, &key, "hash", found).await? {
        if generation.is_some() && server.number("EXISTS", &[&key]).await? == 0 {
            let what = format!("{key} is gone, and the shape says that it was there");
            found.add(Code::GuardsLost, at, what);
        }
        return Ok(());
    }
    let index = fields(server, &key).await?;
    if index.get("lost").is_some_and(|lost| !lost.is_empty()) {
        let what = format!(
            "{key} was lost and made anew: additions under tokens that it does not know are refused until they would \
             have been forgotten, {} s of its age after that at most",
            index.get("keep").map_or("", String::as_str)
        );
        found.add(Code::GuardsLost, at, what);
    }
    for bucket in buckets(&index, "live") {
        let bits = format!("{key}:{bucket}");
        if server.number("EXISTS", &[&bits]).await? == 0 {
            let what = format!("{bits} is gone, and {key} says that it was there");
            found.add(Code::GuardsLost, at, what);
        } else {
            plain::is_lasting(server, at, &bits, found).await?;
        }
    }
    Ok(())
}

/// Those of the names, `<bucket>` or `<bucket>:<part>`, that belong to no bucket of the index.
pub(super) async fn orphans(
    server: &Server,
    space: &Space,
    names: Vec<String>,
) -> Result<Vec<String>> {
    if names.is_empty() {
        return Ok(names);
    }
    let index = fields(server, &operator::tokens(space)).await?;
    let known: BTreeSet<String> =
        buckets(&index, "live").into_iter().chain(buckets(&index, "dead")).collect();
    let is_known = |name: &String| {
        let mut words = name.split(':');
        let bucket = words.next().is_some_and(|bucket| known.contains(bucket));
        let part = words.next().is_none_or(|part| part.parse::<u32>().is_ok());
        bucket && part && words.next().is_none()
    };
    Ok(names.into_iter().filter(|name| !is_known(name)).collect())
}

async fn fields(server: &Server, key: &str) -> Result<HashMap<String, String>> {
    let mut fields = HashMap::new();
    if server.number("EXISTS", &[key]).await? == 1 {
        each_field(server, key, |field, value| {
            fields.insert(field, value);
        })
        .await?;
    }
    Ok(fields)
}

/// The numbers of the buckets in a field: each is the first word of its entry.
fn buckets(index: &HashMap<String, String>, field: &str) -> Vec<String> {
    let entries = index.get(field).map_or("", String::as_str).split(';');
    let numbers = entries.filter_map(|entry| entry.split(' ').next());
    numbers.filter(|number| !number.is_empty()).map(str::to_owned).collect()
}
