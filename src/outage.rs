//! When a failing request is worth a line in the log: at the start, at growing intervals, at the end.

use std::{fmt, time::Duration};

use tokio::time::Instant;

/// The gap between the first two lines. Each later one is twice as long, up to [`LONGEST_GAP`].
const FIRST_GAP: Duration = Duration::from_secs(5);
const LONGEST_GAP: Duration = Duration::from_secs(300);

/// Counts the failures in a row of one kind of request. Does no I/O and logs nothing itself.
#[derive(Default)]
pub(crate) struct Outage {
    current: Option<Current>,
}

struct Current {
    since: Instant,
    attempts: u64,
    gap: Duration,
    next_line: Instant,
}

/// How an outage stands, for a line in the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    pub(crate) attempts: u64,
    pub(crate) lasted: Duration,
}

impl Outage {
    /// Notes the failure of what was begun then. Returns how the outage stands if a line is due.
    pub(crate) fn failed(&mut self, begun: Instant) -> Option<Standing> {
        let now = Instant::now();
        let current = self.current.get_or_insert(Current {
            since: begun,
            attempts: 0,
            gap: FIRST_GAP,
            next_line: now,
        });
        current.attempts += 1;
        if now < current.next_line {
            return None;
        }
        current.next_line = now + current.gap;
        current.gap = (current.gap * 2).min(LONGEST_GAP);
        Some(current.standing())
    }

    /// Notes a success. Returns what the outage was, if there was one.
    pub(crate) fn ended(&mut self) -> Option<Standing> {
        self.current.take().map(|current| current.standing())
    }
}

impl Current {
    fn standing(&self) -> Standing {
        Standing { attempts: self.attempts, lasted: self.since.elapsed() }
    }
}

/// An outage, and what the log tells of it.
#[derive(Default)]
pub(crate) struct Told {
    outage: Outage,
    /// The log tells of it.
    in_log: bool,
    /// When it was last told of one.
    logged: Option<Instant>,
}

impl Told {
    /// Notes a failure of the outage that began then. Gives how it stands if the log is to be told.
    pub(crate) fn failed(&mut self, began: Instant) -> Option<Standing> {
        let standing = self.outage.failed(began)?;
        let now = Instant::now();
        // A store that answers every second request must not fill the log. One that then fails for good is in it later.
        if !self.in_log && self.logged.is_some_and(|logged| logged + BETWEEN_OUTAGES > now) {
            return None;
        }
        (self.in_log, self.logged) = (true, Some(now));
        Some(standing)
    }

    /// Notes that it has ended. Gives how it was if the log is to be told.
    pub(crate) fn ended(&mut self) -> Option<Standing> {
        let ended = self.outage.ended();
        ended.filter(|_| std::mem::take(&mut self.in_log))
    }
}

/// How far apart outages are at least that are logged.
const BETWEEN_OUTAGES: Duration = Duration::from_secs(5);

/// An error with all its sources, for a line in the log.
pub(crate) struct Chain<'e>(pub(crate) &'e (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
