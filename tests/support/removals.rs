//! Removals as batches, answered as the tests compare them.
#![allow(dead_code, reason = "not every test binary has a use for all of it")]

use distkit::{
    RedisKey,
    backend::{
        Backend, BackendError, InstanceBackend, Member, Ordered, Outcome, Scope, SliceChange,
        SliceWrite, Space, Standing, Write, Written,
    },
};

/// Removes plain counters, and answers what they held.
pub(crate) async fn remove(
    store: &(impl Backend + ?Sized),
    space: &Space,
    keys: &[RedisKey],
) -> Result<Vec<Outcome<i64>>, BackendError> {
    let writes: Vec<_> = keys.iter().cloned().map(Write::remove).collect();
    let outcomes = store.apply(space, &writes, None).await?.outcomes.into_iter();
    Ok(outcomes.map(|outcome| outcome.map(|written| written.old)).collect())
}

/// What removes a key, or the caller's slice of it.
pub(crate) fn removal(key: &RedisKey, scope: Scope) -> SliceWrite {
    let change = match scope {
        Scope::Total => SliceChange::Remove,
        Scope::Slice => SliceChange::RemoveSlice,
    };
    SliceWrite::new(key.clone(), change)
}

/// Removes keys, or the member's slices of them.
pub(crate) async fn remove_on(
    store: &(impl InstanceBackend + ?Sized),
    space: &Space,
    member: &Member,
    keys: &[RedisKey],
    scope: Scope,
) -> Result<Ordered<Vec<Outcome<Written<Standing>>>>, BackendError> {
    let writes: Vec<_> = keys.iter().map(|key| removal(key, scope)).collect();
    let Ordered { version, answer } = store.apply_on(space, member, &writes, None).await?;
    Ok(Ordered { version, answer: answer.outcomes })
}
