//! Connections that have gone silent, also where callers give up before the client's time-out.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A deadline as long as the time-out that began a little earlier is taken for it.
const SLACK: Duration = Duration::from_millis(100);

/// What is known of the answers on one connection.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    answers: AtomicU64,
    /// Since when commands were given up, and how many had been answered then.
    since: Mutex<Option<(Instant, u64)>>,
}

/// A command that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    at: Instant,
    /// How many had been answered before.
    answers: u64,
}

impl Silence {
    pub(crate) fn sent(&self) -> Sent {
        Sent { at: Instant::now(), answers: self.answers.load(Relaxed) }
    }

    pub(crate) fn answered(&self) {
        self.answers.fetch_add(1, Relaxed);
    }

    /// The command was given up. Whether nothing was answered for as long as `limit`.
    pub(crate) fn given_up(&self, sent: Sent, limit: Duration) -> bool {
        let answers = self.answers.load(Relaxed);
        if answers != sent.answers {
            return false;
        }
        let mut silent = self.since.lock();
        let since = silent.filter(|(_, then)| *then == answers).map(|(since, _)| since);
        let since = since.map_or(sent.at, |since| since.min(sent.at));
        *silent = Some((since, answers));
        since.elapsed() + SLACK >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn short_deadlines_add_up() {
        let silence = Silence::default();
        for seconds in 1..5 {
            let sent = silence.sent();
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(!silence.given_up(sent, LIMIT), "{seconds}");
        }
        let sent = silence.sent();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(silence.given_up(sent, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_it_also_to_another_command() {
        let silence = Silence::default();
        let sent = silence.sent();
        tokio::time::advance(4 * LIMIT).await;
        silence.answered();
        assert!(!silence.given_up(sent, LIMIT));
        let sent = silence.sent();
        tokio::time::advance(LIMIT / 2).await;
        assert!(!silence.given_up(sent, LIMIT), "what was silent before does not count");
    }
}
