//! The numbers of a counter. One table names them for `stats()`, the metrics, and the page that lists both.

use std::time::Duration;

macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $field:ident: $count:ident = $metric:literal of $of:ident,)+) => {
        /// What a counter has done, and how it stands. Of `counter.stats()`, which does no I/O.
        ///
        /// Counts begin at 0 with the counter, and never go down. A field that does not apply to a kind of counter
        /// stays 0 or `None`; `docs/observability.md` says which do, and which alerts to set. Times are those of
        /// tokio's clock. Fields are read one by one: a sum that is being counted may be in one and not yet in another.
        ///
        /// ```
        /// use distkit::{RedisKey, backend::memory::MemoryBackend, counter::{CounterOptions, LaxCounter}};
        ///
        /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
        /// # async fn main() -> Result<(), distkit::DistkitError> {
        /// let options = CounterOptions::new(RedisKey::try_from("shop")?, MemoryBackend::new());
        /// let counter = LaxCounter::new(options);
        /// counter.inc(&RedisKey::try_from("visits")?, 1).await?;
        /// assert_eq!(counter.stats().pending_keys, 1);
        /// counter.flush().await?;
        /// let stats = counter.stats();
        /// assert_eq!((stats.pending_keys, stats.flushes, stats.given_up), (0, 1, 0));
        /// # Ok(())
        /// # }
        /// ```
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            /// Keys with writes that the store has not acknowledged, those in flight included, and additions under tokens.
            pub pending_keys: u64,
            /// The age of the oldest such write; `None` without one. Never less than the true age.
            pub oldest_pending: Option<Duration>,
            /// For how long the store has answered every request; `None` while it does not, and before the first
            /// answer.
            pub reachable_for: Option<Duration>,
            /// Since how long ago no request was answered, counted from when the first of them was sent; `None` while
            /// the store answers, and before the first failure. A request that the store turns down as a whole counts as
            /// unanswered, unless it refuses writes: see `writes_refused_for`.
            pub unreachable_for: Option<Duration>,
            /// The length of the last outage that has ended.
            pub last_outage: Option<Duration>,
            /// Since how long ago the store, which is reachable, has refused writes: a full disk or memory, a read-only
            /// replica, a missing right. Counted from when the first of them was sent; `None` once it took one again.
            pub writes_refused_for: Option<Duration>,
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl Stats {
            /// Returns the numbers of both: of several counters, or of all of a process.
            ///
            /// Counts and keys are added. The oldest write is the oldest of both. The store is unreachable if it is
            /// for either, for the longer time; else reachable for the shorter one.
            pub fn merge(self, other: Self) -> Self {
                let unreachable_for = self.unreachable_for.max(other.unreachable_for);
                let reachable = [self.reachable_for, other.reachable_for].into_iter().flatten().min();
                Self {
                    pending_keys: self.pending_keys.saturating_add(other.pending_keys),
                    oldest_pending: self.oldest_pending.max(other.oldest_pending),
                    reachable_for: reachable.filter(|_| unreachable_for.is_none()),
                    unreachable_for,
                    last_outage: self.last_outage.max(other.last_outage),
                    writes_refused_for: self.writes_refused_for.max(other.writes_refused_for),
                    $($field: self.$field.saturating_add(other.$field),)+
                }
            }
        }

        /// A number that only grows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Count {
            $($count,)+
        }

        impl Count {
            pub(crate) const NUMBER: usize = [$(Self::$count),+].len();

            /// Of the metric.
            #[cfg(feature = "metrics")]
            pub(crate) fn metric(self) -> &'static str {
                match self {
                    $(Self::$count => $metric,)+
                }
            }

            #[cfg(feature = "metrics")]
            pub(crate) const ALL: [Self; Self::NUMBER] = [$(Self::$count),+];

            /// Whether this kind of counter has it.
            #[cfg(feature = "metrics")]
            pub(crate) fn is_of(self, kind: &str) -> bool {
                match self {
                    $(Self::$count => of::$of(kind),)+
                }
            }

            /// The field of each, its metric, and what it counts.
            #[cfg(feature = "metrics")]
            pub(crate) const LIST: [(&'static str, &'static str, &'static str); Self::NUMBER] =
                [$((stringify!($field), $metric, concat!($($doc),+))),+];
        }

        impl Stats {
            pub(crate) fn set_counts(&mut self, count: impl Fn(Count) -> u64) {
                $(self.$field = count(Count::$count);)+
            }
        }
    };
}

numbers! {
    /// Requests sent to the store, of every kind, each repeat included.
    requests: Requests = "distkit_requests_total" of every,
    /// Requests that the store did not answer, or turned down as a whole.
    failed_requests: FailedRequests = "distkit_failed_requests_total" of every,
    /// Writes sent again because their answer was lost. They are guarded, and counted once.
    resent: Resent = "distkit_resent_total" of every,
    /// Times that the store was found unreachable after it had answered, or at first.
    outages: Outages = "distkit_outages_total" of every,
    /// Times that the store was found to have lost data: it was emptied, a part of it is gone, or a replica that was
    /// behind took its place. A counter finds it with its next guarded write, an instance-aware one when it rejoins.
    losses: Losses = "distkit_store_losses_total" of every,
    /// Items of writes that the store refused: a sum that leaves `i64`, or a key that holds no number. What is kept
    /// and tried again counts each time.
    refused: Refused = "distkit_refused_total" of every,
    /// Calls that failed as `OutcomeUnknown`.
    unknown: Unknown = "distkit_unknown_outcomes_total" of every,
    /// Calls that failed as `NotApplied`: these writes did not happen, and will not unless the caller tries again.
    not_applied: NotApplied = "distkit_not_applied_total" of every,
    /// Additions under tokens that the store had applied before, and did not apply again. Not those of requests that
    /// were sent again, which may find themselves.
    replayed: Replayed = "distkit_replayed_total" of plain,
    /// Strict calls that shared a request with others.
    joined_calls: JoinedCalls = "distkit_joined_calls_total" of strict,
    /// Batches of buffered writes that the store acknowledged.
    flushes: Flushes = "distkit_flushes_total" of lax,
    /// Keys whose buffered writes were given up: at the end of a counter, or because it stayed unknown for most of a
    /// day whether the store has them.
    given_up: GivenUp = "distkit_given_up_total" of lax,
    /// Keys dropped from memory because they were not used.
    evicted: Evicted = "distkit_evicted_keys_total" of lax,
    /// Joins of this instance, the first one included.
    joins: Joins = "distkit_joins_total" of instance_aware,
    /// Times that this instance was found collected: its lease had expired, or the store lost its data.
    collected: Collected = "distkit_collected_total" of instance_aware,
}

/// Which kinds of counters have a number.
#[cfg(feature = "metrics")]
mod of {
    pub(super) fn every(_: &str) -> bool {
        true
    }

    pub(super) fn strict(kind: &str) -> bool {
        kind.starts_with("strict")
    }

    pub(super) fn lax(kind: &str) -> bool {
        kind.starts_with("lax")
    }

    pub(super) fn plain(kind: &str) -> bool {
        !instance_aware(kind)
    }

    pub(super) fn instance_aware(kind: &str) -> bool {
        kind.ends_with("instance_aware")
    }
}

/// The names of the metrics that go up and down, and what they say.
#[cfg(feature = "metrics")]
pub(crate) mod gauge {
    pub(crate) const PENDING_KEYS: &str = "distkit_pending_keys";
    pub(crate) const OLDEST_PENDING: &str = "distkit_oldest_pending_seconds";
    pub(crate) const REACHABLE: &str = "distkit_store_reachable";
    pub(crate) const UNREACHABLE_FOR: &str = "distkit_store_unreachable_seconds";
    pub(crate) const LAST_OUTAGE: &str = "distkit_store_last_outage_seconds";

    pub(crate) const WRITES_REFUSED_FOR: &str = "distkit_store_writes_refused_seconds";

    pub(crate) const LIST: [(&str, &str, &str); 6] = [
        ("pending_keys", PENDING_KEYS, "Keys with writes that the store has not acknowledged."),
        ("oldest_pending", OLDEST_PENDING, "The age of the oldest of them."),
        ("reachable_for", REACHABLE, "1 if the last request was answered, else 0."),
        ("unreachable_for", UNREACHABLE_FOR, "Since how long ago no request was answered, else 0."),
        ("last_outage", LAST_OUTAGE, "How long the last outage took that has ended."),
        (
            "writes_refused_for",
            WRITES_REFUSED_FOR,
            "Since how long ago the store, which answers, has refused writes, else 0.",
        ),
    ];
}
