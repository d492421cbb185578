//! What `docs/guide/migration.md` says of locks: those of distkit 0.7 work beside this crate, over one connection.
#![allow(clippy::unwrap_used, missing_docs)]

use distkit::{
    RedisKey,
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use distkit_testkit::Server;
use peer::{
    DistkitRedisKey,
    lock::{LockOptions, Mutex},
};

#[tokio::test]
async fn counters_and_locks_of_0_7_share_a_connection_and_a_prefix() {
    let server = Server::redis().start();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_connection_manager().await.unwrap();
    let prefix = RedisKey::try_from("shop").unwrap();
    let counter = StrictCounter::new(CounterOptions::new(prefix, connection.clone()));
    let key = RedisKey::try_from("runs").unwrap();
    let options = || {
        let mut options = LockOptions::new(
            DistkitRedisKey::try_from("runs".to_owned()).unwrap(),
            connection.clone(),
        );
        options.namespace = DistkitRedisKey::try_from("shop".to_owned()).unwrap();
        options
    };
    let (ours, theirs) = (Mutex::new(options()), Mutex::new(options()));

    let held = ours.lock().await.unwrap();
    assert_eq!(counter.inc(&key, 1).await.unwrap(), 1);
    assert!(theirs.try_lock().await.is_err());

    // What deletes every counter leaves the lock alone, and the other way round.
    counter.clear().await.unwrap();
    assert!(theirs.try_lock().await.is_err());
    counter.inc(&key, 2).await.unwrap();
    held.release().await.unwrap();
    let held = theirs.lock().await.unwrap();
    assert_eq!(counter.get(&key).await.unwrap(), 2);
    held.release().await.unwrap();
}
