//! What servers answer, as values of the contract.

use crate::backend::{
    Applied, BackendError, Change, CounterComparator, GuardRecord, Outcome, Refusal, Write, Written,
};

use super::{Reply, ServerError, layout::LAYOUT};

const SHORTENED: usize = 64;

/// A reply that no server of ours gives: something between us and the server is broken, and what
/// happened cannot be told.
pub(crate) fn unexpected(reply: &impl std::fmt::Debug) -> BackendError {
    let mut text = format!("{reply:?}");
    if let Some((at, _)) = text.char_indices().nth(200) {
        text.truncate(at);
    }
    BackendError::outcome_unknown(format!("the server answered something unexpected: {text}"))
}

/// A key of ours has a wrong type.
pub(crate) fn foreign(error: &ServerError, keys: &[&str]) -> BackendError {
    let index = error.detail.split(' ').next().and_then(|text| text.parse::<usize>().ok());
    let key = keys.get(index.unwrap_or(1).saturating_sub(1)).copied().unwrap_or_default();
    BackendError::Corrupt(format!(
        "the Redis key {key:?} has a type that this crate never gives it"
    ))
}

/// The layout and shards that a space has, which must be ours. False where it has none.
pub(super) fn shape(reply: Reply, extent: &str) -> Result<bool, BackendError> {
    let text = |reply: &Reply| match reply {
        Reply::Bytes(text) => String::from_utf8_lossy(text).into_owned(),
        Reply::Int(number) => number.to_string(),
        _ => String::new(),
    };
    match &reply {
        Reply::Array(items) if items.iter().all(|item| *item == Reply::Nil) => Ok(false),
        Reply::Array(items) if items.len() == 2 => {
            let held = [text(&items[0]), text(&items[1])];
            if held[0] == LAYOUT.to_string() && held[1] == extent {
                return Ok(true);
            }
            Err(another_shape(&format!("{} {} {extent}", held[0], held[1])))
        }
        other => Err(BackendError::Corrupt(format!("the shape of the space reads {other:?}"))),
    }
}

/// `held` has the layout and the shards, and how many there should be, separated by a space.
pub(super) fn another_shape(held: &str) -> BackendError {
    let mut words = held.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (layout, shards, ours) = (word(), word(), word());
    // With the idle time, if any of them expires.
    let expires = shards.contains('/') || ours.contains('/');
    let described = |extent: &str| match extent.split_once('/') {
        Some((shards, idle)) => format!("{shards} shards, expiring after {idle} ms"),
        None if expires => format!("{extent} shards, not expiring"),
        None => format!("{extent} shards"),
    };
    BackendError::ShapeMismatch {
        ours: format!("layout {LAYOUT}, {}", described(ours)),
        stored: format!("layout {layout}, {}", described(shards)),
    }
}

/// `held` has for how long the space keeps tokens, and for how long it should, separated by a space.
pub(super) fn another_keep(held: &str) -> BackendError {
    let mut words = held.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (stored, ours) = (word(), word());
    BackendError::ShapeMismatch {
        ours: format!("tokens kept for {ours} s"),
        stored: format!("tokens kept for {stored} s"),
    }
}

/// Foreign text, short enough for an error.
pub(super) fn shortened(text: &[u8]) -> String {
    let mut found: String = String::from_utf8_lossy(text).chars().take(SHORTENED + 1).collect();
    if let Some((at, _)) = found.char_indices().nth(SHORTENED) {
        found.truncate(at);
        found.push('…');
    }
    found
}

pub(super) fn refused_number(text: &[u8]) -> Refusal {
    Refusal::NotANumber { found: shortened(text) }
}

/// Only the form that Redis itself writes counts, because HINCRBY takes no other.
fn number(text: &[u8]) -> Outcome<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let canonical = match digits {
        [] => false,
        [b'0'] => !negative,
        [first, ..] => *first != b'0' && digits.iter().all(u8::is_ascii_digit),
    };
    std::str::from_utf8(text)
        .ok()
        .filter(|_| canonical)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| refused_number(text))
}

/// A total as HMGET gives it.
pub(super) fn held(reply: &Reply) -> Result<Outcome<i64>, BackendError> {
    match reply {
        Reply::Nil => Ok(Ok(0)),
        Reply::Int(value) => Ok(Ok(*value)),
        Reply::Bytes(text) => Ok(number(text)),
        other => Err(unexpected(other)),
    }
}

pub(super) fn all_held(reply: Reply, count: usize) -> Result<Vec<Outcome<i64>>, BackendError> {
    match reply {
        Reply::Array(items) if items.len() == count => items.iter().map(held).collect(),
        other => Err(unexpected(&other)),
    }
}

/// The outcome of an unconditional addition that gave `new`.
pub(super) fn added(count: i64, new: i64) -> Written {
    Written { old: new.wrapping_sub(count), new, condition_met: true }
}

/// What a plain HINCRBY gave, if it is about its item only.
pub(super) fn refused_addition(error: &ServerError) -> Option<Refusal> {
    if error.detail.contains("overflow") {
        Some(Refusal::Overflow)
    } else if error.detail.contains("not an integer") {
        Some(Refusal::NotANumber { found: String::new() })
    } else {
        None
    }
}

/// How a script's items are to be read: `add.lua` answers with new totals, `write.lua` with old ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Answers {
    New,
    Old,
}

pub(super) fn applied(
    reply: Reply,
    writes: &[Write],
    answers: Answers,
) -> Result<Applied, BackendError> {
    let Reply::Array(items) = &reply else { return Err(unexpected(&reply)) };
    let Some((first, items)) = items.split_first() else { return Err(unexpected(&reply)) };
    let Some((replayed, record)) = noted(first) else { return Err(unexpected(&reply)) };
    if items.len() != writes.len() {
        return Err(unexpected(&reply));
    }
    let outcomes = items.iter().zip(writes).map(|(item, write)| outcome(item, write, answers));
    Ok(Applied { replayed, record, outcomes: outcomes.collect::<Result<_, _>>()? })
}

/// The first element of an answer: see `guard.lua`.
fn noted(first: &Reply) -> Option<(bool, Option<GuardRecord>)> {
    match first {
        Reply::Int(replayed @ 0..=1) => Some((*replayed == 1, None)),
        Reply::Bytes(text) => {
            let mut numbers = std::str::from_utf8(text).ok()?.split(' ').map(str::parse::<u64>);
            let mut number = || numbers.next()?.ok();
            let replayed = number()? == 1;
            let (generation, sequence, totals) = (number()?, number()?, number()?);
            Some((replayed, Some(GuardRecord { generation, totals, sequence })))
        }
        _ => None,
    }
}

fn outcome(
    item: &Reply,
    write: &Write,
    answers: Answers,
) -> Result<Outcome<Written>, BackendError> {
    let value = match item {
        Reply::Int(value) => Ok(*value),
        Reply::Bytes(text) => match &**text {
            b"o" => return Ok(Err(Refusal::Overflow)),
            [b'n', found @ ..] => return Ok(Err(refused_number(found))),
            [mark @ (b'!' | b'='), text @ ..] => {
                let condition_met = *mark == b'=';
                return Ok(number(text).map(|value| Written {
                    old: value,
                    new: value,
                    condition_met,
                }));
            }
            text => number(text),
        },
        other => return Err(unexpected(other)),
    };
    Ok(value.map(|value| match (answers, write.change) {
        (Answers::New, Change::Add(count)) => added(count, value),
        (_, change) => {
            // The script has refused what does not fit.
            let new = change.applied_to(value).unwrap_or(value);
            Written { old: value, new, condition_met: true }
        }
    }))
}

/// A condition as `write.lua` takes it.
pub(super) fn condition(condition: CounterComparator) -> (&'static str, Option<i64>) {
    match condition {
        CounterComparator::Nil => ("", None),
        CounterComparator::Eq(operand) => ("e", Some(operand)),
        CounterComparator::Ne(operand) => ("n", Some(operand)),
        CounterComparator::Lt(operand) => ("l", Some(operand)),
        CounterComparator::Gt(operand) => ("g", Some(operand)),
        CounterComparator::Le(operand) => ("le", Some(operand)),
        CounterComparator::Ge(operand) => ("ge", Some(operand)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_numbers_that_redis_takes() {
        for ok in ["0", "1", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(number(ok.as_bytes()), Ok(ok.parse().unwrap()));
        }
        for bad in ["", "-", "-0", "01", "+1", " 1", "1 ", "1.0", "9223372036854775808", "x"] {
            assert_eq!(
                number(bad.as_bytes()),
                Err(Refusal::NotANumber { found: bad.to_owned() }),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_long_finding_is_shortened_between_characters() {
        let Err(Refusal::NotANumber { found }) = number("ü".repeat(500).as_bytes()) else {
            panic!("not refused")
        };
        assert_eq!(found.chars().count(), SHORTENED + 1);
    }
}
