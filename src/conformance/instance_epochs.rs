use super::{
    fixture::{Fixture, key, keys},
    guest::{Guest, add, agreed_total, standing},
};
use crate::{
    RedisKey,
    backend::{Epoch, Scope, Slice},
};

/// Rules 16 and 17: what was claimed under an epoch before a set or a del does not come back; what is
/// claimed under the current one does.
pub async fn stale_slices_do_not_come_back(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut away = Guest::join(&probe).await;
    let stays = Guest::join(&probe).await;
    let [set, deleted, deleted_empty, kept, sliced] = ["a", "b", "c", "d", "e"].map(key);
    let all = [&set, &deleted, &deleted_empty, &kept, &sliced];
    let mut claims = Vec::new();
    for (k, value) in all.into_iter().zip([10, 20, 30, -40, 50]) {
        away.add(k, value).await;
        claims.push(away.claim(k).await);
    }
    for k in [&set, &deleted, &kept] {
        stays.add(k, 1).await;
    }
    away.leave().await;
    stays.set(&set, 5).await;
    assert_eq!(stays.remove(&deleted, Scope::Total).await.old.total, 1);
    assert_eq!(stays.remove(&deleted_empty, Scope::Total).await.old.total, 0);
    stays.set_slice(&sliced, 3).await;
    stays.remove(&sliced, Scope::Slice).await;
    let standings = away.rejoin(&claims).await;
    let seen: Vec<_> = standings.iter().map(|s| (s.total, s.slice)).collect();
    assert_eq!(seen, [(5, 0), (0, 0), (0, 0), (-39, -40), (50, 50)]);
    for (standing, claim) in standings.iter().zip(&claims) {
        assert_eq!(standing.epoch > claim.epoch, claim.value < 40 && claim.value > 0);
    }
    // It goes on under the new epochs.
    away.add(&set, 1).await;
    away.add(&deleted, 2).await;
    let guests = [away, stays];
    for (k, total) in all.into_iter().zip([6, 2, 0, -39, 50]) {
        assert_eq!(agreed_total(&guests, k).await, total);
    }
}

/// Rule 16: the set of one instance takes the slices of all others away at once.
pub async fn a_set_takes_all_slices(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guests = Guest::crowd(&probe, 3).await;
    let k = key("k");
    for guest in &guests {
        guest.add(&k, 10).await;
    }
    let before = guests[0].read(&k).await;
    let after = guests[1].set(&k, -7).await;
    assert!(after.epoch > before.epoch);
    assert_eq!(guests[0].read(&k).await, standing(-7, 0, after.epoch));
    assert_eq!(guests[0].slices(&k).await, [(guests[1].instance.id.to_string(), -7)]);
    assert_eq!(guests[2].add(&k, 1).await, standing(-6, 1, after.epoch));
    let removed = guests[0].remove(&k, Scope::Total).await;
    assert_eq!((removed.old.total, removed.old.slice), (-6, 0));
    assert_eq!((removed.new.total, removed.new.slice), (0, 0));
    assert!(removed.new.epoch > after.epoch);
    assert_eq!(guests[2].add(&k, 2).await, standing(2, 2, removed.new.epoch));
    // The slices that are gone do not count when their owners go.
    guests[1].leave().await;
    guests[0].leave().await;
    assert_eq!(agreed_total(&guests[2..], &k).await, 2);
}

/// Rule 16: what changes a slice only leaves the epoch and the others alone.
pub async fn slices_change_without_an_epoch(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (one, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let k = key("k");
    let epoch = other.add(&k, 100).await.epoch;
    assert_eq!(one.set_slice(&k, 5).await, standing(105, 5, epoch));
    assert_eq!(one.set_slice(&k, -5).await, standing(95, -5, epoch));
    let removed = one.remove(&k, Scope::Slice).await;
    assert_eq!((removed.old, removed.new), (standing(95, -5, epoch), standing(100, 0, epoch)));
    assert_eq!(one.slices(&k).await.len(), 1, "no slice is left");
    let last = other.remove(&k, Scope::Slice).await;
    assert_eq!(last.new, standing(0, 0, epoch));
    assert_eq!(one.add(&k, 1).await, standing(1, 1, epoch));
}

/// Rule 17: a claim counts once, however often it is made.
pub async fn a_claim_is_put_back_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut guest = Guest::join(&probe).await;
    let other = Guest::join(&probe).await;
    let (k, z) = (key("k"), key("z"));
    for value in [10, -10, (1 << 53) + 1] {
        guest.set_slice(&k, value).await;
        guest.set_slice(&z, 0).await;
        other.set_slice(&k, 1).await;
        let claims = [guest.claim(&k).await, guest.claim(&k).await, guest.claim(&z).await];
        if value == 10 {
            guest.leave().await;
        }
        for _ in 0..3 {
            let standings = guest.rejoin(&claims).await;
            let seen: Vec<_> = standings.iter().map(|s| (s.total, s.slice)).collect();
            assert_eq!(seen, [(value + 1, value), (value + 1, value), (0, 0)]);
        }
        assert_eq!(agreed_total(&[guest.clone(), other.clone()], &k).await, value + 1);
    }
}

/// Claims of epochs that never were are dropped.
pub async fn invented_epochs_are_dropped(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut guest = Guest::join(&probe).await;
    let k = key("k");
    let epoch = guest.set(&k, 4).await.epoch;
    for invented in [0, 1, epoch.0 - 1, epoch.0 + 1, u64::MAX] {
        let claim = Slice { key: k.clone(), epoch: Epoch(invented), value: 9 };
        let standings = guest.rejoin(&[claim]).await;
        assert_eq!(standings, [standing(0, 0, epoch)], "claimed under {invented}");
    }
    // Of a key that was never changed, neither.
    let k = key("unchanged");
    let epoch = guest.add(&k, 4).await.epoch;
    for invented in [epoch.0 + 1, epoch.0 + 2, u64::MAX] {
        let claim = Slice { key: k.clone(), epoch: Epoch(invented), value: 9 };
        let standings = guest.rejoin(&[claim]).await;
        assert_eq!(standings, [standing(0, 0, epoch)], "claimed under {invented}");
    }
}

/// Rule 17: after a clear nothing from before it comes back; members stay members.
pub async fn nothing_comes_back_after_a_clear(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut away = Guest::join(&probe).await;
    let stays = Guest::join(&probe).await;
    let (plain, set, left) = (key("plain"), key("set"), key("left"));
    away.add(&plain, 10).await;
    away.set(&set, 20).await;
    // Of this one nobody else has a slice.
    away.set(&left, 30).await;
    let claims = [away.claim(&plain).await, away.claim(&set).await, away.claim(&left).await];
    stays.add(&plain, 1).await;
    stays.send(&[add(&set, 1)], Some(5)).await;
    away.leave().await;
    stays.clear(Scope::Total).await;
    assert!(stays.send(&[], Some(5)).await.replayed, "the guard of the incarnation stays");
    for (k, claim) in [&plain, &set, &left].into_iter().zip(&claims) {
        let read = stays.read(k).await;
        assert_eq!((read.total, read.slice), (0, 0));
        assert!(read.epoch > claim.epoch, "a clear is a new epoch for {k:?}");
    }
    let seen: Vec<_> = away.rejoin(&claims).await.iter().map(|s| (s.total, s.slice)).collect();
    assert_eq!(seen, [(0, 0), (0, 0), (0, 0)]);
    away.add(&plain, 2).await;
    stays.add(&plain, 3).await;
    // A second clear, with both there.
    let claim = away.claim(&plain).await;
    away.clear(Scope::Total).await;
    assert_eq!(stays.add(&plain, 4).await.total, 4);
    assert_eq!(away.rejoin(&[claim]).await[0].total, 4);
    assert_eq!(agreed_total(&[away, stays], &plain).await, 4);
}

/// A clear takes any number of keys, and those who die or leave after it take nothing of the new.
pub async fn a_big_clear_is_one_call(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (one, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let all = keys(2500);
    let adds: Vec<_> = all.iter().map(|k| add(k, 3)).collect();
    one.apply(&adds).await;
    other.apply(&adds).await;
    one.clear(Scope::Total).await;
    assert!(one.read_all(&all).await.iter().all(|s| s.total == 0));
    one.apply(&adds).await;
    other.leave().await;
    assert!(one.read_all(&all).await.iter().all(|s| s.total == 3));
}

/// A clear of the caller's slices leaves the others' and the epochs.
pub async fn clearing_slices_leaves_the_others(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (one, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let all = keys(1300);
    let adds: Vec<_> = all.iter().map(|k| add(k, 3)).collect();
    one.apply(&adds).await;
    other.apply(&adds[..700]).await;
    let epoch = one.read(&all[0]).await.epoch;
    one.clear(Scope::Slice).await;
    let read = one.read_all(&all).await;
    for (n, s) in read.into_iter().enumerate() {
        assert_eq!(s, standing(if n < 700 { 3 } else { 0 }, 0, epoch));
    }
    one.add(&all[0], 1).await;
    assert_eq!(agreed_total(&[one, other], &all[0]).await, 4);
}

/// Rule 18: when the data is lost, those who live put their slices back. Needs
/// [`Fixture::wipe_with`].
pub async fn lost_data_heals(fixture: &Fixture) {
    if !fixture.can_wipe() {
        return;
    }
    let probe = fixture.fresh();
    let mut guests = Guest::crowd(&probe, 3).await;
    let [never_set, set, set_after, used] = ["a", "b", "c", "d"].map(key);
    let all = [&never_set, &set, &set_after, &used];
    for round in 0..3 {
        guests[2].set(&set, 5).await;
        for (guest, n) in guests.iter().zip([1, 10, 100]) {
            for k in all {
                guest.add(k, n).await;
            }
        }
        let mut claims = Vec::new();
        for guest in &guests {
            let mut known = Vec::new();
            for k in all {
                known.push(guest.claim(k).await);
            }
            claims.push(known);
        }
        let mut totals = Vec::new();
        for k in all {
            totals.push(agreed_total(&guests, k).await);
        }
        fixture.wipe(&probe.space).await;
        for guest in &guests {
            guest.assert_not_joined(&set).await;
        }
        guests[0].rejoin(&claims[0]).await;
        guests[0].set(&set_after, 7).await;
        // The first to come back goes on counting before the others do.
        guests[0].add(&used, 1000).await;
        for (guest, known) in guests.iter_mut().zip(&claims).skip(1) {
            guest.rejoin(known).await;
        }
        let expected = [totals[0], totals[1], 7, totals[3] + 1000];
        for (k, total) in all.into_iter().zip(expected) {
            assert_eq!(agreed_total(&guests, k).await, total, "{k:?} in round {round}");
        }
    }
}

/// Rule 18: of older claims under different epochs the greater one counts, in whichever order they
/// come. Needs [`Fixture::wipe_with`].
pub async fn lost_data_heals_under_the_latest_epoch(fixture: &Fixture) {
    if !fixture.can_wipe() {
        return;
    }
    for stale_first in [true, false] {
        let probe = fixture.fresh();
        let (mut stale, mut current) = (Guest::join(&probe).await, Guest::join(&probe).await);
        let k = key("k");
        stale.add(&k, 10).await;
        let old = stale.claim(&k).await;
        let new_epoch = current.set(&k, 3).await.epoch;
        let new = current.claim(&k).await;
        fixture.wipe(&probe.space).await;
        if stale_first {
            let first = stale.rejoin(&[old]).await[0];
            assert_eq!((first.total, first.slice), (10, 10), "nobody has told of the change");
            assert_eq!(current.rejoin(&[new]).await, [standing(3, 3, new_epoch)]);
        } else {
            assert_eq!(current.rejoin(&[new]).await, [standing(3, 3, new_epoch)]);
            assert_eq!(stale.rejoin(&[old]).await, [standing(3, 0, new_epoch)]);
        }
        assert_eq!(agreed_total(&[stale.clone(), current.clone()], &k).await, 3);
        assert_eq!(stale.add(&k, 1).await, standing(4, 1, new_epoch));
        assert!(current.set(&k, 9).await.epoch > new_epoch);
        assert_eq!(agreed_total(&[stale, current], &k).await, 9);
    }
}

/// Rules 17 and 18: a store that lost its data and was cleared since takes nothing back. Needs
/// [`Fixture::wipe_with`].
pub async fn a_clear_after_a_loss_is_final(fixture: &Fixture) {
    if !fixture.can_wipe() {
        return;
    }
    let probe = fixture.fresh();
    let (mut away, mut stays) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let (k, set) = (key("k"), key("set"));
    away.add(&k, 10).await;
    away.set(&set, 11).await;
    let claims = [away.claim(&k).await, away.claim(&set).await];
    fixture.wipe(&probe.space).await;
    stays.rejoin(&[]).await;
    stays.clear(Scope::Total).await;
    let seen: Vec<_> = away.rejoin(&claims).await.iter().map(|s| s.total).collect();
    assert_eq!(seen, [0, 0]);
    stays.add(&k, 1).await;
    assert_eq!(agreed_total(&[away, stays], &k).await, 1);
}

/// Rule 18: a key that was used since the loss, by one who knew nothing of it, keeps both parts. Needs
/// [`Fixture::wipe_with`].
pub async fn counts_made_since_a_loss_stay(fixture: &Fixture) {
    if !fixture.can_wipe() {
        return;
    }
    let probe = fixture.fresh();
    let (mut knows, mut fresh) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let k = key("k");
    knows.set(&k, 10).await;
    let claim = knows.claim(&k).await;
    fixture.wipe(&probe.space).await;
    fresh.rejoin(&[]).await;
    fresh.add(&k, 1).await;
    let since = fresh.claim(&k).await;
    assert_eq!(knows.rejoin(&[claim]).await[0].total, 11);
    // It may come back with what it knew before the other's epoch was taken over.
    assert_eq!(fresh.rejoin(&[since]).await[0].total, 11);
    assert_eq!(agreed_total(&[knows, fresh], &k).await, 11);
}

/// Rule 18: a store's beginning is no change, so that losses in a row lose nothing. Needs
/// [`Fixture::wipe_with`].
pub async fn losses_in_a_row_heal(fixture: &Fixture) {
    if !fixture.can_wipe() {
        return;
    }
    // A change from before the losses is older than the beginning that followed it.
    for (first_back, changed) in [(0, false), (1, false), (0, true), (1, true)] {
        let probe = fixture.fresh();
        let mut guests = [Guest::join(&probe).await, Guest::join(&probe).await];
        let k = key("k");
        if changed {
            guests[0].set(&k, 10).await;
        } else {
            guests[0].add(&k, 10).await;
        }
        let mut claims = [guests[0].claim(&k).await, guests[0].claim(&k).await];
        for round in 1..4 {
            fixture.wipe(&probe.space).await;
            if round == 1 {
                // What it counts now, it counts under the epoch of the new beginning.
                guests[1].rejoin(&[]).await;
                guests[1].add(&k, 1).await;
                claims[1] = guests[1].claim(&k).await;
                guests[0].rejoin(&claims[..1]).await;
            } else {
                for at in [first_back, 1 - first_back] {
                    guests[at].rejoin(&claims[at..=at]).await;
                }
            }
            assert_eq!(agreed_total(&guests, &k).await, 11, "after loss {round}");
        }
    }
}

/// Rule 18: a claim that tells of a change takes away what was put back from before that change, and nothing
/// that was written since the loss. Needs [`Fixture::wipe_with`].
pub async fn a_late_claim_takes_away_what_it_outdates(fixture: &Fixture) {
    if !fixture.can_wipe() {
        return;
    }
    let probe = fixture.fresh();
    let mut guests = Guest::crowd(&probe, 5).await;
    let k = key("k");
    for guest in &guests[..2] {
        guest.add(&k, 10).await;
    }
    let outdated = [guests[0].claim(&k).await, guests[1].claim(&k).await];
    guests[2].set(&k, 100).await;
    let change = guests[2].claim(&k).await;
    guests[4].set(&k, 1000).await;
    let later_change = guests[4].claim(&k).await;
    fixture.wipe(&probe.space).await;
    for (guest, claim) in guests.iter_mut().zip(outdated) {
        guest.rejoin(&[claim]).await;
    }
    guests[0].add(&k, 1).await;
    guests[3].rejoin(&[]).await;
    guests[3].add(&k, 5).await;
    assert_eq!(guests[3].total(&k).await, 26);
    let back = guests[2].rejoin(std::slice::from_ref(&change)).await[0];
    assert_eq!((back.total, back.slice), (106, 100));
    assert_eq!(agreed_total(&guests[..4], &k).await, 106);
    assert_eq!(slices_of(&guests[..4], &k).await, [1, 0, 100, 5]);
    // A still later change, which outdates that one; the others have nothing left to lose.
    let back = guests[4].rejoin(std::slice::from_ref(&later_change)).await[0];
    assert_eq!((back.total, back.slice), (1006, 1000));
    assert_eq!(agreed_total(&guests, &k).await, 1006);
    assert_eq!(slices_of(&guests, &k).await, [1, 0, 0, 5, 1000]);
}

async fn slices_of(guests: &[Guest], k: &RedisKey) -> Vec<i64> {
    let mut slices = Vec::new();
    for guest in guests {
        slices.push(guest.read(k).await.slice);
    }
    slices
}

/// Rule 18: what was put back, and has gone or was replaced since, is not taken away once more. Needs
/// [`Fixture::wipe_with`].
pub async fn a_late_claim_takes_nothing_away_twice(fixture: &Fixture) {
    if !fixture.can_wipe() {
        return;
    }
    for way in 0..4 {
        let probe = fixture.fresh();
        let mut guests = Guest::crowd(&probe, 3).await;
        let k = key("k");
        guests[0].add(&k, 10).await;
        let outdated = guests[0].claim(&k).await;
        guests[1].set(&k, 100).await;
        let change = guests[1].claim(&k).await;
        fixture.wipe(&probe.space).await;
        guests[2].rejoin(&[]).await;
        guests[2].add(&k, 5).await;
        assert_eq!(guests[0].rejoin(&[outdated]).await[0].total, 15);
        match way {
            0 => guests[0].leave().await,
            1 => guests[0].expire(fixture, &guests[2], &k).await,
            2 => drop(guests[0].remove(&k, Scope::Slice).await),
            _ => drop(guests[0].set_slice(&k, 3).await),
        }
        let total = if way == 3 { 108 } else { 105 };
        assert_eq!(guests[1].rejoin(&[change]).await[0].total, total, "way {way}");
        let members = if way < 2 { &guests[1..] } else { &guests };
        assert_eq!(agreed_total(members, &k).await, total, "way {way}");
    }
}
