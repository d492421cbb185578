use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A clock that moves only when it is told to. It starts at 0.
///
/// Clones show the same time, so a test keeps one and gives another to
/// [`MemoryBackend::with_clock`](super::MemoryBackend::with_clock). It moves the store's time only:
/// the timers of counters and links are tokio's.
///
/// ```
/// use std::time::Duration;
/// use distkit::backend::memory::{ManualClock, MemoryBackend};
///
/// let clock = ManualClock::new();
/// let store = MemoryBackend::with_clock(clock.clone());
/// clock.advance(Duration::from_secs(30));
/// assert_eq!(store.now(), Duration::from_secs(30));
/// ```
#[derive(Clone, Default)]
pub struct ManualClock {
    now: Arc<Mutex<Duration>>,
}

impl ManualClock {
    /// Creates a clock at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward by `step`, at most to [`Duration::MAX`].
    pub fn advance(&self, step: Duration) {
        let mut now = self.now.lock();
        *now = now.saturating_add(step);
    }

    /// Returns how far the clock has been moved since it was made.
    pub fn now(&self) -> Duration {
        *self.now.lock()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

/// Where a store's time comes from.
#[derive(Debug)]
pub(super) enum Clock {
    Tokio { origin: Instant },
    Manual(ManualClock),
}

impl Clock {
    pub(super) fn tokio() -> Self {
        Self::Tokio { origin: Instant::now() }
    }

    pub(super) fn now(&self) -> Duration {
        match self {
            Self::Tokio { origin } => Instant::now().saturating_duration_since(*origin),
            Self::Manual(clock) => clock.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_with_its_clones() {
        let clock = ManualClock::new();
        assert_eq!(clock.now(), Duration::ZERO);
        clock.clone().advance(SECOND);
        clock.advance(Duration::from_millis(1));
        assert_eq!(clock.now(), Duration::from_millis(1001));
    }

    #[test]
    fn a_manual_clock_stops_at_the_end_of_time() {
        let clock = ManualClock::new();
        clock.advance(Duration::MAX);
        clock.advance(SECOND);
        assert_eq!(clock.now(), Duration::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_moves_with_paused_time() {
        let clock = Clock::tokio();
        assert_eq!(clock.now(), Duration::ZERO);
        tokio::time::sleep(SECOND).await;
        tokio::time::advance(SECOND).await;
        assert_eq!(clock.now(), 2 * SECOND);
    }
}
