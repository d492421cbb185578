//! Histories of counters instead of stores: what an instance does when it finds itself gone, and what a lax
//! counter sends again, is in them.
//!
//! Counters have timers, and real servers real time. So nothing here is left to a timer: leases and lags are
//! far longer than a history takes, and what failed is flushed until it is settled before the next step.

use std::{fmt::Debug, sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, RedisKey,
    backend::{SliceWrite, Space, Standing, Write},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};
use tokio::time::Instant;

use crate::{
    history::{KEYS, amount, condition, event, key, named, slice_write, write},
    world::{Event, Fault, LINKS, World},
};

/// The processes with instance-aware counters. The last two claim one name, where there is one shard.
const ACTORS: usize = 4;
const NAMES: [Option<&str>; ACTORS] = [None, Some("solo"), Some("pod"), Some("pod")];

const LEASE: u64 = 3_600_000;
const TIMES: [u64; 8] = [1, 1000, LEASE - 1, LEASE, LEASE + 1, 86_399_999, 86_400_000, 86_400_001];

/// Longer than any history takes.
const NEVER: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Strict {
        link: usize,
        call: Call,
    },
    Lax {
        link: usize,
        call: Call,
    },
    Flush {
        link: usize,
    },
    Instance {
        actor: usize,
        call: InstanceCall,
    },
    /// The actor's process dies and another one begins.
    Die {
        actor: usize,
    },
    World(Event),
}

#[derive(Debug, Clone)]
pub(crate) enum Call {
    Inc(RedisKey, i64),
    Dec(RedisKey, i64),
    Get(RedisKey),
    Set(RedisKey, i64),
    Del(RedisKey),
    IncIf(RedisKey, CounterComparator, i64),
    SetIf(RedisKey, CounterComparator, i64),
    WriteAll(Vec<Write>),
    GetAll(Vec<RedisKey>),
    Clear,
}

#[derive(Debug, Clone)]
pub(crate) enum InstanceCall {
    WriteAll(Vec<SliceWrite>),
    Inc(RedisKey, i64),
    Dec(RedisKey, i64),
    Get(RedisKey),
    Del(RedisKey),
    DelOnInstance(RedisKey),
    Clear,
    ClearOnInstance,
    Slices(RedisKey),
    Leave,
}

pub(crate) fn histories() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..LINKS, call()).prop_map(|(link, call)| Step::Strict { link, call }),
        14 => (0..LINKS, call()).prop_map(|(link, call)| Step::Lax { link, call: tame(call) }),
        3 => (0..LINKS).prop_map(|link| Step::Flush { link }),
        30 => (0..ACTORS, instance_call())
            .prop_map(|(actor, call)| Step::Instance { actor, call }),
        2 => (0..ACTORS).prop_map(|actor| Step::Die { actor }),
        20 => event(&KEYS[2..], &TIMES).prop_map(Step::World),
    ];
    vec(step, 1..60)
}

fn call() -> impl Strategy<Value = Call> {
    let conditional = || (key(), condition(), amount());
    prop_oneof![
        6 => (key(), amount()).prop_map(|(key, count)| Call::Inc(key, count)),
        2 => (key(), amount()).prop_map(|(key, count)| Call::Dec(key, count)),
        4 => key().prop_map(Call::Get),
        2 => (key(), amount()).prop_map(|(key, count)| Call::Set(key, count)),
        2 => key().prop_map(Call::Del),
        2 => conditional().prop_map(|(key, condition, count)| Call::IncIf(key, condition, count)),
        2 => conditional().prop_map(|(key, condition, count)| Call::SetIf(key, condition, count)),
        3 => vec(write(), 1..4).prop_map(Call::WriteAll),
        1 => vec(key(), 1..4).prop_map(Call::GetAll),
        1 => Just(Call::Clear),
    ]
}

/// For lax counters, which keep on trying to write where there is foreign text: not in the key under which it
/// is put.
fn tame(call: Call) -> Call {
    let key = |key: RedisKey| if *key == *KEYS[2] { named(KEYS[0]) } else { key };
    match call {
        Call::Inc(name, count) => Call::Inc(key(name), count),
        Call::Dec(name, count) => Call::Dec(key(name), count),
        Call::Get(name) => Call::Get(key(name)),
        Call::Set(name, count) => Call::Set(key(name), count),
        Call::Del(name) => Call::Del(key(name)),
        Call::IncIf(name, condition, count) => Call::IncIf(key(name), condition, count),
        Call::SetIf(name, condition, count) => Call::SetIf(key(name), condition, count),
        Call::WriteAll(writes) => {
            let tame = |write: Write| Write { key: key(write.key.clone()), ..write };
            Call::WriteAll(writes.into_iter().map(tame).collect())
        }
        Call::GetAll(names) => Call::GetAll(names.into_iter().map(key).collect()),
        Call::Clear => Call::Clear,
    }
}

fn instance_call() -> impl Strategy<Value = InstanceCall> {
    prop_oneof![
        6 => vec(slice_write(), 0..4).prop_map(InstanceCall::WriteAll),
        5 => (key(), select(&[1, 2, 5][..]))
            .prop_map(|(key, count)| InstanceCall::Inc(key, count)),
        2 => (key(), amount()).prop_map(|(key, count)| InstanceCall::Dec(key, count)),
        4 => key().prop_map(InstanceCall::Get),
        1 => key().prop_map(InstanceCall::Del),
        2 => key().prop_map(InstanceCall::DelOnInstance),
        1 => Just(InstanceCall::Clear),
        1 => Just(InstanceCall::ClearOnInstance),
        2 => key().prop_map(InstanceCall::Slices),
        1 => Just(InstanceCall::Leave),
    ]
}

/// One line for each step.
pub(crate) async fn play(
    world: &dyn World,
    prefix: &str,
    shards: u16,
    history: &[Step],
) -> Vec<String> {
    world.mend();
    let spaces = Space::shards_of(named(prefix), shards);
    crate::player::open(world, &spaces).await;
    let mut player = Player::new(world, spaces);
    let mut transcript = Vec::new();
    for step in history {
        let answer = player.step(step).await;
        transcript.push(format!("{step:?}: {answer}"));
    }
    // Nothing of this history may reach the server during the next one.
    world.mend();
    player.cut = [false; LINKS];
    for link in 0..LINKS {
        player.flush(link).await;
    }
    transcript
}

struct Player<'a> {
    world: &'a dyn World,
    spaces: Vec<Space>,
    cut: [bool; LINKS],
    lossy: [bool; LINKS],
    strict: Vec<Arc<StrictCounter>>,
    lax: Vec<Arc<LaxCounter>>,
    instances: Vec<Arc<StrictInstanceAwareCounter>>,
}

impl<'a> Player<'a> {
    fn new(world: &'a dyn World, spaces: Vec<Space>) -> Self {
        let one = &spaces[0];
        let options =
            |link| CounterOptions::new(one.prefix().clone(), world.link(link)).shards(one.shards());
        Self {
            world,
            cut: [false; LINKS],
            lossy: [false; LINKS],
            strict: (0..LINKS).map(|link| StrictCounter::new(options(link))).collect(),
            lax: (0..LINKS)
                .map(|link| LaxCounter::new(options(link).allowed_lag(NEVER).evict_after(NEVER)))
                .collect(),
            instances: (0..ACTORS).map(|actor| instance(world, one, actor)).collect(),
            spaces,
        }
    }

    async fn step(&mut self, step: &Step) -> String {
        match step {
            Step::Strict { link, call } => {
                let call = match call {
                    // Not one request, so how much of it gets lost is open.
                    Call::WriteAll(writes) if self.lossy[*link] => {
                        Call::WriteAll(writes[..1].to_vec())
                    }
                    call => call.clone(),
                };
                made(&*self.strict[*link], &call).await
            }
            Step::Lax { link, call } => {
                let answer = made(&*self.lax[*link], call).await;
                if failed(&answer) {
                    self.flush(*link).await;
                }
                answer
            }
            Step::Flush { link } => {
                let answer = shown(self.lax[*link].flush().await);
                if failed(&answer) {
                    self.flush(*link).await;
                }
                answer
            }
            Step::Instance { actor, call } => on_instance(&self.instances[*actor], call).await,
            Step::Die { actor } => {
                self.instances[*actor] = instance(self.world, &self.spaces[0], *actor);
                "done".to_owned()
            }
            // Of the parts of a call any may be the next request.
            Step::World(Event::Strike { fault: Fault::LoseRequest | Fault::LoseReply, .. })
                if self.spaces.len() > 1 =>
            {
                "passed over".to_owned()
            }
            Step::World(event) => {
                let spaces = match event {
                    Event::LoseMembers | Event::LoseGuards => &self.spaces[..],
                    Event::Plant { key, .. } => {
                        let shards = self.spaces[0].shards();
                        std::slice::from_ref(
                            &self.spaces[usize::from(Space::shard_of(key, shards))],
                        )
                    }
                    _ => &self.spaces[..1],
                };
                for space in spaces {
                    event.happen(self.world, space).await;
                }
                match *event {
                    Event::Strike { link, fault: Fault::Cut } => self.cut[link] = true,
                    Event::Strike { link, fault: Fault::Restore } => {
                        self.cut[link] = false;
                        self.flush(link).await;
                    }
                    Event::Strike { link, .. } => self.lossy[link] = true,
                    _ => {}
                }
                "done".to_owned()
            }
        }
    }

    /// Flushes the lax counter of a link until nothing is under way that its own timers would see to.
    async fn flush(&self, link: usize) {
        let start = Instant::now();
        while !self.cut[link] && self.lax[link].flush().await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "a flush that does not settle");
        }
    }
}

fn instance(world: &dyn World, one: &Space, actor: usize) -> Arc<StrictInstanceAwareCounter> {
    let store = world.link(actor % LINKS);
    let mut options = StrictInstanceAwareCounterOptions::new(one.prefix().clone(), store)
        .shards(one.shards())
        .dead_instance_threshold_ms(LEASE);
    // A process that is replaced in one of several shards need not ask the others any more.
    let alone = one.shards() == 1 || actor < ACTORS - 1;
    if let Some(name) = NAMES[actor].filter(|_| alone) {
        options = options.instance_name(named(name));
    }
    StrictInstanceAwareCounter::new(options)
}

async fn made(counter: &dyn CounterTrait, call: &Call) -> String {
    match call {
        Call::Inc(key, count) => shown(counter.inc(key, *count).await),
        Call::Dec(key, count) => shown(counter.dec(key, *count).await),
        Call::Get(key) => shown(counter.get(key).await),
        Call::Set(key, count) => shown(counter.set(key, *count).await),
        Call::Del(key) => shown(counter.del(key).await),
        Call::IncIf(key, condition, count) => shown(counter.inc_if(key, *condition, *count).await),
        Call::SetIf(key, condition, count) => shown(counter.set_if(key, *condition, *count).await),
        Call::WriteAll(writes) => each(counter.write_all(writes).await),
        Call::GetAll(keys) => {
            let keys: Vec<&RedisKey> = keys.iter().collect();
            let answers = counter.get_all(&keys).await;
            each(answers.map(|answers| answers.into_iter().map(|(_, answer)| answer).collect()))
        }
        Call::Clear => shown(counter.clear().await),
    }
}

async fn on_instance(counter: &StrictInstanceAwareCounter, call: &InstanceCall) -> String {
    match call {
        InstanceCall::WriteAll(writes) => {
            let answers = counter.write_all(writes).await;
            // Epochs are numbers that each store makes up as it likes.
            let pair = |standing: Standing| (standing.total, standing.slice);
            shown(answers.map(|outcomes| {
                let outcomes = outcomes.into_iter().map(|outcome| {
                    shown(outcome.map(|written| {
                        (written.condition_met, pair(written.old), pair(written.new))
                    }))
                });
                outcomes.collect::<Vec<_>>()
            }))
        }
        InstanceCall::Inc(key, count) => shown(counter.inc(key, *count).await),
        InstanceCall::Dec(key, count) => shown(counter.dec(key, *count).await),
        InstanceCall::Get(key) => shown(counter.get(key).await),
        InstanceCall::Del(key) => shown(counter.del(key).await),
        InstanceCall::DelOnInstance(key) => shown(counter.del_on_instance(key).await),
        InstanceCall::Clear => shown(counter.clear().await),
        InstanceCall::ClearOnInstance => shown(counter.clear_on_instance().await),
        InstanceCall::Slices(key) => shown(counter.slices(key).await),
        InstanceCall::Leave => shown(counter.leave().await),
    }
}

fn each<T: Debug>(answers: Result<Vec<Result<T, DistkitError>>, DistkitError>) -> String {
    match answers {
        Ok(answers) => answers.into_iter().map(shown).collect::<Vec<_>>().join(", "),
        Err(error) => shown::<T>(Err(error)),
    }
}

/// Of an error, what its kind is; what it says is the client's business.
fn shown<T: Debug>(answer: Result<T, DistkitError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(DistkitError::NotApplied(_)) => NOT_APPLIED.to_owned(),
        Err(DistkitError::OutcomeUnknown(_)) => UNKNOWN.to_owned(),
        Err(DistkitError::InShards { failed, .. }) => {
            let each =
                failed.into_iter().map(|(shard, why)| format!("{shard}: {}", shown::<T>(Err(why))));
            format!("in shards {}", each.collect::<Vec<_>>().join(", "))
        }
        Err(error) => format!("{error:?}"),
    }
}

const NOT_APPLIED: &str = "NotApplied";
const UNKNOWN: &str = "OutcomeUnknown";

fn failed(answer: &str) -> bool {
    answer.contains(NOT_APPLIED) || answer.contains(UNKNOWN)
}
