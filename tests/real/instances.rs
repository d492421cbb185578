//! Lax instance-aware counters: what must not hang, and what must not get lost.

use std::{sync::Arc, time::Duration};

use distkit::backend::Store;
use distkit::icounter::{
    InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
    StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
};
use tokio::task::JoinSet;

use crate::support::{Bench, Client, NEVER, eventually, key, keys, over_both_clients};

over_both_clients!(one_sets_and_others_add_to_new_keys, what_fails_keeps_what_was_pending);

fn lax(store: Arc<dyn Store>) -> LaxInstanceAwareCounterOptions {
    LaxInstanceAwareCounterOptions::new(key("bench"), store)
}

async fn strict(bench: &Bench) -> Arc<StrictInstanceAwareCounter> {
    let store = bench.client.connect(&bench.server).await;
    StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(key("bench"), store))
}

async fn one_sets_and_others_add_to_new_keys(client: Client) {
    let bench = Bench::new(client).await;
    let counter = LaxInstanceAwareCounter::new(lax(client.connect(&bench.server).await));
    let keys = Arc::new(keys(200));
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let (counter, keys) = (counter.clone(), keys.clone());
        async move {
            for (n, key) in (0..).zip(&keys[..100]) {
                counter.set(key, n).await.unwrap();
            }
        }
    });
    for _ in 0..4 {
        let (counter, keys) = (counter.clone(), keys.clone());
        tasks.spawn(async move {
            for key in keys.iter() {
                counter.inc(key, 1).await.unwrap();
            }
        });
    }
    let all = async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        counter.flush().await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    let other = strict(&bench).await;
    let totals = other.get_all(&keys.iter().collect::<Vec<_>>()).await.unwrap();
    for (n, (key, total)) in (0..).zip(totals) {
        // An addition before the assignment is part of what that replaced.
        let (least, most) = if n < 100 { (n, n + 4) } else { (4, 4) };
        let (total, _) = total.unwrap();
        assert!((least..=most).contains(&total), "{key}: {total}");
    }
}

#[tokio::test]
async fn one_sets_and_others_add_to_new_keys_on_one_thread() {
    for client in [Client::Redis, Client::Fred] {
        one_sets_and_others_add_to_new_keys(client).await;
    }
}

async fn what_fails_keeps_what_was_pending(client: Client) {
    let bench = Bench::durable(client).await;
    let store = client.connect(&bench.server).await;
    let counter = LaxInstanceAwareCounter::new(lax(store).allowed_lag(NEVER).flush_interval(NEVER));
    let (k, l) = (key("k"), key("l"));
    counter.inc(&k, 1).await.unwrap();
    counter.inc(&l, 1).await.unwrap();
    counter.flush().await.unwrap();
    counter.inc(&k, 4).await.unwrap();
    counter.set_on_instance(&l, 9).await.unwrap();
    bench.blocking(|server| server.kill_9()).await;
    for failed in [
        counter.set(&k, 100).await.err(),
        counter.del(&k).await.err(),
        counter.del_on_instance(&l).await.err(),
        counter.flush().await.err(),
    ] {
        failed.expect("the server is away");
    }
    assert_eq!(counter.inc(&k, 1).await.unwrap(), (6, 6));
    bench.blocking(|server| server.restart()).await;
    eventually("the flush", async || counter.flush().await.is_ok()).await;
    let other = strict(&bench).await;
    assert_eq!(other.get(&k).await.unwrap(), (6, 0));
    assert_eq!(other.get(&l).await.unwrap(), (9, 0));
}
