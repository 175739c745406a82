//! One line of log and a measurement for every request: who asked for what, never what was said.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

const REQUEST_ID: &str = "x-request-id";

/// Where the extractor of callers leaves the name for the line of log.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallerName(Arc<OnceLock<String>>);

impl CallerName {
    pub(crate) fn set(&self, name: &str) {
        // The first one to say who calls is the one that decided.
        let _ = self.0.set(name.to_owned());
    }
}

/// The caller's id of the request where it is short and plain, else one of our own.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    headers
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(plain)
        .map_or_else(|| Uuid::new_v4().to_string(), ToOwned::to_owned)
}

/// Logs and measures a request. Its path is shown as the route's pattern: names stand in audit events,
/// and what nobody serves may be anything.
pub(super) async fn log(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let name = CallerName::default();
    request.extensions_mut().insert(name.clone());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", |path| path.as_str())
        .to_owned();
    let id = request_id(request.headers());
    let mut response = next.run(request).await;
    let (status, took) = (response.status(), began.elapsed());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let caller = name.0.get().map(String::as_str);
    // Others than the known methods would make as many series as somebody likes to invent.
    let method = match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "LIST" | "OPTIONS") => {
            known.to_owned()
        }
        _ => "other".to_owned(),
    };
    metrics::counter!(
        "secret_gateway_requests_total",
        "route" => route.clone(), "method" => method.clone(), "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("secret_gateway_request_seconds", "route" => route.clone())
        .record(took.as_secs_f64());
    tracing::info!(
        target: "secret_gateway::access",
        request = id,
        caller,
        method,
        route,
        status = status.as_u16(),
        milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "request"
    );
    response
}
