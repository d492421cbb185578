use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr, sync::Arc};

use crate::DistkitError;

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

    /// Validates `name`. The same as the `TryFrom` conversions.
    ///
    /// # Errors
    ///
    /// [`DistkitError::InvalidRedisKey`] when `name` is empty, longer than
    /// [`MAX_CHARS`](Self::MAX_CHARS), or contains a colon.
    pub fn new(name: impl AsRef<str>) -> Result<Self, DistkitError> {
        let name = name.as_ref();
        check(name)?;
        Ok(Self(name.into()))
    }

    /// The prefix `distkit`, for a service that needs only one.
    pub fn default_prefix() -> Self {
        Self("distkit".into())
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(name: &str) -> Result<(), DistkitError> {
    let complaint = if name.is_empty() {
        "a key must not be empty".to_owned()
    } else if name.contains(':') {
        format!("a key must not contain a colon: {name:?}")
    } else {
        match name.chars().count() {
            0..=RedisKey::MAX_CHARS => return Ok(()),
            n => format!("a key has at most {} characters, this one has {n}", RedisKey::MAX_CHARS),
        }
    };
    Err(DistkitError::InvalidRedisKey(complaint))
}

impl TryFrom<String> for RedisKey {
    type Error = DistkitError;

    fn try_from(name: String) -> Result<Self, DistkitError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for RedisKey {
    type Error = DistkitError;

    fn try_from(name: &str) -> Result<Self, DistkitError> {
        Self::new(name)
    }
}

impl FromStr for RedisKey {
    type Err = DistkitError;

    fn from_str(name: &str) -> Result<Self, DistkitError> {
        Self::new(name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_up_to_255_characters_of_any_width() {
        for ok in ["a", "ü{}", "with space", &"ü".repeat(255)] {
            assert_eq!(RedisKey::try_from(ok).unwrap().as_str(), ok);
        }
    }

    #[test]
    fn names_the_fault_of_a_bad_key() {
        for (bad, fault) in [("", "empty"), ("a:b", "colon"), (&*"x".repeat(256), "256")] {
            let error = RedisKey::try_from(bad.to_owned()).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }
}
