//! Keeping what is written often away from what is read often.

/// Apart from its neighbours' cache lines.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);
