//! Which instances are alive, and what happened to each between two polls.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// What happened to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// First seen.
    Joined,
    /// Stopped in good order.
    Left,
    /// Its lease expired: the process crashed, hangs, or is cut off from the store.
    Expired,
    /// Alive again after it had left or expired.
    Returned,
    /// A new process took the name while the old one was still counted.
    Restarted,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    /// The name or id.
    pub(crate) instance: String,
}

/// Distinguishes successive processes of one name. Each chooses one at its start.
pub(crate) type Stamp = i64;

/// The instances as of the last poll that succeeded.
#[derive(Debug)]
pub(crate) struct Roster {
    /// `None` before the first poll, which gives no events.
    living: Option<BTreeMap<String, Stamp>>,
    /// The instances that left or expired, with the number of the poll that detected it.
    gone: BTreeMap<String, u64>,
    polls: u64,
    /// For how many polls `gone` keeps them.
    memory: u64,
}

impl Roster {
    pub(crate) fn new(memory: u64) -> Self {
        Self { living: None, gone: BTreeMap::new(), polls: 0, memory }
    }

    /// The instances of the last poll that are not among `seen`.
    pub(crate) fn missing(&self, seen: &BTreeMap<String, Stamp>) -> Vec<(String, Stamp)> {
        let known = self.living.iter().flatten();
        let missing = known.filter(|(name, _)| !seen.contains_key(*name));
        missing.map(|(name, stamp)| (name.clone(), *stamp)).collect()
    }

    /// Records a poll, and gives the events since the previous one. `left` are those of the
    /// [`missing`](Self::missing) that stopped in good order.
    pub(crate) fn update(
        &mut self,
        seen: BTreeMap<String, Stamp>,
        left: &BTreeSet<String>,
    ) -> Vec<Event> {
        self.polls += 1;
        let mut events = Vec::new();
        for (instance, _) in self.missing(&seen) {
            let kind = if left.contains(&instance) { Kind::Left } else { Kind::Expired };
            self.gone.insert(instance.clone(), self.polls);
            events.push(Event { kind, instance });
        }
        if let Some(living) = &self.living {
            for (name, stamp) in &seen {
                let kind = match living.get(name) {
                    Some(before) if before == stamp => continue,
                    Some(_) => Kind::Restarted,
                    None if self.gone.remove(name).is_some() => Kind::Returned,
                    None => Kind::Joined,
                };
                events.push(Event { kind, instance: name.clone() });
            }
        }
        self.gone.retain(|_, poll| *poll + self.memory > self.polls);
        self.living = Some(seen);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as text, of a poll that sees these in which these of the missing ones left.
    fn poll(roster: &mut Roster, seen: &[(&str, Stamp)], left: &[&str]) -> Vec<String> {
        let seen = seen.iter().map(|(name, stamp)| (name.to_string(), *stamp)).collect();
        let left = left.iter().map(ToString::to_string).collect();
        let events = roster.update(seen, &left);
        events.iter().map(|event| format!("{} {:?}", event.instance, event.kind)).collect()
    }

    #[test]
    fn the_first_poll_gives_no_events() {
        let mut roster = Roster::new(10);
        assert!(poll(&mut roster, &[("a", 1), ("b", 2)], &[]).is_empty());
        assert!(poll(&mut roster, &[("a", 1), ("b", 2)], &[]).is_empty());
        assert_eq!(poll(&mut roster, &[("a", 1), ("b", 2), ("c", 3)], &[]), ["c Joined"]);
    }

    #[test]
    fn an_instance_that_vanishes_left_or_expired_and_may_return() {
        let mut roster = Roster::new(10);
        poll(&mut roster, &[("a", 1), ("b", 2), ("c", 3)], &[]);
        assert_eq!(poll(&mut roster, &[("a", 1)], &["c"]), ["b Expired", "c Left"]);
        assert_eq!(poll(&mut roster, &[("a", 1), ("b", 2)], &[]), ["b Returned"]);
        assert_eq!(
            poll(&mut roster, &[("a", 1), ("b", 2), ("c", 9)], &["c"]),
            ["c Returned"],
            "a new process of the name is a return, too"
        );
    }

    #[test]
    fn a_name_taken_over_between_two_polls_is_a_restart() {
        let mut roster = Roster::new(10);
        poll(&mut roster, &[("a", 1)], &[]);
        assert_eq!(poll(&mut roster, &[("a", 2)], &[]), ["a Restarted"]);
        assert!(poll(&mut roster, &[("a", 2)], &[]).is_empty());
    }

    #[test]
    fn instances_that_are_gone_are_forgotten_after_a_while() {
        let mut roster = Roster::new(2);
        poll(&mut roster, &[("a", 1), ("b", 1)], &[]);
        assert_eq!(poll(&mut roster, &[("a", 1)], &[]), ["b Expired"]);
        poll(&mut roster, &[("a", 1)], &[]);
        poll(&mut roster, &[("a", 1)], &[]);
        assert!(roster.gone.is_empty());
        assert_eq!(poll(&mut roster, &[("a", 1), ("b", 1)], &[]), ["b Joined"]);
    }
}
