#[path = "../../../src/counter/lax/add.rs"]
mod add;

use std::{marker::PhantomData, sync::Arc};

use crate::{
    DistkitError, RedisKey,
    backend::{Backend, Write},
    lax::{Engine, Known},
    store::Store,
};

pub(crate) struct Plain<B: ?Sized = dyn Backend> {
    pub(crate) backend: Store,
    pub(crate) space: (),
    pub(crate) of: PhantomData<Arc<B>>,
    pub(crate) counts: std::sync::Arc<crate::counts::Counts>,
}

pub(crate) fn known(total: i64) -> Known {
    Known { own: total, others: 0 }
}

impl Engine<Plain> {
    /// As the counter does it.
    pub(crate) async fn add(
        self: &Arc<Self>,
        key: &RedisKey,
        count: i64,
    ) -> Result<i64, DistkitError> {
        match self.add_to_key_quickly(key, count) {
            Some(total) => Ok(total),
            None => self.add_to_key(key, count).await,
        }
    }

    /// Answers what the key held.
    pub(crate) async fn set(self: &Arc<Self>, write: Write) -> i64 {
        let mut outcomes = self.write_now(&[write]).await.unwrap();
        outcomes.remove(0).unwrap().old
    }

    pub(crate) async fn delete(self: &Arc<Self>, key: &RedisKey) -> i64 {
        self.set(Write::remove(key.clone())).await
    }
}
