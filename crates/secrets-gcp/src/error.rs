//! Maps Google's responses to errors.

mod table;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use google_cloud_gax::error::Error as SdkError;
use google_cloud_gax::error::rpc::{Code, StatusDetails};
use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_remote::{
    Failure, Hints, Nature, Provider, Row, clock_skew, identifier, retry_after,
};
use serde_json::Value;

use crate::policy::Action;
use table::TABLE;

const GOOGLE: Provider = Provider {
    name: "Google",
    rows: TABLE,
    // Google tolerates some difference and does not document how much. A synchronised clock is
    // never this wrong.
    tolerated_skew: 60,
    hints: Hints {
        answer: "try again; check endpoint-url and at proxies on the way",
        address: "check endpoint-url, and whether anything listens there",
        authority: "check whether a proxy replaces certificates, and whether its authority is among the \
                    system's",
        certificate_name: "check endpoint-url, and whether a proxy replaces certificates",
        host: "check whether the region is spelt correctly and has Secret Manager, and whether DNS works",
        network: "check the network, proxies and firewalls, and Private Google Access",
        outage: "try again; see https://status.cloud.google.com",
    },
};

/// A failed request.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) action: Action,
    pub(crate) failure: Failure,
    /// The missing permission, according to Google.
    permission: Option<String>,
}

impl Fault {
    /// Takes the codes of an SDK error, without its text, bodies and headers.
    pub(crate) fn from_sdk(action: Action, error: &SdkError) -> Self {
        let mut fault = Self::new(action, nature(action, error));
        fault.failure.status = error.http_status_code();
        let header = |name| error.http_headers()?.get(name)?.to_str().ok();
        fault.failure.retry_after = retry_after(None, header("retry-after"));
        fault.failure.skew = header("date").and_then(clock_skew);
        let details = error.status().map(|status| &status.details);
        for detail in details.into_iter().flatten() {
            match detail {
                StatusDetails::ErrorInfo(info) => {
                    let permission = info.metadata.get("permission");
                    fault.permission = permission.and_then(|text| identifier(text));
                }
                StatusDetails::RetryInfo(info) => {
                    let wait = info.retry_delay.as_ref().map(|delay| {
                        let seconds = u64::try_from(delay.seconds()).unwrap_or(0);
                        let nanos = u32::try_from(delay.nanos()).unwrap_or(0);
                        (Duration::from_secs(seconds).min(Error::LONGEST_WAIT)
                            + Duration::from_nanos(nanos.into()))
                        .min(Error::LONGEST_WAIT)
                    });
                    fault.failure.retry_after = wait.or(fault.failure.retry_after);
                }
                _ => {}
            }
        }
        fault
    }

    pub(crate) fn new(action: Action, nature: Nature) -> Self {
        Self {
            action,
            failure: nature.into(),
            permission: None,
        }
    }

    /// Whether Google returned this code.
    pub(crate) fn has(&self, code: &str) -> bool {
        self.failure.has(code)
    }

    /// Whether Google returned a code that the table maps to this kind.
    pub(crate) fn is(&self, kind: ErrorKind) -> bool {
        self.failure.row(TABLE).is_some_and(|row| row.kind == kind)
    }

    /// Whether Google refused the state of the version: disabled, destroyed, or with an unusable
    /// key.
    pub(crate) fn is_precondition(&self) -> bool {
        self.has("FAILED_PRECONDITION")
    }

    /// The error, still without operation, store and coordinate.
    ///
    /// `host` received the request; `denied` returns the advice of the policy table.
    pub(crate) fn explain(
        &self,
        host: &str,
        denied: impl FnOnce(Option<&str>) -> (String, String),
    ) -> Error {
        let special = |row: Option<&Row>| {
            let row = row?;
            if row.is_denial() {
                let (message, hint) = denied(self.permission.as_deref());
                return Some(Error::new(row.kind, message).with_hint(hint));
            }
            self.explain_action(row)
        };
        self.failure
            .explain(&GOOGLE, host, special)
            .with_source(self.clone())
    }

    /// The meaning of a code that depends on the request.
    fn explain_action(&self, row: &Row) -> Option<Error> {
        let (kind, message, hint) = match (row.kind, self.action) {
            // If a create returns "not found", something else is missing: the secret does not exist
            // yet.
            (ErrorKind::NotFound, Action::CreateSecret) => (
                ErrorKind::InvalidConfig,
                "something that the new secret refers to does not exist: the project, the region or \
                 the KMS key",
                "compare project-id, region and kms-key (SECRET_STORE_GCP_PROJECT_ID, …_REGION, \
                 …_KMS_KEY) with the console",
            ),
            (ErrorKind::NotFound, Action::ListSecrets) => (
                ErrorKind::InvalidConfig,
                "the project or the region does not exist",
                "compare project-id and region with the console",
            ),
            (ErrorKind::Conflict, Action::CreateSecret | Action::AddVersion)
                if self.is_precondition() =>
            {
                (
                    ErrorKind::InvalidConfig,
                    "the KMS key cannot be used, or an organisation policy forbids the location",
                    "check whether kms-key is enabled and granted to Secret Manager's service agent \
                     (`secret-migrate policy gcp --kms-key …`), and the policies gcp.resourceLocations \
                     and gcp.restrictNonCmekServices; set region if secrets must stay in one",
                )
            }
            (ErrorKind::InvalidConfig, Action::ListSecrets) if self.has("INVALID_ARGUMENT") => (
                ErrorKind::InvalidValue,
                "the listing cannot be continued from here",
                "start the listing again",
            ),
            _ => return None,
        };
        Some(Error::new(kind, message).with_hint(hint))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.as_str(), self.failure)
    }
}

impl StdError for Fault {}

fn nature(action: Action, error: &SdkError) -> Nature {
    if let Some(status) = error.status() {
        // A known reason is more specific than its status.
        let reason = status.details.iter().find_map(|detail| match detail {
            StatusDetails::ErrorInfo(info) => {
                Row::of(TABLE, &info.reason).map(|_| info.reason.as_str())
            }
            _ => None,
        });
        let named = match status.code {
            // The SDK's error for a response without a status, or with an unknown one.
            Code::Unknown => error
                .http_status_code()
                .and_then(|http| code_of_http(action, http)),
            code => Some(code),
        };
        let code = reason.unwrap_or_else(|| named.unwrap_or(status.code).name());
        return Nature::answered(Some(code));
    }
    if error.is_binding() || error.is_serialization() {
        Nature::Unbuildable
    } else if error.is_authentication() {
        Nature::Credentials(Box::new(Error::new(
            ErrorKind::Unauthenticated,
            "the credentials could not be used",
        )))
    } else if let Some(http) = error.http_status_code() {
        let body = error.http_payload().map_or(&b""[..], |body| &**body);
        let code = bare_code(body).or_else(|| {
            // An HTML page is from a proxy, or from a host that does not serve the API. Its status
            // says nothing about a secret.
            let is_page = body.trim_ascii_start().starts_with(b"<");
            (!is_page).then(|| code_of_http(action, http)).flatten()
        });
        Nature::answered(code.as_ref().map(Code::name))
    } else {
        Nature::unanswered(error, error.is_connect(), error.is_timeout())
    }
}

/// The code of a bare status without the surrounding `error` object, as gRPC gateways return it.
/// <https://cloud.google.com/apis/design/errors#error_model>
fn bare_code(body: &[u8]) -> Option<Code> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let code = i32::try_from(body.get("code")?.as_i64()?).ok()?;
    // Otherwise this is an HTTP status.
    Some(Code::from(code)).filter(|code| !matches!(code, Code::Ok | Code::Unknown))
}

/// The code for an HTTP status, if the response has none. Server errors are identified by their
/// status.
/// <https://cloud.google.com/apis/design/errors#handling_errors>
fn code_of_http(action: Action, status: u16) -> Option<Code> {
    Some(match (status, action) {
        // For a read, only the state of the version cannot be checked in advance.
        (400, Action::AccessVersion) => Code::FailedPrecondition,
        (400, _) => Code::InvalidArgument,
        (401, _) => Code::Unauthenticated,
        (403, _) => Code::PermissionDenied,
        (404, _) => Code::NotFound,
        (409, Action::CreateSecret) => Code::AlreadyExists,
        (409, _) => Code::Aborted,
        (429, _) => Code::ResourceExhausted,
        (501, _) => Code::Unimplemented,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
