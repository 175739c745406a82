//! One log line and one measurement per request: the caller and the route, never the contents.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;
use tracing::field::Empty;
use uuid::Uuid;

const REQUEST_ID: &str = "x-request-id";

/// The target of a request's span, for traces. It says what the line of the log says.
pub const REQUEST_SPAN: &str = "secret_gateway::request";

/// The extractor of callers stores the name here for the log line.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallerName(Arc<OnceLock<String>>);

impl CallerName {
    pub(crate) fn set(&self, name: &str) {
        // The first name is the one that authorised the request.
        let _ = self.0.set(name.to_owned());
    }

    pub(super) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// The id of a request, for its audit events.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// The caller's request id if it is short and printable, otherwise a new one.
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

/// Logs and measures a request. Shows the route's pattern instead of the path, because names belong
/// in audit events only, and an unknown path may contain anything.
pub(super) async fn log(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let name = CallerName::default();
    request.extensions_mut().insert(name.clone());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", |path| path.as_str())
        .to_owned();
    let id = request_id(request.headers());
    request
        .extensions_mut()
        .insert(RequestId(id.as_str().into()));
    // Unknown methods would create any number of time series.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "LIST" | "OPTIONS") => {
            known.to_owned()
        }
        _ => "other".to_owned(),
    };
    let span = tracing::info_span!(
        target: REQUEST_SPAN,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        http.route = route,
        caller = Empty,
        request = id,
    );
    #[cfg(feature = "otlp")]
    join_trace(&span, request.headers());
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, took) = (response.status(), began.elapsed());
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let caller = name.get();
    if let Some(caller) = caller {
        span.record("caller", caller);
    }
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

/// Makes the span part of the caller's trace, which `traceparent` names.
#[cfg(feature = "otlp")]
fn join_trace(span: &tracing::Span, headers: &HeaderMap) {
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let caller = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract(&opentelemetry_http::HeaderExtractor(headers))
    });
    // It fails where nothing traces.
    let _ = span.set_parent(caller);
}
