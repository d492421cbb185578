//! The counters against real servers that misbehave, over both clients.
//!
//! `DISTKIT_SOAK=seconds` makes the tests under load run that long each.
#![cfg(all(
    feature = "counter",
    feature = "instance-aware-counter",
    feature = "redis-rs-cluster",
    feature = "redis-rs-sentinel",
    feature = "fred"
))]
#![allow(clippy::unwrap_used)]

mod cluster;
mod cluster_moves;
mod ended;
mod exactly_once;
mod freshness;
mod instances;
mod instances_exactly_once;
mod lax;
mod limits;
mod linearizable;
mod listing;
#[path = "../support/log.rs"]
mod log;
mod operating;
mod outages;
mod races;
mod replicas;
mod sentinel;
mod shards;
mod strict_once;
mod support;
mod tokens;
