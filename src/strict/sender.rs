//! One request, sent again until it is answered.

use std::{future::Future, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    backend::{BackendError, ReplayGuard},
    lanes::Lanes,
};

/// The lanes of a store's strict counters.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    lanes: Lanes,
}

/// Why a request whose answer was lost counts as unknown.
#[derive(Debug, thiserror::Error)]
#[error("no answer came in time, in {attempts} attempts")]
struct Unanswered {
    attempts: u32,
    #[source]
    last: Option<BackendError>,
}

impl Sender {
    /// Sends `request` under the guard of a lane until it is answered: the store applies it once, and answers every
    /// attempt as the first one. After the `deadline` its outcome is unknown, and it is applied once at most.
    ///
    /// Cancel safe: a request that is dropped is applied once at most.
    pub(crate) async fn send<T, F>(
        &self,
        fresh_id: impl FnOnce() -> Arc<str>,
        deadline: Instant,
        request: impl Fn(ReplayGuard) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let ticket = self.lanes.take(fresh_id);
        let mut lane = ticket.guard();
        let mut delays = delays();
        let mut attempts = 0;
        let mut last = None;
        loop {
            attempts += 1;
            match timeout_at(deadline, request(lane.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if ends(&error, lane.resent) => return Err(error),
                Ok(Err(error)) => last = Some(error),
                Err(_) => return Err(BackendError::outcome_unknown(Unanswered { attempts, last })),
            }
            lane.resent = true;
            let delay = delays.next().unwrap_or(LONGEST_DELAY);
            if Instant::now() + delay >= deadline {
                return Err(BackendError::outcome_unknown(Unanswered { attempts, last }));
            }
            sleep(delay).await;
        }
    }
}

/// Whether the error answers the request. Once an answer was lost, an error of the server's says nothing of the
/// attempt before.
fn ends(error: &BackendError, resent: bool) -> bool {
    match error {
        BackendError::NotJoined | BackendError::Replaced | BackendError::Forgotten => true,
        error => !resent && !error.may_have_happened(),
    }
}

const LONGEST_DELAY: Duration = Duration::from_millis(500);

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(LONGEST_DELAY)
        .without_max_times()
        .build()
}
