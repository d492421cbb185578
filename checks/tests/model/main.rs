//! Random histories, checked step by step against reference models.
//!
//! `reference` says what counters mean, in as few lines as can be, from the design and not from the
//! implementation. `store` plays calls of the `Backend` and `strict` those of the strict counters: exact to
//! the millisecond, for time moves by hand. `lax` plays the buffering counters, with their background tasks,
//! under tokio's paused time. What a lost message leaves open is followed up: each outcome that is possible
//! stays a candidate until an answer contradicts it.
//!
//! `DISTKIT_CASES=20` runs twenty times as many histories.

mod candidates;
mod cases;
mod cast;
mod lax;
mod listing;
mod reference;
#[path = "../../../tests/support/removals.rs"]
mod removals;
mod servers;
mod store;
mod strict;
mod tokens;
mod windows;
mod world;
