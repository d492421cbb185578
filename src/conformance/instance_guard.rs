use tokio::task::JoinSet;

use super::{
    fixture::{Fixture, key},
    guest::{Guest, add, agreed_total, change, removal},
};
use crate::{
    CounterComparator::Eq,
    backend::{Refusal, Scope, SliceChange, SliceWrite},
};

/// Rule 20: a batch that is sent again changes nothing and answers how the keys stand.
pub async fn a_replayed_slice_batch_changes_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (guest, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let (a, b) = (key("a"), key("b"));
    let writes = [
        add(&a, 5),
        change(&b, SliceChange::SetTotal(7)),
        SliceWrite { condition: Eq(5), ..add(&a, 1) },
        change(&a, SliceChange::SetSlice(9)),
    ];
    assert!(!guest.send(&writes, Some(3)).await.replayed);
    let epoch = guest.read(&b).await.epoch;
    other.add(&a, 100).await;
    for sequence in [3, 1, 2, 3] {
        let again = guest.send(&writes, Some(sequence)).await;
        assert!(again.replayed, "sequence {sequence} after 3");
        for (outcome, expected) in again.outcomes.iter().zip([(109, 9), (7, 7), (109, 9), (109, 9)])
        {
            let Ok(w) = outcome else { panic!("{outcome:?}") };
            assert_eq!(w.old, w.new);
            assert_eq!((w.new.total, w.new.slice), expected);
        }
    }
    assert_eq!(guest.read(&b).await.epoch, epoch, "a replayed set made an epoch");
    assert!(!guest.send(&[], Some(4)).await.replayed);
    assert!(guest.send(&[], Some(4)).await.replayed, "an empty batch uses up its sequence");
    for sequence in [(1 << 53) - 1, 1 << 53] {
        assert!(!guest.send(&writes[..1], Some(sequence)).await.replayed);
        assert!(guest.send(&writes[..1], Some(sequence)).await.replayed);
    }
    // Calls without a sequence neither heed nor change it.
    guest.add(&a, 1).await;
    assert!(guest.send(&writes, Some(1 << 53)).await.replayed);
    assert_eq!(agreed_total(&[guest, other], &a).await, 120);
}

/// Rule 20: what the latest batch refused is refused again, also when it would go through now.
pub async fn refused_slices_are_refused_again(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guest = Guest::join(&probe).await;
    let (top, good) = (key("top"), key("good"));
    guest.set(&top, i64::MAX).await;
    let writes = [add(&good, 1), add(&top, 1), add(&good, 1), add(&top, 2)];
    for round in 0..3 {
        let applied = guest.send(&writes, Some(1)).await;
        assert_eq!(applied.replayed, round > 0);
        for (n, outcome) in applied.outcomes.iter().enumerate() {
            if n % 2 == 1 {
                assert_eq!(*outcome, Err(Refusal::Overflow), "write {n} in round {round}");
            } else {
                assert!(outcome.is_ok(), "write {n} in round {round}");
            }
        }
        guest.set(&top, 0).await;
    }
    let applied = guest.send(&writes, Some(2)).await;
    assert!(!applied.replayed && applied.outcomes.iter().all(Result::is_ok));
    let applied = guest.send(&writes, Some(2)).await;
    assert!(applied.replayed && applied.outcomes.iter().all(Result::is_ok));
    assert_eq!(guest.total(&good).await, 4);
    // What was refused says nothing of a later batch, of whatever kind.
    guest.set(&top, i64::MAX).await;
    assert!(guest.send(&writes, Some(3)).await.outcomes[1].is_err());
    let writes = [&good, &top].map(|k| change(k, SliceChange::SetSlice(1)));
    for replayed in [false, true] {
        let applied = guest.send(&writes, Some(4)).await;
        assert_eq!(applied.replayed, replayed);
        assert!(applied.outcomes.iter().all(Result::is_ok), "replayed: {replayed}");
    }
}

/// Rule 20: the guard ends with its incarnation, and says nothing about another's.
pub async fn guards_end_with_the_incarnation(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (mut guest, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let k = key("k");
    let writes = [add(&k, 1)];
    assert!(!guest.send(&writes, Some(10)).await.replayed);
    assert!(!other.send(&writes, Some(10)).await.replayed);
    let claim = guest.claim(&k).await;
    guest.rejoin(std::slice::from_ref(&claim)).await;
    assert!(!guest.send(&writes, Some(10)).await.replayed, "after a join");
    assert!(guest.send(&writes, Some(10)).await.replayed);
    guest.expire(fixture, &other, &k).await;
    guest.rejoin(&[claim]).await;
    assert!(!guest.send(&writes, Some(1)).await.replayed, "after a collection");
    assert!(other.send(&writes, Some(10)).await.replayed);
    assert_eq!(agreed_total(&[guest, other], &k).await, 3);
}

/// Rule 20: of concurrent copies of a batch one happens.
pub async fn concurrent_copies_of_a_slice_batch_happen_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guest = Guest::join(&probe).await;
    let k = key("k");
    for sequence in 1..=10 {
        let mut copies = JoinSet::new();
        for _ in 0..4 {
            let (guest, write) = (guest.clone(), add(&k, 1));
            copies.spawn(async move { guest.send(&[write], Some(sequence)).await.replayed });
        }
        let replayed = copies.join_all().await;
        assert_eq!(replayed.iter().filter(|replayed| !**replayed).count(), 1);
    }
    assert_eq!(guest.total(&k).await, 10);
}

/// Rules 16 and 20: a removal has its place in a batch, a condition of its own, and happens once under a guard.
pub async fn a_removal_of_slices_is_a_write_like_any_other(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (guest, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let k = key("k");
    let (own, whole) = (removal(&k, Scope::Slice), removal(&k, Scope::Total));
    let writes = [
        add(&k, 5),
        SliceWrite { condition: Eq(15), ..own.clone() },
        SliceWrite { condition: Eq(5), ..own.clone() },
        add(&k, 1),
        SliceWrite { condition: Eq(1), ..whole.clone() },
        SliceWrite { condition: Eq(11), ..whole.clone() },
        add(&k, 3),
    ];
    let totals = [15, 15, 10, 11, 11, 0, 3];
    let held = [true, false, true, true, false, true, true];
    for sequence in [None, Some(1)] {
        guest.remove(&k, Scope::Total).await;
        other.add(&k, 10).await;
        let epoch = guest.read(&k).await.epoch;
        let applied = guest.send(&writes, sequence).await;
        for (n, outcome) in applied.outcomes.iter().enumerate() {
            let Ok(written) = outcome else { panic!("write {n}: {outcome:?}") };
            assert_eq!(written.new.total, totals[n], "write {n}");
            assert_eq!(written.condition_met, held[n], "write {n}");
            assert_eq!(written.new.epoch != epoch, n >= 5, "write {n}: the epoch");
        }
        other.add(&k, 10).await;
        if sequence.is_some() {
            assert!(guest.send(&writes, sequence).await.replayed);
        }
        assert_eq!(agreed_total(&[guest.clone(), other.clone()], &k).await, 13);
    }
}
