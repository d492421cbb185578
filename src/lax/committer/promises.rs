//! Sends additions under tokens. They need no guard, for a request with tokens may be sent again as it is.
//!
//! One request is in flight at a time, and no batch of sums with it, so each answer tells how its keys stand.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use super::{Committer, abandoned, batch::MAX_REPORTS};
use crate::{
    DistkitError,
    backend::{AddedOnce, BackendError, Outcome},
    lax::{
        cell::{Cell, address},
        ledger::Ledger,
        promises::{BATCH, Promise},
        report::{TokenFate, UnflushedToken},
        shared::Shared,
    },
    outage::{Chain, Standing},
    stats::Count,
};

/// How many requests a pass sends before it comes to the sums.
const REQUESTS: usize = 4;

/// A request with tokens whose outcome is not known. Nothing else is written before it is.
pub(super) struct Promised {
    items: Arc<Vec<Promise>>,
    first_sent: Instant,
    /// Whether it may have reached the store.
    sent: bool,
    answer: Option<Answer>,
}

/// What the store answered. Kept until the totals that it leaves open are read: to settle without them would take
/// additions that are in the store off their keys' estimates.
struct Answer {
    outcomes: Vec<Outcome<AddedOnce>>,
    resent: bool,
    at: u64,
    /// Whether its totals were asked for.
    read: bool,
}

impl<L: Ledger> Committer<'_, L> {
    /// When additions under tokens must be sent next; `None` when there are none.
    pub(in crate::lax) fn promises_at(&self) -> Option<Instant> {
        let since = self.shared.promises.since()?;
        Some(self.writer.schedule.promises_at(since, self.shared.settings))
    }

    /// A part of a pass. What fails is sent later.
    pub(super) async fn send_promises_due(&mut self, horizon: Instant) {
        if self.promises_at().is_some_and(|at| at <= horizon) {
            _ = self.send_promises(REQUESTS * BATCH).await;
        }
    }

    /// Sends all that are waiting now.
    pub(super) async fn send_all_promises(&mut self) -> Result<(), DistkitError> {
        self.send_promises(self.shared.promises.number()).await
    }

    /// Sends those of the cells, before what acts on these at once.
    pub(super) async fn send_promises_of(
        &mut self,
        of: impl Fn(&Arc<Cell>) -> bool,
    ) -> Result<(), DistkitError> {
        if self.shared.promises.number() == 0 {
            return Ok(());
        }
        // Those in flight before are answered then.
        self.resolve().await?;
        let number = self.shared.promises.prefer(of);
        self.send_promises(number).await
    }

    /// A caller's request to send those of one cell.
    pub(in crate::lax) async fn flush_promises(
        &mut self,
        cell: Arc<Cell>,
    ) -> Result<(), DistkitError> {
        self.send_promises_of(|other| Arc::ptr_eq(other, &cell)).await.map_err(super::not_applied)
    }

    async fn send_promises(&mut self, mut number: usize) -> Result<(), DistkitError> {
        while number > 0 {
            self.resolve().await?;
            let items = self.shared.promises.begin(number.min(BATCH));
            if items.is_empty() {
                break;
            }
            number -= items.len();
            self.writer.promised = Some(Promised {
                items: Arc::new(items),
                first_sent: Instant::now(),
                sent: false,
                answer: None,
            });
            // Pairs with `Shared::give_up`: publish the request first, then check `given_up`.
            if self.shared.gate.is_given_up() {
                self.drop_what_was_given_up();
                return Err(DistkitError::ShutDown);
            }
            self.resolve_promises().await?;
        }
        Ok(())
    }

    /// Finds out about the request whose outcome is not known.
    pub(super) async fn resolve_promises(&mut self) -> Result<(), DistkitError> {
        self.ask_promised().await?;
        let shared = self.shared;
        let Some(Promised { items, answer: Some(answer), .. }) = &mut self.writer.promised else {
            return Ok(());
        };
        // Before anything is settled: this future may be dropped in the await.
        let read_again = std::mem::replace(&mut answer.read, true);
        let begun = Instant::now();
        let read = match read_uncertain(shared, items, &answer.outcomes).await {
            Ok(read) => read,
            Err(error) => {
                self.note_failure(begun, &error);
                return Err(unread(error));
            }
        };
        if let Some(Promised { items, first_sent, answer: Some(answer), .. }) =
            self.writer.promised.take()
        {
            if answer.resent || read_again {
                self.note_success();
            }
            self.note_promises_sent();
            self.settle_promises(&items, answer, &read);
            shared.promises.end(first_sent);
        }
        Ok(())
    }

    /// Sends the request, unless it is answered.
    async fn ask_promised(&mut self) -> Result<(), DistkitError> {
        let shared = self.shared;
        let Some(promised) = &mut self.writer.promised else { return Ok(()) };
        if promised.answer.is_some() {
            return Ok(());
        }
        if promised.first_sent.elapsed() > shared.ledger.tokens_last() {
            return Err(self.abandon_promises());
        }
        // Set before the await: when this future is dropped in it, the request may have been sent.
        let resent = std::mem::replace(&mut promised.sent, true);
        let (at, begun) = (shared.now(), Instant::now());
        match shared.ledger.add_promised(&promised.items, resent).await {
            Ok(outcomes) => {
                promised.answer = Some(Answer { outcomes, resent, at, read: false });
                Ok(())
            }
            Err(error) if !resent && !error.may_have_happened() => {
                self.writer.promised = None;
                shared.promises.put_back();
                self.note_promises_failed(begun, &error);
                Err(error)
            }
            Err(error) => {
                self.note_failure(begun, &error);
                Err(error)
            }
        }
    }

    fn settle_promises(
        &mut self,
        items: &[Promise],
        Answer { outcomes, resent, at, .. }: Answer,
        read: &[(Arc<Cell>, i64, u64)],
    ) {
        let shared = self.shared;
        let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        shared.ledger.counts().add(Count::Refused, refused);
        let totals = shared.table.totals();
        let mut losses = shared.losses.lock();
        // What is part of each total that was read.
        let mut parts: Vec<_> = read.iter().map(|(cell, ..)| (address(cell), 0_i64)).collect();
        parts.sort_unstable();
        for (promise, outcome) in items.iter().zip(outcomes) {
            let Promise { cell, token, count } = promise;
            match (parts.binary_search_by_key(&address(cell), |(cell, _)| *cell), &outcome) {
                (Ok(place), _) => parts[place].1 = parts[place].1.wrapping_add(*count),
                (_, Ok(added)) if !added.replayed => {
                    cell.settle_promised(*count, added.total, at, &totals);
                }
                _ => cell.forget_promised(*count, &totals),
            }
            let fate = match outcome {
                // An addition of a request that was sent again may have found itself.
                Ok(added) if !added.replayed || resent => continue,
                Ok(added) => TokenFate::Replayed { answer: added.total },
                Err(refusal) => {
                    tracing::error!(
                        target: "distkit::lax",
                        prefix = shared.ledger.prefix(), shard = shared.ledger.counts().shard(),
                        key = %cell.key, %token, delta = count, %refusal,
                        "an addition under a token is refused"
                    );
                    TokenFate::Refused(refusal)
                }
            };
            if losses.tokens.len() < MAX_REPORTS {
                losses.tokens.push(UnflushedToken::of(promise, fate));
            }
        }
        // In one step each, so that no estimate goes down in between.
        for (cell, total, at) in read {
            if let Ok(place) = parts.binary_search_by_key(&address(cell), |(cell, _)| *cell) {
                cell.settle_promised(parts[place].1, *total, *at, &totals);
            }
        }
    }

    /// The store no longer remembers the tokens for sure: to send them again could add twice.
    fn abandon_promises(&mut self) -> DistkitError {
        let shared = self.shared;
        if let Some(Promised { items, .. }) = self.writer.promised.take() {
            shared.ledger.counts().add(Count::GivenUp, items.len());
            let totals = shared.table.totals();
            let mut losses = shared.losses.lock();
            for promise in &*items {
                let Promise { cell, token, count } = promise;
                tracing::error!(
                    target: "distkit::lax",
                    prefix = shared.ledger.prefix(), shard = shared.ledger.counts().shard(),
                    key = %cell.key, %token, delta = count,
                    "it is unknown whether the store has this addition; it is not sent again"
                );
                cell.forget_promised(*count, &totals);
                if losses.tokens.len() < MAX_REPORTS {
                    losses.tokens.push(UnflushedToken::of(promise, TokenFate::Unknown));
                }
            }
            shared.promises.end(Instant::now());
        }
        abandoned()
    }

    /// After a shutdown that ran out of time: what it reported as left is not sent.
    pub(super) fn drop_promises(&mut self) {
        self.writer.promised = None;
        let dropped = self.shared.promises.take_all();
        let totals = self.shared.table.totals();
        for Promise { cell, count, .. } in dropped {
            cell.forget_promised(count, &totals);
        }
        self.writer.schedule.promises_sent();
        self.writer.promise_outage.ended();
    }

    /// The store turned a request with tokens down. That says nothing of sums, which go on.
    fn note_promises_failed(&mut self, begun: Instant, error: &DistkitError) {
        let shared = self.shared;
        shared.losses.lock().last_failure = Some(error.clone());
        self.writer.schedule.promises_failed(Instant::now());
        if let Some(Standing { attempts, lasted }) = self.writer.promise_outage.failed(begun) {
            let (prefix, counts) = (shared.ledger.prefix(), shared.ledger.counts());
            let (shard, counter) = (counts.shard(), counts.kind());
            let pending = shared.promises.number();
            tracing::warn!(
                target: "distkit::lax",
                prefix, shard, counter, pending, attempts, ?lasted, error = %Chain(error),
                "cannot send additions under tokens; they stay pending and are sent again"
            );
        }
    }

    fn note_promises_sent(&mut self) {
        let shared = self.shared;
        self.writer.schedule.promises_sent();
        if let Some(Standing { attempts, lasted }) = self.writer.promise_outage.ended() {
            shared.losses.lock().last_failure = None;
            let (prefix, counts) = (shared.ledger.prefix(), shared.ledger.counts());
            let (shard, counter) = (counts.shard(), counts.kind());
            tracing::info!(
                target: "distkit::lax",
                prefix, shard, counter, failed_attempts = attempts, ?lasted,
                "additions under tokens are sent again"
            );
        }
    }
}

/// Reads the keys of which something was not simply added: their totals are not what they were thought to be. Gives
/// those that are numbers.
async fn read_uncertain<L: Ledger>(
    shared: &Shared<L>,
    items: &[Promise],
    outcomes: &[Outcome<AddedOnce>],
) -> Result<Vec<(Arc<Cell>, i64, u64)>, DistkitError> {
    let mut cells = HashMap::<_, _, foldhash::fast::RandomState>::default();
    for (Promise { cell, .. }, outcome) in items.iter().zip(outcomes) {
        if !outcome.as_ref().is_ok_and(|added| !added.replayed) {
            cells.entry(address(cell)).or_insert_with(|| Arc::clone(cell));
        }
    }
    if cells.is_empty() {
        return Ok(Vec::new());
    }
    let (cells, at): (Vec<_>, _) = (cells.into_values().collect(), shared.now());
    let known = cells.iter().cloned().zip(shared.ledger.read(&cells).await?);
    Ok(known.filter_map(|(cell, known)| Some((cell, known.ok()?.own, at))).collect())
}

/// What the answer to a request with tokens leaves open could not be read. That is no word on the request.
fn unread(error: DistkitError) -> DistkitError {
    if error.may_have_happened() { error } else { BackendError::outcome_unknown(error).into() }
}

/// What a flush says of an addition under a token, if it is to say something.
pub(super) fn told_of(token: UnflushedToken) -> Result<(), DistkitError> {
    match token.fate {
        TokenFate::Refused(refusal) => Err(DistkitError::refused(&token.key, refusal)),
        TokenFate::Unknown => Err(DistkitError::OutcomeUnknown(BackendError::Forgotten)),
        TokenFate::Pending | TokenFate::Replayed { .. } => Ok(()),
    }
}
