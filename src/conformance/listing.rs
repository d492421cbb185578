//! Rules 25 to 30: listings of plain counters.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fixture::{Fixture, Probe, key, keys, removals},
    guest::ok,
};
use crate::{
    KeyFilter, RedisKey,
    backend::{BackendError, Cursor, Enumeration, Outcome, Refusal, Space, Write},
};

/// More pages than any listing of these rules has.
pub(super) const MANY_PAGES: usize = 10_000;

/// The most that a page may hold of which 100 counters were asked for: a server gives all that it finds in one place.
pub(super) const ABOUT_100: usize = 1000;

/// Names with what means something in some pattern, or to some server.
pub(super) const ODD: [&str; 12] = [
    "*",
    "?",
    "a?b",
    "[ab]",
    r"back\\slash",
    "^",
    "a-b",
    "{tag}",
    "two words",
    "line\nbreak",
    "ünï",
    "€€",
];

fn enumeration(probe: &Probe) -> &dyn Enumeration {
    let capability = probe.backend.capabilities().enumeration;
    capability.expect("the store has the capability `enumeration`")
}

/// A listing that has begun.
struct Scan<'p> {
    probe: &'p Probe,
    filter: KeyFilter,
    count: usize,
    next: Option<Option<Cursor>>,
    pages: usize,
    /// What came, each time.
    found: BTreeMap<RedisKey, Vec<Outcome<i64>>>,
}

impl<'p> Scan<'p> {
    fn new(probe: &'p Probe, filter: KeyFilter, count: usize) -> Self {
        Self { probe, filter, count, next: Some(None), pages: 0, found: BTreeMap::new() }
    }

    /// Asks for one page. False if there is no more, and otherwise how many counters came.
    async fn step(&mut self) -> Option<usize> {
        let from = self.next.take()?;
        self.pages += 1;
        assert!(self.pages < MANY_PAGES, "the listing comes to no end");
        let store = enumeration(self.probe);
        let page = store.page(&self.probe.space, from.as_ref(), &self.filter, self.count).await;
        let page = ok("page", page);
        assert!(page.foreign.is_empty(), "names that nobody wrote: {:?}", page.foreign);
        let listed = page.entries.len();
        for (key, total) in page.entries {
            self.found.entry(key).or_default().push(total);
        }
        self.next = page.next.map(Some);
        Some(listed)
    }

    /// All of it.
    async fn run(mut self) -> BTreeMap<RedisKey, Vec<Outcome<i64>>> {
        while self.step().await.is_some() {}
        self.found
    }
}

async fn listed(probe: &Probe, filter: KeyFilter) -> BTreeMap<RedisKey, Vec<Outcome<i64>>> {
    Scan::new(probe, filter, 100).run().await
}

async fn count(probe: &Probe) -> u64 {
    ok("count", enumeration(probe).count(&probe.space).await)
}

/// Rule 25: each counter is listed with its total, few or many, whatever their names and totals are.
pub async fn a_listing_is_complete(fixture: &Fixture) {
    for number in [0, 20, 3000] {
        let probe = fixture.fresh();
        let mut expected: BTreeMap<_, _> = keys(number).into_iter().zip(-5_i64..).collect();
        if number > 0 {
            expected.extend(ODD.iter().map(|name| (key(name), 7)));
            expected.extend([(key("max"), i64::MAX), (key("min"), i64::MIN), (key("zero"), 0)]);
        }
        let writes: Vec<_> = expected.iter().map(|(key, n)| Write::set(key.clone(), *n)).collect();
        probe.apply(&writes).await;
        let found = listed(&probe, KeyFilter::all()).await;
        for (key, total) in &expected {
            let totals = found.get(key);
            assert!(totals.is_some(), "{key:?}, one of {}, is missing", expected.len());
            for found in totals.into_iter().flatten() {
                assert_eq!(*found, Ok(*total), "the total of {key:?}");
            }
        }
        assert_eq!(found.len(), expected.len(), "more is listed than was written");
    }
}

/// Rules 25 and 26: what stays is listed, however many others come and go between two pages, and nothing is that was
/// deleted before.
pub async fn counters_that_stay_are_listed_while_others_come_and_go(fixture: &Fixture) {
    let probe = fixture.fresh();
    let stays: Vec<_> = keys(1500);
    let goes: Vec<_> = (0..6000).map(|i| key(&format!("goes {i}"))).collect();
    let gone: Vec<_> = (0..200).map(|i| key(&format!("gone {i}"))).collect();
    let sets = |keys: &[RedisKey]| -> Vec<_> {
        keys.iter().map(|key| Write::set(key.clone(), 1)).collect()
    };
    probe.apply(&sets(&stays)).await;
    probe.apply(&sets(&gone)).await;
    probe.apply(&removals(&gone)).await;
    let mut scan = Scan::new(&probe, KeyFilter::all(), 50);
    // What a page of the store lists is deleted after it, so that a place which counts counters leaves some out.
    let mut behind: BTreeSet<RedisKey> = BTreeSet::new();
    for round in 0.. {
        if scan.step().await.is_none() {
            break;
        }
        // Many come, so that the store rearranges them, and many go.
        let part = &goes[(round * 600) % 6000..][..600];
        match (round / 10) % 2 {
            0 => drop(probe.apply(&sets(part)).await),
            _ => drop(probe.apply(&removals(part)).await),
        }
        let found: Vec<_> =
            scan.found.keys().filter(|key| key.starts_with("goes ")).cloned().collect();
        let fresh: Vec<_> = found.into_iter().filter(|key| behind.insert(key.clone())).collect();
        probe.apply(&removals(&fresh)).await;
    }
    let found = scan.found;
    let missing: Vec<_> = stays.iter().filter(|key| !found.contains_key(*key)).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), stays.len());
    let known: BTreeSet<_> = stays.iter().chain(&goes).collect();
    for (key, totals) in &found {
        assert!(known.contains(key), "{key:?} is listed, and was not there");
        assert!(totals.iter().all(|total| *total == Ok(1)), "{key:?} was never {totals:?}");
    }
}

/// Rules 9 and 26: another prefix, and another shard, is another listing.
pub async fn listings_stay_in_their_space(fixture: &Fixture) {
    let name = fixture.fresh_name();
    let probe = fixture.probe(&format!("listing {name}"));
    for beside in [format!("listing {name}*"), format!("listing {name} beside")] {
        probe.beside(&beside).apply(&[Write::set(key("beside"), 1)]).await;
    }
    probe.apply(&[Write::set(key("own"), 1)]).await;
    let found: Vec<_> = listed(&probe, KeyFilter::all()).await.into_keys().collect();
    assert_eq!(found, [key("own")]);
    for (shard, space) in (0..).zip(Space::shards_of(key(&format!("shards {name}")), 3)) {
        let probe = Probe { space, ..probe.clone() };
        assert_eq!(count(&probe).await, 0, "before the first write to shard {shard}");
        probe.apply(&[Write::set(key(&format!("of {shard}")), 1)]).await;
        let found: Vec<_> = listed(&probe, KeyFilter::all()).await.into_keys().collect();
        assert_eq!(found, [key(&format!("of {shard}"))]);
    }
}

/// Rule 27: a page is a part of what is there.
pub async fn a_page_is_bounded(fixture: &Fixture) {
    let probe = fixture.fresh();
    let writes: Vec<_> = keys(5000).into_iter().map(|key| Write::set(key, 1)).collect();
    probe.apply(&writes).await;
    let mut scan = Scan::new(&probe, KeyFilter::all(), 100);
    while let Some(listed) = scan.step().await {
        assert!(listed <= ABOUT_100, "a page of about 100 counters has {listed}");
    }
    assert_eq!(scan.found.len(), 5000);
}

/// Rule 28: a value that is no number is listed as what it is, and is counted.
pub async fn foreign_values_are_listed_as_such(fixture: &Fixture) {
    if !fixture.can_plant() {
        return;
    }
    let probe = fixture.fresh();
    probe.apply(&[Write::set(key("number"), 1)]).await;
    fixture.plant(&probe.space, &key("text"), "abc").await;
    let found = listed(&probe, KeyFilter::all()).await;
    let foreign = Err(Refusal::NotANumber { found: "abc".to_owned() });
    assert_eq!(found.get(&key("text")), Some(&vec![foreign]));
    assert_eq!(found.get(&key("number")), Some(&vec![Ok(1)]));
    assert_eq!(count(&probe).await, 2);
}

/// The filters of these rules.
pub(super) fn filters() -> impl Iterator<Item = KeyFilter> {
    let globs = [
        "*",
        "a*",
        "?",
        "??",
        "???",
        "a?b",
        r"a\?b",
        "[ab]",
        "*b*",
        "k1*9",
        "ün?",
        "*€",
        "ü*",
        r"back\\*",
        "{tag}",
        "line?break",
        "nothing",
        "*a*b",
        "k?",
        "k1??",
    ];
    let prefixes = ["k1", "a?", "[", r"back\\", "€", "line\n", ""];
    globs.into_iter().map(KeyFilter::glob).chain(prefixes.into_iter().map(KeyFilter::prefix))
}

/// Rule 29: what a filter selects is listed.
pub async fn a_filter_hides_no_match(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all: Vec<_> = keys(600).into_iter().chain(ODD.iter().map(|name| key(name))).collect();
    let writes: Vec<_> = all.iter().map(|key| Write::set(key.clone(), 1)).collect();
    probe.apply(&writes).await;
    for filter in filters() {
        let found = listed(&probe, filter.clone()).await;
        for key in all.iter().filter(|key| filter.matches(key)) {
            assert!(found.contains_key(key), "{filter:?} hides {key:?}");
        }
    }
}

/// Rule 30: what is there is counted, what is 0 included, and what was deleted is not.
pub async fn counters_are_counted(fixture: &Fixture) {
    let probe = fixture.fresh();
    assert_eq!(count(&probe).await, 0, "of a space that nobody wrote to");
    let all = keys(700);
    let writes: Vec<_> = all.iter().map(|key| Write::set(key.clone(), 0)).collect();
    probe.apply(&writes).await;
    assert_eq!(count(&probe).await, 700);
    probe.apply(&removals(&all[..300])).await;
    assert_eq!(count(&probe).await, 400);
    probe.clear().await;
    assert_eq!(count(&probe).await, 0, "after a clear");
    assert!(listed(&probe, KeyFilter::all()).await.is_empty(), "after a clear");
}

/// Rules 9 and 30: a listing of another number of shards is refused.
pub async fn a_listing_of_another_shape_is_refused(fixture: &Fixture) {
    let probe = fixture.fresh();
    probe.apply(&[Write::set(key("own"), 1)]).await;
    for space in Space::shards_of(probe.space.prefix().clone(), 2) {
        let store = enumeration(&probe);
        let page = store.page(&space, None, &KeyFilter::all(), 100).await.map(drop);
        for answer in [page, store.count(&space).await.map(drop)] {
            assert!(matches!(answer, Err(BackendError::ShapeMismatch { .. })), "{answer:?}");
        }
    }
}
