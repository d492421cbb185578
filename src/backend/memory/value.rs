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
            Self::Foreign(text) => Err(Refusal::NotANumber { found: shortened(text) }),
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_that_redis_writes_is_a_number() {
        for number in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(Value::parse(&number.to_string()).number(), Ok(number));
        }
        for text in
            ["", " 1", "+1", "01", "-0", "1.0", "9223372036854775808", "-9223372036854775809"]
        {
            let found = text.to_owned();
            assert_eq!(Value::parse(text).number(), Err(Refusal::NotANumber { found }));
        }
    }

    #[test]
    fn long_foreign_text_is_quoted_in_part() {
        let exact = "ü".repeat(QUOTED);
        assert_eq!(shortened(&exact), exact);
        assert_eq!(shortened(&"ü".repeat(QUOTED + 1)), exact + "…");
    }
}
