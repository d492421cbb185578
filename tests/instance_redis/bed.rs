use std::{collections::BTreeMap, time::Duration};

use distkit::{
    CounterComparator, RedisKey,
    backend::{
        Backend, Instance, InstanceBackend, Member, RedisStore, Slice, SliceChange, SliceWrite,
        Space, Standing,
    },
};
use distkit_testkit::Server;
use redis::aio::MultiplexedConnection;

pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// For a call that the store makes bit by bit. If one bit were as the one before it, it would never end.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Bed {
    pub(crate) server: Server,
    pub(crate) store: RedisStore<MultiplexedConnection>,
    pub(crate) space: Space,
    /// The store's own connection, for commands from beside the crate.
    pub(crate) raw: MultiplexedConnection,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::on(Server::redis().start()).await
    }

    pub(crate) async fn with_a_clock() -> Self {
        Self::on(Server::redis().manual_clock().start()).await
    }

    async fn on(server: Server) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let raw = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
        Self { server, store: RedisStore::new(raw.clone()), space: Space::new(key("bed")), raw }
    }

    pub(crate) async fn join(&self, lease: Duration) -> Member {
        self.join_with(lease, &[]).await
    }

    pub(crate) async fn join_with(&self, lease: Duration, claims: &[Slice]) -> Member {
        let id = self.store.fresh_id();
        let instance = Instance::new(id, lease);
        let joined = self.store.join(&self.space, &instance, claims).await.unwrap();
        Member { incarnation: joined.incarnation, lease }
    }

    pub(crate) async fn apply(&self, member: &Member, writes: &[SliceWrite]) -> Vec<Standing> {
        let call = self.store.apply_on(&self.space, member, writes, None);
        let ordered = tokio::time::timeout(DEADLINE, call).await.expect("no end").unwrap();
        ordered.answer.outcomes.into_iter().map(|outcome| outcome.unwrap().new).collect()
    }

    /// The lines that the server answers.
    pub(crate) fn lines(&self, args: &[&str]) -> Vec<String> {
        self.server.cli(args).lines().map(str::to_owned).collect()
    }

    /// The names of all keys of instance-aware counters, in order.
    pub(crate) fn names_of_instances(&self) -> Vec<String> {
        let mut names = self.lines(&["KEYS", "*:i:*"]);
        names.sort();
        names
    }

    /// The bytes of all keys.
    pub(crate) fn memory(&self) -> usize {
        const SCRIPT: &str = "local sum = 0 for _, name in ipairs(redis.call('KEYS', '*')) do \
            sum = sum + redis.call('MEMORY', 'USAGE', name, 'SAMPLES', 0) end return sum";
        self.server.cli(&["EVAL", SCRIPT, "0"]).parse().unwrap()
    }

    fn hash(&self, name: &str) -> BTreeMap<String, String> {
        let lines = self.lines(&["HGETALL", name]);
        lines.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    /// Checks in the server's own data that each total is the sum of its slices, or the end of the range that is
    /// nearest to it, that the index of each instance names exactly the keys where it has one, and that epochs
    /// are kept beside the keys of none that is there. Gives how many keys there are.
    pub(crate) fn audit(&self) -> usize {
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
                let total = sum.clamp(i64::MIN.into(), i64::MAX.into());
                assert_eq!(fields["t"].parse::<i128>().unwrap(), total, "{counter}: {fields:?}");
                assert_eq!(fields.contains_key("s"), total != sum, "{counter}: {fields:?}");
            } else if let Some(incarnation) = name.strip_prefix("distkit:{bed}:i:keys:") {
                let mut keys = self.lines(&["SMEMBERS", &name]);
                keys.sort();
                if keys.first().is_some_and(|first| first == ":") {
                    keys.remove(0);
                }
                if keys.is_empty() {
                    continue;
                }
                indexed.insert(incarnation.to_owned(), keys);
            }
        }
        owned.values_mut().for_each(|keys| keys.sort());
        assert_eq!(owned, indexed, "the slices of each instance, and its index");
        for bare in self.lines(&["HKEYS", "distkit:{bed}:i:tombs"]) {
            let there = owned.values().flatten().any(|counter| *counter == bare);
            assert!(!there, "{bare} has slices, and an epoch of a key without");
        }
        counters
    }
}

pub(crate) fn key(name: &str) -> RedisKey {
    RedisKey::new(name).unwrap()
}

pub(crate) fn change(key: &RedisKey, change: SliceChange) -> SliceWrite {
    SliceWrite { key: key.clone(), change, condition: CounterComparator::Nil }
}

pub(crate) fn adds(count: usize) -> Vec<SliceWrite> {
    (0..count).map(|n| change(&key(&format!("k{n}")), SliceChange::Add(1))).collect()
}
