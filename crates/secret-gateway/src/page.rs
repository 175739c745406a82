//! The page at `/` for operators. Its assets are in the binary; its data comes from `/api/v1` with
//! a token that stays in the page's memory.

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::gateway::Gateway;

/// The page may only run its own script, use its own style and call its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route(
            "/",
            get(|| asset("text/html; charset=utf-8", include_str!("page/index.html"))),
        )
        .route(
            "/page.js",
            get(|| {
                asset(
                    "text/javascript; charset=utf-8",
                    include_str!("page/page.js"),
                )
            }),
        )
        .route(
            "/page.css",
            get(|| asset("text/css; charset=utf-8", include_str!("page/page.css"))),
        )
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)],
        text,
    )
}
