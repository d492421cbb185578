#[path = "../../src/counter/lax/exclusive.rs"]
mod exclusive;

use crate::{
    backend::Write,
    lax::{Core, Known},
    store::Store,
};

pub(crate) struct Plain {
    pub(crate) backend: Store,
    pub(crate) space: (),
}

pub(crate) fn known(total: i64) -> Known {
    Known { own: total, others: 0 }
}

impl Core<Plain> {
    /// Answers what the key held.
    pub(crate) async fn set(self: &std::sync::Arc<Self>, write: Write) -> i64 {
        let mut outcomes = self.write_all(&[write]).await.unwrap();
        outcomes.remove(0).unwrap().old
    }

    pub(crate) async fn delete(self: &std::sync::Arc<Self>, key: &crate::RedisKey) -> i64 {
        self.del(key).await.unwrap()
    }
}
