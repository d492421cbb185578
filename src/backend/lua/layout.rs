//! The names of this crate's keys in Redis.
//!
//! `TAG` is a space's prefix with `%`, `{` and `}` percent-encoded, so that it is always the hash tag:
//! all keys of a space are in one slot of a cluster, whatever its prefix.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `distkit:{TAG}:totals` | hash | plain counter -> decimal total |
//! | `distkit:{TAG}:shape` | hash | what all processes of the prefix agree on: `layout`, `shards`, and the generation of `guards` and `lanes` |
//! | `distkit:{TAG}:writers` | hash | writer -> its latest guarded batch: see `guard.lua`; kept for a day or longer |
//! | `distkit:{TAG}:i:...` | | the instance-aware counters: see `instance_names.lua` |
//! | `distkit:{TAG}:lanes` | hash | lane -> its latest answer: see `guard.lua`; kept for an hour or longer |
//! | `distkit:{TAG}:import` | hash | how far the tool's `import` came: see `cli/src/import`; no counter reads it |
//!
//! No key of these has a TTL. Counters' names have no `:`, so fields of `totals` that begin with one are
//! reserved. So are the names `distkit:{TAG}:w:...` (windows), `distkit:{TAG}:tok:...` (tokens), and tags
//! that contain a `:` (shards).

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

/// The plain totals.
pub fn totals(space: &Space) -> String {
    key(space, "totals")
}

/// What the names of the instance-aware counters begin with.
pub fn instance_names(space: &Space) -> String {
    key(space, "i:")
}

/// Another key that never exists: see `instance_names.lua`.
pub(crate) fn instance_whole(space: &Space) -> String {
    key(space, "i:-")
}

/// The version of this layout.
pub const LAYOUT: i64 = 1;

/// How many shards a space has.
pub(crate) const SHARDS: i64 = 1;

/// The shape.
pub fn shape(space: &Space) -> String {
    key(space, "shape")
}

/// The records of writers.
pub fn writers(space: &Space) -> String {
    key(space, "writers")
}

/// The records of lanes.
pub fn lanes(space: &Space) -> String {
    key(space, "lanes")
}

/// What the tool `distkit` remembers of an import. No counter reads it.
pub fn import(space: &Space) -> String {
    key(space, "import")
}

/// What all names of a space begin with: `distkit:{TAG}:`.
pub fn key_tag(space: &Space) -> String {
    key(space, "")
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
