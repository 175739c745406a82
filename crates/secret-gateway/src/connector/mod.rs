//! The connector API, under `/api/v1`: changes, full configurations, presentable ones, stores.

mod changes;
mod document;
mod ending;
mod hydrate;
mod present;
mod request;
mod sight;
mod stores;

use axum::Router;
use axum::routing::{get, post};

use crate::gateway::Gateway;

pub use ending::heal;

pub(crate) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/api/v1/changes", get(changes::list).post(changes::create))
        .route("/api/v1/changes/{id}", get(changes::show))
        .route("/api/v1/changes/{id}/commit", post(ending::commit))
        .route("/api/v1/changes/{id}/abort", post(ending::abort))
        .route("/api/v1/changes/{id}/settle", post(ending::settle))
        .route("/api/v1/hydrate", post(hydrate::hydrate))
        .route("/api/v1/mask", post(present::mask))
        .route("/api/v1/scrub", post(present::scrubbed))
        .route("/api/v1/places", post(present::places))
        .route("/api/v1/stores", get(stores::list))
        .route("/api/v1/stores/{id}/check", post(stores::check))
        .route("/api/v1/openapi.json", get(document::document))
        .route("/api/v1/status", get(stores::status))
}
