//! The OpenAPI document of the connector API.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::gateway::Gateway;

pub(super) async fn document(State(gateway): State<Gateway>) -> impl IntoResponse {
    let limits = gateway.settings().limits;
    let text = include_str!("openapi.json")
        .replace("{max-body-bytes}", &limits.body_bytes.to_string())
        .replace("{depth}", &limits.depth.to_string())
        .replace(
            "{request-timeout-seconds}",
            &limits.timeout.as_secs().to_string(),
        )
        .replace("{concurrency}", &limits.concurrency.to_string());
    ([(CONTENT_TYPE, "application/json")], text)
}
