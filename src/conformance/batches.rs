use super::fixture::{Fixture, check, check_values, kept, key, keys, wrote};
use super::model::Model;
use crate::{
    CounterComparator::{Eq, Gt, Lt, Ne},
    backend::{Refusal, Write},
};

pub(super) const BIG: usize = 10_000;

/// Rule 2: the writes of a batch happen in its order, also on one key.
pub async fn a_key_named_twice_is_written_twice_in_order(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (a, b) = (key("a"), key("b"));
    let writes = [
        Write::add(a.clone(), 3),
        Write::set(a.clone(), 10),
        Write::add(b.clone(), 1),
        Write::add(a.clone(), 5),
        Write::set(a.clone(), 99).only_if(Eq(3)),
        Write::set(a.clone(), 20).only_if(Eq(15)),
        Write::add(b.clone(), 1),
        Write::add(a.clone(), -1),
    ];
    let outcomes = probe.apply(&writes).await;
    let expected = [
        wrote(0, 3),
        wrote(3, 10),
        wrote(0, 1),
        wrote(10, 15),
        kept(15),
        wrote(15, 20),
        wrote(1, 2),
        wrote(20, 19),
    ];
    check(&writes, &outcomes, &expected);
    let named = [a.clone(), b, a];
    check_values("read", &named, &probe.read(&named).await, &[19, 2, 19]);
}

/// Rule 2: answers come in the order of the input, whatever the order of the keys.
pub async fn answers_come_in_the_order_of_the_input(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut all = keys(61);
    all.sort_by_key(|key| key.bytes().rev().collect::<Vec<_>>());
    let values: Vec<i64> = (0..61).map(|i| (i * 37) % 61 - 30).collect();
    let writes: Vec<_> =
        all.iter().zip(&values).map(|(key, value)| Write::set(key.clone(), *value)).collect();
    let expected: Vec<_> = values.iter().map(|value| wrote(0, *value)).collect();
    check(&writes, &probe.apply(&writes).await, &expected);
    check_values("read", &all, &probe.read(&all).await, &values);

    let backwards: Vec<_> = all.iter().rev().cloned().collect();
    let expected: Vec<_> = values.iter().rev().copied().collect();
    check_values("read", &backwards, &probe.read(&backwards).await, &expected);
    check_values("remove", &backwards, &probe.remove(&backwards).await, &expected);
}

/// Rule 3: a refused item and one whose condition fails change nothing and stop no other item.
pub async fn refused_items_stop_no_neighbour(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (top, bottom, plain) = (key("top"), key("bottom"), key("plain"));
    probe.apply(&[Write::set(top.clone(), i64::MAX), Write::set(bottom.clone(), i64::MIN)]).await;
    let writes = [
        Write::add(top.clone(), 1),
        Write::add(plain.clone(), 1),
        Write::add(bottom.clone(), -1),
        Write::add(plain.clone(), 1),
        Write::set(plain.clone(), 77).only_if(Gt(2)),
        Write::add(plain.clone(), 1).only_if(Lt(2)),
        Write::add(plain.clone(), 1).only_if(Ne(2)),
        Write::add(plain.clone(), 1).only_if(Eq(2)),
        Write::add(top.clone(), -1),
        Write::add(top.clone(), 2),
        Write::add(bottom.clone(), 1),
        Write::add(bottom.clone(), i64::MIN),
        Write::add(plain.clone(), 1),
    ];
    let outcomes = probe.apply(&writes).await;
    let expected = [
        Err(Refusal::Overflow),
        wrote(0, 1),
        Err(Refusal::Overflow),
        wrote(1, 2),
        kept(2),
        kept(2),
        kept(2),
        wrote(2, 3),
        wrote(i64::MAX, i64::MAX - 1),
        Err(Refusal::Overflow),
        wrote(i64::MIN, i64::MIN + 1),
        Err(Refusal::Overflow),
        wrote(3, 4),
    ];
    check(&writes, &outcomes, &expected);
    let all = [top, bottom, plain];
    let values = [i64::MAX - 1, i64::MIN + 1, 4];
    check_values("read", &all, &probe.read(&all).await, &values);

    // A batch of nothing but refusals is an answer, too, not an error.
    let refused = [Write::add(all[0].clone(), i64::MAX), Write::add(all[1].clone(), i64::MIN)];
    let outcomes = probe.apply(&refused).await;
    check(&refused, &outcomes, &[Err(Refusal::Overflow), Err(Refusal::Overflow)]);
    check_values("read", &all, &probe.read(&all).await, &values);
}

/// Rule 5: a missing key reads 0, and conditions compare with 0.
pub async fn a_missing_key_reads_zero(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all = keys(8);
    check_values("read", &all, &probe.read(&all).await, &[0; 8]);
    let writes = [
        Write::set(all[0].clone(), 5).only_if(Eq(0)),
        Write::set(all[1].clone(), 5).only_if(Lt(1)),
        Write::set(all[2].clone(), 5).only_if(Gt(-1)),
        Write::add(all[3].clone(), 5).only_if(Ne(1)),
        Write::set(all[4].clone(), 5).only_if(Ne(0)),
        Write::add(all[5].clone(), 5).only_if(Lt(0)),
        Write::set(all[6].clone(), 5).only_if(Gt(0)),
        Write::add(all[7].clone(), 0),
    ];
    let outcomes = probe.apply(&writes).await;
    let mut expected = vec![wrote(0, 5); 4];
    expected.extend([kept(0), kept(0), kept(0), wrote(0, 0)]);
    check(&writes, &outcomes, &expected);
    check_values("read", &all, &probe.read(&all).await, &[5, 5, 5, 5, 0, 0, 0, 0]);

    // Removing brings a key back to the start.
    probe.remove(&all).await;
    let again = [Write::add(all[0].clone(), 7).only_if(Eq(0))];
    check(&again, &probe.apply(&again).await, &[wrote(0, 7)]);
}

/// Empty batches are answered, and change nothing.
pub async fn empty_batches_do_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    let one = key("one");
    probe.write(Write::set(one.clone(), 1)).await;
    probe.apply(&[]).await;
    probe.read(&[]).await;
    probe.remove(&[]).await;
    assert_eq!(probe.total(&one).await, 1, "empty batches changed a counter");
}

/// A batch of 10 000 items is one call like any other, on distinct keys and on a few.
pub async fn big_batches_are_one_call(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all = keys(BIG);
    let mut model = Model::default();

    let adds: Vec<_> = (1..).zip(&all).map(|(i, key)| Write::add(key.clone(), i)).collect();
    check(&adds, &probe.apply(&adds).await, &model.apply(&adds));

    let mixed: Vec<_> = (0..BIG)
        .map(|i| {
            let key = all[(i * 7919) % BIG].clone();
            match i % 4 {
                0 => Write::set(key, i64::MAX - i as i64),
                1 => Write::add(key, i64::MAX),
                2 => Write::add(key, 1).only_if(Gt(5000)),
                _ => Write::set(key, 0).only_if(Lt(5000)),
            }
        })
        .collect();
    check(&mixed, &probe.apply(&mixed).await, &model.apply(&mixed));

    let few: Vec<_> =
        (0..BIG).map(|i| Write::add(all[i % 3].clone(), if i % 2 == 0 { 3 } else { -1 })).collect();
    check(&few, &probe.apply(&few).await, &model.apply(&few));

    let expected: Vec<_> = all.iter().map(|key| model.total(key)).collect();
    check_values("read", &all, &probe.read(&all).await, &expected);
}
