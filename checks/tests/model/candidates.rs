//! The states that the store may be in, seen from the answers so far.

use std::collections::BTreeMap;

use crate::{
    cast::{Key, Who},
    reference::{Answer, Ask, Claim, Instances, Newcomer, Plain, Stand, Turned, Wrote},
};

/// More candidates than a history of a few lost messages can leave.
const TOO_MANY: usize = 4096;

/// What a client knows of its membership, in the model's numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Client {
    /// By shard.
    memberships: BTreeMap<usize, Membership>,
    /// The number of its first membership, in whichever shard.
    first: Option<u64>,
    /// Key -> epoch and value, as last acknowledged.
    known: BTreeMap<Key, (u64, i64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Membership {
    current: Option<u64>,
    former: Option<u64>,
}

/// What the store has of one shard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Shard {
    plain: Plain,
    instances: Instances,
}

/// A call as it is sent: by whom, and under which number of the writer or the membership.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) who: Who,
    /// The one that it is sent to. All keys in `ask` are in it.
    pub(crate) shard: usize,
    /// The id of the process, which changes when it dies.
    pub(crate) id: String,
    pub(crate) ask: Ask,
    pub(crate) sequence: Option<u64>,
    /// The batch of this number was sent before.
    pub(crate) resent: bool,
}

/// One state that the store may be in, and what the clients have learned from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Candidate {
    now: u64,
    shards: Vec<Shard>,
    clients: BTreeMap<Who, Client>,
    /// The model's epochs, and the store's names for them.
    epochs: BTreeMap<u64, u64>,
}

impl Candidate {
    pub(crate) fn wait(&mut self, ms: u64) {
        self.now += ms;
    }

    pub(crate) fn lose_guards(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.plain.lose_guards());
    }

    pub(crate) fn lose_members(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.instances.lose_members());
    }

    pub(crate) fn lose_data(&mut self) {
        for Shard { plain, instances } in &mut self.shards {
            *plain = Plain::default();
            instances.lose_data();
        }
    }

    /// The process of `who` is gone, and its successor knows nothing.
    pub(crate) fn dies(&mut self, who: Who) {
        self.clients.remove(&who);
    }

    pub(crate) fn forget_membership(&mut self, who: Who, shard: usize) {
        let client = self.clients.entry(who).or_default();
        let membership = client.memberships.entry(shard).or_default();
        membership.former = membership.current.take().or(membership.former);
    }

    pub(crate) fn forget_slices(&mut self, who: Who, shard: usize) {
        let shards = self.shards.len();
        let known = &mut self.clients.entry(who).or_default().known;
        known.retain(|key, _| key.shard(shards) != shard);
    }

    /// The totals that somebody reads who is not joined in the shard, and has no slice there.
    pub(crate) fn look(&self, request: &Request, keys: &[Key]) -> Answer {
        let instances = &self.shards[request.shard].instances;
        let stand =
            |key: &Key| Stand { total: sum(&instances.slices(self.now, *key)), slice: 0, epoch: 0 };
        Answer::Stands(keys.iter().map(stand).collect())
    }

    /// What the store does with a request, and answers.
    pub(crate) fn serve(&mut self, request: &Request) -> Answer {
        match self.try_serve(request) {
            Ok(answer) => answer,
            Err(Turned::NotJoined) => Answer::NotJoined,
            Err(Turned::Replaced) => Answer::Replaced,
        }
    }

    fn try_serve(
        &mut self,
        Request { who, shard, id, ask, sequence, resent }: &Request,
    ) -> Result<Answer, Turned> {
        let now = self.now;
        let shards = self.shards.len();
        let client = self.clients.entry(*who).or_default();
        let Client { memberships, first, known } = client;
        let membership = memberships.entry(*shard).or_default();
        let (member, former) = (membership.current, membership.former);
        let member = || member.ok_or(Turned::NotJoined);
        let Shard { plain, instances } = &mut self.shards[*shard];
        Ok(match ask {
            Ask::PlainWrite(items) => {
                let guard = sequence.map(|sequence| (id.as_str(), sequence));
                if guard.is_some_and(|(writer, _)| plain.has_forgotten(writer, *resent)) {
                    return Ok(Answer::Forgotten);
                }
                let (replayed, outcomes) = plain.write(items, guard);
                Answer::PlainWrote { replayed, outcomes }
            }
            Ask::PlainRead(keys) => {
                Answer::Values(keys.iter().map(|key| plain.get(*key)).collect())
            }
            Ask::PlainRemove(keys) => {
                Answer::Values(keys.iter().map(|key| plain.remove(*key)).collect())
            }
            Ask::PlainClear => {
                plain.clear();
                Answer::Done
            }
            Ask::Join => {
                let claims = known
                    .iter()
                    .filter(|(key, (_, value))| *value != 0 && key.shard(shards) == *shard);
                let claims: Vec<_> = claims
                    .map(|(key, (epoch, value))| Claim { key: *key, epoch: *epoch, value: *value })
                    .collect();
                let name = who.instance_name().map(|name| name.to_string());
                let (lease, first) = (who.threshold(), *first);
                let newcomer = Newcomer { id: id.clone(), name, lease, first };
                let (member, stands) = instances.join(now, newcomer, &claims)?;
                membership.current = Some(member);
                Answer::Joined(stands)
            }
            Ask::Write(items) => {
                let (replayed, outcomes) = instances.write(now, member()?, items, *sequence)?;
                Answer::Wrote { replayed, outcomes }
            }
            Ask::Read(keys) => {
                instances.enter(now, member()?)?;
                let member = member()?;
                Answer::Stands(keys.iter().map(|key| instances.stand(*key, member)).collect())
            }
            Ask::Remove(keys, scope) => {
                instances.enter(now, member()?)?;
                let member = member()?;
                let remove = |key: &Key| instances.remove(member, *key, *scope);
                let outcomes = keys.iter().map(remove).collect();
                Answer::Wrote { replayed: false, outcomes }
            }
            Ask::Clear(scope) => {
                instances.enter(now, member()?)?;
                instances.clear(member()?, *scope);
                Answer::Done
            }
            Ask::Heartbeat => {
                instances.enter(now, member()?)?;
                Answer::Done
            }
            Ask::LateHeartbeat => {
                instances.enter(now, former.ok_or(Turned::NotJoined)?)?;
                Answer::Done
            }
            Ask::Leave => {
                instances.leave(member()?);
                Answer::Done
            }
            Ask::Slices(key) => {
                // It needs no membership.
                Answer::Slices(instances.slices(now, *key))
            }
        })
    }

    /// The client takes in the answer to its request.
    pub(crate) fn learn(&mut self, request: &Request, answer: &Answer) {
        let (shard, shards) = (request.shard, self.shards.len());
        let client = self.clients.entry(request.who).or_default();
        let mut know = |key: Key, stand: &Stand| {
            client.known.insert(key, (stand.epoch, stand.slice));
        };
        match (&request.ask, answer) {
            (Ask::Join, Answer::Joined(stands)) => {
                let here = |key: &Key| key.shard(shards) == shard;
                let claimed: Vec<_> = client
                    .known
                    .iter()
                    .filter(|(key, (_, value))| *value != 0 && here(key))
                    .map(|(key, _)| *key)
                    .collect();
                client.known.retain(|key, _| !here(key));
                let stands = claimed.into_iter().zip(stands);
                client.known.extend(stands.map(|(key, stand)| (key, (stand.epoch, stand.slice))));
                let member = client.memberships.get(&shard).and_then(|place| place.current);
                client.first = client.first.or(member);
            }
            (Ask::Write(items), Answer::Wrote { outcomes, .. }) => {
                let keys = items.iter().map(|item| item.key);
                for (key, outcome) in keys.zip(outcomes) {
                    outcome.iter().for_each(|wrote| know(key, &wrote.new));
                }
            }
            (Ask::Remove(keys, _), Answer::Wrote { outcomes, .. }) => {
                for (key, outcome) in keys.iter().zip(outcomes) {
                    outcome.iter().for_each(|wrote| know(*key, &wrote.new));
                }
            }
            (Ask::Read(keys), Answer::Stands(stands)) => {
                keys.iter().zip(stands).for_each(|(key, stand)| know(*key, stand));
            }
            (Ask::Leave, _) | (_, Answer::NotJoined) if request.ask.needs_membership() => {
                self.forget_membership(request.who, shard);
            }
            _ => {}
        }
    }

    /// Whether the store's answer is the model's, but for the names of epochs.
    pub(crate) fn agrees(&mut self, expected: &Answer, given: &Answer) -> bool {
        let (ours, theirs) = (epochs_of(expected), epochs_of(given));
        same_but_epochs(expected, given)
            && ours.len() == theirs.len()
            && ours.into_iter().zip(theirs).all(|(ours, theirs)| self.same_epoch(ours, theirs))
    }

    /// Epochs grow as the model's do.
    fn same_epoch(&mut self, ours: u64, theirs: u64) -> bool {
        if let Some(known) = self.epochs.get(&ours) {
            return *known == theirs;
        }
        let below = self.epochs.range(..ours).next_back().is_none_or(|(_, epoch)| *epoch < theirs);
        let above = self.epochs.range(ours..).next().is_none_or(|(_, epoch)| theirs < *epoch);
        if below && above {
            self.epochs.insert(ours, theirs);
        }
        below && above
    }
}

fn each_stand(answer: &mut Answer, mut visit: impl FnMut(&mut Stand)) {
    match answer {
        Answer::Joined(stands) | Answer::Stands(stands) => stands.iter_mut().for_each(visit),
        Answer::Wrote { outcomes, .. } => {
            for Wrote { old, new, .. } in outcomes.iter_mut().flatten() {
                visit(old);
                visit(new);
            }
        }
        _ => {}
    }
}

fn epochs_of(answer: &Answer) -> Vec<u64> {
    let mut epochs = Vec::new();
    each_stand(&mut answer.clone(), |stand| epochs.push(stand.epoch));
    epochs
}

pub(crate) fn without_epochs(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    each_stand(&mut answer, |stand| stand.epoch = 0);
    answer
}

pub(crate) fn same_but_epochs(expected: &Answer, given: &Answer) -> bool {
    without_epochs(expected) == without_epochs(given)
}

/// Numbers the epochs of a transcript in the order of their appearance, for stores name them as they like.
#[derive(Default)]
pub(crate) struct EpochNames(Vec<u64>);

impl EpochNames {
    pub(crate) fn name(&mut self, mut answer: Answer) -> Answer {
        each_stand(&mut answer, |stand| {
            let known = self.0.iter().position(|epoch| *epoch == stand.epoch);
            let place = known.unwrap_or_else(|| {
                self.0.push(stand.epoch);
                self.0.len() - 1
            });
            stand.epoch = 1 + u64::try_from(place).unwrap();
        });
        answer
    }
}

/// All states that are possible.
#[derive(Clone)]
pub(crate) struct Candidates(Vec<Candidate>);

impl Candidates {
    pub(crate) fn new() -> Self {
        Self::in_shards(1)
    }

    pub(crate) fn in_shards(shards: usize) -> Self {
        let shards = vec![Shard::default(); shards];
        Self(vec![Candidate { shards, ..Candidate::default() }])
    }

    pub(crate) fn each(&mut self, change: impl FnMut(&mut Candidate)) {
        self.0.iter_mut().for_each(change);
    }

    /// The request was lost, or its answer was.
    pub(crate) fn lost(&mut self, request: &Request) -> Result<(), String> {
        let mut applied = self.0.clone();
        for candidate in &mut applied {
            let before = candidate.clients.get(&request.who).cloned().unwrap_or_default();
            candidate.serve(request);
            // The client has heard nothing.
            candidate.clients.insert(request.who, before);
        }
        self.0.append(&mut applied);
        self.0.sort();
        self.0.dedup();
        if self.0.len() > TOO_MANY {
            return Err(format!("{} candidates: the test loses count", self.0.len()));
        }
        Ok(())
    }

    /// The request was answered: keeps the candidates that would have answered so.
    pub(crate) fn answered(&mut self, request: &Request, given: &Answer) -> Result<(), String> {
        self.answered_by(given, |candidate| {
            let answer = candidate.serve(request);
            let agrees = candidate.agrees(&answer, given);
            candidate.learn(request, &answer);
            (agrees, answer)
        })
    }

    /// Keeps the candidates that agree with what was answered; `serve` tells, and what they expected.
    pub(crate) fn answered_by(
        &mut self,
        given: &Answer,
        mut serve: impl FnMut(&mut Candidate) -> (bool, Answer),
    ) -> Result<(), String> {
        let mut expected: Vec<Answer> = Vec::new();
        let mut kept = Vec::new();
        for mut candidate in std::mem::take(&mut self.0) {
            let (agrees, answer) = serve(&mut candidate);
            if agrees {
                kept.push(candidate);
            } else if !expected.contains(&answer) {
                expected.push(answer);
            }
        }
        if kept.is_empty() {
            let expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
            return Err(format!(
                "the answer is: {given}\n    the model's:   {}",
                expected.join("\n    or:            ")
            ));
        }
        kept.sort();
        kept.dedup();
        self.0 = kept;
        Ok(())
    }
}

/// Every counted slice, and the total that they make.
pub(crate) fn sum(slices: &[(String, i64)]) -> i64 {
    let sum: i128 = slices.iter().map(|(_, value)| i128::from(*value)).sum();
    i64::try_from(sum.clamp(i64::MIN.into(), i64::MAX.into())).unwrap()
}
