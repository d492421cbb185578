//! Windows of time that counters are kept by.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds beyond which no window ends and nothing is kept: scripts compute with doubles.
const LATEST: u64 = 1 << 52;

/// Fixed windows of time: each counter starts from 0 in each of them.
///
/// The windows of a length and an offset follow each other without gaps: one begins at each multiple of the length
/// since the store's epoch, plus the offset. Time is the store's: that of a server is Unix time, that of a
/// [`MemoryBackend`](crate::backend::memory::MemoryBackend) begins at 0.
///
/// ```
/// use std::time::Duration;
/// use distkit::Windows;
///
/// const HOUR: Duration = Duration::from_secs(3600);
/// // Hours, of which the last 24 can be read besides the current one.
/// let hours = Windows::every(HOUR).keep(24);
/// let window = hours.at(HOUR * 5 + HOUR / 2);
/// assert_eq!((window.start(), window.end()), (HOUR * 5, HOUR * 6));
/// assert_eq!(window.kept_until(), HOUR * 30);
///
/// // Days that begin at 3 o'clock.
/// let days = Windows::every(HOUR * 24).offset(HOUR * 3);
/// assert_eq!(days.at(HOUR * 25).start(), HOUR * 3);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Windows {
    /// In milliseconds, as all of them.
    length: u64,
    offset: u64,
    keep: u32,
}

impl Windows {
    /// Windows of this length, in whole milliseconds: at least 10 ms, at most 100 years. One window is kept besides the
    /// current one.
    pub const fn every(length: Duration) -> Self {
        const LONGEST: u64 = 100 * 365 * 86_400_000;
        let length = match length.as_millis() {
            ..10 => 10,
            ms if ms > LONGEST as u128 => LONGEST,
            ms => ms as u64,
        };
        Self { length, offset: 0, keep: 1 }
    }

    /// Shifts the beginning of all windows by `offset`, of which what exceeds whole lengths and whole milliseconds
    /// changes nothing. Default: 0.
    #[must_use]
    pub const fn offset(self, offset: Duration) -> Self {
        Self { offset: (offset.as_millis() % self.length as u128) as u64, ..self }
    }

    /// Sets how long a window is kept after its end, in lengths. Default: 1; at least 1, at most 10 000.
    ///
    /// Until then it can be read, and late writes reach it; afterwards it reads 0, and late writes are reported as
    /// lost. All processes of a prefix should agree on it. Where they do not, the longest one holds of those that
    /// write to a window before it is closed.
    #[must_use]
    pub const fn keep(self, lengths: u32) -> Self {
        let keep = match lengths {
            0 => 1,
            10_001.. => 10_000,
            lengths => lengths,
        };
        Self { keep, ..self }
    }

    /// Whether these are the same windows, whatever is kept of them.
    #[cfg(feature = "counter")]
    pub(crate) fn every_same(&self, other: Self) -> bool {
        (self.length, self.offset) == (other.length, other.offset)
    }

    /// Returns how long a window is.
    pub const fn length(&self) -> Duration {
        Duration::from_millis(self.length)
    }

    /// Returns how many windows can be read besides the current one.
    pub const fn kept(&self) -> u32 {
        self.keep
    }

    /// Returns the window of a time of the store's, counted from its epoch.
    pub fn at(&self, time: Duration) -> Window {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(LATEST);
        let Some(since) = time.checked_sub(self.offset) else {
            // The first one is cut off at the epoch.
            return Window { windows: *self, start: 0, end: self.offset };
        };
        let start = time - since % self.length;
        Window { windows: *self, start, end: start + self.length }
    }

    /// Returns the window of a time by the calendar, for stores whose time is Unix time. A time before 1970 is in the
    /// first window.
    pub fn containing(&self, time: SystemTime) -> Window {
        self.at(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// One of the [`Windows`] of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    windows: Windows,
    start: u64,
    end: u64,
}

impl Window {
    /// Returns which windows it is one of.
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// Returns when it begins, since the store's epoch.
    pub fn start(&self) -> Duration {
        Duration::from_millis(self.start)
    }

    /// Returns when the next one begins.
    pub fn end(&self) -> Duration {
        Duration::from_millis(self.end)
    }

    /// Returns when it begins, where the store's time is Unix time.
    pub fn start_time(&self) -> SystemTime {
        UNIX_EPOCH + self.start()
    }

    /// Returns until when it is kept: its end and [`Windows::keep`].
    pub fn kept_until(&self) -> Duration {
        Duration::from_millis(self.until_ms())
    }

    /// Returns whether the time is in it.
    pub fn contains(&self, time: Duration) -> bool {
        (self.start()..self.end()).contains(&time)
    }

    /// Returns the window before; `None` before the first one.
    pub fn previous(&self) -> Option<Self> {
        let last = self.start.checked_sub(1)?;
        Some(self.windows.at(Duration::from_millis(last)))
    }

    /// Returns the window after.
    #[must_use]
    pub fn next(&self) -> Self {
        self.windows.at(self.end())
    }

    /// How much of what was counted in the window before falls into the last [`length`](Windows::length) before
    /// `time`, a time in this one, if it is spread evenly.
    #[cfg(feature = "counter")]
    pub(crate) fn overlap(&self, previous: i64, time: Duration) -> i64 {
        let length = i128::from(self.windows.length);
        let into = i128::try_from(time.saturating_sub(self.start()).as_millis());
        let left = length - into.unwrap_or(length).min(length);
        let part = i128::from(previous) * left;
        // To the nearest, halves up. It is between 0 and `previous`.
        i64::try_from((2 * part + length).div_euclid(2 * length)).unwrap_or(previous)
    }

    pub(crate) fn length_ms(&self) -> u64 {
        self.windows.length
    }

    pub(crate) fn offset_ms(&self) -> u64 {
        self.windows.offset
    }

    pub(crate) fn start_ms(&self) -> u64 {
        self.start
    }

    pub(crate) fn end_ms(&self) -> u64 {
        self.end
    }

    pub(crate) fn until_ms(&self) -> u64 {
        let keep = self.windows.length.saturating_mul(self.windows.keep.into());
        self.end.saturating_add(keep).min(LATEST)
    }

    /// The same window, whatever is kept.
    pub(crate) fn of_any_keep(self) -> Self {
        Self { windows: Windows { keep: 0, ..self.windows }, ..self }
    }

    /// Another one of these windows, by its start.
    pub(crate) fn starting_at(&self, start: u64) -> Self {
        self.windows.at(Duration::from_millis(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn windows_follow_each_other_without_gaps() {
        for offset in [0, 1, 59_999, 60_000, 61_234] {
            let minutes = Windows::every(MINUTE).offset(Duration::from_millis(offset));
            let mut window = minutes.at(Duration::ZERO);
            assert_eq!(window.start(), Duration::ZERO);
            assert_eq!(window.previous(), None);
            for _ in 0..5 {
                let next = window.next();
                assert_eq!(next.start(), window.end());
                assert_eq!(next.previous(), Some(window));
                assert_eq!(next.end() - next.start(), MINUTE);
                assert!(window.contains(window.start()) && !window.contains(window.end()));
                assert_eq!(minutes.at(next.end() - Duration::from_nanos(1)), next);
                window = next;
            }
        }
    }

    #[test]
    fn extremes_stay_within_what_scripts_can_compute_with() {
        let longest = Windows::every(Duration::MAX).keep(u32::MAX);
        assert!(longest.at(Duration::MAX).until_ms() <= LATEST);
        assert_eq!(longest.kept(), 10_000);
        let shortest = Windows::every(Duration::ZERO).keep(0);
        assert_eq!((shortest.length(), shortest.kept()), (Duration::from_millis(10), 1));
    }

    #[cfg(feature = "counter")]
    #[test]
    fn the_part_of_the_window_before_shrinks_with_the_time() {
        let window = Windows::every(MINUTE).at(MINUTE);
        let part = |previous, into| window.overlap(previous, MINUTE + into);
        assert_eq!(part(100, Duration::ZERO), 100);
        assert_eq!(part(100, MINUTE / 4), 75);
        assert_eq!(part(-100, MINUTE / 2), -50);
        assert_eq!(part(100, MINUTE), 0);
        assert_eq!(part(1, MINUTE / 2), 1);
        assert_eq!(part(i64::MAX, Duration::ZERO), i64::MAX);
        assert_eq!(part(i64::MIN, Duration::ZERO), i64::MIN);
    }
}
