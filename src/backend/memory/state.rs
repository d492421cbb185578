use std::{collections::BTreeMap, time::Duration};

use super::{instance::Instances, plain::Plain};
use crate::{
    RedisKey,
    backend::{BackendError, Space},
};

/// All that a store holds, under one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) plain: Plain,
    pub(super) instances: BTreeMap<Space, Instances>,
    /// How many shards each prefix in use has.
    shapes: BTreeMap<RedisKey, u16>,
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

    /// Numbers the ids that the store gives out, from 1.
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Loses all data. Ids and time belong to the simulation and go on, so that no id comes twice.
    pub(super) fn wipe(&mut self) {
        let Self { plain, instances, shapes, latest: _, ahead: _, behind: _, ids: _ } = self;
        plain.wipe();
        shapes.clear();
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
