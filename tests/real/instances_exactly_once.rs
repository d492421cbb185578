//! Every acknowledged write of a lax instance-aware counter is counted once, in the total and in the own
//! slice, whatever happens to the connections and however often the instance expires.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use distkit::{
    DistkitError, RedisKey,
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        LaxInstanceAwareHandle, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};

use crate::{
    exactly_once::{
        Harm, Lax, Load, kill_connections, kill_server, killed_connections, killed_servers,
    },
    support::{Bench, Client, eventually, key, over_both_clients, soak},
};

over_both_clients!(
    connections_are_killed,
    the_server_is_killed,
    instances_are_collected_while_they_write,
);

#[async_trait]
impl Lax for LaxInstanceAwareCounter {
    type Handle = LaxInstanceAwareHandle;

    async fn add(&self, key: &RedisKey, count: i64) -> Result<(), DistkitError> {
        self.inc(key, count).await.map(drop)
    }

    async fn replace(&self, key: &RedisKey, count: i64) -> Option<Result<(), DistkitError>> {
        Some(self.set_on_instance(key, count).await.map(drop))
    }

    async fn hold(&self, key: &RedisKey) -> Result<LaxInstanceAwareHandle, DistkitError> {
        self.handle(key).await
    }

    fn add_through(handle: &LaxInstanceAwareHandle, count: i64) -> Result<(), DistkitError> {
        handle.inc(count).map(drop)
    }

    async fn flush(&self) -> Result<(), DistkitError> {
        self.flush().await
    }

    async fn know(&self, keys: &[&RedisKey]) -> Result<(), DistkitError> {
        self.get_all(keys).await.map(drop)
    }
}

/// No test outlasts it.
const LONG_MS: u64 = 3_600_000;
const SHORT_MS: u64 = 700;

async fn lax(bench: &Bench, lag_ms: u64, threshold_ms: u64) -> Arc<LaxInstanceAwareCounter> {
    let store = bench.client.connect(&bench.server).await;
    let options = LaxInstanceAwareCounterOptions::new(key("bench"), store)
        .allowed_lag(Duration::from_millis(lag_ms))
        .flush_interval(Duration::from_millis(lag_ms))
        .dead_instance_threshold_ms(threshold_ms);
    LaxInstanceAwareCounter::new(options)
}

/// How the store holds one key: the total, and the slices by the ids of their owners.
type Held = (i64, BTreeMap<String, i64>);

/// All keys at one moment, read from beside the crate.
async fn snapshot(bench: &Bench) -> BTreeMap<String, Held> {
    const SCRIPT: &str = "local out = {} \
        for _, name in ipairs(redis.call('KEYS', ARGV[1] .. 'k:*')) do \
            local fields = redis.call('HGETALL', name) \
            for i = 1, #fields, 2 do \
                if tonumber(fields[i]) then \
                    fields[i] = redis.call('HGET', ARGV[1] .. 'inst:' .. fields[i], 'id') or 'nobody' \
                end \
            end \
            out[#out + 1] = { string.sub(name, #ARGV[1] + 3), fields } \
        end return out";
    let all: Vec<(String, Vec<String>)> = redis::cmd("EVAL")
        .arg(SCRIPT)
        .arg(0)
        .arg("distkit:{bench}:i:")
        .query_async(&mut bench.raw().await)
        .await
        .unwrap();
    let held = all.into_iter().map(|(key, fields)| {
        let (mut total, mut slices) = (None, BTreeMap::new());
        for pair in fields.chunks_exact(2) {
            match &*pair[0] {
                "t" => total = pair[1].parse().ok(),
                "e" | "c" => {}
                id => *slices.entry(id.to_owned()).or_default() += pair[1].parse::<i64>().unwrap(),
            }
        }
        (key, (total.unwrap(), slices))
    });
    held.collect()
}

struct Check {
    bench: Bench,
    load: Arc<Load>,
    counters: [Arc<LaxInstanceAwareCounter>; 2],
    other: Arc<StrictInstanceAwareCounter>,
}

impl Check {
    /// Where the numbers that the other instance, the writers and the server have differ from what was
    /// acknowledged.
    async fn differences(&self) -> Result<Vec<String>, DistkitError> {
        let names = self.load.names();
        let mut wrong = Vec::new();
        let mut compare = |whose: &str, n: usize, seen: (i64, i64), expected: (i64, i64)| {
            if seen != expected {
                wrong.push(format!("{}, {whose}: {seen:?}, not {expected:?}", names[n]));
            }
        };
        for (n, (_, answer)) in self.other.get_all(&names).await?.into_iter().enumerate() {
            compare("the other instance", n, answer?, (self.load.sum(n), 0));
        }
        for (process, counter) in self.counters.iter().enumerate() {
            for (n, (_, answer)) in counter.get_all(&names).await?.into_iter().enumerate() {
                let expected = (self.load.sum(n), self.load.part(process, n));
                compare(counter.instance_id(), n, answer?, expected);
            }
        }
        let held = snapshot(&self.bench).await;
        for (n, name) in names.iter().enumerate() {
            let nothing = Held::default();
            let (total, slices) = held.get(&***name).unwrap_or(&nothing);
            for (process, counter) in self.counters.iter().enumerate() {
                let slice = slices.get(counter.instance_id()).copied().unwrap_or(0);
                let expected = (self.load.sum(n), self.load.part(process, n));
                compare("the server", n, (*total, slice), expected);
            }
            let sum: i64 = slices.values().sum();
            compare("the sum of the slices in the server", n, (sum, 0), (*total, 0));
        }
        Ok(wrong)
    }
}

async fn exact_under(bench: Bench, threshold_ms: u64, harm: Harm) {
    let load = Load::of(2);
    let counters = [lax(&bench, 5, threshold_ms).await, lax(&bench, 20, threshold_ms).await];
    let store = bench.client.connect(&bench.server).await;
    let other = StrictInstanceAwareCounter::new(
        StrictInstanceAwareCounterOptions::new(key("bench"), store)
            .dead_instance_threshold_ms(threshold_ms),
    );
    load.run(&bench, &counters, harm).await;
    for counter in &counters {
        eventually("the last flush", async || counter.flush().await.is_ok()).await;
    }
    let check = Check { bench, load, counters, other };
    // A store that still opens its connections again answers later; what is counted twice or lost
    // stays so.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let wrong = check.differences().await.unwrap_or_else(|error| vec![error.to_string()]);
        if wrong.is_empty() {
            break;
        }
        let few = &wrong[..wrong.len().min(10)];
        assert!(tokio::time::Instant::now() < deadline, "{} differ: {few:#?}", wrong.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for counter in &check.counters {
        counter.shutdown(Duration::from_secs(30)).await.unwrap();
    }
    check.other.leave().await.unwrap();
    assert_eq!(snapshot(&check.bench).await, BTreeMap::new(), "who has left leaves nothing");
}

async fn connections_are_killed(client: Client) {
    exact_under(Bench::new(client).await, LONG_MS, killed_connections()).await;
}

async fn the_server_is_killed(client: Client) {
    exact_under(Bench::durable(client).await, LONG_MS, killed_servers()).await;
}

async fn instances_are_collected_while_they_write(client: Client) {
    let bench = Bench::durable(client).await;
    let server = bench.server.clone();
    let harm = Harm {
        every: Duration::from_millis(500),
        length: soak(Duration::from_secs(4)),
        least_rounds: 3,
        // Batches in doubt, and a server that is away until every lease has run out: whoever is the
        // first to come back buries the others.
        work: |bench| {
            Box::pin(async {
                kill_connections(bench).await;
                kill_server(bench, Duration::from_millis(SHORT_MS + 50)).await;
            })
        },
    };
    let deaths = async move || {
        let args = ["HGET", "distkit:{bench}:i:meta", "deaths"];
        server.cli(&args).parse::<u64>().unwrap()
    };
    exact_under(bench, SHORT_MS, harm).await;
    // Three of them are those who left.
    assert!(deaths().await >= 3 + 3, "no instance was collected");
}
