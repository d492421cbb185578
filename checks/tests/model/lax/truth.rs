//! What is in the store and what must come to it, by the promises of the design.

use std::collections::BTreeMap;

use crate::cast::{Key, Who};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Plain,
    /// Instance-aware.
    Shared,
}

pub(crate) const PROCESSES: [Who; 3] = [Who::Anna, Who::Ben, Who::Cleo];

/// What each process has of something.
pub(crate) type Parts = [i64; PROCESSES.len()];

const DIGITS: i64 = 100_000;

/// What `n` of this process are in a total.
pub(crate) fn in_digits(who: Who, n: i64) -> i64 {
    n * DIGITS.pow(who as u32)
}

/// Takes a total apart.
pub(crate) fn parts(mut total: i64) -> Parts {
    PROCESSES.map(|_| {
        let half = DIGITS / 2;
        let part = (total + half).rem_euclid(DIGITS) - half;
        total = (total - part) / DIGITS;
        part
    })
}

/// A look at one key in the store, past all links.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    pub(crate) total: i64,
    /// The slice of each living process; for a plain counter, its part of the total.
    pub(crate) slices: [Option<i64>; PROCESSES.len()],
}

/// How a key stood at a moment, seen by each process with its own writes on top.
#[derive(Debug, Clone, Copy)]
struct View {
    at: u64,
    parts: Parts,
    /// What each process would call its own.
    own: Parts,
    /// Its part of the total beside that: what crashed processes of its digits left.
    ghosts: Parts,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Truth {
    keys: BTreeMap<Key, KeyTruth>,
}

#[derive(Debug, Clone, Default)]
struct KeyTruth {
    look: Look,
    /// What each process's part must come to once everything has arrived.
    due: Parts,
    /// The least and the most that was due since all of it had arrived last: it arrives bit by bit.
    on_the_way: [(i64, i64); PROCESSES.len()],
    /// What was in the store of a process that was collected, and comes back with it.
    away: Parts,
    views: Vec<View>,
    /// Whether it is unknown what is due: the key was set while a write of the process was under way.
    doubtful: [bool; PROCESSES.len()],
    /// Until when it was: what others have seen of the process by then is unknown, too.
    doubtful_until: [Option<u64>; PROCESSES.len()],
    /// Whether a `set_on_instance` may still be on its way: it makes the slice what it says, also of a key that
    /// was set meanwhile.
    replacing: [bool; PROCESSES.len()],
    /// Whether it had a slice when somebody else set or deleted the key. If the store then loses its data,
    /// nobody may be left who knows better than the process that comes back with that slice.
    outlived: [bool; PROCESSES.len()],
    /// Whether one that outlived a `set` may have brought the epoch of before back to a store without data. Until the
    /// next `set`, what anybody counts under it survives no other loss, be it of the members only: the claim names
    /// an epoch that is no longer the key's.
    former_epoch: bool,
    /// From when on the views concern a process: its own `set` is known to it at once.
    since: [u64; PROCESSES.len()],
    /// The same for its reads, after a write that may have happened.
    read_since: [u64; PROCESSES.len()],
}

impl KeyTruth {
    fn held(&self, at: usize) -> i64 {
        self.look.slices[at].unwrap_or(0)
    }

    /// Acknowledged and not in the store.
    fn owed(&self, at: usize) -> i64 {
        if self.doubtful[at] { 0 } else { self.due[at] - self.held(at) - self.away[at] }
    }

    fn see(&mut self, now: u64, look: Look) {
        for (at, slice) in look.slices.iter().enumerate() {
            match slice {
                None => self.away[at] += self.held(at),
                Some(_) => self.away[at] = 0,
            }
        }
        self.look = look;
        for at in 0..self.due.len() {
            if self.owed(at) == 0 {
                self.on_the_way[at] = (self.due[at], self.due[at]);
            }
        }
        let parts = parts(look.total);
        let mut own = Parts::default();
        let mut ghosts = Parts::default();
        for at in 0..own.len() {
            own[at] = self.due[at];
            ghosts[at] = parts[at] - self.held(at);
        }
        self.views.push(View { at: now, parts, own, ghosts });
    }

    fn is_due(&mut self, at: usize, due: i64) {
        self.due[at] = due;
        let (least, most) = self.on_the_way[at];
        self.on_the_way[at] = (least.min(due), most.max(due));
    }

    /// While nobody looked, a part of what is on its way may have been there without the rest.
    fn see_arrivals(&mut self, now: u64) {
        let mut views = [parts(self.look.total); 2];
        let mut ghosts = Parts::default();
        for (at, (least, most)) in self.on_the_way.iter().enumerate() {
            let (held, away) = (self.held(at), self.away[at]);
            ghosts[at] = views[0][at] - held;
            views[0][at] += 0.min(away).min(least - held);
            views[1][at] += 0.max(away).max(most - held);
        }
        let own = self.due;
        self.views.extend(views.map(|parts| View { at: now, parts, own, ghosts }));
    }

    fn ends_doubt(&mut self, now: u64, at: usize) {
        if std::mem::take(&mut self.doubtful[at]) {
            self.doubtful_until[at] = Some(now);
        }
    }

    /// What was owed may have arrived before the key was set, or may arrive after it; others can have seen
    /// either.
    fn see_unwatched(&mut self, now: u64, by: Option<(usize, i64)>) {
        let mut before = parts(self.look.total);
        for (at, part) in before.iter_mut().enumerate() {
            *part += self.owed(at);
        }
        let mut after = Parts::default();
        if let Some((at, total)) = by {
            after[at] = total;
        }
        let (own, ghosts) = (self.due, Parts::default());
        self.views.extend([before, after].map(|parts| View { at: now, parts, own, ghosts }));
    }

    /// A key that was set or deleted starts again, but for what the others have not sent yet.
    fn starts_again(&mut self, now: u64, by: Option<(usize, i64)>, watched: bool) {
        if !watched {
            self.see_unwatched(now, by);
        }
        for at in 0..self.due.len() {
            let owed = self.owed(at);
            // What is away may be a batch whose answer was lost, and which is sent again.
            let unsure = self.replacing[at] || self.away[at] != 0 || !watched && owed != 0;
            self.doubtful[at] |= unsure;
            let there = self.held(at) + self.away[at];
            self.outlived[at] |= there != 0;
            self.due[at] = owed;
            let (least, most) = self.on_the_way[at];
            self.on_the_way[at] = (0.min(least - there), 0.max(most - there));
        }
        if let Some((at, total)) = by {
            (self.due[at], self.on_the_way[at]) = (total, (total, total));
            self.ends_doubt(now, at);
            (self.outlived[at], self.replacing[at]) = (false, false);
        }
        self.away = Parts::default();
        self.former_epoch = false;
        self.look.slices = Default::default();
    }
}

impl Truth {
    fn key(&mut self, key: Key) -> &mut KeyTruth {
        self.keys.entry(key).or_default()
    }

    pub(crate) fn see(&mut self, now: u64, key: Key, look: Look) {
        self.key(key).see(now, look);
    }

    /// Nobody looked for a while.
    pub(crate) fn see_arrivals(&mut self, now: u64) {
        self.keys.values_mut().for_each(|truth| truth.see_arrivals(now));
    }

    pub(crate) fn look(&mut self, key: Key) -> Look {
        self.key(key).look
    }

    pub(crate) fn owed(&mut self, who: Who, key: Key) -> i64 {
        self.key(key).owed(who as usize)
    }

    /// What comes back with the process.
    pub(crate) fn away(&mut self, who: Who, key: Key) -> i64 {
        self.key(key).away[who as usize]
    }

    pub(crate) fn due(&mut self, who: Who, key: Key) -> i64 {
        self.key(key).due[who as usize]
    }

    pub(crate) fn added(&mut self, who: Who, key: Key, count: i64) {
        let (truth, at) = (self.key(key), who as usize);
        truth.is_due(at, truth.due[at] + count);
        truth.views.iter_mut().for_each(|view| view.own[at] += count);
    }

    pub(crate) fn replaced(&mut self, who: Who, key: Key, count: i64) {
        let (truth, at) = (self.key(key), who as usize);
        truth.is_due(at, count);
        truth.away[at] = 0;
        truth.replacing[at] = true;
        truth.views.iter_mut().for_each(|view| view.own[at] = count);
    }

    /// The same, but the process was told that it may have been: until it reads, it answers without.
    pub(crate) fn added_unheard(&mut self, now: u64, who: Who, key: Key, count: i64) {
        let (truth, at) = (self.key(key), who as usize);
        truth.is_due(at, truth.due[at] + count);
        truth.read_since[at] = now;
    }

    /// The slice is gone, at once.
    pub(crate) fn removed(&mut self, now: u64, who: Who, key: Key) {
        let truth = self.key(key);
        truth.see_unwatched(now, None);
        self.replaced(who, key, 0);
        let truth = self.key(key);
        truth.look.slices[who as usize] = None;
        truth.replacing[who as usize] = false;
    }

    /// All that the process has written is in the store.
    pub(crate) fn arrived(&mut self, who: Who) {
        self.keys.values_mut().for_each(|truth| truth.replacing[who as usize] = false);
    }

    pub(crate) fn is_doubtful(&mut self, who: Who, key: Key) -> bool {
        self.key(key).doubtful[who as usize]
    }

    /// The key was set, or deleted. To be told with the look before, and followed by the look after;
    /// `watched` if nothing else can have happened between the two.
    pub(crate) fn set(&mut self, now: u64, who: Who, key: Key, total: i64, watched: bool) {
        let truth = self.key(key);
        truth.starts_again(now, Some((who as usize, total)), watched);
        truth.since[who as usize] = now;
    }

    /// The same, but the process was told that it may have been: until it reads, it answers as before.
    pub(crate) fn set_unheard(&mut self, now: u64, who: Who, key: Key, total: i64, watched: bool) {
        let truth = self.key(key);
        truth.starts_again(now, Some((who as usize, total)), watched);
        truth.read_since[who as usize] = now;
    }

    /// The key was cleared, but nobody told: what this process has not sent it may still send.
    pub(crate) fn cleared_unknown(&mut self, now: u64, who: Who, key: Key, watched: bool) {
        let truth = self.key(key);
        truth.starts_again(now, None, watched);
        truth.since[who as usize] = now;
    }

    /// The process has not heard what became of its slice: if it expires before it does, it comes back
    /// with what was acknowledged last.
    pub(crate) fn unheard(&mut self, who: Who, key: Key) {
        let truth = self.key(key);
        truth.doubtful[who as usize] = true;
        truth.outlived[who as usize] = true;
    }

    /// Something may have happened to the key, and the store does not show whether.
    pub(crate) fn lose_track(&mut self, key: Key) {
        let truth = self.key(key);
        truth.doubtful = [true; PROCESSES.len()];
        truth.outlived = truth.doubtful;
    }

    /// What was counted before a change does not come back (rule 18 of the `Backend`), so a process that did not
    /// hear of a `set` may lose what it counted since.
    pub(crate) fn lost_data(&mut self) {
        for truth in self.keys.values_mut() {
            truth.former_epoch |= truth.outlived.contains(&true);
        }
        self.lost_members();
    }

    pub(crate) fn lost_members(&mut self) {
        for truth in self.keys.values_mut().filter(|truth| truth.former_epoch) {
            truth.doubtful = [true; PROCESSES.len()];
        }
    }

    /// What was never sent died with its process.
    pub(crate) fn died(&mut self, family: Family, now: u64, who: Who) {
        for truth in self.keys.values_mut() {
            let at = who as usize;
            truth.due[at] = match family {
                Family::Plain => truth.held(at),
                Family::Shared => 0,
            };
            truth.on_the_way[at] = (truth.due[at], truth.due[at]);
            truth.away[at] = 0;
            truth.ends_doubt(now, at);
            (truth.outlived[at], truth.replacing[at]) = (false, false);
            if family == Family::Shared {
                truth.look.slices[at] = None;
            }
            truth.since[at] = now;
        }
    }

    /// Whether a process may answer so, with totals that are at most `age` old.
    pub(crate) fn may_answer(
        &mut self,
        now: u64,
        age: Option<u64>,
        who: Who,
        key: Key,
        (total, own): (i64, Option<i64>),
    ) -> Result<(), String> {
        let (truth, me) = (self.key(key), who as usize);
        let own_since = match age {
            Some(_) => truth.since[me].max(truth.read_since[me]),
            None => truth.since[me],
        };
        let oldest = age.map_or(0, |age| now.saturating_sub(age)).max(own_since);
        // The view that still stood at the oldest moment counts too.
        let first = truth.views.iter().rposition(|view| view.at < oldest).unwrap_or(0);
        let views: Vec<&View> =
            truth.views.iter().skip(first).filter(|view| view.at >= own_since).collect();
        let range = |part: &dyn Fn(&View) -> i64| {
            let parts = || views.iter().map(|view| part(view));
            (parts().min().unwrap_or(0), parts().max().unwrap_or(0))
        };
        for (at, part) in parts(total).into_iter().enumerate() {
            let seen_in_doubt = at != me && truth.doubtful_until[at] >= Some(oldest);
            if truth.doubtful[at] || seen_in_doubt {
                continue;
            }
            let (least, most) = if at == me {
                range(&|view| view.own[at] + view.ghosts[at])
            } else {
                range(&|view| view.parts[at])
            };
            if part < least || part > most {
                let whose = PROCESSES[at];
                return Err(format!("{whose}'s part is {part}, and not {least} to {most}"));
            }
        }
        let (least, most) = range(&|view| view.own[me]);
        match own {
            Some(own)
                if !truth.doubtful[me] && (parts(own)[me] < least || parts(own)[me] > most) =>
            {
                Err(format!("the own part is {}, and not {least} to {most}", parts(own)[me]))
            }
            _ => Ok(()),
        }
    }
}
