//! Tokens: what a store must remember of them, and for how long, whoever asks and whatever gets lost.
//!
//! The model knows the rules and not the buckets: between `keep` and 1.5 of it, it takes either answer.

use std::{collections::BTreeMap, time::Duration};

use distkit::{
    RedisKey, Token,
    backend::{AddedOnce, BackendError, Outcome, Refusal, Resolved, Space, TokenAdd, Write},
};

use crate::{
    cases::times,
    cast::Who,
    world::{Fault, Simulated, World, runtime},
};

/// For how long tokens are kept, in seconds.
const KEEP: u64 = 60;
const LONGEST_STEP: u64 = 60;
/// A store may count in whole seconds.
const ROUNDED: u64 = 3;

#[derive(Default)]
struct Model {
    totals: BTreeMap<RedisKey, i64>,
    /// What is remembered, and at what age it came: one of two, where a mark may have been made anew.
    known: BTreeMap<(RedisKey, Token), (Resolved, [u64; 2])>,
    now: u64,
    /// The age of the tokens, and when it was last looked at.
    clock: Option<(u64, u64)>,
    lost: bool,
}

/// What a store may say of a token.
struct Expected {
    known: Option<Resolved>,
    unknown: bool,
}

impl Model {
    fn age(&self) -> u64 {
        self.clock.map_or(0, |(age, seen)| age + (self.now - seen).min(LONGEST_STEP))
    }

    /// A request that may write comes.
    fn write(&mut self) {
        self.clock = Some((self.age(), self.now));
    }

    fn expected(&self, key: &RedisKey, token: &Token) -> Expected {
        match self.known.get(&(key.clone(), token.clone())) {
            None => Expected { known: None, unknown: true },
            Some((what, came)) => {
                let [longest, shortest] = came.map(|came| self.age() - came);
                let known = (shortest <= KEEP * 3 / 2 + ROUNDED).then_some(*what);
                Expected { known, unknown: longest > KEEP }
            }
        }
    }

    fn keep(&mut self, key: &RedisKey, token: &Token, what: Resolved) {
        self.known.insert((key.clone(), token.clone()), (what, [self.age(); 2]));
    }

    /// Whether records that are not known may have been lost.
    fn may_be_lost(&self) -> bool {
        self.lost && self.age() <= KEEP * 3 / 2 + ROUNDED
    }

    fn must_be_lost(&self) -> bool {
        self.lost && self.age() < KEEP * 3 / 2
    }

    fn added(&mut self, item: &TokenAdd, outcome: &Outcome<AddedOnce>) -> Result<(), String> {
        let expected = self.expected(&item.key, &item.token);
        let total = self.totals.get(&item.key).copied().unwrap_or(0);
        let right = match (outcome, expected.known) {
            (Ok(AddedOnce { total: answered, replayed: false }), _) => {
                let done = Resolved::Done { amount: item.count, answer: total + item.count };
                self.keep(&item.key, &item.token, done);
                self.totals.insert(item.key.clone(), total + item.count);
                expected.unknown && !self.must_be_lost() && *answered == total + item.count
            }
            (Ok(AddedOnce { total: answered, .. }), Some(Resolved::Done { amount, answer })) => {
                amount == item.count && answer == *answered
            }
            (Err(Refusal::TokenUsed { amount: first }), Some(Resolved::Done { amount, .. })) => {
                amount == *first && amount != item.count
            }
            (Err(Refusal::TokenForbidden), Some(Resolved::Forbidden)) => true,
            (Err(Refusal::TokenForgotten), _) => expected.unknown && self.may_be_lost(),
            _ => false,
        };
        if right { Ok(()) } else { Err(format!("{outcome:?} is not what the rules say")) }
    }

    /// What a question, or a mark where `marks`, was answered.
    fn resolved(
        &mut self,
        (key, token): &(RedisKey, Token),
        marks: bool,
        outcome: &Outcome<Resolved>,
    ) -> Result<(), String> {
        let expected = self.expected(key, token);
        let right = match outcome {
            Ok(Resolved::Unseen) => !marks && expected.unknown && !self.must_be_lost(),
            Ok(Resolved::Forbidden) if marks && expected.known != Some(Resolved::Forbidden) => {
                let right = expected.unknown && !self.must_be_lost();
                self.keep(key, token, Resolved::Forbidden);
                right
            }
            Ok(Resolved::Forbidden) if marks && expected.unknown => {
                // Known, or marked anew: the answer is the same.
                let now = self.age();
                if let Some((_, [_, last])) = self.known.get_mut(&(key.clone(), token.clone())) {
                    *last = now;
                }
                true
            }
            Ok(what) => expected.known == Some(*what),
            Err(Refusal::TokenForgotten) => expected.unknown && self.may_be_lost(),
            Err(_) => false,
        };
        if right { Ok(()) } else { Err(format!("{outcome:?} is not what the rules say")) }
    }
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// Plays a history, and gives what was answered in it.
pub(crate) async fn play(
    world: &impl World,
    prefix: &str,
    seed: u64,
) -> Result<Vec<String>, String> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let space = Space::new(key(prefix));
    let keep = Duration::from_secs(KEEP);
    let mut model = Model::default();
    let mut transcript = Vec::new();
    let mut warm = 0;
    for step in 0..80 {
        let who = Who::ALL[dice.usize(..Who::ALL.len())];
        let link = world.link(who);
        let tokens = link.capabilities().tokens.ok_or("no tokens")?;
        let name = key(["hits", "sold"][dice.usize(..2)]);
        let token = Token::new(format!("t{}", dice.u8(..7))).unwrap();
        let asked = [(name.clone(), token.clone())];
        let fail = |error: BackendError| format!("step {step}: {error}");
        let line = match dice.u8(..20) {
            0..8 => {
                let item = TokenAdd { key: name, count: [1, 1, -2][dice.usize(..3)], token };
                model.write();
                let outcome = tokens.add_once(&space, std::slice::from_ref(&item), keep).await;
                let outcome = outcome.map_err(fail)?.remove(0);
                model
                    .added(&item, &outcome)
                    .map_err(|why| format!("step {step}: {item:?}: {why}"))?;
                format!("{item:?}: {outcome:?}")
            }
            8..11 => {
                let known = tokens.resolve(&space, &asked, keep).await.map_err(fail)?.remove(0);
                model
                    .resolved(&asked[0], false, &known)
                    .map_err(|why| format!("step {step}: {why}"))?;
                format!("resolve {asked:?}: {known:?}")
            }
            11 => {
                model.write();
                let known = tokens.forbid(&space, &asked, keep).await.map_err(fail)?.remove(0);
                model
                    .resolved(&asked[0], true, &known)
                    .map_err(|why| format!("step {step}: {why}"))?;
                format!("forbid {asked:?}: {known:?}")
            }
            12 | 13 => {
                // So that one request is all that there is to lose.
                warm += 1;
                let dummy = [(key("warm"), Token::new(format!("w{warm}")).unwrap())];
                model.write();
                tokens.forbid(&space, &dummy, keep).await.map_err(fail)?;
                let item = TokenAdd { key: name, count: 1, token };
                let lost = dice.bool();
                world.fault(who, None, if lost { Fault::LosesRequest } else { Fault::LosesReply });
                let outcome = tokens.add_once(&space, std::slice::from_ref(&item), keep).await;
                world.fault(who, None, Fault::Restored);
                if !matches!(&outcome, Err(error) if error.may_have_happened()) {
                    return Err(format!("step {step}: {outcome:?} although a message got lost"));
                }
                // The request is idempotent: it is sent again, and tells.
                let again = tokens.add_once(&space, std::slice::from_ref(&item), keep).await;
                let again = again.map_err(fail)?.remove(0);
                let read = link.read(&space, std::slice::from_ref(&item.key)).await;
                let held = read.map_err(fail)?.remove(0);
                let before = model.totals.get(&item.key).copied().unwrap_or(0);
                let first = match again {
                    // The first attempt added.
                    Ok(AddedOnce { total, replayed: true }) if !lost && held != Ok(before) => {
                        Ok(AddedOnce { total, replayed: false })
                    }
                    ref other => other.clone(),
                };
                model
                    .added(&item, &first)
                    .map_err(|why| format!("step {step}: {item:?}: {why}"))?;
                format!("{item:?}, a message lost: {again:?}")
            }
            14 => {
                let writes = [if dice.bool() {
                    model.totals.insert(name.clone(), 100);
                    Write::set(name, 100)
                } else {
                    model.totals.remove(&name);
                    Write::remove(name)
                }];
                link.apply(&space, &writes, None).await.map_err(fail)?;
                format!("{writes:?}")
            }
            15 if dice.u8(..3) == 0 => {
                world.lose_tokens(&space);
                if model.clock.take().is_some() {
                    (model.lost, model.known) = (true, BTreeMap::new());
                }
                "tokens are lost".to_owned()
            }
            16 if dice.u8(..4) == 0 => {
                world.restart(false).await;
                model = Model { now: model.now, ..Model::default() };
                "all data is lost".to_owned()
            }
            _ => {
                let time = [1, 7, 25, 40, 86_400][dice.usize(..5)];
                world.advance(Duration::from_secs(time)).await;
                model.now += time;
                format!("{time} s pass")
            }
        };
        transcript.push(line);
    }
    let keys = [key("hits"), key("sold")];
    let totals =
        world.link(Who::Anna).read(&space, &keys).await.map_err(|error| error.to_string())?;
    for (key, total) in keys.iter().zip(totals) {
        let expected = model.totals.get(key).copied().unwrap_or(0);
        if total != Ok(expected) {
            return Err(format!("{key} holds {total:?} and not {expected}"));
        }
    }
    Ok(transcript)
}

#[test]
fn the_simulator_remembers_tokens_by_the_rules() {
    for seed in 0..600 * u64::from(times()) {
        let played = runtime().block_on(play(&Simulated::new(), "shop", seed));
        played.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}
