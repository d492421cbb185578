//! Batches of any size go to the store in parts, on a connection with default time-outs.
#![cfg(all(feature = "counter", feature = "instance-aware-counter", feature = "redis-rs"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::{InstanceBackend, IntoBackend, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, Keyed, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions, TotalAndSlice,
    },
};
use distkit_testkit::Server;

const KEYS: usize = 30_000;

fn keys(n: usize) -> Vec<RedisKey> {
    (0..n).map(|n| RedisKey::try_from(format!("key {n}")).unwrap()).collect()
}

fn prefix(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// The most server time that one script or HMGET took, by the slow log.
fn slowest(server: &Server) -> String {
    server.cli(&["SLOWLOG", "GET", "3"])
}

#[tokio::test]
async fn thirty_thousand_keys_at_once_through_each_counter() {
    for server in [Server::redis(), Server::valkey()].map(|server| server.start()) {
        server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "15000"]);
        // With the response timeout of redis-rs, 500 ms.
        let client = redis::Client::open(server.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let store: Arc<dyn InstanceBackend> = connection.into_backend();
        let keys = keys(KEYS);
        let adds: Vec<_> = keys.iter().map(|key| (key, 1)).collect();
        let sets: Vec<_> = keys.iter().map(|key| (key, 7)).collect();
        let asked: Vec<_> = keys.iter().collect();

        let strict = StrictCounter::new(CounterOptions::new(prefix("plain"), store.clone()));
        let lax = LaxCounter::new(CounterOptions::new(prefix("plain"), store.clone()));
        assert!(
            strict
                .inc_all(&adds)
                .await
                .unwrap()
                .iter()
                .all(|(_, total)| *total.as_ref().unwrap() == 1)
        );
        assert!(
            lax.inc_all(&adds)
                .await
                .unwrap()
                .iter()
                .all(|(_, total)| *total.as_ref().unwrap() == 2)
        );
        lax.flush().await.unwrap();
        assert!(
            lax.set_all(&sets)
                .await
                .unwrap()
                .iter()
                .all(|(_, total)| *total.as_ref().unwrap() == 7)
        );
        let read = strict.get_all(&asked).await.unwrap();
        assert!(read.iter().all(|(_, total)| *total.as_ref().unwrap() == 7));

        let options = StrictInstanceAwareCounterOptions::new(prefix("shared"), store.clone());
        let strict = StrictInstanceAwareCounter::new(options);
        let options = LaxInstanceAwareCounterOptions::new(prefix("shared"), store);
        let lax = LaxInstanceAwareCounter::new(options);
        let is = |answers: Vec<Keyed<'_, TotalAndSlice>>, total| {
            assert_eq!(answers.len(), KEYS);
            assert!(answers.into_iter().all(|(_, answer)| answer.unwrap().0 == total));
        };
        is(strict.inc_all(&adds).await.unwrap(), 1);
        is(lax.inc_all(&adds).await.unwrap(), 2);
        lax.flush().await.unwrap();
        is(strict.get_all(&asked).await.unwrap(), 2);
        is(lax.set_all(&sets).await.unwrap(), 7);
        is(strict.set_all(&sets).await.unwrap(), 7);
        is(strict.get_all(&asked).await.unwrap(), 7);
        println!("slower than 15 ms:\n{}", slowest(&server));
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_fails_is_told_item_by_item() {
    let keys = keys(1800);
    let asked: Vec<_> = keys.iter().map(|key| (key, 1)).collect();
    for of_instances in [false, true] {
        let link = MemoryBackend::new().link();
        let plain = StrictCounter::new(CounterOptions::new(prefix("plain"), link.clone()));
        let shared = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
            prefix("shared"),
            link.clone(),
        ));
        shared.get(&keys[0]).await.unwrap();
        link.set_latency(Duration::from_millis(10));
        // While the second part of four is on its way back.
        let fails = async {
            tokio::time::sleep(Duration::from_millis(18)).await;
            link.cut();
        };
        let work = async {
            let answers: Vec<Result<(), DistkitError>> = if of_instances {
                let answers = shared.inc_all(&asked).await.unwrap();
                answers.into_iter().map(|(_, answer)| answer.map(drop)).collect()
            } else {
                let answers = plain.inc_all(&asked).await.unwrap();
                answers.into_iter().map(|(_, answer)| answer.map(drop)).collect()
            };
            answers
        };
        let (answers, ()) = tokio::join!(work, fails);
        assert_eq!(answers.len(), 1800);
        for (at, answer) in answers.iter().enumerate() {
            match at / 500 {
                0 => assert!(answer.is_ok(), "{at}: {answer:?}"),
                1 => assert!(answer.as_ref().is_err_and(DistkitError::may_have_happened)),
                _ => {
                    assert!(matches!(answer, Err(DistkitError::NotApplied(_))), "{at}: {answer:?}")
                }
            }
        }
        link.restore();
        link.set_latency(Duration::ZERO);
        for (at, key) in keys.iter().enumerate() {
            let total = match of_instances {
                true => shared.get(key).await.unwrap().0,
                false => plain.get(key).await.unwrap(),
            };
            assert_eq!(total, i64::from(at < 1000), "{at}");
        }
    }
}

/// A batch delays no heartbeat for so long that a healthy instance would expire.
#[tokio::test]
async fn a_batch_expires_no_instance_with_a_short_lease() {
    const BATCH: usize = 200_000;
    for server in [Server::redis(), Server::valkey()].map(|server| server.start()) {
        let connect = async || {
            let client = redis::Client::open(server.url()).unwrap();
            client.get_multiplexed_async_connection().await.unwrap()
        };
        let healthy = async || {
            let options = StrictInstanceAwareCounterOptions::new(prefix("p"), connect().await);
            StrictInstanceAwareCounter::new(options.dead_instance_threshold_ms(2000))
        };
        let (k, instances) = (&prefix("k"), [healthy().await, healthy().await, healthy().await]);
        for instance in &instances {
            instance.inc(k, 1).await.unwrap();
        }
        let options = StrictInstanceAwareCounterOptions::new(prefix("p"), connect().await);
        let busy = StrictInstanceAwareCounter::new(options);
        busy.get(k).await.unwrap();
        let keys = keys(BATCH);
        let adds: Vec<_> = keys.iter().map(|key| (key, 1)).collect();
        let mut batch = std::pin::pin!(async {
            busy.inc_all(&adds).await.unwrap().iter().all(|(_, answer)| answer.is_ok())
        });
        let watcher = &instances[0];
        let mut looks = 0;
        loop {
            tokio::select! {
                done = &mut batch => break assert!(done, "an item failed"),
                total = watcher.get(k) => {
                    assert_eq!(total.unwrap().0, 3, "somebody is missing");
                    looks += 1;
                }
            }
        }
        println!("looked {looks} times");
        assert!(looks > 10);
    }
}
