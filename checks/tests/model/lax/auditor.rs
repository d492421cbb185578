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
    /// That of each shard, and the auditor in it.
    shards: Vec<(Space, Option<Member>)>,
}

impl Auditor {
    pub(super) fn new(store: MemoryBackend, spaces: &[Space]) -> Self {
        Self { store, shards: spaces.iter().map(|space| (space.clone(), None)).collect() }
    }

    /// Each key's total, and its slices by id.
    pub(super) async fn look(&mut self, family: Family) -> Vec<(i64, Vec<(String, i64)>)> {
        let mut looks = Vec::new();
        for key in Key::ALL.map(Key::redis) {
            let shard = usize::from(Space::shard_of(&key, self.shards.len() as u16));
            if family == Family::Plain {
                let totals = self.store.read(&self.shards[shard].0, &[key]).await.unwrap();
                looks.push((*totals[0].as_ref().unwrap(), Vec::new()));
                continue;
            }
            let look = loop {
                match self.try_look(shard, &key).await {
                    Ok(look) => break look,
                    Err(BackendError::NotJoined) => self.join(shard).await,
                    Err(error) => panic!("the memory store fails: {error}"),
                }
            };
            looks.push(look);
        }
        looks
    }

    /// Whether the instance is joined in the key's shard and its lease runs there.
    pub(super) fn lives(&self, id: &str, key: Key) -> bool {
        let shard = usize::from(Space::shard_of(&key.redis(), self.shards.len() as u16));
        let living = self.store.living_instances(&self.shards[shard].0);
        living.iter().any(|living| **living == *id)
    }

    async fn try_look(
        &self,
        shard: usize,
        key: &RedisKey,
    ) -> Result<(i64, Vec<(String, i64)>), BackendError> {
        let (space, member) = &self.shards[shard];
        let member = member.as_ref().ok_or(BackendError::NotJoined)?;
        let asked = std::slice::from_ref(key);
        let standings = self.store.read_on(space, member, asked).await?.answer;
        let slices = self.store.slices(space, key).await?;
        let slices = slices.into_iter().map(|slice| (slice.instance_id, slice.value));
        Ok((standings[0].as_ref().unwrap().total, slices.collect()))
    }

    async fn join(&mut self, shard: usize) {
        let lease = Duration::from_secs(86_400);
        let instance = Instance::new("auditor".into(), lease);
        let (space, member) = &mut self.shards[shard];
        let joined = self.store.join(space, &instance, &[]).await.unwrap();
        *member = Some(Member { incarnation: joined.incarnation, lease });
    }
}
