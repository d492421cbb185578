//! What counters and prefixes are called.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

/// A validated name: of a counter, or the prefix that a group of counters shares.
///
/// A key has 1 to 255 characters (Unicode scalar values, not bytes) and no `:`. It cannot be changed
/// once made, and cloning it is cheap: clones share one allocation.
///
/// ```
/// use distkit::RedisKey;
///
/// let key = RedisKey::try_from("page_views")?;
/// assert_eq!(&*key, "page_views");
/// assert!(RedisKey::try_from("user:123").is_err());
/// assert!(RedisKey::try_from("").is_err());
/// assert!("x".repeat(256).parse::<RedisKey>().is_err());
/// # Ok::<(), distkit::DistkitError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RedisKey(Arc<str>);

/// The name that `distkit` 0.7 gives to [`RedisKey`].
pub type DistkitRedisKey = RedisKey;

impl RedisKey {
    /// The longest allowed key, in characters.
    pub const MAX_CHARS: usize = 255;

    /// A name that was validated.
    pub(crate) fn validated(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the prefix `distkit`, for a service that needs only one.
    pub fn default_prefix() -> Self {
        Self("distkit".into())
    }

    /// Returns the key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for RedisKey {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for RedisKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RedisKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RedisKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisKey({:?})", &*self.0)
    }
}
