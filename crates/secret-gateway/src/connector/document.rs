//! The OpenAPI document of the connector API.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

pub(super) async fn document() -> impl IntoResponse {
    (
        [(CONTENT_TYPE, "application/json")],
        include_str!("openapi.json"),
    )
}
