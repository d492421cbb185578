//! What the tests of windows under simulated time share.

use std::time::Duration;

use distkit::{
    RedisKey, Windows,
    backend::memory::{MemoryBackend, MemoryLink},
    counter::CounterOptions,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn options(link: &MemoryLink, windows: Windows) -> CounterOptions {
    CounterOptions::new(key("shop"), link.clone()).windows(windows)
}

/// A store, the way to it, and a counter.
pub(crate) fn stage<C>(
    windows: Windows,
    counter: impl FnOnce(CounterOptions) -> C,
) -> (MemoryBackend, MemoryLink, C) {
    let store = MemoryBackend::new();
    let link = store.link();
    let counter = counter(options(&link, windows));
    (store, link, counter)
}
