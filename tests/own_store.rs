//! The store of the guide's page `docs/guide/store.md` keeps the whole plain contract.
#![cfg(feature = "conformance")]

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use distkit::{
    RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Change, Outcome, Refusal, ReplayGuard, Space,
        Write, Written,
    },
};

#[derive(Debug, Default)]
struct MapStore(Mutex<Data>);

#[derive(Debug, Default)]
struct Data {
    totals: BTreeMap<(Space, RedisKey), i64>,
    writers: HashMap<(Space, Arc<str>), Latest>,
    /// The number of shards of each prefix.
    shards: HashMap<RedisKey, u16>,
}

/// The latest batch of a writer: its sequence, and what it refused.
type Latest = (u64, Vec<Option<Refusal>>);

impl Data {
    fn open(&mut self, space: &Space, make: bool) -> Result<(), BackendError> {
        let asked = space.shards();
        let held = match self.shards.get(space.prefix()) {
            Some(held) => *held,
            None if make => *self.shards.entry(space.prefix().clone()).or_insert(asked),
            None => asked,
        };
        if held == asked {
            return Ok(());
        }
        let (ours, stored) = (format!("{asked} shards"), format!("{held} shards"));
        Err(BackendError::ShapeMismatch { ours, stored })
    }

    fn write(&mut self, space: &Space, write: &Write) -> Outcome<Written> {
        let place = (space.clone(), write.key.clone());
        let old = self.totals.get(&place).copied().unwrap_or(0);
        if !write.condition.matches(old) {
            return Ok(Written { old, new: old, condition_met: false });
        }
        let new = write.change.applied_to(old)?;
        match write.change {
            Change::Remove => _ = self.totals.remove(&place),
            // Where nothing is added, a missing key stays missing.
            Change::AddWithin { .. } if new == old => {}
            _ => _ = self.totals.insert(place, new),
        }
        Ok(Written { old, new, condition_met: true })
    }
}

#[async_trait::async_trait]
impl Backend for MapStore {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        let mut data = self.0.lock().unwrap();
        data.open(space, true)?;
        let writer = guard.map(|guard| (space.clone(), guard.writer.clone()));
        let latest = writer.as_ref().and_then(|writer| data.writers.get(writer)).cloned();
        if let (Some(guard), Some((latest, refused))) = (guard, latest)
            && guard.sequence <= latest
        {
            // Applied before: the values as they stand, and the refusals again.
            let outcomes = writes.iter().enumerate().map(|(at, write)| {
                let refused = refused.get(at).cloned().flatten();
                if let (Some(refusal), true) = (refused, guard.sequence == latest) {
                    return Err(refusal);
                }
                let place = (space.clone(), write.key.clone());
                let now = data.totals.get(&place).copied().unwrap_or(0);
                Ok(Written { old: now, new: now, condition_met: true })
            });
            return Ok(Applied { replayed: true, record: None, outcomes: outcomes.collect() });
        }
        let outcomes: Vec<_> = writes.iter().map(|write| data.write(space, write)).collect();
        if let (Some(writer), Some(guard)) = (writer, guard) {
            let refused = outcomes.iter().map(|outcome| outcome.clone().err()).collect();
            data.writers.insert(writer, (guard.sequence, refused));
        }
        Ok(Applied { replayed: false, record: None, outcomes })
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let mut data = self.0.lock().unwrap();
        data.open(space, false)?;
        let total = |key: &RedisKey| data.totals.get(&(space.clone(), key.clone())).copied();
        Ok(keys.iter().map(|key| Ok(total(key).unwrap_or(0))).collect())
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        let mut data = self.0.lock().unwrap();
        data.open(space, true)?;
        data.totals.retain(|(held, _), _| held != space);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none()
    }
}

use distkit::conformance::Fixture;

async fn map_store() -> Fixture {
    // What this store or test cannot do: without saying so, the rules that need it fail.
    Fixture::plain(MapStore::default())
        .without_planting()
        .without_a_clock()
        .without_losing_records()
}

distkit::plain_conformance_suite!(map_store);

#[test]
fn the_page_shows_the_store_that_is_tested() {
    let page = include_str!("../docs/guide/store.md");
    let (_, rest) = page.split_once("```rust\n").unwrap();
    let (example, _) = rest.split_once("\n# #[tokio::main").unwrap();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (here, on_page) = (words(include_str!("own_store.rs")), words(example));
    let (uses, body) =
        on_page.split_at(on_page.iter().position(|w| w == "#[derive(Debug,").unwrap());
    assert!(!uses.is_empty());
    assert!(here.windows(body.len()).any(|window| window == body), "they differ");

    let (_, suite) = page.split_once("use distkit::conformance::Fixture;\n").unwrap();
    let (suite, _) = suite.split_once("```").unwrap();
    let shown: Vec<_> = suite.lines().filter(|line| !line.starts_with("# ")).collect();
    let suite = words(&shown.join("\n"));
    assert!(suite.contains(&"distkit::plain_conformance_suite!(map_store);".to_owned()));
    assert!(here.windows(suite.len()).any(|window| window == suite), "the suites differ");
}
