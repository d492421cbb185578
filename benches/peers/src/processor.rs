//! Time that threads spent on a processor.

use std::path::Path;

/// Milliseconds that a thread has run, by its `schedstat`.
pub(crate) fn milliseconds(schedstat: &Path) -> f64 {
    let text = std::fs::read_to_string(schedstat).unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

/// Milliseconds that all threads of this process have run.
pub(crate) fn own_milliseconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
    threads.flatten().map(|thread| milliseconds(&thread.path().join("schedstat"))).sum()
}

/// How many cores of which kind there are.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    format!("{cores} cores, {}", model.unwrap_or("unknown processor"))
}
