use std::time::Duration;

use tokio::task::JoinSet;

use super::batches::BIG;
use super::fixture::{Fixture, Probe, check, check_values, kept, key, keys, wrote};
use super::model::Model;
use crate::{
    CounterComparator::{Eq, Gt},
    RedisKey,
    backend::{Applied, BackendError, Refusal, ReplayGuard, Write},
};

/// Sends a batch that the store has applied, and checks that it says so and answers with `standing`:
/// for each write the value as it stands, or `None` where it must be refused as an overflow.
async fn replay(probe: &Probe, writes: &[Write], guard: &ReplayGuard, standing: &[Option<i64>]) {
    let Applied { replayed, outcomes, .. } = probe.send(writes, Some(guard)).await;
    assert!(replayed, "sequence {} was sent again and not recognised", guard.sequence);
    for (i, (outcome, want)) in outcomes.iter().zip(standing).enumerate() {
        match (outcome, want) {
            (Ok(w), Some(value)) => assert!(
                w.old == *value && w.new == *value,
                "write {i} of a replayed batch: the value stands at {value}, the answer is {w:?}"
            ),
            (Err(refusal), None) => assert_eq!(*refusal, Refusal::Overflow, "write {i}"),
            (Ok(w), None) => panic!("write {i} was refused the first time, and now {w:?}"),
            (Err(refusal), Some(_)) => panic!("write {i} of a replayed batch: {refusal}"),
        }
    }
}

async fn first_time(probe: &Probe, writes: &[Write], guard: &ReplayGuard) -> Applied {
    let applied = probe.send(writes, Some(guard)).await;
    assert!(!applied.replayed, "sequence {} is new and was not applied", guard.sequence);
    applied
}

/// Rule 7: the second sending of a batch changes nothing, says so, and answers with the values as they
/// stand, also after others wrote.
pub async fn a_replayed_batch_changes_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (a, b) = (key("a"), key("b"));
    let guard = probe.guard(1);
    let writes = [
        Write::add(a.clone(), 5),
        Write::add(b.clone(), (1 << 53) + 1),
        Write::add(a.clone(), 2),
        Write::add(key("untouched"), 0),
    ];
    let applied = first_time(&probe, &writes, &guard).await;
    let expected = [wrote(0, 5), wrote(0, (1 << 53) + 1), wrote(5, 7), wrote(0, 0)];
    check(&writes, &applied.outcomes, &expected);

    let standing = [Some(7), Some((1 << 53) + 1), Some(7), Some(0)];
    replay(&probe, &writes, &guard, &standing).await;
    let all = [a.clone(), b.clone()];
    check_values("read", &all, &probe.read(&all).await, &[7, (1 << 53) + 1]);

    probe.apply(&[Write::add(a.clone(), 100), Write::set(b, i64::MIN)]).await;
    let standing = [Some(107), Some(i64::MIN), Some(107), Some(0)];
    replay(&probe, &writes, &guard, &standing).await;
    probe.remove(&[a]).await;
    let standing = [Some(0), Some(i64::MIN), Some(0), Some(0)];
    replay(&probe, &writes, &guard, &standing).await;
    check_values("read", &all, &probe.read(&all).await, &[0, i64::MIN]);

    let single = [Write::add(key("single"), 3)];
    let guard = probe.guard(1);
    check(&single, &first_time(&probe, &single, &guard).await.outcomes, &[wrote(0, 3)]);
    replay(&probe, &single, &guard, &[Some(3)]).await;
}

/// Rule 7: what the latest batch refused is refused again, also when it would go through now.
pub async fn refused_items_are_refused_again(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (top, bottom, good) = (key("top"), key("bottom"), key("good"));
    probe.apply(&[Write::set(top.clone(), i64::MAX), Write::set(bottom.clone(), i64::MIN)]).await;
    let mut guard = probe.guard(4);
    let writes = [
        Write::add(good.clone(), 1),
        Write::add(top.clone(), 1),
        Write::add(good.clone(), 1).only_if(Eq(55)),
        Write::add(bottom.clone(), -1),
        Write::add(top.clone(), -1),
        Write::add(top.clone(), 2),
    ];
    let overflow = || Err(Refusal::Overflow);
    let applied = first_time(&probe, &writes, &guard).await;
    let expected =
        [wrote(0, 1), overflow(), kept(1), overflow(), wrote(i64::MAX, i64::MAX - 1), overflow()];
    check(&writes, &applied.outcomes, &expected);

    for top_value in [i64::MAX - 1, 0] {
        let standing = [Some(1), None, Some(1), None, Some(top_value), None];
        replay(&probe, &writes, &guard, &standing).await;
        probe.apply(&[Write::set(top.clone(), 0), Write::set(bottom.clone(), 0)]).await;
    }
    let all = [top, bottom, good];
    check_values("read", &all, &probe.read(&all).await, &[0, 0, 1]);

    // The next batch starts anew: nothing of the earlier refusals is left.
    guard.sequence += 1;
    let applied = first_time(&probe, &writes, &guard).await;
    let expected = [wrote(1, 2), wrote(0, 1), kept(2), wrote(0, -1), wrote(1, 0), wrote(0, 2)];
    check(&writes, &applied.outcomes, &expected);
    let standing = [Some(2), Some(2), Some(2), Some(-1), Some(2), Some(2)];
    replay(&probe, &writes, &guard, &standing).await;
}

/// Rule 7: also a sequence below the highest one changes nothing; gaps are fine.
pub async fn a_lower_sequence_changes_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    let hits = key("hits");
    let mut guard = probe.guard(0);
    let writes = [Write::add(hits.clone(), 1)];
    let mut total = 0;
    for sequence in [2, 3, 10, 11, 100] {
        guard.sequence = sequence;
        first_time(&probe, &writes, &guard).await;
        total += 1;
        for lower in [1, 2, 9, 10, 99, 100].into_iter().filter(|lower| *lower <= sequence) {
            guard.sequence = lower;
            replay(&probe, &writes, &guard, &[Some(total)]).await;
        }
    }
    assert_eq!(probe.total(&hits).await, total);
    // What was refused to a later batch says nothing of this one.
    let top = key("top");
    probe.apply(&[Write::set(top.clone(), i64::MAX)]).await;
    guard.sequence = 101;
    let applied = first_time(&probe, &[Write::add(top, 1)], &guard).await;
    assert_eq!(applied.outcomes, [Err(Refusal::Overflow)]);
    guard.sequence = 100;
    replay(&probe, &writes, &guard, &[Some(total)]).await;
}

/// Rule 7: sequences are told apart up to 2^53.
pub async fn sequences_are_exact_to_two_to_the_53(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut guard = probe.guard(0);
    let writes = [Write::add(key("hits"), 1)];
    let sequences =
        [1, 99_999_999_999_999, 100_000_000_000_000, 100_000_000_000_001, (1 << 53) - 1, 1 << 53];
    for (total, sequence) in (1..).zip(sequences) {
        guard.sequence = sequence;
        first_time(&probe, &writes, &guard).await;
        replay(&probe, &writes, &guard, &[Some(total)]).await;
    }
}

/// Rule 7: a writer is remembered for at least a day after its last batch that was applied. Needs
/// [`Fixture::advance_with`].
pub async fn guards_last_a_day_after_the_last_batch(fixture: &Fixture) {
    const MS: Duration = Duration::from_millis(1);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    if !fixture.has_clock() {
        return;
    }
    let probe = fixture.fresh();
    let mut guard = probe.guard(1);
    let writes = [Write::add(key("hits"), 1)];
    first_time(&probe, &writes, &guard).await;
    fixture.pass(DAY - MS);
    replay(&probe, &writes, &guard, &[Some(1)]).await;
    guard.sequence = 2;
    first_time(&probe, &writes, &guard).await;
    fixture.pass(DAY / 2);
    replay(&probe, &writes, &guard, &[Some(2)]).await;
    fixture.pass(DAY / 2 - MS);
    replay(&probe, &writes, &guard, &[Some(2)]).await;
    guard.sequence = 1;
    replay(&probe, &writes, &guard, &[Some(2)]).await;
    assert_eq!(probe.total(&key("hits")).await, 2);
}

/// Rule 7: one writer's sequences say nothing about another's.
pub async fn writers_are_independent(fixture: &Fixture) {
    let probe = fixture.fresh();
    let hits = key("hits");
    let mut guards: Vec<_> = (0..5).map(|i| probe.guard(10 - i)).collect();
    let writes = [Write::add(hits.clone(), 1)];
    for round in 0..3 {
        for guard in &mut guards {
            guard.sequence += round;
            first_time(&probe, &writes, guard).await;
        }
    }
    for guard in &guards {
        replay(&probe, &writes, guard, &[Some(15)]).await;
    }
    probe.apply(&writes).await;
    assert_eq!(probe.total(&hits).await, 16, "unguarded writes after guarded ones");
}

/// Rule 7: an empty batch uses up its sequence.
pub async fn an_empty_batch_uses_up_its_sequence(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut guard = probe.guard(1);
    let writes = [Write::add(key("hits"), 1)];
    first_time(&probe, &[], &guard).await;
    replay(&probe, &[], &guard, &[]).await;
    replay(&probe, &writes, &guard, &[Some(0)]).await;
    guard.sequence = 2;
    first_time(&probe, &writes, &guard).await;
    guard.sequence = 3;
    first_time(&probe, &[], &guard).await;
    guard.sequence = 2;
    replay(&probe, &writes, &guard, &[Some(1)]).await;
}

/// Rule 7: assignments and conditional writes are guarded like additions.
pub async fn guarded_sets_and_conditions_happen_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (a, b, c) = (key("a"), key("b"), key("c"));
    let guard = probe.guard(7);
    let writes = [
        Write::set(a.clone(), 10),
        Write::add(b.clone(), 1).only_if(Eq(0)),
        Write::set(c.clone(), 5).only_if(Gt(0)),
        Write::set(b.clone(), i64::MAX).only_if(Eq(1)),
    ];
    let applied = first_time(&probe, &writes, &guard).await;
    check(&writes, &applied.outcomes, &[wrote(0, 10), wrote(0, 1), kept(0), wrote(1, i64::MAX)]);

    // Each of the conditions now turns out the other way, and none of them may be asked again.
    probe
        .apply(&[Write::set(a.clone(), 11), Write::set(b.clone(), 0), Write::set(c.clone(), 1)])
        .await;
    replay(&probe, &writes, &guard, &[Some(11), Some(0), Some(1), Some(0)]).await;
    let all = [a, b, c];
    check_values("read", &all, &probe.read(&all).await, &[11, 0, 1]);
}

/// Rule 7: a batch that several tasks send at the same time is applied by one of them.
pub async fn concurrent_copies_of_a_guarded_batch_happen_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let hits = key("hits");
    let mut guard = probe.guard(0);
    for sequence in 1..=8 {
        guard.sequence = sequence;
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (probe, guard) = (probe.clone(), guard.clone());
            let writes = [Write::add(hits.clone(), 1), Write::add(hits.clone(), 1)];
            tasks.spawn(async move { probe.send(&writes, Some(&guard)).await.replayed });
        }
        let applied = tasks.join_all().await.into_iter().filter(|replayed| !replayed).count();
        assert_eq!(applied, 1, "copies of one guarded batch that were applied");
        assert_eq!(probe.total(&hits).await, 2 * sequence as i64);
    }
}

/// A guarded batch of 10 000 items is one call like any other, and so is its replay, however many of
/// its items were refused.
pub async fn big_guarded_batches_are_one_call(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all: Vec<RedisKey> = keys(BIG);
    let mut model = Model::default();
    let mut guard = probe.guard(1);

    let sets: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(i, key)| Write::set(key.clone(), if i % 2 == 0 { i64::MAX } else { i as i64 }))
        .collect();
    let applied = first_time(&probe, &sets, &guard).await;
    check(&sets, &applied.outcomes, &model.apply(&sets));

    guard.sequence += 1;
    let adds: Vec<_> = all.iter().map(|key| Write::add(key.clone(), 1)).collect();
    let applied = first_time(&probe, &adds, &guard).await;
    check(&adds, &applied.outcomes, &model.apply(&adds));
    let standing: Vec<_> =
        all.iter().map(|key| Some(model.total(key)).filter(|total| *total != i64::MAX)).collect();
    replay(&probe, &adds, &guard, &standing).await;
    let expected: Vec<_> = all.iter().map(|key| model.total(key)).collect();
    check_values("read", &all, &probe.read(&all).await, &expected);
}

/// Rule 7: a batch that was perhaps applied, and of which the store lost the record, changes nothing, also where the
/// counters are empty. One that certainly was not is applied.
///
/// Checks nothing when the fixture cannot lose records: see [`Fixture::lose_records_with`].
pub async fn a_batch_whose_record_is_lost_is_not_applied(fixture: &Fixture) {
    if !fixture.can_lose_records() {
        eprintln!("not checked: the fixture cannot lose records");
        return;
    }
    let probe = fixture.fresh();
    let hits = key("hits");
    let writes = [Write::add(hits.clone(), 5)];
    let mut guard = probe.guard(1);
    for cleared in [false, true] {
        first_time(&probe, &writes, &guard).await;
        if cleared {
            probe.clear().await;
        }
        let total = probe.total(&hits).await;
        fixture.lose_records(&probe.space).await;
        for attempt in 1..3 {
            let resent = ReplayGuard { resent: true, ..guard.clone() };
            let answer = probe.backend.apply(&probe.space, &writes, Some(&resent)).await;
            assert!(
                matches!(answer, Err(BackendError::Forgotten)),
                "attempt {attempt}: {answer:?}"
            );
            assert_eq!(probe.total(&hits).await, total, "a forgotten batch changed something");
        }
        guard = probe.guard(1);
        first_time(&probe, &writes, &guard).await;
        assert_eq!(probe.total(&hits).await, total + 5, "the next writer's batch");
        guard.sequence += 1;
    }
}
