//! A thousand processes, 64 shards, twelve nodes: what a cluster of that size must keep, in simulated time.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use distkit::{
    RedisKey,
    backend::{
        Backend, InstanceBackend, Space,
        memory::{MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, LaxCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
    },
};
use fastrand::Rng;
use tokio::time::{Instant, sleep};

const PROCESSES: usize = 1000;
const SHARDS: u16 = 64;
const NODES: u16 = 12;
const KEYS: usize = 600;
const LENGTH: u64 = 60_000;
const LEASE: u64 = 10_000;
const LAG: u64 = 20;
/// After so long an acknowledged write is in a healthy shard.
const FRESH: u64 = LAG + 10;
/// After so long a shard is healthy whose node has come back: delays between attempts grow to a second.
const HEAL: u64 = 1500;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn prefix() -> RedisKey {
    key("service")
}

/// What is known of one plain counter.
#[derive(Default)]
struct Total {
    /// Acknowledged writes that are in the store for sure.
    settled: i64,
    /// Those of crashed processes of which nobody can tell.
    doubtful: i64,
    /// The others: when, by whom, and how much.
    recent: Vec<(u64, usize, i64)>,
}

struct World {
    store: MemoryBackend,
    spaces: Vec<Space>,
    keys: Vec<RedisKey>,
    start: Instant,
    over: bool,
    /// Since when a node is unreachable; and since when it was, and when it came back.
    down: BTreeMap<u16, u64>,
    up_again: BTreeMap<u16, (u64, u64)>,
    links: BTreeMap<usize, MemoryLink>,
    totals: Vec<Total>,
    /// The slices of living instances.
    slices: BTreeMap<String, BTreeMap<usize, i64>>,
    stats: Stats,
}

#[derive(Default, Debug)]
struct Stats {
    operations: u64,
    requests: u64,
    crashes: u64,
    departures: u64,
    outages: u64,
    comparisons: u64,
    reads_beside_an_outage: u64,
}

type Shared = Rc<RefCell<World>>;

impl World {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    fn space_of(&self, at: usize) -> &Space {
        &self.spaces[usize::from(Space::shard_of(&self.keys[at], SHARDS))]
    }

    fn node_of(&self, at: usize) -> u16 {
        (u32::from(self.space_of(at).slot()) * u32::from(NODES) / 16_384) as u16
    }

    /// Since when the shard of a key has been unreachable or recovering.
    fn ailing_since(&self, at: usize) -> Option<u64> {
        let node = self.node_of(at);
        self.down.get(&node).copied().or_else(|| self.recovering_since(node))
    }

    fn recovering_since(&self, node: u16) -> Option<u64> {
        let (since, until) = *self.up_again.get(&node)?;
        (until + HEAL > self.now()).then_some(since)
    }

    /// What a process wrote is in the store as far as it can be by now; the rest is in doubt: it has crashed.
    fn crashed(&mut self, process: usize) {
        let now = self.now();
        for at in 0..KEYS {
            let fresh = self.ailing_since(at).unwrap_or(now).min(now).saturating_sub(FRESH);
            let Total { settled, doubtful, recent } = &mut self.totals[at];
            recent.retain(|(when, who, count)| {
                if *who == process {
                    *if *when < fresh { &mut *settled } else { &mut *doubtful } += count;
                }
                *who != process
            });
        }
    }

    fn left(&mut self, process: usize) {
        for Total { settled, recent, .. } in &mut self.totals {
            recent.retain(|(_, who, count)| {
                *settled += if *who == process { *count } else { 0 };
                *who != process
            });
        }
    }
}

/// One process: it counts, then crashes or leaves, and another one takes its place.
async fn process(world: Shared, slot: usize, mut dice: Rng) {
    for generation in 0.. {
        let id = slot + generation * PROCESSES;
        let (link, favourites) = {
            let mut world = world.borrow_mut();
            let link = world.store.link();
            link.set_latency(Duration::from_millis(2 * dice.u64(0..3)));
            for node in world.down.keys() {
                link.cut_node(&world.spaces, *node, NODES);
            }
            world.links.insert(slot, link.clone());
            (link, [(); 4].map(|()| dice.usize(..KEYS)))
        };
        let lag = Duration::from_millis(LAG);
        let plain = CounterOptions::new(prefix(), link.clone()).shards(SHARDS).allowed_lag(lag);
        let plain = LaxCounter::new(plain);
        let shared = LaxInstanceAwareCounterOptions::new(prefix(), link.clone())
            .shards(SHARDS)
            .dead_instance_threshold_ms(LEASE)
            .allowed_lag(lag);
        let shared = LaxInstanceAwareCounter::new(shared);
        let instance = shared.instance_id().to_owned();
        world.borrow_mut().slices.insert(instance.clone(), BTreeMap::new());
        let life = dice.u64(10_000..4 * LENGTH);
        let ends = world.borrow().now() + life;
        loop {
            sleep(Duration::from_millis(dice.u64(300..3000))).await;
            let over = world.borrow().over;
            if over || world.borrow().now() >= ends {
                break;
            }
            let at = favourites[dice.usize(..4)];
            let name = world.borrow().keys[at].clone();
            let count = dice.i64(1..9);
            match dice.u8(..4) {
                0 | 1 => {
                    if plain.inc(&name, count).await.is_ok() {
                        let mut world = world.borrow_mut();
                        let now = world.now();
                        world.totals[at].recent.push((now, id, count));
                    }
                }
                2 => {
                    if shared.inc(&name, count).await.is_ok() {
                        let mut world = world.borrow_mut();
                        *world.slices.get_mut(&instance).unwrap().entry(at).or_default() += count;
                    }
                }
                _ => {
                    let healthy = world.borrow().ailing_since(at).is_none();
                    let read = plain.get(&name).await;
                    let mut world = world.borrow_mut();
                    // It may have become unreachable meanwhile.
                    if healthy && world.ailing_since(at).is_none() {
                        assert!(read.is_ok(), "{name} of a healthy shard: {read:?}");
                        world.stats.reads_beside_an_outage += u64::from(!world.down.is_empty());
                    }
                }
            }
            world.borrow_mut().stats.operations += 1;
        }
        if world.borrow().over {
            // It lives on, until all has been compared.
            while world.borrow().over {
                sleep(Duration::from_secs(1)).await;
            }
            return;
        }
        let leaves = dice.bool();
        if leaves {
            let within = Duration::from_secs(30);
            let flushed = plain.shutdown(within).await.is_ok();
            let left = shared.shutdown(within).await.is_ok();
            let mut world = world.borrow_mut();
            world.stats.departures += 1;
            if flushed {
                world.left(id)
            } else {
                world.crashed(id)
            };
            if left {
                let looks = world.slices.remove(&instance);
                assert!(looks.is_some());
                for space in &world.spaces {
                    let living = world.store.living_instances(space);
                    assert!(living.iter().all(|id| **id != *instance), "{instance} has left");
                }
            }
        } else {
            link.cut();
            world.borrow_mut().stats.crashes += 1;
        }
        {
            let mut world = world.borrow_mut();
            world.crashed(id);
            world.slices.remove(&instance);
            world.stats.requests += link.requests();
        }
        drop((plain, shared));
    }
}

/// Nodes become unreachable for everybody, and come back.
async fn outages(world: Shared, mut dice: Rng) {
    while !world.borrow().over {
        sleep(Duration::from_millis(dice.u64(500..3000))).await;
        let node = dice.u16(..NODES);
        {
            let mut world = world.borrow_mut();
            if world.over || world.down.len() > 2 || world.down.contains_key(&node) {
                continue;
            }
            let since = world.recovering_since(node).unwrap_or(world.now());
            world.down.insert(node, since);
            world.stats.outages += 1;
            world.links.values().for_each(|link| link.cut_node(&world.spaces, node, NODES));
        }
        let world = world.clone();
        let lasts = dice.u64(1000..2 * LEASE);
        tokio::task::spawn_local(async move {
            sleep(Duration::from_millis(lasts)).await;
            let mut world = world.borrow_mut();
            let now = world.now();
            let since = world.down.remove(&node).unwrap_or(now);
            world.up_again.insert(node, (since, now));
            world.links.values().for_each(|link| link.restore_node(&world.spaces, node, NODES));
        });
    }
}

/// Each total of a healthy shard has all that was acknowledged a moment ago, and nothing that was not.
async fn compare(world: &Shared, all: bool, dice: &mut Rng) {
    for at in 0..KEYS {
        if !all && dice.u8(..4) > 0 || world.borrow().ailing_since(at).is_some() {
            continue;
        }
        let (store, space, name) = {
            let world = world.borrow();
            (world.store.clone(), world.space_of(at).clone(), world.keys[at].clone())
        };
        let held = store.read(&space, &[name]).await.unwrap()[0].clone().unwrap();
        let mut world = world.borrow_mut();
        let fresh = world.now().saturating_sub(FRESH);
        let Total { settled, doubtful, recent } = &mut world.totals[at];
        recent.retain(|(when, _, count)| {
            *settled += if *when < fresh { *count } else { 0 };
            *when >= fresh
        });
        let most = *settled + *doubtful + recent.iter().map(|(_, _, count)| count).sum::<i64>();
        assert!((*settled..=most).contains(&held), "key-{at}: {held}, not {settled} to {most}");
        world.stats.comparisons += 1;
    }
}

#[test]
fn a_thousand_processes_on_sixty_four_shards_and_twelve_nodes_keep_the_rules() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let world = Rc::new(RefCell::new(World {
            store: MemoryBackend::new(),
            spaces: Space::shards_of(prefix(), SHARDS),
            keys: (0..KEYS).map(|n| key(&format!("key-{n}"))).collect(),
            start: Instant::now(),
            over: false,
            down: BTreeMap::new(),
            up_again: BTreeMap::new(),
            links: BTreeMap::new(),
            totals: (0..KEYS).map(|_| Total::default()).collect(),
            slices: BTreeMap::new(),
            stats: Stats::default(),
        }));
        let mut dice = Rng::with_seed(64);
        let processes: Vec<_> = (0..PROCESSES)
            .map(|slot| tokio::task::spawn_local(process(world.clone(), slot, dice.fork())))
            .collect();
        let faults = tokio::task::spawn_local(outages(world.clone(), dice.fork()));
        while world.borrow().now() < LENGTH {
            sleep(Duration::from_millis(500)).await;
            compare(&world, false, &mut dice).await;
        }
        world.borrow_mut().over = true;
        faults.await.unwrap();
        // The last outage ends, the last leases run out, all heals.
        sleep(Duration::from_millis(4 * LEASE + HEAL)).await;
        assert!(world.borrow().down.is_empty());
        compare(&world, true, &mut dice).await;
        let (store, spaces) = (world.borrow().store.clone(), world.borrow().spaces.clone());
        let living: BTreeSet<Arc<str>> =
            spaces.iter().flat_map(|space| store.living_instances(space)).collect();
        for id in &living {
            assert!(world.borrow().slices.contains_key(&**id), "{id} is gone since long");
        }
        for at in 0..KEYS {
            let (space, name) = {
                let world = world.borrow();
                (world.space_of(at).clone(), world.keys[at].clone())
            };
            let held = store.slices(&space, &name).await.unwrap();
            let held: BTreeMap<_, _> = held
                .into_iter()
                .filter(|slice| slice.value != 0)
                .map(|slice| (slice.instance_id, slice.value))
                .collect();
            let world = world.borrow();
            let expected = world
                .slices
                .iter()
                .filter_map(|(id, own)| own.get(&at).map(|value| (id.clone(), *value)));
            assert_eq!(held, expected.collect(), "the slices of {name}");
        }
        world.borrow_mut().over = false;
        for process in processes {
            process.await.unwrap();
        }
        let world = world.borrow();
        println!("{:?}, {} living instances", world.stats, living.len());
        let Stats { crashes, departures, outages, comparisons, reads_beside_an_outage, .. } =
            &world.stats;
        assert!(*crashes > 50 && *departures > 50 && *outages > 8 && *comparisons > 10_000);
        assert!(*reads_beside_an_outage > 1000);
    });
}
