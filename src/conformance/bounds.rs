use super::{
    exact::compare,
    fixture::{Fixture, check, key, wrote},
    model::EDGES,
};
use crate::{
    CounterComparator::{Eq, Gt, Nil},
    backend::{Change, Write},
};

/// Pairs of bounds: wide, narrow, empty, and at the ends of the range.
pub(super) const BOUNDS: [(i64, i64); 8] = [
    (0, 100),
    (-5, -5),
    (3, -3),
    (i64::MIN, i64::MAX),
    (0, i64::MAX),
    (i64::MIN, (1 << 53) + 1),
    (-(1 << 53) - 1, (1 << 53) + 1),
    (i64::MAX - 1, i64::MAX),
];

/// Rule 4: an addition within bounds adds as much as fits, exactly.
pub async fn additions_within_bounds_are_exact(fixture: &Fixture) {
    let probe = fixture.fresh();
    let counts = [i64::MIN, -(1 << 53) - 1, -7, 0, 7, (1 << 53) + 1, i64::MAX];
    for (least, most) in BOUNDS {
        let within = counts.map(|count| Change::AddWithin { count, least, most });
        let near = [least, least.saturating_sub(3), most.saturating_sub(2), most];
        let starts = EDGES.iter().copied().chain(near);
        let cases = starts.flat_map(|start| within.map(|change| (start, change, Nil)));
        compare(&probe, &cases.collect::<Vec<_>>()).await;
    }

    let seats = key("seats");
    let book = |count| Write::add_within(seats.clone(), count, 0..=5);
    let writes = [
        book(-1),
        book(3).only_if(Gt(0)),
        book(3),
        book(3),
        book(3).only_if(Eq(5)),
        Write::add(seats.clone(), 2),
        book(1),
        book(-8),
    ];
    let mut expected = [
        wrote(0, 0),
        wrote(0, 0),
        wrote(0, 3),
        wrote(3, 5),
        wrote(5, 5),
        wrote(5, 7),
        wrote(7, 7),
        wrote(7, 0),
    ];
    if let Ok(failed) = &mut expected[1] {
        failed.condition_met = false;
    }
    for guard in [None, Some(probe.guard(1))] {
        probe.remove(std::slice::from_ref(&seats)).await;
        let applied = probe.send(&writes, guard.as_ref()).await;
        check(&writes, &applied.outcomes, &expected);
        if let Some(guard) = guard {
            assert!(probe.send(&writes, Some(&guard)).await.replayed);
            assert_eq!(probe.total(&seats).await, 0, "a replayed addition within bounds");
        }
    }
}
