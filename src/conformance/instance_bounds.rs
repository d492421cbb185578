use super::{
    bounds::BOUNDS,
    fixture::{Fixture, key},
    guest::{Guest, agreed_total, change, standing},
};
use crate::backend::{Change, Refusal, SliceChange};

/// Rules 12 and 14: the bounds are those of the total; what fits goes to the caller's slice.
pub async fn slices_within_bounds_are_exact(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guests = Guest::crowd(&probe, 2).await;
    let (one, two) = (&guests[0], &guests[1]);
    let k = key("k");
    for (least, most) in BOUNDS {
        for start in [0, 7, -(1 << 53) - 2, most.saturating_sub(2), least, i64::MAX, i64::MIN] {
            for count in [i64::MIN, -9, 0, 9, (1 << 53) + 2, i64::MAX] {
                one.set(&k, start).await;
                let before = two.read(&k).await;
                let within = change(&k, SliceChange::AddWithin { count, least, most });
                let Ok(new) = Change::AddWithin { count, least, most }.applied_to(start) else {
                    panic!("what is within bounds fits");
                };
                let written = two.write(within).await;
                let what = format!("{count} within {least} to {most} on {start}");
                // From a total of one end to the other is more than a slice can hold.
                let Ok(slice) = i64::try_from(i128::from(new) - i128::from(start)) else {
                    panic!("{what}: more than the count was added");
                };
                let expected = standing(new, slice, before.epoch);
                match written {
                    Ok(written) => {
                        assert_eq!((written.old, written.new), (before, expected), "{what}");
                    }
                    Err(refusal) => panic!("{what}: {refusal}"),
                }
                assert_eq!(agreed_total(&guests, &k).await, new, "{what}");
            }
        }
    }
    // The slice can overflow where the total does not.
    one.set(&k, -10).await;
    two.add(&k, i64::MAX).await;
    let more = change(&k, SliceChange::AddWithin { count: 1, least: 0, most: i64::MAX });
    assert_eq!(two.write(more).await, Err(Refusal::Overflow), "the slice left the range");
}
