//! Requests for instance-aware counters.

use tokio::time::Instant;

use super::{SpaceStore, counted};
use crate::{
    KeyFilter, RedisKey,
    backend::{
        Applied, BackendError, Cursor, Instance, InstanceBackend, InstanceSlice, Joined, Member,
        Ordered, Outcome, Page, Scope, Slice, SliceEnumeration, SliceWrite, Standing, missing,
    },
    counts::Kind,
    strict::Sender,
};

impl<B: InstanceBackend + ?Sized> SpaceStore<B> {
    /// Joins. What was sent at `answered` was the last that the instance had an answer to.
    pub(crate) async fn join(
        &self,
        instance: &Instance,
        claims: &[Slice],
        answered: Option<Instant>,
    ) -> Result<Joined, BackendError> {
        let joined = self.sent(Kind::Write, self.store.join(&self.space, instance, claims)).await?;
        self.lost(self.losses.joined(joined.born, answered));
        counted(claims.len(), &joined.standings)?;
        Ok(joined)
    }

    /// Notes that the store took back what it had answered this instance, which sent the last of that then.
    pub(crate) fn went_back(&self, answered: Option<Instant>) {
        self.lost(Some(self.losses.went_back(answered)));
    }

    pub(crate) async fn apply_on(
        &self,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let request = self.store.apply_on(&self.space, member, writes, sequence);
        let ordered = self.sent(Kind::Write, request).await?;
        counted(writes.len(), &ordered.answer.outcomes)?;
        Ok(ordered)
    }

    /// [`apply_on`](Self::apply_on) once, as [`apply_once`](Self::apply_once) applies.
    pub(crate) async fn apply_on_once(
        &self,
        member: &Member,
        writes: &[SliceWrite],
        sender: &Sender,
        deadline: Option<Instant>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let store = self.store.capabilities().recorded_slices;
        let (Some(deadline), Some(store)) = (deadline, store) else {
            return self.apply_on(member, writes, None).await;
        };
        let space = &self.space;
        let request = |lane| async move {
            self.sent_in(&lane, store.apply_on_recorded(space, member, writes, &lane)).await
        };
        let ordered = self.send_in_lane(sender, deadline, request).await?.answer;
        counted(writes.len(), &ordered.answer.outcomes)?;
        Ok(ordered)
    }

    /// [`clear_on`](Self::clear_on) once, as [`apply_once`](Self::apply_once) applies.
    pub(crate) async fn clear_on_once(
        &self,
        member: &Member,
        scope: Scope,
        sender: &Sender,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let (store, space) = (self.store.capabilities().recorded_slices, &self.space);
        match (scope, store) {
            (Scope::Total, None) => self.clear_on(member, scope).await,
            (Scope::Total, Some(store)) => {
                let clear = |lane| async move {
                    self.sent_in(&lane, store.clear_on_recorded(space, member, &lane)).await
                };
                self.send_in_lane(sender, deadline, clear).await.map(drop)
            }
            // It does no harm when it is done twice: nothing of this instance's is in flight meanwhile.
            (Scope::Slice, _) => {
                let clear = |lane| async move {
                    self.sent_in(&lane, self.store.clear_on(space, member, scope)).await
                };
                self.send_in_lane(sender, deadline, clear).await.map(drop)
            }
        }
    }

    pub(crate) async fn read_on(
        &self,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        let ordered = self.sent(Kind::Read, self.store.read_on(&self.space, member, keys)).await?;
        counted(keys.len(), &ordered.answer).map_err(BackendError::with_nothing_applied)?;
        Ok(ordered)
    }

    pub(crate) async fn clear_on(&self, member: &Member, scope: Scope) -> Result<(), BackendError> {
        self.sent(Kind::Write, self.store.clear_on(&self.space, member, scope)).await
    }

    pub(crate) async fn heartbeat(&self, member: &Member) -> Result<(), BackendError> {
        self.sent(Kind::Write, self.store.heartbeat(&self.space, member)).await
    }

    pub(crate) async fn leave(&self, member: &Member) -> Result<(), BackendError> {
        self.sent(Kind::Write, self.store.leave(&self.space, member)).await
    }

    pub(crate) async fn slices(&self, key: &RedisKey) -> Result<Vec<InstanceSlice>, BackendError> {
        self.sent(Kind::Read, self.store.slices(&self.space, key)).await
    }

    pub(crate) async fn totals(
        &self,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let totals = self.sent(Kind::Read, self.store.totals(&self.space, keys)).await?;
        counted(keys.len(), &totals).map_err(BackendError::with_nothing_applied)?;
        Ok(totals)
    }

    /// Some of its counters: see [`SliceEnumeration`].
    pub(crate) async fn page_on(
        &self,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<RedisKey>, BackendError> {
        let request = self.slice_enumeration()?.page_on(&self.space, from, filter, count);
        let mut page = self.sent(Kind::Read, request).await?;
        page.entries.retain(|key| filter.matches(key));
        Ok(page)
    }

    pub(crate) async fn count_on(&self) -> Result<u64, BackendError> {
        self.sent(Kind::Read, self.slice_enumeration()?.count_on(&self.space)).await
    }

    fn slice_enumeration(&self) -> Result<&dyn SliceEnumeration, BackendError> {
        self.store.capabilities().slice_enumeration.ok_or_else(|| missing("listing"))
    }
}
