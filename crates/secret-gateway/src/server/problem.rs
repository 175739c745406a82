//! Errors as `application/problem+json` (RFC 9457): a stable kind, never a value.

use axum::Json;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use schemars::JsonSchema;
use secret_persistence::connector::{self, ConnectorError};
use secret_persistence::{Error, ErrorKind};
use serde::{Serialize, Serializer};

use super::kind::ProblemKind;
use crate::outbox::OutboxError;
use crate::tokens::{Refusal, Role};

/// The maximum number of a configuration's problems in a response.
pub(crate) const SHOWN: usize = 100;

/// An error of the connector API, and of everything outside the KV API.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ProblemKind,
    detail: String,
    members: Members,
    retry_after: Option<u64>,
}

/// An error, in a response.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemDocument {
    #[schemars(extend("format" = "uri"))]
    r#type: String,
    title: String,
    status: u16,
    /// Stable; `type` is `urn:secret-gateway:problem:` and the kind.
    #[serde(serialize_with = "name")]
    kind: ProblemKind,
    detail: String,
    #[serde(flatten)]
    members: Members,
}

fn name<S: Serializer>(kind: &ProblemKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

/// The members that only some kinds of problems have.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Members {
    /// The limit that the request exceeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    pub(crate) limit: Option<u64>,
    /// The field, parameter or header that is invalid or missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) field: Option<String>,
    /// Unknown fields or parameters, at most ten.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    pub(crate) fields: Option<Vec<String>>,
    /// The role that the token does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) role: Option<&'static str>,
    /// How the change ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) state: Option<&'static str>,
    /// The store that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) store: Option<String>,
    /// The kind of the store's error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) error: Option<&'static str>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) hint: Option<String>,
    /// The places of the configuration or specification that are at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<PlaceProblem>", length(max = SHOWN))]
    pub(crate) problems: Option<Vec<PlaceProblem>>,
}

/// One place of a configuration or specification, and what is wrong with it.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct PlaceProblem {
    /// A JSON Pointer.
    pub(crate) place: String,
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) detail: Option<String>,
    /// The name of the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) coordinate: Option<String>,
    /// The kind of the store's error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) error: Option<&'static str>,
    /// The store that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) store: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub(crate) hint: Option<String>,
}

impl Problem {
    /// A problem of a kind, with a sentence for people.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            detail: detail.into(),
            members: Members::default(),
            retry_after: None,
        }))
    }

    /// Sets members.
    #[must_use]
    pub(crate) fn with(mut self, set: impl FnOnce(&mut Members)) -> Self {
        set(&mut self.0.members);
        self
    }

    /// Names the field, parameter or header.
    #[must_use]
    pub(crate) fn with_field(self, field: &str) -> Self {
        self.with(|members| members.field = Some(field.to_owned()))
    }

    /// Says the limit that the request exceeds.
    #[must_use]
    pub(crate) fn with_limit(self, limit: u64) -> Self {
        self.with(|members| members.limit = Some(limit))
    }

    /// Names the places at fault.
    #[must_use]
    pub(crate) fn with_problems(self, problems: Vec<PlaceProblem>) -> Self {
        self.with(|members| members.problems = Some(problems))
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
        .with(|members| members.role = Some(role.as_str()))
    }

    /// The document of a problem, in a response or in a part of one.
    pub(crate) fn document(&self) -> ProblemDocument {
        ProblemDocument {
            r#type: self.0.kind.urn(),
            title: self.0.kind.title(),
            status: self.status().as_u16(),
            kind: self.0.kind,
            detail: self.0.detail.clone(),
            members: self.0.members.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut response = Json(self.document()).into_response();
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
            Refusal::Ambiguous => Self::TokenAmbiguous,
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
        let problem = Self::new(kind, error.to_string()).with(|members| {
            members.error = Some(error.kind().as_str());
            members.store = error.store().map(str::to_owned);
            members.hint = error.hint().map(str::to_owned);
        });
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
        let shown = problems.iter().take(SHOWN).map(shown).collect();
        let detail = match problems.len() {
            1 => "one place of the configuration is refused".to_owned(),
            count => format!("{count} places of the configuration are refused"),
        };
        let problem = Self::new(kind, detail).with_problems(shown);
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
fn shown(problem: &connector::Problem) -> PlaceProblem {
    let error = problem.error();
    PlaceProblem {
        place: problem.place().as_str().to_owned(),
        kind: problem.kind().as_str(),
        detail: Some(problem.message().to_owned()),
        coordinate: problem.coordinate().map(str::to_owned),
        error: error.map(|error| error.kind().as_str()),
        store: error.and_then(Error::store).map(str::to_owned),
        hint: error.and_then(Error::hint).map(str::to_owned),
    }
}
