use super::fixture::{Fixture, Probe, check, check_values, key, keys, wrote};
use super::model::{EDGES, Model, Numbers};
use crate::{
    CounterComparator::{self, Eq, Ge, Gt, Le, Lt, Ne, Nil},
    backend::{Change, Outcome, Refusal, Write, Written},
};

/// Sets one key to each value, in one batch, then sends `writes`, one for each key.
async fn start_and_apply(
    probe: &Probe,
    starts: &[i64],
    writes: &[Write],
) -> (Vec<Outcome<Written>>, Vec<i64>) {
    let sets: Vec<_> =
        writes.iter().zip(starts).map(|(write, n)| Write::set(write.key.clone(), *n)).collect();
    probe.apply(&sets).await;
    let outcomes = probe.apply(writes).await;
    let all: Vec<_> = writes.iter().map(|write| write.key.clone()).collect();
    (outcomes, probe.read(&all).await)
}

/// Applies `change` under `condition` to `start`, for all of them in one batch, and compares the
/// answers and what is left with the reference.
pub(super) async fn compare(probe: &Probe, cases: &[(i64, Change, CounterComparator)]) {
    let all = keys(cases.len());
    let starts: Vec<_> = cases.iter().map(|case| case.0).collect();
    let writes: Vec<_> = all
        .iter()
        .zip(cases)
        .map(|(key, case)| Write { key: key.clone(), change: case.1, condition: case.2 })
        .collect();
    let mut model = Model::default();
    let sets: Vec<_> =
        all.iter().zip(&starts).map(|(key, n)| Write::set(key.clone(), *n)).collect();
    model.apply(&sets);
    let expected = model.apply(&writes);
    let (outcomes, left) = start_and_apply(probe, &starts, &writes).await;
    for (i, (start, change, condition)) in cases.iter().enumerate() {
        assert!(
            outcomes[i] == expected[i],
            "{change:?} on {start} if {condition:?}: expected {:?}, got {:?}",
            expected[i],
            outcomes[i]
        );
        let want = model.total(&all[i]);
        assert!(
            left[i] == want,
            "{change:?} on {start} if {condition:?} left {}, expected {want}",
            left[i]
        );
    }
}

/// Rule 4: `(old, new)` of an addition is exact for every pair of values, or it is refused.
pub async fn additions_are_exact_on_the_whole_range(fixture: &Fixture) {
    let probe = fixture.fresh();
    let cases: Vec<_> = EDGES
        .iter()
        .flat_map(|start| EDGES.map(|count| (*start, Change::Add(count), Nil)))
        .collect();
    compare(&probe, &cases).await;

    // Alone in its call, too: a store may treat that one differently.
    let alone = key("alone");
    for (start, count, expected) in [
        ((1 << 53) - 1, 2, wrote((1 << 53) - 1, (1 << 53) + 1)),
        ((1 << 53) + 1, -2, wrote((1 << 53) + 1, (1 << 53) - 1)),
        (-(1 << 53), -1, wrote(-(1 << 53), -(1 << 53) - 1)),
        (i64::MAX, i64::MIN, wrote(i64::MAX, -1)),
        (0, i64::MIN, wrote(0, i64::MIN)),
        (-1, i64::MIN, Err(Refusal::Overflow)),
    ] {
        probe.write(Write::set(alone.clone(), start)).await;
        let add = [Write::add(alone.clone(), count)];
        check(&add, &probe.apply(&add).await, &[expected]);
    }

    // Step by step across 2^53, where a double would stand still.
    let steps = key("steps");
    probe.write(Write::set(steps.clone(), (1 << 53) - 3)).await;
    let ones = vec![Write::add(steps.clone(), 1); 6];
    let expected: Vec<_> = (-3..3).map(|i| wrote((1 << 53) + i, (1 << 53) + i + 1)).collect();
    check(&ones, &probe.apply(&ones).await, &expected);
}

/// Rule 4: an assignment stores and answers exactly what was given, whatever was there.
pub async fn assignments_are_exact_on_the_whole_range(fixture: &Fixture) {
    let probe = fixture.fresh();
    let cases: Vec<_> = EDGES
        .iter()
        .flat_map(|start| EDGES.map(|count| (*start, Change::Set(count), Nil)))
        .collect();
    compare(&probe, &cases).await;
    let alone = key("alone");
    let mut old = 0;
    for value in EDGES {
        let written = probe.write(Write::set(alone.clone(), value)).await;
        assert_eq!((written.old, written.new), (old, value), "set to {value}");
        assert_eq!(probe.total(&alone).await, value, "read after set to {value}");
        old = value;
    }
    let held = probe.remove(std::slice::from_ref(&alone)).await;
    assert_eq!(held, [old], "removal of {old}");
}

/// Rule 4: conditions compare exactly, also values that doubles cannot tell apart.
pub async fn conditions_compare_exactly(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut cases = Vec::new();
    for start in EDGES {
        for operand in EDGES {
            for condition in
                [Eq(operand), Lt(operand), Gt(operand), Le(operand), Ge(operand), Ne(operand)]
            {
                cases.push((start, Change::Set(7), condition));
                // An addition that would overflow asks its condition first.
                cases.push((start, Change::Add(1), condition));
            }
        }
    }
    compare(&probe, &cases).await;

    let alone = key("alone");
    for (start, condition, met) in [
        ((1 << 53) + 1, Eq(1 << 53), false),
        ((1 << 53) + 1, Gt(1 << 53), true),
        (i64::MAX, Ne(i64::MAX - 1), true),
        (i64::MIN, Lt(i64::MIN + 1), true),
        (i64::MIN, Lt(i64::MIN), false),
        ((1 << 53) + 1, Le(1 << 53), false),
        ((1 << 53) + 1, Ge((1 << 53) + 1), true),
        ((1 << 53) + 1, Ge((1 << 53) + 2), false),
        (i64::MIN, Le(i64::MIN), true),
    ] {
        probe.write(Write::set(alone.clone(), start)).await;
        let written = probe.write(Write::set(alone.clone(), 1).only_if(condition)).await;
        assert_eq!(written.condition_met, met, "{start} against {condition:?}");
    }
}

/// Rule 4: a result outside of the range is refused, and the value stays.
pub async fn overflow_is_refused_in_both_directions(fixture: &Fixture) {
    let probe = fixture.fresh();
    let edge = key("edge");
    for (start, counts) in [
        (i64::MAX, [1, 2, 1 << 53, i64::MAX]),
        (i64::MIN, [-1, -2, -(1 << 53), i64::MIN]),
        (1, [i64::MAX, i64::MAX, i64::MAX, i64::MAX]),
        (-2, [i64::MIN, i64::MIN + 1, i64::MIN, i64::MIN + 1]),
    ] {
        probe.write(Write::set(edge.clone(), start)).await;
        for count in counts {
            let add = [Write::add(edge.clone(), count)];
            check(&add, &probe.apply(&add).await, &[Err(Refusal::Overflow)]);
            let same = add[0].clone().only_if(Eq(start));
            check(&add, &probe.apply(&[same]).await, &[Err(Refusal::Overflow)]);
            assert_eq!(probe.total(&edge).await, start, "after a refused addition of {count}");
        }
    }
}

/// Rules 2 to 7 together: a long run of mixed calls agrees with a reference, call by call.
pub async fn long_mixed_runs_agree_with_a_reference(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all = keys(6);
    let (mut model, mut numbers) = (Model::default(), Numbers::new(20_260_000));
    let mut guard = probe.guard(0);
    for step in 0..150 {
        match numbers.below(12) {
            0 => {
                let named: Vec<_> = (0..3).map(|_| all[numbers.below(6)].clone()).collect();
                let expected = model.remove(&named);
                check_values("remove", &named, &probe.remove(&named).await, &expected);
            }
            1 if step % 5 == 0 => {
                probe.clear().await;
                model.clear();
            }
            way => {
                let writes: Vec<_> = (0..numbers.below(9))
                    .map(|_| Write {
                        key: all[numbers.below(6)].clone(),
                        change: match numbers.below(3) {
                            0 => Change::Set(numbers.pick(&EDGES)),
                            _ => Change::Add(numbers.pick(&EDGES)),
                        },
                        condition: match numbers.below(8) {
                            0 => Eq(numbers.pick(&EDGES)),
                            1 => Lt(numbers.pick(&EDGES)),
                            2 => Gt(numbers.pick(&EDGES)),
                            3 => Ne(numbers.pick(&EDGES)),
                            _ => Nil,
                        },
                    })
                    .collect();
                let expected = model.apply(&writes);
                if way < 7 {
                    check(&writes, &probe.apply(&writes).await, &expected);
                } else {
                    guard.sequence += 1 + numbers.below(3) as u64;
                    let applied = probe.send(&writes, Some(&guard)).await;
                    assert!(!applied.replayed, "step {step}: a new sequence counts as replayed");
                    check(&writes, &applied.outcomes, &expected);
                    assert!(
                        probe.send(&writes, Some(&guard)).await.replayed,
                        "step {step}: a sequence was taken twice"
                    );
                }
            }
        }
        let expected: Vec<_> = all.iter().map(|key| model.total(key)).collect();
        check_values("read", &all, &probe.read(&all).await, &expected);
    }
}
