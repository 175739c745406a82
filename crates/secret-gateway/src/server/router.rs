//! All routes, and the layers around them.

use axum::Router;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderName, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;

use super::kind::ProblemKind;
use super::problem::Problem;
use super::{access, guards};
use crate::gateway::Gateway;
use crate::{connector, health, kv, page};

/// The gateway as a service: both APIs, health, metrics, the page.
pub fn router(gateway: Gateway) -> Router {
    let secret = [AUTHORIZATION, HeaderName::from_static("x-vault-token")];
    Router::new()
        .merge(connector::routes())
        .merge(kv::routes(&gateway.settings().kv))
        .merge(health::routes())
        .merge(page::routes())
        .fallback(nothing)
        // From the inside out.
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(gateway.clone(), guards::limits))
        .layer(from_fn_with_state(gateway.clone(), guards::hosts))
        .layer(from_fn_with_state(gateway.clone(), guards::headers))
        .layer(from_fn(access::log))
        .layer(SetSensitiveRequestHeadersLayer::new(secret))
        .with_state(gateway)
}

async fn nothing() -> StatusCode {
    StatusCode::NOT_FOUND
}

/// The response omits the panic's message, which may quote its input.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!(target: "secret_gateway", "a request panicked");
    Problem::new(
        ProblemKind::Internal,
        "the gateway failed; its log says more",
    )
    .into_response()
}
