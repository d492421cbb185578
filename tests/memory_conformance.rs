//! The contract, over the store in memory: used directly, and over a link.
#![cfg(feature = "conformance")]

use std::time::Duration;

use distkit::{
    backend::{IntoBackend, memory::MemoryBackend},
    conformance::Fixture,
};

fn on_memory(store: MemoryBackend, backend: impl IntoBackend) -> Fixture {
    Fixture::new(backend.into_backend()).plant_with(move |space, key, text| {
        store.corrupt(&space, &key, &text);
        async {}
    })
}

async fn direct() -> Fixture {
    let store = MemoryBackend::new();
    on_memory(store.clone(), store)
}

/// Real time, so that calls of several threads overlap on the way.
async fn slow_link() -> Fixture {
    let store = MemoryBackend::new();
    let link = store.link();
    link.set_latency(Duration::from_micros(100));
    on_memory(store, link)
}

async fn link() -> Fixture {
    let store = MemoryBackend::new();
    let link = store.link();
    on_memory(store, link)
}

distkit::conformance_suite!(memory, direct);
distkit::conformance_suite!(memory_link, link);
distkit::conformance_suite!(memory_slow_link, slow_link);
