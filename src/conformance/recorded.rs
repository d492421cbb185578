//! Rules 21 to 24: requests that get their original answer again.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{
    fixture::{Fixture, Probe, key},
    guest::{Guest, add, change, ok},
};
use crate::{
    CounterComparator::Lt,
    backend::{
        Applied, Backend, BackendError, RecordedAnswers, RecordedSliceAnswers, ReplayGuard,
        SliceChange, Write,
    },
};

fn recorded(probe: &Probe) -> &dyn RecordedAnswers {
    let capability = probe.backend.capabilities().recorded;
    capability.expect("the store has the capability `recorded`")
}

fn recorded_slices(store: &Arc<dyn Backend>) -> &dyn RecordedSliceAnswers {
    let capability = store.capabilities().recorded_slices;
    capability.expect("the store has the capability `recorded_slices`")
}

/// A new lane.
fn lane(probe: &Probe) -> ReplayGuard {
    ReplayGuard { writer: probe.backend.fresh_id(), sequence: 1, resent: false }
}

fn resent(lane: &ReplayGuard) -> ReplayGuard {
    ReplayGuard { resent: true, ..lane.clone() }
}

/// Rules 21 and 22: a request that is sent again happens once, and is answered as it was the first time whatever
/// others wrote since.
pub async fn a_recorded_request_gets_its_original_answer(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (store, space) = (recorded(&probe), &probe.space);
    let (hits, top, gone) = (key("hits"), key("top"), key("gone"));
    probe.apply(&[Write::set(top.clone(), i64::MAX), Write::set(gone.clone(), 3)]).await;
    let batches = [
        vec![Write::add(hits.clone(), 5), Write::add(top.clone(), 1), Write::add(hits.clone(), 2)],
        vec![
            Write::set(hits.clone(), (1 << 53) + 1),
            Write::add(hits.clone(), 1).only_if(Lt(0)),
            Write::remove(gone.clone()),
            Write::add(top.clone(), 1),
        ],
        vec![],
    ];
    let mut lane = lane(&probe);
    for writes in &batches {
        let first = ok("apply_recorded", store.apply_recorded(space, writes, &lane).await);
        let state = probe.read(&[hits.clone(), top.clone(), gone.clone()]).await;
        for write in [Write::add(hits.clone(), 1000), Write::set(gone.clone(), 8)] {
            probe.apply(std::slice::from_ref(&write)).await;
            let again = ok("again", store.apply_recorded(space, writes, &resent(&lane)).await);
            assert_eq!(again, first, "the answer to {writes:?}, sent again");
        }
        let expected = [state[0] + 1000, state[1], 8];
        let all = [hits.clone(), top.clone(), gone.clone()];
        assert_eq!(probe.read(&all).await, expected, "after {writes:?} was sent again");
        lane.sequence += 1;
    }
}

/// Rule 21: a clear that is sent again erases nothing that was counted since.
pub async fn a_recorded_clear_happens_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (store, space, lane) = (recorded(&probe), &probe.space, lane(&probe));
    let hits = key("hits");
    probe.apply(&[Write::add(hits.clone(), 5)]).await;
    ok("clear_recorded", store.clear_recorded(space, &lane).await);
    assert_eq!(probe.total(&hits).await, 0);
    probe.apply(&[Write::add(hits.clone(), 2)]).await;
    ok("clear_recorded", store.clear_recorded(space, &resent(&lane)).await);
    assert_eq!(probe.total(&hits).await, 2, "a clear that was sent again");
}

/// Rule 22: an older request of a lane, which arrives late, changes nothing and gets nobody else's answer.
pub async fn a_late_recorded_request_changes_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (store, space, mut lane) = (recorded(&probe), &probe.space, lane(&probe));
    let write = [Write::add(key("hits"), 1)];
    let late = lane.clone();
    for _ in 0..3 {
        ok("apply_recorded", store.apply_recorded(space, &write, &lane).await);
        lane.sequence += 1;
    }
    let answer = store.apply_recorded(space, &write, &late).await;
    assert!(matches!(answer, Err(BackendError::AnswerLost(_))), "{answer:?}");
    assert_eq!(probe.total(&write[0].key).await, 3);
    // Also where sequences are left out.
    lane.sequence += 10;
    ok("apply_recorded", store.apply_recorded(space, &write, &lane).await);
    assert_eq!(probe.total(&write[0].key).await, 4);
}

/// Rule 21: of concurrent copies one happens, and all get one answer; lanes are apart, and apart from writers.
pub async fn concurrent_copies_of_a_recorded_request_get_one_answer(fixture: &Fixture) {
    let probe = fixture.fresh();
    let hits = key("hits");
    let mut lane = lane(&probe);
    for round in 1..=10 {
        let mut copies = JoinSet::new();
        for _ in 0..4 {
            let (probe, lane, write) = (probe.clone(), lane.clone(), [Write::add(hits.clone(), 1)]);
            copies.spawn(async move {
                ok("a copy", recorded(&probe).apply_recorded(&probe.space, &write, &lane).await)
            });
        }
        let answers: Vec<Applied> = copies.join_all().await;
        for answer in &answers {
            assert_eq!(answer.outcomes[0].as_ref().map(|written| written.new), Ok(round));
        }
        lane.sequence += 1;
    }
    let guard = ReplayGuard { sequence: 1, ..lane.clone() };
    let as_writer = probe.send(&[Write::add(hits.clone(), 1)], Some(&guard)).await;
    assert!(!as_writer.replayed, "a writer has the name of a lane");
    assert_eq!(probe.total(&hits).await, 11);
}

/// Rules 21 and 22, of slices: also after the incarnation that sent the request is gone.
pub async fn a_recorded_slice_request_gets_its_original_answer(fixture: &Fixture) {
    let probe = fixture.fresh();
    let store = recorded_slices(&probe.backend);
    let (mut guest, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let (space, k, mut lane) = (&probe.space, key("k"), lane(&probe));
    for writes in [
        vec![add(&k, 5)],
        vec![add(&k, 1), change(&k, SliceChange::SetSlice(9)), add(&k, 1).only_if(Lt(0))],
        vec![change(&k, SliceChange::SetTotal(7))],
        vec![change(&k, SliceChange::Remove)],
    ] {
        let sent = store.apply_on_recorded(space, &guest.member, &writes, &lane).await;
        let first = ok("apply_on_recorded", sent);
        other.add(&k, 100).await;
        let total = other.total(&k).await;
        for _ in 0..2 {
            let sent = store.apply_on_recorded(space, &guest.member, &writes, &resent(&lane)).await;
            assert_eq!(ok("again", sent), first, "{writes:?}");
        }
        assert_eq!(other.total(&k).await, total, "{writes:?} sent again");
        lane.sequence += 1;
    }
    // An increment of another's after a set whose answer was lost is not erased.
    let set = [change(&k, SliceChange::SetTotal(1))];
    let first = ok("set", store.apply_on_recorded(space, &guest.member, &set, &lane).await);
    let before = guest.clone();
    guest.leave().await;
    other.add(&k, 10).await;
    let total = other.total(&k).await;
    let again = store.apply_on_recorded(space, &before.member, &set, &resent(&lane)).await;
    assert_eq!(ok("a request of a past incarnation", again), first);
    guest.rejoin(&[]).await;
    let again = store.apply_on_recorded(space, &guest.member, &set, &resent(&lane)).await;
    assert_eq!(ok("by the next incarnation", again), first);
    assert_eq!(other.total(&k).await, total);
}

/// Rule 23: a request of an instance that is not joined uses up no sequence.
pub async fn a_recorded_slice_request_may_be_sent_again_after_a_rejoin(fixture: &Fixture) {
    let probe = fixture.fresh();
    let store = recorded_slices(&probe.backend);
    let (mut guest, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let (space, k, lane) = (&probe.space, key("k"), lane(&probe));
    guest.leave().await;
    let sent = store.apply_on_recorded(space, &guest.member, &[add(&k, 5)], &lane).await;
    assert!(matches!(sent, Err(BackendError::NotJoined)), "{sent:?}");
    guest.rejoin(&[]).await;
    for _ in 0..2 {
        let (writes, lane) = ([add(&k, 5)], resent(&lane));
        let sent = store.apply_on_recorded(space, &guest.member, &writes, &lane).await;
        let answer = ok("after a rejoin", sent).answer;
        assert_eq!(answer.outcomes[0].as_ref().map(|written| written.new.total), Ok(5));
    }
    assert_eq!(other.total(&k).await, 5);
}

/// Rule 21, of slices: a clear that is sent again erases nothing that was counted since.
pub async fn a_recorded_clear_of_slices_happens_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let store = recorded_slices(&probe.backend);
    let (guest, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let (space, k, lane) = (&probe.space, key("k"), lane(&probe));
    other.add(&k, 5).await;
    ok("clear", store.clear_on_recorded(space, &guest.member, &lane).await);
    assert_eq!(other.total(&k).await, 0);
    other.add(&k, 2).await;
    ok("clear", store.clear_on_recorded(space, &guest.member, &resent(&lane)).await);
    assert_eq!(other.total(&k).await, 2, "a clear that was sent again");
}
