use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::memory::MemoryLink,
    counter::{CounterOptions, CounterTrait, LaxCounter, Unflushed},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        TotalAndSlice,
    },
};

use super::{
    history::{Ask, Compared},
    truth::{Family, in_digits, parts},
};
use crate::cast::{Key, Who};

/// A total, and the own slice where there is one.
pub(super) type Numbers = (i64, Option<i64>);

/// What is said about one item.
pub(super) type Answer = Result<Numbers, DistkitError>;

pub(super) fn show(answer: &Answer) -> String {
    match answer {
        Ok((total, Some(own))) => format!("({:?}, {own})", parts(*total)),
        Ok((total, None)) => format!("{:?}", parts(*total)),
        Err(error) => distkit_testkit::chain(error),
    }
}

/// Of an item that nothing stands in the way of.
pub(super) fn done(answer: &Answer) -> Result<Numbers, String> {
    answer.as_ref().copied().map_err(|error| format!("an item fails: {error}"))
}

pub(super) fn only(answers: &[Answer]) -> Result<Numbers, String> {
    match answers {
        [answer] => done(answer),
        _ => Err("there is one answer".to_owned()),
    }
}

pub(super) enum Counter {
    Plain(Arc<LaxCounter>),
    Shared(Arc<LaxInstanceAwareCounter>),
}

impl Counter {
    pub(super) fn new(family: Family, prefix: RedisKey, shards: u16, link: MemoryLink) -> Self {
        match family {
            Family::Plain => {
                let options = CounterOptions::new(prefix, link).shards(shards);
                Self::Plain(LaxCounter::new(options))
            }
            Family::Shared => {
                let options = LaxInstanceAwareCounterOptions::new(prefix, link).shards(shards);
                Self::Shared(LaxInstanceAwareCounter::new(options))
            }
        }
    }

    pub(super) fn instance_id(&self) -> Option<&str> {
        match self {
            Self::Plain(_) => None,
            Self::Shared(counter) => Some(counter.instance_id()),
        }
    }

    /// One answer for each item; of a conditional write the new numbers, then the old.
    pub(super) async fn ask(
        &self,
        who: Who,
        ask: Ask,
        seen: &[i64; Key::ALL.len()],
    ) -> Result<Vec<Answer>, DistkitError> {
        let digits = |n| in_digits(who, n);
        let names = Key::ALL.map(Key::redis);
        let all = [&names[0], &names[1], &names[2]];
        let items = |counts: [i64; 2]| [(all[0], digits(counts[0])), (all[1], digits(counts[1]))];
        let bound = |key: Key, how: Compared| how.with(seen[key as usize]);
        // The traits of the two families have the same names, and no common type.
        macro_rules! ask {
            ($counter:ident, $one:ident, $two:ident, $many:ident, $($particular:tt)*) => {
                match ask {
                    Ask::Inc(key, n) => $one($counter.inc(&key.redis(), digits(n)).await?),
                    Ask::IncAll(counts) => $many($counter.inc_all(&items(counts)).await?),
                    Ask::IncIf(key, how, n) => {
                        $two($counter.inc_if(&key.redis(), bound(key, how), digits(n)).await?)
                    }
                    Ask::Get(key) => $one($counter.get(&key.redis()).await?),
                    Ask::GetAll => $many($counter.get_all(&all).await?),
                    Ask::Set(key, n) => $one($counter.set(&key.redis(), digits(n)).await?),
                    Ask::SetAll(counts) => $many($counter.set_all(&items(counts)).await?),
                    Ask::SetIf(key, how, n) => {
                        $two($counter.set_if(&key.redis(), bound(key, how), digits(n)).await?)
                    }
                    Ask::Del(key) => $one($counter.del(&key.redis()).await?),
                    Ask::Clear => $counter.clear().await.map(|()| Vec::new()),
                    Ask::Flush => $counter.flush().await.map(|()| Vec::new()),
                    $($particular)*
                }
            };
        }
        match self {
            Self::Plain(counter) => {
                let one = |total| Ok(vec![Ok((total, None))]);
                let two = |(new, old)| Ok(vec![Ok((new, None)), Ok((old, None))]);
                let many = |answers: Vec<(&RedisKey, Result<i64, DistkitError>)>| {
                    Ok(answers.into_iter().map(|(_, it)| it.map(|total| (total, None))).collect())
                };
                ask!(
                    counter, one, two, many,
                    Ask::SetOnInstance(..) | Ask::DelOnInstance(_) | Ask::ClearOnInstance => {
                        unreachable!("plain counters have no slices")
                    }
                )
            }
            Self::Shared(counter) => {
                let pair = |(total, own)| (total, Some(own));
                let one = |answer| Ok(vec![Ok(pair(answer))]);
                let two = |(new, old)| Ok(vec![Ok(pair(new)), Ok(pair(old))]);
                let many = |answers: Vec<(&RedisKey, Result<TotalAndSlice, DistkitError>)>| {
                    Ok(answers.into_iter().map(|(_, answer)| answer.map(pair)).collect())
                };
                ask!(
                    counter, one, two, many,
                    Ask::SetOnInstance(key, n) => {
                        one(counter.set_on_instance(&key.redis(), digits(n)).await?)
                    }
                    Ask::DelOnInstance(key) => one(counter.del_on_instance(&key.redis()).await?),
                    Ask::ClearOnInstance => counter.clear_on_instance().await.map(|()| Vec::new()),
                )
            }
        }
    }

    pub(super) async fn shutdown(&self) -> Result<(), Unflushed> {
        let within = Duration::from_secs(5);
        match self {
            Self::Plain(counter) => counter.shutdown(within).await,
            Self::Shared(counter) => counter.shutdown(within).await,
        }
    }
}
