//! What the instance-aware counters leave in a server, and what they cost it.
#![cfg(feature = "redis-rs")]
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use distkit::{
    CounterComparator, RedisKey,
    backend::{
        Backend, BackendError, Instance, Member, RedisStore, Scope, Slice, SliceChange, SliceWrite,
        Space, Standing,
    },
};
use distkit_testkit::Server;
use redis::aio::MultiplexedConnection;

const LONG: Duration = Duration::from_secs(3600);

struct Bed {
    server: Server,
    store: RedisStore<MultiplexedConnection>,
    space: Space,
}

impl Bed {
    async fn new() -> Self {
        let server = Server::redis().start();
        let client = redis::Client::open(server.url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        let store = RedisStore::new(connection.await.unwrap());
        Self { server, store, space: Space::new(key("bed")) }
    }

    async fn join(&self, lease: Duration) -> Member {
        let id = self.store.fresh_id();
        let instance = Instance { id, name: None, lease, first_joined: None };
        let joined = self.store.join(&self.space, &instance, &[]).await.unwrap();
        Member { incarnation: joined.incarnation, lease }
    }

    async fn apply(&self, member: &Member, writes: &[SliceWrite]) -> Vec<Standing> {
        let ordered = self.store.apply_on(&self.space, member, writes, None).await.unwrap();
        ordered.answer.outcomes.into_iter().map(|outcome| outcome.unwrap().new).collect()
    }

    /// The lines that the server answers.
    fn lines(&self, args: &[&str]) -> Vec<String> {
        self.server.cli(args).lines().map(str::to_owned).collect()
    }

    fn hash(&self, name: &str) -> BTreeMap<String, String> {
        let lines = self.lines(&["HGETALL", name]);
        lines.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    /// Checks in the server's own data that each total is the sum of its slices and that the index of
    /// each instance names exactly the keys where it has one. Gives how many keys there are.
    fn audit(&self) -> usize {
        let mut indexed = BTreeMap::new();
        let mut counters = 0;
        let mut owned: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in self.lines(&["KEYS", "distkit:{bed}:i:*"]) {
            if let Some(counter) = name.strip_prefix("distkit:{bed}:i:k:") {
                counters += 1;
                let fields = self.hash(&name);
                let mut sum = 0_i128;
                for (field, value) in &fields {
                    if field.starts_with(|c: char| c.is_ascii_digit()) {
                        sum += value.parse::<i128>().unwrap();
                        owned.entry(field.clone()).or_default().push(counter.to_owned());
                    }
                }
                assert_eq!(fields["t"].parse::<i128>().unwrap(), sum, "{counter}: {fields:?}");
            } else if let Some(incarnation) = name.strip_prefix("distkit:{bed}:i:keys:") {
                let mut keys = self.lines(&["SMEMBERS", &name]);
                keys.sort();
                indexed.insert(incarnation.to_owned(), keys);
            }
        }
        owned.values_mut().for_each(|keys| keys.sort());
        assert_eq!(owned, indexed, "the slices of each instance, and its index");
        counters
    }
}

fn key(name: &str) -> RedisKey {
    RedisKey::new(name).unwrap()
}

fn change(key: &RedisKey, change: SliceChange) -> SliceWrite {
    SliceWrite { key: key.clone(), change, condition: CounterComparator::Nil }
}

fn adds(count: usize) -> Vec<SliceWrite> {
    (0..count).map(|n| change(&key(&format!("k{n}")), SliceChange::Add(1))).collect()
}

#[tokio::test]
async fn the_servers_own_data_add_up_after_every_step() {
    let bed = Bed::new().await;
    let members = [bed.join(LONG).await, bed.join(LONG).await, bed.join(LONG).await];
    let keys = [key("a"), key("b")];
    let mut dice = 88_172_645_463_325_252_u64;
    for _ in 0..150 {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let (member, key) = (&members[dice as usize % 3], &keys[(dice >> 8) as usize % 2]);
        let count = (dice >> 16) as i64 % 100;
        let keys = std::slice::from_ref(key);
        match (dice >> 32) % 7 {
            0 | 1 => drop(bed.apply(member, &[change(key, SliceChange::Add(count))]).await),
            2 => drop(bed.apply(member, &[change(key, SliceChange::SetTotal(count))]).await),
            3 => drop(bed.apply(member, &[change(key, SliceChange::SetSlice(count))]).await),
            4 => drop(bed.store.remove_on(&bed.space, member, keys, Scope::Total).await.unwrap()),
            5 => drop(bed.store.remove_on(&bed.space, member, keys, Scope::Slice).await.unwrap()),
            _ => bed.store.clear_on(&bed.space, member, Scope::Slice).await.unwrap(),
        }
        bed.audit();
    }
    bed.apply(&members[0], &adds(700)).await;
    bed.store.clear_on(&bed.space, &members[1], Scope::Total).await.unwrap();
    assert_eq!(bed.audit(), 0, "a clear leaves no counter behind");
    for member in &members {
        bed.apply(member, &adds(3)).await;
        bed.store.leave(&bed.space, member).await.unwrap();
        bed.audit();
    }
    assert_eq!(bed.lines(&["KEYS", "*"]), ["distkit:{bed}:i:meta"]);
}

#[tokio::test]
async fn a_backlog_of_the_dead_goes_bit_by_bit_until_nothing_is_left() {
    const DEAD: usize = 1000;
    const KEYS: usize = 200;
    let bed = Bed::new().await;
    let survivor = bed.join(LONG).await;
    let writes = adds(KEYS);
    bed.apply(&survivor, &writes[..1]).await;
    let mut dead = Vec::new();
    for _ in 0..DEAD {
        let member = bed.join(LONG).await;
        bed.apply(&member, &writes).await;
        dead.push(member);
    }
    bed.server.cli(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    bed.server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
    bed.server.cli(&["SLOWLOG", "RESET"]);
    for member in &dead {
        let last = Member { lease: Duration::from_millis(1), ..*member };
        // Some find those before them dead already, but none itself.
        match bed.store.heartbeat(&bed.space, &last).await {
            Ok(()) | Err(BackendError::NotJoined) => {}
            Err(error) => panic!("{error}"),
        }
    }
    // Exact at first touch, whether one key or all of them.
    tokio::time::timeout(Duration::from_secs(30), async {
        let leases = "distkit:{bed}:i:leases";
        while bed.server.cli(&["ZCARD", leases]) != "1" {
            bed.store.heartbeat(&bed.space, &survivor).await.unwrap();
        }
    })
    .await
    .unwrap();
    assert_eq!(bed.apply(&survivor, &writes[..1]).await[0].total, 2);
    let standings = bed.apply(&survivor, &writes).await;
    let totals: Vec<_> = standings.iter().map(|standing| standing.total).collect();
    assert_eq!((totals[0], &totals[1..]), (3, &*vec![1; KEYS - 1]));
    let mut calls = 0;
    while bed.server.cli(&["EXISTS", "distkit:{bed}:i:dead"]) != "0" {
        bed.store.heartbeat(&bed.space, &survivor).await.unwrap();
        calls += 1;
        assert!(calls < 100_000, "the backlog does not shrink");
    }
    assert_eq!(bed.audit(), KEYS);
    let slow = bed.server.cli(&[
        "EVAL",
        "local worst, n = 0, 0 for _, entry in ipairs(redis.call('SLOWLOG', 'GET', '-1')) do \
            if string.find(entry[4][1], 'EVAL') then n = n + 1 worst = math.max(worst, entry[3]) end \
        end return worst .. ' us, over 1 ms: ' .. n",
        "0",
    ]);
    println!("{calls} more heartbeats until nothing was left; slowest script {slow}");
    bed.store.leave(&bed.space, &survivor).await.unwrap();
    assert_eq!(bed.lines(&["KEYS", "*"]), ["distkit:{bed}:i:meta"]);
}

#[tokio::test]
async fn a_join_brings_fifty_thousand_slices_even_to_a_server_that_forgot_the_scripts() {
    const SLICES: usize = 50_000;
    let bed = Bed::new().await;
    let id = bed.store.fresh_id();
    let mut instance = Instance { id, name: None, lease: LONG, first_joined: None };
    let first = bed.store.join(&bed.space, &instance, &[]).await.unwrap();
    instance.first_joined = Some(first.incarnation);
    let member = Member { incarnation: first.incarnation, lease: LONG };
    let mut claims = Vec::with_capacity(SLICES);
    for writes in adds(SLICES).chunks(1000) {
        for (standing, write) in bed.apply(&member, writes).await.iter().zip(writes) {
            let Standing { epoch, slice, .. } = *standing;
            claims.push(Slice { key: write.key.clone(), epoch, value: slice });
        }
    }
    for flush in [false, true] {
        bed.server.cli(&["SCRIPT", "FLUSH"]);
        if flush {
            bed.server.cli(&["FLUSHALL"]);
        }
        let start = tokio::time::Instant::now();
        let joined = bed.store.join(&bed.space, &instance, &claims).await.unwrap();
        println!("{SLICES} slices put back in {:?}", start.elapsed());
        assert_eq!(joined.standings.len(), SLICES);
        assert!(joined.standings.iter().all(|s| s.as_ref().is_ok_and(|s| s.total == 1)));
        let counted =
            bed.server.cli(&["SCARD", &format!("distkit:{{bed}}:i:keys:{}", joined.incarnation)]);
        assert_eq!(counted, SLICES.to_string());
    }
    bed.server.cli(&["SCRIPT", "FLUSH"]);
    let member = Member {
        incarnation: bed.store.join(&bed.space, &instance, &[]).await.unwrap().incarnation,
        lease: LONG,
    };
    bed.server.cli(&["SCRIPT", "FLUSH"]);
    assert_eq!(bed.apply(&member, &adds(1)).await[0].total, 1);
}

#[tokio::test]
async fn foreign_data_is_named_and_harms_no_other_key() {
    let bed = Bed::new().await;
    let (one, other) = (bed.join(LONG).await, bed.join(LONG).await);
    bed.apply(&one, &adds(3)).await;
    bed.apply(&other, &adds(3)).await;
    let (text, list) = ("distkit:{bed}:i:k:k0", "distkit:{bed}:i:k:k1");
    bed.server.cli(&["HSET", text, "t", "abc"]);
    bed.server.cli(&["DEL", list]);
    bed.server.cli(&["LPUSH", list, "x"]);
    let ordered = bed.store.apply_on(&bed.space, &one, &adds(3), Some(1)).await.unwrap();
    let outcomes = ordered.answer.outcomes;
    for (outcome, found) in outcomes.iter().zip(["abc", "WRONGTYPE"]) {
        let refusal = outcome.as_ref().unwrap_err().to_string();
        assert!(refusal.contains(found), "{refusal}");
    }
    assert_eq!(outcomes[2].as_ref().unwrap().new.total, 3);
    // Collecting goes past what is not ours.
    bed.store.leave(&bed.space, &other).await.unwrap();
    let keys = [key("k0"), key("k1"), key("k2")];
    let read = bed.store.read_on(&bed.space, &one, &keys).await.unwrap().answer;
    assert!(read[0].is_err() && read[1].is_err());
    assert_eq!(read[2].as_ref().unwrap().total, 2);
    let set =
        [change(&keys[0], SliceChange::SetTotal(5)), change(&keys[1], SliceChange::SetTotal(6))];
    let totals: Vec<_> = bed.apply(&one, &set).await.iter().map(|s| s.total).collect();
    assert_eq!(totals, [5, 6], "an assignment replaces it");
    assert_eq!(bed.audit(), 3);
}
