#[path = "plain.rs"]
pub(crate) mod lax;
