//! Plays a history on a world and writes down the answers.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{
        Applied, BackendError, Epoch, Incarnation, Instance, InstanceBackend, Joined, Member,
        Ordered, Outcome, ReplayGuard, Slice, Space, Standing, Written,
    },
};

use crate::{
    history::{Claims, Number, Step},
    world::{Event, Fault, LINKS, World},
};

/// The instances of a history. The last two claim one name.
pub(crate) const ACTORS: usize = 4;
const NAMES: [Option<&str>; ACTORS] = [None, Some("solo"), Some("pod"), Some("pod")];
const LEASES: [u64; ACTORS] = [1000, 1000, 3000, 1000];

/// In the last one of so many shards. One line for each step. A store makes up its epochs and incarnations as it likes, so they are numbered in the
/// order in which they first appear; the last two lines say in which order the numbers themselves are.
pub(crate) async fn play(
    world: &dyn World,
    prefix: &str,
    shards: u16,
    history: &[Step],
) -> Vec<String> {
    let mut spaces = Space::shards_of(RedisKey::try_from(prefix).unwrap(), shards);
    let mut transcript = Vec::new();
    world.mend();
    open(world, &spaces).await;
    let mut player = Player::new(world, spaces.pop().unwrap());
    for step in history {
        let answer = player.step(step).await;
        transcript.push(format!("{step:?}: {answer}"));
    }
    transcript.push(format!("epochs {:?}", order(&player.names.epochs)));
    transcript.push(format!("incarnations {:?}", order(&player.names.incarnations)));
    transcript
}

/// So that no fault meets the first look at the shape of the spaces, which the simulator does not need.
pub(crate) async fn open(world: &dyn World, spaces: &[Space]) {
    for link in 0..LINKS {
        for space in spaces {
            world.link(link).clear(space).await.unwrap();
        }
    }
}

/// The places of the numbers, least number first.
fn order(numbers: &[u64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..numbers.len()).collect();
    places.sort_by_key(|place| numbers[*place]);
    places
}

#[derive(Default)]
struct Names {
    epochs: Vec<u64>,
    incarnations: Vec<u64>,
}

fn named(known: &mut Vec<u64>, number: u64) -> usize {
    known.iter().position(|known| *known == number).unwrap_or_else(|| {
        known.push(number);
        known.len() - 1
    })
}

impl Names {
    /// The epochs of keys that nobody set or deleted are one: when a turn makes another of it is up to the store.
    fn epoch(&mut self, epoch: u64) -> String {
        match epoch % 2 {
            0 => "no epoch".to_owned(),
            _ => format!("E{}", named(&mut self.epochs, epoch)),
        }
    }

    fn standing(&mut self, standing: &Standing) -> String {
        let Standing { total, slice, epoch: Epoch(epoch) } = standing;
        format!("{total} of which {slice} in {}", self.epoch(*epoch))
    }

    fn written(&mut self, written: &Written<Standing>) -> String {
        let met = if written.condition_met { "" } else { "kept " };
        format!("{met}{} -> {}", self.standing(&written.old), self.standing(&written.new))
    }
}

struct Actor {
    backend: Arc<dyn InstanceBackend>,
    instance: Instance,
    /// None before it has joined.
    member: Option<Member>,
    known: BTreeMap<RedisKey, Slice>,
    former: BTreeMap<RedisKey, Slice>,
    sequence: u64,
}

impl Actor {
    fn learn(&mut self, key: &RedisKey, outcome: Outcome<Standing>) {
        let Ok(Standing { slice: value, epoch, .. }) = outcome else { return };
        let slice = Slice { key: key.clone(), epoch, value };
        if let Some(before) = self.known.insert(key.clone(), slice)
            && before.epoch != epoch
        {
            self.former.insert(key.clone(), before);
        }
    }
}

struct Player<'a> {
    world: &'a dyn World,
    space: Space,
    writer: u64,
    /// The links that were told to lose something.
    lossy: [bool; LINKS],
    actors: Vec<Actor>,
    names: Names,
}

impl<'a> Player<'a> {
    fn new(world: &'a dyn World, space: Space) -> Self {
        let actor = |number: usize| {
            let backend = world.link(number % LINKS);
            let lease = Duration::from_millis(LEASES[number]);
            let instance = Instance {
                name: NAMES[number].map(|name| RedisKey::try_from(name).unwrap()),
                // A few steps of a minute are as long as that.
                max_absence: Duration::from_secs(150),
                ..Instance::new(format!("actor {number}").into(), lease)
            };
            let (known, former) = Default::default();
            Actor { backend, instance, member: None, known, former, sequence: 0 }
        };
        Self {
            world,
            space,
            writer: 0,
            lossy: [false; LINKS],
            actors: (0..ACTORS).map(actor).collect(),
            names: Names::default(),
        }
    }

    async fn step(&mut self, step: &Step) -> String {
        let (world, space) = (self.world, self.space.clone());
        match step {
            Step::Apply { link, writes, guard } => {
                // A batch without a guard is not one request, so how much of it gets lost is open.
                let whole = guard.is_some() || !self.lossy[*link];
                let writes = if whole { writes } else { &writes[..1] };
                let guard = guard.map(|number| ReplayGuard {
                    writer: "writer".into(),
                    sequence: next(&mut self.writer, number),
                    resent: number != Number::Next,
                });
                let answer = world.link(*link).apply(&space, writes, guard.as_ref()).await;
                show(answer, |Applied { replayed, outcomes, .. }| {
                    format!("{}{outcomes:?}", if replayed { "again " } else { "" })
                })
            }
            Step::Read { link, keys } => shown(world.link(*link).read(&space, keys).await),
            Step::Remove { link, keys } => {
                shown(crate::removals::remove(&*world.link(*link), &space, keys).await)
            }
            Step::Clear { link } => shown(world.link(*link).clear(&space).await),
            // The copy of the shape is made again by requests that the simulator does not need.
            Step::World(Event::LoseData) if space.shards() > 1 => "passed over".to_owned(),
            Step::World(event) => {
                if let Event::Strike { link, fault: Fault::LoseRequest | Fault::LoseReply } = event
                {
                    self.lossy[*link] = true;
                }
                event.happen(world, &space).await;
                "done".to_owned()
            }
            Step::Join { actor, claims } => self.join(*actor, *claims).await,
            Step::ApplyOn { actor, .. }
            | Step::ReadOn { actor, .. }
            | Step::RemoveOn { actor, .. }
            | Step::ClearOn { actor, .. }
            | Step::Heartbeat { actor }
            | Step::Leave { actor }
            | Step::SlicesOn { actor, .. } => self.act(*actor, step).await,
        }
    }

    async fn join(&mut self, actor: usize, claims: Claims) -> String {
        let (actor, names) = (&mut self.actors[actor], &mut self.names);
        let claims: Vec<Slice> = match claims {
            Claims::Nothing => Vec::new(),
            Claims::Known => actor.known.values().cloned().collect(),
            Claims::Former => actor.former.values().cloned().collect(),
        };
        let answer = actor.backend.join(&self.space, &actor.instance, &claims).await;
        show(answer, |Joined { incarnation, standings, .. }| {
            actor.instance.first_joined.get_or_insert(incarnation);
            actor.member = Some(Member { incarnation, lease: actor.instance.lease });
            actor.sequence = 0;
            let Incarnation(incarnation) = incarnation;
            let number = named(&mut names.incarnations, incarnation);
            let lines = claims.iter().zip(standings).map(|(claim, standing)| {
                let line = outcome(&standing, |standing| names.standing(standing));
                actor.learn(&claim.key, standing);
                format!("{}: {line}", claim.key)
            });
            format!("I{number} {}", lines.collect::<Vec<_>>().join(", "))
        })
    }

    /// A step of an instance, which joins for it if it never did, and joins again, with what it knows, if it
    /// is told that it must, and if it is not one of those who leave that to steps of their own.
    async fn act(&mut self, number: usize, step: &Step) -> String {
        let mut story = String::new();
        if self.actors[number].member.is_none() {
            story = format!("{}; ", self.join(number, Claims::Nothing).await);
        }
        let Some(answer) = self.act_once(number, step).await else {
            return story + "not a member";
        };
        story += &answer;
        if answer == "NotJoined" && number < 2 {
            story += &format!("; {}", self.join(number, Claims::Known).await);
            if let Some(answer) = self.act_once(number, step).await {
                story += &format!("; {answer}");
            }
        }
        story
    }

    async fn act_once(&mut self, number: usize, step: &Step) -> Option<String> {
        let (space, names) = (&self.space, &mut self.names);
        let actor = &mut self.actors[number];
        let (backend, member) = (actor.backend.clone(), actor.member.clone()?);
        Some(match step {
            Step::ApplyOn { writes, guard, .. } => {
                let sequence = guard.map(|number| next(&mut actor.sequence, number));
                let answer = backend.apply_on(space, &member, writes, sequence).await;
                show(answer, |Ordered { answer: Applied { replayed, outcomes, .. }, .. }| {
                    let lines = writes.iter().zip(outcomes).map(|(write, written)| {
                        let line = outcome(&written, |written| names.written(written));
                        actor.learn(&write.key, written.map(|written| written.new));
                        line
                    });
                    let lines = lines.collect::<Vec<_>>().join(", ");
                    format!("{}{lines}", if replayed { "again " } else { "" })
                })
            }
            Step::ReadOn { keys, .. } => {
                let answer = backend.read_on(space, &member, keys).await;
                show(answer, |Ordered { answer, .. }| {
                    let lines = keys.iter().zip(answer).map(|(key, standing)| {
                        let line = outcome(&standing, |standing| names.standing(standing));
                        actor.learn(key, standing);
                        line
                    });
                    lines.collect::<Vec<_>>().join(", ")
                })
            }
            Step::RemoveOn { keys, scope, .. } => {
                let answer =
                    crate::removals::remove_on(&*backend, space, &member, keys, *scope).await;
                show(answer, |Ordered { answer, .. }| {
                    let lines = keys.iter().zip(answer).map(|(key, written)| {
                        let line = outcome(&written, |written| names.written(written));
                        actor.learn(key, written.map(|written| written.new));
                        line
                    });
                    lines.collect::<Vec<_>>().join(", ")
                })
            }
            Step::ClearOn { scope, .. } => shown(backend.clear_on(space, &member, *scope).await),
            Step::Heartbeat { .. } => shown(backend.heartbeat(space, &member).await),
            Step::Leave { .. } => shown(backend.leave(space, &member).await),
            Step::SlicesOn { key, .. } => shown(backend.slices(space, key).await),
            other => panic!("not an instance's step: {other:?}"),
        })
    }
}

fn next(latest: &mut u64, number: Number) -> u64 {
    match number {
        Number::Next => *latest += 1,
        Number::Same => *latest = (*latest).max(1),
        Number::Former => return latest.saturating_sub(1).max(1),
    }
    *latest
}

fn shown<T: Debug>(answer: Result<T, BackendError>) -> String {
    show(answer, |answer| format!("{answer:?}"))
}

/// Of an error, what its kind is; what it says is the client's business.
fn show<T>(answer: Result<T, BackendError>, show: impl FnOnce(T) -> String) -> String {
    match answer {
        Ok(answer) => show(answer),
        Err(BackendError::NotApplied(_)) => "NotApplied".to_owned(),
        Err(BackendError::OutcomeUnknown(_)) => "OutcomeUnknown".to_owned(),
        Err(BackendError::NotJoined) => "NotJoined".to_owned(),
        Err(BackendError::Replaced) => "Replaced".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn outcome<T>(outcome: &Outcome<T>, show: impl FnOnce(&T) -> String) -> String {
    match outcome {
        Ok(value) => show(value),
        Err(refusal) => format!("refused, {refusal}"),
    }
}
