//! Responses in Vault's format: the data envelope, and `errors` bodies with statuses that tell
//! clients whether to retry.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, LINK, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use secret_persistence::{Error, ErrorKind};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::{BodyError, ProblemKind};
use crate::tokens::Refusal;

/// An error of the KV API.
#[derive(Clone, Debug)]
pub(crate) struct KvError {
    kind: ProblemKind,
    status: StatusCode,
    errors: Vec<String>,
    retry_after: Option<u64>,
    /// In place of `errors`, for a deleted version.
    data: Option<Value>,
}

impl KvError {
    pub(crate) fn new(kind: ProblemKind, error: impl Into<String>) -> Self {
        // Vault's statuses where they differ from those of the connector API.
        let status = match kind.status() {
            StatusCode::BAD_GATEWAY => StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::UNAUTHORIZED => StatusCode::FORBIDDEN,
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                StatusCode::BAD_REQUEST
            }
            status => status,
        };
        Self {
            kind,
            status,
            errors: vec![error.into()],
            retry_after: None,
            data: None,
        }
    }

    /// For missing names, and for names that a token may not see: Vault returns nothing else.
    pub(crate) fn not_found() -> Self {
        Self {
            errors: Vec::new(),
            ..Self::new(ProblemKind::NotFound, "")
        }
    }

    /// A member of the body, or a parameter, that cannot be taken as it is.
    pub(crate) fn invalid(error: impl Into<String>) -> Self {
        Self::new(ProblemKind::InvalidField, error)
    }

    /// The response for a deleted version: 404 with its metadata.
    pub(crate) fn deleted(data: Value) -> Self {
        Self {
            data: Some(data),
            ..Self::not_found()
        }
    }

    pub(crate) fn denied() -> Self {
        Self::new(ProblemKind::MissingRole, "permission denied")
    }

    pub(crate) fn unsupported() -> Self {
        Self::new(ProblemKind::MethodNotAllowed, "unsupported operation")
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
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
        // Vault's body has no place for a kind.
        let kind = format!("<{}>; rel=\"type\"", self.kind.urn());
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            response.headers_mut().insert(LINK, kind);
        }
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
        let (kind, status) = match error.kind() {
            ErrorKind::NotFound | ErrorKind::PendingDeletion => return Self::not_found(),
            ErrorKind::AlreadyExists => (ProblemKind::ValueExists, None),
            ErrorKind::InvalidCoordinate => (ProblemKind::NameNotManaged, None),
            ErrorKind::InvalidValue => (ProblemKind::ValueRefused, None),
            ErrorKind::Unsupported => (ProblemKind::Unsupported, None),
            ErrorKind::PayloadTooLarge => (
                ProblemKind::ValueRefused,
                Some(StatusCode::PAYLOAD_TOO_LARGE),
            ),
            ErrorKind::PermissionDenied => (ProblemKind::StoreFailed, Some(StatusCode::FORBIDDEN)),
            ErrorKind::Throttled => (ProblemKind::StoreThrottled, None),
            // The response of a sealed Vault: clients retry.
            ErrorKind::Conflict | ErrorKind::Unavailable => (ProblemKind::StoreUnavailable, None),
            _ => (ProblemKind::StoreFailed, None),
        };
        let failed = Self {
            retry_after: crate::server::retry_after(&error),
            ..Self::new(kind, error.to_string())
        };
        match status {
            Some(status) => failed.with_status(status),
            None => failed,
        }
    }
}

impl From<Refusal> for KvError {
    fn from(refusal: Refusal) -> Self {
        let refused = Self::new(refusal.into(), refusal.to_string());
        match refusal {
            Refusal::Unavailable => refused.with_retry_after(5),
            Refusal::Ambiguous => refused,
            // Vault returns nothing else for an unknown token.
            _ => Self {
                errors: vec!["permission denied".to_owned(), refusal.to_string()],
                ..refused
            },
        }
    }
}

impl From<BodyError> for KvError {
    fn from(error: BodyError) -> Self {
        let failed = Self::new(error.kind(), error.detail());
        match error.retry_after() {
            Some(seconds) => failed.with_retry_after(seconds),
            None => failed,
        }
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
