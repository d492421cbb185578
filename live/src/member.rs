//! This process as an instance: its counters, how it joins and leaves, and what it reads of the others.
//!
//! Under the prefix there are, for each process,
//! - its slice of the instance-aware counter `connections`,
//! - its slice of the instance-aware counter `instances`, which exists as long as the process is
//!   alive, even while it holds no connection. Its value is the process's stamp;
//! - a plain counter of its name, which is set to the stamp before the process leaves. Without that
//!   record, a vanished process has expired.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use distkit::{
    DistkitError, RedisKey, Stats,
    backend::{Backend, InstanceBackend, InstanceSlice, IntoBackend},
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        Unflushed,
    },
};

use crate::{connections::Connections, roster::Stamp};

/// How a process counts.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) prefix: RedisKey,
    pub(crate) name: RedisKey,
    pub(crate) lease: Duration,
    pub(crate) stamp: Stamp,
}

/// What the living instances hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) stamps: BTreeMap<String, Stamp>,
    pub(crate) connections: BTreeMap<String, i64>,
}

pub(crate) struct Member {
    identity: Identity,
    counter: Arc<LaxInstanceAwareCounter>,
    departures: Arc<StrictCounter>,
    connections_key: RedisKey,
    instances_key: RedisKey,
}

impl Member {
    /// Joins, and replaces an older process of the same name. Returns once the store has
    /// acknowledged it.
    pub(crate) async fn join<S>(
        identity: Identity,
        store: S,
    ) -> Result<(Self, Connections), DistkitError>
    where
        S: IntoBackend<dyn InstanceBackend> + IntoBackend<dyn Backend> + Clone,
    {
        let options = LaxInstanceAwareCounterOptions::new(identity.prefix.clone(), store.clone())
            .dead_instance_threshold_ms(
                u64::try_from(identity.lease.as_millis()).unwrap_or(u64::MAX),
            )
            .instance_name(identity.name.clone());
        let counter = LaxInstanceAwareCounter::new(options);
        let departures = StrictCounter::new(CounterOptions::new(identity.prefix.clone(), store));
        let connections_key = RedisKey::try_from("connections")?;
        let instances_key = RedisKey::try_from("instances")?;

        counter.set_on_instance(&instances_key, identity.stamp).await?;
        counter.flush().await?;
        let connections = Connections::new(counter.handle(&connections_key).await?);
        Ok((Self { identity, counter, departures, connections_key, instances_key }, connections))
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn id(&self) -> &str {
        self.counter.instance_id()
    }

    /// No I/O.
    pub(crate) fn stats(&self) -> Stats {
        self.counter.stats().merge(self.departures.stats())
    }

    /// What all living instances hold. Two concurrent requests; own writes are flushed first.
    pub(crate) async fn held(&self) -> Result<Held, DistkitError> {
        let (instances, connections) = tokio::try_join!(
            self.counter.slices(&self.instances_key),
            self.counter.slices(&self.connections_key),
        )?;
        let stamps: BTreeMap<_, _> = instances.into_iter().map(labelled).collect();
        let mut holds: BTreeMap<_, _> = connections.into_iter().map(labelled).collect();
        // `instances` decides about those that joined or expired between the two requests.
        let connections =
            stamps.keys().map(|who| (who.clone(), holds.remove(who).unwrap_or(0))).collect();
        Ok(Held { stamps, connections })
    }

    /// Those of `missing` that stopped in good order. No I/O if `missing` is empty.
    pub(crate) async fn departed(
        &self,
        missing: Vec<(String, Stamp)>,
    ) -> Result<BTreeSet<String>, DistkitError> {
        let mut left = BTreeSet::new();
        for (instance, stamp) in missing {
            // An instance without a name has no record, and its id need not be a valid key.
            let Ok(key) = RedisKey::try_from(instance.as_str()) else { continue };
            if self.departures.get(&key).await? == stamp {
                left.insert(instance);
            }
        }
        Ok(left)
    }

    /// Leaves in good order: the slices go at once, and the record tells this from an expiry.
    pub(crate) async fn leave(&self, within: Duration) -> Result<(), Unflushed> {
        let recorded = self.departures.set(&self.identity.name, self.identity.stamp);
        // Without the record the others take it for an expiry, which is no reason to stay.
        match tokio::time::timeout(within / 2, recorded).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the departure is not recorded"),
            Err(_) => tracing::warn!("the departure is not recorded: no answer"),
        }
        self.counter.shutdown(within / 2).await
    }
}

/// An instance's slice by its name, or by its id where it has none.
fn labelled(slice: InstanceSlice) -> (String, i64) {
    let name = slice.name.map(|name| name.as_str().to_owned());
    (name.unwrap_or(slice.instance_id), slice.value)
}
