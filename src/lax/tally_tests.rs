//! Apart from the tally, whose file a test of its interleavings includes.

use super::{cell::Cell, tally::Tally};

fn add(tally: &Tally, count: i64) -> Option<i64> {
    tally.add_fast(count).or_else(|| tally.add_checked(count))
}

#[test]
fn refuses_what_does_not_fit_and_changes_nothing() {
    let tally = Tally::new(());
    tally.settle(0, i64::MAX - 1);
    assert_eq!(add(&tally, 1), Some(i64::MAX));
    assert_eq!(add(&tally, 1), None);
    assert_eq!((tally.estimate(), tally.pending()), (i64::MAX, 1));
    assert_eq!(add(&tally, -3), Some(i64::MAX - 3));
}

#[test]
fn what_is_pending_fits_even_when_the_base_is_extreme() {
    let tally = Tally::new(());
    tally.settle(0, i64::MIN);
    assert_eq!(add(&tally, i64::MAX), Some(-1));
    assert_eq!(add(&tally, 1), None, "the pending sum would not fit, though the total would");
    assert_eq!(add(&tally, -1), Some(-2));
    assert_eq!(tally.pending(), i64::MAX - 1);
}

#[test]
fn an_estimate_beyond_the_range_is_held_at_its_end() {
    let tally = Tally::new(());
    assert_eq!(add(&tally, 10), Some(10));
    tally.settle(0, i64::MAX - 5);
    assert_eq!(tally.estimate(), i64::MAX);
    assert_eq!(tally.pending(), 10);
}

#[test]
fn an_estimate_that_wrapped_around_to_a_small_number_is_held_at_its_end() {
    let tally = Tally::new(());
    assert_eq!(add(&tally, i64::MIN), Some(i64::MIN));
    tally.settle(0, i64::MIN);
    assert_eq!(tally.estimate(), i64::MIN);
    assert_eq!(tally.pending(), i64::MIN);
}

/// With its count of references it takes 88, so that an allocator's 96 hold it.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_cell_has_72_bytes() {
    assert_eq!(size_of::<Cell>(), 72);
}
