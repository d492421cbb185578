//! How many histories a test tries, and what it says when one of them fails.

use std::{cell::Cell, fmt::Display};

use proptest::{
    strategy::Strategy,
    test_runner::{Config, FileFailurePersistence, TestCaseError, TestError, TestRunner},
};
use tokio::time::Instant;

/// What went wrong, told as a story.
pub(crate) type Verdict = Result<(), String>;

/// How many times as many histories as usual are wanted.
pub(crate) fn times() -> u32 {
    std::env::var("DISTKIT_CASES").map_or(1, |times| times.parse().unwrap())
}

/// Plays `cases` histories, times `DISTKIT_CASES`, and first those that failed before.
pub(crate) fn check<S>(
    name: &'static str,
    cases: u32,
    histories: &S,
    play: impl Fn(&S::Value) -> Verdict,
) where
    S: Strategy,
    S::Value: std::fmt::Debug,
{
    let regressions: &'static str =
        Box::leak(format!("tests/model/regressions/{name}.txt").into_boxed_str());
    let config = Config {
        cases: cases * times(),
        max_shrink_iters: 50_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        ..Config::default()
    };
    let (start, played) = (Instant::now(), Cell::new(0_u32));
    let outcome = TestRunner::new(config).run(histories, |history| {
        played.set(played.get() + 1);
        play(&history).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(_, history)) => match play(&history) {
            Err(story) => panic!("{name}, the shortest history that fails:\n{story}"),
            Ok(()) => panic!("{name}: this history failed, and then did not: {history:?}"),
        },
        Err(error) => panic!("{name}: {error}"),
    }
    let (played, seconds) = (played.get(), start.elapsed().as_secs_f64());
    println!(
        "{name}: {played} histories in {seconds:.1} s, {:.0} a second",
        f64::from(played) / seconds
    );
}

/// The steps of a history so far, and what came of them.
#[derive(Default)]
pub(crate) struct Story(Vec<String>);

impl Story {
    pub(crate) fn tell(&mut self, line: impl Display) {
        self.0.push(line.to_string());
    }

    pub(crate) fn ends(&self, why: impl Display) -> String {
        let mut told = String::new();
        for line in &self.0 {
            told += &format!("    {line}\n");
        }
        format!("{told}  ! {why}")
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.0
    }
}
