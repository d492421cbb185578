use async_trait::async_trait;
use distkit::{
    RedisKey,
    backend::{Applied, Backend, BackendError, Outcome, ReplayGuard, Space, Write},
    icounter::StrictInstanceAwareCounterOptions,
};

#[derive(Debug)]
struct PlainOnly;

#[async_trait]
impl Backend for PlainOnly {
    async fn apply(
        &self,
        _: &Space,
        _: &[Write],
        _: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        todo!()
    }

    async fn read(&self, _: &Space, _: &[RedisKey]) -> Result<Vec<Outcome<i64>>, BackendError> {
        todo!()
    }

    async fn remove(&self, _: &Space, _: &[RedisKey]) -> Result<Vec<Outcome<i64>>, BackendError> {
        todo!()
    }

    async fn clear(&self, _: &Space) -> Result<(), BackendError> {
        todo!()
    }
}

fn main() {
    let prefix = RedisKey::try_from("p").unwrap();
    let _ = StrictInstanceAwareCounterOptions::new(prefix, PlainOnly);
}
