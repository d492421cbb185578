use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    CounterComparator, DistkitError, RedisKey,
    backend::{
        InstanceBackend, Outcome, ReplayGuard, Scope, SliceChange, SliceWrite, Standing, Written,
    },
    counts::Counts,
    icounter::membership::Membership,
    lax::{Cell, Committed, Delta, Known, Ledger},
    parts::PART,
};

/// This instance's slices: its own part is the slice, the others' the rest of the total.
///
/// A batch is guarded by its sequence as long as the incarnation lives that it was sent as. When that
/// one is collected, all that the batch may have done goes with it, the acknowledged slices alone are put
/// back, and the same batch is due once more: so it counts once either way.
pub(super) struct Slices<B: ?Sized> {
    pub(super) membership: Arc<Membership<B>>,
}

fn known(standing: &Standing) -> Known {
    Known { own: standing.slice, others: standing.total.wrapping_sub(standing.slice) }
}

#[async_trait]
impl<B: InstanceBackend + ?Sized> Ledger for Slices<B> {
    /// A slice costs the server several times what a plain sum does.
    const BATCH: usize = 250;

    const GUARD_LASTS: Option<Duration> = None;

    async fn commit(
        &self,
        deltas: &[Delta],
        guard: &ReplayGuard,
    ) -> Result<Committed, DistkitError> {
        let write = |delta: &Delta| {
            let change = delta.replace.map_or(SliceChange::Add(delta.count), SliceChange::SetSlice);
            SliceWrite::new(delta.cell.key.clone(), change)
        };
        let writes: Vec<_> = deltas.iter().map(write).collect();
        let applied = self.membership.apply(&writes, guard.sequence).await?;
        let outcomes = applied.outcomes.into_iter();
        Ok(Committed {
            replayed: applied.replayed,
            outcomes: outcomes.map(|outcome| outcome.map(|w| known(&w.new))).collect(),
        })
    }

    async fn read(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, DistkitError> {
        let keys: Vec<RedisKey> = cells.iter().map(|cell| cell.key.clone()).collect();
        let mut all = Vec::with_capacity(keys.len());
        for part in keys.chunks(PART) {
            let standings = self.membership.read(part).await?.into_iter();
            all.extend(standings.map(|standing| standing.map(|standing| known(&standing))));
        }
        Ok(all)
    }

    type Write = SliceWrite;
    type Written = Written<Standing>;

    async fn write(
        &self,
        _: u64,
        writes: &[SliceWrite],
        guard: &ReplayGuard,
    ) -> Result<Vec<Outcome<Written<Standing>>>, DistkitError> {
        Ok(self.membership.apply(writes, guard.sequence).await?.outcomes)
    }

    /// A slice that is to be replaced cannot be counted to what there was.
    fn replaces(_: &SliceWrite) -> bool {
        false
    }

    fn left_by(write: &SliceWrite, outcome: &Outcome<Written<Standing>>) -> Option<Known> {
        let removed =
            write.change == SliceChange::Remove && write.condition == CounterComparator::Nil;
        match outcome {
            Ok(written) => Some(known(&written.new)),
            // What is no number is removed, and refused.
            Err(_) => removed.then_some(Known { own: 0, others: 0 }),
        }
    }

    const ADDS_IN_DOUBT: bool = false;

    fn held_besides(_: &mut Written<Standing>, _: i64) {}

    async fn clear(&self, _: u64, scope: Scope) -> Result<(), DistkitError> {
        self.membership.clear(scope, None).await
    }

    fn end(&self) {
        self.membership.end_heartbeat();
    }

    fn counts(&self) -> &Counts {
        self.membership.counts()
    }

    fn fresh_id(&self) -> Arc<str> {
        // The incarnation is the writer: its guard needs no other name.
        Arc::from(self.membership.id())
    }

    fn prefix(&self) -> &str {
        self.membership.prefix()
    }
}
