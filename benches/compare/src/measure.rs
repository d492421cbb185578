//! What is measured, and how the rounds go.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Whose figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// This crate.
    Ours,
    /// `distkit` 0.7.1.
    Peer,
    /// What no counter can beat: the raw client, or the bare data structure.
    Limit,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Peer => "peer",
            Self::Limit => "limit",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Nanoseconds,
    PerSecond,
    Milliseconds,
    Percent,
    Bytes,
    Count,
}

impl Unit {
    pub(crate) fn more_is_better(self) -> bool {
        self == Self::PerSecond
    }

    /// A value with three significant digits, and its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds if value >= 10_000.0 => format!("{} us", digits(value / 1000.0)),
            Self::Nanoseconds => format!("{} ns", digits(value)),
            Self::PerSecond if value >= 1e6 => format!("{} M/s", digits(value / 1e6)),
            Self::PerSecond if value >= 1e3 => format!("{} k/s", digits(value / 1e3)),
            Self::PerSecond => format!("{} /s", digits(value)),
            Self::Milliseconds => format!("{} ms", digits(value)),
            Self::Percent => format!("{} %", digits(value)),
            Self::Bytes => format!("{} B", digits(value)),
            Self::Count => digits(value),
        }
    }
}

fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        small if small < 0.01 => 4,
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Where a figure is to get: a bound on the ratio of ours to another's, or on ours itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) against: Option<Role>,
    pub(crate) bound: Bound,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) const fn at_least(ratio: f64, against: Role) -> Self {
        Self { against: Some(against), bound: Bound::AtLeast(ratio) }
    }

    pub(crate) const fn at_most(ratio: f64, against: Role) -> Self {
        Self { against: Some(against), bound: Bound::AtMost(ratio) }
    }

    /// A bound on ours itself.
    pub(crate) const fn under(value: f64) -> Self {
        Self { against: None, bound: Bound::AtMost(value) }
    }

    fn holds(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            Bound::AtLeast(bound) => write!(f, "at least {bound}")?,
            Bound::AtMost(bound) => write!(f, "at most {bound}")?,
        }
        match self.against {
            Some(role) => write!(f, " x {role}"),
            None => Ok(()),
        }
    }
}

/// One figure of a work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) goal: Option<Goal>,
}

/// A way to do the work. Each round gives one value for each metric of the work.
pub(crate) struct Contender<'a> {
    pub(crate) role: Role,
    pub(crate) name: &'static str,
    pub(crate) round: Box<dyn FnMut() -> Vec<f64> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        role: Role,
        name: &'static str,
        round: impl FnMut() -> Vec<f64> + 'a,
    ) -> Self {
        Self { role, name, round: Box::new(round) }
    }

    /// One that is timed: `run` does about so many operations and says how many it did in which time.
    ///
    /// How many make a round is found out first, so that fast and slow ones are measured for about as long.
    pub(crate) fn timed(
        role: Role,
        name: &'static str,
        unit: Unit,
        round: Duration,
        mut run: impl FnMut(u64) -> (u64, Duration) + 'a,
    ) -> Self {
        let mut count = 256;
        loop {
            let (done, took) = run(count);
            if took >= round / 8 || count >= 1 << 32 {
                let rate = done as f64 / took.as_secs_f64().max(1e-9);
                count = ((rate * round.as_secs_f64()) as u64).max(1);
                break;
            }
            count *= 4;
        }
        Self::new(role, name, move || {
            let (done, took) = run(count);
            vec![match unit {
                Unit::PerSecond => done as f64 / took.as_secs_f64(),
                _ => took.as_nanos() as f64 / done as f64,
            }]
        })
    }
}

/// The values of one metric over the rounds.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) role: Role,
    pub(crate) name: &'static str,
    values: Vec<f64>,
}

impl Series {
    pub(crate) fn new(role: Role, name: &'static str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { role, name, values }
    }

    pub(crate) fn median(&self) -> f64 {
        let middle = self.values.len() / 2;
        if self.values.len() % 2 == 1 {
            self.values[middle]
        } else {
            (self.values[middle - 1] + self.values[middle]) / 2.0
        }
    }

    pub(crate) fn min(&self) -> f64 {
        self.values[0]
    }

    pub(crate) fn max(&self) -> f64 {
        self.values[self.values.len() - 1]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) number: usize,
    pub(crate) of: &'static str,
}

/// What came out for one metric of one work.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) work: String,
    /// How much of what there was, for a work that shows how cost grows.
    pub(crate) size: Option<Size>,
    pub(crate) metric: Metric,
    pub(crate) series: Vec<Series>,
}

impl Outcome {
    pub(crate) fn of(&self, role: Role) -> Option<&Series> {
        self.series.iter().find(|series| series.role == role)
    }

    /// Ours divided by another's median.
    pub(crate) fn ratio(&self, against: Role) -> Option<f64> {
        Some(self.of(Role::Ours)?.median() / self.of(against)?.median())
    }

    /// For works whose operations are themselves so many.
    pub(crate) fn divide(&mut self, by: f64) {
        for series in &mut self.series {
            series.values.iter_mut().for_each(|value| *value /= by);
        }
    }

    /// Whether the goal, if there is one, was reached.
    pub(crate) fn reached(&self) -> Option<bool> {
        let goal = self.metric.goal?;
        Some(goal.holds(match goal.against {
            Some(role) => self.ratio(role)?,
            None => self.of(Role::Ours)?.median(),
        }))
    }
}

/// Runs the rounds: in each, every contender once, and each round begins with another one, so that what
/// disturbs the machine disturbs all of them.
pub(crate) fn compare(
    work: impl Into<String>,
    metrics: &[Metric],
    rounds: usize,
    mut contenders: Vec<Contender<'_>>,
) -> Vec<Outcome> {
    let work = work.into();
    let started = Instant::now();
    let mut values = vec![vec![Vec::with_capacity(rounds); metrics.len()]; contenders.len()];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let at = (round + turn) % contenders.len();
            for (series, value) in values[at].iter_mut().zip((contenders[at].round)()) {
                series.push(value);
            }
        }
    }
    eprintln!("{work}: {:.1} s", started.elapsed().as_secs_f64());
    let outcome = |at: usize| Outcome {
        work: work.clone(),
        size: None,
        metric: metrics[at],
        series: contenders
            .iter()
            .zip(&values)
            .map(|(contender, values)| {
                Series::new(contender.role, contender.name, values[at].clone())
            })
            .collect(),
    };
    (0..metrics.len()).map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ratios_and_goals() {
        let series = |role, values: &[f64]| Series::new(role, "", values.to_vec());
        let goal = Goal::at_most(1.5, Role::Limit);
        let outcome = Outcome {
            work: "w".into(),
            size: None,
            metric: Metric { name: "m", unit: Unit::Nanoseconds, goal: Some(goal) },
            series: vec![
                series(Role::Ours, &[9.0, 3.0, 6.0]),
                series(Role::Limit, &[5.0, 1.0, 3.0, 5.0]),
            ],
        };
        assert_eq!(outcome.ratio(Role::Limit), Some(1.5));
        assert_eq!(outcome.ratio(Role::Peer), None);
        assert_eq!(outcome.reached(), Some(true));
        assert!(!goal.holds(1.51));
        assert_eq!((outcome.series[0].min(), outcome.series[0].max()), (3.0, 9.0));
    }

    #[test]
    fn each_round_runs_everybody_once_and_begins_with_another() {
        let order = std::cell::RefCell::new(Vec::new());
        let contender = |role, id: u32| {
            let order = &order;
            Contender::new(role, "", move || {
                order.borrow_mut().push(id);
                vec![f64::from(id)]
            })
        };
        let metric = Metric { name: "m", unit: Unit::Count, goal: None };
        let contenders = vec![contender(Role::Ours, 1), contender(Role::Peer, 2)];
        let outcomes = compare("w", &[metric], 3, contenders);
        assert_eq!(*order.borrow(), [1, 2, 2, 1, 1, 2]);
        assert_eq!(outcomes[0].ratio(Role::Peer), Some(0.5));
    }

    #[test]
    fn values_are_shown_with_three_digits() {
        assert_eq!(Unit::Nanoseconds.show(1.234), "1.23 ns");
        assert_eq!(Unit::Nanoseconds.show(12_345.0), "12.3 us");
        assert_eq!(Unit::PerSecond.show(358_000.0), "358 k/s");
        assert_eq!(Unit::Percent.show(0.001), "0.0010 %");
    }
}
