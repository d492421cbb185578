//! The memory store keeps the `Backend` contract, directly, behind a link, and on a clock of its own.
#![cfg(feature = "conformance")]

use distkit::{
    backend::memory::{ManualClock, MemoryBackend},
    conformance::Fixture,
};

fn with_hooks(fixture: Fixture, store: MemoryBackend) -> Fixture {
    let wiped = store.clone();
    let fixture = fixture.wipe_with(move |_| {
        wiped.wipe();
        async {}
    });
    fixture.plant_with(move |space, key, text| {
        store.corrupt(&space, &key, &text);
        async {}
    })
}

async fn direct() -> Fixture {
    let store = MemoryBackend::new();
    with_hooks(Fixture::new(store.clone()), store)
}

async fn clocked() -> Fixture {
    let clock = ManualClock::new();
    let store = MemoryBackend::with_clock(clock.clone());
    let fixture = Fixture::new(store.clone()).advance_with(move |step| clock.advance(step));
    with_hooks(fixture, store)
}

async fn linked() -> Fixture {
    let store = MemoryBackend::new();
    with_hooks(Fixture::new(store.link()), store)
}

distkit::conformance_suite!(direct_store, direct);
distkit::conformance_suite!(manual_clock, clocked);
distkit::conformance_suite!(behind_a_link, linked);
