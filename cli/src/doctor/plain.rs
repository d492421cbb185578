//! The shape of a space and its plain counters.

use std::collections::HashMap;

use distkit::{
    RedisKey,
    backend::{Space, operator, operator::RawReply},
};

use super::findings::{Code, Findings};
use crate::{
    error::Result,
    server::{Server, each_field},
};

/// Whether text is a decimal `i64` as HINCRBY takes it.
pub(super) fn is_count(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
}

pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

/// Checks a key's type and that it has no expiry. Gives whether it is there and can be looked into.
pub(super) async fn is_sound(
    server: &Server,
    at: &str,
    key: &str,
    wanted: &str,
    found: &mut Findings,
) -> Result<bool> {
    if server.number("EXISTS", &[key]).await? == 0 {
        return Ok(false);
    }
    // TYPE is a right that services do not have.
    let command = if wanted == "hash" { "HLEN" } else { "ZCARD" };
    match server.ask(command, &[key]).await? {
        RawReply::Error { code, .. } if code == "WRONGTYPE" => {
            found.add(
                Code::WrongType,
                at,
                format!("{key} should be a {wanted}, and is something else"),
            );
            return Ok(false);
        }
        RawReply::Error { code, detail } => {
            found.unchecked(format!("{key}: {code} {detail}"));
            return Ok(false);
        }
        _ => {}
    }
    is_lasting(server, at, key, found).await?;
    Ok(true)
}

/// Checks that a key has no expiry.
pub(super) async fn is_lasting(
    server: &Server,
    at: &str,
    key: &str,
    found: &mut Findings,
) -> Result<()> {
    let ttl = server.number("PTTL", &[key]).await?;
    if ttl >= 0 {
        // Of a prefix that expires when it is idle all keys have one.
        if let Some((tag, _)) = key.split_once("}:") {
            let shards = server.text("HGET", &[&format!("{tag}}}:shape"), "shards"]).await?;
            if shards.is_some_and(|shards| shards.contains('/')) {
                return Ok(());
            }
        }
        found.add(Code::TtlOnKey, at, format!("{key} expires in {} s", ttl / 1000));
    }
    Ok(())
}

/// The fields of a shape, none where there is none.
pub(super) async fn shape(
    server: &Server,
    space: &Space,
    at: &str,
    found: &mut Findings,
) -> Result<HashMap<String, String>> {
    let key = operator::shape(space);
    let mut shape = HashMap::new();
    if is_sound(server, at, &key, "hash", found).await? {
        each_field(server, &key, |field, value| {
            shape.insert(field, value);
        })
        .await?;
    }
    Ok(shape)
}

/// What is wrong with a counter that is in this shard, if it belongs to another one.
pub(super) fn strayed(space: &Space, key: &RedisKey) -> Option<String> {
    let shard = Space::shard_of(key, space.shards());
    (shard != space.shard()).then(|| {
        let name = shown(key);
        format!(
            "{name} is in shard {}, and belongs to shard {shard}: no counter reads it",
            space.shard()
        )
    })
}

pub(super) async fn check(
    server: &Server,
    space: &Space,
    at: &str,
    shape: &HashMap<String, String>,
    found: &mut Findings,
) -> Result<()> {
    let key = operator::totals(space);
    if is_sound(server, at, &key, "hash", found).await? {
        if shape.is_empty() {
            let what = format!("{key} is there, and {} is not", operator::shape(space));
            found.add(Code::SpaceHalfLost, at, what);
        }
        let mut foreign = |what| found.add(Code::ForeignTotal, at, what);
        each_field(server, &key, |field, value| {
            // Reserved for later versions.
            if field.starts_with(':') {
                return;
            }
            let Ok(name) = RedisKey::new(&field) else {
                foreign(format!("{key} has a field {}, which no counter is called", shown(&field)));
                return;
            };
            if let Some(strayed) = strayed(space, &name) {
                foreign(strayed);
            } else if !is_count(&value) {
                foreign(format!("{} holds {}, which is no i64", shown(&field), shown(&value)));
            }
        })
        .await?;
    }
    let counted = shape.get("totals").is_some_and(|life| !life.ends_with('-'));
    if counted && server.number("EXISTS", &[&key]).await? == 0 {
        let what =
            format!("{key} is gone, and {} says that there were counters", operator::shape(space));
        found.add(Code::SpaceHalfLost, at, what);
    }
    guards(server, at, &operator::writers(space), shape.get("guards"), false, found).await?;
    guards(server, at, &operator::lanes(space), shape.get("lanes"), true, found).await
}

/// The records of requests: whether they are those that the shape speaks of, and complete.
async fn guards(
    server: &Server,
    at: &str,
    key: &str,
    generation: Option<&String>,
    are_lanes: bool,
    found: &mut Findings,
) -> Result<()> {
    if !is_sound(server, at, key, "hash", found).await? {
        if generation.is_some() && server.number("EXISTS", &[key]).await? == 0 {
            found.add(
                Code::GuardsLost,
                at,
                format!("{key} is gone, and the shape says that it was there"),
            );
        }
        return Ok(());
    }
    let mut clock = None;
    let mut unanswered = Vec::new();
    each_field(server, key, |field, value| {
        if field == ":clock" {
            clock = Some(value);
        } else if are_lanes && !value.contains('\n') {
            // "<sequence> <age>", the sequence 0 where nothing was ever done.
            let sequence = value.split(' ').next().and_then(|text| text.parse::<u64>().ok());
            if sequence != Some(0) {
                unanswered.push(field);
            }
        }
    })
    .await?;
    for lane in unanswered {
        let what = format!("the lane {} of {key} holds a request without its answer", shown(&lane));
        found.add(Code::LaneUnanswered, at, what);
    }
    let made = clock.as_deref().and_then(|clock| clock.split(' ').next());
    if made != generation.map(String::as_str) {
        let what = format!(
            "{key} was made at {}, and the shape speaks of {}",
            made.unwrap_or("an unknown time"),
            generation.map_or("none", String::as_str)
        );
        found.add(Code::GuardsLost, at, what);
    }
    Ok(())
}
