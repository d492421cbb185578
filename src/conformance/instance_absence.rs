use std::time::Duration;

use super::{
    fixture::{Fixture, key},
    guest::{Guest, agreed_total, ok},
};
use crate::backend::Scope;

/// By how much one step makes the space older at most.
const STEP: Duration = Duration::from_secs(60);
const MAX_ABSENCE: Duration = Duration::from_secs(10 * 60);

/// Two instances whose claims are refused after `MAX_ABSENCE`.
async fn two(fixture: &Fixture) -> (Guest, Guest) {
    let probe = fixture.fresh();
    let mut both = (Guest::join(&probe).await, Guest::join(&probe).await);
    for guest in [&mut both.0, &mut both.1] {
        guest.instance.max_absence = MAX_ABSENCE;
        guest.rejoin(&[]).await;
    }
    both
}

async fn grow_older(fixture: &Fixture, guests: &[Guest], steps: u32) {
    for _ in 0..steps {
        fixture.pass(STEP);
        for guest in guests {
            ok("heartbeat", guest.heartbeat().await);
        }
    }
}

/// Rule 17: the claims of an instance that was away for longer than its `max_absence` are refused, and those of
/// one that was away for as long are not. Needs [`Fixture::advance_with`].
pub async fn claims_are_refused_after_max_absence(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let (mut away, stays) = two(fixture).await;
    let (k, own) = (key("k"), key("own"));
    away.add(&k, 5).await;
    away.add(&own, 7).await;
    stays.add(&k, 1).await;
    for (steps, slices) in [(10, [5, 7]), (11, [0, 0])] {
        let claims = [away.claim(&k).await, away.claim(&own).await];
        away.leave().await;
        assert_eq!(stays.total(&k).await, 1);
        grow_older(fixture, std::slice::from_ref(&stays), steps).await;
        // Also when the answer is lost, and it joins once more.
        for _ in 0..3 {
            let standings = away.rejoin(&claims).await;
            let found: Vec<_> = standings.iter().map(|standing| standing.slice).collect();
            assert_eq!(found, slices, "away for {steps} minutes");
        }
        let both = [away.clone(), stays.clone()];
        assert_eq!(agreed_total(&both, &k).await, 1 + slices[0]);
        assert_eq!(agreed_total(&both, &own).await, slices[1]);
    }
    // It goes on from there, and is known again.
    away.add(&k, 2).await;
    let claim = away.claim(&k).await;
    away.leave().await;
    assert_eq!(away.rejoin(&[claim]).await[0].total, 3);
}

/// Rule 17: a step of the clock is a minute of absence at most. Needs [`Fixture::advance_with`].
pub async fn a_clock_step_is_not_an_absence(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let (mut away, mut stays) = two(fixture).await;
    let k = key("k");
    away.add(&k, 5).await;
    stays.add(&k, 1).await;
    let claims = [away.claim(&k).await, stays.claim(&k).await];
    away.leave().await;
    fixture.pass(1000 * MAX_ABSENCE);
    stays.rejoin(&claims[1..]).await;
    grow_older(fixture, std::slice::from_ref(&stays), 1).await;
    assert_eq!(away.rejoin(&claims[..1]).await[0].total, 6);
}

/// Rule 17: what is forgotten of a change brings nothing back from before it, however long the instance that
/// did not hear of it lived on; what nobody changed stays. Needs [`Fixture::advance_with`].
pub async fn a_forgotten_change_invalidates_older_claims(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    for turns in 1..5 {
        let (mut old, mut other) = two(fixture).await;
        let (deleted, kept, shared) = (key("deleted"), key("kept"), key("shared"));
        for k in [&deleted, &kept, &shared] {
            old.add(k, 10).await;
        }
        other.add(&shared, 1).await;
        let claims = [old.claim(&deleted).await, old.claim(&kept).await, old.claim(&shared).await];
        other.remove(&deleted, Scope::Total).await;
        grow_older(fixture, &[old.clone(), other.clone()], 10 * turns + 1).await;
        // A change, so that there is something to forget at each turn.
        other.remove(&key("other"), Scope::Total).await;
        let standings = old.rejoin(&claims).await;
        let totals: Vec<_> = standings.iter().map(|standing| standing.total).collect();
        assert_eq!(totals, [0, 10, 11], "after {turns} turns");
        assert_eq!(old.add(&deleted, 3).await.total, 3);
        // Their epochs are older than that of keys that know none.
        let claims = [old.claim(&kept).await, old.claim(&shared).await];
        old.leave().await;
        other.leave().await;
        other.rejoin(&[]).await;
        let standings = old.rejoin(&claims).await;
        let totals: Vec<_> = standings.iter().map(|standing| standing.total).collect();
        assert_eq!(totals, [10, 10], "after {turns} turns");
    }
}
