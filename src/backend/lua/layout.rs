//! The names of this crate's keys in Redis.
//!
//! `TAG` is a space's prefix with `%`, `{` and `}` percent-encoded, so that it is always the hash tag:
//! all keys of a space are in one slot of a cluster, whatever its prefix.
//!
//! Of a prefix of several shards, each shard is a space of its own, whose tag is the prefix's, `:`, its number, `.`, and a
//! salt that puts it into its part of the slots (see `backend/space.rs`). Under the prefix's own tag there is `shape`, and
//! a text in the places of `totals` and `i:meta`, so that a process with one shard finds a wrong type there; each shard
//! has a copy of `layout` and `shards` in its `shape`.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `distkit:{TAG}:totals` | hash | plain counter -> decimal total |
//! | `distkit:{TAG}:shape` | hash | what all processes of the prefix agree on: `layout`, `shards`, `keep`, the generation of `guards`, `lanes` and `tokens`, the life of `totals`, and until when there are `windows`: see `guard.lua`, `window_open.lua` |
//! | `distkit:{TAG}:writers` | hash | writer -> its latest guarded batch: see `guard.lua`; kept for a day or longer |
//! | `distkit:{TAG}:i:...` | | the instance-aware counters: see `instance_names.lua` |
//! | `distkit:{TAG}:lanes` | hash | lane -> its latest answer: see `guard.lua`; kept for an hour or longer |
//! | `distkit:{TAG}:tok` | hash | which buckets of tokens are live, and their clock: see `tokens.lua` |
//! | `distkit:{TAG}:tok:<n>` | string | the parts that bucket `n` has, a bit each |
//! | `distkit:{TAG}:tok:<n>:<part>` | hash | 16 bytes of a digest of counter and token -> the amount and the answer |
//! | `distkit:{TAG}:import` | hash | how far the tool's `import` came: see `cli/src/import`; no counter reads it |
//! | `distkit:{TAG}:w:<length>.<offset>` | hash | which windows of that length and offset (ms) are open: see `window_open.lua` |
//! | `distkit:{TAG}:w:<length>.<offset>:<start>` | hash | the totals of the window that begins then (ms); has a TTL |
//!
//! No other key of these has a TTL, unless the prefix [expires](crate::counter::CounterOptions::expire_after). Counters'
//! names have no `:`, so fields of `totals` that begin with one are reserved. So are the names `distkit:{TAG}:w:...` whose
//! next part begins with a letter (windows by a calendar).

use crate::backend::Space;

/// `distkit:{TAG}:` and `rest`.
pub(crate) fn key(space: &Space, rest: &str) -> String {
    let mut key = String::with_capacity(space.prefix().len() + rest.len() + 24);
    key.push_str("distkit:{");
    space.push_tag(&mut key);
    key.push_str("}:");
    key.push_str(rest);
    key
}

/// The plain totals: of the window, where the space is one's.
pub fn totals(space: &Space) -> String {
    match space.window() {
        None => key(space, "totals"),
        Some(window) => {
            let (length, offset) = (window.length_ms(), window.offset_ms());
            key(space, &format!("w:{length}.{offset}:{}", window.start_ms()))
        }
    }
}

/// The windows that are open of those of which the space is one's.
pub(crate) fn window_index(space: &Space) -> String {
    let (length, offset) =
        space.window().map_or((0, 0), |window| (window.length_ms(), window.offset_ms()));
    key(space, &format!("w:{length}.{offset}"))
}

/// What the names of the instance-aware counters begin with.
pub fn instance_names(space: &Space) -> String {
    key(space, "i:")
}

/// Another key that never exists: see `instance_names.lua`.
pub(crate) fn instance_whole(space: &Space) -> String {
    key(space, "i:-")
}

/// The instance-aware counters of a space.
pub(crate) fn instance_index(space: &Space) -> String {
    key(space, "i:index")
}

/// What the instance-aware counters of a space have in common.
pub(crate) fn instance_meta(space: &Space) -> String {
    key(space, "i:meta")
}

/// The epochs of the instance-aware counters that nobody has a slice of: those from before the last turn, or the later
/// ones.
pub(crate) fn instance_epochs(space: &Space, old: bool) -> String {
    key(space, if old { "i:tombs:old" } else { "i:tombs" })
}

/// Which instances are gone.
pub(crate) fn instance_gone(space: &Space) -> String {
    key(space, "i:gone")
}

/// The version of this layout.
pub const LAYOUT: i64 = 1;

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

/// The index of the tokens.
pub fn tokens(space: &Space) -> String {
    key(space, "tok")
}

/// Which parts a bucket of tokens has.
pub(crate) fn token_bits(space: &Space, bucket: u64) -> String {
    key(space, &format!("tok:{bucket}"))
}

/// A part of a bucket of tokens.
pub(crate) fn token_part(space: &Space, bucket: u64, part: u32) -> String {
    key(space, &format!("tok:{bucket}:{part}"))
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
    fn a_shard_has_a_tag_of_its_own() {
        let shards = Space::shards_of(crate::RedisKey::new("{}").unwrap(), 2);
        assert_eq!(totals(&shards[1]), "distkit:{%7B%7D:1.2}:totals");
        let seconds = crate::Windows::every(std::time::Duration::from_secs(1));
        let windowed = shards[1].in_window(seconds.at(std::time::Duration::from_millis(5300)));
        assert_eq!(totals(&windowed), "distkit:{%7B%7D:1.2}:w:1000.0:5000");
        assert_eq!(window_index(&windowed), "distkit:{%7B%7D:1.2}:w:1000.0");
    }

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
