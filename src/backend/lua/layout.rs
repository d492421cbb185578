//! The names of this crate's keys in Redis.
//!
//! `TAG` is a space's prefix with `%`, `{` and `}` percent-encoded, so that it is always the hash tag:
//! all keys of a space are in one slot of a cluster, whatever its prefix.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `distkit:{TAG}:totals` | hash | plain counter -> decimal total |
//! | `distkit:{TAG}:writer:<id>` | string | a writer's latest guarded batch: its sequence, then a line for each refused item; expires a day after the batch |
//! | `distkit:{TAG}:i:...` | | the instance-aware counters: see `instance_names.lua` |
//! | `distkit:{TAG}:lane:<id>` | string | the latest answer of a lane; expires after an hour |

use std::fmt::Write;

use crate::backend::Space;

/// `distkit:{TAG}:` and `rest`.
pub(crate) fn key(space: &Space, rest: &str) -> String {
    let prefix = space.prefix().as_str();
    let mut key = String::with_capacity(prefix.len() + rest.len() + 16);
    key.push_str("distkit:{");
    // A piece at a time: this stands before every command.
    let mut rest_of_prefix = prefix;
    while let Some(at) = rest_of_prefix.find(['%', '{', '}']) {
        key.push_str(&rest_of_prefix[..at]);
        key.push_str(match rest_of_prefix.as_bytes()[at] {
            b'%' => "%25",
            b'{' => "%7B",
            _ => "%7D",
        });
        rest_of_prefix = &rest_of_prefix[at + 1..];
    }
    key.push_str(rest_of_prefix);
    key.push_str("}:");
    key.push_str(rest);
    key
}

pub(crate) fn totals(space: &Space) -> String {
    key(space, "totals")
}

/// What the names of the instance-aware counters begin with.
pub(crate) fn instance_names(space: &Space) -> String {
    key(space, "i:")
}

pub(crate) fn writer(space: &Space, id: &str) -> String {
    let mut key = key(space, "writer:");
    key.push_str(id);
    key
}

pub(crate) fn lane(space: &Space, process: &str, number: u64) -> String {
    let mut key = key(space, "lane:");
    // Writing to a String cannot fail.
    let _ = write!(key, "{process}:{number}");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_always_the_hash_tag() {
        for (prefix, expected) in [
            ("shop", "distkit:{shop}:totals"),
            ("{}", "distkit:{%7B%7D}:totals"),
            ("}{", "distkit:{%7D%7B}:totals"),
            ("a{b}c", "distkit:{a%7Bb%7Dc}:totals"),
            ("%7B", "distkit:{%257B}:totals"),
        ] {
            let space = Space::new(crate::RedisKey::new(prefix).unwrap());
            assert_eq!(totals(&space), expected);
        }
    }
}
