//! The histories of the `Backend` once more, as calls of strict counters: who was collected comes back by
//! itself, and what a call cost in requests is nobody's business.
//!
//! No timer runs in these histories, for the runtime is never idle: leases are renewed by calls alone.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::{Change, Refusal, Scope, SliceChange, SliceWrite, Space, Standing, Write, Written},
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
        runtime().block_on(play(&Simulated::new(), "shop", 1, &history.0)).map(drop)
    });
}

#[test]
fn strict_counters_of_three_shards_answer_as_the_model() {
    check("strict_3_shards", 1500, &histories(), |history| {
        runtime().block_on(play(&Simulated::new(), "shop", 3, &history.0)).map(drop)
    });
}

#[test]
fn strict_counters_of_seven_shards_answer_as_the_model() {
    check("strict_7_shards", 1500, &histories(), |history| {
        runtime().block_on(play(&Simulated::new(), "shop", 7, &history.0)).map(drop)
    });
}

#[test]
fn a_history_gives_the_same_transcript_each_time() {
    for shards in [1, 7] {
        check("strict_repeats", 100, &histories(), |history| {
            let transcript =
                || runtime().block_on(play(&Simulated::new(), "shop", shards, &history.0));
            let (first, second) = (transcript()?, transcript()?);
            if first == second { Ok(()) } else { Err(format!("{first:#?}\n{second:#?}")) }
        });
    }
}

/// Plays a history on a prefix of so many shards of a world, and gives the transcript.
pub(crate) async fn play(
    world: &impl World,
    prefix: &str,
    shards: usize,
    history: &[Step],
) -> Result<Vec<String>, String> {
    let mut player = Player::new(world, prefix, shards);
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
    /// By shard.
    joined: Vec<bool>,
    /// What every later call is answered.
    ended: Option<Answer>,
}

impl Process {
    fn new(world: &impl World, prefix: &RedisKey, shards: usize, who: Who, deaths: usize) -> Self {
        let link = world.link(who);
        let number = u16::try_from(shards).unwrap();
        let options = StrictInstanceAwareCounterOptions::new(prefix.clone(), link.clone())
            .shards(number)
            .dead_instance_threshold_ms(who.threshold());
        let options = match who.instance_name() {
            Some(name) => options.instance_name(name),
            None => options,
        };
        // The others send each write once.
        let plain = CounterOptions::new(prefix.clone(), link).shards(number);
        let (plain, options) = match is_guarded(who) {
            true => (plain, options),
            false => (plain.unguarded(), options.unguarded()),
        };
        Self {
            plain: StrictCounter::new(plain),
            shared: StrictInstanceAwareCounter::new(options),
            deaths,
            joined: vec![false; shards],
            ended: None,
        }
    }
}

/// Whether a process's writes are sent again until they are answered.
fn is_guarded(who: Who) -> bool {
    (who as usize).is_multiple_of(2)
}

/// What is wrong with the requests of a process to a shard.
#[derive(Debug, Clone, Default)]
struct Trouble {
    cut: bool,
    denied: bool,
    losing: bool,
    /// It may lose the next one, or have lost it: nothing told whether a request was sent.
    may_lose: bool,
}

/// A call's part in a shard: what is asked there, and at which places of the call its items are.
struct Part {
    shard: usize,
    ask: Ask,
    places: Vec<usize>,
}

struct Player<'a, W> {
    world: &'a W,
    powers: Powers,
    prefix: RedisKey,
    shards: usize,
    processes: Vec<Process>,
    /// The ids of all instances that ever were, and what the model calls them.
    ids: Vec<(String, String)>,
    candidates: Candidates,
    /// Of each process, by shard.
    troubles: [Vec<Trouble>; Who::ALL.len()],
    /// The call that is being settled went to several shards.
    split: bool,
    /// How many faults there were: each strikes the next of the shards that have keys.
    faults: usize,
    story: Story,
}

impl<'a, W: World> Player<'a, W> {
    fn new(world: &'a W, prefix: &str, shards: usize) -> Self {
        let prefix = RedisKey::try_from(prefix).unwrap();
        let mut player = Self {
            world,
            powers: world.powers(),
            processes: Vec::new(),
            prefix,
            shards,
            ids: Vec::new(),
            candidates: Candidates::in_shards(shards),
            troubles: std::array::from_fn(|_| vec![Trouble::default(); shards]),
            split: false,
            faults: 0,
            story: Story::default(),
        };
        for who in Who::ALL {
            let process = player.born(who, 0);
            player.processes.push(process);
        }
        player
    }

    fn born(&mut self, who: Who, deaths: usize) -> Process {
        let process = Process::new(self.world, &self.prefix, self.shards, who, deaths);
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
                let Some(struck) = self.fault(*who, *fault) else { return Ok(()) };
                if self.shards > 1 {
                    self.story.tell(format!("{step}, of shard {struck:?}"));
                    return Ok(());
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
                let shards = u16::try_from(self.shards).unwrap();
                for space in Space::shards_of(self.prefix.clone(), shards) {
                    self.world.lose_members(&space);
                }
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

    /// Strikes the requests of `who`: all, where there is one shard, else those to one of the shards that have keys. Gives
    /// which, unless nothing came of it.
    fn fault(&mut self, who: Who, fault: Fault) -> Option<Vec<usize>> {
        let at = who as usize;
        let mut struck: Vec<_> = Key::ALL.iter().map(|key| key.shard(self.shards)).collect();
        struck.sort();
        struck.dedup();
        if fault != Fault::Restored {
            self.faults += 1;
            struck = vec![struck[self.faults % struck.len()]];
        }
        struck.retain(|shard| {
            let trouble = &self.troubles[at][*shard];
            match fault {
                Fault::Cut | Fault::Restored => self.powers.cut,
                // What is denied arrives.
                Fault::Denied => self.powers.cut && !trouble.losing && !trouble.may_lose,
                Fault::LosesRequest | Fault::LosesReply => {
                    self.powers.lose && !trouble.losing && !trouble.may_lose && !trouble.denied
                }
            }
        });
        for shard in &struck {
            let number = (self.shards > 1).then(|| u16::try_from(*shard).unwrap());
            self.world.fault(who, number, fault);
            let trouble = &mut self.troubles[at][*shard];
            match fault {
                Fault::Cut => trouble.cut = true,
                Fault::Denied => trouble.denied = true,
                Fault::Restored => (trouble.cut, trouble.denied) = (false, false),
                Fault::LosesRequest | Fault::LosesReply => trouble.losing = true,
            }
        }
        if struck.is_empty() { None } else { Some(struck) }
    }

    /// What a call asks of each shard.
    fn parts(&self, ask: &Ask) -> Vec<Part> {
        let shards = self.shards;
        let part = |shard, places, ask| Part { shard, ask, places };
        let places = |keys: Vec<Key>, shard: usize| -> Vec<usize> {
            let here = keys.iter().enumerate().filter(|(_, key)| key.shard(shards) == shard);
            here.map(|(place, _)| place).collect()
        };
        let of = |keys: Vec<Key>, of_places: &dyn Fn(&[usize]) -> Ask| -> Vec<Part> {
            let all = (0..shards).map(|shard| (shard, places(keys.clone(), shard)));
            all.filter(|(_, places)| !places.is_empty())
                .map(|(shard, places)| part(shard, places.clone(), of_places(&places)))
                .collect()
        };
        fn pick<T: Clone>(all: &[T], places: &[usize]) -> Vec<T> {
            places.iter().map(|place| all[*place].clone()).collect()
        }
        match ask {
            Ask::PlainWrite(items) => {
                let keys = items.iter().map(|item| item.key).collect();
                of(keys, &|places| Ask::PlainWrite(pick(items, places)))
            }
            Ask::Write(items) => {
                let keys = items.iter().map(|item| item.key).collect();
                of(keys, &|places| Ask::Write(pick(items, places)))
            }
            Ask::PlainRead(keys) => of(keys.clone(), &|places| Ask::PlainRead(pick(keys, places))),
            Ask::Read(keys) => of(keys.clone(), &|places| Ask::Read(pick(keys, places))),
            Ask::Remove(keys, _) | Ask::PlainRemove(keys) => of(keys.clone(), &|_| ask.clone()),
            Ask::Slices(key) => of(vec![*key], &|_| ask.clone()),
            Ask::PlainClear | Ask::Clear(_) | Ask::Leave => {
                (0..shards).map(|shard| part(shard, Vec::new(), ask.clone())).collect()
            }
            Ask::Join | Ask::Heartbeat | Ask::LateHeartbeat => Vec::new(),
        }
    }

    async fn call(&mut self, who: Who, ask: &Ask) -> Result<(), String> {
        let (at, mut ask) = (who as usize, ask.clone());
        match &mut ask {
            // One key at a time is all that counters offer.
            Ask::Remove(keys, _) | Ask::PlainRemove(keys) => keys.truncate(1),
            // Of an unguarded batch any part may be lost, on some stores.
            Ask::PlainWrite(items) if self.troubles[at].iter().any(|trouble| trouble.losing) => {
                items.truncate(1);
            }
            _ => {}
        }
        if ask == Ask::Leave && self.processes[at].ended.is_some() {
            return Ok(());
        }
        if self.shards > 1 {
            // Numbers of different shards are in the order of time only: no two calls at the same.
            self.world.advance(Duration::from_millis(1)).await;
            self.candidates.each(|candidate| candidate.wait(1));
        }
        let parts = self.parts(&ask);
        self.split = parts.len() > 1;
        let given = self.processes[at].ask(&ask, &parts, &self.ids).await?;
        let told: Vec<_> = given.iter().map(|given| without_epochs(given).to_string()).collect();
        self.story.tell(format!("{who}: {ask} -> {}", told.join(" | ")));
        let ended = self.processes[at].ended.clone();
        let mut replaced = Vec::new();
        for (Part { shard, ask, .. }, given) in parts.into_iter().zip(&given) {
            let id = who.id(self.processes[at].deaths);
            let request = Request { who, shard, id, ask, sequence: None, resent: false };
            // Looking on needs no membership; a counter that ended does not do it all the same.
            let ends_too = request.ask.needs_membership() || matches!(request.ask, Ask::Slices(_));
            if !request.ask.needs_membership() && (ended.is_none() || !ends_too) {
                self.settle(&request, given)?;
                continue;
            }
            if let Some(ended) = &ended {
                if ended == given {
                    continue;
                }
                return Err(format!("the counter {ended}"));
            }
            if self.split && *given == Answer::Replaced {
                replaced.push(request);
                continue;
            }
            self.settle_as_member(&request, given)?;
            match (&request.ask, given) {
                (Ask::Leave, _) => self.processes[at].ended = Some(Answer::Left),
                (_, Answer::Replaced) => self.processes[at].ended = Some(Answer::Replaced),
                _ => {}
            }
        }
        if replaced.is_empty() { Ok(()) } else { self.settle_replaced(&replaced) }
    }

    /// Parts of a call that were answered that the instance is replaced. One shard said so, at least; the others need not
    /// have been asked any more, but may have been joined.
    fn settle_replaced(&mut self, parts: &[Request]) -> Result<(), String> {
        let mut verdict = Ok(());
        let mut unasked = Vec::new();
        let losing = |part: &&Request| self.troubles[part.who as usize][part.shard].losing;
        let doubtful: Vec<_> = parts.iter().filter(losing).map(|part| part.shard).collect();
        for part in parts {
            let before = self.candidates.clone();
            let troubles = self.troubles.clone();
            if let Err(why) = self.settle_as_member(part, &Answer::Replaced) {
                (self.candidates, self.troubles) = (before, troubles);
                unasked.push(part);
                verdict = Err(why);
            }
        }
        if unasked.len() == parts.len() {
            return verdict;
        }
        for part in unasked {
            self.candidates.lost(&Request { ask: Ask::Join, ..part.clone() })?;
        }
        for shard in doubtful {
            let trouble = &mut self.troubles[parts[0].who as usize][shard];
            (trouble.losing, trouble.may_lose) = (false, true);
        }
        self.processes[parts[0].who as usize].ended = Some(Answer::Replaced);
        Ok(())
    }

    /// A call of which one request is made.
    fn settle(&mut self, request: &Request, given: &Answer) -> Result<(), String> {
        if let Some(told) = self.trouble(request, given, request.ask.is_read_only())? {
            return if told { self.candidates.lost(request) } else { Ok(()) };
        }
        let split = self.split;
        self.candidates.answered_by(given, |candidate| {
            let answer = candidate.serve(request);
            let agrees = same_but_epochs(&visible(&request.ask, split, &answer), given);
            (agrees, answer)
        })
    }

    /// A read of totals in a shard where the instance is not joined.
    fn settle_looking(
        &mut self,
        request: &Request,
        keys: &[Key],
        given: &Answer,
    ) -> Result<(), String> {
        if self.trouble(request, given, true)?.is_some() {
            // Whether it arrived makes no difference.
            return Ok(());
        }
        self.candidates.answered_by(given, |candidate| {
            let answer = candidate.look(request, keys);
            (same_but_epochs(&answer, given), answer)
        })
    }

    /// A call that joins before it, or during it, where that is needed.
    fn settle_as_member(&mut self, request: &Request, given: &Answer) -> Result<(), String> {
        let join = Request { ask: Ask::Join, ..request.clone() };
        let joined = self.processes[request.who as usize].joined[request.shard];
        // Of several shards, an instance joins those only where it writes.
        if !joined && self.shards > 1 {
            match &request.ask {
                Ask::Read(keys) => return self.settle_looking(request, keys, given),
                Ask::Clear(Scope::Slice) => {
                    return match given {
                        Answer::Done => Ok(()),
                        _ => Err("there is nothing to clear".to_owned()),
                    };
                }
                _ => {}
            }
        }
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
        self.processes[request.who as usize].joined[request.shard] = true;
        let split = self.split;
        self.candidates.answered_by(given, |candidate| {
            let answer = as_member(candidate, joined, &join, request);
            let agrees = same_but_epochs(&visible(&request.ask, split, &answer), given);
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
        let trouble = &mut self.troubles[first.who as usize][first.shard];
        if trouble.cut || trouble.denied {
            return match given {
                Answer::NotApplied => Ok(Some(false)),
                _ => Err("the link is cut, or denied: nothing can have happened".to_owned()),
            };
        }
        let may_lose = std::mem::take(&mut trouble.may_lose);
        let lost = match given {
            Answer::Unknown => first.ask != Ask::Join,
            Answer::NotApplied => not_applied,
            _ => false,
        };
        let loses = std::mem::take(&mut trouble.losing) || may_lose && lost;
        if !loses {
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
    candidate.forget_membership(join.who, join.shard);
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
        candidate.forget_slices(request.who, request.shard);
    }
}

/// What the counters show of an answer of the store. `split`: to a part of a call, which is a batch.
fn visible(ask: &Ask, split: bool, answer: &Answer) -> Answer {
    match (ask, answer) {
        (Ask::Remove(_, scope), Answer::Wrote { outcomes, .. }) => match outcomes[0] {
            Ok(Wrote { old, new, .. }) => Answer::Stands(vec![match scope {
                Scope::Total => old,
                Scope::Slice => Stand { total: new.total, ..old },
            }]),
            Err(Overflow) => answer.clone(),
        },
        (Ask::Write(items), Answer::Wrote { replayed, outcomes }) if items.len() == 1 && !split => {
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
    /// What each part of a call is answered.
    async fn ask(
        &self,
        ask: &Ask,
        parts: &[Part],
        ids: &[(String, String)],
    ) -> Result<Vec<Answer>, String> {
        if let [_, _, ..] = parts {
            return match self.ask_shards(ask, parts).await {
                Ok(answers) => answers.into_iter().collect(),
                Err(error) => parts.iter().map(|_| failed(ask, error.clone())).collect(),
            };
        }
        match self.try_ask(ask, ids).await {
            Ok(answer) => Ok(vec![answer]),
            Err(error) => Ok(vec![failed(ask, error)?]),
        }
    }

    async fn ask_shards(
        &self,
        ask: &Ask,
        parts: &[Part],
    ) -> Result<Vec<Result<Answer, String>>, DistkitError> {
        let (plain, shared) = (&self.plain, &self.shared);
        Ok(match ask {
            Ask::PlainWrite(items) => {
                let outcomes = plain.write_all(&plain_writes(items)).await?;
                let outcomes: Vec<_> = outcomes.into_iter().map(plain_wrote).collect();
                gathered(ask, parts, outcomes, |outcomes| Answer::PlainWrote {
                    replayed: false,
                    outcomes,
                })
            }
            Ask::Write(items) => {
                let outcomes = shared.write_all(&shared_writes(items)).await?;
                let outcomes: Vec<_> = outcomes.into_iter().map(shared_wrote).collect();
                gathered(ask, parts, outcomes, |outcomes| Answer::Wrote {
                    replayed: false,
                    outcomes,
                })
            }
            Ask::PlainRead(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| key.redis()).collect();
                let keys: Vec<_> = keys.iter().collect();
                let answers = plain.get_all(&keys).await?.into_iter().map(|(_, value)| value);
                gathered(ask, parts, answers.collect(), Answer::Values)
            }
            Ask::Read(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| key.redis()).collect();
                let keys: Vec<_> = keys.iter().collect();
                let answers = shared.get_all(&keys).await?.into_iter();
                let answers = answers.map(|(_, answer)| answer.map(stand));
                gathered(ask, parts, answers.collect(), Answer::Stands)
            }
            Ask::PlainClear => in_all(ask, parts, plain.clear().await),
            Ask::Clear(Scope::Total) => in_all(ask, parts, shared.clear().await),
            Ask::Clear(Scope::Slice) => in_all(ask, parts, shared.clear_on_instance().await),
            Ask::Leave => in_all(ask, parts, shared.leave().await),
            _ => panic!("{ask} is no question to several shards"),
        })
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

/// An error as an answer.
fn failed(ask: &Ask, error: DistkitError) -> Result<Answer, String> {
    Ok(match error {
        DistkitError::NotApplied(_) => Answer::NotApplied,
        DistkitError::OutcomeUnknown(_) => Answer::Unknown,
        DistkitError::InstanceReplaced => Answer::Replaced,
        DistkitError::ShutDown => Answer::Left,
        DistkitError::CounterError { refusal: Refusal::Overflow, .. } => match ask {
            Ask::PlainWrite(_) => {
                Answer::PlainWrote { replayed: false, outcomes: vec![Err(Overflow)] }
            }
            _ => Answer::Wrote { replayed: false, outcomes: vec![Err(Overflow)] },
        },
        error => return Err(format!("the counter fails: {error}")),
    })
}

/// The answer of each part of a batch: of its items, or the error of the shard.
fn gathered<T: Clone>(
    ask: &Ask,
    parts: &[Part],
    items: Vec<Result<T, DistkitError>>,
    answer: impl Fn(Vec<T>) -> Answer,
) -> Vec<Result<Answer, String>> {
    let of = |part: &Part| {
        let items = part.places.iter().map(|place| items[*place].clone());
        match items.collect::<Result<Vec<_>, _>>() {
            Ok(items) => Ok(answer(items)),
            Err(error) => failed(ask, error),
        }
    };
    parts.iter().map(of).collect()
}

/// The answer of each shard to what all were asked.
fn in_all(
    ask: &Ask,
    parts: &[Part],
    done: Result<(), DistkitError>,
) -> Vec<Result<Answer, String>> {
    let of = |part: &Part| match &done {
        Ok(()) => Ok(Answer::Done),
        Err(DistkitError::InShards { failed: in_shards, .. }) => {
            let here = in_shards.iter().find(|(shard, _)| usize::from(*shard) == part.shard);
            here.map_or(Ok(Answer::Done), |(_, error)| failed(ask, error.clone()))
        }
        Err(error) => failed(ask, error.clone()),
    };
    parts.iter().map(of).collect()
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

fn plain_writes(items: &[Item<Change>]) -> Vec<Write> {
    let write = |item: &Item<Change>| Write {
        key: item.key.redis(),
        change: item.change,
        condition: item.condition,
    };
    items.iter().map(write).collect()
}

/// An overflow is an outcome.
fn plain_wrote(
    outcome: Result<Written, DistkitError>,
) -> Result<Result<Wrote<i64>, Overflow>, DistkitError> {
    match outcome {
        Ok(Written { old, new, condition_met: met }) => Ok(Ok(Wrote { old, new, met })),
        Err(DistkitError::CounterError { refusal: Refusal::Overflow, .. }) => Ok(Err(Overflow)),
        Err(error) => Err(error),
    }
}

async fn plain_many(
    counter: &StrictCounter,
    items: &[Item<Change>],
) -> Result<Vec<Result<Wrote<i64>, Overflow>>, DistkitError> {
    counter.write_all(&plain_writes(items)).await?.into_iter().map(plain_wrote).collect()
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

fn shared_writes(items: &[Item<SliceChange>]) -> Vec<SliceWrite> {
    let write = |item: &Item<SliceChange>| SliceWrite {
        key: item.key.redis(),
        change: item.change,
        condition: item.condition,
    };
    items.iter().map(write).collect()
}

/// An overflow is an outcome.
fn shared_wrote(
    outcome: Result<Written<Standing>, DistkitError>,
) -> Result<Result<Wrote<Stand>, Overflow>, DistkitError> {
    let stand = |standing: &Standing| stand((standing.total, standing.slice));
    match outcome {
        Ok(Written { old, new, condition_met: met }) => {
            Ok(Ok(Wrote { old: stand(&old), new: stand(&new), met }))
        }
        Err(DistkitError::CounterError { refusal: Refusal::Overflow, .. }) => Ok(Err(Overflow)),
        Err(error) => Err(error),
    }
}

async fn shared_many(
    counter: &StrictInstanceAwareCounter,
    items: &[Item<SliceChange>],
) -> Result<Vec<Result<Wrote<Stand>, Overflow>>, DistkitError> {
    counter.write_all(&shared_writes(items)).await?.into_iter().map(shared_wrote).collect()
}
