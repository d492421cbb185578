//! The reference's examples of instance-aware counters compile and mean the same; options are made by
//! chained setters, and a batch answers for each item.
#![cfg(all(feature = "instance-aware-counter", feature = "redis-rs"))]

use std::{sync::Arc, time::Duration};

use distkit::icounter::{
    InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
    StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
};
use distkit::{CounterComparator, DistkitError, DistkitRedisKey};
use distkit_testkit::Server;

type Checked = Result<(), Box<dyn std::error::Error>>;

async fn report_connection<C: InstanceAwareCounterTrait>(
    counter: &C,
    key: &DistkitRedisKey,
    delta: i64,
) -> Result<i64, DistkitError> {
    let (total, _mine) = counter.inc(key, delta).await?;
    Ok(total)
}

#[tokio::test]
async fn strict_quick_start() -> Checked {
    let server = Server::redis().start();

    let client = redis::Client::open(server.url())?;
    let conn = client.get_connection_manager().await?;
    let prefix = DistkitRedisKey::try_from("my_app".to_string())?;
    let counter =
        StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(prefix, conn));
    assert!(!counter.instance_id().is_empty());

    let key = DistkitRedisKey::try_from("connections".to_string())?;
    let (total, mine) = counter.inc(&key, 5).await?;
    assert_eq!((total, mine), (5, 5));
    let (total, mine) = counter.dec(&key, 2).await?;
    assert_eq!((total, mine), (3, 3));
    let (total, mine) = counter.get(&key).await?;
    assert_eq!((total, mine), (3, 3));
    let (total, mine) = counter.set_on_instance(&key, 10).await?;
    assert_eq!((total, mine), (10, 10));
    let (total, mine) = counter.set(&key, 100).await?;
    assert_eq!((total, mine), (100, 100));
    assert_eq!(report_connection(&*counter, &key, 1).await?, 101);
    let (total, removed) = counter.del_on_instance(&key).await?;
    assert_eq!((total, removed), (0, 101));
    let (old_total, _) = counter.del(&key).await?;
    assert_eq!(old_total, 0);
    Ok(())
}

#[tokio::test]
async fn lax_quick_start() -> Checked {
    let server = Server::redis().start();

    let client = redis::Client::open(server.url())?;
    let conn = client.get_connection_manager().await?;
    let prefix = DistkitRedisKey::try_from("my_app".to_string())?;
    let counter = LaxInstanceAwareCounter::new(
        LaxInstanceAwareCounterOptions::new(prefix, conn)
            .dead_instance_threshold_ms(30_000)
            .flush_interval(Duration::from_millis(20))
            .allowed_lag(Duration::from_millis(20)),
    );

    let key = DistkitRedisKey::try_from("connections".to_string())?;
    let (local_total, mine) = counter.inc(&key, 1).await?;
    assert_eq!((local_total, mine), (1, 1));
    let (local_total, mine) = counter.dec(&key, 1).await?;
    assert_eq!((local_total, mine), (0, 0));
    let (total, mine) = counter.get(&key).await?;
    assert_eq!((total, mine), (0, 0));
    assert_eq!(report_connection(counter.as_ref(), &key, 2).await?, 2);
    Ok(())
}

async fn two_strict_icounters(
    server: &Server,
) -> Result<[Arc<StrictInstanceAwareCounter>; 2], Box<dyn std::error::Error>> {
    let client = redis::Client::open(server.url())?;
    let conn1 = client.get_connection_manager().await?;
    let conn2 = client.get_connection_manager().await?;
    let prefix = DistkitRedisKey::try_from("my_app".to_string())?;
    let opts = |conn| {
        StrictInstanceAwareCounterOptions::new(prefix.clone(), conn)
            .dead_instance_threshold_ms(30_000)
    };
    Ok([StrictInstanceAwareCounter::new(opts(conn1)), StrictInstanceAwareCounter::new(opts(conn2))])
}

#[tokio::test]
async fn two_servers() -> Checked {
    let server = Server::redis().start();
    let [server_a, server_b] = two_strict_icounters(&server).await?;
    let key = DistkitRedisKey::try_from("connections".to_string())?;

    let (cumulative_a, slice_a) = server_a.inc(&key, 3).await?;
    assert_eq!((cumulative_a, slice_a), (3, 3));
    let (cumulative_b, slice_b) = server_b.inc(&key, 5).await?;
    assert_eq!((cumulative_b, slice_b), (8, 5));
    let (cumulative, slice) = server_a.set(&key, 100).await?;
    assert_eq!((cumulative, slice), (100, 100));

    server_a.set_on_instance(&key, 7).await?;
    server_b.set_on_instance(&key, 5).await?;
    assert_eq!(
        server_a.set_on_instance_if(&key, CounterComparator::Eq(7), 10).await?,
        ((15, 10), (12, 7))
    );
    assert_eq!(
        server_a.set_on_instance_if(&key, CounterComparator::Lt(10), 20).await?,
        ((15, 10), (15, 10))
    );

    let (old_cumulative, _) = server_a.del(&key).await?;
    assert_eq!(old_cumulative, 15);
    assert_eq!(server_b.inc(&key, 1).await?, (1, 1));
    server_a.inc(&key, 3).await?;
    let (new_cumulative, removed) = server_a.del_on_instance(&key).await?;
    assert_eq!((new_cumulative, removed), (1, 3));
    server_a.inc(&key, 3).await?;
    server_a.clear_on_instance().await?;
    assert_eq!(server_b.get(&key).await?, (1, 1));
    server_a.clear().await?;
    assert_eq!(server_b.get(&key).await?, (0, 0));
    Ok(())
}

#[tokio::test]
async fn conditions_and_batches() -> Checked {
    let server = Server::redis().start();
    let [counter, _] = two_strict_icounters(&server).await?;
    let key = DistkitRedisKey::try_from("connections".to_string())?;
    counter.set(&key, 10).await?;
    assert_eq!(counter.inc_if(&key, CounterComparator::Eq(10), 5).await?, ((15, 15), (10, 10)));
    assert_eq!(counter.inc_if(&key, CounterComparator::Lt(10), 5).await?, ((15, 15), (15, 15)));
    assert_eq!(counter.inc_if(&key, CounterComparator::Nil, 5).await?, ((20, 20), (15, 15)));
    assert_eq!(counter.set_if(&key, CounterComparator::Gt(10), 1).await?, ((1, 1), (20, 20)));

    let k1 = DistkitRedisKey::try_from("a".to_string())?;
    let k2 = DistkitRedisKey::try_from("b".to_string())?;
    let results = counter.inc_all(&[(&k1, 3), (&k2, 5)]).await?;
    assert_eq!(each(results)?, [(&k1, (3, 3)), (&k2, (5, 5))]);
    let results = counter.get_all(&[&k1, &k2]).await?;
    assert_eq!(each(results)?, [(&k1, (3, 3)), (&k2, (5, 5))]);
    let results = counter.get_all_on_instance(&[&k1, &k2]).await?;
    assert_eq!(each(results)?, [(&k1, 3), (&k2, 5)]);
    let results = counter.set_all(&[(&k1, 10), (&k2, 0)]).await?;
    assert_eq!(each(results)?, [(&k1, (10, 10)), (&k2, (0, 0))]);
    let results = counter
        .inc_all_if(&[(&k1, CounterComparator::Eq(10), 5), (&k2, CounterComparator::Nil, 2)])
        .await?;
    assert_eq!(each(results)?, [(&k1, ((15, 15), (10, 10))), (&k2, ((2, 2), (0, 0)))]);
    let results = counter
        .set_all_if(&[(&k1, CounterComparator::Eq(15), 16), (&k2, CounterComparator::Nil, 20)])
        .await?;
    assert_eq!(each(results)?, [(&k1, ((16, 16), (15, 15))), (&k2, ((20, 20), (2, 2)))]);
    let results = counter.set_all_on_instance(&[(&k1, 5), (&k2, 0)]).await?;
    assert_eq!(each(results)?, [(&k1, (5, 5)), (&k2, (0, 0))]);
    let results = counter
        .set_all_on_instance_if(&[
            (&k1, CounterComparator::Nil, 6),
            (&k2, CounterComparator::Eq(0), 7),
        ])
        .await?;
    assert_eq!(each(results)?, [(&k1, ((6, 6), (5, 5))), (&k2, ((7, 7), (0, 0)))]);
    Ok(())
}

/// The answers of a batch of which no item was refused.
fn each<K, T>(results: Vec<(K, Result<T, DistkitError>)>) -> Result<Vec<(K, T)>, DistkitError> {
    results.into_iter().map(|(key, answer)| Ok((key, answer?))).collect()
}
