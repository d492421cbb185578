use std::{collections::BTreeMap, time::Duration};

use super::{instance::Instances, plain::Plain, tokens::Tokens};
use crate::{
    RedisKey, Token,
    backend::{
        BackendError, Outcome, Resolved, Space,
        tokens::{half_of, kept_for, takes_tokens},
    },
};

/// How much later than it may a space expires: as on a server, which does not renew it with each write of a second.
const LATE: Duration = Duration::from_secs(1);

/// All that a store holds, under one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) plain: Plain,
    pub(super) instances: BTreeMap<Space, Instances>,
    /// What each prefix in use looks like.
    shapes: BTreeMap<RedisKey, Shape>,
    /// When each space that expires was last written to.
    written: BTreeMap<Space, Duration>,
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

/// What the processes of a prefix agree on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    shards: u16,
    idle: Option<Duration>,
}

impl Shape {
    fn of(space: &Space) -> Self {
        Self { shards: space.shards(), idle: space.idle() }
    }
}

/// As two processes that do not agree show it.
fn described(shape: Shape, other: Shape) -> String {
    let shards = format!("{} shards", shape.shards);
    match shape.idle {
        Some(idle) => format!("{shards}, expiring after {} ms", idle.as_millis()),
        None if other.idle.is_some() => format!("{shards}, not expiring"),
        None => shards,
    }
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
        self.shapes.entry(space.prefix().clone()).or_insert_with(|| Shape::of(space));
        if space.idle().is_some() {
            self.written.insert(space.home().into_owned(), self.latest);
        }
        Ok(())
    }

    /// Lets in a request that only reads.
    pub(super) fn check(&mut self, space: &Space) -> Result<(), BackendError> {
        self.expire(space);
        let ours = Shape::of(space);
        match self.shapes.get(space.prefix()) {
            Some(stored) if *stored != ours => Err(BackendError::ShapeMismatch {
                ours: described(ours, *stored),
                stored: described(*stored, ours),
            }),
            _ => Ok(()),
        }
    }

    /// Removes a space that was not written to for so long, with its records.
    fn expire(&mut self, space: &Space) {
        let Some(Shape { shards, idle: Some(idle) }) = self.shapes.get(space.prefix()).copied()
        else {
            return;
        };
        let home = space.home();
        let written = self.written.get(&*home);
        let is_idle =
            written.is_some_and(|written| self.latest >= written.saturating_add(idle + LATE));
        if is_idle && self.plain.expire_space(self.latest, &home) {
            self.written.remove(&*home);
            if shards == 1 {
                self.shapes.remove(space.prefix());
            }
        }
    }

    /// The tokens of a space, to be used by a request that may write, and the counters.
    pub(super) fn tokens(
        &mut self,
        now: Duration,
        space: &Space,
        keep: Duration,
    ) -> Result<(&mut Tokens, &mut Plain), BackendError> {
        takes_tokens(space)?;
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
        &mut self,
        now: Duration,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        takes_tokens(space)?;
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
            written,
            keeps,
            tokens,
            latest: _,
            ahead: _,
            behind: _,
            ids: _,
        } = self;
        plain.wipe();
        shapes.clear();
        written.clear();
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
