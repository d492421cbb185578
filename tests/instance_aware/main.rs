//! What instance-aware counters promise, the same on every store.
#![cfg(feature = "instance-aware-counter")]

mod quiet;
mod world;

use std::time::Duration;

use distkit::{CounterComparator, DistkitError, backend::memory::MemoryBackend};
use distkit_testkit::Server;
use tokio::time::Instant;

use world::{Place, THRESHOLD_MS, World, eventually_reads, key};

async fn a_set_survives_the_expiry_of_older_slices(world: World) {
    let (a, b) = (world.process().await, world.process().await);
    let k = key("k");
    assert_eq!(a.inc(&k, 10).await.unwrap(), (10, 10));
    assert_eq!(b.set(&k, 100).await.unwrap(), (100, 100));
    a.inc(&key("probe"), 1).await.unwrap();
    drop(a);
    eventually_reads(&b, "probe", (0, 0)).await;
    assert_eq!(b.get(&k).await.unwrap(), (100, 100));
    world.check_sum("k", 100);
}

async fn a_del_leaves_nothing_to_subtract(world: World) {
    let (a, b) = (world.process().await, world.process().await);
    let k = key("k");
    a.inc(&k, 10).await.unwrap();
    assert_eq!(b.del(&k).await.unwrap(), (10, 0));
    assert_eq!(b.inc(&k, 5).await.unwrap(), (5, 5));
    a.inc(&key("probe"), 1).await.unwrap();
    drop(a);
    eventually_reads(&b, "probe", (0, 0)).await;
    assert_eq!(b.get(&k).await.unwrap(), (5, 5));
    world.check_sum("k", 5);
}

async fn expired_instances_are_subtracted(world: World) {
    let (a, b) = (world.process().await, world.process().await);
    assert_eq!(a.inc(&key("k"), 10).await.unwrap(), (10, 10));
    assert_eq!(b.inc(&key("k"), 5).await.unwrap(), (15, 5));
    world.check_sum("k", 15);
    drop(a);
    eventually_reads(&b, "k", (5, 5)).await;
    world.check_sum("k", 5);
}

async fn slices_come_back_exactly_once(world: World) {
    for operations in [1, 3] {
        let (a, b) = (world.process().await, world.process().await);
        for (name, count) in [("x", 10), ("y", 20), ("z", -5), ("moved", 7)] {
            a.inc(&key(name), count).await.unwrap();
        }
        a.cut_off();
        for name in ["x", "y", "z", "moved"] {
            eventually_reads(&b, name, (0, 0)).await;
        }
        b.set(&key("moved"), 1).await.unwrap();
        a.reconnect();
        let (x, z) = (key("x"), key("z"));
        match operations {
            1 => assert_eq!(a.inc(&x, 1).await.unwrap(), (11, 11)),
            _ => {
                let (one, two, three) = tokio::join!(a.inc(&x, 1), a.get(&z), a.inc(&x, 0));
                assert_eq!(one.unwrap(), (11, 11));
                assert_eq!(two.unwrap(), (-5, -5));
                assert!([(10, 10), (11, 11)].contains(&three.unwrap()));
            }
        }
        for (name, total) in [("x", 11), ("y", 20), ("z", -5)] {
            assert_eq!(b.get(&key(name)).await.unwrap(), (total, 0), "{name}");
            world.check_sum(name, total);
        }
        assert_eq!(a.get(&key("moved")).await.unwrap(), (1, 0));
        b.clear().await.unwrap();
        a.leave().await.unwrap();
        b.leave().await.unwrap();
    }
}

async fn the_total_is_the_sum_after_every_step(world: World) {
    let mut processes = Vec::new();
    for _ in 0..3 {
        // Nobody is to die here, however slow the machine is.
        processes.push(world.process_with(3_600_000, None).await);
    }
    let keys = ["k", "l"];
    let mut dice = fastrand::Rng::with_seed(7);
    for step in 0..60 {
        let (process, name) = (dice.choice(&processes).unwrap(), dice.choice(keys).unwrap());
        let (k, count) = (key(name), dice.i64(-50..50));
        match dice.u8(0..8) {
            0..3 => drop(process.inc(&k, count).await.unwrap()),
            3 => drop(process.set(&k, count).await.unwrap()),
            4 => drop(process.set_on_instance(&k, count).await.unwrap()),
            5 => drop(process.del_on_instance(&k).await.unwrap()),
            6 => drop(process.del(&k).await.unwrap()),
            _ => process.clear_on_instance().await.unwrap(),
        }
        for name in keys {
            let k = key(name);
            let mut answers = Vec::new();
            for process in &processes {
                answers.push(process.get(&k).await.unwrap());
            }
            let sum: i64 = answers.iter().map(|(_, slice)| slice).sum();
            assert!(answers.iter().all(|(total, _)| *total == sum), "step {step}: {answers:?}");
            let listed = process.slices(&k).await.unwrap();
            assert_eq!(listed.iter().map(|slice| slice.value).sum::<i64>(), sum, "step {step}");
            world.check_sum(name, sum);
        }
    }
}

async fn clear_is_final(world: World) {
    let (a, b, away) = (world.process().await, world.process().await, world.process().await);
    let k = key("k");
    a.inc(&k, 10).await.unwrap();
    b.inc(&k, 7).await.unwrap();
    away.inc(&k, 1000).await.unwrap();
    away.cut_off();
    eventually_reads(&b, "k", (17, 7)).await;
    a.clear().await.unwrap();
    assert_eq!(b.get(&k).await.unwrap(), (0, 0));
    assert_eq!(b.inc(&k, 1).await.unwrap(), (1, 1));
    away.reconnect();
    assert_eq!(away.get(&k).await.unwrap(), (1, 0));
    // Through several heartbeats of everybody.
    for _ in 0..60 {
        assert_eq!(a.get(&k).await.unwrap(), (1, 0));
        assert_eq!(b.get(&k).await.unwrap(), (1, 1));
        tokio::time::sleep(Duration::from_millis(THRESHOLD_MS / 40)).await;
    }
    world.check_sum("k", 1);
}

async fn a_stale_slice_is_worth_nothing(world: World) {
    let (a, b) = (world.process().await, world.process().await);
    let k = key("k");
    a.inc(&k, 10).await.unwrap();
    b.set(&k, 50).await.unwrap();
    assert_eq!(a.get(&k).await.unwrap(), (50, 0));
    assert_eq!(a.del_on_instance(&k).await.unwrap(), (50, 0));
    a.clear_on_instance().await.unwrap();
    assert_eq!(b.get(&k).await.unwrap(), (50, 50));
    assert_eq!(a.inc(&k, 1).await.unwrap(), (51, 1));
    assert_eq!(a.set_on_instance(&k, 4).await.unwrap(), (54, 4));
    assert_eq!(a.del_on_instance(&k).await.unwrap(), (50, 4));
    a.inc(&k, 2).await.unwrap();
    a.clear_on_instance().await.unwrap();
    assert_eq!(b.get(&k).await.unwrap(), (50, 50));
    assert_eq!(b.del(&k).await.unwrap(), (50, 50));
    assert_eq!(a.get(&k).await.unwrap(), (0, 0));
}

async fn lost_data_heals(world: World) {
    let processes = [world.process().await, world.process().await, world.process().await];
    for (process, count) in processes.iter().zip([1, 20, 300]) {
        process.inc(&key("k"), count).await.unwrap();
        process.inc(&key("never set"), count).await.unwrap();
    }
    processes[0].set(&key("k"), 5).await.unwrap();
    processes[1].inc(&key("k"), 2).await.unwrap();
    world.lose_all_data();
    // Nobody but the heartbeats and the one who looks does anything.
    eventually_reads(&processes[2], "k", (7, 0)).await;
    eventually_reads(&processes[2], "never set", (321, 300)).await;
    world.check_sum("k", 7);
}

async fn the_quiet_live(world: World) {
    let a = world.process_with(300, None).await;
    let b = world.process().await;
    a.inc(&key("k"), 3).await.unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    let mut last = Instant::now();
    while last < until {
        let seen = b.get(&key("k")).await.unwrap();
        // Where the machine stood still meanwhile, the heartbeat may only be the next to run.
        if last.elapsed() > Duration::from_millis(100) {
            eventually_reads(&b, "k", (3, 0)).await;
        } else {
            assert_eq!(seen, (3, 0));
        }
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn leaving_takes_effect_at_once(world: World) {
    let (a, b) = (world.process().await, world.process().await);
    a.inc(&key("k"), 3).await.unwrap();
    b.inc(&key("k"), 4).await.unwrap();
    a.leave().await.unwrap();
    assert_eq!(b.get(&key("k")).await.unwrap(), (4, 4));
    assert!(matches!(a.inc(&key("k"), 1).await, Err(DistkitError::ShutDown)));
    a.leave().await.unwrap();
}

async fn a_name_has_one_holder(world: World) {
    let (old, b) = (world.process_with(THRESHOLD_MS, Some("pod-1")).await, world.process().await);
    let k = key("k");
    old.inc(&k, 30).await.unwrap();
    b.inc(&k, 1).await.unwrap();
    let new = world.process_with(THRESHOLD_MS, Some("pod-1")).await;
    assert_eq!(new.inc(&k, 2).await.unwrap(), (3, 2));
    assert!(matches!(old.inc(&k, 1).await, Err(DistkitError::InstanceReplaced)));
    assert!(matches!(old.get(&k).await, Err(DistkitError::InstanceReplaced)));
    assert_eq!(new.get(&k).await.unwrap(), (3, 2));
    let slices = b.slices(&k).await.unwrap();
    assert_eq!(slices.iter().map(|slice| slice.value).sum::<i64>(), 3);
    let named: Vec<_> = slices.iter().filter(|slice| slice.name == Some(key("pod-1"))).collect();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].instance_id, new.instance_id());
}

async fn conditions_and_batches(world: World) {
    use CounterComparator::{Eq, Gt, Lt, Ne};
    let (a, b) = (world.process().await, world.process().await);
    let (k, l) = (key("k"), key("l"));
    a.inc(&k, 10).await.unwrap();
    assert_eq!(b.inc_if(&k, Lt(10), 5).await.unwrap(), ((10, 0), (10, 0)));
    assert_eq!(b.inc_if(&k, Eq(10), 5).await.unwrap(), ((15, 5), (10, 0)));
    assert_eq!(b.set_on_instance_if(&k, Eq(15), 1).await.unwrap(), ((15, 5), (15, 5)));
    assert_eq!(b.set_on_instance_if(&k, Ne(0), 1).await.unwrap(), ((11, 1), (15, 5)));
    assert_eq!(b.set_if(&k, Gt(10), 2).await.unwrap(), ((2, 2), (11, 1)));
    assert_eq!(b.add_within(&k, 5, 0..=4).await.unwrap(), ((4, 4), 2));
    assert_eq!(a.add_within(&k, -9, 3..=9).await.unwrap(), ((3, -1), -1));
    assert_eq!(a.add_within(&k, -9, 3..=9).await.unwrap(), ((3, -1), 0));
    assert_eq!(b.set(&k, 2).await.unwrap(), (2, 2));
    assert_eq!(a.get(&k).await.unwrap(), (2, 0));
    let answers = a.inc_all(&[(&k, 1), (&l, i64::MAX), (&k, 1), (&l, 1)]).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer).collect();
    assert_eq!(answers[0].as_ref().unwrap(), &(3, 1));
    assert_eq!(answers[1].as_ref().unwrap(), &(i64::MAX, i64::MAX));
    assert_eq!(answers[2].as_ref().unwrap(), &(4, 2));
    assert!(matches!(answers[3], Err(DistkitError::CounterError { .. })));
    let slices = a.get_all_on_instance(&[&l, &k]).await.unwrap();
    assert_eq!(slices[0].1.as_ref().unwrap(), &i64::MAX);
    assert_eq!(slices[1].1.as_ref().unwrap(), &2);
    assert!(matches!(a.dec(&k, i64::MIN).await, Err(DistkitError::CounterError { .. })));
    assert_eq!(a.dec(&k, 5).await.unwrap(), (-1, -3));
}

async fn concurrent_operations_lose_nothing(world: World) {
    let processes = [world.process().await, world.process().await];
    let k = key("k");
    let tasks: Vec<_> = processes
        .iter()
        .flat_map(|process| std::iter::repeat_n(process.counter.clone(), 8))
        .map(|counter| {
            let k = k.clone();
            tokio::spawn(async move {
                for _ in 0..25 {
                    counter.inc(&k, 1).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(processes[0].get(&k).await.unwrap(), (400, 200));
    processes[0].cut_off();
    eventually_reads(&processes[1], "k", (200, 200)).await;
    processes[0].reconnect();
    assert_eq!(processes[0].get(&k).await.unwrap(), (400, 200));
    world.check_sum("k", 400);
}

macro_rules! on_every_store {
    ($($body:ident),* $(,)?) => {
        mod on_memory {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $body() {
                super::$body(World { place: Place::Memory(MemoryBackend::new()), lax: false }).await;
            })*

            mod lax {
                use super::*;
                $(#[tokio::test(start_paused = true)]
                async fn $body() {
                    let place = Place::Memory(MemoryBackend::new());
                    super::super::$body(World { place, lax: true }).await;
                })*
            }
        }

        #[cfg(feature = "redis-rs")]
        mod on_redis_rs {
            use super::*;
            $(#[tokio::test]
            async fn $body() {
                let server = Server::redis().start();
                let place = Place::Server { server, scheme: "redis://" };
                super::$body(World { place, lax: false }).await;
            })*

            mod lax {
                use super::*;
                $(#[tokio::test]
                async fn $body() {
                    let server = Server::redis().start();
                    let place = Place::Server { server, scheme: "redis://" };
                    super::super::$body(World { place, lax: true }).await;
                })*
            }
        }

        #[cfg(feature = "fred")]
        mod on_fred {
            use super::*;
            $(#[tokio::test]
            async fn $body() {
                let server = Server::redis().start();
                let place = Place::Server { server, scheme: "redis+fred://" };
                super::$body(World { place, lax: false }).await;
            })*

            mod lax {
                use super::*;
                $(#[tokio::test]
                async fn $body() {
                    let server = Server::redis().start();
                    let place = Place::Server { server, scheme: "redis+fred://" };
                    super::super::$body(World { place, lax: true }).await;
                })*
            }
        }
    };
}

on_every_store!(
    a_set_survives_the_expiry_of_older_slices,
    a_del_leaves_nothing_to_subtract,
    expired_instances_are_subtracted,
    slices_come_back_exactly_once,
    the_total_is_the_sum_after_every_step,
    clear_is_final,
    a_stale_slice_is_worth_nothing,
    lost_data_heals,
    the_quiet_live,
    leaving_takes_effect_at_once,
    a_name_has_one_holder,
    conditions_and_batches,
    concurrent_operations_lose_nothing,
);
