use crate::backend::{Outcome, Refusal};

/// The longest part of a foreign value that a refusal quotes, in characters.
const QUOTED: usize = 64;

/// What a store holds under a key.
#[derive(Debug)]
pub(super) enum Value {
    Number(i64),
    Foreign(String),
}

impl Value {
    /// Reads `text` as Redis does: no plus sign, no leading zeros, no spaces.
    pub(super) fn parse(text: &str) -> Self {
        match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Self::Number(number),
            _ => Self::Foreign(text.to_owned()),
        }
    }

    pub(super) fn number(&self) -> Outcome<i64> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Foreign(text) => {
                Err(Refusal::NotANumber { found: text.chars().take(QUOTED).collect() })
            }
        }
    }
}
