use std::{collections::BTreeMap, time::Duration};

use super::{instance::Instances, plain::Plain};
use crate::backend::Space;

/// All that a store holds, under one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) plain: Plain,
    pub(super) instances: BTreeMap<Space, Instances>,
    /// The latest time that anyone saw: a store's time never goes back.
    latest: Duration,
    ids: u64,
}

impl State {
    pub(super) fn tick(&mut self, now: Duration) -> Duration {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Numbers the ids that the store gives out, from 1.
    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Loses all data. Ids and time belong to the simulation and go on, so that no id comes twice.
    pub(super) fn wipe(&mut self) {
        let Self { plain, instances, latest: _, ids: _ } = self;
        *plain = Plain::default();
        instances.values_mut().for_each(Instances::wipe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let mut state = State::default();
        let seconds = Duration::from_secs;
        assert_eq!(state.tick(seconds(5)), seconds(5));
        assert_eq!(state.tick(seconds(3)), seconds(5));
        assert_eq!(state.tick(seconds(6)), seconds(6));
    }
}
