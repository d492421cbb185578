//! Keys from text, which may not be one.

use std::str::FromStr;

use crate::{DistkitError, RedisKey};

impl RedisKey {
    /// Validates `name`. The same as the `TryFrom` conversions.
    ///
    /// # Errors
    ///
    /// [`DistkitError::InvalidRedisKey`] when `name` is empty, longer than
    /// [`MAX_CHARS`](Self::MAX_CHARS), or contains a colon.
    pub fn new(name: impl AsRef<str>) -> Result<Self, DistkitError> {
        let name = name.as_ref();
        check(name)?;
        Ok(Self::validated(name))
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
