//! Errors as `application/problem+json` (RFC 9457): a stable kind, never a value.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use secret_persistence::connector::{self, ConnectorError};
use secret_persistence::{Error, ErrorKind};
use serde_json::{Map, Value, json};

use super::kind::ProblemKind;
use crate::outbox::OutboxError;
use crate::tokens::{Refusal, Role};

/// The maximum number of a configuration's problems in a response.
const SHOWN: usize = 100;

/// An error of the connector API, and of everything outside the KV API.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ProblemKind,
    detail: String,
    more: Map<String, Value>,
    retry_after: Option<u64>,
}

impl Problem {
    /// A problem of a kind, with a sentence for people.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            detail: detail.into(),
            more: Map::new(),
            retry_after: None,
        }))
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    /// Sets when to retry.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.kind.status()
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.0.kind
    }

    /// Something that does not exist, or that a token may not see.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::NotFound, detail)
    }

    /// A caller without a role.
    #[must_use]
    pub fn missing_role(role: Role) -> Self {
        Self::new(
            ProblemKind::MissingRole,
            format!("the token does not have the role `{role}`"),
        )
        .with("role", role.as_str())
    }

    /// The document of a problem, in a response or in a part of one.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = json!({
            "type": self.0.kind.urn(),
            "title": self.0.kind.title(),
            "status": self.status().as_u16(),
            "kind": self.0.kind.as_str(),
            "detail": self.0.detail,
        });
        if let (Value::Object(members), more) = (&mut document, &self.0.more) {
            members.extend(more.clone());
        }
        document
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.document().to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.0.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Refusal> for ProblemKind {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Expired => Self::TokenExpired,
            Refusal::Missing => Self::TokenMissing,
            Refusal::NoGrant => Self::TokenWithoutGrant,
            Refusal::Unavailable => Self::TokensUnavailable,
            Refusal::Unknown => Self::TokenUnknown,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let problem = Self::new(ProblemKind::from(refusal), refusal.to_string());
        if refusal == Refusal::Unavailable {
            problem.with_retry_after(5)
        } else {
            problem
        }
    }
}

impl From<OutboxError> for Problem {
    fn from(error: OutboxError) -> Self {
        tracing::error!(target: "secret_gateway", %error, cause = std::error::Error::source(&error).map(tracing::field::display), "the outbox failed");
        Self::new(
            ProblemKind::OutboxUnavailable,
            "the gateway's outbox is unavailable; nothing unrecorded was begun",
        )
        .with_retry_after(5)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Throttled => ProblemKind::StoreThrottled,
            ErrorKind::Unavailable | ErrorKind::Conflict => ProblemKind::StoreUnavailable,
            // The gateway's own permissions and settings: the caller cannot correct them.
            _ => ProblemKind::StoreFailed,
        };
        let mut problem = Self::new(kind, error.to_string()).with("error", error.kind().as_str());
        if let Some(store) = error.store() {
            problem = problem.with("store", store);
        }
        if let Some(hint) = error.hint() {
            problem = problem.with("hint", hint);
        }
        match retry_after(&error) {
            Some(seconds) => problem.with_retry_after(seconds),
            None => problem,
        }
    }
}

/// The wait before a retry of a store's error in seconds; `None` if a retry does not help.
pub(crate) fn retry_after(error: &Error) -> Option<u64> {
    let asked = error
        .retry_after()
        .map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
    error
        .is_retryable()
        .then(|| asked.unwrap_or(1).clamp(1, 300))
}

impl From<ConnectorError> for Problem {
    fn from(error: ConnectorError) -> Self {
        let problems = error.problems();
        let stores: Vec<&Error> = problems
            .iter()
            .filter_map(connector::Problem::error)
            .collect();
        let is_audit =
            |problem: &connector::Problem| problem.kind() == connector::ProblemKind::AuditFailed;
        let of_stores = |problem: &connector::Problem| {
            is_audit(problem) || problem.kind() == connector::ProblemKind::Store
        };
        let all_stores =
            |test: fn(ErrorKind) -> bool| stores.iter().all(|error| test(error.kind()));
        let kind = if problems.iter().any(is_audit) {
            ProblemKind::AuditFailed
        } else if !problems.iter().all(of_stores) {
            ProblemKind::ConfigurationRefused
        } else if error.is_retryable() && all_stores(|kind| kind == ErrorKind::Throttled) {
            ProblemKind::StoreThrottled
        } else if error.is_retryable() {
            ProblemKind::StoreUnavailable
        } else if stores.iter().any(|error| gone(error.kind())) {
            ProblemKind::SecretMissing
        } else if all_stores(refused) {
            ProblemKind::ValueRefused
        } else {
            ProblemKind::StoreFailed
        };
        let wait = stores.iter().filter_map(|error| retry_after(error)).max();
        let shown: Vec<Value> = problems.iter().take(SHOWN).map(shown).collect();
        let detail = match problems.len() {
            1 => "one place of the configuration is refused".to_owned(),
            count => format!("{count} places of the configuration are refused"),
        };
        let problem = Self::new(kind, detail).with("problems", shown);
        match (kind.status(), wait) {
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, wait) => {
                problem.with_retry_after(wait.unwrap_or(1))
            }
            _ => problem,
        }
    }
}

/// Whether a secret no longer exists.
fn gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::PendingDeletion)
}

/// Whether the value is at fault, which the caller can correct.
fn refused(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidValue | ErrorKind::PayloadTooLarge | ErrorKind::InvalidCoordinate
    )
}

/// One problem of a configuration: its place, kind and coordinate.
fn shown(problem: &connector::Problem) -> Value {
    let mut shown = json!({
        "place": problem.place().as_str(),
        "kind": problem.kind().as_str(),
        "detail": problem.message(),
    });
    if let Some(coordinate) = problem.coordinate() {
        shown["coordinate"] = coordinate.into();
    }
    if let Some(error) = problem.error() {
        shown["error"] = error.kind().as_str().into();
        if let Some(store) = error.store() {
            shown["store"] = store.into();
        }
        if let Some(hint) = error.hint() {
            shown["hint"] = hint.into();
        }
    }
    shown
}
