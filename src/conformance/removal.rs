use super::batches::BIG;
use super::fixture::{Fixture, check, check_values, kept, key, keys, wrote};
use crate::{CounterComparator, backend::Write};

/// A removal answers what was held, and 0 for what is not there; the second of two removals of one key
/// in one batch finds it gone.
pub async fn removal_answers_what_was_held(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all = keys(5);
    let values = [i64::MIN, i64::MAX, (1 << 53) + 1, 0];
    let sets: Vec<_> =
        all.iter().zip(values).map(|(key, value)| Write::set(key.clone(), value)).collect();
    probe.apply(&sets).await;

    let named: Vec<_> = [2, 4, 0, 2, 1, 3, 0].iter().map(|i| all[*i].clone()).collect();
    let expected = [values[2], 0, values[0], 0, values[1], 0, 0];
    check_values("remove", &named, &probe.remove(&named).await, &expected);
    check_values("read after removal", &all, &probe.read(&all).await, &[0; 5]);
    check_values("second removal", &all, &probe.remove(&all).await, &[0; 5]);

    let last = all[0].clone();
    probe.apply(&[Write::add(last.clone(), 4), Write::add(all[1].clone(), 6)]).await;
    assert_eq!(probe.remove(std::slice::from_ref(&last)).await, [4], "removal of one key");
    assert_eq!(probe.read(&all[..2]).await, [0, 6], "a removal touched another key");
}

/// `clear` removes every plain counter of its space and nothing of any other.
pub async fn clear_removes_its_own_space_only(fixture: &Fixture) {
    let probe = fixture.fresh();
    let prefix = probe.space.prefix().clone();
    let others = ["x", " ", "*", "?", "{", "}", "%", "%2A", ".", "{x}"]
        .map(|end| probe.beside(&format!("{prefix}{end}")));
    let all = keys(40);
    let sets: Vec<_> = all.iter().map(|key| Write::set(key.clone(), 9)).collect();
    for space in others.iter().chain([&probe]) {
        space.apply(&sets).await;
    }
    probe.clear().await;
    check_values("read after clear", &all, &probe.read(&all).await, &[0; 40]);
    for space in &others {
        let what = format!("a clear of {prefix:?} reached into {:?}", space.space.prefix());
        check_values(&what, &all, &space.read(&all).await, &[9; 40]);
    }

    probe.clear().await;
    let written = probe.write(Write::add(all[0].clone(), 1)).await;
    assert_eq!((written.old, written.new), (0, 1), "the first addition after a clear");
}

/// Rule 7: neither `clear` nor `remove` makes a store forget which batches it has applied.
pub async fn guards_survive_removal_and_clear(fixture: &Fixture) {
    let probe = fixture.fresh();
    let hits = key("hits");
    let mut guard = probe.guard(1);
    let writes = [Write::add(hits.clone(), 5)];
    assert!(!probe.send(&writes, Some(&guard)).await.replayed);

    probe.remove(std::slice::from_ref(&hits)).await;
    let again = probe.send(&writes, Some(&guard)).await;
    assert!(again.replayed, "a removal made the store forget a guard");
    assert_eq!(probe.total(&hits).await, 0, "a replayed batch brought a removed key back");

    probe.clear().await;
    let again = probe.send(&writes, Some(&guard)).await;
    assert!(again.replayed, "a clear made the store forget a guard");
    assert_eq!(probe.total(&hits).await, 0, "a replayed batch brought a cleared key back");

    guard.sequence += 1;
    assert!(!probe.send(&writes, Some(&guard)).await.replayed, "the next batch after a clear");
    assert_eq!(probe.total(&hits).await, 5, "the next batch after a clear");
}

/// `read`, `remove` and `clear` of 10 000 keys are one call like any other.
pub async fn big_removals_and_clears_are_one_call(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all = keys(BIG);
    let values: Vec<i64> = (1..).take(BIG).collect();
    let sets: Vec<_> =
        all.iter().zip(&values).map(|(key, value)| Write::set(key.clone(), *value)).collect();
    probe.apply(&sets).await;
    check_values("remove", &all, &probe.remove(&all).await, &values);
    check_values("read after removal", &all, &probe.read(&all).await, &vec![0; BIG]);
    probe.apply(&sets).await;
    probe.clear().await;
    check_values("read after clear", &all, &probe.read(&all).await, &vec![0; BIG]);
}

/// A removal has its place in a batch, and a condition of its own.
pub async fn a_removal_is_a_write_like_any_other(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (a, b) = (key("a"), key("b"));
    let writes = [
        Write::add(a.clone(), 5),
        Write::remove(a.clone()).only_if(CounterComparator::Gt(5)),
        Write::remove(a.clone()).only_if(CounterComparator::Eq(5)),
        Write::add(a.clone(), 2),
        Write::remove(b.clone()),
        Write::set(b.clone(), 7),
        Write::remove(b.clone()),
    ];
    let expected =
        [wrote(0, 5), kept(5), wrote(5, 0), wrote(0, 2), wrote(0, 0), wrote(0, 7), wrote(7, 0)];
    for guard in [None, Some(probe.guard(1))] {
        probe.remove(&[a.clone(), b.clone()]).await;
        let applied = probe.send(&writes, guard.as_ref()).await;
        check(&writes, &applied.outcomes, &expected);
        assert_eq!(probe.read(&[a.clone(), b.clone()]).await, [2, 0]);
        if let Some(guard) = guard {
            probe.apply(&[Write::set(b.clone(), 9)]).await;
            assert!(probe.send(&writes, Some(&guard)).await.replayed);
            assert_eq!(probe.read(&[a.clone(), b.clone()]).await, [2, 9], "a replayed removal");
        }
    }
}
