//! A time that passes while somebody sleeps, and in which a sleep ends when it likes.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    ops::{Add, Sub},
    time::Duration,
};

use shuttle::rand::{Rng, thread_rng};

thread_local! {
    // All tasks of a schedule share a thread, and no other schedule has it at the time.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    pub fn now() -> Self {
        Self(NOW.get())
    }

    pub fn elapsed(self) -> Duration {
        NOW.get().saturating_sub(self.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        Self(self.0 - time)
    }
}

pub async fn sleep_until(end: Instant) {
    for _ in 0..thread_rng().gen_range(0..4) {
        shuttle::future::yield_now().await;
    }
    NOW.set(NOW.get().max(end.0));
}

pub async fn sleep(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

/// No model fails for long enough.
pub async fn timeout<T>(_: Duration, work: impl Future<Output = T>) -> Result<T, Infallible> {
    Ok(work.await)
}

/// No model fails for long enough.
pub async fn timeout_at<T>(_: Instant, work: impl Future<Output = T>) -> Result<T, Infallible> {
    Ok(work.await)
}
