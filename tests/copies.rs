//! Copies of prefixes with instance-aware counters: the copy answers as the source would.
#![cfg(all(feature = "counter", feature = "instance-aware-counter"))]
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use distkit::{
    DistkitError, RedisKey, Windows,
    backend::{
        BackendError, Incarnation, Instance, InstanceSlice, Member, Scope, Slice, SliceChange,
        SliceWrite, Space, Standing, Store,
        memory::{ManualClock, MemoryBackend},
        transfer::{Export, Part},
    },
    counter::{
        Copied, CounterOptions, CounterTrait, StrictCounter, copy_prefix,
        copy_prefix_without_windows,
    },
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};

const LEASE: Duration = Duration::from_millis(1000);
/// From one shard to several, from several to other ones, to multiples, and back.
const SHAPES: [(u16, u16); 7] = [(1, 1), (1, 3), (3, 7), (3, 6), (7, 7), (6, 4), (3, 1)];

static KEYS: LazyLock<Vec<RedisKey>> =
    LazyLock::new(|| (0..12).map(|n| key(&format!("key-{n}"))).collect());

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn options(store: &Arc<dyn Store>, prefix: &str, shards: u16) -> CounterOptions {
    CounterOptions::new(key(prefix), Arc::clone(store)).shards(shards)
}

/// A store whose clock and whose losses are the test's.
struct World {
    store: Arc<dyn Store>,
    advance: Box<dyn Fn(Duration)>,
    wipe: Box<dyn Fn()>,
}

fn simulated() -> World {
    let clock = ManualClock::new();
    let store = MemoryBackend::with_clock(clock.clone());
    // As a server's: numbers of instances are times.
    clock.advance(Duration::from_secs(1_000_000));
    let wiped = store.clone();
    World {
        store: Arc::new(store),
        advance: Box::new(move |step| clock.advance(step)),
        wipe: Box::new(move || wiped.wipe()),
    }
}

/// A process: what it knows of its membership in each shard, and of its slices.
struct Process {
    instance: Instance,
    members: Vec<Option<Member>>,
    known: BTreeMap<RedisKey, Slice>,
}

/// The processes that use a prefix.
struct Fleet {
    store: Arc<dyn Store>,
    spaces: Vec<Space>,
    processes: Vec<Process>,
}

impl Fleet {
    fn new(store: &Arc<dyn Store>, prefix: &str, shards: u16, max_absence: Duration) -> Self {
        let processes = (0..4).map(|n| Process {
            instance: Instance {
                name: (n % 2 == 0).then(|| key(&format!("pod-{n}"))),
                max_absence,
                ..Instance::new(format!("process-{n}").into(), LEASE)
            },
            members: vec![None; usize::from(shards)],
            known: BTreeMap::new(),
        });
        let spaces = Space::shards_of(key(prefix), shards);
        Self { store: Arc::clone(store), spaces, processes: processes.collect() }
    }

    /// The same processes, as they find another prefix.
    fn moved(&self, prefix: &str, shards: u16) -> Self {
        let processes = self.processes.iter().map(|process| Process {
            instance: process.instance.clone(),
            members: vec![None; usize::from(shards)],
            known: process.known.clone(),
        });
        let spaces = Space::shards_of(key(prefix), shards);
        Self { store: Arc::clone(&self.store), spaces, processes: processes.collect() }
    }

    fn shard_of(&self, key: &RedisKey) -> usize {
        usize::from(Space::shard_of(key, self.spaces.len() as u16))
    }

    /// Joins with all that the process knows, and gives how that stands.
    async fn join(&mut self, who: usize, shard: usize) -> Vec<(RedisKey, Standing)> {
        let of = |key: &RedisKey| self.shard_of(key) == shard;
        let claims: Vec<_> =
            self.processes[who].known.values().filter(|slice| of(&slice.key)).cloned().collect();
        let process = &mut self.processes[who];
        let joined = self.store.join(&self.spaces[shard], &process.instance, &claims).await;
        let joined = joined.unwrap();
        process.instance.first_joined.get_or_insert(joined.incarnation);
        process.members[shard] = Some(Member { incarnation: joined.incarnation, lease: LEASE });
        let keys = claims.into_iter().map(|claim| claim.key);
        let standings = joined.standings.into_iter().map(Result::unwrap);
        let standings: Vec<_> = keys.zip(standings).collect();
        for (key, standing) in &standings {
            self.learn(who, key, standing);
        }
        standings
    }

    fn learn(&mut self, who: usize, key: &RedisKey, standing: &Standing) {
        let (epoch, value) = (standing.epoch, standing.slice);
        self.processes[who].known.insert(key.clone(), Slice { key: key.clone(), epoch, value });
    }

    async fn write(&mut self, who: usize, key: &RedisKey, change: SliceChange) -> Standing {
        let shard = self.shard_of(key);
        loop {
            let Some(member) = self.processes[who].members[shard].clone() else {
                self.join(who, shard).await;
                continue;
            };
            let writes = [SliceWrite::new(key.clone(), change)];
            match self.store.apply_on(&self.spaces[shard], &member, &writes, None).await {
                Ok(ordered) => {
                    let standing = ordered.answer.outcomes[0].as_ref().unwrap().new;
                    self.learn(who, key, &standing);
                    return standing;
                }
                Err(BackendError::NotJoined) => self.processes[who].members[shard] = None,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// As a counter does: all shards.
    async fn clear(&mut self, who: usize) {
        for shard in 0..self.spaces.len() {
            self.beat(who, shard).await;
            if self.processes[who].members[shard].is_none() {
                self.join(who, shard).await;
            }
            let member = self.processes[who].members[shard].clone().unwrap();
            self.store.clear_on(&self.spaces[shard], &member, Scope::Total).await.unwrap();
        }
    }

    async fn leave(&mut self, who: usize, shard: usize) {
        if let Some(member) = self.processes[who].members[shard].take() {
            self.store.leave(&self.spaces[shard], &member).await.unwrap();
        }
    }

    async fn beat(&mut self, who: usize, shard: usize) {
        let Some(member) = self.processes[who].members[shard].clone() else { return };
        if self.store.heartbeat(&self.spaces[shard], &member).await.is_err() {
            self.processes[who].members[shard] = None;
        }
    }

    async fn beat_all(&mut self, who: usize) {
        for shard in 0..self.spaces.len() {
            self.beat(who, shard).await;
        }
    }

    fn is_member_of_all(&self, who: usize) -> bool {
        self.processes[who].members.iter().all(Option::is_some)
    }

    /// What somebody sees who is no member.
    async fn seen(&self) -> Vec<(i64, Vec<InstanceSlice>)> {
        let mut seen = Vec::new();
        for key in &*KEYS {
            let space = &self.spaces[self.shard_of(key)];
            let total = self.store.totals(space, std::slice::from_ref(key)).await.unwrap();
            let slices = self.store.slices(space, key).await.unwrap();
            seen.push((*total[0].as_ref().unwrap(), slices));
        }
        seen
    }

    /// The epochs as they are stored.
    async fn epochs(&self) -> Vec<u64> {
        let transfer = self.store.capabilities().transfer.unwrap();
        let mut epochs = Vec::new();
        for key in &*KEYS {
            let space = &self.spaces[self.shard_of(key)];
            let what = Export::Counters(std::slice::from_ref(key));
            let Part::Counters(held) = transfer.export(space, what).await.unwrap() else {
                panic!()
            };
            epochs.push(held[0].epoch.0);
        }
        epochs
    }
}

/// Plays a random history on one prefix, copies it, and plays on, on both.
async fn a_history(world: &World, seed: u64, (from, to): (u16, u16)) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let (old, new) = (format!("old-{seed}-{from}"), format!("new-{seed}-{to}"));
    // Each shard of a multiple has keys of one only: nothing differs, not even the epochs.
    let exact = to % from == 0;
    let max_absence = if exact { LEASE * dice.u32(3..200) } else { Instance::MAX_ABSENCE };
    let mut source = Fleet::new(&world.store, &old, from, max_absence);
    let shards = usize::from(from);
    let plain = StrictCounter::new(options(&world.store, &old, from));
    for _ in 0..dice.usize(0..120) {
        let (who, shard) = (dice.usize(..4), dice.usize(..shards));
        let key = &KEYS[dice.usize(..KEYS.len())];
        match dice.u32(..100) {
            0..40 => drop(source.write(who, key, SliceChange::Add(dice.i64(-9..9))).await),
            40..50 => drop(source.write(who, key, SliceChange::SetTotal(dice.i64(-9..9))).await),
            50..55 => drop(source.write(who, key, SliceChange::SetSlice(dice.i64(-2..3))).await),
            55..62 => drop(source.write(who, key, SliceChange::Remove).await),
            // Epochs of different shards do not tell which was earlier.
            62..64 if exact => source.clear(who).await,
            64..67 => source.leave(who, shard).await,
            67..69 => {
                (world.wipe)();
                // The clock goes on.
                (world.advance)(Duration::from_millis(1));
            }
            69..72 => drop(plain.inc(key, 1).await.unwrap()),
            72..85 => source.beat(who, shard).await,
            _ => (world.advance)(Duration::from_millis(dice.u64(1..700))),
        }
    }
    if !exact {
        // Else an instance may expire later in the copy than in some of the shards.
        for who in 0..4 {
            source.beat_all(who).await;
        }
    }
    let before = (source.seen().await, source.epochs().await);
    let (from_options, to_options) =
        (options(&world.store, &old, from), options(&world.store, &new, to));
    let copied = copy_prefix(&from_options, &to_options).await.unwrap();
    let mut target = source.moved(&new, to);
    assert_eq!(source.seen().await, before.0, "the source is as it was");
    assert_eq!(source.epochs().await, before.1);
    assert_eq!(target.seen().await, before.0, "seed {seed}: {from} -> {to}");
    if exact {
        assert_eq!(target.epochs().await, before.1, "seed {seed}: {from} -> {to}");
    }
    // Of an instance that is registered although it has no slice, and once more.
    assert_eq!(copy_prefix(&from_options, &to_options).await.unwrap(), copied);

    // Some come back, at once or when others have expired; the others are subtracted.
    for _ in 0..8 {
        (world.advance)(Duration::from_millis(dice.u64(..400)));
        assert_eq!(target.seen().await, source.seen().await, "seed {seed}: {from} -> {to}");
        let who = dice.usize(..4);
        if dice.bool() {
            let mut standings = [BTreeMap::new(), BTreeMap::new()];
            for (fleet, standings) in [&mut source, &mut target].into_iter().zip(&mut standings) {
                for shard in 0..fleet.spaces.len() {
                    standings.extend(fleet.join(who, shard).await);
                }
            }
            let [ours, theirs] = standings;
            for (key, ours) in ours {
                let theirs = theirs[&key];
                let told = format!("seed {seed}: {from} -> {to}, {key}");
                assert_eq!((theirs.total, theirs.slice), (ours.total, ours.slice), "{told}");
                assert!(!exact || theirs.epoch == ours.epoch, "{told}");
            }
            continue;
        }
        // As a process does: an operation renews the lease in one shard.
        if target.is_member_of_all(who) {
            source.beat_all(who).await;
            target.beat_all(who).await;
        }
        if target.is_member_of_all(who) {
            assert!(source.is_member_of_all(who), "seed {seed}: {from} -> {to}");
            let key = &KEYS[dice.usize(..KEYS.len())];
            let change = SliceChange::Add(dice.i64(1..9));
            let (ours, theirs) =
                (source.write(who, key, change).await, target.write(who, key, change).await);
            assert_eq!((theirs.total, theirs.slice), (ours.total, ours.slice), "seed {seed}");
        }
    }
    (world.advance)(LEASE + Duration::from_millis(1));
    assert!(target.seen().await.iter().all(|seen| *seen == (0, Vec::new())), "all have expired");
}

fn histories(ordinary: u64) -> u64 {
    let more = std::env::var("DISTKIT_CASES").ok().and_then(|cases| cases.parse().ok());
    ordinary * more.unwrap_or(1)
}

#[tokio::test]
async fn a_copy_answers_as_the_source_would() {
    for seed in 0..histories(60) {
        for shape in SHAPES {
            a_history(&simulated(), seed, shape).await;
        }
    }
}

/// Counts what `copy_prefix` gives.
fn copied(counters: u64, instance_aware_counters: u64, instances: u64) -> impl Fn(&Copied) -> bool {
    move |copied| {
        (copied.counters, copied.instance_aware_counters, copied.instances)
            == (counters, instance_aware_counters, instances)
    }
}

fn counter(
    store: &Arc<dyn Store>,
    prefix: &str,
    shards: u16,
    name: Option<&str>,
) -> Arc<StrictInstanceAwareCounter> {
    let options = StrictInstanceAwareCounterOptions::new(key(prefix), Arc::clone(store))
        .shards(shards)
        .dead_instance_threshold_ms(3_600_000);
    StrictInstanceAwareCounter::new(match name {
        Some(name) => options.instance_name(key(name)),
        None => options,
    })
}

/// What is larger than a page or a script, in one prefix of each number of shards.
async fn many(store: &Arc<dyn Store>, count: usize) {
    let keys: Vec<_> = (0..count).map(|n| key(&format!("counter {n}"))).collect();
    let (a, b) = (counter(store, "many", 1, Some("pod-a")), counter(store, "many", 1, None));
    for (which, amount) in [(&a, 3), (&b, -1)] {
        let adds: Vec<_> = keys.iter().map(|key| (key, amount)).collect();
        for outcome in which.inc_all(&adds).await.unwrap() {
            outcome.1.unwrap();
        }
    }
    for key in &keys[..count / 2] {
        b.del(key).await.unwrap();
    }
    for (from, to, shards) in
        [("many", "three", (1, 3)), ("three", "seven", (3, 7)), ("seven", "one", (7, 1))]
    {
        let (from, to) = (options(store, from, shards.0), options(store, to, shards.1));
        let answer = copy_prefix(&from, &to).await.unwrap();
        assert!(copied(0, (count - count / 2) as u64, 2)(&answer), "{answer:?}");
    }
    // The next one of that name takes the place of the older one, and what it counted goes with it.
    let next = counter(store, "one", 1, Some("pod-a"));
    assert_eq!(next.inc(&keys[count - 1], 10).await.unwrap(), (9, 10));
    assert_eq!(next.get(&keys[0]).await.unwrap(), (0, 0));
    let left = [a.get(&keys[count - 1]).await.unwrap(), b.get(&keys[count - 1]).await.unwrap()];
    assert_eq!(left, [(2, 3), (2, -1)], "the source is as it was");
}

#[tokio::test(start_paused = true)]
async fn many_counters_are_copied() {
    many(&(Arc::new(MemoryBackend::new()) as Arc<dyn Store>), 3000).await;
}

/// Requests and answers get lost, and the copy is begun again until it succeeds.
#[tokio::test(start_paused = true)]
async fn an_interrupted_copy_is_completed_by_another_one() {
    let store = MemoryBackend::new();
    let link = store.link();
    let store: Arc<dyn Store> = Arc::new(store);
    let a = counter(&store, "old", 3, None);
    let keys: Vec<_> = (0..1500).map(|n| key(&format!("key {n}"))).collect();
    for key in &keys {
        a.inc(key, 2).await.unwrap();
    }
    let from = options(&store, "old", 3);
    let to = options(&(Arc::new(link.clone()) as Arc<dyn Store>), "new", 7);
    let (mut dice, mut failed) = (fastrand::Rng::with_seed(5), 0);
    let answer = loop {
        if failed < 40 {
            link.shard(dice.u16(..7)).lose_next_requests(dice.usize(..2));
            link.shard(dice.u16(..7)).lose_next_replies(1);
        }
        match copy_prefix(&from, &to).await {
            Ok(answer) => break answer,
            Err(_) => failed += 1,
        }
    };
    assert!(failed >= 20, "{failed}");
    assert!(copied(0, 1500, 1)(&answer), "{answer:?}");
    let b = counter(&store, "new", 7, None);
    for key in &keys {
        assert_eq!(b.get(key).await.unwrap(), (2, 0));
    }
    assert_eq!(b.get_instances(&keys[0]).await, 1);
}

trait Instances {
    async fn get_instances(&self, key: &RedisKey) -> usize;
}

impl Instances for StrictInstanceAwareCounter {
    async fn get_instances(&self, key: &RedisKey) -> usize {
        self.slices(key).await.unwrap().len()
    }
}

fn cause(error: &DistkitError) -> String {
    assert!(!error.may_have_happened(), "{error:?}");
    distkit_testkit::chain(error)
}

#[tokio::test(start_paused = true)]
async fn a_prefix_in_use_and_a_target_that_holds_something_else_are_refused() {
    let memory = MemoryBackend::new();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    let (a, n) = (counter(&store, "old", 3, None), key("n"));
    a.inc(&n, 2).await.unwrap();
    let from = options(&store, "old", 3);

    // Somebody counts in the target.
    for (prefix, shards) in [("one", 1), ("seven", 7)] {
        let to = options(&store, prefix, shards);
        let b = counter(&store, prefix, shards, None);
        b.inc(&n, 1).await.unwrap();
        let error = copy_prefix(&from, &to).await.unwrap_err();
        assert!(cause(&error).contains("other slices"), "{error:?}");
        assert_eq!(b.get(&n).await.unwrap(), (1, 1));
    }
    // Also where the source has no instance-aware counters.
    let error = copy_prefix(&options(&store, "empty", 1), &options(&store, "one", 1)).await;
    assert!(cause(&error.unwrap_err()).contains("or is in use"));

    // Somebody has counted in the copy, or in the source, since.
    let to = options(&store, "new", 7);
    copy_prefix(&from, &to).await.unwrap();
    let b = counter(&store, "new", 7, None);
    b.inc(&n, 1).await.unwrap();
    assert!(cause(&copy_prefix(&from, &to).await.unwrap_err()).contains("other slices"));
    let to = options(&store, "other", 7);
    copy_prefix(&from, &to).await.unwrap();
    a.set(&n, 7).await.unwrap();
    assert!(copy_prefix(&from, &to).await.is_err());

    memory.lose_members(&Space::shards_of(key("old"), 3)[usize::from(Space::shard_of(&n, 3))]);
    let error = copy_prefix(&from, &options(&store, "last", 7)).await.unwrap_err();
    assert!(cause(&error).contains("lost"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn windows_are_refused_and_prefixes_that_expire_are_copied() {
    let store: Arc<dyn Store> = Arc::new(MemoryBackend::new());
    let hourly = Windows::every(Duration::from_secs(3600));
    let of = |prefix, shards| options(&store, prefix, shards).windows(hourly);
    let error = copy_prefix(&of("old", 1), &of("new", 3)).await.unwrap_err();
    assert!(cause(&error).contains("windows"), "{error:?}");
    let error = copy_prefix_without_windows(&of("old", 1), &of("new", 3)).await.unwrap_err();
    assert!(cause(&error).contains("windows"), "{error:?}");

    let idle = Duration::from_secs(60);
    let of = |prefix, shards| options(&store, prefix, shards).expire_after(idle);
    StrictCounter::new(of("carts", 1)).inc(&key("n"), 4).await.unwrap();
    let answer = copy_prefix(&of("carts", 1), &of("more-carts", 3)).await.unwrap();
    assert!(copied(1, 0, 0)(&answer), "{answer:?}");
    let counter = StrictCounter::new(of("more-carts", 3));
    assert_eq!(counter.get(&key("n")).await.unwrap(), 4);
    tokio::time::sleep(idle + Duration::from_secs(1)).await;
    assert_eq!(counter.get(&key("n")).await.unwrap(), 0);
}

/// Of windows that only one shard has, and of which the options of the copy say nothing.
async fn windows_beside_plain_counters(store: &Arc<dyn Store>, pass: impl AsyncFn(Duration)) {
    let minute = Duration::from_secs(60);
    for (idle, shards) in [(None, 1), (None, 3), (Some(5 * minute), 1)] {
        let of = |prefix: &str, shards| match idle {
            None => options(store, &format!("{prefix}-{shards}"), shards),
            Some(idle) => options(store, &format!("{prefix}-idle"), shards).expire_after(idle),
        };
        let (from, to) = (of("old", shards), of("new", shards + 2));
        StrictCounter::new(from.clone()).set(&key("n"), 4).await.unwrap();
        let windowed = StrictCounter::new(from.clone().windows(Windows::every(minute).keep(1)));
        windowed.set(&key("m"), 1).await.unwrap();
        let error = copy_prefix(&from, &to).await.unwrap_err();
        assert!(cause(&error).contains("copy_prefix_without_windows"), "{error:?}");
        assert_eq!(StrictCounter::new(to.clone()).get(&key("n")).await.unwrap(), 0, "nothing yet");
        let answer = copy_prefix_without_windows(&from, &to).await.unwrap();
        assert!(copied(1, 0, 0)(&answer), "{answer:?}");
        assert_eq!(StrictCounter::new(to.clone()).get(&key("n")).await.unwrap(), 4);
        assert!(copy_prefix(&from, &to).await.is_err());

        pass(2 * minute).await;
        let answer = copy_prefix(&from, &to).await.unwrap();
        assert!(copied(1, 0, 0)(&answer), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn windows_are_left_behind_only_where_that_is_said() {
    let store: Arc<dyn Store> = Arc::new(MemoryBackend::new());
    windows_beside_plain_counters(&store, tokio::time::sleep).await;
}

/// However long the copy takes, a lease ends when it does in the source, later by one request.
#[tokio::test(start_paused = true)]
async fn a_lease_ends_when_it_does_in_the_source() {
    let memory = MemoryBackend::new();
    let link = memory.link();
    let request = Duration::from_millis(20);
    link.set_latency(request);
    let store: Arc<dyn Store> = Arc::new(memory);
    let mut source = Fleet::new(&store, "old", 1, Instance::MAX_ABSENCE);
    source.write(0, &KEYS[0], SliceChange::Add(2)).await;
    let slow: Arc<dyn Store> = Arc::new(link);
    let begun = tokio::time::Instant::now();
    copy_prefix(&options(&slow, "old", 1), &options(&slow, "new", 1)).await.unwrap();
    assert!(begun.elapsed() > 10 * request && begun.elapsed() < LEASE, "{:?}", begun.elapsed());
    let target = source.moved("new", 1);
    tokio::time::sleep_until(begun + LEASE - Duration::from_millis(1)).await;
    assert_eq!([source.seen().await[0].0, target.seen().await[0].0], [2, 2]);
    tokio::time::sleep(request + Duration::from_millis(1)).await;
    assert_eq!([source.seen().await[0].0, target.seen().await[0].0], [0, 0]);
}

/// A batch that was in flight when the store was copied is counted once in the copy.
#[tokio::test]
async fn a_batch_that_is_sent_again_is_counted_once() {
    let world = simulated();
    let mut source = Fleet::new(&world.store, "old", 1, Instance::MAX_ABSENCE);
    let n = &KEYS[0];
    source.write(0, n, SliceChange::Add(2)).await;
    let member = source.processes[0].members[0].clone().unwrap();
    let batch = [SliceWrite::new(n.clone(), SliceChange::Add(5))];
    // Applied; the answer is lost.
    world.store.apply_on(&source.spaces[0], &member, &batch, Some(1)).await.unwrap();
    copy_prefix(&options(&world.store, "old", 1), &options(&world.store, "new", 1)).await.unwrap();
    let mut target = source.moved("new", 1);
    let space = &target.spaces[0].clone();
    let again = world.store.apply_on(space, &member, &batch, Some(1)).await;
    assert!(matches!(again, Err(BackendError::NotJoined)), "{again:?}");
    let standing = target.join(0, 0).await[0].1;
    assert_eq!((standing.total, standing.slice), (2, 2), "what was acknowledged");
    let member = target.processes[0].members[0].clone().unwrap();
    world.store.apply_on(space, &member, &batch, Some(1)).await.unwrap();
    assert_eq!(target.seen().await[0].0, 7);
    assert!(member.incarnation > Incarnation(0));
}

#[cfg(all(feature = "redis-rs", feature = "fred"))]
mod servers {
    use super::*;
    use distkit::backend::connect;
    use distkit_testkit::Server;

    async fn clocked(server: Server, scheme: &str) -> (World, Arc<Server>) {
        let url = server.url().replacen("redis", scheme, 1);
        let server = Arc::new(server);
        let (advanced, wiped) = (Arc::clone(&server), Arc::clone(&server));
        let world = World {
            store: connect(&url).await.unwrap(),
            advance: Box::new(move |step| advanced.advance(step)),
            wipe: Box::new(move || drop(wiped.cli(&["FLUSHALL"]))),
        };
        (world, server)
    }

    #[tokio::test]
    async fn a_copy_in_a_server_answers_as_the_source_would() {
        for (server, scheme) in [(Server::redis(), "redis"), (Server::valkey(), "redis+fred")] {
            let (world, _server) = clocked(server.manual_clock().start(), scheme).await;
            for seed in 0..histories(6) {
                for shape in SHAPES {
                    a_history(&world, seed, shape).await;
                    (world.wipe)();
                }
            }
        }
    }

    #[tokio::test]
    async fn windows_in_a_server_are_left_behind_only_where_that_is_said() {
        for (server, scheme) in [(Server::redis(), "redis"), (Server::valkey(), "redis+fred")] {
            let (world, _server) = clocked(server.manual_clock().start(), scheme).await;
            let pass = async |time| (world.advance)(time);
            windows_beside_plain_counters(&world.store, pass).await;
        }
    }

    /// More slices than a script reads at once, of which some were put back.
    #[tokio::test]
    async fn a_counter_with_many_slices_is_copied_in_a_server() {
        const SLICES: usize = 700;
        for (server, scheme) in [(Server::redis(), "redis"), (Server::valkey(), "redis+fred")] {
            let (world, server) = clocked(server.manual_clock().start(), scheme).await;
            let (n, space) = (key("n"), Space::new(key("old")));
            let instance = |who: usize| Instance::new(format!("process-{who}").into(), LEASE);
            let mut epoch = None;
            for who in 0..SLICES {
                let joined = world.store.join(&space, &instance(who), &[]).await.unwrap();
                let member = Member { incarnation: joined.incarnation, lease: LEASE };
                let value = if who == 3 { i64::MAX / 2 } else { who as i64 - 2 };
                let write = [SliceWrite::new(n.clone(), SliceChange::Add(value))];
                let applied = world.store.apply_on(&space, &member, &write, None).await.unwrap();
                epoch = Some(applied.answer.outcomes[0].as_ref().unwrap().new.epoch);
            }
            (world.wipe)();
            (world.advance)(Duration::from_millis(1));
            for who in 0..SLICES {
                let value = if who == 3 { i64::MAX / 2 } else { who as i64 - 2 };
                let claims = [Slice { key: n.clone(), epoch: epoch.unwrap(), value }];
                let claims = if who % 3 == 0 { &claims[..] } else { &[] };
                let joined = world.store.join(&space, &instance(who), claims).await.unwrap();
                let member = Member { incarnation: joined.incarnation, lease: LEASE };
                if claims.is_empty() {
                    let write = [SliceWrite::new(n.clone(), SliceChange::Add(value))];
                    world.store.apply_on(&space, &member, &write, None).await.unwrap();
                }
            }
            let source = world.store.slices(&space, &n).await.unwrap();
            assert_eq!(source.len(), SLICES - 1, "one is 0");
            let (from, to) = (options(&world.store, "old", 1), options(&world.store, "new", 1));
            let answer = copy_prefix(&from, &to).await.unwrap();
            assert!(copied(0, 1, SLICES as u64)(&answer), "{answer:?}");
            let of_all = async |prefix| {
                let slices = world.store.slices(&Space::new(key(prefix)), &n).await.unwrap();
                let mut slices: Vec<_> =
                    slices.into_iter().map(|slice| (slice.instance_id, slice.value)).collect();
                slices.sort();
                slices
            };
            assert_eq!(of_all("new").await, of_all("old").await);
            // What was put back, by its value: the incarnations are others.
            let put_back = |prefix| {
                let held = server.cli(&["HGETALL", &format!("distkit:{{{prefix}}}:i:k:n")]);
                let lines: Vec<_> = held.lines().collect();
                let claims = lines.chunks(2).filter(|field| field[0].starts_with('o'));
                let mut claims: Vec<_> = claims.map(|field| field[1].to_owned()).collect();
                claims.sort();
                claims
            };
            assert!(put_back("old").len() > SLICES / 4, "{:?}", put_back("old"));
            assert_eq!(put_back("new"), put_back("old"));
        }
    }

    #[tokio::test]
    async fn many_counters_are_copied_in_a_server() {
        for server in [Server::redis().start(), Server::valkey().start()] {
            let store: Arc<dyn Store> = connect(&server.url()).await.unwrap();
            many(&store, 2000).await;
        }
    }
}
