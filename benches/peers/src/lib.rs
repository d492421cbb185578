//! Measures distkit beside what is used in its place: limitador, a hand-written loop, `distkit` 0.7.1
//! and `HINCRBY`.
//!
//! `target/release/peers --help` is the program; `benches/README.md` says what is compared, and why.
#![forbid(unsafe_code)]

mod contenders;
mod processor;
mod server;
mod table;
mod works;

pub use contenders::{Kind, Names, Subject, names};
pub use processor::machine;
pub use server::arrived;
pub use table::Table;
pub use works::{Effort, GROUPS, Group, add_to_each};
