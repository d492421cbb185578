//! One lax counter and a strict one at the ends of the range, where digits have no room: the sums themselves are
//! followed, in more bits.

use std::{fmt, sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::{
        Refusal,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use proptest::{collection::vec, prelude::*};
use tokio::time::sleep;

use crate::{
    cases::{Story, check},
    cast::{Key, amount},
    world::runtime,
};

/// Long enough for every attempt to send again.
const A_WHILE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy)]
enum Step {
    Inc(i64),
    Get,
    Set(i64),
    /// Somebody else adds, in the store.
    Other(i64),
    Wait,
    Cut,
    Restored,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inc(n) => write!(f, "inc {n}"),
            Self::Get => f.write_str("get"),
            Self::Set(n) => write!(f, "set {n}"),
            Self::Other(n) => write!(f, "somebody else adds {n}"),
            Self::Wait => f.write_str("a while passes"),
            Self::Cut => f.write_str("the link is cut"),
            Self::Restored => f.write_str("the link is whole"),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => amount().prop_map(Step::Inc),
        4 => Just(Step::Get),
        1 => amount().prop_map(Step::Set),
        4 => amount().prop_map(Step::Other),
        5 => Just(Step::Wait),
        1 => Just(Step::Cut),
        2 => Just(Step::Restored),
    ]
}

#[test]
fn sums_at_the_ends_of_the_range_are_exact_or_refused() {
    check("lax_extremes", 3000, &vec(step(), 1..40), |history| runtime().block_on(play(history)));
}

struct Player {
    counter: Arc<LaxCounter>,
    other: Arc<StrictCounter>,
    link: MemoryLink,
    cut: bool,
    /// What the store holds, and all that it ever held: what the counter may take for the total.
    total: i64,
    totals: Vec<i64>,
    /// Acknowledged by the counter, and not in the store.
    pending: i64,
    /// What the store turned down. `None` when it is more than a report can say.
    refused: Option<i64>,
}

fn fits(sum: i128) -> Option<i64> {
    i64::try_from(sum).ok()
}

fn sum(a: i64, b: i64) -> i128 {
    i128::from(a) + i128::from(b)
}

async fn play(history: &[Step]) -> Result<(), String> {
    let store = MemoryBackend::new();
    let link = store.link();
    let prefix = RedisKey::try_from("shop").unwrap();
    let mut player = Player {
        counter: LaxCounter::new(CounterOptions::new(prefix.clone(), link.clone())),
        other: StrictCounter::new(CounterOptions::new(prefix, store)),
        link,
        cut: false,
        total: 0,
        totals: vec![0],
        pending: 0,
        refused: Some(0),
    };
    let mut story = Story::default();
    for step in history {
        story.tell(step);
        player.step(*step, &mut story).await.map_err(|why| story.ends(why))?;
    }
    player.end().await.map_err(|why| story.ends(why))
}

impl Player {
    async fn step(&mut self, step: Step, story: &mut Story) -> Result<(), String> {
        let key = Key::Apples.redis();
        match step {
            Step::Inc(n) => {
                let answer = self.counter.inc(&key, n).await;
                story.tell(format!("  -> {answer:?}"));
                match answer {
                    Ok(estimate) => {
                        self.pending = fits(sum(self.pending, n))
                            .ok_or("what is pending does not fit, and was taken")?;
                        self.is_an_estimate(estimate)?;
                    }
                    Err(DistkitError::CounterError { refusal: Refusal::Overflow, .. }) => {
                        let overflows = |pending: i128| {
                            let with = |total: &i64| fits(i128::from(*total) + pending).is_none();
                            fits(pending).is_none() || self.totals.iter().any(with)
                        };
                        let pending = sum(self.pending, n);
                        if !overflows(pending) {
                            return Err("it fits, and was refused".to_owned());
                        }
                    }
                    Err(DistkitError::NotApplied(_)) => {}
                    Err(error) => return Err(format!("the counter fails: {error}")),
                }
            }
            Step::Get => match self.counter.get(&key).await {
                Ok(estimate) => {
                    story.tell(format!("  -> {estimate}"));
                    // It may have taken the occasion to flush.
                    self.look().await?;
                    if fits(sum(self.total, self.pending)).is_none() && estimate == self.total {
                        // It was turned down, or looks like that and will be.
                        sleep(A_WHILE).await;
                        self.all_is_sent();
                    }
                    self.is_an_estimate(estimate)?;
                }
                Err(DistkitError::NotApplied(_)) => {}
                Err(DistkitError::CounterError { refusal: Refusal::Overflow, .. }) => {}
                Err(error) => return Err(format!("the counter fails: {error}")),
            },
            Step::Set(n) => {
                if fits(sum(self.total, self.pending)).is_none() {
                    // A flush that is due turns it down first.
                    self.refused = None;
                }
                self.set(n).await?;
            }
            Step::Other(n) => match (self.other.inc(&key, n).await, fits(sum(self.total, n))) {
                (Ok(total), Some(expected)) if total == expected => self.holds(total),
                (Err(DistkitError::CounterError { refusal: Refusal::Overflow, .. }), None) => {}
                (answer, expected) => return Err(format!("{answer:?}, and not {expected:?}")),
            },
            Step::Wait => {
                sleep(A_WHILE).await;
                self.all_is_sent();
            }
            Step::Cut => {
                self.link.cut();
                self.cut = true;
            }
            Step::Restored => {
                self.link.restore();
                self.cut = false;
            }
        }
        self.look().await
    }

    async fn set(&mut self, n: i64) -> Result<(), String> {
        match self.counter.set(&Key::Apples.redis(), n).await {
            Ok(set) if set == n => {
                self.pending = 0;
                self.holds(n);
            }
            Ok(set) => return Err(format!("it says that it set {set}")),
            Err(DistkitError::NotApplied(_)) => {}
            Err(error) => return Err(format!("the counter fails: {error}")),
        }
        Ok(())
    }

    fn holds(&mut self, total: i64) {
        self.total = total;
        self.totals.push(total);
    }

    /// What is pending went into the store, or was turned down, as a whole.
    fn all_is_sent(&mut self) {
        if self.cut {
            return;
        }
        match fits(sum(self.total, self.pending)) {
            Some(total) => self.holds(total),
            None => {
                self.refused = self.refused.and_then(|refused| fits(sum(refused, self.pending)));
            }
        }
        self.pending = 0;
    }

    async fn look(&mut self) -> Result<(), String> {
        let held = self.other.get(&Key::Apples.redis()).await.map_err(|error| error.to_string())?;
        if held == self.total {
            return Ok(());
        }
        if !self.cut && fits(sum(self.total, self.pending)) == Some(held) {
            self.all_is_sent();
            return Ok(());
        }
        Err(format!("the store holds {held}, and not {}; {} are pending", self.total, self.pending))
    }

    fn is_an_estimate(&self, estimate: i64) -> Result<(), String> {
        let held = |sum: i128| fits(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
        if self.totals.iter().any(|total| held(sum(*total, self.pending)) == estimate) {
            return Ok(());
        }
        Err(format!("{estimate} is none of {:?} with {}", self.totals, self.pending))
    }

    async fn end(mut self) -> Result<(), String> {
        self.link.restore();
        self.cut = false;
        sleep(A_WHILE).await;
        self.all_is_sent();
        self.look().await?;
        let reported = match self.counter.shutdown(A_WHILE).await {
            Ok(()) => 0,
            Err(report) if report.pending.is_empty() && report.unknown.is_empty() => {
                report.refused.iter().map(|(_, sum, _)| *sum).sum()
            }
            Err(report) => return Err(report.to_string()),
        };
        match self.refused {
            Some(refused) if refused != reported => {
                Err(format!("{refused} were refused, and {reported} are reported"))
            }
            _ => Ok(()),
        }
    }
}
