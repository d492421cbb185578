use std::time::Duration;

use super::{
    fixture::{Fixture, key, keys},
    guest::{Guest, LONG, add, agreed_total, ok},
};
use crate::backend::{BackendError, Incarnation, Instance, Member, Scope, Slice};

const MS: Duration = Duration::from_millis(1);

/// Rule 15: an operation of an instance that is not joined says so, and touches nothing.
pub async fn those_not_joined_touch_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    let k = key("k");
    let first = Guest::join(&probe).await;
    let epoch = first.add(&k, 5).await.epoch;
    let mut never = first.clone();
    never.member.incarnation = Incarnation(1);
    never.assert_not_joined(&k).await;
    let gone = Guest::join(&probe).await;
    gone.add(&k, 3).await;
    gone.leave().await;
    gone.assert_not_joined(&k).await;
    let read = first.read(&k).await;
    assert_eq!((read.total, read.slice, read.epoch), (5, 5, epoch));

    // In a space that nobody ever joined.
    let elsewhere = Guest { probe: fixture.fresh(), ..first };
    elsewhere.assert_not_joined(&k).await;
    elsewhere.leave().await;
}

/// Rule 13: a lease ends at now + its length, not a millisecond sooner or later; each kind of
/// operation renews it. Needs [`Fixture::advance_with`].
pub async fn leases_run_exactly(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let k = key("k");
    let keys = std::slice::from_ref(&k);
    // Once the first end has passed, someone may look and have to find the later one.
    for (after, looks) in [999, 1000, 1001].into_iter().flat_map(|ms| [(ms, false), (ms, true)]) {
        for renewal in 0..7 {
            let probe = fixture.fresh();
            let (subject, witness) = (Guest::join(&probe).await, Guest::join(&probe).await);
            let (backend, space) = (probe.instances(), &probe.space);
            let mut subject = subject;
            subject.member.lease = 1000 * MS;
            subject.instance.lease = 1000 * MS;
            subject.add(&k, 7).await;
            fixture.pass(500 * MS);
            let me = &subject.member;
            match renewal {
                0 => drop(subject.rejoin(&[]).await),
                1 => drop(subject.add(&k, 1).await),
                2 => drop(subject.read(&k).await),
                3 => drop(subject.remove(&key("absent"), Scope::Slice).await),
                4 => ok("clear_on", backend.clear_on(space, me, Scope::Slice).await),
                5 => ok("clear_on", backend.clear_on(space, me, Scope::Total).await),
                _ => ok("heartbeat", backend.heartbeat(space, me).await),
            }
            if looks {
                fixture.pass(600 * MS);
                ok("read_on", backend.read_on(space, &witness.member, keys).await);
                fixture.pass((after - 600) * MS);
            } else {
                fixture.pass(after * MS);
            }
            ok("read_on", backend.read_on(space, &witness.member, keys).await);
            if after < 1000 {
                ok("heartbeat", subject.heartbeat().await);
            } else {
                subject.assert_not_joined(&k).await;
                assert_eq!(witness.total(&k).await, 0);
            }
        }
    }
}

/// Rule 13: each kind of operation of another finds expired instances. Needs [`Fixture::advance_with`].
pub async fn every_operation_detects_expired_instances(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let k = key("k");
    for operation in 0..7 {
        let probe = fixture.fresh();
        let (backend, space) = (probe.instances(), &probe.space);
        let (mut subject, mut witness) = (Guest::join(&probe).await, Guest::join(&probe).await);
        witness.add(&k, 1).await;
        subject.member.lease = MS;
        subject.add(&k, 7).await;
        fixture.pass(MS);
        let me = &witness.member;
        match operation {
            0 => drop(witness.rejoin(&[]).await),
            1 => assert_eq!(witness.add(&k, 1).await.total, 2),
            2 => assert_eq!(witness.total(&k).await, 1),
            3 => assert_eq!(witness.remove(&k, Scope::Slice).await.old.total, 1),
            4 => ok("clear_on", backend.clear_on(space, me, Scope::Slice).await),
            5 => ok("clear_on", backend.clear_on(space, me, Scope::Total).await),
            _ => ok("heartbeat", backend.heartbeat(space, me).await),
        }
        subject.assert_not_joined(&k).await;
    }
}

/// A process that is no member sees what the living hold, and changes nothing by looking. Needs
/// [`Fixture::advance_with`].
pub async fn looking_on_needs_no_membership_and_changes_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (backend, space) = (probe.instances(), &probe.space);
    let (k, absent) = (key("k"), key("absent"));
    let both = [k.clone(), absent.clone()];
    assert_eq!(ok("totals", backend.totals(space, &both).await), [Ok(0), Ok(0)]);
    assert!(ok("slices", backend.slices(space, &k).await).is_empty());
    assert!(ok("totals", backend.totals(space, &[]).await).is_empty());

    let mut guests = Guest::crowd(&probe, 3).await;
    for (guest, count) in guests.iter().zip([i64::MAX, -5, 0]) {
        guest.add(&k, count).await;
    }
    assert_eq!(ok("totals", backend.totals(space, &both).await), [Ok(i64::MAX - 5), Ok(0)]);
    let listed: Vec<_> = guests[0].slices(&k).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(listed.len(), 2, "a slice of 0 is none");
    assert!(guests[0].slices(&absent).await.is_empty());

    if fixture.has_clock() {
        let gone = guests.remove(1);
        let mut gone = gone;
        gone.member.lease = MS;
        ok("heartbeat", gone.heartbeat().await);
        fixture.pass(MS);
        assert_eq!(ok("totals", backend.totals(space, &both).await), [Ok(i64::MAX), Ok(0)]);
        assert_eq!(guests[0].slices(&k).await.len(), 1);
        // Nobody collected it: it can still renew its lease.
        gone.member.lease = 1000 * MS;
        ok("heartbeat", gone.heartbeat().await);
        assert_eq!(ok("totals", backend.totals(space, &both).await), [Ok(i64::MAX - 5), Ok(0)]);
        guests.push(gone);
    }
    guests[0].set(&k, 3).await;
    assert_eq!(ok("totals", backend.totals(space, &both).await), [Ok(3), Ok(0)]);
    guests[0].clear(Scope::Total).await;
    assert_eq!(ok("totals", backend.totals(space, &both).await), [Ok(0), Ok(0)]);
}

/// Rule 13: a lease that ran out without anybody finding it is renewed as if nothing were.
pub async fn a_lease_whose_end_went_undetected_is_renewed(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut subject = Guest::join(&probe).await;
    let k = key("k");
    subject.member.lease = MS;
    subject.add(&k, 7).await;
    fixture.pass(100 * MS);
    // Without a hand on the clock, some of these find their own lease run out.
    for count in 8..40 {
        assert_eq!(subject.add(&k, 1).await.total, count);
        tokio::task::yield_now().await;
    }
    subject.member.lease = LONG;
    ok("heartbeat", subject.heartbeat().await);
    let witness = Guest::join(&probe).await;
    assert_eq!(witness.total(&k).await, 39);
    assert_eq!(agreed_total(&[subject, witness], &k).await, 39);
}

/// Rules 12 and 14: expired instances take exactly their slices with them, from every key.
pub async fn expired_instances_take_their_own_slices_only(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guests = Guest::crowd(&probe, 5).await;
    let all = keys(20);
    for (n, guest) in guests.iter().enumerate() {
        let writes: Vec<_> = all.iter().zip(1..).map(|(k, v)| add(k, v * (n as i64 - 2))).collect();
        guest.apply(&writes).await;
    }
    // The slices are -2, -1, 0, 1 and 2 times the key's number.
    for (expired, left) in [(4, -2), (0, 0), (3, -1)] {
        guests[expired].expire(fixture, &guests[2], &all[0]).await;
        for (k, v) in all.iter().zip(1..) {
            assert_eq!(guests[2].total(k).await, v * left);
        }
        guests[expired].assert_not_joined(&all[0]).await;
    }
    let living = [guests[1].clone(), guests[2].clone()];
    for k in &all {
        agreed_total(&living, k).await;
    }
}

/// Rule 14: many who die at once are collected exactly, on each key at its first use.
pub async fn many_expired_instances_are_collected_exactly(fixture: &Fixture) {
    let probe = fixture.fresh();
    let witness = Guest::join(&probe).await;
    let all = keys(100);
    let adds: Vec<_> = all.iter().map(|k| add(k, 1)).collect();
    witness.apply(&adds).await;
    let crowd = Guest::crowd(&probe, 60).await;
    for guest in &crowd {
        guest.apply(&adds).await;
    }
    assert_eq!(witness.total(&all[99]).await, 61);
    for guest in &crowd {
        guest.leave().await;
    }
    let crowd = Guest::crowd(&probe, 60).await;
    for guest in &crowd {
        guest.apply(&adds).await;
    }
    for guest in &crowd {
        guest.expire(fixture, &witness, &all[0]).await;
    }
    let totals: Vec<_> = witness.read_all(&all).await.iter().map(|s| s.total).collect();
    assert_eq!(totals, vec![1; 100]);
    let outcomes = witness.apply(&adds).await;
    assert!(outcomes.iter().all(|w| w.as_ref().is_ok_and(|w| w.new.total == 2)));
}

/// Who leaves takes the slices along at once; leaving twice, or never having joined, does nothing.
pub async fn leaving_takes_the_slices_along(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (stays, goes) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let all = keys(1200);
    let adds: Vec<_> = all.iter().map(|k| add(k, 2)).collect();
    stays.apply(&adds).await;
    goes.apply(&adds).await;
    goes.leave().await;
    let totals: Vec<_> = stays.read_all(&all).await.iter().map(|s| s.total).collect();
    assert_eq!(totals, vec![2; 1200]);
    goes.leave().await;
    let nobody = Member { incarnation: Incarnation(1), lease: LONG };
    ok("leave", probe.instances().leave(&probe.space, &nobody).await);
    goes.assert_not_joined(&all[0]).await;
    assert_eq!(agreed_total(&[stays], &all[0]).await, 2);
}

/// Rule 19: a join under an id ends the earlier incarnation of it.
pub async fn an_id_has_one_incarnation(fixture: &Fixture) {
    let probe = fixture.fresh();
    let other = Guest::join(&probe).await;
    let mut guest = Guest::named(&probe, Some(&key("pod"))).await;
    let k = key("k");
    guest.add(&k, 5).await;
    let earlier = guest.clone();
    assert_eq!(guest.rejoin(&[]).await, []);
    earlier.assert_not_joined(&k).await;
    assert_eq!(agreed_total(&[guest.clone(), other], &k).await, 0, "it brought no claims");
    earlier.leave().await;
    ok("heartbeat", guest.heartbeat().await);

    // A request of its first join comes late: it was never replaced by another.
    let late = Instance { first_joined: None, ..guest.instance.clone() };
    ok("join", probe.instances().join(&probe.space, &late, &[]).await);
    guest.assert_not_joined(&k).await;
    assert_eq!(guest.rejoin(&[]).await, []);
}

/// Rule 19: the newest holder of a name has it; older ones hear that they were replaced, for as long
/// as the newer one is a member.
pub async fn a_name_has_one_holder(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (k, pod) = (key("k"), key("pod"));
    let mut old = Guest::named(&probe, Some(&pod)).await;
    let bystander = Guest::named(&probe, Some(&key("pod 2"))).await;
    bystander.add(&k, 1).await;
    old.add(&k, 10).await;
    let claim = old.claim(&k).await;
    let mut new = Guest::named(&probe, Some(&pod)).await;
    old.assert_not_joined(&k).await;
    new.add(&k, 100).await;
    for _ in 0..2 {
        let again = old.try_rejoin(std::slice::from_ref(&claim)).await;
        assert!(matches!(again, Err(BackendError::Replaced)), "{again:?}");
    }
    assert_eq!(agreed_total(&[bystander.clone(), new.clone()], &k).await, 101);
    let listed = probe.instances().slices(&probe.space, &k).await;
    let listed = ok("slices", listed);
    let names: Vec<_> = listed.iter().filter_map(|slice| slice.name.as_deref()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"pod") && names.contains(&"pod 2"), "{names:?}");

    // The newer one may come and go as often as it likes.
    let kept = new.claim(&k).await;
    new.rejoin(&[kept]).await;
    let again = old.try_rejoin(&[]).await;
    assert!(matches!(again, Err(BackendError::Replaced)), "{again:?}");
    new.leave().await;
    assert_eq!(old.rejoin(&[claim]).await[0].total, 11);
    // And the newer one takes the name back.
    assert_eq!(new.rejoin(&[]).await, []);
    old.assert_not_joined(&k).await;
    new.expire(fixture, &bystander, &k).await;
}

/// Rule 19: a name whose holder has expired is free.
pub async fn expired_instances_release_their_names(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (k, pod) = (key("k"), key("pod"));
    let mut old = Guest::named(&probe, Some(&pod)).await;
    let new = Guest::named(&probe, Some(&pod)).await;
    let witness = Guest::join(&probe).await;
    new.add(&k, 1).await;
    // More than a store may care to remove at once.
    let adds: Vec<_> = keys(1200).iter().map(|k| add(k, 1)).collect();
    new.apply(&adds).await;
    new.expire(fixture, &witness, &k).await;
    old.rejoin(&[]).await;
    old.add(&k, 5).await;
    assert_eq!(agreed_total(&[old, witness], &k).await, 5);
}

/// Rule 17: a join takes any number of claims.
pub async fn big_joins_put_everything_back(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut guest = Guest::join(&probe).await;
    let witness = Guest::join(&probe).await;
    let all = keys(3000);
    let adds: Vec<_> = all.iter().zip(1..).map(|(k, v)| add(k, v)).collect();
    let mut claims = Vec::new();
    for outcome in guest.apply(&adds).await.iter().zip(&all) {
        let (Ok(written), k) = outcome else { panic!("{outcome:?}") };
        claims.push(Slice { key: k.clone(), epoch: written.new.epoch, value: written.new.slice });
    }
    guest.leave().await;
    assert_eq!(witness.total(&all[2999]).await, 0);
    let standings = guest.rejoin(&claims).await;
    for (standing, v) in standings.iter().zip(1..) {
        assert_eq!((standing.total, standing.slice), (v, v));
    }
    let totals: Vec<_> = witness.read_all(&all).await.iter().map(|s| s.total).collect();
    assert_eq!(totals, (1..=3000).collect::<Vec<_>>());
}

/// Ids may be any text.
pub async fn any_id_and_name_work(fixture: &Fixture) {
    let probe = fixture.fresh();
    let k = key("k");
    for text in ["n", "i", "a b", "%", "{}", "\u{1f980}", "a\r\nb", "0"] {
        let id = format!("{}{text}", probe.backend.fresh_id()).into();
        let name = Some(key(text));
        let instance = Instance { name, ..Instance::new(id, LONG) };
        let joined = ok("join", probe.instances().join(&probe.space, &instance, &[]).await);
        let member = Member { incarnation: joined.incarnation, lease: LONG };
        let guest = Guest { store: probe.instances(), probe: probe.clone(), instance, member };
        guest.add(&k, 1).await;
        let listed = probe.instances().slices(&probe.space, &k).await;
        let listed = ok("slices", listed);
        assert_eq!(*listed[0].instance_id, *guest.instance.id);
        assert_eq!(listed[0].name, guest.instance.name);
        guest.leave().await;
    }
}
