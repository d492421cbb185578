//! Reads that leave a server which was demoted to a replica.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Arg, CallError, Command, LuaStore, Reply, ScriptRunner};

/// How often a reading process asks whether its server still takes writes.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// A field of the totals that never exists.
const PROBE: &str = ":probe";

/// What is known of the server behind a connection.
#[derive(Debug, Default)]
pub(crate) struct Freshness(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    probed: Option<Probed>,
    /// A probe has succeeded: the process does not read from a replica on purpose.
    of_primary: bool,
}

#[derive(Debug)]
enum Probed {
    /// A process that reads once needs no probe.
    NotYet,
    At(Instant),
}

impl Freshness {
    fn due(&self) -> bool {
        let mut state = self.0.lock();
        let due = match &state.probed {
            None => {
                state.probed = Some(Probed::NotYet);
                return false;
            }
            Some(Probed::NotYet) => true,
            Some(Probed::At(last)) => last.elapsed() >= PROBE_EVERY,
        };
        if due {
            state.probed = Some(Probed::At(Instant::now()));
        }
        due
    }

    /// Whether the answer of a probe tells that the server was demoted.
    fn demoted(&self, probe: &Result<Reply, CallError>) -> bool {
        match probe {
            Ok(_) => {
                self.0.lock().of_primary = true;
                false
            }
            Err(CallError::Server(error)) if error.code == "READONLY" => self.0.lock().of_primary,
            // A user without the right to write stays where it is.
            Err(_) => false,
        }
    }
}

impl<R: ScriptRunner> LuaStore<R> {
    /// Runs a read, and every few seconds a write of `totals` with it that changes nothing: where that finds a
    /// replica in the place of a primary, the runner connects anew and the read is done again.
    pub(super) async fn read_fresh<F>(
        &self,
        totals: &str,
        read: impl Fn() -> F,
    ) -> Result<Reply, CallError>
    where
        F: Future<Output = Result<Reply, CallError>> + Send,
    {
        // A cluster's replicas do not answer reads.
        if self.runner.resends() || !self.freshness.due() {
            return read().await;
        }
        let args = [Arg::Text(totals), Arg::Text(PROBE)];
        let probe = Command::keyed("HDEL", &args);
        let (answer, probe) = tokio::join!(read(), self.runner.probe(probe));
        if self.freshness.demoted(&probe) {
            self.runner.leave_replica().await;
            return read().await;
        }
        answer
    }
}
