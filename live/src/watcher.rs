//! The only reader of the store in this process. All viewers of the page share what it finds.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use distkit::DistkitError;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    error::chain,
    history::{History, Sample},
    member::{Identity, Member},
    roster::Roster,
};

/// How far back the history goes.
pub(crate) const WINDOW: Duration = Duration::from_secs(180);

/// For how long a poll waits for the store.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Watcher {
    member: Arc<Member>,
    roster: Roster,
    history: watch::Sender<History>,
    every: Duration,
    clock: Clock,
}

impl Watcher {
    pub(crate) fn new(member: Arc<Member>, every: Duration) -> Self {
        let samples = WINDOW.as_millis() / every.as_millis().max(1);
        let samples = usize::try_from(samples).unwrap_or(usize::MAX);
        let roster = Roster::new(samples as u64);
        let (history, _) = watch::channel(History::new(samples));
        Self { member, roster, history, every, clock: Clock::new() }
    }

    pub(crate) fn history(&self) -> watch::Receiver<History> {
        self.history.subscribe()
    }

    /// Polls until this process is no instance any more, and gives the reason.
    pub(crate) async fn run(mut self) -> DistkitError {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(ended) = self.poll().await {
                return ended;
            }
        }
    }

    /// Reads the store once, and adds the result to the history, failures included.
    async fn poll(&mut self) -> Result<(), DistkitError> {
        let found = match timeout(PATIENCE, self.read()).await {
            Ok(Ok(sample)) => Ok(sample),
            Ok(Err(ended @ (DistkitError::InstanceReplaced | DistkitError::ShutDown))) => {
                return Err(ended);
            }
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("no answer within {}", humantime::format_duration(PATIENCE))),
        };
        let sample = found.unwrap_or_else(|error| Sample {
            at_ms: self.clock.now_ms(),
            total: None,
            slices: BTreeMap::new(),
            events: Vec::new(),
            error: Some(error),
        });
        self.history.send_modify(|history| history.push(sample));
        Ok(())
    }

    async fn read(&mut self) -> Result<Sample, DistkitError> {
        let held = self.member.held().await?;
        let Identity { name, stamp, .. } = self.member.identity();
        // The counter detects this at its next write or heartbeat, up to a third of a lease later.
        if held.stamps.get(name.as_str()).is_some_and(|holder| holder != stamp) {
            return Err(DistkitError::InstanceReplaced);
        }
        let left = self.member.departed(self.roster.missing(&held.stamps)).await?;
        Ok(Sample {
            at_ms: self.clock.now_ms(),
            total: Some(held.connections.values().fold(0, |sum, n| sum.saturating_add(*n))),
            events: self.roster.update(held.stamps, &left),
            slices: held.connections,
            error: None,
        })
    }
}

/// Unix time that steps of the machine's clock do not change.
struct Clock {
    began: Instant,
    began_ms: u64,
}

impl Clock {
    fn new() -> Self {
        Self { began: Instant::now(), began_ms: unix_ms() }
    }

    fn now_ms(&self) -> u64 {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began_ms.saturating_add(since)
    }
}

/// Milliseconds of Unix time.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
