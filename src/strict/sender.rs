//! One request, sent again until it is answered.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    backend::{BackendError, ReplayGuard, lanes::Lanes},
    backoff::doubling,
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
        if Instant::now() >= deadline {
            return Err(too_late());
        }
        let ticket = self.lanes.take(fresh_id);
        let lane = ticket.guard();
        send_again(deadline, |resent| request(ReplayGuard { resent, ..lane.clone() })).await
    }
}

fn too_late() -> BackendError {
    BackendError::not_applied("it was not sent in time")
}

/// Sends a request that is idempotent, also once the caller has gone, until it is answered: as [`Sender::send`] does,
/// without a lane. `request` is told whether an earlier attempt may have arrived.
pub(crate) async fn send_again<T, F>(
    deadline: Instant,
    request: impl Fn(bool) -> F,
) -> Result<T, BackendError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    let mut delays = doubling(FIRST_DELAY, LONGEST_DELAY);
    let (mut attempts, mut resent, mut last) = (0, false, None);
    if Instant::now() >= deadline {
        return Err(too_late());
    }
    loop {
        attempts += 1;
        match timeout_at(deadline, request(resent)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if ends(&error, resent) => return Err(error),
            Ok(Err(error)) => last = Some(error),
            Err(_) => return Err(BackendError::outcome_unknown(Unanswered { attempts, last })),
        }
        resent = true;
        let delay = delays.next().unwrap_or(LONGEST_DELAY);
        if Instant::now() + delay >= deadline {
            return Err(BackendError::outcome_unknown(Unanswered { attempts, last }));
        }
        sleep(delay).await;
        // A process that was frozen, or a future that was not polled, may wake up much later.
        if Instant::now() >= deadline {
            return Err(BackendError::outcome_unknown(Unanswered { attempts, last }));
        }
    }
}

/// Whether the error answers the request. After a lost answer, a server error does not determine the outcome of
/// earlier attempts.
fn ends(error: &BackendError, resent: bool) -> bool {
    match error {
        BackendError::NotJoined
        | BackendError::Replaced
        | BackendError::Forgotten
        | BackendError::AnswerLost(_) => true,
        error => !resent && !error.may_have_happened(),
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Answers each attempt with the next of these, and gives the guards that came.
    async fn sent(
        answers: Vec<Result<u32, BackendError>>,
    ) -> (Result<u32, BackendError>, Vec<ReplayGuard>) {
        let (sender, guards) = (Sender::default(), Mutex::new(Vec::new()));
        let answers = Mutex::new(answers.into_iter());
        let deadline = Instant::now() + Duration::from_secs(5);
        let request = |lane: ReplayGuard| {
            guards.lock().push(lane);
            let answer = answers.lock().next();
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        };
        let answer = sender.send(|| "p".into(), deadline, request).await;
        (answer, guards.into_inner())
    }

    fn lost() -> Result<u32, BackendError> {
        Err(BackendError::outcome_unknown("lost"))
    }

    fn refused() -> Result<u32, BackendError> {
        Err(BackendError::not_applied("LOADING"))
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_after_a_lost_answer_says_nothing() {
        let (answer, guards) = sent(vec![lost(), refused(), refused(), Ok(7)]).await;
        assert_eq!(answer.unwrap(), 7);
        let resent: Vec<_> = guards.iter().map(|guard| (guard.sequence, guard.resent)).collect();
        assert_eq!(resent, [(1, false), (1, true), (1, true), (1, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_never_sent_fails_at_once() {
        let (answer, guards) = sent(vec![refused(), Ok(7)]).await;
        assert!(matches!(answer, Err(BackendError::NotApplied(_))), "{answer:?}");
        assert_eq!(guards.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_store_knows_ends_the_attempts() {
        let lost_for_good = BackendError::answer_lost("denied");
        for error in [
            BackendError::NotJoined,
            BackendError::Forgotten,
            BackendError::Replaced,
            lost_for_good,
        ] {
            let (answer, guards) = sent(vec![lost(), Err(error.clone()), Ok(7)]).await;
            assert_eq!(answer.unwrap_err().to_string(), error.to_string());
            assert_eq!(guards.len(), 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_after_the_deadline() {
        let request = |_| async { panic!("sent") };
        let late = Instant::now();
        let answer = Sender::default().send(|| "p".into(), late, request).await;
        let answer: Result<u32, _> = answer;
        assert!(matches!(answer, Err(BackendError::NotApplied(_))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_unknown_after_the_deadline() {
        let began = Instant::now();
        for answers in [vec![lost(); 100], vec![lost(), refused()], Vec::new()] {
            let (answer, _) = sent(answers).await;
            assert!(answer.unwrap_err().may_have_happened());
        }
        assert!(began.elapsed() <= Duration::from_secs(15));
    }
}
