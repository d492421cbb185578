//! What makes an addition happen once.

use std::{fmt, sync::Arc};

use crate::DistkitError;

/// Names one addition, so that it is applied once however often, and by whatever process, it is asked for.
///
/// A token has 1 to [`MAX_BYTES`](Self::MAX_BYTES) bytes of any kind. It belongs to a counter: the same token under
/// two keys names two additions. Cloning is cheap: clones share one allocation.
///
/// # What makes a good token
///
/// It must be the same in every attempt to count one event, and different for any two events:
///
/// - the event's own id: that of an order, a payment, a message of a queue with its offset, a line of a file;
/// - or an id that the client makes before its first attempt, such as a UUID, and sends along with each attempt.
///
/// A token that is made for each attempt protects from nothing. One that is derived from what may repeat, such as the
/// time, swallows events.
///
/// ```
/// use distkit::Token;
///
/// let order = Token::new("order-4711")?;
/// let request = Token::new("67e55044-10b1-426f-9247-bb680e5fe0c8")?;
/// let line = Token::from_bytes(&4711_u64.to_be_bytes())?;
/// # let _ = (order, request, line);
/// assert!(Token::new("").is_err());
/// # Ok::<(), distkit::DistkitError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// The longest allowed token, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// A token of text, taken as its UTF-8 bytes. A UUID's text is one as any other: with capitals it is another.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`](DistkitError::InvalidToken) for no text, and for more than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(text: impl AsRef<str>) -> Result<Self, DistkitError> {
        Self::from_bytes(text.as_ref().as_bytes())
    }

    /// A token of bytes.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DistkitError> {
        match bytes.len() {
            0 => Err(DistkitError::InvalidToken("it is empty".to_owned())),
            1..=Self::MAX_BYTES => Ok(Self(bytes.into())),
            length => {
                let why = format!("it has {length} bytes, more than {}", Self::MAX_BYTES);
                Err(DistkitError::InvalidToken(why))
            }
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A UUID, or any other 16 bytes.
impl From<[u8; 16]> for Token {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes.as_slice().into())
    }
}

impl TryFrom<&str> for Token {
    type Error = DistkitError;

    fn try_from(text: &str) -> Result<Self, DistkitError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Token {
    type Error = DistkitError;

    fn try_from(text: String) -> Result<Self, DistkitError> {
        Self::new(text)
    }
}

impl TryFrom<&[u8]> for Token {
    type Error = DistkitError;

    fn try_from(bytes: &[u8]) -> Result<Self, DistkitError> {
        Self::from_bytes(bytes)
    }
}

impl std::str::FromStr for Token {
    type Err = DistkitError;

    fn from_str(text: &str) -> Result<Self, DistkitError> {
        Self::new(text)
    }
}

/// The text, or `0x` and the bytes in hexadecimal where it is none.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) => f.write_str(text),
            Err(_) => {
                f.write_str("0x")?;
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?})", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_1_to_255_bytes() {
        for length in [1, 16, Token::MAX_BYTES] {
            assert_eq!(Token::from_bytes(&vec![0; length]).unwrap().as_bytes().len(), length);
        }
        for length in [0, Token::MAX_BYTES + 1] {
            let refused = Token::from_bytes(&vec![0; length]);
            assert!(matches!(refused, Err(DistkitError::InvalidToken(_))), "{refused:?}");
        }
        assert!(Token::new("é".repeat(128)).is_err(), "bytes count, not characters");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hexadecimal() {
        assert_eq!(Token::from_bytes(&[0xff, 0x0a]).unwrap().to_string(), "0xff0a");
        assert_eq!(format!("{:?}", Token::new("a\"b").unwrap()), r#"Token("a\"b")"#);
        assert_eq!(Token::from([0x61; 16]), Token::new("a".repeat(16)).unwrap());
    }
}
