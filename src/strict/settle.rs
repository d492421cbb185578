//! What each caller of a joined addition is answered.

/// A total after a joined addition.
pub(crate) trait Tally: Copy + Send + 'static {
    /// The total as it was, or would be, with so much more; `None` where that is no `i64`.
    fn moved(self, by: i128) -> Option<Self>;

    /// The same, held within `i64`.
    fn moved_within(self, by: i128) -> Self;
}

impl Tally for i64 {
    fn moved(self, by: i128) -> Option<Self> {
        i64::try_from(i128::from(self) + by).ok()
    }

    fn moved_within(self, by: i128) -> Self {
        let sum = i128::from(self) + by;
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }
}

/// The totals right after each of `counts`, which have all been added, in an order in which each of them fits.
/// Together they gave `total`.
///
/// Uses the given order if every prefix fits. Otherwise takes a negative count at or above 0, else a positive one: of
/// a single number such a sum always fits.
pub(crate) fn in_order<T: Tally>(total: T, counts: &[i64]) -> Vec<T> {
    let all: i128 = counts.iter().copied().map(i128::from).sum();
    let mut left = all;
    let as_given: Option<Vec<T>> = counts
        .iter()
        .map(|count| {
            left -= i128::from(*count);
            total.moved(-left)
        })
        .collect();
    as_given.unwrap_or_else(|| by_sign(total, counts, all))
}

fn by_sign<T: Tally>(total: T, counts: &[i64], all: i128) -> Vec<T> {
    let mut answers = vec![total; counts.len()];
    let places = |sign: bool| (0..counts.len()).filter(move |at| (counts[*at] < 0) == sign);
    let (mut minus, mut plus) = (places(true).peekable(), places(false).peekable());
    let mut left = all;
    loop {
        let fits = |at: &usize| total.moved(i128::from(counts[*at]) - left).is_some();
        let next = match (minus.peek(), plus.peek()) {
            (Some(at), _) if fits(at) => minus.next(),
            (_, Some(_)) => plus.next(),
            (Some(_), None) => minus.next(),
            (None, None) => None,
        };
        let Some(at) = next else { return answers };
        left -= i128::from(counts[at]);
        answers[at] = total.moved_within(-left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replays the answers in the order that they imply, and gives what they began with.
    fn check(start: i64, counts: &[i64]) {
        let sum: i128 = counts.iter().copied().map(i128::from).sum();
        let Ok(total) = i64::try_from(i128::from(start) + sum) else { return };
        let answers = in_order(total, counts);
        // Each answer less its count is the answer before it: together they are a path from the start to the total.
        let mut steps: Vec<(i64, i64)> = Vec::new();
        for (answer, count) in answers.iter().zip(counts) {
            let before =
                answer.checked_sub(*count).expect("each sum fits before its addition, too");
            steps.push((before, *answer));
        }
        let mut befores: Vec<_> = steps.iter().map(|(before, _)| *before).collect();
        let mut afters: Vec<_> = steps.iter().map(|(_, after)| *after).collect();
        befores.push(total);
        afters.push(start);
        befores.sort_unstable();
        afters.sort_unstable();
        assert_eq!(befores, afters, "{start} and {counts:?} give {answers:?}");
    }

    #[test]
    fn in_the_order_of_arrival_where_that_fits() {
        assert_eq!(in_order(10, &[1, 2, 3]), [5, 7, 10]);
        assert_eq!(in_order(0, &[-1, 1]), [-1, 0]);
        assert_eq!(in_order(7, &[]), [] as [i64; 0]);
    }

    #[test]
    fn another_order_where_a_prefix_does_not_fit() {
        // From the maximum on: 5 does not fit before -5.
        assert_eq!(in_order(i64::MAX, &[5, -5]), [i64::MAX, i64::MAX - 5]);
        assert_eq!(in_order(i64::MIN, &[-5, 5]), [i64::MIN, i64::MIN + 5]);
    }

    /// Numbers near the ends and near 0, and any others.
    fn number(dice: &mut fastrand::Rng) -> i64 {
        match dice.u8(..6) {
            0 => i64::MAX - dice.i64(0..4),
            1 => i64::MIN + dice.i64(0..4),
            2 => dice.i64(..),
            _ => dice.i64(-9..10),
        }
    }

    #[test]
    fn answers_are_a_path_from_before_to_after() {
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..200_000 {
            let counts: Vec<_> = (0..dice.usize(..12)).map(|_| number(&mut dice)).collect();
            check(number(&mut dice), &counts);
        }
    }
}
