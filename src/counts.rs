//! Counts what the engines do: the one place that both `stats()` and the metrics come from.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

#[cfg(feature = "metrics")]
use crate::stats::gauge;
use crate::{
    DistkitError,
    backend::BackendError,
    stats::{Count, Stats},
};

/// The numbers of one counter, or of strict counters that send together. Does no I/O.
pub(crate) struct Counts {
    numbers: [AtomicU64; Count::NUMBER],
    link: Link,
    #[cfg(feature = "metrics")]
    labels: Vec<metrics::Label>,
}

/// Whether the store answers, and since when.
#[derive(Default)]
struct Link {
    /// It answered the last request: then an answer changes nothing, and takes no lock.
    up: AtomicBool,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    up_since: Option<Instant>,
    down_since: Option<Instant>,
    last_outage: Option<Duration>,
}

/// What is pending in a lax counter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Level {
    pub(crate) pending_keys: u64,
    pub(crate) oldest: Option<Duration>,
}

impl Counts {
    /// Of counters of this kind under the prefix, which label the metrics.
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "labels of metrics"))]
    pub(crate) fn new(kind: &'static str, prefix: &str) -> Arc<Self> {
        Arc::new(Self {
            numbers: Default::default(),
            link: Link::default(),
            #[cfg(feature = "metrics")]
            labels: vec![
                metrics::Label::from_static_parts("counter", kind),
                metrics::Label::new("prefix", prefix.to_owned()),
            ],
        })
    }

    pub(crate) fn add(&self, count: Count, by: usize) {
        if by == 0 {
            return;
        }
        let by = u64::try_from(by).unwrap_or(u64::MAX);
        self.numbers[count as usize].fetch_add(by, Relaxed);
        #[cfg(feature = "metrics")]
        metrics::counter!(count.metric(), self.labels.clone()).increment(by);
    }

    /// Notes what became of a request.
    pub(crate) fn answered<T>(&self, answer: &Result<T, BackendError>) {
        match answer {
            Err(BackendError::NotApplied(_) | BackendError::OutcomeUnknown(_)) => {
                self.add(Count::FailedRequests, 1);
                self.unreachable();
            }
            // Also an error of its own is an answer.
            _ => self.reachable(),
        }
    }

    fn reachable(&self) {
        if self.link.up.load(Relaxed) {
            return;
        }
        let mut link = self.link.state.lock();
        if let Some(since) = link.down_since.take() {
            link.last_outage = Some(since.elapsed());
        }
        link.up_since.get_or_insert_with(Instant::now);
        self.link.up.store(true, Relaxed);
        #[cfg(feature = "metrics")]
        {
            self.set(gauge::REACHABLE, 1.0);
            self.set(gauge::UNREACHABLE_FOR, 0.0);
            self.set(gauge::LAST_OUTAGE, link.last_outage.unwrap_or_default().as_secs_f64());
        }
    }

    /// The store did not answer.
    pub(crate) fn unreachable(&self) {
        let mut link = self.link.state.lock();
        self.link.up.store(false, Relaxed);
        link.up_since = None;
        if link.down_since.is_none() {
            link.down_since = Some(Instant::now());
            self.add(Count::Outages, 1);
        }
        #[cfg(feature = "metrics")]
        {
            let down_for = link.down_since.map(|since| since.elapsed()).unwrap_or_default();
            self.set(gauge::REACHABLE, 0.0);
            self.set(gauge::UNREACHABLE_FOR, down_for.as_secs_f64());
        }
    }

    /// Counts what callers are told of a write: an unknown outcome, or a refusal.
    pub(crate) fn told<T>(&self, answer: Result<T, DistkitError>) -> Result<T, DistkitError> {
        match &answer {
            Err(DistkitError::OutcomeUnknown(_)) => self.add(Count::Unknown, 1),
            Err(DistkitError::CounterError { .. }) => self.add(Count::Refused, 1),
            _ => {}
        }
        answer
    }

    /// [`told`](Self::told), of a batch.
    pub(crate) fn told_all<T>(
        &self,
        answers: Result<Vec<Result<T, DistkitError>>, DistkitError>,
    ) -> Result<Vec<Result<T, DistkitError>>, DistkitError> {
        if let Ok(items) = &answers {
            self.add(Count::Refused, items.iter().filter(|item| item.is_err()).count());
        }
        self.told(answers)
    }

    /// Sets the gauges of what is pending. `stats()` asks the engine.
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "gauges"))]
    pub(crate) fn set_level(&self, level: Level) {
        #[cfg(feature = "metrics")]
        {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            self.set(gauge::PENDING_KEYS, level.pending_keys as f64);
            self.set(gauge::OLDEST_PENDING, level.oldest.unwrap_or_default().as_secs_f64());
        }
    }

    #[cfg(feature = "metrics")]
    fn set(&self, name: &'static str, value: f64) {
        metrics::gauge!(name, self.labels.clone()).set(value);
    }

    pub(crate) fn stats(&self, level: Level) -> Stats {
        let mut stats = Stats {
            pending_keys: level.pending_keys,
            oldest_pending: level.oldest,
            ..Stats::default()
        };
        stats.set_counts(|count| self.numbers[count as usize].load(Relaxed));
        let link = self.link.state.lock();
        stats.reachable_for = link.up_since.map(|since| since.elapsed());
        stats.unreachable_for = link.down_since.map(|since| since.elapsed());
        stats.last_outage = link.last_outage;
        stats
    }
}
