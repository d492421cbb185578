use std::time::Duration;

use distkit::{
    RedisKey,
    backend::{
        Backend, BackendError, Instance, InstanceBackend, Member, Space, memory::MemoryBackend,
    },
};

use super::truth::Family;
use crate::cast::Key;

/// Who looks at the store past all links.
pub(super) struct Auditor {
    store: MemoryBackend,
    space: Space,
    member: Option<Member>,
}

impl Auditor {
    pub(super) fn new(store: MemoryBackend, space: Space) -> Self {
        Self { store, space, member: None }
    }

    /// Each key's total, and its slices by id.
    pub(super) async fn look(&mut self, family: Family) -> Vec<(i64, Vec<(String, i64)>)> {
        let keys: Vec<_> = Key::ALL.iter().map(|key| key.redis()).collect();
        if family == Family::Plain {
            let totals = self.store.read(&self.space, &keys).await.unwrap();
            return totals.into_iter().map(|total| (total.unwrap(), Vec::new())).collect();
        }
        loop {
            match self.try_look(&keys).await {
                Ok(looks) => return looks,
                Err(BackendError::NotJoined) => self.join().await,
                Err(error) => panic!("the memory store fails: {error}"),
            }
        }
    }

    /// Whether the instance is joined and its lease runs.
    pub(super) fn lives(&self, id: &str) -> bool {
        self.store.living_instances(&self.space).iter().any(|living| **living == *id)
    }

    async fn try_look(
        &self,
        keys: &[RedisKey],
    ) -> Result<Vec<(i64, Vec<(String, i64)>)>, BackendError> {
        let member = self.member.as_ref().ok_or(BackendError::NotJoined)?;
        let standings = self.store.read_on(&self.space, member, keys).await?.answer;
        let mut looks = Vec::new();
        for (key, standing) in keys.iter().zip(standings) {
            let slices = self.store.slices(&self.space, key).await?;
            let slices = slices.into_iter().map(|slice| (slice.instance_id, slice.value));
            looks.push((standing.unwrap().total, slices.collect()));
        }
        Ok(looks)
    }

    async fn join(&mut self) {
        let lease = Duration::from_secs(86_400);
        let instance = Instance::new("auditor".into(), lease);
        let joined = self.store.join(&self.space, &instance, &[]).await.unwrap();
        self.member = Some(Member { incarnation: joined.incarnation, lease });
    }
}
