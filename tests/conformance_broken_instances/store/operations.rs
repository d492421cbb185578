//! What members do with counters.

use distkit::{
    CounterComparator, RedisKey,
    backend::{
        Applied, BackendError, Member, Ordered, Outcome, Refusal, Scope, SliceChange, SliceWrite,
        Standing, Written,
    },
};

use super::{Fault, Guard, Instances, Kind, Part, clamp};
use crate::faults::matches_through_doubles;

impl Instances {
    fn guard_of(&self, inc: u64) -> String {
        match self.fault {
            Fault::GuardsOutliveIncarnations => {
                self.seats.get(&inc).map_or(String::new(), |seat| seat.id.to_string())
            }
            Fault::InstancesShareAGuard => String::new(),
            _ => inc.to_string(),
        }
    }

    pub(crate) fn is_replayed(&self, member: &Member, sequence: Option<u64>) -> bool {
        let last = self.guards.get(&self.guard_of(member.incarnation.0));
        let last = last.map_or(0, |guard| guard.sequence);
        sequence.is_some_and(|sequence| match self.fault {
            Fault::AppliesLowerSequences => sequence == last,
            _ => sequence <= last,
        })
    }

    pub(crate) fn apply(
        &mut self,
        now: u64,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
        replayed: bool,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let version = self.enter(now, member, Kind::Write)?;
        let inc = member.incarnation.0;
        let mut outcomes: Vec<Outcome<Written<Standing>>> = Vec::new();
        for (n, write) in writes.iter().enumerate() {
            let stopped = outcomes.iter().any(Result::is_err) && self.is(Fault::StopsAtARefusal);
            outcomes.push(if stopped {
                Err(Refusal::Overflow)
            } else if replayed {
                self.replay(inc, write, sequence, n)
            } else {
                self.write(inc, write)
            });
        }
        if let Some(sequence) = sequence.filter(|_| !replayed)
            && !(writes.is_empty() && self.is(Fault::EmptyBatchesUseNothingUp))
        {
            let guard = Guard { sequence, outcomes: outcomes.clone() };
            self.guards.insert(self.guard_of(inc), guard);
        }
        Ok(Ordered { version, answer: Applied { replayed, record: None, outcomes } })
    }

    fn replay(
        &mut self,
        inc: u64,
        write: &SliceWrite,
        sequence: Option<u64>,
        n: usize,
    ) -> Outcome<Written<Standing>> {
        if self.is(Fault::ReplayedSetsRenewEpochs)
            && let SliceChange::SetTotal(_) = write.change
        {
            self.write(inc, write)?;
        }
        let guard = self.guards.get(&self.guard_of(inc));
        let first = guard.filter(|guard| Some(guard.sequence) == sequence);
        match first.and_then(|guard| guard.outcomes.get(n)) {
            Some(Err(refusal)) if !self.is(Fault::ForgetsRefusals) => Err(refusal.clone()),
            Some(first @ Ok(_)) if self.is(Fault::ReplaysAnswerWithTheFirstAnswer) => first.clone(),
            _ => {
                let now = self.standing(&write.key, inc);
                Ok(Written { old: now, new: now, condition_met: true })
            }
        }
    }

    fn write(&mut self, inc: u64, write: &SliceWrite) -> Outcome<Written<Standing>> {
        let key = &write.key;
        let old = self.standing(key, inc);
        let on_slice = write.change.is_on_slice() && !self.is(Fault::ComparesSlicesWithTotals);
        let removes = matches!(write.change, SliceChange::Remove | SliceChange::RemoveSlice);
        let heeded = !(removes && self.is(Fault::RemovalsHeedNoCondition));
        let subject = if on_slice { old.slice } else { old.total };
        if heeded && !self.matches(write.condition, subject) {
            return Ok(Written { old, new: old, condition_met: false });
        }
        if removes {
            return self.remove(inc, write, old);
        }
        let total = self.totals.get(key).copied().unwrap_or(0);
        let slice = match write.change {
            SliceChange::SetTotal(count) => {
                if !self.is(Fault::SetsKeepTheEpoch) {
                    self.renew_epoch(key);
                }
                self.put(key, inc, count, i128::from(count));
                let new = self.standing(key, inc);
                return Ok(Written { old, new, condition_met: true });
            }
            SliceChange::SetSlice(count) => count,
            SliceChange::Add(count) if self.is(Fault::Saturates) => old.slice.saturating_add(count),
            SliceChange::Add(count) => {
                let base = match self.parts.get(&(key.clone(), inc)) {
                    Some(stale) if self.is(Fault::AddsToStaleSlices) => stale.value,
                    _ => old.slice,
                };
                base.checked_add(count).ok_or(Refusal::Overflow)?
            }
            SliceChange::AddWithin { count, least, most } => {
                let bounded = if self.is(Fault::BoundsSlices) { old.slice } else { old.total };
                let new = distkit::backend::Change::AddWithin { count, least, most }
                    .applied_to(bounded)?;
                let fits = i128::from(new) - i128::from(bounded);
                if fits == 0 {
                    return Ok(Written { old, new: old, condition_met: true });
                }
                i64::try_from(i128::from(old.slice) + fits).map_err(|_| Refusal::Overflow)?
            }
            other => panic!("{other:?} is new"),
        };
        let mut sum = total - i128::from(old.slice) + i128::from(slice);
        if self.is(Fault::ReplacedSlicesAddUp) && matches!(write.change, SliceChange::SetSlice(_)) {
            sum = total + i128::from(slice);
        }
        if self.is(Fault::Saturates) {
            sum = i128::from(clamp(sum));
        }
        i64::try_from(sum).map_err(|_| Refusal::Overflow)?;
        self.put(key, inc, slice, sum);
        if let (SliceChange::SetSlice(_), Some(part)) =
            (write.change, self.parts.get_mut(&(key.clone(), inc)))
            && self.fault != Fault::ReplacedSlicesKeepTheirClaims
        {
            part.put_back = None;
        }
        Ok(Written { old, new: self.standing(key, inc), condition_met: true })
    }

    fn put(&mut self, key: &RedisKey, inc: u64, value: i64, total: i128) {
        let epoch = self.epoch(key);
        let before = self.parts.get(&(key.clone(), inc)).filter(|part| part.epoch == epoch);
        let put_back = before.and_then(|part| part.put_back);
        self.parts.insert((key.clone(), inc), Part { epoch, value, put_back });
        self.totals.insert(key.clone(), total);
    }

    fn matches(&self, condition: CounterComparator, value: i64) -> bool {
        match self.fault {
            Fault::ComparesThroughDoubles => matches_through_doubles(condition, value),
            _ => condition.matches(value),
        }
    }

    pub(crate) fn read(
        &mut self,
        now: u64,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        let version = self.enter(now, member, Kind::Read)?;
        let inc = member.incarnation.0;
        let answer = keys.iter().map(|key| {
            let standing = self.standing(key, inc);
            if self.is(Fault::ReadsMakeSlices) {
                self.put(key, inc, standing.slice, i128::from(standing.total));
            }
            Ok(standing)
        });
        Ok(Ordered { version, answer: answer.collect() })
    }

    fn remove(
        &mut self,
        inc: u64,
        write: &SliceWrite,
        old: Standing,
    ) -> Outcome<Written<Standing>> {
        let key = &write.key;
        if write.change == SliceChange::Remove && self.is(Fault::RemovalsKeepTheEpoch) {
            self.parts.retain(|(of, _), _| of != key);
            self.totals.remove(key);
        } else if write.change == SliceChange::Remove {
            self.renew_epoch(key);
        } else {
            let left = self.totals.get(key).copied().unwrap_or(0) - i128::from(old.slice);
            i64::try_from(left).map_err(|_| Refusal::Overflow)?;
            self.take_part(key, inc);
            if self.is(Fault::RemovedSlicesRenewTheEpoch) {
                self.renew_epoch(key);
            }
        }
        Ok(Written { old, new: self.standing(key, inc), condition_met: true })
    }

    fn renew_epoch(&mut self, key: &RedisKey) {
        let epoch = self.next_change();
        self.epochs.insert(key.clone(), epoch);
        self.totals.remove(key);
    }

    pub(crate) fn clear(
        &mut self,
        now: u64,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        self.enter(now, member, Kind::Write)?;
        if scope == Scope::Slice && !self.is(Fault::ClearedSlicesAreEverybodys) {
            let mine = self.parts.keys().filter(|(_, of)| *of == member.incarnation.0);
            let keys: Vec<_> = mine.map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.take_part(&key, member.incarnation.0);
            }
            return Ok(());
        }
        if !self.is(Fault::ClearsForgetTheFloor) {
            self.floor = self.next_change();
        }
        if self.is(Fault::ClearsEndGuards) {
            self.guards.clear();
        }
        if self.is(Fault::ClearsTakeAThousandKeys) {
            let keys: Vec<_> = self.totals.keys().take(1000).cloned().collect();
            for key in keys {
                self.totals.remove(&key);
                self.parts.retain(|(of, _), _| *of != key);
            }
            return Ok(());
        }
        self.epochs.clear();
        self.totals.clear();
        self.parts.clear();
        Ok(())
    }
}
