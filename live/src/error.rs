//! The answers to requests that cannot be served.

use axum::{
    Json,
    extract::rejection::QueryRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use distkit::DistkitError;
use serde_json::json;

use crate::connections::Refused;

/// A status, and a text for `{"error": ...}`.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    text: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.text }))).into_response()
    }
}

impl From<QueryRejection> for ApiError {
    /// axum's text does not always say that the fault is in the URL, and `n` is all that a URL may have.
    fn from(rejection: QueryRejection) -> Self {
        let cause = rejection.body_text();
        let text = format!("the part of the URL after `?` may be `n=` and a whole number: {cause}");
        Self::new(rejection.status(), text)
    }
}

impl From<DistkitError> for ApiError {
    /// Nothing was counted. Another process may be able to serve the request.
    fn from(error: DistkitError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, chain(&error))
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooMany => Self::new(StatusCode::CONFLICT, refused.to_string()),
            Refused::Counter(error) => error.into(),
        }
    }
}

/// The text of an error and of all its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    std::iter::once(error.to_string())
        .chain(sources.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join(": ")
}
