//! Whether a recorded history of one counter is linearizable, given the order in which the server made its
//! changes.
//!
//! In general that question is hard, because operations of unknown outcome may have happened at any time
//! since, or not. With the server's own log it is a sort and a scan: the log says what happened and in which
//! order, so what is left is to find for each read the earliest state that it can have seen, and to see that
//! nothing took effect before it was asked for or after it was answered. The earliest is always the best
//! choice: it restricts those that come later least.

use std::collections::{BTreeMap, HashMap};

use distkit::CounterComparator;

/// What a caller asked for. No two writes of one counter have the same amount, which is how they are
/// found in the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Call {
    Get,
    Add(i64, CounterComparator),
    Set(i64, CounterComparator),
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Answer {
    /// The total after it, or for a deletion, the one before.
    Value(i64),
    /// The totals before and after a conditional write.
    Pair { old: i64, new: i64 },
    /// It may have happened, or may still.
    Unknown,
    /// It has not happened and never will.
    NotApplied,
}

/// `start` and `end` come from one clock that never shows a time twice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Operation {
    pub(super) call: Call,
    pub(super) answer: Answer,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// What the log says that happened to the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Change {
    Add(i64),
    Set(i64),
    Delete,
}

#[derive(Debug, PartialEq)]
pub(super) enum Violation {
    /// The log has the same write twice.
    AppliedTwice(Change),
    /// Nobody asked for what the log has.
    AskedForByNobody(Change),
    /// It was answered as done, and the log does not have it.
    Missing(Operation),
    /// It was answered as not done, and the log has it.
    DoneAllTheSame(Operation),
    /// The answer does not agree with the state in which it was done.
    WrongAnswer { operation: Operation, before: i64, after: i64 },
    /// No state from the latest one that it must have seen on has this value, or it came too late to see it.
    OutOfTime { operation: Operation, seen: usize },
    /// Two writes, or two deletions, of the history cannot be told apart in the log.
    Ambiguous(Change),
}

/// Checks all operations on one counter against all its changes, in the order of the log.
pub(super) fn check(operations: &[Operation], changes: &[Change]) -> Result<(), Violation> {
    let states = states(changes);
    let mut by_start: Vec<&Operation> = operations.iter().collect();
    by_start.sort_by_key(|operation| operation.start);
    let positions = attribute(&by_start, changes, &states)?;

    let mut where_held: HashMap<i64, Vec<usize>> = HashMap::new();
    for (position, state) in states.iter().enumerate() {
        where_held.entry(*state).or_default().push(position);
    }
    // Of the answered operations: when, and up to which change each of them has seen.
    let mut answered: BTreeMap<u64, usize> = BTreeMap::new();
    let mut seen = 0;
    for (operation, position) in by_start.iter().zip(positions) {
        while let Some(first) = answered.first_entry()
            && *first.key() < operation.start
        {
            seen = seen.max(first.remove());
        }
        let out_of_time = || Violation::OutOfTime { operation: **operation, seen };
        let position = match (position, value_read(operation)) {
            (Some(position), _) if position > seen => position,
            (Some(_), _) => return Err(out_of_time()),
            (None, Some(value)) => {
                let held = where_held.get(&value).map_or(&[][..], |held| held);
                let next = held.partition_point(|position| *position < seen);
                *held.get(next).ok_or_else(out_of_time)?
            }
            (None, None) => continue,
        };
        if operation.answer != Answer::Unknown {
            answered.insert(operation.end, position);
        }
    }
    Ok(())
}

/// The totals before the first change and after each.
fn states(changes: &[Change]) -> Vec<i64> {
    let mut total = 0_i64;
    let after = changes.iter().map(|change| {
        total = match *change {
            Change::Add(count) => total.wrapping_add(count),
            Change::Set(count) => count,
            Change::Delete => 0,
        };
        total
    });
    std::iter::once(0).chain(after).collect()
}

/// For each operation, which change it made, counted from 1. Checks the answers on the way.
fn attribute(
    by_start: &[&Operation],
    changes: &[Change],
    states: &[i64],
) -> Result<Vec<Option<usize>>, Violation> {
    let mut writes = HashMap::new();
    let mut deletions: HashMap<i64, Vec<usize>> = HashMap::new();
    for (position, change) in (1..).zip(changes) {
        if *change == Change::Delete {
            deletions.entry(states[position - 1]).or_default().push(position);
        } else if writes.insert(*change, position).is_some() {
            return Err(Violation::AppliedTwice(*change));
        }
    }

    let mut positions = Vec::new();
    for operation in by_start {
        let position = match (operation.call, operation.answer) {
            (Call::Get, _) => None,
            (Call::Add(count, _), _) => writes.remove(&Change::Add(count)),
            (Call::Set(count, _), _) => writes.remove(&Change::Set(count)),
            (Call::Delete, Answer::Value(held)) => match deletions.remove(&held).as_deref() {
                None => None,
                Some([position]) => Some(*position),
                Some(_) => return Err(Violation::Ambiguous(Change::Delete)),
            },
            (Call::Delete, _) => None,
        };
        check_answer(operation, position, states)?;
        positions.push(position);
    }
    if let Some(change) = writes.into_keys().next() {
        return Err(Violation::AskedForByNobody(change));
    }

    // Deletions of unknown outcome have no answer to be known by, and no end. So each of those that
    // are left may be the work of any that started before, and giving them out in the order of the
    // starts finds a way if there is one.
    let mut left: Vec<usize> = deletions.into_values().flatten().collect();
    left.sort_unstable();
    let mut unknown = by_start.iter().zip(&mut positions).filter(|(operation, _)| {
        (operation.call, operation.answer) == (Call::Delete, Answer::Unknown)
    });
    for position in left {
        let Some((_, place)) = unknown.next() else {
            return Err(Violation::AskedForByNobody(Change::Delete));
        };
        *place = Some(position);
    }
    Ok(positions)
}

fn check_answer(
    operation: &Operation,
    position: Option<usize>,
    states: &[i64],
) -> Result<(), Violation> {
    let operation = *operation;
    let Some(position) = position else {
        let done = match (operation.call, operation.answer) {
            (_, Answer::Unknown | Answer::NotApplied) | (Call::Get, _) => false,
            // There was nothing to delete.
            (Call::Delete, Answer::Value(held)) => held != 0,
            (Call::Add(_, condition) | Call::Set(_, condition), Answer::Pair { old, new }) => {
                condition.matches(old) || new != old
            }
            (Call::Add(..) | Call::Set(..) | Call::Delete, _) => true,
        };
        return if done { Err(Violation::Missing(operation)) } else { Ok(()) };
    };
    let (before, after) = (states[position - 1], states[position]);
    let right = match (operation.call, operation.answer) {
        (_, Answer::NotApplied) => return Err(Violation::DoneAllTheSame(operation)),
        (Call::Add(_, condition) | Call::Set(_, condition), answer) => {
            condition.matches(before)
                && match answer {
                    Answer::Value(value) => value == after,
                    Answer::Pair { old, new } => (old, new) == (before, after),
                    Answer::Unknown | Answer::NotApplied => true,
                }
        }
        (Call::Delete, Answer::Value(held)) => held == before,
        (Call::Get | Call::Delete, _) => true,
    };
    if right { Ok(()) } else { Err(Violation::WrongAnswer { operation, before, after }) }
}

/// What an operation that changed nothing says that the total was.
fn value_read(operation: &Operation) -> Option<i64> {
    match operation.answer {
        Answer::Value(value) => Some(value),
        Answer::Pair { old, .. } => Some(old),
        Answer::Unknown | Answer::NotApplied => None,
    }
}

#[cfg(test)]
mod tests {
    use distkit::CounterComparator::{Eq, Gt, Nil};

    use super::{Answer::*, Call::*, *};

    fn done(start: u64, end: u64, call: Call, answer: Answer) -> Operation {
        Operation { call, answer, start, end }
    }

    #[track_caller]
    fn rejected(operations: &[Operation], changes: &[Change]) -> Violation {
        check(operations, changes).unwrap_err()
    }

    #[test]
    fn one_after_the_other() {
        let operations = [
            done(1, 2, Get, Value(0)),
            done(3, 4, Add(5, Nil), Value(5)),
            done(5, 6, Get, Value(5)),
            done(7, 8, Add(-2, Gt(4)), Pair { old: 5, new: 3 }),
            done(9, 10, Add(-1, Gt(4)), Pair { old: 3, new: 3 }),
            done(11, 12, Delete, Value(3)),
            done(13, 14, Delete, Value(0)),
            done(15, 16, Set(9, Eq(0)), Pair { old: 0, new: 9 }),
        ];
        let changes = [Change::Add(5), Change::Add(-2), Change::Delete, Change::Set(9)];
        assert_eq!(check(&operations, &changes), Ok(()));
    }

    #[test]
    fn operations_that_overlap_may_take_effect_in_either_order() {
        let first = done(1, 10, Add(5, Nil), Value(7));
        let second = done(2, 9, Add(2, Nil), Value(2));
        for read in [0, 2, 7] {
            let operations = [first, second, done(3, 8, Get, Value(read))];
            assert_eq!(check(&operations, &[Change::Add(2), Change::Add(5)]), Ok(()));
        }
        let violation = rejected(&[first, second], &[Change::Add(5), Change::Add(2)]);
        assert_eq!(violation, Violation::WrongAnswer { operation: first, before: 0, after: 5 });
    }

    #[test]
    fn a_lost_update_is_rejected() {
        // Both read 0 and wrote their own sum.
        let operations = [done(1, 3, Add(5, Nil), Value(5)), done(2, 4, Add(2, Nil), Value(2))];
        let violation = rejected(&operations, &[Change::Add(5), Change::Add(2)]);
        assert!(matches!(violation, Violation::WrongAnswer { before: 5, after: 7, .. }));
        let violation = rejected(&operations, &[Change::Set(5), Change::Set(2)]);
        assert_eq!(violation, Violation::Missing(operations[0]));
    }

    #[test]
    fn a_write_that_was_answered_and_is_not_there_is_rejected() {
        let operations = [
            done(1, 2, Add(5, Nil), Value(5)),
            done(1, 2, Set(5, Nil), Value(5)),
            done(1, 2, Add(5, Gt(-1)), Pair { old: 0, new: 5 }),
            done(1, 2, Add(5, Gt(-1)), Pair { old: 0, new: 0 }),
            done(1, 2, Delete, Value(5)),
        ];
        for operation in operations {
            assert_eq!(rejected(&[operation], &[]), Violation::Missing(operation));
        }
    }

    #[test]
    fn a_write_that_was_applied_twice_is_rejected() {
        let unknown = done(1, 2, Add(5, Nil), Unknown);
        for answer in [Value(5), Value(10), Unknown] {
            let operation = Operation { answer, ..unknown };
            let violation = rejected(&[operation], &[Change::Add(5), Change::Add(5)]);
            assert_eq!(violation, Violation::AppliedTwice(Change::Add(5)));
        }
        let deletion = done(3, 4, Delete, Unknown);
        let changes = [Change::Add(5), Change::Delete, Change::Delete];
        let violation = rejected(&[unknown, deletion], &changes);
        assert_eq!(violation, Violation::AskedForByNobody(Change::Delete));
    }

    #[test]
    fn a_write_that_was_said_not_to_be_applied_and_was_is_rejected() {
        for (call, change) in [(Add(5, Nil), Change::Add(5)), (Set(5, Nil), Change::Set(5))] {
            let operation = done(1, 2, call, NotApplied);
            assert_eq!(rejected(&[operation], &[change]), Violation::DoneAllTheSame(operation));
            assert_eq!(check(&[operation], &[]), Ok(()));
        }
        let operations = [done(1, 2, Add(5, Nil), Value(5)), done(3, 4, Delete, NotApplied)];
        let violation = rejected(&operations, &[Change::Add(5), Change::Delete]);
        assert_eq!(violation, Violation::AskedForByNobody(Change::Delete));
    }

    #[test]
    fn a_stale_read_is_rejected() {
        let write = done(1, 2, Add(5, Nil), Value(5));
        let late = done(3, 4, Get, Value(0));
        let violation = rejected(&[late, write], &[Change::Add(5)]);
        assert_eq!(violation, Violation::OutOfTime { operation: late, seen: 1 });
        // What a read has shown cannot be unseen, though the write itself is still under way.
        let operations = [
            done(1, 9, Add(5, Nil), Value(5)),
            done(2, 3, Get, Value(5)),
            done(4, 5, Get, Value(0)),
        ];
        let violation = rejected(&operations, &[Change::Add(5)]);
        assert_eq!(violation, Violation::OutOfTime { operation: operations[2], seen: 1 });
        // A condition that did not hold is a read too, and so is a deletion of nothing.
        for late in
            [done(3, 4, Add(1, Gt(0)), Pair { old: 0, new: 0 }), done(3, 4, Delete, Value(0))]
        {
            assert!(matches!(
                rejected(&[write, late], &[Change::Add(5)]),
                Violation::OutOfTime { .. }
            ));
        }
    }

    #[test]
    fn a_read_of_what_was_not_yet_asked_for_is_rejected() {
        let (early, write) = (done(1, 2, Get, Value(5)), done(3, 4, Add(5, Nil), Value(5)));
        let violation = rejected(&[early, write], &[Change::Add(5)]);
        assert_eq!(violation, Violation::OutOfTime { operation: write, seen: 1 });
        let never = done(1, 2, Get, Value(6));
        assert!(matches!(rejected(&[never], &[]), Violation::OutOfTime { .. }));
    }

    #[test]
    fn writes_in_another_order_than_they_were_answered_in_are_rejected() {
        let operations = [done(1, 2, Set(5, Nil), Value(5)), done(3, 4, Set(6, Nil), Value(6))];
        assert_eq!(check(&operations, &[Change::Set(5), Change::Set(6)]), Ok(()));
        let violation = rejected(&operations, &[Change::Set(6), Change::Set(5)]);
        assert_eq!(violation, Violation::OutOfTime { operation: operations[1], seen: 2 });
    }

    #[test]
    fn unknown_writes_happen_at_any_time_from_their_start_or_never() {
        let unknown = done(3, 4, Add(5, Nil), Unknown);
        let read = |start, value| done(start, start + 1, Get, Value(value));
        assert_eq!(check(&[unknown, read(5, 0), read(7, 0)], &[]), Ok(()));
        assert_eq!(check(&[unknown, read(5, 0), read(7, 5)], &[Change::Add(5)]), Ok(()));
        assert_eq!(check(&[unknown, read(5, 5), read(7, 5)], &[Change::Add(5)]), Ok(()));
        let backwards = [unknown, read(5, 5), read(7, 0)];
        assert!(matches!(rejected(&backwards, &[Change::Add(5)]), Violation::OutOfTime { .. }));
        let early = [unknown, read(1, 5)];
        assert!(matches!(rejected(&early, &[Change::Add(5)]), Violation::OutOfTime { .. }));
        // A condition that cannot have held.
        let unknown = done(1, 2, Add(5, Gt(0)), Unknown);
        assert!(matches!(rejected(&[unknown], &[Change::Add(5)]), Violation::WrongAnswer { .. }));
    }

    #[test]
    fn unknown_deletions_explain_those_that_nobody_was_told_of() {
        let add = |start, count, total| done(start, start + 1, Add(count, Nil), Value(total));
        let delete = |start, answer| done(start, start + 1, Delete, answer);
        let changes = [Change::Add(5), Change::Delete, Change::Add(6), Change::Delete];
        let told = [add(1, 5, 5), delete(3, Unknown), add(5, 6, 6), delete(7, Value(6))];
        assert_eq!(check(&told, &changes), Ok(()));
        let late = [add(1, 5, 5), add(5, 6, 6), delete(7, Value(6)), delete(9, Unknown)];
        assert!(matches!(rejected(&late, &changes), Violation::OutOfTime { .. }));
        let nobody = [add(1, 5, 5), add(5, 6, 6), delete(7, Value(6))];
        assert_eq!(rejected(&nobody, &changes), Violation::AskedForByNobody(Change::Delete));
    }
}
