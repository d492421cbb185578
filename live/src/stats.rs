//! The numbers of a counter as JSON.

use std::time::Duration;

use distkit::Stats;
use serde_json::{Value, json};

/// All of them; durations in milliseconds.
pub(crate) fn json(stats: &Stats) -> Value {
    json!({
        "pending_keys": stats.pending_keys,
        "oldest_pending_ms": stats.oldest_pending.map(ms),
        "reachable_for_ms": stats.reachable_for.map(ms),
        "unreachable_for_ms": stats.unreachable_for.map(ms),
        "last_outage_ms": stats.last_outage.map(ms),
        "requests": stats.requests,
        "failed_requests": stats.failed_requests,
        "resent": stats.resent,
        "outages": stats.outages,
        "refused": stats.refused,
        "unknown": stats.unknown,
        "not_applied": stats.not_applied,
        "joined_calls": stats.joined_calls,
        "flushes": stats.flushes,
        "given_up": stats.given_up,
        "evicted": stats.evicted,
        "joins": stats.joins,
        "collected": stats.collected,
    })
}

/// Whole milliseconds.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
