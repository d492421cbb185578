//! Code written for the crate whose names this one keeps goes on compiling, and works.
#![cfg(all(feature = "counter", feature = "redis-rs"))]

use distkit::{
    RedisKey,
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};
use distkit_testkit::Server;

async fn count_visit<C: CounterTrait>(
    counter: &C,
    page: &RedisKey,
) -> Result<i64, distkit::DistkitError> {
    counter.inc(page, 1).await
}

#[tokio::test]
async fn quick_start() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::redis().start();

    let client = redis::Client::open(server.url())?;
    let conn = client.get_connection_manager().await?;
    let prefix = RedisKey::try_from("my_app".to_string())?;
    let options = CounterOptions::new(prefix, conn);

    let strict = StrictCounter::new(options.clone());
    let lax = LaxCounter::new(options.clone());

    let orders = RedisKey::try_from("orders".to_string())?;
    strict.inc(&orders, 1).await?;
    let total = strict.get(&orders).await?;
    assert_eq!(total, 1);
    strict.dec(&orders, 1).await?;
    strict.set(&orders, 10).await?;
    assert_eq!(strict.del(&orders).await?, 10);

    let views = RedisKey::try_from("page_views".to_string())?;
    lax.inc(&views, 1).await?;
    assert_eq!(lax.get(&views).await?, 1);

    assert_eq!(count_visit(&*strict, &orders).await?, 1);
    assert_eq!(count_visit(lax.as_ref(), &views).await?, 2);

    lax.flush().await?;
    assert_eq!(strict.get(&views).await?, 2);
    strict.clear().await?;
    Ok(())
}
