//! Responses in Vault's format: the data envelope, and `errors` bodies with statuses that tell
//! clients whether to retry.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use secret_persistence::{Error, ErrorKind};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::BodyError;
use crate::tokens::Refusal;

/// An error of the KV API.
#[derive(Clone, Debug)]
pub(crate) struct KvError {
    status: StatusCode,
    errors: Vec<String>,
    retry_after: Option<u64>,
    /// In place of `errors`, for a deleted version.
    data: Option<Value>,
}

impl KvError {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            errors: vec![error.into()],
            retry_after: None,
            data: None,
        }
    }

    /// For missing names, and for names that a token may not see: Vault returns nothing else.
    pub(crate) fn not_found() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            errors: Vec::new(),
            retry_after: None,
            data: None,
        }
    }

    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// The response for a deleted version: 404 with its metadata.
    pub(crate) fn deleted(data: Value) -> Self {
        Self {
            data: Some(data),
            ..Self::not_found()
        }
    }

    pub(crate) fn denied() -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission denied")
    }

    pub(crate) fn unsupported() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "unsupported operation")
    }

    pub(crate) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for KvError {
    fn into_response(self) -> Response<Body> {
        let body = match self.data {
            Some(data) => envelope(data),
            None => json!({"errors": self.errors}),
        };
        let mut response = json_response(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Error> for KvError {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::NotFound | ErrorKind::PendingDeletion => return Self::not_found(),
            ErrorKind::AlreadyExists
            | ErrorKind::InvalidCoordinate
            | ErrorKind::InvalidValue
            | ErrorKind::Unsupported => StatusCode::BAD_REQUEST,
            ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            ErrorKind::Throttled => StatusCode::TOO_MANY_REQUESTS,
            // The response of a sealed Vault: clients retry.
            ErrorKind::Conflict | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self {
            retry_after: crate::server::retry_after(&error),
            ..Self::new(status, error.to_string())
        }
    }
}

impl From<Refusal> for KvError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unavailable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()).with_retry_after(5)
            }
            // Vault returns nothing else for an unknown token.
            _ => Self {
                errors: vec!["permission denied".to_owned(), refusal.to_string()],
                ..Self::denied()
            },
        }
    }
}

impl From<BodyError> for KvError {
    fn from(error: BodyError) -> Self {
        let status = match error {
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.detail())
    }
}

/// The envelope of every response with data.
fn envelope(data: Value) -> Value {
    json!({
        "request_id": Uuid::new_v4().to_string(),
        "lease_id": "",
        "renewable": false,
        "lease_duration": 0,
        "data": data,
        "wrap_info": null,
        "warnings": null,
        "auth": null,
        "mount_type": "kv",
    })
}

/// A response with data.
pub(super) fn data(data: Value) -> Response<Body> {
    json_response(StatusCode::OK, &envelope(data))
}

/// A response to a login.
pub(super) fn auth(auth: Value) -> Response<Body> {
    let mut body = envelope(Value::Null);
    body["auth"] = auth;
    body["mount_type"] = "token".into();
    json_response(StatusCode::OK, &body)
}

/// A response without an envelope.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response without a body.
pub(super) fn done() -> Response<Body> {
    StatusCode::NO_CONTENT.into_response()
}
