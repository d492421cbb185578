//! What is due when. Does nothing itself.

use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::time::Instant;

use super::settings::Settings;
use crate::backoff::doubling;

/// How much earlier than it must a flush starts, in parts of the lag: timers are late.
const HEAD_START: u32 = 10;
/// Delay between attempts to write a key that holds a non-integer value.
const CORRUPT_RETRY: Duration = Duration::from_secs(1);
/// The first delay between attempts to reach the store.
const FIRST_DELAY: Duration = Duration::from_millis(20);

/// The delays between attempts to reach the store.
pub(crate) fn backoff() -> ExponentialBackoff {
    doubling(FIRST_DELAY, Duration::from_secs(1))
}

pub(super) struct Schedule {
    /// When the last flush began.
    flushed_at: Option<Instant>,
    backoff: ExponentialBackoff,
    /// Set while the store does not take what is sent to it.
    retry_at: Option<Instant>,
    /// Set while the place of a key in the store holds no number.
    corrupt_retry_at: Option<Instant>,
    refresh_at: Option<Instant>,
    sweep_at: Option<Instant>,
    /// The same as the first two for additions under tokens, which the store may turn down although it takes sums.
    promises_backoff: ExponentialBackoff,
    promises_retry_at: Option<Instant>,
}

impl Schedule {
    pub(super) fn new() -> Self {
        Self {
            flushed_at: None,
            backoff: backoff(),
            retry_at: None,
            corrupt_retry_at: None,
            refresh_at: None,
            sweep_at: None,
            promises_backoff: backoff(),
            promises_retry_at: None,
        }
    }

    /// The store did not take a request.
    pub(super) fn failed(&mut self, now: Instant) {
        self.retry_at = Some(now + self.backoff.next().unwrap_or(Duration::from_secs(1)));
    }

    /// An answer was lost: wait before resolving the batch.
    pub(super) fn pause(&mut self, now: Instant) {
        self.retry_at.get_or_insert(now + FIRST_DELAY);
    }

    pub(super) fn succeeded(&mut self) {
        if self.retry_at.take().is_some() {
            self.backoff = backoff();
        }
    }

    /// Whether the store is to be sent what is due.
    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    pub(super) fn flushes(&mut self, now: Instant) {
        self.flushed_at = Some(now);
    }

    /// When the next flush must start; `None` when nothing is waiting for one.
    ///
    /// `since`: when the first cell was marked that waits; `begun`: something of an earlier flush is left.
    pub(super) fn flush_at(
        &self,
        since: Option<Instant>,
        begun: bool,
        now: Instant,
        settings: Settings,
    ) -> Option<Instant> {
        if since.is_none() && !begun {
            return None;
        }
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        if begun {
            return Some(now);
        }
        let Settings { lag, interval, .. } = settings;
        let next = self.flushed_at.map(|at| at + interval);
        since.map(|since| (since + lag - lag / HEAD_START).max(next.unwrap_or(since)))
    }

    /// When additions under tokens must be sent, of which the first came then.
    pub(super) fn promises_at(&self, since: Instant, settings: Settings) -> Instant {
        let due = since + settings.lag - settings.lag / HEAD_START;
        [self.retry_at, self.promises_retry_at].into_iter().flatten().fold(due, Instant::max)
    }

    pub(super) fn promises_failed(&mut self, now: Instant) {
        let delay = self.promises_backoff.next().unwrap_or(Duration::from_secs(1));
        self.promises_retry_at = Some(now + delay);
    }

    pub(super) fn promises_sent(&mut self) {
        if self.promises_retry_at.take().is_some() {
            self.promises_backoff = backoff();
        }
    }

    pub(super) fn found_corrupt(&mut self, now: Instant) {
        self.corrupt_retry_at = Some(now + CORRUPT_RETRY);
    }

    /// Corrupt keys are tried, or there are none.
    pub(super) fn tries_corrupt(&mut self) {
        self.corrupt_retry_at = None;
    }

    pub(super) fn corrupt_is_due(&self, now: Instant) -> bool {
        self.corrupt_retry_at.is_some_and(|at| at <= now)
    }

    pub(super) fn refresh_is_due(&self, now: Instant) -> bool {
        self.is_healthy(now) && self.refresh_at.is_some_and(|at| at <= now)
    }

    /// After a pass that began at `now`, and did a refresh or not: when the next one is due.
    pub(super) fn plan_refresh(&mut self, any: bool, refreshed: bool, now: Instant, lag: Duration) {
        self.refresh_at = match self.refresh_at {
            _ if !any => None,
            Some(at) if !refreshed => Some(self.retry_at.map_or(at, |retry| retry.max(at))),
            _ => Some(now + lag / 2),
        };
    }

    /// The counter is in use: a sweep will find something.
    pub(super) fn plan_sweep(&mut self, now: Instant, evict_after: Duration) {
        self.sweep_at.get_or_insert(now + evict_after);
    }

    pub(super) fn sweep_is_due(&self, now: Instant) -> bool {
        self.sweep_at.is_some_and(|at| at <= now)
    }

    pub(super) fn swept(&mut self, more: bool, now: Instant, evict_after: Duration) {
        self.sweep_at = more.then(|| now + evict_after);
    }

    /// When to look again, besides for a flush.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.corrupt_retry_at, self.refresh_at, self.sweep_at].into_iter().flatten().min()
    }

    /// When to try again what the store did not take.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at.or(self.corrupt_retry_at).or(self.promises_retry_at)
    }
}
