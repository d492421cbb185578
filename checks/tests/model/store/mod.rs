//! Histories of calls of the `Backend`.

pub(crate) mod history;
pub(crate) mod play;

use crate::{
    cases::check,
    world::{Simulated, runtime},
};
use history::histories;
use play::play;

#[test]
fn the_memory_store_answers_as_the_model() {
    check("store", 2500, &histories(), |history| {
        runtime().block_on(play(&Simulated::new(), "shop", &history.0)).map(drop)
    });
}

#[test]
fn a_history_gives_the_same_transcript_each_time() {
    check("store_repeats", 100, &histories(), |history| {
        let transcript = || runtime().block_on(play(&Simulated::new(), "shop", &history.0));
        let (first, second) = (transcript()?, transcript()?);
        if first == second { Ok(()) } else { Err(format!("{first:#?}\n{second:#?}")) }
    });
}
