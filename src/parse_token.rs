//! How a token is made.

use crate::{DistkitError, Token};

impl Token {
    /// Creates a token of text, taken as its UTF-8 bytes. A UUID's text is one as any other: with capitals it is
    /// another.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`](DistkitError::InvalidToken) for no text, and for more than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(text: impl AsRef<str>) -> Result<Self, DistkitError> {
        Self::from_bytes(text.as_ref().as_bytes())
    }

    /// Creates a token of bytes.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DistkitError> {
        match bytes.len() {
            0 => Err(DistkitError::InvalidToken("it is empty".to_owned())),
            1..=Self::MAX_BYTES => Ok(Self::validated(bytes)),
            length => {
                let why = format!("it has {length} bytes, more than {}", Self::MAX_BYTES);
                Err(DistkitError::InvalidToken(why))
            }
        }
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
