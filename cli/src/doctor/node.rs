//! What INFO, CONFIG and TIME of one server tell.

use std::{collections::HashMap, time::SystemTime};

use distkit::backend::operator::RawReply;

use super::findings::{Code, Findings};
use crate::{
    error::Result,
    server::{Server, text},
};

/// The lines of INFO.
#[derive(Debug, Default)]
pub(super) struct Info(HashMap<String, String>);

impl Info {
    pub(super) async fn of(server: &Server) -> Result<Option<Self>> {
        let mut lines = HashMap::new();
        // "INFO a b" would need 7.0.
        for section in ["server", "memory", "persistence", "stats", "replication", "cluster"] {
            let reply = server.ask("INFO", &[section]).await?;
            if matches!(&reply, RawReply::Error { .. }) {
                return Ok(None);
            }
            let all = text(&reply).unwrap_or_default();
            lines.extend(all.lines().filter_map(|line| {
                line.trim_end().split_once(':').map(|(name, value)| (name.into(), value.into()))
            }));
        }
        Ok(Some(Self(lines)))
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        self.get(name).parse().unwrap_or(0)
    }

    fn is_valkey(&self) -> bool {
        !self.get("valkey_version").is_empty()
    }

    /// What the server is compatible with: Valkey 8 says Redis 7.2.4.
    fn redis_version(&self) -> Option<(u32, u32)> {
        let mut parts = self.get("redis_version").split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    }
}

/// A setting, if the server tells it.
pub(super) async fn setting(server: &Server, name: &str) -> Result<Option<String>> {
    Ok(match server.ask("CONFIG", &["GET", name]).await? {
        RawReply::Array(pair) => pair.get(1).and_then(text),
        _ => None,
    })
}

pub(super) async fn check(server: &Server, found: &mut Findings) -> Result<Option<Info>> {
    let info = Info::of(server).await?;
    match &info {
        None => found.unchecked(format!(
            "{}: memory, persistence, version and role, for INFO is denied (grant +info)",
            server.name
        )),
        Some(info) => {
            version(info, server, found);
            memory(info, server, found);
            persistence(info, server, found).await?;
            role(info, server, found).await?;
        }
    }
    clock(server, found).await?;
    Ok(info)
}

fn version(info: &Info, server: &Server, found: &mut Findings) {
    let Some(version) = info.redis_version() else {
        found.unchecked(format!("{}: the version, which INFO does not tell", server.name));
        return;
    };
    let shown = if info.is_valkey() {
        format!("Valkey {}", info.get("valkey_version"))
    } else {
        format!("Redis {}", info.get("redis_version"))
    };
    if version < (7, 0) {
        found.add(
            Code::VersionUnsupported,
            &server.name,
            format!("{shown} is older than Redis 7.0, which this crate is tested with"),
        );
    }
    if version < (7, 2) {
        found.add(Code::VersionTrypema, &server.name, format!("{shown} is too old for trypema"));
    }
}

fn memory(info: &Info, server: &Server, found: &mut Findings) {
    let policy = info.get("maxmemory_policy");
    if policy.starts_with("allkeys-") {
        let evicted = match info.number("evicted_keys") {
            0 => String::new(),
            keys => format!("; it has evicted {keys} keys since its start"),
        };
        let limit = match info.number("maxmemory") {
            0 => "; maxmemory is 0, so it begins once one is set",
            _ => "",
        };
        found.add(
            Code::EvictionAllkeys,
            &server.name,
            format!("maxmemory-policy is {policy}: the server may evict totals{limit}{evicted}"),
        );
    }
    let (used, limit) = (info.number("used_memory"), info.number("maxmemory"));
    if limit > 0 && used >= limit / 10 * 9 {
        found.add(
            Code::MemoryNearlyFull,
            &server.name,
            format!("{used} of {limit} bytes of maxmemory are in use"),
        );
    }
}

async fn persistence(info: &Info, server: &Server, found: &mut Findings) -> Result<()> {
    let name = &server.name;
    if info.get("loading") == "1" {
        found.add(Code::WritesRefused, name, "the server is still loading its data");
    }
    if info.get("aof_enabled") == "0" {
        found.add(Code::AofOff, name, "there is no append-only file (appendonly no)");
    } else if info.get("aof_last_write_status") == "err" {
        found.add(
            Code::WritesRefused,
            name,
            "the last write to the append-only file failed (a full disk?): the server takes no writes",
        );
    }
    if info.get("aof_last_bgrewrite_status") == "err" {
        found.add(Code::AofFailing, name, "the last rewrite of the append-only file failed");
    }
    if info.get("aof_enabled") == "1"
        && setting(server, "appendfsync").await?.as_deref() == Some("no")
    {
        found.add(
            Code::AofNeverSynced,
            name,
            "appendfsync is no: the kernel decides what is saved",
        );
    }
    if info.get("rdb_last_bgsave_status") == "err"
        && setting(server, "stop-writes-on-bgsave-error").await?.as_deref() == Some("yes")
    {
        found.add(
            Code::WritesRefused,
            name,
            "the last save failed, and stop-writes-on-bgsave-error is yes",
        );
    }
    Ok(())
}

async fn role(info: &Info, server: &Server, found: &mut Findings) -> Result<()> {
    if info.get("role") == "slave" {
        found.add(Code::Replica, &server.name, "this server is a replica and takes no writes");
        return Ok(());
    }
    let wanted = setting(server, "min-replicas-to-write").await?;
    let wanted = wanted.and_then(|text| text.parse().ok()).unwrap_or(0);
    let good = match info.get("min_slaves_good_slaves") {
        "" => wanted,
        good => good.parse().unwrap_or(0),
    };
    if good < wanted {
        found.add(
            Code::WritesRefused,
            &server.name,
            format!("{good} replicas are in order, and min-replicas-to-write is {wanted}"),
        );
    }
    Ok(())
}

/// Beyond this a clock is off. NTP keeps within milliseconds.
const CLOCK_SLACK_US: i64 = 5_000_000;

fn here_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

async fn clock(server: &Server, found: &mut Findings) -> Result<()> {
    if matches!(server.ask("TIME", &[]).await?, RawReply::Error { .. }) {
        found.unchecked(format!("{}: the clock, for TIME is denied (grant +time)", server.name));
        return Ok(());
    }
    let before = here_us();
    let there = server.time_us().await?;
    let after = here_us();
    // The answer was made at some time between the two.
    let off = if there < before { there - before } else { (there - after).max(0) };
    if off.abs() > CLOCK_SLACK_US {
        let direction = if off > 0 { "ahead of" } else { "behind" };
        found.add(
            Code::ClockOff,
            &server.name,
            format!("the server's clock is {} s {direction} this machine's", off.abs() / 1_000_000),
        );
    }
    Ok(())
}
