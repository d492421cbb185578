//! Routes keys to the shards of a prefix, and puts together what they answer.

use std::{borrow::Cow, future::Future};

use futures_util::future::join_all;

use crate::{DistkitError, RedisKey, answers::Item, backend::Space, stats::Stats};

/// One `T` for each shard of a prefix: one at least.
#[derive(Debug, Clone)]
pub(crate) struct Shards<T> {
    /// Apart from the others, so that a prefix of one shard pays nothing for its being found.
    first: T,
    others: Box<[T]>,
}

/// One answer for each item of a batch, or why there is none.
pub(crate) type Answers<T> = Result<Vec<Result<T, DistkitError>>, DistkitError>;

impl Shards<Space> {
    pub(crate) fn spaces(prefix: RedisKey, shards: u16) -> Self {
        let mut spaces = Space::shards_of(prefix.clone(), shards).into_iter();
        let first = spaces.next().unwrap_or_else(|| Space::new(prefix));
        Self { first, others: spaces.collect() }
    }
}

impl<T> Shards<T> {
    pub(crate) fn map<U>(&self, mut each: impl FnMut(&T) -> U) -> Shards<U> {
        Shards { first: each(&self.first), others: self.others.iter().map(each).collect() }
    }

    /// The shard that the key belongs to.
    #[inline]
    pub(crate) fn of(&self, key: &RedisKey) -> &T {
        if self.others.is_empty() { &self.first } else { self.at(self.number_of(key)) }
    }

    fn number_of(&self, key: &RedisKey) -> u16 {
        Space::shard_of(key, self.number())
    }

    /// The shard of that number.
    pub(crate) fn at(&self, number: u16) -> &T {
        let other = usize::from(number).checked_sub(1).and_then(|place| self.others.get(place));
        other.unwrap_or(&self.first)
    }

    /// Any of them, for what they have in common.
    #[inline]
    pub(crate) fn first(&self) -> &T {
        &self.first
    }

    /// The only one.
    pub(crate) fn only(&self) -> Option<&T> {
        self.others.is_empty().then_some(&self.first)
    }

    pub(crate) fn number(&self) -> u16 {
        // There are `MAX_SHARDS` at most.
        u16::try_from(self.others.len() + 1).unwrap_or(u16::MAX)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The numbers of all shards together.
    pub(crate) fn stats(&self, of: impl Fn(&T) -> Stats) -> Stats {
        self.others.iter().fold(of(&self.first), |all, shard| all.merge(of(shard)))
    }

    /// Does the same in all shards, side by side.
    pub(crate) async fn all<'s, F: Future>(&'s self, work: impl Fn(&'s T) -> F) -> Vec<F::Output> {
        join_all(self.iter().map(work)).await
    }

    /// Sends each shard its items, in their order, and all shards side by side; the answers are in the order of the
    /// items. A shard that fails fails for its own items, or, where there are no others, for the batch. The only shard
    /// is sent the items as they are.
    pub(crate) async fn batch<'s, 'i, I, A, F>(
        &'s self,
        items: &'i [I],
        send: impl Fn(&'s T, Cow<'i, [I]>) -> F,
    ) -> Answers<A>
    where
        I: Item + Clone,
        F: Future<Output = Answers<A>>,
    {
        if let Some(only) = self.only() {
            return send(only, Cow::Borrowed(items)).await;
        }
        let mut places = vec![Vec::new(); usize::from(self.number())];
        for (at, item) in items.iter().enumerate() {
            places[usize::from(self.number_of(item.key()))].push(at);
        }
        let parts: Vec<_> = (0..).zip(&places).filter(|(_, places)| !places.is_empty()).collect();
        let sent = parts.iter().map(|(shard, places)| {
            let part = places.iter().map(|&at| items[at].clone()).collect();
            send(self.at(*shard), part)
        });
        let mut answers = join_all(sent).await;
        if answers.len() == 1 {
            return answers.swap_remove(0);
        }
        let mut all: Vec<_> = (0..items.len()).map(|_| None).collect();
        for ((_, places), answers) in parts.into_iter().zip(answers) {
            match answers {
                Ok(answers) => {
                    for (&at, answer) in places.iter().zip(answers) {
                        all[at] = Some(answer);
                    }
                }
                Err(error) => places.iter().for_each(|&at| all[at] = Some(Err(error.clone()))),
            }
        }
        Ok(all.into_iter().map(|answer| answer.unwrap_or_else(no_answer)).collect())
    }
}

fn no_answer<T>() -> Result<T, DistkitError> {
    Err(crate::backend::BackendError::outcome_unknown("the store gave no answer").into())
}

/// What became of an operation that all shards had to do, in their order.
pub(crate) fn done_in_all(
    done: impl IntoIterator<Item = Result<(), DistkitError>>,
) -> Result<(), DistkitError> {
    let (mut shards, mut failed) = (0, Vec::new());
    for (shard, done) in (0..).zip(done) {
        shards = shard + 1;
        if let Err(error) = done {
            failed.push((shard, error));
        }
    }
    let alike = |error: &DistkitError| match error {
        DistkitError::ShutDown | DistkitError::InstanceReplaced => {
            std::mem::discriminant(error) == std::mem::discriminant(&failed[0].1)
        }
        _ => shards == 1,
    };
    if failed.is_empty() {
        Ok(())
    } else if failed.len() == usize::from(shards) && failed.iter().all(|(_, error)| alike(error)) {
        // It concerns no shard in particular.
        Err(failed.swap_remove(0).1)
    } else {
        let cause = Box::new(failed[0].1.clone());
        Err(DistkitError::InShards { shards, failed, cause })
    }
}

/// A limit's share for one of so many shards, at least 1 of what is not 0.
pub(crate) fn share(limit: usize, shards: u16) -> usize {
    (limit / usize::from(shards)).max(limit.min(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendError;

    #[test]
    fn a_failure_in_some_shards_names_them() {
        let unreachable = || Err(DistkitError::from(BackendError::not_applied("unreachable")));
        assert!(done_in_all([Ok(()), Ok(())]).is_ok());
        assert!(matches!(done_in_all([unreachable()]), Err(DistkitError::NotApplied(_))));
        let shut = || Err(DistkitError::ShutDown);
        assert!(matches!(done_in_all([shut(), shut()]), Err(DistkitError::ShutDown)));
        let Err(error) = done_in_all([Ok(()), unreachable(), Ok(()), shut()]) else {
            panic!("two of them failed");
        };
        assert!(error.may_have_happened(), "two of them did not");
        let DistkitError::InShards { shards: 4, failed, .. } = error else { panic!("{error:?}") };
        assert_eq!(failed.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [1, 3]);
        let Err(error) = done_in_all([unreachable(), unreachable()]) else { panic!("both failed") };
        assert!(!error.may_have_happened());
    }

    #[test]
    fn a_share_leaves_room_for_something() {
        assert_eq!([share(1_000_000, 48), share(5, 48), share(0, 48)], [20_833, 1, 0]);
        assert_eq!(share(7, 1), 7);
    }
}
