//! Request bodies: limited in size and depth before parsing, wiped afterwards.

use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use secret_persistence::connector::{SecretJson, json_depth};
use serde::Deserialize as _;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::kind::ProblemKind;
use super::problem::Problem;
use crate::digests::Digests;
use crate::gateway::Gateway;
use crate::settings::Limits;

/// Why a body is refused, without its contents.
#[derive(Clone, Debug)]
pub(crate) enum BodyError {
    Aborted,
    NotJson,
    TooDeep(usize),
    TooLarge(usize),
    WrongContentType,
}

impl BodyError {
    pub(crate) fn kind(&self) -> ProblemKind {
        match self {
            Self::Aborted => ProblemKind::BodyAborted,
            Self::NotJson => ProblemKind::BodyNotJson,
            Self::TooDeep(_) => ProblemKind::BodyTooDeep,
            Self::TooLarge(_) => ProblemKind::BodyTooLarge,
            Self::WrongContentType => ProblemKind::WrongContentType,
        }
    }

    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Aborted => "the body ended early".to_owned(),
            Self::NotJson => "the body is not JSON".to_owned(),
            Self::TooDeep(limit) => {
                format!("the body has more than {limit} levels of objects and arrays")
            }
            Self::TooLarge(limit) => format!("the body has more than {limit} bytes"),
            Self::WrongContentType => "the content type must be application/json".to_owned(),
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let problem = Self::new(error.kind(), error.detail());
        match error {
            BodyError::TooDeep(limit) | BodyError::TooLarge(limit) => problem.with("limit", limit),
            _ => problem,
        }
    }
}

/// Reads a body as JSON. It may contain secrets, so the text is wiped, and the value when it is
/// dropped.
pub(crate) async fn read_json(
    headers: &HeaderMap,
    body: HttpBody,
    limits: Limits,
) -> Result<SecretJson, BodyError> {
    let text = read(headers, body, limits.body_bytes).await?;
    let text = std::str::from_utf8(&text).map_err(|_| BodyError::NotJson)?;
    // The parser recurses, so the depth is checked first.
    if json_depth(text) > limits.depth {
        return Err(BodyError::TooDeep(limits.depth));
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.disable_recursion_limit();
    let value = SecretJson::new(Value::deserialize(&mut parser).map_err(|_| BodyError::NotJson)?);
    parser.end().map_err(|_| BodyError::NotJson)?;
    Ok(value)
}

async fn read(
    headers: &HeaderMap,
    mut body: HttpBody,
    most: usize,
) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(BodyError::TooLarge(most));
    }
    // One allocation if the length is known: a growing buffer would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(length.unwrap_or(4096)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Aborted)?;
        if let Some(data) = frame.data_ref() {
            if text.len() + data.len() > most {
                return Err(BodyError::TooLarge(most));
            }
            text.extend_from_slice(data);
        }
    }
    Ok(text)
}

/// The members of a request's JSON object.
pub(crate) struct Body(pub(crate) Fields);

impl FromRequest<Gateway> for Body {
    type Rejection = Response;

    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let is_json = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok()?.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
        let read = async {
            if !is_json {
                return Err(Problem::from(BodyError::WrongContentType));
            }
            let value = read_json(&parts.headers, body, gateway.settings().limits).await?;
            Fields::of(value)
        };
        read.await.map(Self).map_err(Problem::into_response)
    }
}

/// The members of an object, taken one by one. The remaining ones are unknown, and an error.
pub(crate) struct Fields(GuardedMap);

/// Wiped when dropped, because a value may contain secrets.
struct GuardedMap(Map<String, Value>);

impl Drop for GuardedMap {
    fn drop(&mut self) {
        drop(SecretJson::new(Value::Object(std::mem::take(&mut self.0))));
    }
}

impl Fields {
    pub(crate) fn of(value: SecretJson) -> Result<Self, Problem> {
        match value.into_inner() {
            Value::Object(members) => Ok(Self(GuardedMap(members))),
            other => {
                drop(SecretJson::new(other));
                Err(invalid("body", "is not an object"))
            }
        }
    }

    /// The digest of the whole object in its current state.
    pub(crate) fn digest(&self, digests: &Digests, purpose: &str) -> String {
        digests.of_members(purpose, &self.0.0)
    }

    /// A member, `None` if it is missing.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        // Keys keep their order, so the others do not move.
        self.0.0.shift_remove(name)
    }

    /// A required member.
    pub(crate) fn require(&mut self, name: &'static str) -> Result<Value, Problem> {
        self.take(name).ok_or_else(|| missing(name))
    }

    /// A required member that must be a string.
    pub(crate) fn text(&mut self, name: &'static str) -> Result<String, Problem> {
        match self.require(name)? {
            Value::String(text) => Ok(text),
            other => {
                drop(SecretJson::new(other));
                Err(invalid(name, "is not a string"))
            }
        }
    }

    /// Fails if members remain, with their names.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let unknown: Vec<String> = self
            .0
            .0
            .keys()
            .take(10)
            .map(|name| name.chars().take(64).flat_map(char::escape_debug).collect())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::UnknownField,
            format!("unknown fields: {}", unknown.join(", ")),
        )
        .with("fields", unknown))
    }
}

/// The error for a missing member.
pub(crate) fn missing(field: &str) -> Problem {
    Problem::new(ProblemKind::MissingField, format!("`{field}` is missing")).with("field", field)
}

/// The error for a member with too many entries.
pub(crate) fn too_many(field: &str, limit: usize) -> Problem {
    invalid(field, &format!("has more than {limit} entries")).with("limit", limit)
}

/// The error for an invalid member.
pub(crate) fn invalid(field: &str, reason: &str) -> Problem {
    Problem::new(ProblemKind::InvalidField, format!("`{field}` {reason}")).with("field", field)
}
