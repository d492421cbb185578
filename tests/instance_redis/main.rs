//! What the instance-aware counters leave in a server, and what they cost it.
#![cfg(feature = "redis-rs")]
#![allow(clippy::unwrap_used)]

mod backlog;
mod bed;
#[path = "../support/removals.rs"]
mod removals;

use std::time::Duration;

use distkit::{
    CounterComparator,
    backend::{
        Backend, Instance, InstanceBackend, Member, Scope, Slice, SliceChange, SliceWrite, Standing,
    },
};

use bed::{Bed, LONG, adds, change, key};

#[tokio::test]
async fn the_servers_own_data_add_up_after_every_step() {
    let bed = Bed::new().await;
    let members = [bed.join(LONG).await, bed.join(LONG).await, bed.join(LONG).await];
    let keys = [key("a"), key("b")];
    let mut dice = 88_172_645_463_325_252_u64;
    for _ in 0..150 {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let (member, key) = (&members[dice as usize % 3], &keys[(dice >> 8) as usize % 2]);
        let count = (dice >> 16) as i64 % 100;
        let keys = std::slice::from_ref(key);
        match (dice >> 32) % 7 {
            0 | 1 => drop(bed.apply(member, &[change(key, SliceChange::Add(count))]).await),
            2 => drop(bed.apply(member, &[change(key, SliceChange::SetTotal(count))]).await),
            3 => drop(bed.apply(member, &[change(key, SliceChange::SetSlice(count))]).await),
            4 => drop(
                removals::remove_on(&bed.store, &bed.space, member, keys, Scope::Total)
                    .await
                    .unwrap(),
            ),
            5 => drop(
                removals::remove_on(&bed.store, &bed.space, member, keys, Scope::Slice)
                    .await
                    .unwrap(),
            ),
            _ => bed.store.clear_on(&bed.space, member, Scope::Slice).await.unwrap(),
        }
        bed.audit();
    }
    bed.apply(&members[0], &adds(700)).await;
    bed.store.clear_on(&bed.space, &members[1], Scope::Total).await.unwrap();
    assert_eq!(bed.audit(), 0, "a clear leaves no counter behind");
    for member in &members {
        bed.apply(member, &adds(3)).await;
        bed.store.leave(&bed.space, member).await.unwrap();
        bed.audit();
    }
    // More than goes in one script.
    let last = bed.join(LONG).await;
    bed.apply(&last, &adds(1200)).await;
    bed.store.leave(&bed.space, &last).await.unwrap();
    assert_eq!(
        bed.names_of_instances(),
        ["gone", "leases", "meta", "names"].map(|name| format!("distkit:{{bed}}:i:{name}"))
    );
}

#[tokio::test]
async fn they_add_up_after_claims_of_different_epochs() {
    let bed = Bed::new().await;
    let key = key("k");
    let (one, other) = (bed.join(LONG).await, bed.join(LONG).await);
    let mut claims = Vec::new();
    for (member, write) in [(&one, SliceChange::Add(10)), (&other, SliceChange::SetTotal(100))] {
        let Standing { epoch, slice, .. } = bed.apply(member, &[change(&key, write)]).await[0];
        claims.push(Slice { key: key.clone(), epoch, value: slice });
    }
    bed.server.cli(&["FLUSHALL"]);
    for claim in claims {
        bed.join_with(LONG, &[claim]).await;
        assert_eq!(bed.audit(), 1);
    }
}

#[tokio::test]
async fn they_add_up_beyond_the_range_and_back_in_it() {
    let bed = Bed::new().await;
    let key = key("k");
    let add = |count| change(&key, SliceChange::Add(count));
    let (big, gone) = (bed.join(LONG).await, bed.join(LONG).await);
    let (other, idle) = (bed.join(LONG).await, bed.join(LONG).await);
    for (member, count) in [(&big, i64::MAX), (&gone, -100), (&idle, 1), (&idle, -1), (&other, 100)]
    {
        bed.apply(member, &[add(count)]).await;
        bed.audit();
    }
    bed.store.leave(&bed.space, &gone).await.unwrap();
    bed.audit();
    // Nobody is left to be collected: the next call takes the quick way.
    bed.store.heartbeat(&bed.space, &idle).await.unwrap();
    let refused = bed.store.apply_on(&bed.space, &idle, &[add(-1)], None).await.unwrap();
    assert!(refused.answer.outcomes[0].is_err(), "the sum is beyond the range by 100");
    bed.audit();
    bed.store.leave(&bed.space, &other).await.unwrap();
    bed.audit();
    assert_eq!(bed.apply(&idle, &[add(-1)]).await[0].total, i64::MAX - 1);
    assert_eq!(bed.audit(), 1);
}

#[tokio::test]
async fn a_join_brings_fifty_thousand_slices_even_to_a_server_that_forgot_the_scripts() {
    const SLICES: usize = 50_000;
    let bed = Bed::new().await;
    let id = bed.store.fresh_id();
    let mut instance = Instance::new(id, LONG);
    let first = bed.store.join(&bed.space, &instance, &[]).await.unwrap();
    instance.first_joined = Some(first.incarnation);
    let member = Member { incarnation: first.incarnation, lease: LONG };
    let mut claims = Vec::with_capacity(SLICES);
    for writes in adds(SLICES).chunks(1000) {
        for (standing, write) in bed.apply(&member, writes).await.iter().zip(writes) {
            let Standing { epoch, slice, .. } = *standing;
            claims.push(Slice { key: write.key.clone(), epoch, value: slice });
        }
    }
    for flush in [false, true] {
        bed.server.cli(&["SCRIPT", "FLUSH"]);
        if flush {
            bed.server.cli(&["FLUSHALL"]);
        }
        let start = tokio::time::Instant::now();
        let joined = bed.store.join(&bed.space, &instance, &claims).await.unwrap();
        println!("{SLICES} slices put back in {:?}", start.elapsed());
        assert_eq!(joined.standings.len(), SLICES);
        assert!(joined.standings.iter().all(|s| s.as_ref().is_ok_and(|s| s.total == 1)));
        let counted =
            bed.server.cli(&["SCARD", &format!("distkit:{{bed}}:i:keys:{}", joined.incarnation)]);
        assert_eq!(counted, (SLICES + 1).to_string(), "and the mark of the set");
    }
    bed.server.cli(&["SCRIPT", "FLUSH"]);
    let member = Member {
        incarnation: bed.store.join(&bed.space, &instance, &[]).await.unwrap().incarnation,
        lease: LONG,
    };
    bed.server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(bed.apply(&member, &adds(1)).await[0].total, 1);
}

#[tokio::test]
async fn foreign_data_is_named_and_harms_no_other_key() {
    let bed = Bed::new().await;
    let (one, other) = (bed.join(LONG).await, bed.join(LONG).await);
    bed.apply(&one, &adds(3)).await;
    bed.apply(&other, &adds(3)).await;
    let (text, list) = ("distkit:{bed}:i:k:k0", "distkit:{bed}:i:k:k1");
    bed.server.cli(&["HSET", text, "t", "abc"]);
    bed.server.cli(&["DEL", list]);
    bed.server.cli(&["LPUSH", list, "x"]);
    let ordered = bed.store.apply_on(&bed.space, &one, &adds(3), Some(1)).await.unwrap();
    let outcomes = ordered.answer.outcomes;
    for (outcome, found) in outcomes.iter().zip(["abc", "WRONGTYPE"]) {
        let refusal = outcome.as_ref().unwrap_err().to_string();
        assert!(refusal.contains(found), "{refusal}");
    }
    assert_eq!(outcomes[2].as_ref().unwrap().new.total, 3);
    // Collecting goes past what is not ours.
    bed.store.leave(&bed.space, &other).await.unwrap();
    let keys = [key("k0"), key("k1"), key("k2")];
    let read = bed.store.read_on(&bed.space, &one, &keys).await.unwrap().answer;
    assert!(read[0].is_err() && read[1].is_err());
    assert_eq!(read[2].as_ref().unwrap().total, 2);
    let set =
        [change(&keys[0], SliceChange::SetTotal(5)), change(&keys[1], SliceChange::SetTotal(6))];
    let mut conditional = set.clone();
    for write in &mut conditional {
        write.condition = CounterComparator::Ne(1);
    }
    let ordered = bed.store.apply_on(&bed.space, &one, &conditional, None).await.unwrap();
    assert!(ordered.answer.outcomes.iter().all(Result::is_err), "there is nothing to compare with");
    let totals: Vec<_> = bed.apply(&one, &set).await.iter().map(|s| s.total).collect();
    assert_eq!(totals, [5, 6], "an assignment replaces it");
    assert_eq!(bed.audit(), 3);
}

#[tokio::test]
async fn a_key_for_each_session_leaves_nothing_behind() {
    const SESSIONS: usize = 20_000;
    let bed = Bed::new().await;
    let (member, _other) = (bed.join(LONG).await, bed.join(LONG).await);
    let lasting = || -> Vec<_> {
        let names = bed.names_of_instances().into_iter();
        names.filter(|name| !name.ends_with(":i:quiet")).collect()
    };
    let keys = lasting();
    let session = |n: usize| key(&format!("session{n}"));
    for batch in (0..SESSIONS).collect::<Vec<_>>().chunks(500) {
        // Most end on the quick way; the first of each batch makes the key.
        for count in [1, -1, 1, 2, -3] {
            let writes: Vec<_> =
                batch.iter().map(|n| change(&session(*n), SliceChange::Add(count))).collect();
            bed.apply(&member, &writes).await;
        }
    }
    assert_eq!(lasting(), keys);
    assert!(bed.store.slices(&bed.space, &session(7)).await.unwrap().is_empty());
    // Set to 0, a key keeps its epoch and no more.
    let writes: Vec<_> = (0..300).map(|n| change(&session(n), SliceChange::SetTotal(0))).collect();
    bed.apply(&member, &writes).await;
    let tombs = "distkit:{bed}:i:tombs".to_owned();
    let mut with_tombs = [keys, vec![tombs.clone()]].concat();
    with_tombs.sort();
    assert_eq!(lasting(), with_tombs);
    assert_eq!(bed.server.cli(&["HLEN", &tombs]), "301", "and the mark of the hash");
}

#[tokio::test]
async fn epochs_of_deleted_keys_are_dropped_after_max_absence() {
    let bed = Bed::with_a_clock().await;
    let absence = Duration::from_secs(600);
    let instance =
        Instance { max_absence: absence, ..Instance::new(bed.store.fresh_id(), 10 * LONG) };
    let joined = bed.store.join(&bed.space, &instance, &[]).await.unwrap();
    let member = Member { incarnation: joined.incarnation, lease: 10 * LONG };
    let count = |name: &str| -> u64 {
        bed.server.cli(&["HLEN", &format!("distkit:{{bed}}:i:{name}")]).parse().unwrap()
    };
    let mut most = 0;
    for minute in 0..100 {
        let lease = Duration::from_millis(1);
        let short = Instance { max_absence: absence, ..Instance::new(bed.store.fresh_id(), lease) };
        let joined = bed.store.join(&bed.space, &short, &[]).await.unwrap();
        let gone = Member { incarnation: joined.incarnation, lease };
        for n in 0..10 {
            let key = key(&format!("job{minute}-{n}"));
            bed.apply(&gone, &[change(&key, SliceChange::SetTotal(5))]).await;
            removals::remove_on(&bed.store, &bed.space, &member, &[key], Scope::Total)
                .await
                .unwrap();
        }
        bed.server.advance(Duration::from_secs(60));
        bed.store.heartbeat(&bed.space, &member).await.unwrap();
        most = most.max(count("tombs") + count("tombs:old"));
        // Some of those that are gone are looked at with each new one.
        assert!(count("gone") < 60, "{} of {minute}", count("gone"));
    }
    assert!((150..=220).contains(&most), "{most} epochs of 1000 were kept at a time");
    assert_eq!(bed.audit(), 0);
}

#[tokio::test]
async fn non_canonical_totals_are_refused_by_reads_and_writes() {
    let bed = Bed::new().await;
    let (one, other) = (bed.join(LONG).await, bed.join(LONG).await);
    let k = key("k");
    for text in ["007", "-0", "00", "+5", " 5", "5 ", "1e3", "0x10", "", "9223372036854775808"] {
        for quick in [true, false] {
            bed.apply(&one, &[change(&k, SliceChange::SetTotal(7))]).await;
            if quick {
                // No instance has expired, and no lease may have ended.
                bed.store.heartbeat(&bed.space, &one).await.unwrap();
                bed.store.read_on(&bed.space, &one, std::slice::from_ref(&k)).await.unwrap();
            } else {
                bed.server.cli(&["DEL", "distkit:{bed}:i:quiet"]);
            }
            bed.server.cli(&["HSET", "distkit:{bed}:i:k:k", "t", text]);
            let read = bed
                .store
                .read_on(&bed.space, &other, std::slice::from_ref(&k))
                .await
                .unwrap()
                .answer;
            assert!(read[0].is_err(), "{text:?} is read, quick: {quick}");
            for write in [
                change(&k, SliceChange::Add(1)),
                change(&k, SliceChange::SetSlice(1)),
                SliceWrite {
                    condition: CounterComparator::Ne(99),
                    ..change(&k, SliceChange::SetTotal(1))
                },
            ] {
                let ordered = bed.store.apply_on(&bed.space, &one, &[write], None).await.unwrap();
                let outcome = &ordered.answer.outcomes[0];
                assert!(outcome.is_err(), "{text:?} is written to: {outcome:?}, quick: {quick}");
            }
            let held = bed.server.cli(&["HGET", "distkit:{bed}:i:k:k", "t"]);
            assert_eq!(held, text, "it stays as it was");
        }
    }
}
