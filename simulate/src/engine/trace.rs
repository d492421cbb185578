use std::{
    fmt::{self, Write as _},
    io::Write as _,
    sync::Mutex,
};

use tokio::time::Instant;

/// All that happens, one line for each event. Two runs of one seed give the same bytes.
pub(crate) struct Trace {
    started: Instant,
    lines: Mutex<Lines>,
}

struct Lines {
    line: String,
    hash: u64,
    count: u64,
    sink: Option<Box<dyn std::io::Write + Send>>,
    failed: Option<std::io::Error>,
}

/// What is left of a trace: as good as its bytes for telling two of them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) hash: u64,
    pub(crate) lines: u64,
}

impl Trace {
    pub(crate) fn new(sink: Option<Box<dyn std::io::Write + Send>>) -> Self {
        let lines = Lines {
            line: String::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            count: 0,
            sink,
            failed: None,
        };
        Self { started: Instant::now(), lines: Mutex::new(lines) }
    }

    /// Milliseconds of simulated time since the start.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn line(&self, who: &str, what: fmt::Arguments<'_>) {
        let mut lines = self.lines.lock().unwrap();
        let Lines { line, hash, count, sink, failed } = &mut *lines;
        line.clear();
        // Writing to a string cannot fail.
        _ = writeln!(line, "{:>10} {who} {what}", self.now());
        // FNV-1a, which is the same on every machine and in every version of the standard library.
        for byte in line.bytes() {
            *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        *count += 1;
        if let Some(sink) = sink
            && failed.is_none()
        {
            *failed = sink.write_all(line.as_bytes()).err();
        }
    }

    /// Writes out what is buffered, and says whether all could be written.
    pub(crate) fn finish(&self) -> std::io::Result<Fingerprint> {
        let mut lines = self.lines.lock().unwrap();
        if let Some(error) = lines.failed.take() {
            return Err(error);
        }
        if let Some(sink) = &mut lines.sink {
            sink.flush()?;
        }
        Ok(Fingerprint { hash: lines.hash, lines: lines.count })
    }
}
