//! The routes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    connections::{Connections, Held, Open},
    error::ApiError,
    history::{History, Sample},
    member::Member,
    stats,
    watcher::WINDOW,
};

/// What the handlers share.
pub(crate) struct App {
    pub(crate) member: Arc<Member>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) history: watch::Receiver<History>,
    /// True once this process is shutting down.
    pub(crate) stopping: watch::Receiver<bool>,
    /// The store, as it may be shown.
    pub(crate) store: String,
    pub(crate) poll: Duration,
}

/// How many simulated connections a request opens or closes.
#[derive(Debug, Deserialize)]
struct Number {
    #[serde(default = "one")]
    n: u32,
}

fn one() -> u32 {
    1
}

/// The most that one request opens.
const MOST_AT_ONCE: u32 = 10_000;

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { page(HTML, include_str!("page/index.html")) }))
        .route("/page.css", get(|| async { page(CSS, include_str!("page/page.css")) }))
        .route("/page.js", get(|| async { page(JS, include_str!("page/page.js")) }))
        .route("/chart.js", get(|| async { page(JS, include_str!("page/chart.js")) }))
        .route("/events", get(events))
        .route("/connections", get(held).post(open).delete(close))
        .route("/stats", get(stats))
        .route("/healthz", get(healthz))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "no such page") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .with_state(app)
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// A part of the page. It loads nothing from other hosts, and no other site may frame it.
fn page(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Another version of the program may serve the next request.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

/// What an event stream sends.
#[derive(Serialize)]
struct Update<'a> {
    /// In the first message only: which process serves. Its samples replace all that the page has.
    #[serde(skip_serializing_if = "Option::is_none")]
    about: Option<Value>,
    samples: Vec<&'a Sample>,
}

/// The state of a viewer's stream. The viewer is counted until this is dropped.
struct Viewer {
    _open: Open,
    history: watch::Receiver<History>,
    stopping: watch::Receiver<bool>,
    about: Option<Value>,
    next: u64,
}

/// The history, then each poll, as server-sent events. Ends when this process shuts down.
async fn events(
    State(app): State<Arc<App>>,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, ApiError> {
    let viewer = Viewer {
        _open: app.connections.open()?,
        history: app.history.clone(),
        stopping: app.stopping.clone(),
        about: Some(app.about()),
        next: 0,
    };
    let updates = stream::unfold(viewer, |mut viewer| async {
        if viewer.about.is_none() {
            // An error means that the sender was dropped: the process is shutting down, too.
            tokio::select! {
                biased;
                _ = viewer.stopping.wait_for(|stop| *stop) => return None,
                changed = viewer.history.changed() => changed.ok()?,
            }
        }
        let about = viewer.about.take();
        let (samples, next) = viewer.history.borrow_and_update().since(viewer.next);
        viewer.next = next;
        let update = Update { about, samples: samples.iter().map(|sample| &**sample).collect() };
        Some((Event::default().json_data(update), viewer))
    });
    Ok(Sse::new(updates).keep_alive(KeepAlive::default()))
}

async fn held(State(app): State<Arc<App>>) -> Json<Held> {
    Json(app.connections.held())
}

async fn open(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    number: Result<Query<Number>, QueryRejection>,
) -> Result<Json<Held>, ApiError> {
    refuse_other_sites(&headers)?;
    let Query(Number { n }) = number?;
    if !(1..=MOST_AT_ONCE).contains(&n) {
        let text = format!("n is {n}, and must be from 1 to {MOST_AT_ONCE}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, text));
    }
    Ok(Json(app.connections.simulate(n)?))
}

async fn close(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    number: Result<Query<Number>, QueryRejection>,
) -> Result<Json<Held>, ApiError> {
    refuse_other_sites(&headers)?;
    let Query(Number { n }) = number?;
    Ok(Json(app.connections.close_simulated(n)?))
}

/// Refuses requests that a page of another site makes a browser send.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), ApiError> {
    let allowed = ["same-origin", "none"].map(HeaderValue::from_static);
    match headers.get("sec-fetch-site") {
        Some(site) if !allowed.contains(site) => {
            Err(ApiError::new(StatusCode::FORBIDDEN, "another site may not change this one"))
        }
        _ => Ok(()),
    }
}

/// This process, what the last poll found, and the numbers of its counters. No I/O.
async fn stats(State(app): State<Arc<App>>) -> Json<Value> {
    let latest = app.history.borrow().latest().cloned();
    Json(json!({
        "about": app.about(),
        "held": app.connections.held(),
        "latest": latest.as_deref(),
        "stats": stats::json(&app.member.stats()),
    }))
}

/// Whether this process should get requests: the store answers, and it is not shutting down. No I/O.
async fn healthz(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let unavailable = |text| Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text));
    if *app.stopping.borrow() {
        return unavailable("shutting down".to_owned());
    }
    match app.member.stats().unreachable_for {
        Some(since) => {
            unavailable(format!("the store has not answered for {} ms", since.as_millis()))
        }
        None => Ok(Json(json!({ "status": "ok" }))),
    }
}

impl App {
    fn about(&self) -> Value {
        let identity = self.member.identity();
        json!({
            "name": identity.name.as_str(),
            "id": self.member.id(),
            "prefix": identity.prefix.as_str(),
            "store": self.store,
            "lease_ms": stats::ms(identity.lease),
            "poll_ms": stats::ms(self.poll),
            "window_ms": stats::ms(WINDOW),
        })
    }
}
