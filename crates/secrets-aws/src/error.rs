//! What AWS answers, in our terms: one table from its codes to kinds, and the advice to go with them.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::primitives::{DateTime, DateTimeFormat};
use secret_persistence_core::{Error, ErrorKind};

use crate::policy::Action;

/// How far the clocks may differ before a refused signature is blamed on them: AWS accepts five
/// minutes. <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
const TOLERATED_SKEW_SECONDS: i64 = 300;

/// One row: codes that mean the same, what we make of them and what to tell the user.
pub(crate) struct Row {
    /// The codes as AWS spells them, in `__type`, `x-amzn-errortype` or a batch's error list.
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

/// Every code we know, by the services' documentation:
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html#API_CreateSecret_Errors>
/// and its neighbours, <https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html>,
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
pub(crate) const TABLE: &[Row] = &[
    // IAM said no. JSON services say `AccessDeniedException`, query services like STS `AccessDenied`.
    // The message and the hint are made of the policy table instead, which knows the action.
    Row::new(
        &[
            "AccessDeniedException",
            "AccessDenied",
            "NotAuthorized",
            "UnauthorizedOperation",
        ],
        ErrorKind::PermissionDenied,
        "the principal may not do this",
        "",
    ),
    // The key is known to be unusable by us: a matter of its policy or state, not of the value.
    Row::new(
        &["DecryptionFailure"],
        ErrorKind::PermissionDenied,
        "Secrets Manager cannot decrypt the secret with its KMS key",
        "look whether the key is enabled and not scheduled for deletion, and allow kms:Decrypt on \
         it in the key's policy and in ours",
    ),
    Row::new(
        &["EncryptionFailure"],
        ErrorKind::InvalidConfig,
        "Secrets Manager cannot encrypt with the configured KMS key",
        "look whether kms-key-arn (AWS_KMS_KEY_ARN) names an enabled, symmetric key of this region, \
         and allow kms:GenerateDataKey and kms:Decrypt on it",
    ),
    // A session ended. Not retryable by itself; the client says so where new credentials came.
    Row::new(
        &[
            "ExpiredToken",
            "ExpiredTokenException",
            "TokenRefreshRequired",
        ],
        ErrorKind::Unauthenticated,
        "the credentials have expired",
        "log in again (`aws sso login`), or renew the session token; keys that IAM made for good \
         and roles do not expire this way",
    ),
    // Our answer to the trust policy's or the identity provider's no, in web identity logins.
    Row::new(
        &["IDPRejectedClaim", "InvalidIdentityToken"],
        ErrorKind::Unauthenticated,
        "STS refuses the web identity token",
        "compare the service account's eks.amazonaws.com/role-arn annotation, the role's trust \
         policy (issuer, subject, audience) and the IAM identity provider",
    ),
    Row::new(
        &[
            "IncompleteSignature",
            "IncompleteSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
        ],
        ErrorKind::Unauthenticated,
        "the request arrived without a complete signature",
        "look for a proxy that strips the Authorization header, and for blanks around the access key",
    ),
    Row::new(
        &[
            "InternalFailure",
            "InternalServerError",
            "InternalServiceError",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "RequestTimeout",
            "RequestTimeoutException",
        ],
        ErrorKind::Unavailable,
        "AWS cannot serve the request at present",
        "try again; see https://health.aws.amazon.com",
    ),
    Row::new(
        &[
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "InvalidAccessKeyId",
            "AuthFailure",
        ],
        ErrorKind::Unauthenticated,
        "AWS does not know the access key or the session token",
        "look whether the key was deleted or deactivated in IAM, belongs to another partition \
         (China, GovCloud), lacks its session token, or whether the region is one that the account \
         has not enabled",
    ),
    Row::new(
        &["InvalidNextTokenException"],
        ErrorKind::InvalidValue,
        "the listing cannot be continued from here",
        "start the listing again",
    ),
    Row::new(
        &[
            "InvalidParameterException",
            "ValidationError",
            "ValidationException",
            "InvalidParameterValue",
        ],
        ErrorKind::InvalidConfig,
        "AWS refuses a parameter of the request",
        "look at the tags, the KMS key and the description in the settings",
    ),
    // The state of the secret, where it is not scheduled for deletion: replicas, another service.
    Row::new(
        &["InvalidRequestException"],
        ErrorKind::Conflict,
        "the state of the secret does not allow this",
        "look at it in the console: it may be a replica, have replicas, or be managed by another \
         AWS service",
    )
    .final_(),
    // Wrong secret key, wrong region in the scope, or clocks too far apart: `skew` tells the last.
    Row::new(
        &["InvalidSignatureException", "SignatureDoesNotMatch"],
        ErrorKind::Unauthenticated,
        "AWS refuses the signature of the request",
        "compare the secret access key with the access key id, and the region with the endpoint",
    ),
    Row::new(
        &["KMSAccessDeniedException"],
        ErrorKind::PermissionDenied,
        "the KMS key may not be used",
        "allow kms:GenerateDataKey and kms:Decrypt on the key, in its policy and in ours",
    ),
    Row::new(
        &[
            "KMSDisabledException",
            "KMSInvalidStateException",
            "KMSInvalidKeyUsageException",
        ],
        ErrorKind::InvalidConfig,
        "the KMS key is disabled, scheduled for deletion or of the wrong kind",
        "enable the key, or set kms-key-arn (AWS_KMS_KEY_ARN) to a symmetric key that is enabled",
    ),
    Row::new(
        &["KMSNotFoundException", "NotFoundException"],
        ErrorKind::InvalidConfig,
        "the KMS key does not exist in this region",
        "compare kms-key-arn (AWS_KMS_KEY_ARN) with the keys of this account and region",
    ),
    // A quota on how many secrets there are, not on the rate: waiting does not help.
    Row::new(
        &["LimitExceededException"],
        ErrorKind::Unavailable,
        "a quota of the account is used up",
        "delete secrets, or ask for a higher quota of Secrets Manager in Service Quotas",
    )
    .final_(),
    Row::new(
        &["MalformedPolicyDocumentException", "PackedPolicyTooLarge"],
        ErrorKind::InvalidConfig,
        "AWS refuses a policy",
        "look at the role's session policies and the secret's resource policy",
    ),
    Row::new(
        &["OptInRequired", "RegionDisabledException"],
        ErrorKind::InvalidConfig,
        "the account has not enabled this region",
        "enable the region in the account's settings, or set another one",
    ),
    Row::new(
        &["PreconditionNotMetException"],
        ErrorKind::Conflict,
        "another process was changing the secret",
        "try again",
    ),
    Row::new(
        &[
            "RequestExpired",
            "RequestTimeTooSkewed",
            "RequestInTheFuture",
        ],
        ErrorKind::Unauthenticated,
        "this machine's clock differs too much from AWS's",
        "synchronise the clock (NTP)",
    ),
    // Only a create answers it, and the client compares the values before anybody sees this.
    Row::new(
        &["ResourceExistsException"],
        ErrorKind::AlreadyExists,
        "the name already has another value",
        "a new value needs a new coordinate",
    ),
    Row::new(
        &["ResourceNotFoundException"],
        ErrorKind::NotFound,
        "the store has nothing under this name",
        "look whether the region and the account are the ones it was written to",
    ),
    Row::new(
        &[
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "KMSThrottlingException",
        ],
        ErrorKind::Throttled,
        "AWS asks for fewer requests",
        "switch the limit layer on, or ask for a higher rate in Service Quotas",
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
    pub(crate) request_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// AWS's clock minus ours, in seconds.
    pub(crate) skew: Option<i64>,
    /// The credentials were refused, and others have been found since.
    pub(crate) new_credentials: bool,
}

/// In which way it failed.
#[derive(Clone, Debug)]
pub(crate) enum Nature {
    /// AWS, or somebody in its place, answered no, with this code.
    Answered(Option<String>),
    /// The request never got out: no connection.
    Connect(Connect),
    /// There are no credentials to sign with; the error says what was tried.
    Credentials(Box<Error>),
    /// The answer could not be understood, or broke off.
    Garbled,
    /// The request could not be built, a defect.
    Unbuildable,
    /// The time was up.
    TimedOut,
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
    pub(crate) fn from_sdk<E>(action: Action, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let nature = match error {
            SdkError::ServiceError(service) => {
                Nature::Answered(service.err().code().and_then(identifier))
            }
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                Nature::Connect(Connect::TimedOut)
            }
            SdkError::DispatchFailure(failure) => Nature::Connect(
                failure
                    .as_connector_error()
                    .map_or(Connect::Other, |error| connect(error)),
            ),
            SdkError::TimeoutError(_) => Nature::TimedOut,
            SdkError::ResponseError(_) => Nature::Garbled,
            _ => Nature::Unbuildable,
        };
        let mut fault = Self::new(action, nature);
        if let Some(response) = error.raw_response() {
            let header = |name| response.headers().get(name);
            fault.status = Some(response.status().as_u16());
            fault.request_id = header("x-amzn-requestid").and_then(identifier);
            fault.retry_after = wait(header("x-amz-retry-after"), header("retry-after"));
            fault.skew = header("date").and_then(skew);
        }
        fault
    }

    /// What a batch's error list says of one secret. What a batch may not read, GetSecretValue may
    /// not read either: that is the missing right.
    pub(crate) fn of_entry(code: Option<&str>) -> Self {
        Self::answered(Action::GetSecretValue, code)
    }

    /// A code without its response.
    pub(crate) fn answered(action: Action, code: Option<&str>) -> Self {
        Self::new(action, Nature::Answered(code.and_then(identifier)))
    }

    pub(crate) fn new(action: Action, nature: Nature) -> Self {
        Self {
            action,
            nature,
            status: None,
            request_id: None,
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

    /// Whether AWS answered a code that the table calls this.
    pub(crate) fn is(&self, kind: ErrorKind) -> bool {
        self.code()
            .and_then(row)
            .is_some_and(|row| row.kind == kind)
    }

    /// Whether IAM refused the action, and not the key of one secret.
    pub(crate) fn is_denied(&self) -> bool {
        self.code()
            .and_then(row)
            .is_some_and(|row| row.kind == ErrorKind::PermissionDenied && row.hint.is_empty())
    }

    /// Whether the state of the secret was refused, which a scheduled deletion is, among others.
    pub(crate) fn is_invalid_request(&self) -> bool {
        self.code() == Some("InvalidRequestException")
    }

    /// The error for it, before anybody adds operation, store and coordinate.
    ///
    /// `host` is where the request went; `denied` is the advice of the policy table.
    pub(crate) fn explain(&self, host: &str, denied: impl FnOnce() -> (String, String)) -> Error {
        let error = match &self.nature {
            Nature::Answered(code) => match code.as_deref().and_then(row) {
                Some(row) => self.explain_row(row, denied),
                None => self.explain_status(),
            },
            Nature::Connect(cause) => explain_connect(*cause, host),
            Nature::Credentials(error) => return (**error).clone(),
            Nature::Garbled => Error::new(
                ErrorKind::Unavailable,
                format!("the answer of {host} broke off or is not one of AWS"),
            )
            .with_hint("try again; look at endpoint-url and at proxies on the way"),
            Nature::TimedOut => Error::new(
                ErrorKind::Unavailable,
                format!("{host} did not answer in time"),
            )
            .with_hint("try again; look at the network, VPC endpoints and security groups"),
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

    fn explain_row(&self, row: &Row, denied: impl FnOnce() -> (String, String)) -> Error {
        let error = match (row.kind, self.skew) {
            (ErrorKind::PermissionDenied, _) if row.hint.is_empty() => {
                let (message, hint) = denied();
                Error::new(row.kind, message).with_hint(hint)
            }
            // A create finds nothing where its key is missing: the secret is what it makes.
            (ErrorKind::NotFound, _) if self.action == Action::CreateSecret => Error::new(
                ErrorKind::InvalidConfig,
                "something that the new secret refers to does not exist: the KMS key",
            )
            .with_hint("compare kms-key-arn (AWS_KMS_KEY_ARN) with the keys of this region"),
            (ErrorKind::Unauthenticated, Some(skew)) if skew.abs() > TOLERATED_SKEW_SECONDS => {
                let direction = if skew > 0 { "behind" } else { "ahead of" };
                let message = format!(
                    "{}: this machine's clock is {} s {direction} AWS's",
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
            Some(429) => Error::new(ErrorKind::Throttled, "AWS asks for fewer requests"),
            Some(status @ 500..) => Error::new(
                ErrorKind::Unavailable,
                format!("AWS cannot serve the request at present (HTTP {status}, {code})"),
            ),
            Some(status @ 300..400) => Error::new(
                ErrorKind::Unexpected,
                format!("the endpoint redirects (HTTP {status}), which is not followed"),
            )
            .with_hint("set endpoint-url to the address of Secrets Manager itself"),
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
        if let Some(status) = self.status {
            write!(f, ", HTTP {status}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, ", request id {id}")?;
        }
        Ok(())
    }
}

impl StdError for Fault {}

fn explain_connect(cause: Connect, host: &str) -> Error {
    let (message, hint) = match cause {
        Connect::NoSuchHost => (
            format!("the host {host} does not exist, as far as this machine's DNS knows"),
            "look whether the region is spelt right and has Secrets Manager, and whether DNS works",
        ),
        Connect::Other => (
            format!("no connection to {host}"),
            "look at the network, VPC endpoints, proxies and security groups",
        ),
        Connect::Refused => (
            format!("{host} refuses the connection"),
            "look at endpoint-url, and whether anything listens there",
        ),
        Connect::TimedOut => (
            format!("no connection to {host} in time"),
            "look at the network, VPC endpoints and security groups",
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

fn connect(error: &(dyn StdError + 'static)) -> Connect {
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

/// A code or an id of AWS's grammar; anything else could be text of the body, and is dropped.
fn identifier(text: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!text.is_empty() && text.len() <= 80 && text.bytes().all(allowed)).then(|| text.to_owned())
}

/// How long to wait: AWS's own header counts milliseconds, the standard's seconds. A day is longer than
/// anybody waits; more is a mistake of some proxy.
fn wait(milliseconds: Option<&str>, seconds: Option<&str>) -> Option<Duration> {
    let number = |text: Option<&str>| text?.trim().parse::<u64>().ok();
    number(milliseconds)
        .map(Duration::from_millis)
        .or_else(|| number(seconds).map(Duration::from_secs))
        .map(|wait| wait.min(Duration::from_secs(86_400)))
}

fn skew(date: &str) -> Option<i64> {
    let theirs = DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?;
    Some(theirs.secs() - DateTime::from(SystemTime::now()).secs())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn explained(code: &str) -> Error {
        Fault::of_entry(Some(code)).explain("host", || ("denied".into(), "grant".into()))
    }

    #[test]
    fn every_code_stands_once_and_has_kind_message_and_hint() {
        let mut seen = BTreeSet::new();
        for row in TABLE {
            for code in row.codes {
                assert!(seen.insert(code), "{code} stands twice");
                let error = explained(code);
                assert_eq!(error.kind(), row.kind, "{code}");
                assert!(
                    !error.message().is_empty() && error.hint().is_some(),
                    "{code}"
                );
                assert!(error.source().unwrap().to_string().contains(code));
            }
        }
    }

    /// The table of symptoms in the crate's documentation has every code, and no code we do not know.
    #[test]
    fn the_documentation_knows_every_code() {
        let symptoms: BTreeSet<&str> = include_str!("../README.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .filter(|code| code.starts_with(char::is_uppercase) && *code != "BatchGetSecretValue")
            .collect();
        let codes: BTreeSet<&str> = TABLE.iter().flat_map(|row| row.codes).copied().collect();
        assert_eq!(symptoms, codes);
    }

    #[test]
    fn only_what_waiting_can_help_is_retryable() {
        for (code, retryable) in [
            ("ThrottlingException", true),
            ("InternalServiceError", true),
            ("PreconditionNotMetException", true),
            ("LimitExceededException", false),
            ("InvalidRequestException", false),
            ("AccessDeniedException", false),
            ("ExpiredTokenException", false),
        ] {
            assert_eq!(explained(code).is_retryable(), retryable, "{code}");
        }
    }

    #[test]
    fn a_create_that_finds_nothing_misses_its_key() {
        let fault = Fault::new(
            Action::CreateSecret,
            Nature::Answered(Some("ResourceNotFoundException".into())),
        );
        let error = fault.explain("host", || unreachable!());
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.hint().unwrap().contains("kms-key-arn"));
    }

    #[test]
    fn a_refused_signature_is_blamed_on_the_clock_where_the_clock_is_wrong() {
        let mut fault = Fault::of_entry(Some("InvalidSignatureException"));
        for (skew, text) in [(900, "900 s behind"), (-900, "900 s ahead of")] {
            fault.skew = Some(skew);
            let error = fault.explain("host", || unreachable!());
            assert!(error.message().contains(text), "{error}");
        }
        fault.skew = Some(20);
        assert!(
            !fault
                .explain("host", || unreachable!())
                .message()
                .contains("clock")
        );
    }

    #[test]
    fn unknown_codes_are_judged_by_their_status() {
        for (status, kind) in [
            (Some(302), ErrorKind::Unexpected),
            (Some(400), ErrorKind::Unexpected),
            (Some(429), ErrorKind::Throttled),
            (Some(503), ErrorKind::Unavailable),
            (None, ErrorKind::Unexpected),
        ] {
            let mut fault = Fault::of_entry(Some("BrandNewException"));
            fault.status = status;
            let error = fault.explain("host", || unreachable!());
            assert_eq!(error.kind(), kind);
        }
    }

    #[test]
    fn waits_are_understood_in_both_units() {
        for (milliseconds, seconds, expected) in [
            (None, None, None),
            (None, Some("7"), Some(7_000)),
            (Some("1500"), Some("7"), Some(1_500)),
            (Some("soon"), Some(" 2 "), Some(2_000)),
            (None, Some("Wed, 21 Oct 2026 07:28:00 GMT"), None),
            (None, Some("99999999999"), Some(86_400_000)),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(wait(milliseconds, seconds), expected);
        }
    }

    #[test]
    fn what_is_no_code_is_not_repeated() {
        for code in [
            "my secret value",
            "{\"SecretString\":1}",
            "",
            "a\nb",
            &"x".repeat(81),
        ] {
            let fault = Fault::of_entry(Some(code));
            assert_eq!(fault.code(), None);
            let error = fault.explain("host", || unreachable!());
            assert!(code.is_empty() || !format!("{error} {error:?}").contains(code));
        }
    }
}
