//! One request, sent again until it is answered.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    backend::{
        BackendError, ReplayGuard,
        lanes::{Acknowledged, Lanes},
        progress::Progress,
    },
    backoff::doubling,
    counted::counted,
};

/// The lanes of a store's strict counters.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    lanes: Lanes,
}

/// Why a request whose answer was lost counts as unknown.
#[derive(Debug, thiserror::Error)]
#[error("no answer came in time, in {}", counted(*attempts, "attempt"))]
struct Unanswered {
    attempts: u32,
    #[source]
    last: Option<BackendError>,
}

/// The answer to a request, and what was acknowledged in its lane before it.
#[derive(Debug)]
pub(crate) struct Answered<T> {
    pub(crate) answer: T,
    #[cfg_attr(
        not(feature = "counter"),
        allow(dead_code, reason = "instances find losses by their version")
    )]
    pub(crate) before: Option<Acknowledged>,
}

impl Sender {
    /// Sends `request` under the guard of a lane until it is answered: the store applies it once, and answers every
    /// attempt as the first one. After the `deadline` its outcome is unknown, and it is applied once at most; unless it
    /// still waits for a connection then, which is no attempt.
    ///
    /// Cancel safe: a request that is dropped is applied once at most.
    pub(crate) async fn send<T, F>(
        &self,
        fresh_id: impl FnOnce() -> Arc<str>,
        deadline: Instant,
        request: impl Fn(ReplayGuard) -> F,
    ) -> Result<Answered<T>, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        if Instant::now() >= deadline {
            return Err(too_late());
        }
        let mut ticket = self.lanes.take(fresh_id);
        let lane = ticket.guard();
        let request = |resent| request(ReplayGuard { resent, ..lane.clone() });
        let (answer, sent) = until_answered(deadline, request).await?;
        Ok(Answered { answer, before: ticket.acknowledge(sent) })
    }
}

fn too_late() -> BackendError {
    BackendError::not_applied("it was not sent in time")
}

/// Sends a request that is idempotent, whoever sends it, until it is answered: as [`Sender::send`] does, without a
/// lane. `request` is told whether an earlier attempt may have arrived.
#[cfg(feature = "counter")]
pub(crate) async fn send_again<T, F>(
    deadline: Instant,
    request: impl Fn(bool) -> F,
) -> Result<T, BackendError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    if Instant::now() >= deadline {
        return Err(too_late());
    }
    until_answered(deadline, request).await.map(|(answer, _)| answer)
}

/// Gives the answer, and when the attempt was sent that got it.
async fn until_answered<T, F>(
    deadline: Instant,
    request: impl Fn(bool) -> F,
) -> Result<(T, Instant), BackendError>
where
    F: Future<Output = Result<T, BackendError>>,
{
    let mut delays = doubling(FIRST_DELAY, LONGEST_DELAY);
    let (mut attempts, mut resent, mut last) = (0, false, None);
    loop {
        attempts += 1;
        let sent = Instant::now();
        let progress = Progress::current();
        match timeout_at(deadline, progress.of(request(resent))).await {
            Ok(Ok(answer)) => return Ok((answer, sent)),
            Ok(Err(error)) if ends(&error, resent) => return Err(error),
            Ok(Err(error)) => last = Some(error),
            Err(_) if !resent && progress.is_waiting() => {
                return Err(BackendError::not_applied("there was no connection in time"));
            }
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
        // Told of a request that is not in the records, and of every later attempt alike.
        | BackendError::WindowClosed
        | BackendError::WindowLost
        | BackendError::AnswerLost(_) => true,
        error => !resent && !error.may_have_happened(),
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use parking_lot::Mutex;

    use super::*;
    use crate::backend::progress::said;

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
        let answer = answer.map(|answered| answered.answer);
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
    async fn what_waits_for_a_connection_until_the_deadline_was_not_sent() {
        let send =
            async |request: fn(ReplayGuard) -> BoxFuture<'static, Result<u32, BackendError>>| {
                let deadline = Instant::now() + Duration::from_secs(5);
                Sender::default().send(|| "p".into(), deadline, request).await.unwrap_err()
            };
        let waits = |_| -> BoxFuture<'_, _> {
            Box::pin(async {
                said::waits();
                std::future::pending().await
            })
        };
        let error = send(waits).await;
        assert!(matches!(error, BackendError::NotApplied(_)), "{error:?}");
        let sent = |_| -> BoxFuture<'_, _> {
            Box::pin(async {
                said::waits();
                said::is_sent();
                // For the next command of the same request.
                said::waits();
                std::future::pending().await
            })
        };
        let error = send(sent).await;
        assert!(matches!(error, BackendError::OutcomeUnknown(_)), "{error:?}");
        // The answer of an earlier attempt was lost.
        let resent = |lane: ReplayGuard| -> BoxFuture<'_, _> {
            Box::pin(async move {
                said::waits();
                if lane.resent { std::future::pending().await } else { lost() }
            })
        };
        let error = send(resent).await;
        assert!(matches!(error, BackendError::OutcomeUnknown(_)), "{error:?}");
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
        let answer: Result<Answered<u32>, _> = answer;
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
