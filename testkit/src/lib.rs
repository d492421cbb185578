//! Private servers for the tests, benches and examples of distkit.
//!
//! ```no_run
//! use distkit_testkit::Server;
//!
//! let server = Server::valkey().append_only_always().start();
//! assert_eq!(server.cli(&["SET", "a", "1"]), "OK");
//! server.kill_9();
//! server.restart();
//! assert_eq!(server.cli(&["GET", "a"]), "1");
//! ```
//!
//! A server listens on a loopback port and on a unix socket in a temporary directory of its own, saves
//! nothing unless asked to, and goes away with its [`Server`]: also when the test panics, and (where
//! `setpriv` of util-linux is installed) also when the test process is killed or the `Server` is in a
//! `static`.
//!
//! The wall clock of a server can be moved by the test, so that what expires after 30 seconds or a day
//! costs neither:
//!
//! ```no_run
//! use std::time::Duration;
//! use distkit_testkit::Server;
//!
//! let server = Server::redis().manual_clock().start();
//! server.cli(&["SET", "a", "1", "EX", "30"]);
//! server.advance(Duration::from_secs(31));
//! assert_eq!(server.cli(&["GET", "a"]), "");
//! ```
//!
//! Everything blocks: do not start a server from a task on which others wait. Everything panics with an
//! explanation when it cannot be done, as a test should.
#![forbid(unsafe_code)]

mod aof;
mod certificates;
mod clock;
mod cluster;
mod flavor;
mod ports;
mod sentinels;
mod server;
mod spawn;

pub use certificates::Certificates;
pub use cluster::Cluster;
pub use flavor::Flavor;
pub use sentinels::Sentinels;
pub use server::{Server, ServerBuilder};
pub use spawn::command as command_tied_to_this_thread;

use std::time::{Duration, Instant};

/// How long anything may take before it is a failure. Loaded machines are slow; nothing waits this long
/// when all is well.
const DEADLINE: Duration = Duration::from_secs(30);

/// Polls `condition` until it holds; panics with `what` after 30 seconds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The text of an error and of all its sources, joined by `: `.
pub fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    std::iter::once(error.to_string())
        .chain(sources.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join(": ")
}
