//! What a token costs a server: its memory and its processor time, alone and in batches.
//!
//! `tokens [tokens per half of keep]`. Any build will do: only the server is measured. Prints a table for
//! `benches/README.md`; exits with 1 where a goal is missed.

use std::{sync::Arc, time::Duration};

use distkit::{
    RedisKey, Token,
    backend::connect,
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use distkit_testkit::Server;
use tokio::task::JoinSet;

const KEEP: Duration = Duration::from_secs(120);
const BATCH: usize = 500;
const ALONE: usize = 10_000;
const KEYS: usize = 1000;
/// Calls of one token each by so many tasks.
const TOGETHER: usize = 100_000;
const TASKS: usize = 64;

struct Bed {
    server: Server,
    counter: Arc<StrictCounter>,
    keys: Vec<RedisKey>,
    next: usize,
    failed: bool,
}

impl Bed {
    /// Microseconds of CPU that the server has used. Its own clock stands still.
    fn cpu(&self) -> f64 {
        let pid = self.server.pid().expect("it runs");
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("Linux");
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("a number") / 1e3
    }

    fn memory(&self) -> f64 {
        let info = self.server.cli(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|bytes| bytes.trim().parse().ok()).expect("a number")
    }

    fn item(&self, number: usize) -> (&RedisKey, Token) {
        let token = Token::new(format!("order {number}")).expect("a valid token");
        (&self.keys[number % KEYS], token)
    }

    /// Counts so many new tokens in batches, and gives the server's time for each.
    async fn batches(&mut self, tokens: usize, first: usize) -> f64 {
        let before = self.cpu();
        let numbers: Vec<_> = (first..first + tokens).collect();
        for batch in numbers.chunks(BATCH) {
            let items: Vec<_> = batch.iter().map(|number| self.item(*number)).collect();
            let items: Vec<_> = items.iter().map(|(key, token)| (*key, 1, token)).collect();
            let answers = self.counter.inc_once_all(&items).await.expect("served");
            assert!(answers.iter().all(|(_, total)| total.is_ok()), "each is counted");
        }
        (self.cpu() - before) / tokens as f64
    }

    async fn alone(&mut self, first: usize) -> f64 {
        let before = self.cpu();
        for number in first..first + ALONE {
            let (key, token) = self.item(number);
            self.counter.inc_once(key, 1, &token).await.expect("served");
        }
        (self.cpu() - before) / ALONE as f64
    }

    /// By tasks that each await one call after the other.
    async fn at_the_same_time(&self, first: usize) -> f64 {
        let before = self.cpu();
        let each = TOGETHER / TASKS;
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let counter = self.counter.clone();
            let own = first + task * each..first + (task + 1) * each;
            let items: Vec<_> = own.map(|number| self.item(number)).collect();
            let items: Vec<_> =
                items.into_iter().map(|(key, token)| (key.clone(), token)).collect();
            tasks.spawn(async move {
                for (key, token) in items {
                    counter.inc_once(&key, 1, &token).await.expect("served");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no task fails");
        }
        (self.cpu() - before) / (each * TASKS) as f64
    }

    async fn incs(&self) -> f64 {
        let before = self.cpu();
        for number in 0..ALONE {
            self.counter.inc(&self.keys[number % KEYS], 1).await.expect("served");
        }
        (self.cpu() - before) / ALONE as f64
    }

    fn goal(&mut self, what: &str, value: f64, at_most: f64) {
        let met = value <= at_most;
        self.failed |= !met;
        let told = if met { "met" } else { "MISSED" };
        println!("goal: {what}: {value:.1}, at most {at_most:.0}: {told}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let tokens = std::env::args().nth(1).map_or(300_000, |n| n.parse().expect("a number"));
    let server = Server::redis().manual_clock().start();
    let store = connect(&server.url()).await.expect("it runs");
    let prefix = RedisKey::try_from("bench").expect("a valid prefix");
    let counter = StrictCounter::new(CounterOptions::new(prefix, store).keep_tokens(KEEP));
    let keys = (0..KEYS).map(|n| RedisKey::try_from(format!("k{n}")).expect("a valid key"));
    let mut bed = Bed { server, counter, keys: keys.collect(), next: 0, failed: false };
    bed.incs().await;
    println!("| | live buckets | server, us a token | bytes a token |\n| --- | --- | --- | --- |");
    let (mut worst, mut bytes) = (0.0_f64, 0.0);
    for half in 0..4 {
        let before = bed.memory();
        let (first, all) = (bed.next, tokens);
        let cost = bed.batches(all, first).await;
        bytes = (bed.memory() - before) / all as f64;
        bed.next += all;
        let live = bed.server.cli(&["HGET", "distkit:{bench}:tok", "live"]);
        let live = live.split(';').count();
        let what = if half < 3 { "new, in batches of 500" } else { "the same, removing old ones" };
        println!("| {what} | {live} | {cost:.1} | {bytes:.0} |");
        worst = worst.max(cost);
        if half == 2 {
            let (first, some) = (bed.next - all, all / 4);
            let cost = bed.batches(some, first).await;
            println!("| replays, in batches of 500 | {live} | {cost:.1} | |");
            let cost = bed.batches(some, 0).await;
            println!("| replays of the oldest | {live} | {cost:.1} | |");
            let first = bed.next;
            let cost = bed.alone(first).await;
            bed.next += ALONE;
            println!("| new, one a request | {live} | {cost:.1} | |");
            let first = bed.next;
            let joined = bed.at_the_same_time(first).await;
            bed.next += TOGETHER;
            println!("| new, one a call by {TASKS} tasks | {live} | {joined:.1} | |");
            bed.goal("us of the server for a token of a joined call", joined, 15.0);
            bed.goal("us of the server for a token alone, with its request", cost, 60.0);
            let inc = bed.incs().await;
            println!("| for comparison: inc, one a request, in a lane | | {inc:.1} | |");
            bed.goal("bytes a token", bytes, 50.0);
        }
        bed.server.advance(KEEP / 2);
    }
    _ = bytes;
    bed.goal("us of the server for a token in a batch", worst, 15.0);
    std::process::exit(i32::from(bed.failed));
}
