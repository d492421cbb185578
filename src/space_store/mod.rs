//! The one way of the counters to their store: a space of it, and answers that fit their questions.
//!
//! A store that gives another number of answers than it was asked for is not trusted with any.

#[cfg(feature = "counter")]
mod expiry;
#[cfg(feature = "instance-aware-counter")]
mod instances;
#[cfg(feature = "counter")]
mod plain;
#[cfg(feature = "counter")]
mod transfer;

use std::{future::Future, sync::Arc};

use tokio::time::Instant;

#[cfg(feature = "counter")]
use self::expiry::Expiry;
#[cfg(feature = "counter")]
use crate::window_clock::WindowClock;
use crate::{
    RedisKey,
    backend::{Backend, BackendError, ReplayGuard, Space},
    counted::counted as noun,
    counts::{Counts, Kind},
    gauges::Gauges,
    losses::{Loss, Losses},
    shards::Shards,
    stats::Count,
    strict::{Answered, Sender},
};

/// The counters of one prefix in a store.
pub(crate) struct SpaceStore<B: ?Sized> {
    store: Arc<B>,
    space: Space,
    counts: Arc<Counts>,
    losses: Arc<Losses>,
    /// The clock of its windows, where it has any.
    #[cfg(feature = "counter")]
    clock: Option<Arc<WindowClock>>,
    /// Where it expires.
    #[cfg(feature = "counter")]
    expiry: Option<Arc<Expiry>>,
}

impl<B: Backend + ?Sized> SpaceStore<B> {
    /// The shards of a prefix, each with numbers of its own, for counters of the kind.
    pub(crate) fn shards(
        store: Arc<B>,
        prefix: RedisKey,
        shards: u16,
        kind: &'static str,
    ) -> Shards<Self> {
        Self::counted(&store, &Shards::spaces(prefix.clone(), shards), &prefix, kind)
    }

    /// The same shards, with numbers of their own, for counters of the kind.
    pub(crate) fn counted_apart(shards: &Shards<Self>, kind: &'static str) -> Shards<Self> {
        let first = shards.first();
        let gauges = Gauges::new(kind, first.prefix());
        shards.map(|shard| Self {
            counts: Counts::new(kind, first.prefix(), shown(&shard.space), &gauges),
            losses: Arc::default(),
            ..shard.clone()
        })
    }

    fn counted(
        store: &Arc<B>,
        spaces: &Shards<Space>,
        prefix: &RedisKey,
        kind: &'static str,
    ) -> Shards<Self> {
        let gauges = Gauges::new(kind, prefix);
        spaces.map(|space| Self {
            store: Arc::clone(store),
            space: space.clone(),
            counts: Counts::new(kind, prefix, shown(space), &gauges),
            losses: Arc::default(),
            #[cfg(feature = "counter")]
            clock: None,
            #[cfg(feature = "counter")]
            expiry: None,
        })
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Counts the request, and notes whether the store answered it.
    async fn sent<T>(
        &self,
        kind: Kind,
        request: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.counts.add(Count::Requests, 1);
        let sent = Instant::now();
        let answer = request.await;
        self.counts.answered(sent, kind, &answer);
        #[cfg(feature = "counter")]
        if let Some(expiry) = &self.expiry
            && kind == Kind::Write
            && answer.as_ref().err().is_none_or(BackendError::may_have_happened)
        {
            expiry.written(&self.store, &self.space);
        }
        answer
    }

    /// [`sent`](Self::sent), perhaps once more.
    async fn sent_in<T>(
        &self,
        lane: &ReplayGuard,
        request: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        self.counts.add(Count::Resent, usize::from(lane.resent));
        self.sent(Kind::Write, request).await
    }

    /// Sends a request in a lane until it is answered, or the deadline.
    async fn send_in_lane<T, F>(
        &self,
        sender: &Sender,
        deadline: Instant,
        request: impl Fn(ReplayGuard) -> F,
    ) -> Result<Answered<T>, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        self.ended(sender.send(|| self.store.fresh_id(), deadline, request)).await
    }

    /// Makes the attempts of a request. Where none is answered, the last one was cut short: notes it, from the beginning
    /// of the first one.
    async fn ended<T>(
        &self,
        attempts: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let begun = Instant::now();
        let answer = attempts.await;
        match &answer {
            Err(error @ BackendError::OutcomeUnknown(_)) => self.counts.unreachable(begun, error),
            Err(BackendError::Forgotten) => self.lost(self.losses.forgotten()),
            _ => {}
        }
        answer
    }

    fn lost(&self, loss: Option<Loss>) {
        if let Some(loss) = loss {
            self.counts.lost(loss.what.name(), loss.since);
        }
    }

    pub(crate) fn store(&self) -> &Arc<B> {
        &self.store
    }

    pub(crate) fn prefix(&self) -> &RedisKey {
        self.space.prefix()
    }
}

impl<B: ?Sized> Clone for SpaceStore<B> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            space: self.space.clone(),
            counts: Arc::clone(&self.counts),
            losses: Arc::clone(&self.losses),
            #[cfg(feature = "counter")]
            clock: self.clock.clone(),
            #[cfg(feature = "counter")]
            expiry: self.expiry.clone(),
        }
    }
}

/// The shard that the log names: that of a prefix which has several.
fn shown(space: &Space) -> Option<u16> {
    (space.shards() > 1).then(|| space.shard())
}

/// The setter of options that have the `stores` of their shards and are made anew by `in_shards`.
macro_rules! sharding_option {
    ($kind:literal) => {
        /// Spreads the prefix's counters over so many shards. Default: 1; at least 1, at most
        /// [`Space::MAX_SHARDS`](crate::backend::Space::MAX_SHARDS).
        ///
        /// The shards are spread evenly over the nodes of a Redis Cluster; on one server they are only a layout. Each
        /// shard is written to and read by itself, so a node that is unreachable delays its own shards only. A
        /// counter's shard follows from its key: see [`Space::shard_of`](crate::backend::Space::shard_of). Limits,
        /// such as that of pending keys, are divided among the shards.
        ///
        /// The number is for ever, and the same in all processes of the prefix: with another number, operations fail
        /// as [`ShapeMismatch`](crate::backend::BackendError::ShapeMismatch) before they write anything. 48 or 64 suit
        /// any cluster.
        pub fn shards(self, shards: u16) -> Self {
            let first = self.stores.first();
            let prefix = first.prefix().clone();
            let store = std::sync::Arc::clone(first.store());
            let stores = SpaceStore::shards(store, prefix, shards, $kind);
            self.in_shards(stores)
        }
    };
}
pub(crate) use sharding_option;

/// A store that breaks its contract: what it did is unknown.
fn counted<T>(asked: usize, answers: &[T]) -> Result<(), BackendError> {
    if answers.len() == asked {
        return Ok(());
    }
    let (given, wanted) = (noun(answers.len(), "answer"), noun(asked, "item"));
    let text = format!("the store gave {given} to a request for {wanted}");
    Err(BackendError::outcome_unknown(text))
}
