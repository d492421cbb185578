use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Where a clock begins: in 2100. An allocator's thread that asks this clock when to wake up, and the kernel
/// to wake it, sleeps then; after a time in the past it would spin.
const START: Duration = Duration::from_secs(4_102_444_800);

/// The wall clock of a server: a file that the server has mapped.
///
/// What the file holds is explained in `testkit/clock/src/lib.rs`, which reads it. Ordinary writes are
/// enough at this end: a shared mapping and the file are the same memory.
#[derive(Debug)]
pub(crate) struct Clock {
    path: PathBuf,
    file: File,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    moves: u8,
    time: Duration,
}

impl Clock {
    /// The library to preload into the server.
    ///
    /// # Panics
    ///
    /// Where there is none for this platform.
    pub(crate) fn library() -> &'static str {
        let Some(library) = option_env!("DISTKIT_CLOCK_LIBRARY") else {
            panic!("a server's clock can be moved on Linux with glibc only, on x86_64 and aarch64");
        };
        library
    }

    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join("clock");
        fs::write(&path, [0; 24])?;
        let file = File::options().write(true).open(&path)?;
        let clock =
            Self { path, file, shown: Mutex::new(Shown { moves: 0, time: Duration::ZERO }) };
        clock.advance(START)?;
        Ok(clock)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn advance(&self, step: Duration) -> io::Result<()> {
        self.show(|time| time.saturating_add(step))
    }

    pub(crate) fn go_back(&self, step: Duration) -> io::Result<()> {
        self.show(|time| time.saturating_sub(step))
    }

    fn show(&self, next: impl FnOnce(Duration) -> Duration) -> io::Result<()> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let time = next(shown.time);
        let nanos = u64::try_from(time.as_nanos()).expect("a time before the year 2554");
        let moves = shown.moves.wrapping_add(1);
        self.file.write_all_at(&nanos.to_ne_bytes(), 8 + 8 * u64::from(moves % 2))?;
        self.file.write_all_at(&[moves], 0)?;
        *shown = Shown { moves, time };
        Ok(())
    }

    pub(crate) fn now(&self) -> Duration {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).time
    }
}
