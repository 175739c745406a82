//! What Google answers, in our terms: one table from its codes to kinds, and the advice to go with
//! them.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use google_cloud_gax::error::Error as SdkError;
use google_cloud_gax::error::rpc::{Code, StatusDetails};
use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};
use secret_persistence_core::{Error, ErrorKind};
use serde_json::Value;

use crate::policy::Action;

/// How far the clocks may differ before a refused token is blamed on them. Google gives a little,
/// and says nowhere how much; a clock that is synchronised is never this wrong.
const TOLERATED_SKEW_SECONDS: i64 = 60;

/// The longest wait that is believed; more is a mistake of some proxy.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// One row: codes that mean the same, what we make of them and what to tell the user.
pub(crate) struct Row {
    /// The codes as Google spells them: the reason of an `ErrorInfo`, or the status.
    pub(crate) codes: &'static [&'static str],
    /// What we call it.
    pub(crate) kind: ErrorKind,
    /// Whether trying again may help; `None` is what the kind says.
    pub(crate) retryable: Option<bool>,
    /// What is wrong, without a capital and without a full stop.
    pub(crate) message: &'static str,
    /// What the user can do.
    pub(crate) hint: &'static str,
}

impl Row {
    const fn new(
        codes: &'static [&'static str],
        kind: ErrorKind,
        message: &'static str,
        hint: &'static str,
    ) -> Self {
        Self {
            codes,
            kind,
            retryable: None,
            message,
            hint,
        }
    }

    const fn final_(mut self) -> Self {
        self.retryable = Some(false);
        self
    }
}

/// Every code we know: first reasons, which say more, then statuses.
/// <https://cloud.google.com/apis/design/errors>,
/// <https://cloud.google.com/dotnet/docs/reference/Google.Api.CommonProtos/latest/Google.Api.ErrorReason>.
pub(crate) const TABLE: &[Row] = &[
    // IAM said no. The message and the hint are made of the policy table, which knows the permission.
    Row::new(
        &["IAM_PERMISSION_DENIED", "PERMISSION_DENIED"],
        ErrorKind::PermissionDenied,
        "the principal may not do this",
        "",
    ),
    Row::new(
        &["SERVICE_DISABLED"],
        ErrorKind::InvalidConfig,
        "the Secret Manager API is not enabled in the project",
        "run `gcloud services enable secretmanager.googleapis.com --project <project>` and wait some \
         minutes; and look whether project-id (SECRET_STORE_GCP_PROJECT_ID) is the right one",
    ),
    Row::new(
        &["BILLING_DISABLED"],
        ErrorKind::InvalidConfig,
        "the project has no billing account",
        "link one at https://console.cloud.google.com/billing/projects and wait some minutes",
    ),
    // A project that is misspelt or deleted, or a number that is none.
    Row::new(
        &["CONSUMER_INVALID", "RESOURCE_PROJECT_INVALID"],
        ErrorKind::InvalidConfig,
        "Google does not know the project",
        "compare project-id (SECRET_STORE_GCP_PROJECT_ID) with `gcloud projects list`: it is the id, \
         not the display name",
    ),
    Row::new(
        &["CONSUMER_SUSPENDED"],
        ErrorKind::PermissionDenied,
        "Google has suspended the project",
        "look into the mail of its owners, and at https://console.cloud.google.com",
    ),
    // The project that quota and billing are taken from, which the credentials may name.
    Row::new(
        &["USER_PROJECT_DENIED"],
        ErrorKind::PermissionDenied,
        "the principal may not use the quota project of its credentials",
        "grant it serviceusage.services.use on that project, or unset GOOGLE_CLOUD_QUOTA_PROJECT and \
         `quota_project_id` in the credentials",
    ),
    Row::new(
        &[
            "ORG_RESTRICTION_VIOLATION",
            "RESOURCE_USAGE_RESTRICTION_VIOLATED",
            "SECURITY_POLICY_VIOLATED",
        ],
        ErrorKind::PermissionDenied,
        "a policy of the organisation forbids the request",
        "look at the perimeters of VPC Service Controls and at the organisation's policies; the audit \
         log of the project names the one that decided",
    ),
    // The time of a self-signed token is our clock's: `skew` tells where that is wrong.
    Row::new(
        &["ACCESS_TOKEN_EXPIRED"],
        ErrorKind::Unauthenticated,
        "the access token has expired",
        "look at this machine's clock; log in again (`gcloud auth application-default login`)",
    ),
    // A virtual machine's scopes cut down what its service account may do.
    Row::new(
        &["ACCESS_TOKEN_SCOPE_INSUFFICIENT"],
        ErrorKind::PermissionDenied,
        "the access token lacks the scope",
        "give the machine the scope https://www.googleapis.com/auth/cloud-platform, or use workload \
         identity",
    ),
    // What a token that is signed with a deleted key looks like to Google.
    Row::new(
        &["ACCESS_TOKEN_TYPE_UNSUPPORTED"],
        ErrorKind::Unauthenticated,
        "Google does not accept the token",
        "look whether the service account's key was deleted or disabled (`gcloud iam service-accounts \
         keys list`), and make a new one",
    ),
    Row::new(
        &["ACCOUNT_STATE_INVALID"],
        ErrorKind::Unauthenticated,
        "the service account is disabled or deleted",
        "enable it (`gcloud iam service-accounts enable <email>`), or take another",
    ),
    Row::new(
        &["CREDENTIALS_MISSING"],
        ErrorKind::Unauthenticated,
        "the request arrived without credentials",
        "look for a proxy that strips the Authorization header, and at credentials-source",
    ),
    Row::new(
        &["RATE_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"],
        ErrorKind::Throttled,
        "the project's quota of requests is used up for the moment",
        "switch the limit layer on, or ask for a higher quota at \
         https://console.cloud.google.com/iam-admin/quotas",
    ),
    // A quota on how many there are, not on the rate: waiting does not help.
    Row::new(
        &["RESOURCE_QUOTA_EXCEEDED"],
        ErrorKind::Unavailable,
        "a quota of the project is used up",
        "delete secrets, or ask for a higher quota at \
         https://console.cloud.google.com/iam-admin/quotas",
    )
    .final_(),
    Row::new(
        &["ABORTED"],
        ErrorKind::Conflict,
        "another process was changing the secret",
        "try again",
    ),
    // Only a create answers it, and the store compares the values before anybody sees this.
    Row::new(
        &["ALREADY_EXISTS"],
        ErrorKind::AlreadyExists,
        "the name already has another value",
        "a new value needs a new coordinate",
    ),
    Row::new(
        &["DATA_LOSS"],
        ErrorKind::Integrity,
        "Google has lost the data, or received it damaged",
        "write it again; look at https://status.cloud.google.com",
    ),
    // The state of the version, which the store looks at; in writes the key or a policy.
    Row::new(
        &["FAILED_PRECONDITION"],
        ErrorKind::Conflict,
        "the state of the secret does not allow this",
        "look at the secret's versions in the console, and at the KMS key",
    )
    .final_(),
    Row::new(
        &["INVALID_ARGUMENT", "OUT_OF_RANGE"],
        ErrorKind::InvalidConfig,
        "Google refuses a parameter of the request",
        "look at labels, region and expiry (between a minute and a hundred years ahead), and, with a \
         KMS key, whether Secret Manager's service agent exists (`migrate policy gcp --kms-key …`)",
    ),
    Row::new(
        &["NOT_FOUND"],
        ErrorKind::NotFound,
        "the store has nothing under this name: it was never written here, was deleted, or has expired",
        "look whether project-id and region are the ones it was written to, and at `replication`: \
         global secrets and those of a region do not see each other",
    ),
    // Without a reason: a token that is none, of a deleted key or of a wrong time.
    Row::new(
        &["UNAUTHENTICATED"],
        ErrorKind::Unauthenticated,
        "Google does not accept the credentials",
        "look whether the service account's key was deleted or disabled (`gcloud iam service-accounts \
         keys list`), and at this machine's clock",
    ),
    Row::new(
        &["CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE"],
        ErrorKind::Unavailable,
        "Google cannot serve the request at present",
        "try again; see https://status.cloud.google.com",
    ),
    Row::new(
        &["UNIMPLEMENTED"],
        ErrorKind::InvalidConfig,
        "the endpoint does not serve Secret Manager",
        "look at endpoint-url, and whether the region has regional secrets",
    ),
];

/// The row of a code.
pub(crate) fn row(code: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.codes.contains(&code))
}

/// Why one request failed: codes and numbers, and nothing of what was sent or answered, so that it
/// can stand as the [`source`](StdError::source) of an [`Error`].
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) action: Action,
    pub(crate) nature: Nature,
    pub(crate) status: Option<u16>,
    /// The permission that Google says is missing.
    pub(crate) permission: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// Google's clock minus ours, in seconds.
    pub(crate) skew: Option<i64>,
    /// The credentials were refused, and others have been found since.
    pub(crate) new_credentials: bool,
}

/// In which way it failed.
#[derive(Clone, Debug)]
pub(crate) enum Nature {
    /// Google, or somebody in its place, answered no, with this code.
    Answered(Option<String>),
    /// The request never got out: no connection.
    Connect(Connect),
    /// There are no credentials to send; the error says what was tried.
    Credentials(Box<Error>),
    /// The answer could not be understood, or broke off.
    Garbled,
    /// The time was up.
    TimedOut,
    /// The request could not be built, a defect.
    Unbuildable,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connect {
    /// The host's name does not resolve.
    NoSuchHost,
    /// Something else: the network, a proxy.
    Other,
    /// Nobody listens there.
    Refused,
    /// No connection in time.
    TimedOut,
    /// The certificate is not trusted, or the peer does not speak TLS.
    Tls,
}

impl Fault {
    /// What an SDK error says, without its text, its bodies and its headers.
    pub(crate) fn from_sdk(action: Action, error: &SdkError) -> Self {
        let mut fault = Self::new(action, nature(action, error));
        fault.status = error.http_status_code();
        if let Some(headers) = error.http_headers() {
            fault.retry_after = wait(headers);
            fault.skew = skew(headers);
        }
        for detail in error
            .status()
            .map(|status| &status.details)
            .into_iter()
            .flatten()
        {
            match detail {
                StatusDetails::ErrorInfo(info) => {
                    fault.permission = info
                        .metadata
                        .get("permission")
                        .and_then(|text| identifier(text));
                }
                StatusDetails::RetryInfo(info) => {
                    let wait = info.retry_delay.as_ref().map(|delay| {
                        let seconds = u64::try_from(delay.seconds()).unwrap_or(0);
                        let nanos = u32::try_from(delay.nanos()).unwrap_or(0);
                        Duration::new(seconds, nanos).min(LONGEST_WAIT)
                    });
                    fault.retry_after = wait.or(fault.retry_after);
                }
                _ => {}
            }
        }
        fault
    }

    /// A code without its response.
    #[cfg(test)]
    pub(crate) fn answered(action: Action, code: &str) -> Self {
        Self::new(action, Nature::Answered(identifier(code)))
    }

    pub(crate) fn new(action: Action, nature: Nature) -> Self {
        Self {
            action,
            nature,
            status: None,
            permission: None,
            retry_after: None,
            skew: None,
            new_credentials: false,
        }
    }

    /// The code that was answered.
    pub(crate) fn code(&self) -> Option<&str> {
        match &self.nature {
            Nature::Answered(code) => code.as_deref(),
            _ => None,
        }
    }

    /// Whether Google answered a code that the table calls this.
    pub(crate) fn is(&self, kind: ErrorKind) -> bool {
        self.code()
            .and_then(row)
            .is_some_and(|row| row.kind == kind)
    }

    /// Whether the state of the version was refused: disabled, destroyed, or with an unusable key.
    pub(crate) fn is_precondition(&self) -> bool {
        self.code() == Some("FAILED_PRECONDITION")
    }

    /// The error for it, before anybody adds operation, store and coordinate.
    ///
    /// `host` is where the request went; `denied` is the advice of the policy table.
    pub(crate) fn explain(
        &self,
        host: &str,
        denied: impl FnOnce(Option<&str>) -> (String, String),
    ) -> Error {
        let error = match &self.nature {
            Nature::Answered(code) => match code.as_deref().and_then(row) {
                Some(row) => self.explain_row(row, denied),
                None => self.explain_status(),
            },
            Nature::Connect(cause) => explain_connect(*cause, host),
            Nature::Credentials(error) => return (**error).clone(),
            Nature::Garbled => Error::new(
                ErrorKind::Unavailable,
                format!("the answer of {host} broke off or is not one of Google"),
            )
            .with_hint("try again; look at endpoint-url and at proxies on the way"),
            Nature::TimedOut => Error::new(
                ErrorKind::Unavailable,
                format!("{host} did not answer in time"),
            )
            .with_hint("try again; look at the network, proxies and firewalls"),
            Nature::Unbuildable => {
                Error::new(ErrorKind::Unexpected, "the SDK could not build the request")
                    .with_hint("report it as a defect")
            }
        };
        let error = match self.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        };
        let error = if self.new_credentials {
            error.with_retryable(true)
        } else {
            error
        };
        error.with_source(self.clone())
    }

    fn explain_row(
        &self,
        row: &Row,
        denied: impl FnOnce(Option<&str>) -> (String, String),
    ) -> Error {
        let error = match (row.kind, self.action, self.skew) {
            (ErrorKind::PermissionDenied, ..) if row.hint.is_empty() => {
                let (message, hint) = denied(self.permission.as_deref());
                Error::new(row.kind, message).with_hint(hint)
            }
            // A secret is what a create makes: what it does not find is something else.
            (ErrorKind::NotFound, Action::CreateSecret, _) => Error::new(
                ErrorKind::InvalidConfig,
                "something that the new secret refers to does not exist: the project, the region or \
                 the KMS key",
            )
            .with_hint(
                "compare project-id, region and kms-key (SECRET_STORE_GCP_PROJECT_ID, …_REGION, \
                 …_KMS_KEY) with the console",
            ),
            (ErrorKind::NotFound, Action::ListSecrets, _) => Error::new(
                ErrorKind::InvalidConfig,
                "the project or the region does not exist",
            )
            .with_hint("compare project-id and region with the console"),
            (ErrorKind::Conflict, Action::CreateSecret | Action::AddVersion, _)
                if self.is_precondition() =>
            {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "the KMS key cannot be used, or a policy of the organisation forbids the location",
                )
                .with_hint(
                    "look whether kms-key is enabled and granted to Secret Manager's service agent \
                     (`migrate policy gcp --kms-key …`), and at the policies gcp.resourceLocations \
                     and gcp.restrictNonCmekServices; set region where secrets must stay in one",
                )
            }
            (ErrorKind::InvalidConfig, Action::ListSecrets, _)
                if self.code() == Some("INVALID_ARGUMENT") =>
            {
                Error::new(
                    ErrorKind::InvalidValue,
                    "the listing cannot be continued from here",
                )
                .with_hint("start the listing again")
            }
            (ErrorKind::Unauthenticated, _, Some(skew)) if skew.abs() > TOLERATED_SKEW_SECONDS => {
                let direction = if skew > 0 { "behind" } else { "ahead of" };
                let message = format!(
                    "{}: this machine's clock is {} s {direction} Google's",
                    row.message,
                    skew.abs()
                );
                Error::new(row.kind, message).with_hint("synchronise the clock (NTP)")
            }
            _ => Error::new(row.kind, row.message).with_hint(row.hint),
        };
        match row.retryable {
            Some(retryable) => error.with_retryable(retryable),
            None => error,
        }
    }

    /// A code that the table does not have, or none: the status decides.
    fn explain_status(&self) -> Error {
        let code = self.code().unwrap_or("no code");
        match self.status {
            Some(429) => Error::new(ErrorKind::Throttled, "Google asks for fewer requests"),
            Some(status @ 500..) => Error::new(
                ErrorKind::Unavailable,
                format!("Google cannot serve the request at present (HTTP {status}, {code})"),
            ),
            Some(status @ 300..400) => Error::new(
                ErrorKind::Unexpected,
                format!("the endpoint redirects (HTTP {status}), which is not followed"),
            )
            .with_hint("set endpoint-url to the address of Secret Manager itself"),
            Some(status) => Error::new(
                ErrorKind::Unexpected,
                format!("an answer without a place in our table (HTTP {status}, {code})"),
            )
            .with_hint("look at endpoint-url and at proxies on the way"),
            None => Error::new(
                ErrorKind::Unexpected,
                format!("an answer without a place in our table ({code})"),
            ),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = self.action.as_str();
        match &self.nature {
            Nature::Answered(Some(code)) => write!(f, "{action} answered {code}")?,
            Nature::Answered(None) => write!(f, "{action} answered without a code")?,
            Nature::Connect(cause) => write!(f, "{action} found no connection: {cause:?}")?,
            Nature::Credentials(_) => write!(f, "{action} had no credentials")?,
            Nature::Garbled => write!(f, "{action} answered something unreadable")?,
            Nature::TimedOut => write!(f, "{action} timed out")?,
            Nature::Unbuildable => write!(f, "{action} could not be built")?,
        }
        match self.status {
            Some(status) => write!(f, ", HTTP {status}"),
            None => Ok(()),
        }
    }
}

impl StdError for Fault {}

/// Why there is no connection, from the causes that an error gives.
pub(crate) fn connect(error: &(dyn StdError + 'static)) -> Connect {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => return Connect::Refused,
            io::ErrorKind::TimedOut => return Connect::TimedOut,
            // What rustls reports through tokio-rustls: the certificate, or no TLS at all.
            io::ErrorKind::InvalidData => return Connect::Tls,
            _ => {}
        }
        // An error in an I/O error is not its source: that would be the source of the inner one.
        if let Some(inner) = error.get_ref() {
            return connect(inner);
        }
    }
    error.source().map_or(Connect::Other, connect)
}

fn nature(action: Action, error: &SdkError) -> Nature {
    if let Some(status) = error.status() {
        // A reason says more than its status, as long as we know it.
        let reason = status.details.iter().find_map(|detail| match detail {
            StatusDetails::ErrorInfo(info) => row(&info.reason).map(|_| info.reason.clone()),
            _ => None,
        });
        let named = match status.code {
            // What the SDK makes of an answer without a status, or with one that it does not know.
            Code::Unknown => error
                .http_status_code()
                .and_then(|http| code_of_http(action, http)),
            code => Some(code),
        };
        let code = reason.or_else(|| identifier(named.unwrap_or(status.code).name()));
        return Nature::Answered(code);
    }
    if error.is_timeout() {
        Nature::TimedOut
    } else if error.is_connect() {
        Nature::Connect(connect(error))
    } else if error.is_binding() || error.is_serialization() {
        Nature::Unbuildable
    } else if error.is_authentication() {
        Nature::Credentials(Box::new(Error::new(
            ErrorKind::Unauthenticated,
            "the credentials could not be used",
        )))
    } else if let Some(http) = error.http_status_code() {
        let body = error.http_payload().map_or(&b""[..], |body| &**body);
        let code = bare_code(body).or_else(|| {
            // A page for people is a proxy's, or of a host that is no API: what it says of a path is
            // nothing about a secret.
            let is_page = body.trim_ascii_start().starts_with(b"<");
            (!is_page).then(|| code_of_http(action, http)).flatten()
        });
        Nature::Answered(code.and_then(|code| identifier(code.name())))
    } else {
        Nature::Garbled
    }
}

/// The code of a status that stands alone, without the `error` around it: so gateways to gRPC write
/// it. <https://cloud.google.com/apis/design/errors#error_model>
fn bare_code(body: &[u8]) -> Option<Code> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let code = i32::try_from(body.get("code")?.as_i64()?).ok()?;
    // An HTTP status stands there elsewhere.
    Some(Code::from(code)).filter(|code| !matches!(code, Code::Ok | Code::Unknown))
}

/// The code that an HTTP status stands for, where the answer names none; those of the servers' own
/// failures need no more than their number.
/// <https://cloud.google.com/apis/design/errors#handling_errors>
fn code_of_http(action: Action, status: u16) -> Option<Code> {
    Some(match (status, action) {
        // Of what can be wrong with a read, only the state of the version is not ours to check.
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

fn explain_connect(cause: Connect, host: &str) -> Error {
    let (message, hint) = match cause {
        Connect::NoSuchHost => (
            format!("the host {host} does not exist, as far as this machine's DNS knows"),
            "look whether the region is spelt right and has Secret Manager, and whether DNS works",
        ),
        Connect::Other => (
            format!("no connection to {host}"),
            "look at the network, proxies and firewalls, and at Private Google Access",
        ),
        Connect::Refused => (
            format!("{host} refuses the connection"),
            "look at endpoint-url, and whether anything listens there",
        ),
        Connect::TimedOut => (
            format!("no connection to {host} in time"),
            "look at the network, proxies and firewalls, and at Private Google Access",
        ),
        Connect::Tls => (
            format!("no trusted TLS connection to {host}"),
            "look whether a proxy replaces certificates, and whether its authority is among the \
             system's",
        ),
    };
    let kind = if cause == Connect::Tls {
        // Neither waiting nor repeating makes a certificate trusted.
        ErrorKind::InvalidConfig
    } else {
        ErrorKind::Unavailable
    };
    Error::new(kind, message).with_hint(hint)
}

/// A code or a permission of Google's grammar; anything else could be text of the body, and is
/// dropped.
fn identifier(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
    (!text.is_empty() && text.len() <= 80 && text.bytes().all(allowed)).then(|| text.to_owned())
}

fn wait(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(SystemTime::now())
            .unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

fn skew(headers: &HeaderMap) -> Option<i64> {
    let theirs = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let ours = SystemTime::now();
    let seconds = |ahead: Duration| i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX);
    Some(match theirs.duration_since(ours) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    })
}

#[cfg(test)]
mod tests;
