//! What makes an addition happen once.

use std::{fmt, sync::Arc};

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

    /// A token of bytes that were validated.
    pub(crate) fn validated(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes.
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
