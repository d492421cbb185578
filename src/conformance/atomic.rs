use std::collections::BTreeSet;

use tokio::task::{JoinSet, yield_now};

use super::fixture::{Fixture, key};
use crate::{CounterComparator, RedisKey, backend::Write};

const TASKS: i64 = 16;

/// Rule 1: additions from many tasks at once sum exactly, and each sees a value of its own.
pub async fn concurrent_adds_sum_exactly(fixture: &Fixture) {
    const ROUNDS: i64 = 20;
    let probe = fixture.fresh();
    let (single, batched) = (key("single"), key("batched"));
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (probe, single, batched) = (probe.clone(), single.clone(), batched.clone());
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..ROUNDS {
                let written = probe.write(Write::add(single.clone(), 1)).await;
                assert_eq!(written.new, written.old + 1, "an addition of 1 answered {written:?}");
                seen.push(written.old);
                let pair = [Write::add(batched.clone(), 5), Write::add(batched.clone(), -2)];
                probe.apply(&pair).await;
            }
            seen
        });
    }
    let all: Vec<i64> = tasks.join_all().await.into_iter().flatten().collect();
    let distinct: BTreeSet<i64> = all.iter().copied().collect();
    assert_eq!(
        distinct.len(),
        all.len(),
        "two concurrent additions saw the same value, so one of them was lost or the answer is made up"
    );
    assert_eq!(probe.total(&single).await, TASKS * ROUNDS, "concurrent single additions");
    assert_eq!(probe.total(&batched).await, TASKS * ROUNDS * 3, "concurrent batches of additions");
}

/// Rule 1: of many concurrent assignments with the same condition, one wins, and the others see it.
pub async fn of_concurrent_conditional_sets_one_wins(fixture: &Fixture) {
    let probe = fixture.fresh();
    for round in 0..8 {
        let race = key(&format!("race{round}"));
        let mut tasks = JoinSet::new();
        for task in 1..=TASKS {
            let (probe, race) = (probe.clone(), race.clone());
            tasks.spawn(async move {
                let set = Write::set(race, task).only_if(CounterComparator::Eq(0));
                (task, probe.write(set).await)
            });
        }
        let answers = tasks.join_all().await;
        let winners: Vec<i64> =
            answers.iter().filter(|(_, w)| w.condition_met).map(|(task, _)| *task).collect();
        assert_eq!(winners.len(), 1, "winners of a race for one conditional set: {winners:?}");
        for (task, written) in &answers {
            assert_eq!(written.new, winners[0], "task {task} was answered {written:?}");
        }
        assert_eq!(probe.total(&race).await, winners[0], "the value after the race");
    }
}

/// Rule 1: counting by reading and setting under a condition loses nothing.
pub async fn a_compare_and_set_loop_loses_no_update(fixture: &Fixture) {
    const ROUNDS: i64 = 10;
    let probe = fixture.fresh();
    let shared = key("shared");
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (probe, shared) = (probe.clone(), shared.clone());
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                let mut seen = probe.total(&shared).await;
                loop {
                    let set =
                        Write::set(shared.clone(), seen + 1).only_if(CounterComparator::Eq(seen));
                    let written = probe.write(set).await;
                    if written.condition_met {
                        break;
                    }
                    assert_ne!(written.old, seen, "a condition failed on the value it asks for");
                    seen = written.old;
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(probe.total(&shared).await, 4 * ROUNDS, "updates by compare and set");
}

/// Rule 1: a reader sees a value from before or from after a write, never a mixture.
pub async fn readers_see_whole_values_only(fixture: &Fixture) {
    const VALUES: [i64; 4] = [i64::MIN, i64::MAX, 0x5555_5555_5555_5555, -0x5555_5555_5555_5556];
    let probe = fixture.fresh();
    let flipped = key("flipped");
    let writer = tokio::spawn({
        let (probe, flipped) = (probe.clone(), flipped.clone());
        async move {
            for value in VALUES.repeat(25) {
                probe.write(Write::set(flipped.clone(), value)).await;
            }
        }
    });
    let twice: [RedisKey; 2] = [flipped.clone(), flipped];
    while !writer.is_finished() {
        // A store that answers at once would keep the writer out of a one-thread runtime.
        yield_now().await;
        for value in probe.read(&twice).await {
            assert!(
                value == 0 || VALUES.contains(&value),
                "a reader saw {value}, which nobody wrote"
            );
        }
    }
    if let Err(error) = writer.await {
        std::panic::resume_unwind(error.into_panic());
    }
}
