//! Every event counts once, whoever counts it and whatever becomes of connections and servers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    RedisKey, Token,
    counter::{CounterTrait, LaxCounter, StrictCounter},
};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    exactly_once::{Harm, killed_connections, killed_servers},
    support::{Bench, Client, eventually, keys, over_both_clients},
};

over_both_clients!(events_while_connections_are_killed, events_while_the_server_is_killed);

/// An event: its number, where it counts, and how much.
fn event(keys: &[RedisKey], number: u64) -> (RedisKey, i64, Token) {
    let place = usize::try_from(number).unwrap() % keys.len();
    let token = Token::new(format!("event {number}")).unwrap();
    (keys[place].clone(), i64::try_from(number % 7).unwrap() - 2, token)
}

#[derive(Default)]
struct Load {
    next: AtomicU64,
    /// Events that some process may have counted.
    begun: Mutex<Vec<u64>>,
    over: AtomicBool,
}

impl Load {
    /// Counts new events and, as often, one that another process has begun.
    async fn count(self: Arc<Self>, counter: Arc<dyn CounterTrait>, keys: Vec<RedisKey>) {
        let mut round = 0;
        while !self.over.load(SeqCst) {
            round += 1;
            let number = {
                let mut begun = self.begun.lock();
                match begun.len() {
                    earlier if round % 2 == 0 && earlier > 0 => begun[(round * 31) % earlier],
                    _ => {
                        let number = self.next.fetch_add(1, SeqCst);
                        begun.push(number);
                        number
                    }
                }
            };
            let (key, amount, token) = event(&keys, number);
            if counter.inc_once(&key, amount, &token).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if round % 16 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

async fn events(bench: Bench, harm: Harm) {
    let load = Arc::new(Load::default());
    let keys = keys(5);
    let mut tasks = JoinSet::new();
    let mut lax = Vec::new();
    for _ in 0..2 {
        let options = bench.options().await;
        let counters: [Arc<dyn CounterTrait>; 2] = {
            let buffered = LaxCounter::new(options.clone());
            lax.push(buffered.clone());
            [StrictCounter::new(options), buffered]
        };
        for counter in counters {
            for _ in 0..4 {
                tasks.spawn(load.clone().count(counter.clone(), keys.clone()));
            }
        }
    }
    let end = Instant::now() + harm.length;
    let mut rounds = 0;
    while Instant::now() < end || rounds < harm.least_rounds {
        tokio::time::sleep(harm.every).await;
        (harm.work)(&bench).await;
        rounds += 1;
    }
    load.over.store(true, SeqCst);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    for counter in &lax {
        let flushed = async || counter.flush().await.is_ok() && counter.stats().pending_keys == 0;
        eventually("all to be flushed", flushed).await;
    }
    // Another process counts all of it again, and so what a call said had failed, too.
    let auditor = bench.strict().await;
    let all = load.next.load(SeqCst);
    assert!(all > 200, "only {all} events");
    let mut sums = vec![0; keys.len()];
    for part in (0..all).collect::<Vec<_>>().chunks(500) {
        let events: Vec<_> = part.iter().map(|number| event(&keys, *number)).collect();
        let items: Vec<_> =
            events.iter().map(|(key, amount, token)| (key, *amount, token)).collect();
        for (number, (_, total)) in part.iter().zip(auditor.inc_once_all(&items).await.unwrap()) {
            total.unwrap();
            let place = usize::try_from(*number).unwrap() % keys.len();
            sums[place] += event(&keys, *number).1;
        }
    }
    for (key, sum) in keys.iter().zip(sums) {
        assert_eq!(bench.held(key).await, sum, "{key}, of {all} events");
    }
    let resent: u64 = lax.iter().map(|counter| counter.stats().resent).sum();
    println!(
        "{:?}: {all} events, {rounds} rounds of harm, {resent} lax requests sent again",
        bench.client
    );
}

async fn events_while_connections_are_killed(client: Client) {
    events(Bench::new(client).await, killed_connections()).await;
}

async fn events_while_the_server_is_killed(client: Client) {
    events(Bench::durable(client).await, killed_servers()).await;
}
