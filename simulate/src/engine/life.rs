use std::{sync::Arc, time::Duration};

use distkit::backend::Space;
use fastrand::Rng;
use tokio::task::JoinHandle;

use super::{
    process::Process,
    world::{Family, HEAL, LEASE, LONGEST_TRIP, NODES, ROUND_TRIP, SpanKind, World},
};

/// The processes of one slot, one after the other.
pub(crate) async fn live(world: Arc<World>, slot: usize, mut dice: Rng) {
    loop {
        let process = Arc::new(Process::start(&world, slot, &mut dice));
        let work = tokio::spawn(process.clone().work(world.clone(), dice.fork()));
        let mut life = Life { world: &world, slot, process, work };
        let downtime = loop {
            let quiet = exponential(&mut dice, mean_quiet(&world));
            if sleep(&world, quiet).await {
                // The faults are over; the process goes on.
                std::future::pending::<()>().await;
            }
            match dice.u32(0..100) {
                0..20 => break life.crash(&mut dice),
                20..28 => break life.leave(&mut dice).await,
                28..55 => life.cut(&mut dice).await,
                55..70 => life.hang(&mut dice).await,
                70..80 => life.slow(&mut dice).await,
                _ => life.lose(&mut dice).await,
            }
        };
        drop(life);
        sleep(&world, downtime).await;
    }
}

/// Sleeps, but not beyond the end of all faults. True when that is reached.
async fn sleep(world: &World, time: u64) -> bool {
    let left = world.config.length().saturating_sub(world.now());
    tokio::time::sleep(Duration::from_millis(time.min(left))).await;
    time >= left
}

/// Between the faults of one slot.
fn mean_quiet(world: &World) -> u64 {
    (world.config.length() / 8).clamp(45_000, 7_200_000)
}

fn longest_fault(world: &World) -> u64 {
    (world.config.length() / 12).clamp(45_000, 1_800_000)
}

fn exponential(dice: &mut Rng, mean: u64) -> u64 {
    (-(1.0 - dice.f64()).ln() * mean as f64) as u64
}

/// Short ones are as likely as long ones, whatever the scale, and ends of leases are hit.
fn length_of_fault(dice: &mut Rng, world: &World) -> u64 {
    if dice.u32(0..6) == 0 {
        return LEASE + dice.u64(0..41) - 20;
    }
    let (shortest, longest) = (500_f64, longest_fault(world) as f64);
    (shortest * (longest / shortest).powf(dice.f64())) as u64
}

struct Life<'w> {
    world: &'w World,
    slot: usize,
    process: Arc<Process>,
    work: JoinHandle<()>,
}

impl Life<'_> {
    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.trace.line(&self.process.name, what);
    }

    fn begin(&self, kind: SpanKind, time: u64, trip: u64) -> u64 {
        let (world, now) = (self.world, self.world.now());
        let end = (now + time).min(world.config.length());
        world.span(Some(self.slot), kind, end);
        world.model().trouble(self.slot, now, end + trip);
        end - now
    }

    /// The process is gone from one moment to the next. Answers for how long the slot stays empty.
    fn crash(&mut self, dice: &mut Rng) -> u64 {
        let downtime = if dice.bool() { 0 } else { length_of_fault(dice, self.world) };
        self.note(format_args!("CRASH for {downtime} ms"));
        self.work.abort();
        let now = self.world.now();
        {
            let mut model = self.world.model();
            model.stats.crashes += 1;
            model.slots[self.slot].cut = true;
            model.settle_link(self.slot);
        }
        self.vacate(now, now + LEASE + ROUND_TRIP);
        self.world.span(Some(self.slot), SpanKind::Dead, now + downtime);
        downtime
    }

    /// The process shuts down as it should.
    async fn leave(&mut self, dice: &mut Rng) -> u64 {
        let downtime = length_of_fault(dice, self.world);
        self.note(format_args!("LEAVES for {downtime} ms"));
        self.work.abort();
        _ = (&mut self.work).await;
        self.world.model().stats.departures += 1;
        self.process.leave(self.world).await;
        let now = self.world.now();
        self.vacate(now, now + LEASE + ROUND_TRIP);
        self.world.span(Some(self.slot), SpanKind::Dead, now + downtime);
        downtime
    }

    fn vacate(&self, now: u64, ends: u64) {
        let mut model = self.world.model();
        let number = self.process.number;
        for total in model.plain.values_mut() {
            total.died(number);
        }
        model.process_ends(number, ends);
        let slot = &mut model.slots[self.slot];
        if let Some(link) = slot.link.take() {
            link.cut();
        }
        *slot = super::world::Slot::default();
        drop(model);
        self.note(format_args!("is gone at {now}"));
    }

    async fn cut(&self, dice: &mut Rng) {
        let time = self.begin(SpanKind::Cut, length_of_fault(dice, self.world), 0);
        self.note(format_args!("CUT for {time} ms"));
        self.set_cut(true);
        sleep(self.world, time).await;
        self.set_cut(false);
        self.note(format_args!("RESTORED"));
    }

    fn set_cut(&self, cut: bool) {
        let mut model = self.world.model();
        model.slots[self.slot].cut = cut;
        model.settle_link(self.slot);
    }

    /// Nothing is done, and what is sent by the runtime's own tasks arrives very late.
    async fn hang(&self, dice: &mut Rng) {
        let trip = dice.u64(LEASE / 2..=LONGEST_TRIP);
        let time = self.begin(SpanKind::Hung, length_of_fault(dice, self.world), trip);
        self.note(format_args!("HANGS for {time} ms, round trip {trip} ms"));
        self.world.model().slots[self.slot].hung = true;
        self.process.link.set_latency(Duration::from_millis(trip));
        sleep(self.world, time).await;
        self.process.link.set_latency(self.process.latency);
        self.world.model().slots[self.slot].hung = false;
        self.note(format_args!("GOES ON"));
    }

    async fn slow(&self, dice: &mut Rng) {
        let trip = dice.u64(ROUND_TRIP..3000);
        let time = self.begin(SpanKind::Flaky, length_of_fault(dice, self.world), trip);
        self.note(format_args!("SLOW for {time} ms, round trip {trip} ms"));
        self.process.link.set_latency(Duration::from_millis(trip));
        sleep(self.world, time).await;
        self.process.link.set_latency(self.process.latency);
        self.note(format_args!("FAST"));
    }

    async fn lose(&self, dice: &mut Rng) {
        let (requests, replies) = (dice.usize(0..4), dice.usize(1..6));
        let time = self.begin(SpanKind::Flaky, length_of_fault(dice, self.world), ROUND_TRIP);
        self.note(format_args!("LOSES {requests} requests, {replies} replies within {time} ms"));
        self.process.link.lose_next_requests(requests);
        self.process.link.lose_next_replies(replies);
        sleep(self.world, time).await;
        self.process.link.lose_next_requests(0);
        self.process.link.lose_next_replies(0);
        self.note(format_args!("LOSES no more"));
    }
}

/// Restarts the store now and then, with its data or without.
pub(crate) async fn rule_the_store(world: Arc<World>, mut dice: Rng) {
    let mean = (world.config.length() / 4).clamp(60_000, 6 * 3_600_000);
    loop {
        if sleep(&world, mean / 4 + exponential(&mut dice, mean * 3 / 4)).await {
            return;
        }
        if world.config.shards > 1 && dice.bool() {
            lose_a_node(&world, &mut dice).await;
            continue;
        }
        if dice.bool() {
            shake_the_store(&world, &mut dice);
            continue;
        }
        let loses = dice.bool();
        let now = world.now();
        let end = (now + dice.u64(100..20_000)).min(world.config.length());
        world.trace.line("store", format_args!("DOWN until {end}, loses its data: {loses}"));
        let kind = if loses { SpanKind::StoreLost } else { SpanKind::StoreDown };
        world.span(None, kind, end);
        {
            let mut model = world.model();
            model.store_down = Some(end);
            for slot in 0..model.slots.len() {
                model.trouble(slot, now, end);
                model.settle_link(slot);
            }
            if loses {
                model.stats.data_losses += 1;
                model.lost_at = Some(now);
                model.stock_adrift = true;
                model.plain.values_mut().for_each(|total| total.lost());
                world.store.wipe();
            }
        }
        sleep(&world, end - now).await;
        let mut model = world.model();
        model.store_down = None;
        (0..model.slots.len()).for_each(|slot| model.settle_link(slot));
        drop(model);
        world.trace.line("store", format_args!("UP"));
    }
}

/// Nobody reaches one node of the cluster for a while.
async fn lose_a_node(world: &World, dice: &mut Rng) {
    let (now, node) = (world.now(), dice.u16(..NODES));
    let end = (now + length_of_fault(dice, world)).min(world.config.length());
    world.trace.line("store", format_args!("node {node} is DOWN until {end}"));
    world.span(None, SpanKind::NodeDown, end);
    let settle = |down| {
        let mut model = world.model();
        model.node_down = down;
        for slot in 0..model.slots.len() {
            if down.is_some() {
                model.trouble(slot, now, end);
            }
            model.settle_link(slot);
        }
    };
    settle(Some((node, end)));
    sleep(world, end - now).await;
    settle(None);
    world.trace.line("store", format_args!("node {node} is UP"));
}

/// The store loses who is joined, or its clock makes a step.
fn shake_the_store(world: &World, dice: &mut Rng) {
    const HOUR: Duration = Duration::from_secs(3600);
    let now = world.now();
    // Which of two instances of one name is newer is told by the clocks of the nodes where they joined first. None of
    // them makes such a step.
    let kinds = if world.config.shards > 1 { 1 } else { 3 };
    let (kind, what) = match dice.u32(0..kinds) {
        0 => (SpanKind::Evicted, "LOSES who is joined"),
        1 => (SpanKind::ClockStep, "its clock steps FORWARD"),
        _ => (SpanKind::ClockStep, "its clock steps BACK"),
    };
    world.trace.line("store", format_args!("{what}"));
    world.span(None, kind, now + 1);
    let mut model = world.model();
    // Everybody may have to join anew.
    (0..model.slots.len()).for_each(|slot| model.trouble(slot, now, now + 1));
    // A remaining lease is as long as the lease at most, from the time on when somebody looks.
    for member in model.members.values_mut() {
        if let Some(ends) = &mut member.ends {
            *ends = (*ends).max(now + LEASE + HEAL);
        }
    }
    match what {
        "LOSES who is joined" => {
            for family in [Family::Traffic, Family::Stock] {
                for space in Space::shards_of(family.prefix(), world.config.shards) {
                    world.store.lose_members(&space);
                }
            }
        }
        "its clock steps FORWARD" => world.store.set_clock_forward(HOUR),
        _ => world.store.set_clock_back(HOUR),
    }
}
