//! Prefixes, their shards, and where in a cluster these are.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use crate::{RedisKey, Window};

/// The counters that share one prefix, or one shard of it, or one window of time of that. Spaces never see each
/// other's data.
///
/// The plain and the instance-aware family of one prefix do not share data either. Only plain counters have windows.
///
/// ```
/// use distkit::{RedisKey, backend::Space};
///
/// let shop = RedisKey::try_from("shop")?;
/// assert_eq!(Space::new(shop.clone()).shards(), 1);
///
/// // Six shards, spread evenly over the slots of a cluster.
/// let shards = Space::shards_of(shop, 6);
/// let apples = RedisKey::try_from("apples")?;
/// let of_apples = &shards[usize::from(Space::shard_of(&apples, 6))];
/// assert_eq!((of_apples.shard(), of_apples.shards()), (5, 6));
/// # Ok::<(), distkit::DistkitError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space {
    prefix: RedisKey,
    /// `None` for a prefix of one shard.
    part: Option<Arc<Part>>,
    window: Option<Window>,
    /// How long it stays without a write, in milliseconds.
    idle: Option<u64>,
}

/// One of several shards.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Part {
    shards: u16,
    shard: u16,
    /// What stands between the braces of its keys.
    tag: String,
}

/// How many slots a Redis Cluster has.
const SLOTS: u32 = 16_384;

impl Space {
    /// The most shards that a prefix can have.
    pub const MAX_SHARDS: u16 = 1024;

    /// Returns the space of `prefix`, which has one shard.
    pub fn new(prefix: RedisKey) -> Self {
        Self { prefix, part: None, window: None, idle: None }
    }

    /// Returns the spaces of the shards of `prefix`, in order. `shards` is taken as 1 to
    /// [`MAX_SHARDS`](Self::MAX_SHARDS).
    ///
    /// The keys of shard `s` of `n` are in a slot of the `s`-th `n`-th of a cluster's slots.
    pub fn shards_of(prefix: RedisKey, shards: u16) -> Vec<Self> {
        let shards = shards.clamp(1, Self::MAX_SHARDS);
        (0..shards).map(|shard| Self::part_of(&prefix, shard, shards)).collect()
    }

    /// Shard 0 of `prefix` if it has several, and how many does not matter: its keys are in the same place.
    #[cfg(any(feature = "redis-rs", feature = "fred"))]
    pub(crate) fn first_of_several(prefix: &RedisKey) -> Self {
        Self::part_of(prefix, 0, Self::MAX_SHARDS)
    }

    fn part_of(prefix: &RedisKey, shard: u16, shards: u16) -> Self {
        let part =
            (shards > 1).then(|| Arc::new(Part { shards, shard, tag: tag(prefix, shard, shards) }));
        Self { prefix: prefix.clone(), part, window: None, idle: None }
    }

    /// Returns the shard of a counter among so many. It is the same in every version of this crate: the 64 bits of
    /// XXH3 of the name's UTF-8 bytes, with seed 0, modulo `shards`.
    ///
    /// ```
    /// use distkit::{RedisKey, backend::Space};
    ///
    /// let shard = |name: &str| RedisKey::try_from(name).map(|key| Space::shard_of(&key, 64));
    /// assert_eq!([shard("apples")?, shard("pears")?, shard("plums")?], [63, 48, 47]);
    /// # Ok::<(), distkit::DistkitError>(())
    /// ```
    #[inline]
    pub fn shard_of(key: &RedisKey, shards: u16) -> u16 {
        let hash = xxhash_rust::xxh3::xxh3_64(key.as_bytes());
        (hash % u64::from(shards.clamp(1, Self::MAX_SHARDS))) as u16
    }

    /// Returns the prefix.
    pub fn prefix(&self) -> &RedisKey {
        &self.prefix
    }

    /// Returns how many shards the prefix has.
    pub fn shards(&self) -> u16 {
        self.part.as_ref().map_or(1, |part| part.shards)
    }

    /// Returns which of the shards this is, from 0.
    pub fn shard(&self) -> u16 {
        self.part.as_ref().map_or(0, |part| part.shard)
    }

    /// Returns the counters of this space in that window of time: see [`Windowing`](super::Windowing).
    ///
    /// ```
    /// use std::time::Duration;
    /// use distkit::{RedisKey, Windows, backend::Space};
    ///
    /// let shop = Space::new(RedisKey::try_from("shop")?);
    /// let hour = Windows::every(Duration::from_secs(3600)).at(Duration::ZERO);
    /// assert_eq!(shop.in_window(hour).window(), Some(hour));
    /// assert_eq!(*shop.in_window(hour).whole(), shop);
    /// # Ok::<(), distkit::DistkitError>(())
    /// ```
    #[must_use]
    pub fn in_window(&self, window: Window) -> Self {
        Self { window: Some(window), ..self.clone() }
    }

    /// Returns the window of time, where it is one of a window's.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Returns the space of which this is a window, or this one. Records of requests belong to it.
    pub fn whole(&self) -> Cow<'_, Self> {
        match self.window {
            None => Cow::Borrowed(self),
            Some(_) => Cow::Owned(Self { window: None, ..self.clone() }),
        }
    }

    /// Returns the same space, which expires after so long without a write: in whole milliseconds, at
    /// least 1 s and at most 100 years. See rule 46 of [`Windowing`](super::Windowing).
    ///
    /// ```
    /// use std::time::Duration;
    /// use distkit::{RedisKey, backend::Space};
    ///
    /// let carts = Space::new(RedisKey::try_from("carts")?);
    /// let day = Duration::from_secs(86_400);
    /// assert_eq!(carts.expiring_after(day).idle(), Some(day));
    /// assert_eq!(carts.idle(), None);
    /// # Ok::<(), distkit::DistkitError>(())
    /// ```
    #[must_use]
    pub fn expiring_after(&self, idle: Duration) -> Self {
        const LONGEST: u64 = 100 * 365 * 86_400_000;
        let idle = u64::try_from(idle.as_millis()).unwrap_or(LONGEST).clamp(1000, LONGEST);
        Self { idle: Some(idle), ..self.clone() }
    }

    /// Returns for how long it stays without a write; `None` for ever.
    pub fn idle(&self) -> Option<Duration> {
        self.idle.map(Duration::from_millis)
    }

    /// What all processes of the prefix must agree on: the number of shards, and with a slash the idle time (ms).
    #[cfg(any(feature = "redis-rs", feature = "fred"))]
    pub(crate) fn extent(&self) -> String {
        match self.idle {
            None => self.shards().to_string(),
            Some(idle) => format!("{}/{idle}", self.shards()),
        }
    }

    /// Where its counters are, whatever its window is kept for and it expires after.
    pub(crate) fn place(&self) -> Cow<'_, Self> {
        if self.idle.is_none() && self.window.is_none() {
            return Cow::Borrowed(self);
        }
        let window = self.window.map(Window::of_any_keep);
        Cow::Owned(Self { window, idle: None, ..self.clone() })
    }

    /// Where its records are.
    pub(crate) fn home(&self) -> Cow<'_, Self> {
        if self.idle.is_none() && self.window.is_none() {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self { window: None, idle: None, ..self.clone() })
    }

    /// Returns the slot of a Redis Cluster in which the keys of this space are.
    pub fn slot(&self) -> u16 {
        let crc = match &self.part {
            Some(part) => crc16(0, part.tag.as_bytes()),
            None => crc16(0, escaped(&self.prefix).as_bytes()),
        };
        crc % SLOTS as u16
    }

    /// Adds to `name` what stands between the braces of the names of its keys.
    #[cfg(any(feature = "redis-rs", feature = "fred"))]
    pub(crate) fn push_tag(&self, name: &mut String) {
        match &self.part {
            Some(part) => name.push_str(&part.tag),
            None => push_escaped(name, &self.prefix),
        }
    }
}

impl From<RedisKey> for Space {
    fn from(prefix: RedisKey) -> Self {
        Self::new(prefix)
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = f.debug_struct("Space");
        space.field("prefix", &self.prefix);
        if let Some(part) = &self.part {
            space.field("shard", &part.shard).field("shards", &part.shards);
        }
        if let Some(window) = &self.window {
            space.field("window", window);
        }
        if let Some(idle) = self.idle() {
            space.field("idle", &idle);
        }
        space.finish()
    }
}

/// `<prefix>:<shard>.<salt>` with the lowest salt that puts it into the right part of the slots. No prefix has a colon.
///
/// Shard 0 is in the first of the most shards that there can be. So its tag is the same whatever `shards` is, and
/// processes that do not agree on `shards` meet there.
fn tag(prefix: &RedisKey, shard: u16, shards: u16) -> String {
    let parts = if shard == 0 { Space::MAX_SHARDS } else { shards };
    let bound = |shard: u16| u32::from(shard) * SLOTS / u32::from(parts);
    let slots = bound(shard)..bound(shard + 1);
    let head = format!("{}:{shard}.", escaped(prefix));
    let crc = crc16(0, head.as_bytes());
    let mut salt: u32 = 0;
    // One in `parts` fits; each slot is reached by two digits or some more.
    loop {
        let digits = salt.to_string();
        if slots.contains(&(u32::from(crc16(crc, digits.as_bytes())) % SLOTS)) {
            return head + &digits;
        }
        salt += 1;
    }
}

fn escaped(prefix: &str) -> String {
    let mut name = String::with_capacity(prefix.len() + 16);
    push_escaped(&mut name, prefix);
    name
}

/// Writes `%`, `{` and `}` percent-encoded, so that the braces around it are the hash tag.
fn push_escaped(name: &mut String, prefix: &str) {
    // A piece at a time: this stands before every command.
    let mut rest = prefix;
    while let Some(at) = rest.find(['%', '{', '}']) {
        name.push_str(&rest[..at]);
        name.push_str(match rest.as_bytes()[at] {
            b'%' => "%25",
            b'{' => "%7B",
            _ => "%7D",
        });
        rest = &rest[at + 1..];
    }
    name.push_str(rest);
}

/// The checksum that gives a cluster's slots (CRC-16/XMODEM), from that of what stands before.
fn crc16(before: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(before, |crc, byte| {
        let shifted = crc ^ (u16::from(*byte) << 8);
        (0..8)
            .fold(shifted, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(name: &str) -> RedisKey {
        RedisKey::new(name).unwrap()
    }

    #[test]
    fn the_checksum_is_that_of_the_cluster_specification() {
        assert_eq!(crc16(0, b"123456789"), 0x31C3);
        assert_eq!(crc16(crc16(0, b"1234"), b"56789"), 0x31C3);
        assert_eq!(Space::new(prefix("foo")).slot(), 12_182);
    }

    #[test]
    fn each_shard_is_in_its_part_of_the_slots() {
        for shards in [2, 3, 7, 12, 48, 64, 1000, Space::MAX_SHARDS] {
            for space in Space::shards_of(prefix("a{b}%"), shards) {
                let (shard, slot) = (u32::from(space.shard()), u32::from(space.slot()));
                let bound = |shard: u32| shard * SLOTS / u32::from(shards);
                assert!((bound(shard)..bound(shard + 1)).contains(&slot), "{space:?}: {slot}");
            }
        }
    }

    #[test]
    fn shards_are_spread_evenly_over_nodes() {
        let mut nodes = [0; 3];
        for space in Space::shards_of(prefix("shop"), 48) {
            nodes[usize::from(space.slot()) * 3 / SLOTS as usize] += 1;
        }
        assert_eq!(nodes, [16, 16, 16]);
    }

    #[test]
    fn tags_stay_as_they_are() {
        let tags: Vec<_> = Space::shards_of(prefix("shop"), 4)
            .iter()
            .map(|space| space.part.as_ref().unwrap().tag.clone())
            .collect();
        assert_eq!(tags, ["shop:0.746", "shop:1.2", "shop:2.0", "shop:3.2"]);
        assert_eq!(Space::shards_of(prefix("shop"), 1), [Space::new(prefix("shop"))]);
        assert_eq!(Space::shards_of(prefix("shop"), 0).len(), 1);
    }

    #[test]
    fn shard_0_is_in_the_same_place_whatever_the_number_of_shards() {
        let place =
            |shards| Space::shards_of(prefix("shop"), shards)[0].part.as_ref().unwrap().tag.clone();
        assert_eq!(place(2), place(64));
        assert_eq!(place(Space::MAX_SHARDS), place(7));
    }

    #[test]
    fn the_hash_is_that_of_its_specification() {
        // From the specification of XXH3: the hash of nothing, with seed 0.
        assert_eq!(xxhash_rust::xxh3::xxh3_64(b""), 0x2D06_8005_38D3_94C2);
        let shards = ["a", "\u{fc}", "key-1", "a longer name, which takes another way through it"]
            .map(|name| Space::shard_of(&prefix(name), Space::MAX_SHARDS));
        assert_eq!(shards, [543, 878, 505, 1000]);
    }

    #[test]
    fn keys_are_spread_evenly_over_shards() {
        let mut found = [0_u32; 48];
        for n in 0..48_000 {
            found[usize::from(Space::shard_of(&prefix(&format!("key-{n}")), 48))] += 1;
        }
        assert!(found.iter().all(|keys| (850..1150).contains(keys)), "{found:?}");
    }
}
