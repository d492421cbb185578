#[path = "plain.rs"]
pub(crate) mod lax;

mod counter_trait {
    use crate::{DistkitError, backend::BackendError};

    pub(crate) fn miscounted(asked: usize, given: usize) -> DistkitError {
        BackendError::outcome_unknown(format!("{given} answers to {asked} questions")).into()
    }
}
