//! What a process knows of the clock of its store, and so of which window is current.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Window, Windows};

/// The windows of the counters of a space, and an estimate of the clock that they go by. It is off by half a round trip
/// at most, and by how far apart the two clocks have drifted since the store was asked.
#[derive(Debug)]
pub(crate) struct WindowClock {
    windows: Windows,
    anchor: Mutex<Option<Anchor>>,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    at: Instant,
    time: Duration,
}

impl WindowClock {
    pub(crate) fn new(windows: Windows) -> Self {
        Self { windows, anchor: Mutex::new(None) }
    }

    pub(crate) fn windows(&self) -> Windows {
        self.windows
    }

    /// The store's time; `None` before the store has told it.
    pub(crate) fn now(&self) -> Option<Duration> {
        let Anchor { at, time } = (*self.anchor.lock())?;
        Some(time.saturating_add(at.elapsed()))
    }

    /// The window that is current.
    pub(crate) fn current(&self) -> Option<Window> {
        self.now().map(|now| self.windows.at(now))
    }

    /// How long ago the store told its time.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.anchor.lock().map(|anchor| anchor.at.elapsed())
    }

    /// Notes the time that the store told in its answer to a request that was sent then.
    pub(crate) fn note(&self, sent: Instant, time: Duration) {
        let answered = Instant::now();
        let half = answered.saturating_duration_since(sent) / 2;
        *self.anchor.lock() = Some(Anchor { at: sent + half, time });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_is_that_of_the_middle_of_the_round_trip() {
        let second = Duration::from_secs(1);
        let clock = WindowClock::new(Windows::every(60 * second));
        assert_eq!((clock.now(), clock.current()), (None, None));
        let sent = Instant::now();
        tokio::time::advance(2 * second).await;
        clock.note(sent, 118 * second);
        assert_eq!(clock.now(), Some(119 * second));
        assert_eq!(clock.current().map(|window| window.start()), Some(60 * second));
        tokio::time::advance(second).await;
        assert_eq!(clock.current().map(|window| window.start()), Some(120 * second));
        assert_eq!(clock.age(), Some(2 * second));
        // A step of the store's clock, of either sign.
        clock.note(Instant::now(), 10 * second);
        assert_eq!(clock.current().map(|window| window.start()), Some(Duration::ZERO));
    }
}
