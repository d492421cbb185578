//! The rules of tokens catch stores that break them.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/faults.rs"]
#[allow(dead_code, unused_imports, reason = "made for other tests besides")]
mod faults;
#[path = "common/overriding.rs"]
mod overriding;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use distkit::{
    RedisKey, Token,
    backend::{
        AddedOnce, Backend, BackendError, Capabilities, Outcome, Refusal, Resolved, Space,
        TokenAdd, Tokens, Write,
        memory::{ManualClock, MemoryBackend},
    },
    conformance::{self as rules, Fixture},
};
use overriding::{Override, Overriding};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    AddsAgain,
    AddsThroughDoubles,
    AnswersWithTheTotalAsItStands,
    ClearForgetsTokens,
    ForgetsAllButTheLatest,
    ForgetsNothing,
    ForgetsTooEarly,
    KeepsAsLongAsItLikes,
    LooksBeforeItAdds,
    LosesInSilence,
    MarksRefuseNothing,
    QuestionsLeaveMarks,
    SharesTokensAmongKeys,
    SharesTokensAmongSpaces,
    TakesAnyAmount,
    TakesTokensForText,
    UsesUpRefusedTokens,
}

/// A sound store around which the fault is.
#[derive(Debug)]
struct Broken {
    fault: Fault,
    store: MemoryBackend,
    /// Tokens of other epochs are others.
    epoch: Arc<AtomicU64>,
    added: Mutex<Vec<(Space, TokenAdd, AddedOnce)>>,
    refused: Mutex<Vec<Token>>,
}

impl Broken {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn sound(&self) -> &dyn Tokens {
        self.store.capabilities().tokens.unwrap()
    }

    /// The token under which the sound store knows it.
    fn token(&self, token: &Token) -> Token {
        let mut bytes = token.as_bytes().to_vec();
        if self.is(Fault::TakesTokensForText) {
            bytes = String::from_utf8_lossy(&bytes).trim().to_lowercase().into_bytes();
            bytes.push(b'.');
        }
        if self.is(Fault::AddsAgain) {
            self.epoch.fetch_add(1, SeqCst);
        }
        match self.epoch.load(SeqCst) {
            0 => {}
            epoch => bytes.extend(format!(" {epoch}").bytes()),
        }
        bytes.reverse();
        bytes.truncate(Token::MAX_BYTES);
        Token::from_bytes(&bytes).unwrap()
    }

    fn keep(&self, keep: Duration) -> Duration {
        match self.fault {
            Fault::ForgetsTooEarly => keep / 2,
            Fault::ForgetsNothing => keep * 100,
            Fault::KeepsAsLongAsItLikes => Duration::from_secs(3600),
            _ => keep,
        }
    }

    async fn add(
        &self,
        space: &Space,
        item: &TokenAdd,
        keep: Duration,
    ) -> Result<Outcome<AddedOnce>, BackendError> {
        let earlier = |same: &dyn Fn(&Space, &TokenAdd) -> bool| {
            let added = self.added.lock().unwrap();
            let place = added.iter().position(|(space, item, _)| same(space, item))?;
            Some((place, added[place].2, added.len()))
        };
        if self.is(Fault::UsesUpRefusedTokens) && self.refused.lock().unwrap().contains(&item.token)
        {
            return Ok(Err(Refusal::TokenForbidden));
        }
        let another = match self.fault {
            Fault::SharesTokensAmongKeys => {
                earlier(&|of, one| of == space && one.token == item.token)
            }
            Fault::SharesTokensAmongSpaces => earlier(&|_, one| one == item),
            _ => None,
        };
        if let Some((_, first, _)) = another {
            return Ok(Ok(AddedOnce { replayed: true, ..first }));
        }
        let known = earlier(&|of, one| of == space && one == item);
        let forgotten = known.is_some_and(|(place, _, all)| place + 3000 < all);
        let token = match self.fault {
            Fault::ForgetsAllButTheLatest if forgotten => Token::from([9; 16]),
            _ => self.token(&item.token),
        };
        let mut asked = TokenAdd { token, ..item.clone() };
        if self.is(Fault::LooksBeforeItAdds) {
            let known = [(asked.key.clone(), asked.token.clone())];
            let known = self.sound().resolve(space, &known, keep).await?;
            tokio::task::yield_now().await;
            if known == [Ok(Resolved::Unseen)] && asked.count != 0 {
                self.store
                    .apply(space, &[Write::add(asked.key.clone(), asked.count)], None)
                    .await?;
                asked.count = 0;
            }
        }
        let outcome = self.sound().add_once(space, &[asked], keep).await?.remove(0);
        if outcome.is_err() {
            self.refused.lock().unwrap().push(item.token.clone());
        }
        if let Ok(added) = &outcome {
            self.added.lock().unwrap().push((space.clone(), item.clone(), *added));
        }
        Ok(match outcome {
            Err(Refusal::TokenUsed { .. }) if self.is(Fault::TakesAnyAmount) => {
                Ok(AddedOnce { total: 0, replayed: true })
            }
            Ok(added) if added.replayed && self.is(Fault::AnswersWithTheTotalAsItStands) => {
                let total = self.store.read(space, std::slice::from_ref(&item.key)).await?;
                Ok(AddedOnce { total: total[0].clone().unwrap(), ..added })
            }
            Ok(added) if self.is(Fault::AddsThroughDoubles) => {
                Ok(AddedOnce { total: added.total as f64 as i64, ..added })
            }
            outcome => outcome,
        })
    }

    fn all(&self, tokens: &[(RedisKey, Token)]) -> Vec<(RedisKey, Token)> {
        tokens.iter().map(|(key, token)| (key.clone(), self.token(token))).collect()
    }
}

#[async_trait]
impl Tokens for Broken {
    async fn add_once(
        &self,
        space: &Space,
        items: &[TokenAdd],
        keep: Duration,
    ) -> Result<Vec<Outcome<AddedOnce>>, BackendError> {
        let mut outcomes = Vec::new();
        for item in items {
            outcomes.push(self.add(space, item, self.keep(keep)).await?);
        }
        Ok(outcomes)
    }

    async fn resolve(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        let (tokens, keep) = (self.all(tokens), self.keep(keep));
        if self.is(Fault::QuestionsLeaveMarks) {
            let known = self.sound().resolve(space, &tokens, keep).await;
            self.sound().forbid(space, &tokens, keep).await?;
            return known;
        }
        self.sound().resolve(space, &tokens, keep).await
    }

    async fn forbid(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        let (tokens, keep) = (self.all(tokens), self.keep(keep));
        if self.is(Fault::MarksRefuseNothing) {
            let known = self.sound().resolve(space, &tokens, keep).await?;
            let marked = |known| match known {
                Ok(Resolved::Unseen) => Ok(Resolved::Forbidden),
                known => known,
            };
            return Ok(known.into_iter().map(marked).collect());
        }
        self.sound().forbid(space, &tokens, keep).await
    }
}

#[async_trait]
impl Override for Broken {
    fn sound(&self) -> &MemoryBackend {
        &self.store
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none().with_tokens(self)
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        if self.is(Fault::ClearForgetsTokens) {
            self.epoch.fetch_add(1, SeqCst);
        }
        self.store.clear(space).await
    }
}

fn fixture(fault: Fault) -> Fixture {
    let (clock, epoch) = (ManualClock::new(), Arc::new(AtomicU64::new(0)));
    let store = MemoryBackend::with_clock(clock.clone());
    let broken = Broken {
        fault,
        store: store.clone(),
        epoch: epoch.clone(),
        added: Mutex::default(),
        refused: Mutex::default(),
    };
    let forgetful = store.clone();
    Fixture::plain(Overriding(broken))
        .advance_with(move |step| clock.advance(step))
        .lose_tokens_with(move |space| {
            if fault == Fault::LosesInSilence {
                epoch.fetch_add(1, SeqCst);
            } else {
                forgetful.lose_tokens(&space);
            }
            async {}
        })
        .plant_with(move |space, key, text| {
            store.corrupt(&space, &key, &text);
            async {}
        })
}

async fn sound() -> Fixture {
    fixture(Fault::None)
}

// Without a fault this store passes, so what fails below fails because of the fault.
distkit::tokens_conformance_suite!(tokens, sound);

faults::caught! {
    in "tokens.rs";
    AddsAgain by
        a_token_is_used_once
        any_token_works
        many_tokens_are_told_apart
        tokens_survive_removal_and_clear,
    AddsThroughDoubles by tokens_are_exact_on_the_whole_range,
    AnswersWithTheTotalAsItStands by a_token_is_used_once,
    ClearForgetsTokens by tokens_survive_removal_and_clear,
    ForgetsAllButTheLatest by many_tokens_are_told_apart,
    ForgetsNothing by tokens_are_remembered_for_keep,
    ForgetsTooEarly by tokens_are_remembered_for_keep,
    KeepsAsLongAsItLikes by another_keep_is_refused,
    LooksBeforeItAdds by concurrent_copies_of_an_addition_happen_once,
    LosesInSilence by lost_tokens_are_not_used_again,
    MarksRefuseNothing by forbidden_tokens_are_refused,
    QuestionsLeaveMarks by resolving_changes_nothing,
    SharesTokensAmongKeys by a_token_is_used_once any_token_works,
    SharesTokensAmongSpaces by tokens_stay_in_their_space,
    TakesAnyAmount by another_amount_is_refused,
    TakesTokensForText by any_token_works,
    UsesUpRefusedTokens by a_refused_addition_leaves_its_token_unused,
}
