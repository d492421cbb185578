//! The layer that measures requests for the `metrics` facade.

use std::future::Future;

use tokio::time::Instant;

use super::{Around, BackendError, Op};

pub(crate) const SECONDS: &str = "distkit_store_request_seconds";
pub(crate) const ITEMS: &str = "distkit_store_request_items";

/// The names of the histograms, and what they say.
pub(crate) const LIST: [(&str, &str); 2] = [
    (SECONDS, "How long a request to the store took, by its kind and outcome."),
    (ITEMS, "How many keys a request named, by its kind and outcome."),
];

/// An [`Around`] that measures each request: how long it took, how many keys it named, and what became of it, as
/// histograms of the `metrics` facade. Put it around a store with [`Layered`](super::Layered).
///
/// `distkit_store_request_seconds` and `distkit_store_request_items` have the labels `prefix`, `op` (the method of
/// the contract, as [`Op::name`] gives it) and `outcome`: `ok`, `not_applied`, `unknown`, `answer_lost`, `corrupt`,
/// `shape_mismatch`, `forgotten`, `not_joined`, `replaced`, `not_current`, `window_closed`, `window_lost`, or `cancelled` for a
/// request whose caller did not wait.
/// No label is about a key.
///
/// ```
/// use std::sync::Arc;
///
/// use distkit::{
///     RedisKey,
///     backend::{Layered, MetricsLayer, memory::MemoryBackend},
///     counter::{CounterOptions, StrictCounter},
/// };
///
/// let store = Layered::new(Arc::new(MemoryBackend::new()), MetricsLayer::new());
/// let counter = StrictCounter::new(CounterOptions::new(RedisKey::try_from("shop")?, store));
/// # Ok::<(), distkit::DistkitError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct MetricsLayer(());

impl MetricsLayer {
    /// Creates a layer that measures. The recorder is the one that is installed at the time of a request.
    pub fn new() -> Self {
        Self(())
    }
}

impl Around for MetricsLayer {
    async fn around<T: Send>(
        &self,
        op: Op<'_>,
        call: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        let mut request = Request { op, began: Instant::now(), outcome: "cancelled" };
        let answer = call.await;
        request.outcome = match &answer {
            Ok(_) => "ok",
            Err(error) => outcome(error),
        };
        answer
    }
}

fn outcome(error: &BackendError) -> &'static str {
    match error {
        BackendError::NotApplied(_) => "not_applied",
        BackendError::OutcomeUnknown(_) => "unknown",
        BackendError::AnswerLost(_) => "answer_lost",
        BackendError::Corrupt(_) => "corrupt",
        BackendError::ShapeMismatch { .. } => "shape_mismatch",
        BackendError::Forgotten => "forgotten",
        BackendError::NotJoined => "not_joined",
        BackendError::Replaced => "replaced",
        BackendError::NotCurrent { .. } => "not_current",
        BackendError::WindowClosed => "window_closed",
        BackendError::WindowLost => "window_lost",
    }
}

/// A request on its way. Measured when it ends, be it that its caller is dropped.
struct Request<'a> {
    op: Op<'a>,
    began: Instant,
    outcome: &'static str,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let labels = vec![
            metrics::Label::from_static_parts("op", self.op.name()),
            metrics::Label::from_static_parts("outcome", self.outcome),
            metrics::Label::new("prefix", self.op.space().prefix().to_string()),
        ];
        #[expect(clippy::cast_precision_loss, reason = "a histogram takes floats")]
        let items = self.op.items() as f64;
        metrics::histogram!(SECONDS, labels.clone()).record(self.began.elapsed());
        metrics::histogram!(ITEMS, labels).record(items);
    }
}
