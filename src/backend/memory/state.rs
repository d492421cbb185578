use std::{collections::BTreeMap, time::Duration};

use super::{instance::Instances, plain::Plain, tokens::Tokens};
use crate::{
    RedisKey, Token,
    backend::{
        BackendError, Outcome, Resolved, Space,
        tokens::{half_of, kept_for},
    },
};

/// All that a store holds, under one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) plain: Plain,
    pub(super) instances: BTreeMap<Space, Instances>,
    /// How many shards each prefix in use has.
    shapes: BTreeMap<RedisKey, u16>,
    /// Half of the time for which each prefix keeps tokens, in seconds.
    keeps: BTreeMap<RedisKey, u64>,
    tokens: BTreeMap<Space, Tokens>,
    /// The latest time that anyone saw: a store's time goes back by [`step_back`](Self::step_back) only.
    latest: Duration,
    /// By how much the store's clock was set forward and back.
    ahead: Duration,
    behind: Duration,
    ids: u64,
}

impl State {
    pub(super) fn tick(&mut self, now: Duration) -> Duration {
        let now = now.saturating_add(self.ahead).saturating_sub(self.behind);
        self.latest = self.latest.max(now);
        self.latest
    }

    pub(super) fn step_forward(&mut self, step: Duration) {
        self.ahead = self.ahead.saturating_add(step);
    }

    /// Sets the clock back by `step`, but to the beginning at most.
    pub(super) fn step_back(&mut self, step: Duration) {
        let step = step.min(self.latest);
        self.behind = self.behind.saturating_add(step);
        self.latest -= step;
    }

    /// Loses what is in one space.
    pub(super) fn wipe_space(&mut self, space: &Space) {
        self.plain.wipe_space(space);
        self.tokens.remove(space);
        if let Some(instances) = self.instances.get_mut(space) {
            instances.wipe();
        }
    }

    /// Lets in a request that may write: of the number of shards that the prefix has, or gets by it.
    pub(super) fn open(&mut self, space: &Space) -> Result<(), BackendError> {
        self.check(space)?;
        if !self.shapes.contains_key(space.prefix()) {
            self.shapes.insert(space.prefix().clone(), space.shards());
        }
        Ok(())
    }

    /// Lets in a request that only reads.
    pub(super) fn check(&self, space: &Space) -> Result<(), BackendError> {
        match self.shapes.get(space.prefix()) {
            Some(shards) if *shards != space.shards() => Err(BackendError::ShapeMismatch {
                ours: format!("{} shards", space.shards()),
                stored: format!("{shards} shards"),
            }),
            _ => Ok(()),
        }
    }

    /// The tokens of a space, to be used by a request that may write, and the counters.
    pub(super) fn tokens(
        &mut self,
        now: Duration,
        space: &Space,
        keep: Duration,
    ) -> Result<(&mut Tokens, &mut Plain), BackendError> {
        self.open(space)?;
        let half = half_of(keep);
        self.check_keep(space, half)?;
        self.keeps.entry(space.prefix().clone()).or_insert(half);
        let now = now.as_secs();
        let tokens = self.tokens.entry(space.clone()).or_insert_with(|| Tokens::new(half));
        tokens.advance(now);
        Ok((tokens, &mut self.plain))
    }

    /// What is remembered of tokens.
    pub(super) fn resolve(
        &self,
        now: Duration,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        self.check(space)?;
        self.check_keep(space, half_of(keep))?;
        let known = self.tokens.get(space);
        let look = |(key, token): &(RedisKey, Token)| match known {
            Some(known) => known.resolve(now.as_secs(), key, token),
            None => Ok(Resolved::Unseen),
        };
        Ok(tokens.iter().map(look).collect())
    }

    fn check_keep(&self, space: &Space, half: u64) -> Result<(), BackendError> {
        match self.keeps.get(space.prefix()) {
            Some(held) if *held != half => {
                Err(BackendError::ShapeMismatch { ours: kept_for(half), stored: kept_for(*held) })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn lose_tokens(&mut self, space: &Space) {
        if let Some(tokens) = self.tokens.get_mut(space) {
            tokens.lose();
        }
    }

    pub(super) fn remembered_tokens(&self, space: &Space) -> usize {
        self.tokens.get(space).map_or(0, Tokens::len)
    }

    /// Numbers the ids that the store gives out, from 1.
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Loses all data. Ids and time belong to the simulation and go on, so that no id comes twice.
    pub(super) fn wipe(&mut self) {
        let Self {
            plain,
            instances,
            shapes,
            keeps,
            tokens,
            latest: _,
            ahead: _,
            behind: _,
            ids: _,
        } = self;
        plain.wipe();
        shapes.clear();
        keeps.clear();
        tokens.clear();
        instances.values_mut().for_each(Instances::wipe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_back_by_hand_only() {
        let mut state = State::default();
        let seconds = Duration::from_secs;
        assert_eq!(state.tick(seconds(5)), seconds(5));
        assert_eq!(state.tick(seconds(3)), seconds(5));
        assert_eq!(state.tick(seconds(6)), seconds(6));
        state.step_back(seconds(4));
        assert_eq!(state.tick(seconds(6)), seconds(2));
        state.step_forward(seconds(10));
        assert_eq!(state.tick(seconds(7)), seconds(13));
        state.step_back(seconds(100));
        assert_eq!(state.tick(seconds(7)), seconds(0));
    }
}
