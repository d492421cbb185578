use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{
    InstanceAwareCounterTrait, StrictInstanceAwareCounterOptions, TotalAndSlice,
    icounter_trait::{pair, part_of},
    membership::{Membership, as_member},
};
use crate::{
    CounterComparator, DistkitError, RedisKey,
    answers::{Keyed, counted, named, only},
    backend::{
        InstanceBackend, InstanceSlice, Outcome, Scope, SliceChange, SliceWrite, Standing, Written,
    },
    parts::in_parts,
};

/// Instance-aware counters of which each call is one atomic operation in the store.
///
/// Each object is an instance of its own: it joins the store with its first operation, and a background
/// task renews its lease about every third of the threshold for as long as the object lives. The task
/// ends with the object; the object's slices count until the lease has run out, or until
/// [`leave`](Self::leave). It ends also with the tokio runtime on which an operation has started it; the
/// next operation then starts it on its own.
///
/// An instance that was taken for dead joins again by itself, with the slices that were last
/// acknowledged, and nobody sees it except in the totals.
pub struct StrictInstanceAwareCounter<B: InstanceBackend + ?Sized = dyn InstanceBackend> {
    membership: Arc<Membership<B>>,
}

impl<B: InstanceBackend + ?Sized> StrictInstanceAwareCounter<B> {
    /// A new instance. No I/O; it may be called outside of a runtime.
    pub fn new(options: StrictInstanceAwareCounterOptions<B>) -> Arc<Self> {
        Arc::new(Self { membership: options.membership() })
    }

    /// The store.
    pub fn store(&self) -> &B {
        self.membership.backend()
    }

    /// Leaves for good: this instance's slices are subtracted from all totals now, and later operations
    /// fail with [`DistkitError::ShutDown`].
    ///
    /// When this fails the slices stay until the lease has run out, or until `leave` is called again.
    pub async fn leave(&self) -> Result<(), DistkitError> {
        self.membership.leave().await
    }

    async fn apply(
        &self,
        writes: &[SliceWrite],
    ) -> Result<Vec<Outcome<Written<Standing>>>, DistkitError> {
        let membership = &self.membership;
        as_member!(
            membership,
            member => membership.backend().apply_on(membership.space(), member, writes, None),
            ordered => {
                let outcomes = ordered.answer.outcomes;
                for (write, outcome) in writes.iter().zip(&outcomes) {
                    if let Ok(written) = outcome {
                        membership.note(&write.key, ordered.version, &written.new);
                    }
                }
                outcomes
            }
        )
    }

    async fn write_part(
        &self,
        writes: &[SliceWrite],
    ) -> Result<Vec<Result<Written<Standing>, DistkitError>>, DistkitError> {
        Ok(named(
            writes.iter().map(|write| &write.key),
            counted(writes.len(), self.apply(writes).await?)?,
        ))
    }

    async fn read_part(
        &self,
        keys: &[RedisKey],
    ) -> Result<Vec<Result<TotalAndSlice, DistkitError>>, DistkitError> {
        let membership = &self.membership;
        let standings = as_member!(
            membership,
            member => membership.backend().read_on(membership.space(), member, keys),
            ordered => {
                for (key, standing) in keys.iter().zip(&ordered.answer) {
                    if let Ok(standing) = standing {
                        membership.note_read(key, ordered.version, standing);
                    }
                }
                ordered.answer
            }
        )?;
        let standings = counted(keys.len(), standings)?;
        let named = standings.into_iter().zip(keys).map(|(standing, key)| {
            standing
                .map(|standing| pair(&standing))
                .map_err(|refusal| DistkitError::refused(key, refusal))
        });
        Ok(named.collect())
    }

    async fn remove(
        &self,
        key: &RedisKey,
        scope: Scope,
    ) -> Result<Written<Standing>, DistkitError> {
        let membership = &self.membership;
        let keys = std::slice::from_ref(key);
        let outcome = as_member!(
            membership,
            member => membership.backend().remove_on(membership.space(), member, keys, scope),
            ordered => {
                let outcome = ordered.answer.into_iter().next();
                if let Some(Ok(written)) = &outcome {
                    membership.note(key, ordered.version, &written.new);
                }
                outcome
            }
        )?;
        only(named(std::iter::once(key), outcome.into_iter().collect()))
    }
}

#[async_trait]
impl<B: InstanceBackend + ?Sized> InstanceAwareCounterTrait for StrictInstanceAwareCounter<B> {
    fn instance_id(&self) -> &str {
        self.membership.id()
    }

    async fn write_all(
        &self,
        writes: &[SliceWrite],
    ) -> Result<Vec<Result<Written<Standing>, DistkitError>>, DistkitError> {
        in_parts!(writes, part_of(writes), part => self.write_part(part).await)
    }

    async fn inc(&self, key: &RedisKey, count: i64) -> Result<TotalAndSlice, DistkitError> {
        let change = SliceChange::Add(count);
        let write = SliceWrite { key: key.clone(), change, condition: CounterComparator::Nil };
        let outcomes = self.apply(std::slice::from_ref(&write)).await?;
        Ok(pair(&only(named(std::iter::once(key), outcomes))?.new))
    }

    async fn get_all<'k>(
        &self,
        keys: &[&'k RedisKey],
    ) -> Result<Vec<Keyed<'k, TotalAndSlice>>, DistkitError> {
        let owned: Vec<RedisKey> = keys.iter().map(|key| (*key).clone()).collect();
        let answers = in_parts!(&*owned, part => self.read_part(part).await)?;
        Ok(keys.iter().copied().zip(answers).collect())
    }

    async fn del(&self, key: &RedisKey) -> Result<TotalAndSlice, DistkitError> {
        Ok(pair(&self.remove(key, Scope::Total).await?.old))
    }

    async fn del_on_instance(&self, key: &RedisKey) -> Result<(i64, i64), DistkitError> {
        let written = self.remove(key, Scope::Slice).await?;
        Ok((written.new.total, written.old.slice))
    }

    async fn clear(&self) -> Result<(), DistkitError> {
        self.membership.exclusive().await?.clear(Scope::Total).await
    }

    async fn clear_on_instance(&self) -> Result<(), DistkitError> {
        self.membership.exclusive().await?.clear(Scope::Slice).await
    }

    async fn slices(&self, key: &RedisKey) -> Result<Vec<InstanceSlice>, DistkitError> {
        let membership = &self.membership;
        as_member!(
            membership,
            member => membership.backend().slices_on(membership.space(), member, key),
            slices => slices
        )
    }
}

impl<B: InstanceBackend + ?Sized> fmt::Debug for StrictInstanceAwareCounter<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictInstanceAwareCounter")
            .field("instance_id", &self.instance_id())
            .field("prefix", self.membership.space().prefix())
            .finish_non_exhaustive()
    }
}
