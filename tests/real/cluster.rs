//! Prefixes and keys of any kind, on a cluster of three.

use std::time::Duration;

use distkit::counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter};
use distkit_testkit::Cluster;

use crate::support::{Client, eventually_reads, key, over_both_clients};

over_both_clients!(any_prefix_works_on_a_cluster);

const PREFIXES: [&str; 13] = [
    "plain",
    "other",
    "a third",
    "{tag}",
    "a{b}c",
    "{}",
    "}{",
    "{",
    "}",
    "%7B",
    "ünïcode{",
    "*?[x]\\",
    "\n\"'",
];

async fn any_prefix_works_on_a_cluster(client: Client) {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let store = client.connect_cluster(&cluster).await;
    let other_store = client.connect_cluster(&cluster).await;
    let names = ["plain", "{tag}", "ü", "a b", "*", "{}", "%"].map(key);

    let mut lax_counters = Vec::new();
    for (n, prefix) in (1..).zip(PREFIXES) {
        let lax = LaxCounter::new(
            CounterOptions::new(key(prefix), store.clone()).allowed_lag(Duration::from_millis(5)),
        );
        let strict = StrictCounter::new(CounterOptions::new(key(prefix), other_store.clone()));
        for name in &names {
            assert_eq!(strict.inc(name, n).await.unwrap(), n, "{prefix:?} {name}");
            assert_eq!(lax.inc(name, 10).await.unwrap(), n + 10, "{prefix:?} {name}");
        }
        lax.flush().await.unwrap();
        let totals = strict.get_all(&names.each_ref()).await.unwrap();
        assert!(totals.iter().all(|(_, total)| *total.as_ref().unwrap() == n + 10), "{prefix:?}");
        let updates = names.each_ref().map(|name| (name, 1));
        for (_, total) in strict.inc_all(&updates).await.unwrap() {
            assert_eq!(total.unwrap(), n + 11, "{prefix:?}");
        }
        lax_counters.push((n, prefix, lax, strict));
    }

    // Two neighbours are cleared, one from each kind of counter; nobody else notices.
    lax_counters[3].2.clear().await.unwrap();
    lax_counters[4].3.clear().await.unwrap();
    for (n, prefix, lax, strict) in &lax_counters {
        let expected = if [4, 5].contains(n) { 0 } else { n + 11 };
        for name in &names {
            assert_eq!(strict.get(name).await.unwrap(), expected, "{prefix:?} {name}");
            eventually_reads(&**lax, name, expected).await;
        }
        assert_eq!(lax.del(&names[0]).await.unwrap(), expected, "{prefix:?}");
        assert_eq!(strict.set(&names[0], -1).await.unwrap(), -1, "{prefix:?}");
        eventually_reads(&**lax, &names[0], -1).await;
        lax.shutdown(Duration::from_secs(30)).await.unwrap();
    }
}
