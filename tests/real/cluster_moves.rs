//! Slots that move while they are in use: no answer is another call's, and none comes from half a space.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    CounterComparator,
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Cluster, Server};
use tokio::time::Instant;

use crate::support::{Client, eventually, key, keys, over_both_clients};

over_both_clients!(
    answers_stay_apart_while_another_slot_moves,
    answers_stay_apart_while_another_slot_moves_on_valkey,
    plain_counters_move_with_their_slot,
    plain_counters_move_with_their_slot_on_valkey,
    instances_move_with_their_slot,
    instances_move_with_their_slot_on_valkey,
    everything_survives_a_reshard_and_killed_connections,
    everything_survives_a_reshard_and_killed_connections_on_valkey,
);

const LAG: Duration = Duration::from_millis(10);

async fn blocking<T: Send + 'static>(
    cluster: &Arc<Cluster>,
    work: impl FnOnce(&Cluster) -> T + Send + 'static,
) -> T {
    let cluster = cluster.clone();
    tokio::task::spawn_blocking(move || work(&cluster)).await.unwrap()
}

async fn cluster_of(valkey: bool) -> Arc<Cluster> {
    let start = move || Cluster::of(if valkey { Server::valkey() } else { Server::redis() });
    Arc::new(tokio::task::spawn_blocking(start).await.unwrap())
}

/// Moves every key of the slot of `name` to the next node, a few at a time.
async fn move_slot(cluster: &Arc<Cluster>, name: &'static str) {
    blocking(cluster, move |cluster| {
        let slot = cluster.slot(name);
        let nodes = cluster.open_slot(slot);
        // Meanwhile keys are made on both sides; those of the old side end once it has none.
        while cluster.move_keys(slot, nodes, 20) > 0 {}
        cluster.close_slot(slot, nodes);
    })
    .await;
}

async fn answers_stay_apart_while_another_slot_moves(client: Client) {
    answers_stay_apart(client, false).await;
}

async fn answers_stay_apart_while_another_slot_moves_on_valkey(client: Client) {
    answers_stay_apart(client, true).await;
}

async fn answers_stay_apart(client: Client, valkey: bool) {
    let cluster = cluster_of(valkey).await;
    let store = client.connect_cluster(&cluster).await;
    let quiet = StrictCounter::new(CounterOptions::new(key("quiet"), store.clone()));
    let moved = StrictCounter::new(CounterOptions::new(key("moved"), store));
    let names = keys(16);
    for (n, name) in (1000..).zip(&names) {
        quiet.set(name, n).await.unwrap();
        moved.set(name, -n).await.unwrap();
    }
    let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for (n, name) in (1000..).zip(names.clone()) {
        for (counter, expected, still) in [(quiet.clone(), n, true), (moved.clone(), -n, false)] {
            let (name, over, answers) = (name.clone(), over.clone(), answers.clone());
            tasks.push(tokio::spawn(async move {
                while !over.load(SeqCst) {
                    match counter.get(&name).await {
                        Ok(total) => assert_eq!(total, expected, "{name}"),
                        Err(error) => assert!(!still, "the slot does not move: {error}"),
                    }
                    // Nothing is in stock.
                    let sold = counter.inc_if(&key("stock"), CounterComparator::Gt(0), -1).await;
                    assert!(!matches!(sold, Ok((old, new)) if (old, new) != (0, 0)), "{sold:?}");
                    answers.fetch_add(2, SeqCst);
                }
            }));
        }
    }
    for _ in 0..3 {
        let open = blocking(&cluster, |cluster| {
            let slot = cluster.slot("distkit:{moved}:totals");
            (slot, cluster.open_slot(slot))
        });
        let (slot, nodes) = open.await;
        let before = answers.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(answers.load(SeqCst) > before, "nothing was answered meanwhile");
        blocking(&cluster, move |cluster| {
            while cluster.move_keys(slot, nodes, 1) > 0 {}
            cluster.close_slot(slot, nodes);
        })
        .await;
    }
    over.store(true, SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    println!("{client:?} valkey={valkey}: {} answers, 0 wrong", answers.load(SeqCst));
    for (n, name) in (1000..).zip(&names) {
        assert_eq!(quiet.get(name).await.unwrap(), n);
        assert_eq!(moved.inc(name, 1).await.unwrap(), 1 - n);
    }
}

async fn plain_counters_move_with_their_slot(client: Client) {
    plain_counters_move(client, false).await;
}

async fn plain_counters_move_with_their_slot_on_valkey(client: Client) {
    plain_counters_move(client, true).await;
}

async fn plain_counters_move(client: Client, valkey: bool) {
    let cluster = cluster_of(valkey).await;
    let name = key("hits");
    let strict = StrictCounter::new(CounterOptions::new(
        key("moved"),
        client.connect_cluster(&cluster).await,
    ));
    let lax = LaxCounter::new(
        CounterOptions::new(key("moved"), client.connect_cluster(&cluster).await).allowed_lag(LAG),
    );
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (strict, lax, name, over) = (strict.clone(), lax.clone(), name.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let (mut sure, mut unsure) = (0, 0);
            while !over.load(SeqCst) {
                let added = if n % 4 == 3 {
                    tokio::task::yield_now().await;
                    lax.inc(&name, 1).await.map(drop)
                } else if n % 4 == 2 {
                    strict.inc_if(&name, CounterComparator::Gt(-1), 1).await.map(drop)
                } else {
                    strict.inc(&name, 1).await.map(drop)
                };
                match added {
                    Ok(()) => sure += 1,
                    Err(error) if error.may_have_happened() => unsure += 1,
                    Err(_) => {}
                }
            }
            (sure, unsure)
        }));
    }
    for _ in 0..4 {
        move_slot(&cluster, "distkit:{moved}:totals").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    over.store(true, SeqCst);
    let (mut sure, mut unsure) = (0, 0);
    for task in tasks {
        let (more_sure, more_unsure) = task.await.unwrap();
        sure += more_sure;
        unsure += more_unsure;
    }
    eventually("a flush", async || lax.flush().await.is_ok()).await;
    let total = strict.get(&name).await.unwrap();
    println!("{client:?} valkey={valkey}: {sure} counted, {unsure} unknown, {total} stored");
    assert!((sure..=sure + unsure).contains(&total), "{sure} + {unsure}: {total}");
}

async fn instances_move_with_their_slot(client: Client) {
    instances_move(client, false).await;
}

async fn instances_move_with_their_slot_on_valkey(client: Client) {
    instances_move(client, true).await;
}

async fn instances_move(client: Client, valkey: bool) {
    let cluster = cluster_of(valkey).await;
    let rooms = Arc::new(keys(200));
    let mut instances = Vec::new();
    for _ in 0..3 {
        let store = client.connect_cluster(&cluster).await;
        let options = StrictInstanceAwareCounterOptions::new(key("moved"), store);
        let instance = StrictInstanceAwareCounter::new(options);
        for room in &*rooms {
            instance.inc(room, 100).await.unwrap();
        }
        instances.push(instance);
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for (n, instance) in instances.iter().cloned().enumerate() {
        let (rooms, over) = (rooms.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let (mut answers, mut errors) = (0_u64, 0_u64);
            // What this instance holds of each room: at least, and at most.
            let mut held = vec![(100, 100); rooms.len()];
            for round in 0.. {
                if over.load(SeqCst) {
                    break;
                }
                let at = (round * 7 + n) % rooms.len();
                let (least, most) = &mut held[at];
                let added = i64::from(round % 3 == 0);
                let answer = if added == 1 {
                    instance.inc(&rooms[at], 1).await
                } else {
                    instance.get(&rooms[at]).await
                };
                match answer {
                    Ok((total, slice)) => {
                        (*least, *most) = (*least + added, *most + added);
                        assert!((*least..=*most).contains(&slice), "{slice}: {least} to {most}");
                        (*least, *most) = (slice, slice);
                        assert!(total >= slice + 200, "half of {}: {total}", rooms[at]);
                        answers += 1;
                    }
                    Err(error) => {
                        *most += i64::from(added == 1 && error.may_have_happened());
                        errors += 1;
                    }
                }
            }
            (answers, errors, held)
        }));
    }
    for _ in 0..2 {
        move_slot(&cluster, "distkit:{moved}:i:").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    over.store(true, SeqCst);
    let mut sums = vec![(0, 0); rooms.len()];
    for task in tasks {
        let (answers, errors, held) = task.await.unwrap();
        println!("{client:?} valkey={valkey}: {answers} right answers, {errors} errors");
        assert!(answers > 0);
        for ((least, most), (more_least, more_most)) in sums.iter_mut().zip(held) {
            (*least, *most) = (*least + more_least, *most + more_most);
        }
    }
    for (room, (least, most)) in rooms.iter().zip(sums) {
        let (total, _) = instances[0].get(room).await.unwrap();
        assert!((least..=most).contains(&total), "{room}: {total}, not {least} to {most}");
    }
}

async fn everything_survives_a_reshard_and_killed_connections(client: Client) {
    everything_survives_a_reshard(client, false).await;
}

async fn everything_survives_a_reshard_and_killed_connections_on_valkey(client: Client) {
    everything_survives_a_reshard(client, true).await;
}

/// The slots that each reshard moves: the first ones of a node.
const SLOTS: usize = 40;

/// A prefix in the first slots of node 0, so that the reshard takes it along.
async fn first_prefix(cluster: &Arc<Cluster>) -> String {
    blocking(cluster, |cluster| {
        let first = |name: &String| usize::from(cluster.slot(name)) < SLOTS;
        (0..).map(|n| format!("p{n}")).find(first).unwrap()
    })
    .await
}

/// What a task counted for sure, and what may have been counted besides.
#[derive(Default)]
struct Counted {
    sure: i64,
    unsure: i64,
    slowest: Duration,
}

impl Counted {
    fn note(&mut self, began: Instant, answer: Result<(), distkit::DistkitError>) {
        match answer {
            Ok(()) => self.sure += 1,
            Err(error) if error.may_have_happened() => self.unsure += 1,
            Err(_) => {}
        }
        self.slowest = self.slowest.max(began.elapsed());
    }
}

/// Kills the connections whose last command is one of ours, and not those of the reshard.
fn kill_counters(node: &Server) {
    let listed = node.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
    for line in listed.lines() {
        let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
        if let (Some(id), Some(cmd)) = (word("id="), word("cmd="))
            && (cmd.starts_with("eval") || cmd.starts_with('h'))
        {
            node.cli(&["CLIENT", "KILL", "ID", id]);
        }
    }
}

async fn everything_survives_a_reshard(client: Client, valkey: bool) {
    let cluster = cluster_of(valkey).await;
    let prefix = key(&first_prefix(&cluster).await);
    let rooms = Arc::new(keys(300));
    let over = Arc::new(AtomicBool::new(false));
    let options = CounterOptions::new(prefix.clone(), client.connect_cluster(&cluster).await);
    let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
    let of_instances = StrictInstanceAwareCounterOptions::new(
        prefix.clone(),
        client.connect_cluster(&cluster).await,
    );
    let shared = StrictInstanceAwareCounter::new(of_instances);
    let of_instances =
        LaxInstanceAwareCounterOptions::new(prefix, client.connect_cluster(&cluster).await);
    let shared_lax = LaxInstanceAwareCounter::new(of_instances);
    let mut tasks = Vec::new();
    for kind in [0, 0, 1, 2, 2, 3] {
        let (strict, lax, shared, shared_lax) =
            (strict.clone(), lax.clone(), shared.clone(), shared_lax.clone());
        let (rooms, over) = (rooms.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let mut counted = Counted::default();
            for round in 0.. {
                if over.load(SeqCst) {
                    break;
                }
                let (room, began) = (&rooms[round * 7 % rooms.len()], Instant::now());
                let answer = match kind {
                    0 if round % 2 == 0 => strict.inc(room, 1).await.map(drop),
                    0 => {
                        let any = CounterComparator::Gt(-1);
                        strict.inc_if(room, any, 1).await.map(drop)
                    }
                    1 => lax.inc(room, 1).await.map(drop),
                    2 => shared.inc(room, 1).await.map(drop),
                    _ => shared_lax.inc(room, 1).await.map(drop),
                };
                counted.note(began, answer);
                if kind % 2 == 1 {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
            }
            (kind, counted)
        }));
    }
    let killer = {
        let (cluster, over) = (cluster.clone(), over.clone());
        tokio::spawn(async move {
            while !over.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(150)).await;
                blocking(&cluster, |cluster| {
                    for node in cluster.nodes() {
                        kill_counters(node);
                    }
                })
                .await;
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (from, to) in [(0, 1), (1, 2)] {
        blocking(&cluster, move |cluster| cluster.reshard(from, to, SLOTS)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    over.store(true, SeqCst);
    killer.await.unwrap();
    let mut counted: [Counted; 4] = Default::default();
    for task in tasks {
        let (kind, more) = task.await.unwrap();
        counted[kind].sure += more.sure;
        counted[kind].unsure += more.unsure;
        counted[kind].slowest = counted[kind].slowest.max(more.slowest);
    }
    eventually("the flushes", async || {
        lax.flush().await.is_ok() && shared_lax.flush().await.is_ok()
    })
    .await;
    let [plain, plain_lax, instance, instance_lax] = &counted;
    for (what, counted) in [
        ("strict", plain),
        ("lax", plain_lax),
        ("instance-aware", instance),
        ("lax instance-aware", instance_lax),
    ] {
        let Counted { sure, unsure, slowest } = counted;
        println!("{client:?} valkey={valkey}, {what}: {sure}, {unsure} unknown, {slowest:?}");
        assert!(*sure > 20, "{what}: {sure} were counted");
    }
    let (mut plainly, mut together) = (0, 0);
    for room in &*rooms {
        let mut all = (Err(()), Err(()));
        eventually("an answer", async || {
            all = (
                strict.get(room).await.map_err(drop),
                shared.get(room).await.map(|(total, _)| total).map_err(drop),
            );
            all.0.is_ok() && all.1.is_ok()
        })
        .await;
        plainly += all.0.unwrap();
        together += all.1.unwrap();
    }
    for (total, strict, lax) in [(plainly, plain, plain_lax), (together, instance, instance_lax)] {
        // A buffered addition that was taken is counted once.
        let (sure, unsure) = (strict.sure + lax.sure, strict.unsure);
        assert_eq!(lax.unsure, 0);
        assert!((sure..=sure + unsure).contains(&total), "{sure} + {unsure}: {total}");
    }
}
