//! Rules 25 to 30 for instance-aware counters.

use std::collections::BTreeSet;

use super::{
    fixture::{Fixture, Probe, key, keys},
    guest::{Guest, add, ok},
    listing::{ABOUT_100, MANY_PAGES, ODD, filters},
};
use crate::{
    KeyFilter, RedisKey,
    backend::{BackendError, Cursor, Scope, SliceEnumeration, Space},
};

fn enumeration(probe: &Probe) -> &dyn SliceEnumeration {
    let capability = probe.backend.capabilities().slice_enumeration;
    capability.expect("the store has the capability `slice_enumeration`")
}

/// A listing that has begun.
struct Scan<'p> {
    probe: &'p Probe,
    filter: KeyFilter,
    next: Option<Option<Cursor>>,
    pages: usize,
    found: BTreeSet<RedisKey>,
}

impl<'p> Scan<'p> {
    fn new(probe: &'p Probe, filter: KeyFilter) -> Self {
        Self { probe, filter, next: Some(None), pages: 0, found: BTreeSet::new() }
    }

    /// Asks for one page of about 100 counters, and gives how many came; `None` if there is no more.
    async fn step(&mut self) -> Option<usize> {
        let from = self.next.take()?;
        self.pages += 1;
        assert!(self.pages < MANY_PAGES, "the listing comes to no end");
        let store = enumeration(self.probe);
        let page = store.page_on(&self.probe.space, from.as_ref(), &self.filter, 100).await;
        let page = ok("page_on", page);
        assert!(page.foreign.is_empty(), "names that nobody wrote: {:?}", page.foreign);
        self.next = page.next.map(Some);
        let listed = page.entries.len();
        self.found.extend(page.entries);
        Some(listed)
    }
}

async fn listed(probe: &Probe, filter: KeyFilter) -> BTreeSet<RedisKey> {
    let mut scan = Scan::new(probe, filter);
    while scan.step().await.is_some() {}
    scan.found
}

async fn count(probe: &Probe) -> u64 {
    ok("count_on", enumeration(probe).count_on(&probe.space).await)
}

async fn add_to(guest: &Guest, keys: &[RedisKey], count: i64) {
    for part in keys.chunks(200) {
        let writes: Vec<_> = part.iter().map(|key| add(key, count)).collect();
        for outcome in guest.apply(&writes).await {
            assert!(outcome.is_ok(), "an addition was refused: {outcome:?}");
        }
    }
}

/// Rules 25 and 26: the counters of all instances are listed, for a process that is none of them, and no others.
pub async fn a_slice_listing_is_complete(fixture: &Fixture) {
    let probe = fixture.fresh();
    assert!(listed(&probe, KeyFilter::all()).await.is_empty(), "a space that nobody has joined");
    let [a, b] = [Guest::join(&probe).await, Guest::join(&probe).await];
    let all = keys(800);
    add_to(&a, &all[..500], 2).await;
    add_to(&b, &all[400..], 3).await;
    let odd: Vec<_> = ODD.iter().map(|name| key(name)).collect();
    add_to(&b, &odd, 1).await;
    let plain = key("a plain counter");
    probe.apply(&[crate::backend::Write::set(plain, 1)]).await;
    let expected: BTreeSet<_> = all.into_iter().chain(odd).collect();
    let found = listed(&probe, KeyFilter::all()).await;
    assert_eq!(found.len(), expected.len(), "of the counters");
    assert_eq!(found, expected);
    b.leave().await;
    add_to(&a, &[key("k0")], 1).await;
    let found = listed(&probe, KeyFilter::all()).await;
    let kept = found.iter().filter(|key| expected.contains(*key)).count();
    assert!(kept >= 500, "{kept} of the 500 of the one who stayed are listed");
}

/// Rule 25: what stays is listed, however many others come and go between two pages.
pub async fn slices_that_stay_are_listed_while_others_come_and_go(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guest = Guest::join(&probe).await;
    let (stays, goes) = (keys(800), (0..2000).map(|i| key(&format!("a goes {i}"))));
    let goes: Vec<_> = goes.collect();
    add_to(&guest, &stays, 1).await;
    add_to(&guest, &goes, 1).await;
    let mut scan = Scan::new(&probe, KeyFilter::all());
    let mut round = 0;
    while scan.step().await.is_some() {
        // A slice of 0 is none.
        let part = &goes[(round * 200) % 2000..][..200];
        add_to(&guest, part, if (round / 10) % 2 == 0 { -1 } else { 1 }).await;
        round += 1;
    }
    let missing: Vec<_> = stays.iter().filter(|key| !scan.found.contains(*key)).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), stays.len());
    let known: BTreeSet<_> = stays.iter().chain(&goes).collect();
    let invented: Vec<_> = scan.found.iter().filter(|key| !known.contains(key)).collect();
    assert!(invented.is_empty(), "{invented:?} are listed, and were not there");
}

/// Rule 27: a page is a part of what is there.
pub async fn a_page_of_slices_is_bounded(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guest = Guest::join(&probe).await;
    add_to(&guest, &keys(2000), 1).await;
    let mut scan = Scan::new(&probe, KeyFilter::all());
    while let Some(listed) = scan.step().await {
        assert!(listed <= ABOUT_100, "a page of about 100 counters has {listed}");
    }
    assert_eq!(scan.found.len(), 2000);
}

/// Rule 29: what a filter selects is listed.
pub async fn a_filter_hides_no_slice(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guest = Guest::join(&probe).await;
    let all: Vec<_> = keys(300).into_iter().chain(ODD.iter().map(|name| key(name))).collect();
    add_to(&guest, &all, 1).await;
    for filter in filters() {
        let found = listed(&probe, filter.clone()).await;
        for key in all.iter().filter(|key| filter.matches(key)) {
            assert!(found.contains(key), "{filter:?} hides {key:?}");
        }
    }
}

/// Rule 30: counters are counted as long as somebody has a slice.
pub async fn counters_with_slices_are_counted(fixture: &Fixture) {
    let probe = fixture.fresh();
    assert_eq!(count(&probe).await, 0, "of a space that nobody has joined");
    let [a, b] = [Guest::join(&probe).await, Guest::join(&probe).await];
    let all = keys(300);
    add_to(&a, &all, 1).await;
    add_to(&b, &all[..10], 1).await;
    assert_eq!(count(&probe).await, 300);
    a.remove(&all[0], Scope::Slice).await;
    assert_eq!(count(&probe).await, 300, "the other one has a slice");
    b.remove(&all[0], Scope::Slice).await;
    a.remove(&all[1], Scope::Total).await;
    assert_eq!(count(&probe).await, 298);
    a.clear(Scope::Total).await;
    assert_eq!(count(&probe).await, 0, "after a clear");
    assert!(listed(&probe, KeyFilter::all()).await.is_empty(), "after a clear");
}

/// Rule 30: a listing renews no lease, collects nobody, and changes no total.
pub async fn a_slice_listing_changes_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    let guest = Guest::join(&probe).await;
    let hits = key("hits");
    let before = guest.add(&hits, 5).await;
    listed(&probe, KeyFilter::all()).await;
    count(&probe).await;
    assert_eq!(guest.read(&hits).await, before);
    let slices = ok("slices", probe.instances().slices(&probe.space, &hits).await);
    assert_eq!(slices.len(), 1, "of one instance");
}

/// Rules 9 and 30: a listing of another number of shards is refused.
pub async fn a_slice_listing_of_another_shape_is_refused(fixture: &Fixture) {
    let probe = fixture.fresh();
    Guest::join(&probe).await.add(&key("own"), 1).await;
    for space in Space::shards_of(probe.space.prefix().clone(), 2) {
        let store = enumeration(&probe);
        let page = store.page_on(&space, None, &KeyFilter::all(), 100).await.map(drop);
        for answer in [page, store.count_on(&space).await.map(drop)] {
            assert!(matches!(answer, Err(BackendError::ShapeMismatch { .. })), "{answer:?}");
        }
    }
}
