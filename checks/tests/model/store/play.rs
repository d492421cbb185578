use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{
        BackendError, Epoch, Incarnation, Instance, InstanceBackend, Member, Outcome, Refusal,
        ReplayGuard, Slice, SliceWrite, Space, Standing, Write, Written,
    },
};

use super::history::{Guard, Step};
use crate::{
    candidates::{Candidates, EpochNames, Request, sum},
    cases::Story,
    cast::{Key, Who},
    reference::{Answer, Ask, Overflow, Stand, Wrote},
    world::{Fault, Powers, World},
};

/// A client as its process sees itself, in the store's numbers.
struct Client {
    backend: Arc<dyn InstanceBackend>,
    id: String,
    deaths: usize,
    member: Option<Member>,
    former: Option<Member>,
    first: Option<Incarnation>,
    known: BTreeMap<Key, Slice>,
    version: u64,
    /// The latest numbered batch, of plain counters and of shared ones.
    plain_batch: Batch,
    /// The number of the latest batch of plain counters that was sent.
    sent: u64,
    shared_batch: Batch,
}

#[derive(Default)]
struct Batch {
    sequence: u64,
    ask: Option<Ask>,
}

impl Batch {
    /// Numbers a batch, or gives the latest one once more.
    fn number(&mut self, ask: &Ask, guard: Guard) -> Option<(Ask, Option<u64>)> {
        match guard {
            Guard::None => Some((ask.clone(), None)),
            Guard::Next => {
                self.sequence += 1;
                self.ask = Some(ask.clone());
                Some((ask.clone(), Some(self.sequence)))
            }
            Guard::Again => Some((self.ask.clone()?, Some(self.sequence))),
        }
    }
}

impl Client {
    fn new(backend: Arc<dyn InstanceBackend>, who: Who, deaths: usize) -> Self {
        Self {
            backend,
            id: who.id(deaths),
            deaths,
            member: None,
            former: None,
            first: None,
            known: BTreeMap::new(),
            version: 0,
            plain_batch: Batch::default(),
            sent: 0,
            shared_batch: Batch::default(),
        }
    }

    fn forget_membership(&mut self) {
        self.former = self.member.take().or(self.former.take());
        self.shared_batch = Batch::default();
        self.version = 0;
    }
}

/// Plays a history on a world, and gives the transcript.
pub(crate) async fn play(
    world: &impl World,
    prefix: &str,
    history: &[Step],
) -> Result<Vec<String>, String> {
    let mut player = Player::new(world, prefix);
    for step in history {
        if let Err(why) = player.step(step).await {
            return Err(player.story.ends(why));
        }
    }
    match player.audit().await {
        Ok(()) => Ok(player.story.into_lines()),
        Err(why) => Err(player.story.ends(why)),
    }
}

struct Player<'a, W> {
    world: &'a W,
    powers: Powers,
    space: Space,
    clients: Vec<Client>,
    candidates: Candidates,
    cut: [bool; Who::ALL.len()],
    denied: [bool; Who::ALL.len()],
    losing: [Option<Fault>; Who::ALL.len()],
    last_incarnation: u64,
    epochs: EpochNames,
    story: Story,
}

impl<'a, W: World> Player<'a, W> {
    fn new(world: &'a W, prefix: &str) -> Self {
        let clients = Who::ALL.map(|who| Client::new(world.link(who), who, 0)).into();
        Self {
            world,
            powers: world.powers(),
            space: Space::new(RedisKey::try_from(prefix).unwrap()),
            clients,
            candidates: Candidates::new(),
            cut: Default::default(),
            denied: Default::default(),
            losing: Default::default(),
            last_incarnation: 0,
            epochs: EpochNames::default(),
            story: Story::default(),
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Call(who, ask, guard) => return self.call(*who, ask, *guard).await,
            Step::Wait(ms) => {
                self.world.advance(Duration::from_millis(*ms)).await;
                self.candidates.each(|candidate| candidate.wait(*ms));
            }
            Step::Fault(who, fault) => {
                let possible = match fault {
                    Fault::Cut | Fault::Restored => self.powers.cut,
                    // What is denied arrives.
                    Fault::Denied => self.powers.cut && self.losing[*who as usize].is_none(),
                    // One at a time, so that what is lost is never in doubt for long.
                    Fault::LosesRequest | Fault::LosesReply => {
                        let at = *who as usize;
                        self.powers.lose && self.losing[at].is_none() && !self.denied[at]
                    }
                };
                if !possible {
                    return Ok(());
                }
                self.fault(*who, *fault);
            }
            Step::Dies(who) => {
                let client = &mut self.clients[*who as usize];
                *client = Client::new(client.backend.clone(), *who, client.deaths + 1);
                self.candidates.each(|candidate| candidate.dies(*who));
            }
            Step::LosesGuards => {
                self.world.lose_guards(&self.space);
                // A server tells two hashes of guards apart by when they were made.
                self.world.advance(Duration::from_millis(1)).await;
                self.candidates.each(|candidate| {
                    candidate.lose_guards();
                    candidate.wait(1);
                });
            }
            Step::LosesMembers => {
                self.world.lose_members(&self.space);
                self.candidates.each(|candidate| candidate.lose_members());
            }
            Step::Restart { keep_data } => {
                if !(if *keep_data { self.powers.restart } else { self.powers.lose_data }) {
                    return Ok(());
                }
                self.world.restart(*keep_data).await;
                self.candidates.each(|candidate| {
                    candidate.wait(1);
                    if !keep_data {
                        candidate.lose_data();
                    }
                });
            }
        }
        self.story.tell(step);
        Ok(())
    }

    fn fault(&mut self, who: Who, fault: Fault) {
        self.world.fault(who, None, fault);
        match fault {
            Fault::Cut => self.cut[who as usize] = true,
            Fault::Denied => self.denied[who as usize] = true,
            Fault::Restored => {
                self.cut[who as usize] = false;
                self.denied[who as usize] = false;
            }
            Fault::LosesRequest | Fault::LosesReply => self.losing[who as usize] = Some(fault),
        }
    }

    /// Who is not a member joins first, as counters do.
    async fn call(&mut self, who: Who, ask: &Ask, guard: Guard) -> Result<(), String> {
        if ask.needs_membership() && self.clients[who as usize].member.is_none() {
            self.send(who, Ask::Join, None).await?;
            if self.clients[who as usize].member.is_none() {
                return Ok(());
            }
        }
        let client = &mut self.clients[who as usize];
        let numbered = match ask {
            Ask::PlainWrite(_) => client.plain_batch.number(ask, guard),
            Ask::Write(_) => client.shared_batch.number(ask, guard),
            Ask::LateHeartbeat if client.former.is_none() => None,
            _ => Some((ask.clone(), None)),
        };
        match numbered {
            Some((ask, sequence)) => self.send(who, ask, sequence).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, who: Who, mut ask: Ask, sequence: Option<u64>) -> Result<(), String> {
        let at = who as usize;
        // Of an unguarded batch any part may be lost, on some stores.
        if let (Ask::PlainWrite(items), None, Some(_)) = (&mut ask, sequence, self.losing[at]) {
            items.truncate(1);
        }
        if ask == Ask::Join {
            self.clients[at].forget_membership();
            self.candidates.each(|candidate| candidate.forget_membership(who, 0));
        }
        let client = &mut self.clients[at];
        let resent = sequence.is_some_and(|sequence| sequence <= client.sent);
        if let (Ask::PlainWrite(_), Some(sequence)) = (&ask, sequence) {
            client.sent = client.sent.max(sequence);
        }
        let id = client.id.clone();
        let request = Request { who, shard: 0, id, ask, sequence, resent };
        let given = self.request(&request).await?;
        let number = sequence.map_or(String::new(), |number| format!(" (batch {number})"));
        let shown = self.epochs.name(given.clone());
        self.story.tell(format!("{who}: {}{number} -> {shown}", request.ask));
        if self.cut[at] || self.denied[at] {
            return match given {
                Answer::NotApplied => Ok(()),
                _ => Err("the link is cut, or denied: nothing can have happened".to_owned()),
            };
        }
        if self.losing[at].take().is_some() {
            let may_say = match given {
                Answer::Unknown => true,
                Answer::NotApplied => request.ask.is_read_only(),
                _ => false,
            };
            if !may_say {
                return Err("the outcome of what was lost is unknown".to_owned());
            }
            return self.candidates.lost(&request);
        }
        self.candidates.answered(&request, &given)
    }

    /// Mends everything and looks at every key: the total is the sum of the slices.
    async fn audit(&mut self) -> Result<(), String> {
        for who in Who::ALL {
            self.fault(who, Fault::Restored);
        }
        let who = Who::Anna;
        // One may get lost, one may find that it was collected, and the third joins.
        for _ in 0..3 {
            self.call(who, &Ask::Heartbeat, Guard::None).await?;
        }
        self.send(who, Ask::PlainRead(Key::ALL.to_vec()), None).await?;
        self.send(who, Ask::Read(Key::ALL.to_vec()), None).await?;
        let client = &self.clients[who as usize];
        let member = client.member.clone().ok_or("anna could not join a whole store")?;
        for key in Key::ALL {
            let keys = [key.redis()];
            let read = client.backend.read_on(&self.space, &member, &keys).await;
            let total = read.map_err(|error| error.to_string())?.answer[0].clone();
            let slices = client.backend.slices(&self.space, &key.redis()).await;
            let slices = slices.map_err(|error| error.to_string())?;
            let slices: Vec<_> = slices.into_iter().map(|s| (s.instance_id, s.value)).collect();
            if total.map(|standing| standing.total) != Ok(sum(&slices)) {
                return Err(format!("the total of {key} is not the sum of {slices:?}"));
            }
        }
        for key in Key::ALL {
            self.send(who, Ask::Slices(key), None).await?;
        }
        Ok(())
    }

    async fn request(&mut self, request: &Request) -> Result<Answer, String> {
        let client = &mut self.clients[request.who as usize];
        let incarnations = &mut self.last_incarnation;
        match client.request(&self.space, request, incarnations).await {
            Ok(answer) => answer,
            Err(BackendError::NotApplied(_)) => Ok(Answer::NotApplied),
            Err(BackendError::OutcomeUnknown(_)) => Ok(Answer::Unknown),
            Err(BackendError::Replaced) => Ok(Answer::Replaced),
            Err(BackendError::Forgotten) => Ok(Answer::Forgotten),
            Err(BackendError::NotJoined) => {
                if request.ask.needs_membership() {
                    client.forget_membership();
                }
                Ok(Answer::NotJoined)
            }
            Err(error) => Err(format!("the store fails: {error}")),
        }
    }
}

impl Client {
    async fn request(
        &mut self,
        space: &Space,
        Request { who, id, ask, sequence, resent, .. }: &Request,
        last_incarnation: &mut u64,
    ) -> Result<Result<Answer, String>, BackendError> {
        let backend = self.backend.clone();
        let member = || self.member.as_ref().ok_or(BackendError::NotJoined);
        Ok(Ok(match ask {
            Ask::PlainWrite(items) => {
                let writes: Vec<_> = items
                    .iter()
                    .map(|item| Write {
                        key: item.key.redis(),
                        change: item.change,
                        condition: item.condition,
                    })
                    .collect();
                let guard = sequence.map(|sequence| ReplayGuard {
                    writer: id.as_str().into(),
                    sequence,
                    resent: *resent,
                });
                let applied = backend.apply(space, &writes, guard.as_ref()).await?;
                let outcomes = applied.outcomes.iter().map(|o| wrote(o, |n| *n)).collect();
                Answer::PlainWrote { replayed: applied.replayed, outcomes }
            }
            Ask::PlainRead(keys) => {
                match backend.read(space, &redis(keys)).await?.into_iter().collect() {
                    Ok(values) => Answer::Values(values),
                    Err(refusal) => return Ok(Err(format!("a read was refused: {refusal}"))),
                }
            }
            Ask::PlainRemove(keys) => {
                match crate::removals::remove(&*backend, space, &redis(keys))
                    .await?
                    .into_iter()
                    .collect()
                {
                    Ok(values) => Answer::Values(values),
                    Err(refusal) => return Ok(Err(format!("a removal was refused: {refusal}"))),
                }
            }
            Ask::PlainClear => {
                backend.clear(space).await?;
                Answer::Done
            }
            Ask::Join => {
                let lease = Duration::from_millis(who.threshold());
                let mut instance = Instance::new(id.as_str().into(), lease);
                (instance.name, instance.first_joined) = (who.instance_name(), self.first);
                let claims: Vec<_> =
                    self.known.values().filter(|slice| slice.value != 0).cloned().collect();
                let claimed: Vec<_> =
                    self.known.iter().filter(|(_, s)| s.value != 0).map(|(key, _)| *key).collect();
                let joined = backend.join(space, &instance, &claims).await?;
                if joined.incarnation.0 <= *last_incarnation {
                    return Ok(Err("an incarnation is not greater than one before".to_owned()));
                }
                *last_incarnation = joined.incarnation.0;
                self.first.get_or_insert(joined.incarnation);
                self.member = Some(Member { incarnation: joined.incarnation, lease });
                self.known.clear();
                return Ok(self.stands(&claimed, &joined.standings).map(Answer::Joined));
            }
            Ask::Write(items) => {
                let writes: Vec<_> = items
                    .iter()
                    .map(|item| SliceWrite {
                        key: item.key.redis(),
                        change: item.change,
                        condition: item.condition,
                    })
                    .collect();
                let given = backend.apply_on(space, member()?, &writes, *sequence).await?;
                let replayed = given.answer.replayed;
                let keys: Vec<_> = items.iter().map(|item| item.key).collect();
                if let Err(why) = self.newer(given.version) {
                    return Ok(Err(why));
                }
                self.wrote(&keys, &given.answer.outcomes, replayed)
            }
            Ask::Read(keys) => {
                let given = backend.read_on(space, member()?, &redis(keys)).await?;
                if let Err(why) = self.newer(given.version) {
                    return Ok(Err(why));
                }
                return Ok(self.stands(keys, &given.answer).map(Answer::Stands));
            }
            Ask::Remove(keys, scope) => {
                let given =
                    crate::removals::remove_on(&*backend, space, member()?, &redis(keys), *scope)
                        .await?;
                if let Err(why) = self.newer(given.version) {
                    return Ok(Err(why));
                }
                self.wrote(keys, &given.answer, false)
            }
            Ask::Clear(scope) => {
                backend.clear_on(space, member()?, *scope).await?;
                Answer::Done
            }
            Ask::Heartbeat => {
                backend.heartbeat(space, member()?).await?;
                Answer::Done
            }
            Ask::LateHeartbeat => {
                let former = self.former.as_ref().ok_or(BackendError::NotJoined)?;
                backend.heartbeat(space, former).await?;
                Answer::Done
            }
            Ask::Leave => {
                backend.leave(space, member()?).await?;
                self.forget_membership();
                Answer::Done
            }
            Ask::Slices(key) => {
                let slices = backend.slices(space, &key.redis()).await?;
                Answer::Slices(slices.into_iter().map(|s| (s.instance_id, s.value)).collect())
            }
        }))
    }

    fn newer(&mut self, version: u64) -> Result<(), String> {
        if version <= self.version {
            return Err(format!("version {version} comes after {}", self.version));
        }
        self.version = version;
        Ok(())
    }

    fn know(&mut self, key: Key, standing: &Standing) {
        let slice = Slice { key: key.redis(), epoch: standing.epoch, value: standing.slice };
        self.known.insert(key, slice);
    }

    fn stands(&mut self, keys: &[Key], given: &[Outcome<Standing>]) -> Result<Vec<Stand>, String> {
        if keys.len() != given.len() {
            return Err("not every key was answered".to_owned());
        }
        let mut stands = Vec::new();
        for (key, standing) in keys.iter().zip(given) {
            let standing = standing.as_ref().map_err(|refusal| format!("{key}: {refusal}"))?;
            self.know(*key, standing);
            stands.push(stand(standing));
        }
        Ok(stands)
    }

    fn wrote(
        &mut self,
        keys: &[Key],
        given: &[Outcome<Written<Standing>>],
        replayed: bool,
    ) -> Answer {
        for (key, outcome) in keys.iter().zip(given) {
            if let Ok(written) = outcome {
                self.know(*key, &written.new);
            }
        }
        Answer::Wrote { replayed, outcomes: given.iter().map(|o| wrote(o, stand)).collect() }
    }
}

fn redis(keys: &[Key]) -> Vec<RedisKey> {
    keys.iter().map(|key| key.redis()).collect()
}

fn stand(standing: &Standing) -> Stand {
    let Standing { total, slice, epoch: Epoch(epoch) } = *standing;
    Stand { total, slice, epoch }
}

fn wrote<V, S>(
    outcome: &Outcome<Written<V>>,
    stand: impl Fn(&V) -> S,
) -> Result<Wrote<S>, Overflow> {
    match outcome {
        Ok(Written { old, new, condition_met }) => {
            Ok(Wrote { old: stand(old), new: stand(new), met: *condition_met })
        }
        Err(Refusal::Overflow) => Err(Overflow),
        Err(refusal) => panic!("nothing was planted, and yet: {refusal}"),
    }
}
