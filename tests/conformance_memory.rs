//! The memory store keeps the `Backend` contract, directly, behind a link, fast or slow, and on a clock of its own.
#![cfg(feature = "conformance")]

use std::time::Duration;

use distkit::{
    backend::memory::{ManualClock, MemoryBackend, MemoryLink},
    conformance::Fixture,
};

fn with_hooks(fixture: Fixture, store: MemoryBackend) -> Fixture {
    let (wiped, forgetful, tokenless) = (store.clone(), store.clone(), store.clone());
    let fixture = fixture.wipe_with(move |_| {
        wiped.wipe();
        async {}
    });
    let fixture = fixture.lose_records_with(move |space| {
        forgetful.lose_guards(&space);
        async {}
    });
    let evicting = store.clone();
    let fixture = fixture.lose_window_with(move |space| {
        evicting.lose_window(&space);
        async {}
    });
    let fixture = fixture.lose_tokens_with(move |space| {
        tokenless.lose_tokens(&space);
        async {}
    });
    fixture.plant_with(move |space, key, text| {
        store.corrupt(&space, &key, &text);
        async {}
    })
}

async fn direct() -> Fixture {
    let store = MemoryBackend::new();
    with_hooks(Fixture::new(store.clone()), store).without_a_clock().without_stepping_back()
}

async fn clocked() -> Fixture {
    let clock = ManualClock::new();
    let store = MemoryBackend::with_clock(clock.clone());
    // Some hours from the beginning of time, so that there are windows before.
    clock.advance(Duration::from_secs(1_000_000));
    let fixture = Fixture::new(store.clone()).advance_with(move |step| clock.advance(step));
    let stepping = store.clone();
    let fixture = fixture.step_back_with(move |step| stepping.set_clock_back(step));
    with_hooks(fixture, store)
}

fn behind(link: MemoryLink) -> Fixture {
    let store = MemoryBackend::clone(link.store());
    with_hooks(Fixture::new(link), store).without_a_clock().without_stepping_back()
}

async fn linked() -> Fixture {
    behind(MemoryBackend::new().link())
}

/// In real time, so that calls overlap on the way.
async fn slow() -> Fixture {
    let store = MemoryBackend::new();
    store.set_clock_forward(Duration::from_secs(1_000_000));
    let link = store.link();
    link.set_latency(Duration::from_micros(100));
    behind(link)
}

distkit::conformance_suite!(direct_store, direct);
distkit::conformance_suite!(manual_clock, clocked);
distkit::conformance_suite!(behind_a_link, linked);
distkit::conformance_suite!(behind_a_slow_link, slow);
distkit::recorded_conformance_suite!(recorded_directly, direct);
distkit::recorded_slices_conformance_suite!(recorded_slices_directly, direct);
distkit::recorded_conformance_suite!(recorded_behind_a_slow_link, slow);
distkit::recorded_slices_conformance_suite!(recorded_slices_behind_a_slow_link, slow);
distkit::enumeration_conformance_suite!(listing_directly, direct);
distkit::slice_enumeration_conformance_suite!(slice_listing_directly, direct);
distkit::enumeration_conformance_suite!(listing_behind_a_slow_link, slow);
distkit::slice_enumeration_conformance_suite!(slice_listing_behind_a_slow_link, slow);
distkit::windows_conformance_suite!(windows_with_a_manual_clock, clocked);
distkit::windows_conformance_suite!(windows_behind_a_slow_link, slow);
distkit::tokens_conformance_suite!(tokens_directly, direct);
distkit::tokens_conformance_suite!(tokens_by_a_manual_clock, clocked);
distkit::tokens_conformance_suite!(tokens_behind_a_slow_link, slow);
