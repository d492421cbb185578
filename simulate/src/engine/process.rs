use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    DistkitError,
    backend::{InstanceBackend, memory::MemoryLink},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use fastrand::Rng;

use super::{
    reference::{Buffered, Contended, Direct},
    wire::Wire,
    world::{
        FRESH, Family, HEAL, LAG, LEASE, Member, PLAIN_KEYS, Parts, ROUND_TRIP, STOCK_KEYS, Slot,
        TRAFFIC_KEYS, World, key,
    },
};

/// One process: its counters of every kind, and the one link that they share.
pub(crate) struct Process {
    pub(crate) slot: usize,
    pub(crate) number: u32,
    pub(crate) name: Arc<str>,
    pub(crate) link: MemoryLink,
    pub(crate) latency: Duration,
    lax: Arc<LaxInstanceAwareCounter>,
    strict: Arc<StrictInstanceAwareCounter>,
    pub(crate) lax_stock: Arc<LaxInstanceAwareCounter>,
    pub(crate) strict_stock: Arc<StrictInstanceAwareCounter>,
    lax_plain: Arc<LaxCounter>,
    strict_plain: Arc<StrictCounter>,
}

impl Process {
    pub(crate) fn start(world: &World, slot: usize, dice: &mut Rng) -> Self {
        let number = world.model().next_process();
        let name: Arc<str> = format!("{}.{number}", lane(slot)).into();
        let link = world.store.link();
        let latency = Duration::from_millis(2 * dice.u64(0..=ROUND_TRIP / 2));
        link.set_latency(latency);
        let wire: Arc<dyn InstanceBackend> = Arc::new(Wire {
            link: link.clone(),
            process: name.clone(),
            trace: world.trace.clone(),
            sabotage: world.config.sabotage,
        });
        // Half of the slots have names, so that a successor takes its predecessor's place.
        let named = slot.is_multiple_of(2);
        let instance_name = |kind: &str| named.then(|| format!("{}-{kind}", lane(slot)));
        let shards = world.config.shards;
        let strict = |family: Family| {
            let mut options = StrictInstanceAwareCounterOptions::new(family.prefix(), wire.clone())
                .shards(shards)
                .dead_instance_threshold_ms(LEASE);
            if let Some(name) = instance_name("strict") {
                options = options.instance_name(key(&name));
            }
            StrictInstanceAwareCounter::new(options)
        };
        let lax = |family: Family| {
            let mut options = LaxInstanceAwareCounterOptions::new(family.prefix(), wire.clone())
                .shards(shards)
                .dead_instance_threshold_ms(LEASE)
                .allowed_lag(Duration::from_millis(LAG))
                .flush_interval(Duration::from_millis(LAG));
            if let Some(name) = instance_name("lax") {
                options = options.instance_name(key(&name));
            }
            LaxInstanceAwareCounter::new(options)
        };
        let plain = CounterOptions::new(key("plain"), wire.clone()).shards(shards);
        let process = Self {
            slot,
            number,
            link,
            latency,
            lax: lax(Family::Traffic),
            strict: strict(Family::Traffic),
            lax_stock: lax(Family::Stock),
            strict_stock: strict(Family::Stock),
            lax_plain: LaxCounter::new(plain.clone().allowed_lag(Duration::from_millis(LAG))),
            strict_plain: StrictCounter::new(plain),
            name,
        };
        process.register(world);
        world.trace.line(&process.name, format_args!("STARTS, round trip {latency:?}"));
        process
    }

    fn register(&self, world: &World) {
        let contended =
            |buffers| Parts::Contended(STOCK_KEYS.map(|k| (k, Contended::new(buffers))).into());
        let buffered = Parts::Buffered(TRAFFIC_KEYS.map(|k| (k, Buffered::default())).into());
        let direct = Parts::Direct(TRAFFIC_KEYS.map(|k| (k, Direct::default())).into());
        let members = [
            (self.lax.instance_id(), Family::Traffic, buffered),
            (self.strict.instance_id(), Family::Traffic, direct),
            (self.lax_stock.instance_id(), Family::Stock, contended(true)),
            (self.strict_stock.instance_id(), Family::Stock, contended(false)),
        ];
        let now = world.now();
        let mut model = world.model();
        for (id, family, parts) in members {
            let (slot, process) = (self.slot, self.number);
            model.members.insert(id.into(), Member { slot, process, family, ends: None, parts });
        }
        model.slots[self.slot] =
            Slot { process: Some(self.number), link: Some(self.link.clone()), ..Slot::default() };
        let node_down = model.node_down.map(|(_, until)| until);
        for until in [model.store_down, node_down].into_iter().flatten() {
            model.trouble(self.slot, now, until);
        }
        model.settle_link(self.slot);
    }

    /// What the service does all day, until it is ended from outside.
    pub(crate) async fn work(self: Arc<Self>, world: Arc<World>, mut dice: Rng) {
        let mut seen: BTreeMap<&'static str, (u64, i64)> = BTreeMap::new();
        let busy = f64::from(dice.u32(50..150)) / 100.0;
        loop {
            // Bursts and pauses.
            let pause = if dice.bool() { dice.u64(0..40) } else { dice.u64(200..6000) };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if world.model().slots[self.slot].hung {
                continue;
            }
            let open = dice.choice(TRAFFIC_KEYS).unwrap_or(TRAFFIC_KEYS[0]);
            match dice.u32(0..100) {
                0..45 => self.traffic(&world, open, busy, &mut dice).await,
                45..55 => self.look(&world, open).await,
                55..67 => self.strict_traffic(&world, open, &mut dice).await,
                67..77 => self.hit(&world, &mut dice).await,
                77..82 => self.strict_hit(&world, &mut dice).await,
                82..88 => self.look_at_hits(&world, &mut seen, &mut dice).await,
                _ => self.trade(&world, &mut dice).await,
            }
        }
    }

    pub(crate) fn told<T: std::fmt::Debug>(
        &self,
        world: &World,
        what: &str,
        answer: &Result<T, DistkitError>,
    ) {
        match answer {
            Ok(answer) => world.trace.line(&self.name, format_args!("{what} = {answer:?}")),
            Err(error) => world.trace.line(&self.name, format_args!("{what} failed: {error}")),
        }
        world.count(&self.name, what, answer);
    }

    /// Opens or closes connections, so that their number follows the time of day.
    async fn traffic(&self, world: &World, name: &'static str, busy: f64, dice: &mut Rng) {
        let day = world.now() as f64 / world.config.length().max(1) as f64;
        let wanted = 60.0 - 40.0 * (day * std::f64::consts::TAU).cos();
        let goal = (wanted * busy) as i64 + dice.i64(-5..=5);
        let missing = goal - self.open(world, name);
        let step = 1 + missing.abs() / 3;
        let count = missing.clamp(-step, step);
        let answer = self.lax.inc(&key(name), count).await;
        self.told(world, &format!("lax {name} {count:+}"), &answer);
        if let Ok((total, own)) = answer {
            let now = world.now();
            if let Parts::Buffered(parts) = &mut world.model().member(self.lax.instance_id()).parts
                && let Some(part) = parts.get_mut(name)
            {
                part.add(now, count);
            }
            self.check_own(world, name, own);
            self.believes(world, name, total);
        }
    }

    fn open(&self, world: &World, name: &str) -> i64 {
        match &world.model().member(self.lax.instance_id()).parts {
            Parts::Buffered(parts) => parts.get(name).map_or(0, Buffered::sum),
            _ => 0,
        }
    }

    async fn look(&self, world: &World, name: &'static str) {
        let answer = self.lax.get(&key(name)).await;
        self.told(world, &format!("lax {name}"), &answer);
        if let Ok((total, own)) = answer {
            self.check_own(world, name, own);
            self.believes(world, name, total);
        }
    }

    /// Read your writes: the own part is what was acknowledged, whatever happened meanwhile.
    fn check_own(&self, world: &World, name: &str, own: i64) {
        let open = self.open(world, name);
        if own != open {
            let who = &self.name;
            world.broken(format!("{who} was told that {own} of {name} are its own; it has {open}"));
        }
    }

    fn believes(&self, world: &World, name: &str, total: i64) {
        if name == TRAFFIC_KEYS[0] {
            world.model().slots[self.slot].belief = Some(total);
        }
    }

    async fn strict_traffic(&self, world: &World, name: &'static str, dice: &mut Rng) {
        let count = dice.i64(-3..=3);
        let id = self.strict.instance_id();
        let change = |work: &mut dyn FnMut(&mut Direct)| {
            if let Parts::Direct(parts) = &mut world.model().member(id).parts
                && let Some(part) = parts.get_mut(name)
            {
                work(part);
            }
        };
        change(&mut |part| part.begin(count));
        let answer = self.strict.inc(&key(name), count).await;
        self.told(world, &format!("strict {name} {count:+}"), &answer);
        match answer {
            Ok((_, slice)) => {
                let mut right = true;
                change(&mut |part| right = part.answered(slice));
                if !right {
                    let who = &self.name;
                    world
                        .broken(format!("{who} was told of an impossible slice {slice} of {name}"));
                }
            }
            Err(error) => change(&mut |part| part.failed(error.may_have_happened())),
        }
    }

    async fn hit(&self, world: &World, dice: &mut Rng) {
        let name = dice.choice(PLAIN_KEYS).unwrap_or(PLAIN_KEYS[0]);
        let count = dice.i64(1..10);
        let answer = self.lax_plain.inc(&key(name), count).await;
        self.told(world, &format!("lax {name} {count:+}"), &answer);
        if answer.is_ok() {
            let now = world.now();
            if let Some(total) = world.model().plain.get_mut(name) {
                total.buffer(self.number, now, count);
            }
        }
    }

    async fn strict_hit(&self, world: &World, dice: &mut Rng) {
        let name = dice.choice(PLAIN_KEYS).unwrap_or(PLAIN_KEYS[0]);
        let count = dice.i64(1..10);
        let mut hit = Hit::begin(world, name, count);
        let answer = self.strict_plain.inc(&key(name), count).await;
        hit.happened = match &answer {
            Ok(_) => Some(true),
            Err(error) => (!error.may_have_happened()).then_some(false),
        };
        self.told(world, &format!("strict {name} {count:+}"), &answer);
    }

    /// Nobody subtracts, so what one process reads never goes down, as long as the store keeps its data.
    async fn look_at_hits(
        &self,
        world: &World,
        seen: &mut BTreeMap<&'static str, (u64, i64)>,
        dice: &mut Rng,
    ) {
        let name = dice.choice(PLAIN_KEYS).unwrap_or(PLAIN_KEYS[0]);
        let answer = self.lax_plain.get(&key(name)).await;
        self.told(world, &format!("lax {name}"), &answer);
        let Ok(total) = answer else { return };
        let lost_at = world.model().lost_at;
        let comparable = |at: u64| lost_at.is_none_or(|lost| at > lost + HEAL);
        if let Some((at, before)) = seen.insert(name, (world.now(), total))
            && comparable(at)
            && total < before
        {
            world.broken(format!("{} read {total} of {name} after {before}", self.name));
        }
    }

    /// Shuts all counters down. What succeeded is certain from now on.
    pub(crate) async fn leave(&self, world: &World) {
        let within = Duration::from_secs(2);
        let mut left = Vec::new();
        for lax in [&self.lax, &self.lax_stock] {
            let answer = lax.shutdown(within).await;
            world.trace.line(&self.name, format_args!("lax shutdown {:?}", answer.is_ok()));
            if answer.is_ok() {
                left.push(lax.instance_id());
            }
        }
        for strict in [&self.strict, &self.strict_stock] {
            let answer = strict.leave().await;
            world.trace.line(&self.name, format_args!("strict leave {:?}", answer.is_ok()));
            if answer.is_ok() {
                left.push(strict.instance_id());
            }
        }
        let flushed = self.lax_plain.shutdown(within).await;
        world.trace.line(&self.name, format_args!("plain shutdown {:?}", flushed.is_ok()));
        let mut model = world.model();
        if flushed.is_ok() {
            let number = self.number;
            model.plain.values_mut().for_each(|total| total.arrived(number, u64::MAX));
        }
        for id in left {
            model.members.remove(id);
        }
    }
}

/// A strict addition under way; when its task is ended, nobody knows what became of it.
struct Hit<'w> {
    world: &'w World,
    name: &'static str,
    count: i64,
    happened: Option<bool>,
}

impl<'w> Hit<'w> {
    fn begin(world: &'w World, name: &'static str, count: i64) -> Self {
        if let Some(total) = world.model().plain.get_mut(name) {
            total.begin(count);
        }
        Self { world, name, count, happened: None }
    }
}

impl Drop for Hit<'_> {
    fn drop(&mut self) {
        if let Some(total) = self.world.model().plain.get_mut(self.name) {
            total.end(self.count, self.happened);
        }
    }
}

/// The slot's place in names and pictures.
pub(crate) fn lane(slot: usize) -> String {
    format!("p{:02}", slot + 1)
}

/// Since when a healthy process's writes may not have arrived.
pub(crate) fn fresh_since(now: u64) -> u64 {
    now.saturating_sub(FRESH)
}
