//! Each rule of listings catches a store that breaks it.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used)]

#[path = "common/faults.rs"]
#[allow(dead_code, unused_imports, reason = "made for other tests besides")]
mod faults;
#[path = "common/overriding.rs"]
mod overriding;

use std::time::Duration;

use async_trait::async_trait;
use distkit::{
    KeyFilter, RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Cursor, Enumeration, InstanceBackend, Member,
        Ordered, Outcome, Page, ReplayGuard, SliceEnumeration, SliceWrite, Space, Standing, Write,
        memory::MemoryBackend,
    },
    conformance::{self as rules, Fixture},
};
use overriding::{Override, Overriding};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    AsksForNoShape,
    CollectsWhomItLists,
    CountsByPlace,
    CountsWhatIsNotZeroOnly,
    ForgetsTheLastPage,
    GivesAllAtOnce,
    HidesForeignValues,
    KeepsTheCount,
    ListsEachSpaceOfTheStore,
    ListsTheDeleted,
    TakesQuestionMarksForBytes,
    TakesPrefixesForGlobs,
}

/// A sound store around which the fault is.
#[derive(Debug)]
struct Broken {
    fault: Fault,
    store: MemoryBackend,
    /// Every space and key that was ever written.
    written: std::sync::Mutex<Vec<(Space, RedisKey)>>,
}

type Entry = (RedisKey, Outcome<i64>);

impl Broken {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn keep(&self, space: &Space, key: &RedisKey) {
        self.written.lock().unwrap().push((space.clone(), key.clone()));
    }

    fn ever_written(&self) -> Vec<(Space, RedisKey)> {
        self.written.lock().unwrap().clone()
    }

    /// The space in which a request ends up.
    fn space(&self, space: &Space) -> Space {
        if self.is(Fault::AsksForNoShape) {
            Space::new(space.prefix().clone())
        } else {
            space.clone()
        }
    }

    /// The filter that such a server applies.
    fn hides(&self, filter: &KeyFilter, key: &RedisKey) -> bool {
        let filter = filter.to_string();
        match self.fault {
            Fault::TakesQuestionMarksForBytes => {
                // As many bytes as there are characters.
                let bytes: String = key
                    .bytes()
                    .map(|byte| if byte < 128 { byte as char } else { '\u{1}' })
                    .collect();
                let key = RedisKey::try_from(bytes).unwrap();
                filter.contains('?') && filter.is_ascii() && !KeyFilter::glob(&filter).matches(&key)
            }
            Fault::TakesPrefixesForGlobs => {
                !KeyFilter::glob(&filter.replace('\\', "")).matches(key) || filter.starts_with('[')
            }
            _ => false,
        }
    }

    fn shaped<T: Clone>(&self, mut page: Page<T>, count: usize) -> Page<T> {
        if self.is(Fault::ForgetsTheLastPage) && page.next.is_none() && count > page.entries.len() {
            page.entries.pop();
        }
        page
    }

    /// Pages by the number of counters before them.
    fn by_place<T: Clone>(all: Vec<T>, from: Option<&Cursor>, count: usize) -> Page<T> {
        let place: usize = from.map_or(0, |cursor| cursor.as_str().parse().unwrap());
        let entries: Vec<_> = all.iter().skip(place).take(count).cloned().collect();
        let next = (place + count < all.len()).then(|| Cursor::new((place + count).to_string()));
        Page::new(entries, next)
    }
}

#[async_trait]
impl Enumeration for Broken {
    async fn page(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<Entry>, BackendError> {
        let (space, sound) = (&self.space(space), self.store.capabilities().enumeration.unwrap());
        match self.fault {
            Fault::GivesAllAtOnce => sound.page(space, None, filter, usize::MAX).await,
            Fault::CountsByPlace => {
                let all = sound.page(space, None, filter, usize::MAX).await?.entries;
                Ok(Self::by_place(all, from, count))
            }
            Fault::ListsTheDeleted | Fault::ListsEachSpaceOfTheStore => {
                let mut page = sound.page(space, from, filter, count).await?;
                if page.next.is_none() {
                    let all = self.is(Fault::ListsEachSpaceOfTheStore);
                    let ever = self.ever_written().into_iter();
                    let more = ever.filter(|(of, _)| all || of == space);
                    page.entries.extend(more.map(|(_, key)| (key, Ok(1))));
                }
                Ok(page)
            }
            _ => {
                let mut page = sound.page(space, from, filter, count).await?;
                page.entries.retain(|(key, total)| {
                    let foreign = self.is(Fault::HidesForeignValues) && total.is_err();
                    !foreign && !self.hides(filter, key)
                });
                Ok(self.shaped(page, count))
            }
        }
    }

    async fn count(&self, space: &Space) -> Result<u64, BackendError> {
        let (space, sound) = (&self.space(space), self.store.capabilities().enumeration.unwrap());
        match self.fault {
            Fault::CountsWhatIsNotZeroOnly => {
                let all = sound.page(space, None, &KeyFilter::all(), usize::MAX).await?;
                Ok(all.entries.iter().filter(|(_, total)| *total != Ok(0)).count() as u64)
            }
            Fault::KeepsTheCount => {
                Ok(self.ever_written().iter().filter(|(of, _)| of == space).count() as u64)
            }
            _ => sound.count(space).await,
        }
    }
}

#[async_trait]
impl SliceEnumeration for Broken {
    async fn page_on(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<RedisKey>, BackendError> {
        let (space, sound) =
            (&self.space(space), self.store.capabilities().slice_enumeration.unwrap());
        match self.fault {
            Fault::CollectsWhomItLists => self.store.lose_members(space),
            Fault::GivesAllAtOnce => return sound.page_on(space, None, filter, usize::MAX).await,
            Fault::CountsByPlace => {
                let all = sound.page_on(space, None, filter, usize::MAX).await?.entries;
                return Ok(Self::by_place(all, from, count));
            }
            _ => {}
        }
        let mut page = sound.page_on(space, from, filter, count).await?;
        page.entries.retain(|key| !self.hides(filter, key));
        Ok(self.shaped(page, count))
    }

    async fn count_on(&self, space: &Space) -> Result<u64, BackendError> {
        let (space, sound) =
            (&self.space(space), self.store.capabilities().slice_enumeration.unwrap());
        match self.fault {
            Fault::KeepsTheCount => {
                let mut ever = self.ever_written();
                ever.retain(|(of, _)| of == space);
                ever.sort();
                ever.dedup();
                Ok(ever.len() as u64)
            }
            _ => sound.count_on(space).await,
        }
    }
}

#[async_trait]
impl Override for Broken {
    fn sound(&self) -> &MemoryBackend {
        &self.store
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none().with_enumeration(self).with_slice_enumeration(self)
    }

    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        writes.iter().for_each(|write| self.keep(space, &write.key));
        self.store.apply(space, writes, guard).await
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        writes.iter().for_each(|write| self.keep(space, &write.key));
        self.store.apply_on(space, member, writes, sequence).await
    }
}

fn fixture(fault: Fault) -> Fixture {
    let store = MemoryBackend::new();
    let broken = Broken { fault, store: store.clone(), written: Default::default() };
    Fixture::new(Overriding(broken)).advance_with(|_: Duration| {}).plant_with(
        move |space, key, text| {
            store.corrupt(&space, &key, &text);
            async {}
        },
    )
}

async fn sound() -> Fixture {
    fixture(Fault::None)
}

// Without a fault this store passes, so what fails below fails because of the fault.
distkit::enumeration_conformance_suite!(plain, sound);
distkit::slice_enumeration_conformance_suite!(slices, sound);

faults::caught! {
    in "listing.rs" "slice_listing.rs";
    AsksForNoShape by
        a_listing_of_another_shape_is_refused
        a_slice_listing_of_another_shape_is_refused,
    CollectsWhomItLists by a_slice_listing_changes_nothing,
    CountsByPlace by
        counters_that_stay_are_listed_while_others_come_and_go
        slices_that_stay_are_listed_while_others_come_and_go,
    CountsWhatIsNotZeroOnly by counters_are_counted,
    ForgetsTheLastPage by a_listing_is_complete a_slice_listing_is_complete,
    GivesAllAtOnce by a_page_is_bounded a_page_of_slices_is_bounded,
    HidesForeignValues by foreign_values_are_listed_as_such,
    KeepsTheCount by counters_are_counted counters_with_slices_are_counted,
    ListsEachSpaceOfTheStore by listings_stay_in_their_space,
    ListsTheDeleted by counters_that_stay_are_listed_while_others_come_and_go,
    TakesQuestionMarksForBytes by a_filter_hides_no_match a_filter_hides_no_slice,
    TakesPrefixesForGlobs by a_filter_hides_no_match a_filter_hides_no_slice,
}
