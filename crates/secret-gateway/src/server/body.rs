//! Request bodies: limited in size, time and depth before parsing, wiped afterwards.

use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::FromRequest;
use axum::extract::Request as HttpRequest;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use secret_persistence::connector::{SecretJson, json_depth};
use serde::Deserialize as _;
use serde_json::Value;
use zeroize::Zeroizing;

use super::fields::{Fields, Request};
use super::kind::ProblemKind;
use super::problem::Problem;
use super::turns::while_arriving;
use crate::digests::Digests;
use crate::gateway::Gateway;
use crate::settings::Limits;

/// How long a body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a body is refused, without its contents.
#[derive(Clone, Debug)]
pub(crate) enum BodyError {
    Aborted,
    /// As many bodies are arriving as may.
    Busy(usize),
    NotJson,
    TooDeep(usize),
    TooLarge(usize),
    TooSlow,
    WrongContentType,
}

impl BodyError {
    pub(crate) fn kind(&self) -> ProblemKind {
        match self {
            Self::Aborted => ProblemKind::BodyAborted,
            Self::Busy(_) => ProblemKind::Busy,
            Self::NotJson => ProblemKind::BodyNotJson,
            Self::TooDeep(_) => ProblemKind::BodyTooDeep,
            Self::TooLarge(_) => ProblemKind::BodyTooLarge,
            Self::TooSlow => ProblemKind::BodyTooSlow,
            Self::WrongContentType => ProblemKind::WrongContentType,
        }
    }

    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Aborted => "the body ended early".to_owned(),
            Self::Busy(limit) => {
                format!(
                    "the gateway is at its limit of {limit} bodies that arrive at once; try again"
                )
            }
            Self::NotJson => "the body is not JSON".to_owned(),
            Self::TooDeep(limit) => {
                format!("the body has more than {limit} levels of objects and arrays")
            }
            Self::TooLarge(limit) => format!("the body has more than {limit} bytes"),
            Self::TooSlow => {
                let most = BODY_TIMEOUT.as_secs();
                format!("the body took longer than {most} seconds to arrive")
            }
            Self::WrongContentType => "the content type must be application/json".to_owned(),
        }
    }

    /// The wait before a retry in seconds; `None` if a retry does not help.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        matches!(self, Self::Busy(_)).then_some(1)
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let problem = Self::new(error.kind(), error.detail());
        let problem = match error.retry_after() {
            Some(seconds) => problem.with_retry_after(seconds),
            None => problem,
        };
        match error {
            BodyError::Busy(limit) | BodyError::TooDeep(limit) | BodyError::TooLarge(limit) => {
                problem.with_limit(limit as u64)
            }
            BodyError::TooSlow => problem.with_limit(BODY_TIMEOUT.as_secs()),
            _ => problem,
        }
    }
}

/// Reads a body as JSON. It may contain secrets, so the text is wiped, and the value when it is
/// dropped.
pub(crate) async fn read_json(
    parts: &Parts,
    body: HttpBody,
    limits: Limits,
) -> Result<SecretJson, BodyError> {
    let text = read(parts, body, limits.body_bytes).await?;
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

/// Reads a body that arrives in time, and counts those that do not as shed.
async fn read(parts: &Parts, body: HttpBody, most: usize) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let length = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(BodyError::TooLarge(most));
    }
    let arriving = tokio::time::timeout(BODY_TIMEOUT, collect(body, length, most));
    let shed = match while_arriving(&parts.extensions, arriving).await {
        Ok(Ok(read)) => return read,
        Ok(Err(_)) => BodyError::TooSlow,
        Err(full) => BodyError::Busy(full.limit),
    };
    metrics::counter!("secret_gateway_shed_requests_total", "reason" => shed.kind().as_str())
        .increment(1);
    Err(shed)
}

async fn collect(
    mut body: HttpBody,
    length: Option<usize>,
    most: usize,
) -> Result<Zeroizing<Vec<u8>>, BodyError> {
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

/// The body of a request, whose members are parsed after the caller's role is known.
pub(crate) struct Body<T> {
    fields: Fields,
    request: PhantomData<T>,
}

impl<T: Request> Body<T> {
    /// The digest of the whole body, with a key.
    pub(crate) fn digest(&self, digests: &Digests, purpose: &str) -> String {
        self.fields.digest(digests, purpose)
    }

    /// Parses the members.
    pub(crate) fn parse(self) -> Result<T, Problem> {
        T::take(self.fields)
    }
}

impl<T: Request> FromRequest<Gateway> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: HttpRequest, gateway: &Gateway) -> Result<Self, Response> {
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
            let value = read_json(&parts, body, gateway.settings().limits).await?;
            Fields::of(value)
        };
        let fields = read.await.map_err(Problem::into_response)?;
        Ok(Self {
            fields,
            request: PhantomData,
        })
    }
}
