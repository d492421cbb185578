//! Counts what the engines do: the one place that both `stats()` and the metrics come from.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

#[cfg(feature = "metrics")]
use crate::gauges::labels;
use crate::{
    DistkitError,
    backend::BackendError,
    gauges::{GaugePart, Gauges, Level},
    outage::{Chain, Standing, Told},
    stats::{Count, Stats},
};

/// The numbers of one counter, or of strict counters that send together. Does no I/O.
pub(crate) struct Counts {
    numbers: [AtomicU64; Count::NUMBER],
    link: Link,
    born: Instant,
    kind: &'static str,
    prefix: Box<str>,
    /// Of a prefix that has several.
    shard: Option<u16>,
    engines: AtomicUsize,
    gauges: GaugePart,
    #[cfg(feature = "metrics")]
    labels: Vec<metrics::Label>,
}

/// Whether the store answers, and since when.
#[derive(Default)]
struct Link {
    /// It answered the last request: then an answer changes nothing, and takes no lock.
    up: AtomicBool,
    /// It refused the last write: else one that it takes changes nothing.
    refuses: AtomicBool,
    /// When the last answer came, in microseconds since the counter was made, plus 1; 0 before the first.
    answered: AtomicU64,
    state: Mutex<LinkState>,
}

#[derive(Default)]
struct LinkState {
    up_since: Option<Instant>,
    down_since: Option<Instant>,
    last_outage: Option<Duration>,
    outage: Told,
    /// Since when the store answers and refuses writes.
    refused_since: Option<Instant>,
    refusal: Told,
}

/// What a request does to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

impl Counts {
    /// Of a shard of counters of this kind. Kind and prefix label the metrics.
    pub(crate) fn new(
        kind: &'static str,
        prefix: &str,
        shard: Option<u16>,
        gauges: &Arc<Gauges>,
    ) -> Arc<Self> {
        let counts = Self {
            numbers: Default::default(),
            link: Link::default(),
            born: Instant::now(),
            kind,
            prefix: prefix.into(),
            shard,
            engines: AtomicUsize::new(0),
            gauges: gauges.part(),
            #[cfg(feature = "metrics")]
            labels: labels(kind, prefix),
        };
        #[cfg(feature = "metrics")]
        counts.begin_at_zero();
        Arc::new(counts)
    }

    /// Shows each number that this kind of counter has as 0: one that first appears as 1 has not risen, for Prometheus.
    #[cfg(feature = "metrics")]
    fn begin_at_zero(&self) {
        for count in Count::ALL.into_iter().filter(|count| count.is_of(self.kind)) {
            metrics::counter!(count.metric(), self.labels.clone()).increment(0);
        }
    }

    /// Which shard these are of, for the log; `None` where the prefix has one only.
    pub(crate) fn shard(&self) -> Option<u16> {
        self.shard
    }

    /// Which counters these are of.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
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

    /// Notes what became of a request that was sent then.
    pub(crate) fn answered<T>(&self, sent: Instant, kind: Kind, answer: &Result<T, BackendError>) {
        match answer {
            Err(error) if kind == Kind::Write && error.refuses_writes() => {
                self.add(Count::FailedRequests, 1);
                self.refused(sent, error);
                self.reachable();
                return;
            }
            Err(error @ (BackendError::NotApplied(_) | BackendError::OutcomeUnknown(_))) => {
                self.add(Count::FailedRequests, 1);
                self.unreachable(sent, error);
            }
            // Also an error of its own is an answer.
            _ => self.reachable(),
        }
        if kind == Kind::Write && answer.is_ok() && self.link.refuses.load(Relaxed) {
            self.takes_writes();
        }
    }

    /// The store answers, and refused what was sent then.
    #[cold]
    fn refused(&self, sent: Instant, error: &BackendError) {
        let due = {
            let mut link = self.link.state.lock();
            self.link.refuses.store(true, Relaxed);
            let since = *link.refused_since.get_or_insert(sent);
            self.gauges.set_refused(Some(since));
            // As for outages.
            if self.kind.starts_with("strict") { link.refusal.failed(since) } else { None }
        };
        if let Some(Standing { attempts, lasted }) = due {
            tracing::warn!(
                target: "distkit::store",
                prefix = &*self.prefix, shard = self.shard,
                counter = self.kind, attempts, ?lasted, error = %Chain(error),
                "the store refuses writes"
            );
        }
    }

    #[cold]
    fn takes_writes(&self) {
        let ended = {
            let mut link = self.link.state.lock();
            self.link.refuses.store(false, Relaxed);
            link.refused_since = None;
            self.gauges.set_refused(None);
            link.refusal.ended()
        };
        if let Some(Standing { attempts, lasted }) = ended {
            tracing::info!(
                target: "distkit::store",
                prefix = &*self.prefix, shard = self.shard,
                counter = self.kind, failed_attempts = attempts, ?lasted,
                "the store takes writes again"
            );
        }
    }

    /// When the last answer came.
    fn last_answer(&self) -> Option<Instant> {
        let micros = self.link.answered.load(Relaxed).checked_sub(1)?;
        Some(self.born + Duration::from_micros(micros))
    }

    fn reachable(&self) {
        let micros = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.link.answered.store(micros + 1, Relaxed);
        if self.link.up.load(Relaxed) {
            return;
        }
        let ended = {
            let mut link = self.link.state.lock();
            if let Some(since) = link.down_since.take() {
                link.last_outage = Some(since.elapsed());
            }
            link.up_since.get_or_insert_with(Instant::now);
            self.link.up.store(true, Relaxed);
            // With the lock, so that the gauges end up as the last request left them.
            self.gauges.set_link(None, link.last_outage);
            link.outage.ended()
        };
        if let Some(Standing { attempts, lasted }) = ended {
            tracing::info!(
                target: "distkit::store",
                prefix = &*self.prefix, shard = self.shard,
                counter = self.kind, failed_attempts = attempts, ?lasted,
                "requests to the store succeed again"
            );
        }
    }

    /// The store did not answer what was sent then. The outage began with that, not when the time-out ended it; but not
    /// before the last answer to another request.
    pub(crate) fn unreachable(&self, sent: Instant, error: &BackendError) {
        let due = {
            let mut link = self.link.state.lock();
            self.link.up.store(false, Relaxed);
            link.up_since = None;
            let begins = link.down_since.is_none();
            let began = self.last_answer().map_or(sent, |answer| answer.max(sent));
            let since = *link.down_since.get_or_insert(began);
            self.add(Count::Outages, usize::from(begins));
            self.gauges.set_link(Some(since), link.last_outage);
            // A lax counter's flushes log how they fail, once for all that waits for them.
            if self.kind.starts_with("strict") { link.outage.failed(since) } else { None }
        };
        if let Some(Standing { attempts, lasted }) = due {
            tracing::warn!(
                target: "distkit::store",
                prefix = &*self.prefix, shard = self.shard,
                counter = self.kind, attempts, ?lasted, error = %Chain(error),
                "requests to the store fail"
            );
        }
    }

    /// The store lost data, since then at the earliest: counted, and said in the log.
    pub(crate) fn lost(&self, what: &'static str, since: Option<Instant>) {
        self.add(Count::Losses, 1);
        let within = since.map(|since| tracing::field::debug(since.elapsed()));
        tracing::warn!(
            target: "distkit::store",
            prefix = &*self.prefix, shard = self.shard, counter = self.kind, lost = what, within,
            "the store lost data"
        );
    }

    /// Counts what callers are told of a write: that it did not happen, an unknown outcome, or a refusal.
    pub(crate) fn told<T>(&self, answer: Result<T, DistkitError>) -> Result<T, DistkitError> {
        match &answer {
            Err(DistkitError::OutcomeUnknown(_)) => self.add(Count::Unknown, 1),
            Err(DistkitError::NotApplied(_)) => self.add(Count::NotApplied, 1),
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

    /// The number of one more engine that counts here.
    pub(crate) fn next_engine(&self) -> usize {
        self.engines.fetch_add(1, Relaxed)
    }

    /// Sets the gauges of what is pending, of which this is an engine's part. `stats()` asks the engines.
    pub(crate) fn set_level(&self, engine: usize, level: impl FnOnce() -> Level) {
        self.gauges.set_level(engine, level);
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
        stats.writes_refused_for = link.refused_since.map(|since| since.elapsed());
        stats
    }
}
