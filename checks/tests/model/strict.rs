//! The histories of the `Backend` once more, as calls of strict counters: who was collected comes back by
//! itself, and what a call cost in requests is nobody's business.
//!
//! No timer runs in these histories, for the runtime is never idle: leases are renewed by calls alone.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::{Change, Refusal, Scope, SliceChange, SliceWrite, Standing, Write, Written},
    counter::{CounterOptions, CounterTrait, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
        TotalAndSlice,
    },
};

use crate::{
    candidates::{Candidate, Candidates, Request, same_but_epochs, sum, without_epochs},
    cases::{Story, check},
    cast::{Key, Who},
    reference::{Answer, Ask, Item, Overflow, Stand, Wrote},
    store::history::{Step, histories},
    world::{Fault, Powers, Simulated, World, runtime},
};

#[test]
fn strict_counters_answer_as_the_model() {
    check("strict", 2000, &histories(), |history| {
        runtime().block_on(play(&Simulated::new(), "shop", &history.0)).map(drop)
    });
}

#[test]
fn a_history_gives_the_same_transcript_each_time() {
    check("strict_repeats", 100, &histories(), |history| {
        let transcript = || runtime().block_on(play(&Simulated::new(), "shop", &history.0));
        let (first, second) = (transcript()?, transcript()?);
        if first == second { Ok(()) } else { Err(format!("{first:#?}\n{second:#?}")) }
    });
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

/// What one process has.
struct Process {
    plain: Arc<StrictCounter>,
    shared: Arc<StrictInstanceAwareCounter>,
    deaths: usize,
    joined: bool,
    /// What every later call is answered.
    ended: Option<Answer>,
}

impl Process {
    fn new(world: &impl World, prefix: &RedisKey, who: Who, deaths: usize) -> Self {
        let link = world.link(who);
        let options = StrictInstanceAwareCounterOptions::new(prefix.clone(), link.clone())
            .dead_instance_threshold_ms(who.threshold());
        let options = match who.instance_name() {
            Some(name) => options.instance_name(name),
            None => options,
        };
        // The others send each write once.
        let (plain, options) = match is_guarded(who) {
            true => (CounterOptions::new(prefix.clone(), link), options),
            false => (CounterOptions::new(prefix.clone(), link).unguarded(), options.unguarded()),
        };
        Self {
            plain: StrictCounter::new(plain),
            shared: StrictInstanceAwareCounter::new(options),
            deaths,
            joined: false,
            ended: None,
        }
    }
}

/// Whether a process's writes are sent again until they are answered.
fn is_guarded(who: Who) -> bool {
    (who as usize).is_multiple_of(2)
}

struct Player<'a, W> {
    world: &'a W,
    powers: Powers,
    prefix: RedisKey,
    processes: Vec<Process>,
    /// The ids of all instances that ever were, and what the model calls them.
    ids: Vec<(String, String)>,
    candidates: Candidates,
    cut: [bool; Who::ALL.len()],
    denied: [bool; Who::ALL.len()],
    losing: [bool; Who::ALL.len()],
    story: Story,
}

impl<'a, W: World> Player<'a, W> {
    fn new(world: &'a W, prefix: &str) -> Self {
        let prefix = RedisKey::try_from(prefix).unwrap();
        let mut player = Self {
            world,
            powers: world.powers(),
            processes: Vec::new(),
            prefix,
            ids: Vec::new(),
            candidates: Candidates::new(),
            cut: Default::default(),
            denied: Default::default(),
            losing: Default::default(),
            story: Story::default(),
        };
        for who in Who::ALL {
            let process = player.born(who, 0);
            player.processes.push(process);
        }
        player
    }

    fn born(&mut self, who: Who, deaths: usize) -> Process {
        let process = Process::new(self.world, &self.prefix, who, deaths);
        self.ids.push((process.shared.instance_id().to_owned(), who.id(deaths)));
        process
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Call(_, Ask::Join | Ask::Heartbeat | Ask::LateHeartbeat, _) => return Ok(()),
            Step::Call(who, ask, _) => return self.call(*who, ask).await,
            Step::Wait(ms) => {
                self.world.advance(Duration::from_millis(*ms)).await;
                self.candidates.each(|candidate| candidate.wait(*ms));
            }
            Step::Fault(who, fault) => {
                let at = *who as usize;
                let possible = match fault {
                    Fault::Cut | Fault::Restored => self.powers.cut,
                    // What is denied arrives.
                    Fault::Denied => self.powers.cut && !self.losing[at],
                    Fault::LosesRequest | Fault::LosesReply => {
                        self.powers.lose && !self.losing[at] && !self.denied[at]
                    }
                };
                if !possible {
                    return Ok(());
                }
                self.world.fault(*who, *fault);
                match fault {
                    Fault::Cut => self.cut[at] = true,
                    Fault::Denied => self.denied[at] = true,
                    Fault::Restored => {
                        self.cut[at] = false;
                        self.denied[at] = false;
                    }
                    Fault::LosesRequest | Fault::LosesReply => self.losing[at] = true,
                }
            }
            Step::Dies(who) => {
                let deaths = self.processes[*who as usize].deaths + 1;
                self.processes[*who as usize] = self.born(*who, deaths);
                self.candidates.each(|candidate| candidate.dies(*who));
            }
            // Strict counters have no guards.
            Step::LosesGuards => return Ok(()),
            Step::LosesMembers => {
                self.world.lose_members(&distkit::backend::Space::new(self.prefix.clone()));
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

    async fn call(&mut self, who: Who, ask: &Ask) -> Result<(), String> {
        let (at, mut ask) = (who as usize, ask.clone());
        match &mut ask {
            // One key at a time is all that counters offer.
            Ask::Remove(keys, _) | Ask::PlainRemove(keys) => keys.truncate(1),
            // Of an unguarded batch any part may be lost, on some stores.
            Ask::PlainWrite(items) if self.losing[at] => items.truncate(1),
            _ => {}
        }
        if ask == Ask::Leave && self.processes[at].ended.is_some() {
            return Ok(());
        }
        let given = self.processes[at].ask(&ask, &self.ids).await?;
        self.story.tell(format!("{who}: {ask} -> {}", without_epochs(&given)));
        let id = who.id(self.processes[at].deaths);
        let request = Request { who, id, ask, sequence: None, resent: false };
        // Looking on needs no membership; a counter that ended does not do it all the same.
        let looks = matches!(request.ask, Ask::Slices(_)) && self.processes[at].ended.is_none();
        if looks || !request.ask.needs_membership() && !matches!(request.ask, Ask::Slices(_)) {
            return self.settle(&request, &given);
        }
        if let Some(ended) = &self.processes[at].ended {
            return if *ended == given { Ok(()) } else { Err(format!("the counter {ended}")) };
        }
        let verdict = self.settle_as_member(&request, &given);
        match (&request.ask, &given) {
            (Ask::Leave, _) => self.processes[at].ended = Some(Answer::Left),
            (_, Answer::Replaced) => self.processes[at].ended = Some(Answer::Replaced),
            _ => {}
        }
        verdict
    }

    /// A call of which one request is made.
    fn settle(&mut self, request: &Request, given: &Answer) -> Result<(), String> {
        if let Some(told) = self.trouble(request, given, request.ask.is_read_only())? {
            return if told { self.candidates.lost(request) } else { Ok(()) };
        }
        self.candidates.answered_by(given, |candidate| {
            let answer = candidate.serve(request);
            let agrees = same_but_epochs(&visible(&request.ask, &answer), given);
            (agrees, answer)
        })
    }

    /// A call that joins before it, or during it, where that is needed.
    fn settle_as_member(&mut self, request: &Request, given: &Answer) -> Result<(), String> {
        let join = Request { ask: Ask::Join, ..request.clone() };
        let joined = self.processes[request.who as usize].joined;
        if !joined && request.ask == Ask::Leave {
            return match given {
                Answer::Done => Ok(()),
                _ => Err("there is nothing to leave".to_owned()),
            };
        }
        let first = if joined { request } else { &join };
        let not_applied = !joined || request.ask.is_read_only();
        if let Some(told) = self.trouble(first, given, not_applied)? {
            return if told { self.candidates.lost(first) } else { Ok(()) };
        }
        self.processes[request.who as usize].joined = true;
        self.candidates.answered_by(given, |candidate| {
            let answer = as_member(candidate, joined, &join, request);
            let agrees = same_but_epochs(&visible(&request.ask, &answer), given);
            (agrees, answer)
        })
    }

    /// Whether a fault struck `first`, the first request of a call; and then, whether it may have arrived.
    fn trouble(
        &mut self,
        first: &Request,
        given: &Answer,
        not_applied: bool,
    ) -> Result<Option<bool>, String> {
        let at = first.who as usize;
        if self.cut[at] || self.denied[at] {
            return match given {
                Answer::NotApplied => Ok(Some(false)),
                _ => Err("the link is cut, or denied: nothing can have happened".to_owned()),
            };
        }
        if !std::mem::take(&mut self.losing[at]) {
            return Ok(None);
        }
        if is_guarded(first.who) && first.ask.is_guarded() {
            // Sent again, applied once, and answered as if nothing had been lost.
            return Ok(None);
        }
        match given {
            Answer::Unknown if first.ask != Ask::Join => Ok(Some(true)),
            Answer::NotApplied if not_applied => Ok(Some(true)),
            _ => Err("the outcome of what was lost is unknown".to_owned()),
        }
    }

    /// Mends everything and looks at every key: the total is the sum of the slices.
    async fn audit(&mut self) -> Result<(), String> {
        for who in Who::ALL {
            self.step(&Step::Fault(who, Fault::Restored)).await?;
        }
        let who = Who::Anna;
        if self.processes[who as usize].ended.is_some() {
            self.step(&Step::Dies(who)).await?;
        }
        for _ in 0..2 {
            self.call(who, &Ask::Read(Key::ALL.to_vec())).await?;
        }
        self.call(who, &Ask::PlainRead(Key::ALL.to_vec())).await?;
        for key in Key::ALL {
            self.call(who, &Ask::Slices(key)).await?;
            let shared = &self.processes[who as usize].shared;
            let (total, _) = shared.get(&key.redis()).await.map_err(|error| error.to_string())?;
            let slices = shared.slices(&key.redis()).await.map_err(|error| error.to_string())?;
            let slices: Vec<_> = slices.into_iter().map(|s| (s.instance_id, s.value)).collect();
            if total != sum(&slices) {
                return Err(format!("the total of {key} is {total}, of {slices:?}"));
            }
        }
        Ok(())
    }
}

/// The design's "no caller sees any of this": joins when it must, then does what was asked.
fn as_member(candidate: &mut Candidate, joined: bool, join: &Request, request: &Request) -> Answer {
    if joined {
        let answer = candidate.serve(request);
        if answer != Answer::NotJoined {
            learn(candidate, request, &answer);
            return answer;
        }
    }
    candidate.forget_membership(join.who);
    let answer = candidate.serve(join);
    if answer == Answer::Replaced {
        return answer;
    }
    candidate.learn(join, &answer);
    let answer = candidate.serve(request);
    learn(candidate, request, &answer);
    answer
}

fn learn(candidate: &mut Candidate, request: &Request, answer: &Answer) {
    candidate.learn(request, answer);
    if let (Ask::Clear(_), Answer::Done) = (&request.ask, answer) {
        candidate.forget_slices(request.who);
    }
}

/// What the counters show of an answer of the store.
fn visible(ask: &Ask, answer: &Answer) -> Answer {
    match (ask, answer) {
        (Ask::Remove(_, scope), Answer::Wrote { outcomes, .. }) => match outcomes[0] {
            Ok(Wrote { old, new, .. }) => Answer::Stands(vec![match scope {
                Scope::Total => old,
                Scope::Slice => Stand { total: new.total, ..old },
            }]),
            Err(Overflow) => answer.clone(),
        },
        (Ask::Write(items), Answer::Wrote { replayed, outcomes }) if items.len() == 1 => {
            let numbers = |stand: Stand| (stand.total, stand.slice);
            let seen = |wrote: &Wrote<Stand>| Wrote {
                met: numbers(wrote.old) != numbers(wrote.new),
                ..*wrote
            };
            let outcomes =
                outcomes.iter().map(|outcome| outcome.as_ref().map(seen).map_err(|e| *e));
            Answer::Wrote { replayed: *replayed, outcomes: outcomes.collect() }
        }
        _ => answer.clone(),
    }
}

impl Process {
    async fn ask(&self, ask: &Ask, ids: &[(String, String)]) -> Result<Answer, String> {
        match self.try_ask(ask, ids).await {
            Ok(answer) => Ok(answer),
            Err(DistkitError::NotApplied(_)) => Ok(Answer::NotApplied),
            Err(DistkitError::OutcomeUnknown(_)) => Ok(Answer::Unknown),
            Err(DistkitError::InstanceReplaced) => Ok(Answer::Replaced),
            Err(DistkitError::ShutDown) => Ok(Answer::Left),
            Err(DistkitError::CounterError { refusal: Refusal::Overflow, .. }) => Ok(match ask {
                Ask::PlainWrite(_) => {
                    Answer::PlainWrote { replayed: false, outcomes: vec![Err(Overflow)] }
                }
                _ => Answer::Wrote { replayed: false, outcomes: vec![Err(Overflow)] },
            }),
            Err(error) => Err(format!("the counter fails: {error}")),
        }
    }

    async fn try_ask(&self, ask: &Ask, ids: &[(String, String)]) -> Result<Answer, DistkitError> {
        let (plain, shared) = (&self.plain, &self.shared);
        Ok(match ask {
            Ask::PlainWrite(items) => {
                let outcomes = match &items[..] {
                    [item] => vec![Ok(plain_one(plain, item).await?)],
                    items => plain_many(plain, items).await?,
                };
                Answer::PlainWrote { replayed: false, outcomes }
            }
            Ask::PlainRead(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| key.redis()).collect();
                let keys: Vec<_> = keys.iter().collect();
                let answers = plain.get_all(&keys).await?;
                let values: Result<_, _> = answers.into_iter().map(|(_, value)| value).collect();
                Answer::Values(values?)
            }
            Ask::PlainRemove(keys) => Answer::Values(vec![plain.del(&keys[0].redis()).await?]),
            Ask::PlainClear => {
                plain.clear().await?;
                Answer::Done
            }
            Ask::Write(items) => {
                let outcomes = match &items[..] {
                    [item] => vec![Ok(shared_one(shared, item).await?)],
                    items => shared_many(shared, items).await?,
                };
                Answer::Wrote { replayed: false, outcomes }
            }
            Ask::Read(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| key.redis()).collect();
                let keys: Vec<_> = keys.iter().collect();
                let answers = shared.get_all(&keys).await?;
                let stands: Result<_, _> =
                    answers.into_iter().map(|(_, answer)| answer.map(stand)).collect();
                Answer::Stands(stands?)
            }
            Ask::Remove(keys, scope) => {
                let key = keys[0].redis();
                Answer::Stands(vec![stand(match scope {
                    Scope::Total => shared.del(&key).await?,
                    Scope::Slice => shared.del_on_instance(&key).await?,
                })])
            }
            Ask::Clear(scope) => {
                match scope {
                    Scope::Total => shared.clear().await?,
                    Scope::Slice => shared.clear_on_instance().await?,
                }
                Answer::Done
            }
            Ask::Leave => {
                shared.leave().await?;
                Answer::Done
            }
            Ask::Slices(key) => {
                let slices = shared.slices(&key.redis()).await?;
                let named = |id: &str| ids.iter().find(|(real, _)| real == id).unwrap().1.clone();
                let mut slices: Vec<_> =
                    slices.into_iter().map(|s| (named(&s.instance_id), s.value)).collect();
                slices.sort();
                Answer::Slices(slices)
            }
            Ask::Join | Ask::Heartbeat | Ask::LateHeartbeat => {
                unreachable!("counters do this by themselves")
            }
        })
    }
}

fn stand((total, slice): TotalAndSlice) -> Stand {
    Stand { total, slice, epoch: 0 }
}

async fn plain_one(
    counter: &StrictCounter,
    item: &Item<Change>,
) -> Result<Wrote<i64>, DistkitError> {
    let (key, condition) = (item.key.redis(), item.condition);
    let (new, old) = match item.change {
        Change::AddWithin { count, least, most }
            if condition == distkit::CounterComparator::Nil =>
        {
            let (new, added) = counter.add_within(&key, count, least..=most).await?;
            (new, new.wrapping_sub(added))
        }
        change @ Change::AddWithin { .. } => {
            let write = Write { key, change, condition };
            let Written { old, new, .. } = counter.write(write).await?;
            (new, old)
        }
        // Alone it is a plain addition, which is another command on the servers.
        Change::Add(count) if condition == distkit::CounterComparator::Nil => {
            let new = counter.inc(&key, count).await?;
            (new, new.wrapping_sub(count))
        }
        Change::Add(count) => counter.inc_if(&key, condition, count).await?,
        Change::Set(count) => counter.set_if(&key, condition, count).await?,
        other => panic!("{other:?} is new"),
    };
    Ok(Wrote { old, new, met: item.condition.matches(old) })
}

async fn plain_many(
    counter: &StrictCounter,
    items: &[Item<Change>],
) -> Result<Vec<Result<Wrote<i64>, Overflow>>, DistkitError> {
    let writes: Vec<_> = items
        .iter()
        .map(|item| Write { key: item.key.redis(), change: item.change, condition: item.condition })
        .collect();
    let outcomes = counter.write_all(&writes).await?;
    let wrote = |outcome: Result<Written, DistkitError>| match outcome {
        Ok(Written { old, new, condition_met: met }) => Ok(Ok(Wrote { old, new, met })),
        Err(DistkitError::CounterError { refusal: Refusal::Overflow, .. }) => Ok(Err(Overflow)),
        Err(error) => Err(error),
    };
    outcomes.into_iter().map(wrote).collect()
}

async fn shared_one(
    counter: &StrictInstanceAwareCounter,
    item: &Item<SliceChange>,
) -> Result<Wrote<Stand>, DistkitError> {
    let (key, condition) = (item.key.redis(), item.condition);
    let (new, old) = match item.change {
        SliceChange::Add(count) => counter.inc_if(&key, condition, count).await?,
        SliceChange::SetTotal(count) => counter.set_if(&key, condition, count).await?,
        SliceChange::SetSlice(count) => counter.set_on_instance_if(&key, condition, count).await?,
        change @ SliceChange::AddWithin { .. } => {
            let written = counter.write(SliceWrite { key, change, condition }).await?;
            let numbers = |standing: Standing| (standing.total, standing.slice);
            (numbers(written.new), numbers(written.old))
        }
        other => panic!("{other:?} is new"),
    };
    Ok(Wrote { old: stand(old), new: stand(new), met: old != new })
}

async fn shared_many(
    counter: &StrictInstanceAwareCounter,
    items: &[Item<SliceChange>],
) -> Result<Vec<Result<Wrote<Stand>, Overflow>>, DistkitError> {
    let writes: Vec<_> = items
        .iter()
        .map(|item| SliceWrite {
            key: item.key.redis(),
            change: item.change,
            condition: item.condition,
        })
        .collect();
    let stand = |standing: &Standing| stand((standing.total, standing.slice));
    let outcomes = counter.write_all(&writes).await?.into_iter().map(|outcome| match outcome {
        Ok(Written { old, new, condition_met: met }) => {
            Ok(Wrote { old: stand(&old), new: stand(&new), met })
        }
        Err(_) => Err(Overflow),
    });
    Ok(outcomes.collect())
}
