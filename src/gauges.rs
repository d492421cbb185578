//! The metrics that go up and down: those of all shards of a counter are shown as one, as `Stats::merge` does.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "metrics")]
use parking_lot::Mutex;
use tokio::time::Instant;

#[cfg(feature = "metrics")]
use crate::stats::gauge;

/// What is pending in a lax counter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Level {
    pub(crate) pending_keys: u64,
    pub(crate) oldest: Option<Duration>,
}

#[cfg(feature = "metrics")]
impl Level {
    fn merge(self, other: Self) -> Self {
        Self {
            pending_keys: self.pending_keys.saturating_add(other.pending_keys),
            oldest: self.oldest.max(other.oldest),
        }
    }
}

/// The gauges of a counter, of which each shard sets its part. Without the feature `metrics` there are none.
pub(crate) struct Gauges {
    #[cfg(feature = "metrics")]
    labels: Vec<metrics::Label>,
    #[cfg(feature = "metrics")]
    parts: Mutex<Vec<Part>>,
}

/// How the last requests of a shard left its store.
#[cfg(feature = "metrics")]
#[derive(Debug, Clone, Copy)]
struct Link {
    down_since: Option<Instant>,
    last_outage: Option<Duration>,
}

/// A shard's.
#[cfg(feature = "metrics")]
#[derive(Debug, Default)]
struct Part {
    /// What was last pending in each engine.
    levels: Vec<Level>,
    /// `None` before the first request.
    link: Option<Link>,
    /// Since when its store refuses writes.
    refused_since: Option<Instant>,
}

/// A shard's part of the gauges.
#[derive(Clone)]
pub(crate) struct GaugePart {
    #[cfg(feature = "metrics")]
    all: Arc<Gauges>,
    #[cfg(feature = "metrics")]
    place: usize,
}

#[cfg(feature = "metrics")]
impl Gauges {
    pub(crate) fn new(kind: &'static str, prefix: &str) -> Arc<Self> {
        Arc::new(Self { labels: labels(kind, prefix), parts: Mutex::default() })
    }

    /// The part of one more shard.
    pub(crate) fn part(self: &Arc<Self>) -> GaugePart {
        let mut parts = self.parts.lock();
        parts.push(Part::default());
        GaugePart { all: Arc::clone(self), place: parts.len() - 1 }
    }

    fn set(&self, name: &'static str, value: f64) {
        metrics::gauge!(name, self.labels.clone()).set(value);
    }
}

#[cfg(feature = "metrics")]
impl GaugePart {
    /// Sets the gauges of what is pending, of which this is an engine's. `stats()` asks the engines.
    pub(crate) fn set_level(&self, engine: usize, level: impl FnOnce() -> Level) {
        let mut parts = self.all.parts.lock();
        let levels = &mut parts[self.place].levels;
        if levels.len() <= engine {
            levels.resize(engine + 1, Level::default());
        }
        levels[engine] = level();
        let levels = parts.iter().flat_map(|part| &part.levels);
        let all = levels.copied().fold(Level::default(), Level::merge);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.all.set(gauge::PENDING_KEYS, all.pending_keys as f64);
        self.all.set(gauge::OLDEST_PENDING, all.oldest.unwrap_or_default().as_secs_f64());
    }

    /// Sets the gauges of whether the store answers, and since when it does not.
    pub(crate) fn set_link(&self, down_since: Option<Instant>, last_outage: Option<Duration>) {
        let mut parts = self.all.parts.lock();
        parts[self.place].link = Some(Link { down_since, last_outage });
        self.all.show_refused(&parts);
        let links = || parts.iter().filter_map(|part| part.link);
        let down_since = links().filter_map(|link| link.down_since).min();
        let last_outage = links().filter_map(|link| link.last_outage).max();
        self.all.set(gauge::REACHABLE, if down_since.is_none() { 1.0 } else { 0.0 });
        let down_for = down_since.map(|since| since.elapsed()).unwrap_or_default();
        self.all.set(gauge::UNREACHABLE_FOR, down_for.as_secs_f64());
        self.all.set(gauge::LAST_OUTAGE, last_outage.unwrap_or_default().as_secs_f64());
    }
}

#[cfg(feature = "metrics")]
impl Gauges {
    fn show_refused(&self, parts: &[Part]) {
        let since = parts.iter().filter_map(|part| part.refused_since).min();
        let refused = since.map(|since| since.elapsed()).unwrap_or_default();
        self.set(gauge::WRITES_REFUSED_FOR, refused.as_secs_f64());
    }
}

#[cfg(feature = "metrics")]
impl GaugePart {
    /// Sets the gauge of since when the store, which answers, refuses writes.
    pub(crate) fn set_refused(&self, since: Option<Instant>) {
        let mut parts = self.all.parts.lock();
        parts[self.place].refused_since = since;
        self.all.show_refused(&parts);
    }
}

#[cfg(not(feature = "metrics"))]
impl Gauges {
    pub(crate) fn new(_: &'static str, _: &str) -> Arc<Self> {
        Arc::new(Self {})
    }

    pub(crate) fn part(self: &Arc<Self>) -> GaugePart {
        GaugePart {}
    }
}

#[cfg(not(feature = "metrics"))]
impl GaugePart {
    pub(crate) fn set_level(&self, _: usize, _: impl FnOnce() -> Level) {}

    pub(crate) fn set_link(&self, _: Option<Instant>, _: Option<Duration>) {}

    pub(crate) fn set_refused(&self, _: Option<Instant>) {}
}

/// The labels of a counter's metrics.
#[cfg(feature = "metrics")]
pub(crate) fn labels(kind: &'static str, prefix: &str) -> Vec<metrics::Label> {
    vec![
        metrics::Label::from_static_parts("counter", kind),
        metrics::Label::new("prefix", prefix.to_owned()),
    ]
}
