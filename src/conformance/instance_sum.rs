use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::{
    fixture::{Fixture, key, keys},
    guest::{Guest, accepted, add, agreed_total, change, removal, standing},
    spaces::awkward_keys,
};
use crate::{
    CounterComparator::{Eq, Ge, Gt, Le, Lt, Ne},
    backend::{Epoch, Refusal, Scope, Slice, SliceChange, SliceWrite, Write},
};

/// Rules 5 and 12: a key that nobody wrote reads 0, and reading makes no slice.
pub async fn a_missing_key_has_no_slices(fixture: &Fixture) {
    let guest = Guest::join(&fixture.fresh()).await;
    let read = guest.read(&key("absent")).await;
    assert_eq!((read.total, read.slice), (0, 0));
    assert_eq!(guest.slices(&key("absent")).await, []);
    assert_eq!(guest.read_all(&[]).await, []);
    assert_eq!(guest.apply(&[]).await, []);
    let removed = guest.remove(&key("absent"), Scope::Slice).await;
    assert_eq!((removed.old, removed.new), (read, read));
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Default)]
struct Expected {
    epoch: Option<Epoch>,
    slices: BTreeMap<usize, i64>,
}

/// Rules 12 and 16: over a long mixed run, every answer agrees with a reference, and the total is the
/// sum of the slices after each step.
pub async fn totals_are_the_sums_of_the_slices(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut guests = Guest::crowd(&probe, 3).await;
    let all = keys(3);
    let mut model: Vec<Expected> = all.iter().map(|_| Expected::default()).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for step in 0..300 {
        let (who, at) = (dice.below(3) as usize, dice.below(3) as usize);
        let count = dice.below(2001) as i64 - 1000;
        let (guest, key) = (&guests[who], &all[at]);
        let before = guest.read(key).await;
        let expected = &mut model[at];
        let total: i64 = expected.slices.values().sum();
        let own = expected.slices.get(&who).copied().unwrap_or(0);
        assert_eq!((before.total, before.slice), (total, own), "step {step}");
        assert!(expected.epoch.is_none_or(|epoch| epoch == before.epoch), "step {step}: epoch");
        let mut renewed = false;
        match dice.below(8) {
            0..=2 => {
                guest.add(key, count).await;
                expected.slices.insert(who, own + count);
            }
            3 => {
                guest.set_slice(key, count).await;
                expected.slices.insert(who, count);
            }
            4 => {
                renewed = true;
                guest.set(key, count).await;
                expected.slices = BTreeMap::from([(who, count)]);
            }
            5 => {
                guest.remove(key, Scope::Slice).await;
                expected.slices.remove(&who);
            }
            6 => {
                renewed = true;
                let removed = guest.remove(key, Scope::Total).await;
                assert_eq!(removed.old, before, "step {step}: what del found");
                expected.slices.clear();
            }
            _ => {
                let mut claims: Vec<Slice> = Vec::new();
                for key in &all {
                    claims.push(guest.claim(key).await);
                }
                guests[who].rejoin(&claims).await;
                for expected in &mut model {
                    expected.slices.entry(who).or_insert(0);
                }
            }
        }
        let expected = &mut model[at];
        let total: i64 = expected.slices.values().sum();
        assert_eq!(agreed_total(&guests, key).await, total, "step {step}");
        let epoch = guests[who].read(key).await.epoch;
        assert_eq!(renewed, epoch > before.epoch, "step {step}: set and del alone renew epochs");
        expected.epoch = Some(epoch);
    }
}

/// Rules 2 and 3: writes happen in order, also on one key, and a refusal stops no other.
pub async fn slice_batches_keep_their_order(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (one, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let (a, b) = (key("a"), key("b"));
    other.add(&a, 100).await;
    let writes = [
        add(&a, 1),
        SliceWrite { condition: Eq(101), ..add(&a, 2) },
        SliceWrite { condition: Eq(101), ..add(&a, 4) },
        add(&a, i64::MAX),
        change(&b, SliceChange::SetSlice(7)),
        SliceWrite { condition: Lt(7), ..change(&b, SliceChange::SetSlice(8)) },
        change(&a, SliceChange::SetTotal(50)),
        add(&a, -60),
    ];
    let outcomes = one.apply(&writes).await;
    let seen: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(w) => Some((w.old.total, w.old.slice, w.new.total, w.new.slice, w.condition_met)),
            Err(refusal) => {
                assert_eq!(*refusal, Refusal::Overflow);
                None
            }
        })
        .collect();
    let expected = [
        Some((100, 0, 101, 1, true)),
        Some((101, 1, 103, 3, true)),
        Some((103, 3, 103, 3, false)),
        None,
        Some((0, 0, 7, 7, true)),
        Some((7, 7, 7, 7, false)),
        Some((103, 3, 50, 50, true)),
        Some((50, 50, -10, -10, true)),
    ];
    assert_eq!(seen, expected);
    let read = one.read_all(&[b.clone(), a.clone(), b.clone()]).await;
    assert_eq!(read.iter().map(|s| s.total).collect::<Vec<_>>(), [7, -10, 7]);
    assert_eq!(agreed_total(&[one, other], &a).await, -10);
}

/// Rule 4: sums are exact on the whole range, and what leaves it is refused and changes nothing.
pub async fn slices_are_exact_on_the_whole_range(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guests = Guest::crowd(&probe, 2).await;
    let (one, two) = (&guests[0], &guests[1]);
    let near =
        [0, 1, -1, (1 << 51), (1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MIN, i64::MAX - 1];
    let k = key("k");
    for a in near {
        for b in near {
            one.set(&k, a).await;
            let before = two.read(&k).await;
            assert_eq!((before.total, before.slice), (a, 0));
            match (two.write(add(&k, b)).await, a.checked_add(b)) {
                (Ok(w), Some(sum)) => {
                    assert_eq!(w.old, before);
                    assert_eq!(w.new, standing(sum, b, before.epoch), "{a} + {b}");
                    assert_eq!(agreed_total(&guests, &k).await, sum);
                }
                (Err(Refusal::Overflow), None) => {
                    assert_eq!(two.read(&k).await, before, "a refused addition changed something");
                    assert_eq!(agreed_total(&guests, &k).await, a);
                }
                (outcome, sum) => panic!("{a} + {b}: {outcome:?} instead of {sum:?}"),
            }
        }
    }
    // The slice can overflow where the total does not.
    one.set(&k, -10).await;
    two.add(&k, i64::MAX).await;
    assert_eq!(two.write(add(&k, 1)).await, Err(Refusal::Overflow), "the slice left the range");
    assert_eq!(agreed_total(&guests, &k).await, i64::MAX - 10);
    assert_eq!(two.set_slice(&k, i64::MIN + 10).await.total, i64::MIN);
    let below = two.write(change(&k, SliceChange::SetSlice(i64::MIN))).await;
    assert_eq!(below, Err(Refusal::Overflow), "the total left the range");
    assert_eq!(agreed_total(&guests, &k).await, i64::MIN);
}

/// Rule 14: removing expired instances never fails; where the true sum does not fit, the total reads as the
/// nearest number, and writes whose result does not fit are refused until one fits.
pub async fn totals_out_of_range_are_clamped(fixture: &Fixture) {
    for sign in [1, -1] {
        let probe = fixture.fresh();
        let guests = Guest::crowd(&probe, 3).await;
        let (big, gone, small) = (&guests[0], &guests[1], &guests[2]);
        let limit = if sign > 0 { i64::MAX } else { i64::MIN };
        let k = key("k");
        big.add(&k, limit).await;
        gone.add(&k, -sign * 100).await;
        small.add(&k, sign * 100).await;
        gone.leave().await;
        let read = small.read(&k).await;
        assert_eq!((read.total, read.slice), (limit, sign * 100), "the true sum is beyond");
        assert_eq!(small.write(add(&k, sign)).await, Err(Refusal::Overflow));
        assert_eq!(small.write(add(&k, -sign * 99)).await, Err(Refusal::Overflow));
        assert_eq!(small.read(&k).await, read, "refused writes change nothing");
        let failed = accepted(small.write(SliceWrite { condition: Ne(limit), ..add(&k, 5) }).await);
        assert!(!failed.condition_met, "conditions compare with what is read");
        let exact = accepted(small.write(add(&k, -sign * 100)).await);
        assert_eq!(exact.old, read, "what was before is what was read before");
        assert_eq!(exact.new, standing(limit, 0, read.epoch), "exact again");
        assert_eq!(small.add(&k, -sign).await.total, limit - sign);
        assert_eq!(agreed_total(&[small.clone(), big.clone()], &k).await, limit - sign);

        // Beyond the range again, by a slice that is put back, and back into it by one that goes.
        let mut back = gone.clone();
        let claim = Slice { key: k.clone(), epoch: read.epoch, value: sign * 50 };
        assert_eq!(back.rejoin(&[claim]).await, [standing(limit, sign * 50, read.epoch)]);
        assert_eq!(big.try_remove(&k, Scope::Slice).await.map(|w| w.new.total), Ok(sign * 49));
        assert_eq!(agreed_total(&[small.clone(), back, big.clone()], &k).await, sign * 49);
    }
}

/// Rule 4: conditions compare exactly: with the total, or with the slice where that is replaced.
pub async fn slice_conditions_compare_exactly(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (one, other) = (Guest::join(&probe).await, Guest::join(&probe).await);
    let k = key("k");
    for slice in [(1 << 53) + 1, -(1 << 53) - 1, i64::MAX - 3, i64::MIN + 3, 5] {
        one.set(&k, slice).await;
        other.add(&k, 2).await;
        for (subject, change) in
            [(slice + 2, SliceChange::Add(0)), (slice, SliceChange::SetSlice(slice))]
        {
            let cases = [
                (Eq(subject), true),
                (Eq(subject + 1), false),
                (Eq(subject - 1), false),
                (Ne(subject), false),
                (Ne(subject + 1), true),
                (Lt(subject), false),
                (Lt(subject + 1), true),
                (Gt(subject), false),
                (Gt(subject - 1), true),
                (Gt(i64::MAX), false),
                (Le(subject), true),
                (Le(subject - 1), false),
                (Ge(subject), true),
                (Ge(subject + 1), false),
                (Lt(i64::MIN), false),
            ];
            for (condition, holds) in cases {
                let write = SliceWrite { key: k.clone(), change, condition };
                let written = accepted(one.write(write.clone()).await);
                assert_eq!(written.condition_met, holds, "{write:?} on {slice}");
                assert_eq!(written.new, written.old, "a write that changes nothing");
            }
        }
    }
}

/// Rules 1 and 12: concurrent additions of many instances sum exactly.
pub async fn concurrent_slices_sum_exactly(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guests = Guest::crowd(&probe, 4).await;
    let k = key("k");
    let mut tasks = JoinSet::new();
    for guest in guests.iter().cycle().take(8) {
        let (guest, k) = (guest.clone(), k.clone());
        tasks.spawn(async move {
            for _ in 0..50 {
                guest.add(&k, 1).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(agreed_total(&guests, &k).await, 400);
    for guest in &guests {
        assert_eq!(guest.read(&k).await.slice, 100);
    }
}

/// Answers are numbered in the order in which the store gave them.
pub async fn versions_grow(fixture: &Fixture) {
    let guest = Guest::join(&fixture.fresh()).await;
    let (backend, space, member) = (&guest.store, &guest.probe.space, &guest.member);
    let k = [key("k")];
    let mut last = None;
    for round in 0..5 {
        let sequence = (round % 2 == 0).then_some(round + 1);
        let applied = backend.apply_on(space, member, &[add(&k[0], 1)], sequence).await;
        let read = backend.read_on(space, member, &k).await;
        let removal = [removal(&k[0], Scope::Slice)];
        let removed = backend.apply_on(space, member, &removal, None).await;
        let versions = [
            applied.map(|ordered| ordered.version),
            read.map(|ordered| ordered.version),
            removed.map(|ordered| ordered.version),
        ];
        for version in versions {
            let version = super::guest::ok("an operation", version);
            assert!(last < Some(version), "{version} after {last:?}");
            last = Some(version);
        }
    }
}

/// Rule 9: any valid key has slices, and the two families of a prefix do not touch.
pub async fn slices_of_any_key_stay_apart(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guest = Guest::join(&probe).await;
    let mut all = awkward_keys();
    for name in ["meta", "leases", "dead", "names", "inst", "keys", "tombs", "t", "e", "c", "s"] {
        all.push(key(name));
    }
    let count = all.len() as i64;
    let writes: Vec<_> = all.iter().zip(1..).map(|(key, value)| add(key, value)).collect();
    guest.apply(&writes).await;
    probe.apply(&[Write::add(key("meta"), 9)]).await;
    let totals: Vec<_> = guest.read_all(&all).await.iter().map(|s| (s.total, s.slice)).collect();
    assert_eq!(totals, (1..=count).map(|value| (value, value)).collect::<Vec<_>>());
    let stranger = Guest::join(&fixture.fresh()).await;
    stranger.clear(Scope::Total).await;
    probe.clear().await;
    assert_eq!(guest.total(&all[0]).await, 1, "another space or family was cleared");
    probe.apply(&[Write::add(key("meta"), 9)]).await;
    guest.clear(Scope::Total).await;
    assert_eq!(probe.total(&key("meta")).await, 9, "the plain family was cleared");
    assert!(guest.read_all(&all).await.iter().all(|s| (s.total, s.slice) == (0, 0)));
}
