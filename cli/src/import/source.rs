//! What distkit 0.2 to 0.7 left in Redis. The layout was the same in all of them.
//!
//! | key | holds |
//! | --- | --- |
//! | `<P>:strict_counter`, `<P>:lax_counter` | hash: counter -> total |
//! | `<P>:instance_aware_counter:cumulative` | hash: counter -> total; so `:lax_instance_aware_counter:...` |
//! | `...:instances` | zset: instance -> its last heartbeat, in ms |
//! | `...:epoch`, `...:keys`, `...:count:<instance>` | what the total is made of |
//!
//! `set` wrote a Lua number: before Redis 7.2 one of 18 digits or more comes as `1.2345678901234568e+18`, which the
//! old versions read back as that number.

use std::collections::BTreeMap;

use distkit::RedisKey;

use crate::{
    args::Kind,
    error::Result,
    server::{Server, each_field},
};

/// A process of an old version that sent a heartbeat within this time may live.
const HEARTBEAT_MS: i64 = 30_000;

/// The counters of one type under one prefix.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) totals: BTreeMap<RedisKey, i64>,
    /// What cannot be moved, and why.
    pub(super) unreadable: BTreeMap<String, String>,
}

fn container(prefix: &str, kind: Kind) -> String {
    let name = match kind {
        Kind::Strict => "strict_counter",
        Kind::Lax => "lax_counter",
        Kind::InstanceAware => "instance_aware_counter",
        Kind::LaxInstanceAware => "lax_instance_aware_counter",
    };
    format!("{prefix}:{name}")
}

impl Source {
    pub(super) async fn read(server: &Server, prefix: &str, kind: Kind) -> Result<Self> {
        let mut key = container(prefix, kind);
        if kind.is_instance_aware() {
            key.push_str(":cumulative");
        }
        let mut this = Self { kind, totals: BTreeMap::new(), unreadable: BTreeMap::new() };
        each_field(server, &key, |field, value| match (RedisKey::new(&field), total(&value)) {
            (Ok(counter), Some(total)) => {
                this.totals.insert(counter, total);
            }
            (Ok(_), None) => {
                this.unreadable.insert(field, format!("holds {value:?}, which is no i64"));
            }
            (Err(error), _) => {
                this.unreadable.insert(field, error.to_string());
            }
        })
        .await?;
        Ok(this)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.totals.is_empty() && self.unreadable.is_empty()
    }
}

/// How many processes of an old version may be counting in instance-aware counters.
pub(super) async fn living(server: &Server, prefix: &str, kind: Kind) -> Result<i64> {
    if !kind.is_instance_aware() {
        return Ok(0);
    }
    let since = server.time_us().await? / 1000 - HEARTBEAT_MS;
    let instances = format!("{}:instances", container(prefix, kind));
    server.number("ZCOUNT", &[&instances, &since.to_string(), "+inf"]).await
}

/// A number as the old versions wrote it.
fn total(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse::<i64>() {
        return (number.to_string() == text).then_some(number);
    }
    let is_double = text.contains("e+")
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | 'e' | '+'));
    let number = text.parse::<f64>().ok().filter(|_| is_double)?;
    // 2^63 itself does not fit.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number);
    (fits && number.fract() == 0.0).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_old_versions_wrote_and_nothing_else() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775807", Some(i64::MAX)),
            ("1.152921504606847e+18", Some(1 << 60)),
            ("1e+17", Some(100_000_000_000_000_000)),
            ("-9.2233720368547758e+18", Some(i64::MIN)),
            ("9.2233720368547758e+18", None),
            ("9223372036854775808", None),
            ("1.5", None),
            ("01", None),
            ("", None),
            ("x", None),
            ("1.5e+0", None),
            ("inf", None),
        ] {
            assert_eq!(total(text), expected, "{text}");
        }
    }
}
