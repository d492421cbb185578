//! Servers that are away, hang, lose their scripts, or lose their data.

use std::time::Duration;

use distkit::{
    CounterComparator, DistkitError,
    counter::{CounterTrait, LaxCounter, StrictCounter},
};

use crate::support::{
    Bench, Client, NEVER, eventually, eventually_reads, key, keys, over_both_clients,
};

over_both_clients!(
    a_server_that_is_away_at_the_start_comes_back,
    a_restart_in_the_middle_costs_nothing,
    a_server_that_hangs_gets_each_write_once,
    scripts_may_be_flushed_at_any_time,
    a_server_that_lost_its_data_gets_what_is_pending,
    shutdown_says_what_is_left,
);

const LAG: Duration = Duration::from_millis(10);

async fn a_server_that_is_away_at_the_start_comes_back(client: Client) {
    let bench = Bench::new(client).await;
    bench.blocking(|server| server.kill_9()).await;
    let (lax, strict) = (bench.lax(LAG).await, bench.strict().await);
    let hits = key("hits");

    for error in [strict.inc(&hits, 1).await.unwrap_err(), lax.inc(&hits, 1).await.unwrap_err()] {
        assert!(matches!(error, DistkitError::NotApplied(_)), "{error}");
    }
    assert!(lax.get(&hits).await.is_err());
    assert!(lax.set(&hits, 1).await.is_err());
    lax.flush().await.unwrap();

    bench.blocking(|server| server.restart()).await;
    let mut added = 0;
    eventually("the lax counter to find the server", async || {
        lax.inc(&hits, 1).await.inspect(|_| added += 1).is_ok()
    })
    .await;
    eventually("the strict counter to find the server", async || {
        strict.inc(&hits, 1).await.inspect(|_| added += 1).is_ok()
    })
    .await;
    eventually("a flush", async || lax.flush().await.is_ok()).await;
    assert_eq!(added, 2);
    assert_eq!(bench.held(&hits).await, 2, "none of the failed calls came to the store");
}

async fn a_restart_in_the_middle_costs_nothing(client: Client) {
    let bench = Bench::durable(client).await;
    let counter = LaxCounter::new(bench.options().await.allowed_lag(LAG).max_pending_keys(20));
    let keys = keys(25);
    for key in &keys {
        counter.inc(key, 1).await.unwrap();
        counter.flush().await.unwrap();
    }
    bench.blocking(|server| server.stop()).await;
    for n in 0..200 {
        counter.inc(&keys[n % 20], 1).await.unwrap();
        if n % 20 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(counter.flush().await.is_err(), "there is nobody to flush to");
    let full = counter.inc(&keys[24], 1).await;
    assert!(matches!(full, Err(DistkitError::TooManyPending { limit: 20 })), "{full:?}");
    assert_eq!(counter.inc(&keys[0], 1).await.unwrap(), 12);

    bench.blocking(|server| server.restart()).await;
    // Without a flush on demand: the counter finds the server by itself.
    for (n, key) in keys.iter().enumerate() {
        let expected = [12, 11, 1][usize::from(n > 0) + usize::from(n >= 20)];
        eventually(key, async || bench.held(key).await == expected).await;
    }
    assert_eq!(counter.inc(&keys[24], 1).await.unwrap(), 2);
    counter.shutdown(Duration::from_secs(30)).await.unwrap();
    assert_eq!(bench.held(&keys[24]).await, 2);
}

/// Requests time out and are applied all the same, later: the worst case for whoever sends again.
async fn a_server_that_hangs_gets_each_write_once(client: Client) {
    let bench = Bench::new(client).await;
    let (counter, strict) = (bench.lax(LAG).await, bench.strict().await);
    let (hits, other) = (key("hits"), key("other"));
    counter.inc(&hits, 1).await.unwrap();
    strict.inc(&other, 1).await.unwrap();

    let mut acknowledged = 1;
    for _ in 0..2 {
        bench.blocking(|server| server.freeze()).await;
        let mut refused = false;
        // Until a request has been given up.
        while !refused {
            counter.inc(&hits, 1).await.unwrap();
            acknowledged += 1;
            refused = counter.flush().await.is_err();
        }
        let error = strict.inc(&other, 1).await.unwrap_err();
        assert!(error.may_have_happened(), "{error}");
        bench.blocking(|server| server.thaw()).await;
        eventually("a flush", async || counter.flush().await.is_ok()).await;
        assert_eq!(bench.held(&hits).await, acknowledged);
    }
    eventually("the strict counter to be back", async || strict.get(&other).await.is_ok()).await;
    let held = strict.get(&other).await.unwrap();
    assert!((1..=3).contains(&held), "two increments of unknown outcome on top of 1: {held}");
}

async fn scripts_may_be_flushed_at_any_time(client: Client) {
    let bench = Bench::new(client).await;
    let (counter, strict) = (bench.lax(NEVER).await, bench.strict().await);
    let (hits, seats) = (key("hits"), key("seats"));
    for n in 1..=20 {
        counter.inc(&hits, 1).await.unwrap();
        strict.inc_if(&seats, CounterComparator::Lt(n), 1).await.unwrap();
        bench.cli(&["SCRIPT", "FLUSH"]).await;
        counter.flush().await.unwrap();
        assert_eq!(bench.held(&hits).await, n);
        bench.cli(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(strict.set_if(&seats, CounterComparator::Eq(n), n).await.unwrap(), (n, n));
        bench.cli(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(counter.inc_if(&seats, CounterComparator::Gt(n), 1).await.unwrap(), (n, n));
    }
    bench.cli(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(counter.del(&hits).await.unwrap(), 20);
    bench.cli(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(strict.del(&seats).await.unwrap(), 20);
    bench.cli(&["SCRIPT", "FLUSH"]).await;
    counter.clear().await.unwrap();
    assert_eq!(bench.held(&hits).await, 0);
}

async fn a_server_that_lost_its_data_gets_what_is_pending(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(LAG).await;
    let hits = key("hits");
    counter.inc(&hits, 100).await.unwrap();
    counter.flush().await.unwrap();
    bench.blocking(|server| server.kill_9()).await;
    assert_eq!(counter.inc(&hits, 5).await.unwrap(), 105);
    bench.blocking(|server| server.restart()).await;

    eventually("what was pending", async || bench.held(&hits).await == 5).await;
    eventually_reads(&*counter, &hits, 5).await;
}

async fn shutdown_says_what_is_left(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(NEVER).await;
    let (one, two) = (key("one"), key("two"));
    counter.inc(&one, 1).await.unwrap();
    counter.inc(&two, -2).await.unwrap();
    bench.blocking(|server| server.kill_9()).await;

    let left = counter.shutdown(Duration::from_millis(300)).await.unwrap_err();
    let mut named: Vec<_> = left.pending.iter().chain(&left.unknown).cloned().collect();
    named.sort();
    assert_eq!(named, [(one.clone(), 1), (two, -2)], "{left}");

    // It was reported as not written, so it must not be.
    bench.blocking(|server| server.restart()).await;
    let strict: std::sync::Arc<StrictCounter> = bench.strict().await;
    eventually("the server", async || strict.get(&one).await.is_ok()).await;
    drop(counter);
    eventually_reads(&*strict, &one, 0).await;
}
