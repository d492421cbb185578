//! Histories of lax counters with their background tasks, under tokio's paused time.
//!
//! Each process adds in digits of its own, so that a total tells what of whom is in it, and the test sees
//! the store past all links. So it knows at each moment which acknowledged writes have not arrived.

mod auditor;
mod counter;
mod extremes;
mod history;
mod play;
mod truth;

use crate::{cases::check, world::runtime};
use history::histories;
use play::play;
use truth::Family;

fn checks(name: &'static str, cases: u32, family: Family, all_add: bool) {
    checks_in(name, cases, family, 1, all_add);
}

fn checks_in(name: &'static str, cases: u32, family: Family, shards: u16, all_add: bool) {
    check(name, cases, &histories(all_add), |history| {
        runtime().block_on(play(family, shards, all_add, &history.0)).map(drop)
    });
}

#[test]
fn plain_counters_keep_their_promises() {
    checks("lax_plain", 400, Family::Plain, false);
}

#[test]
fn plain_counters_of_which_all_add_never_go_back() {
    checks("lax_plain_all_add", 400, Family::Plain, true);
}

#[test]
fn shared_counters_keep_their_promises() {
    checks("lax_shared", 400, Family::Shared, false);
}

#[test]
fn plain_counters_of_several_shards_keep_their_promises() {
    checks_in("lax_plain_3", 200, Family::Plain, 3, false);
    checks_in("lax_plain_7", 200, Family::Plain, 7, false);
    checks_in("lax_plain_7_all_add", 200, Family::Plain, 7, true);
}

#[test]
fn shared_counters_of_several_shards_keep_their_promises() {
    checks_in("lax_shared_3", 200, Family::Shared, 3, false);
    checks_in("lax_shared_7", 200, Family::Shared, 7, false);
}

#[test]
fn a_history_gives_the_same_transcript_each_time() {
    for (family, shards) in
        [(Family::Plain, 1), (Family::Plain, 7), (Family::Shared, 1), (Family::Shared, 7)]
    {
        check("lax_repeats", 15, &histories(false), |history| {
            let transcript = || runtime().block_on(play(family, shards, false, &history.0));
            let (first, second) = (transcript()?, transcript()?);
            if first == second { Ok(()) } else { Err(format!("{first:#?}\n{second:#?}")) }
        });
    }
}
