//! The memory store keeps the `Backend` contract, directly, behind a link, and on a clock of its own.
#![cfg(feature = "conformance")]

use distkit::{
    backend::memory::{ManualClock, MemoryBackend},
    conformance::Fixture,
};

fn fixture(store: MemoryBackend) -> Fixture {
    Fixture::new(store.clone()).plant_with(move |space, key, text| {
        store.corrupt(&space, &key, &text);
        async {}
    })
}

async fn direct() -> Fixture {
    fixture(MemoryBackend::new())
}

async fn clocked() -> Fixture {
    fixture(MemoryBackend::with_clock(ManualClock::new()))
}

async fn linked() -> Fixture {
    let store = MemoryBackend::new();
    Fixture::new(store.link()).plant_with(move |space, key, text| {
        store.corrupt(&space, &key, &text);
        async {}
    })
}

distkit::conformance_suite!(direct_store, direct);
distkit::conformance_suite!(manual_clock, clocked);
distkit::conformance_suite!(behind_a_link, linked);
