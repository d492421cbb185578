use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    CounterComparator, DistkitError,
    backend::{InstanceBackend, Outcome, ReplayGuard, SliceChange, SliceWrite, Standing},
    icounter::membership::{Membership, as_member},
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

pub(super) fn known(standing: &Standing) -> Known {
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
        let membership = &self.membership;
        let writes: Vec<_> = deltas
            .iter()
            .map(|delta| SliceWrite {
                key: delta.cell.key.clone(),
                change: delta.replace.map_or(SliceChange::Add(delta.count), SliceChange::SetSlice),
                condition: CounterComparator::Nil,
            })
            .collect();
        as_member!(
            membership,
            member => membership.backend().apply_on(
                membership.space(), member, &writes, Some(guard.sequence)
            ),
            ordered => {
                let standings = ordered.answer.outcomes.into_iter().zip(&writes);
                let outcomes = standings.map(|(outcome, write)| {
                    let standing = outcome?.new;
                    membership.note(&write.key, ordered.version, &standing);
                    Ok(known(&standing))
                });
                Committed { replayed: ordered.answer.replayed, outcomes: outcomes.collect() }
            }
        )
    }

    async fn read(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, DistkitError> {
        let mut known = Vec::with_capacity(cells.len());
        for part in cells.chunks(PART) {
            known.extend(self.read_part(part).await?);
        }
        Ok(known)
    }

    fn fresh_id(&self) -> Arc<str> {
        // The incarnation is the writer: its guard needs no other name.
        Arc::from(self.membership.id())
    }

    fn prefix(&self) -> &str {
        self.membership.space().prefix()
    }
}

impl<B: InstanceBackend + ?Sized> Slices<B> {
    async fn read_part(&self, cells: &[Arc<Cell>]) -> Result<Vec<Outcome<Known>>, DistkitError> {
        let membership = &self.membership;
        let keys: Vec<_> = cells.iter().map(|cell| cell.key.clone()).collect();
        as_member!(
            membership,
            member => membership.backend().read_on(membership.space(), member, &keys),
            ordered => {
                let standings = ordered.answer.into_iter().zip(&keys);
                standings
                    .map(|(standing, key)| {
                        let standing = standing?;
                        membership.note_read(key, ordered.version, &standing);
                        Ok(known(&standing))
                    })
                    .collect()
            }
        )
    }
}
