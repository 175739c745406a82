//! Maps AWS's responses to errors.

mod table;

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use secret_persistence_core::{Error, ErrorKind};
use secret_persistence_remote::{
    Connect, Failure, Hints, Nature, Provider, Row, clock_skew, identifier, retry_after,
};

use crate::policy::Action;
use table::TABLE;

const AWS: Provider = Provider {
    name: "AWS",
    rows: TABLE,
    // <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
    tolerated_skew: 300,
    hints: Hints {
        answer: "try again; check endpoint-url and at proxies on the way",
        address: "check endpoint-url, and whether anything listens there",
        authority: "check whether a proxy replaces certificates, and whether its authority is among the \
                    system's",
        certificate_name: "check endpoint-url, and whether a proxy replaces certificates",
        host: "check whether the region is spelt correctly and has Secrets Manager, and whether DNS works",
        network: "check the network, VPC endpoints, proxies and security groups",
        outage: "try again; see https://health.aws.amazon.com",
    },
};

/// A failed request.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) action: Action,
    pub(crate) failure: Failure,
}

impl Fault {
    /// Takes the codes of an SDK error, without its text, bodies and headers.
    pub(crate) fn from_sdk<E>(action: Action, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let nature = match error {
            SdkError::ServiceError(service) => Nature::answered(service.err().code()),
            SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
                Some(error) => Nature::unanswered(error, true, failure.is_timeout()),
                None => Nature::Connect(Connect::Other),
            },
            SdkError::TimeoutError(_) => Nature::TimedOut,
            SdkError::ResponseError(_) => Nature::Garbled,
            _ => Nature::Unbuildable,
        };
        let mut failure = Failure::from(nature);
        if let Some(response) = error.raw_response() {
            let header = |name| response.headers().get(name);
            failure.status = Some(response.status().as_u16());
            failure.request_id = header("x-amzn-requestid").and_then(identifier);
            failure.retry_after = retry_after(header("x-amz-retry-after"), header("retry-after"));
            failure.skew = header("date").and_then(clock_skew);
        }
        Self { action, failure }
    }

    /// A code in a batch's error list for one secret. Secrets that are denied in a batch are also
    /// denied to GetSecretValue: that is the missing permission.
    pub(crate) fn of_entry(code: Option<&str>) -> Self {
        Self::answered(Action::GetSecretValue, code)
    }

    /// A code without its response.
    pub(crate) fn answered(action: Action, code: Option<&str>) -> Self {
        Self::new(action, Nature::answered(code))
    }

    pub(crate) fn new(action: Action, nature: Nature) -> Self {
        Self {
            action,
            failure: nature.into(),
        }
    }

    /// Whether AWS returned this code.
    pub(crate) fn has(&self, code: &str) -> bool {
        self.failure.has(code)
    }

    /// Whether AWS returned a code that the table maps to this kind.
    pub(crate) fn is(&self, kind: ErrorKind) -> bool {
        self.failure.row(TABLE).is_some_and(|row| row.kind == kind)
    }

    /// Whether IAM denied the action, as opposed to the key of one secret.
    pub(crate) fn is_denied(&self) -> bool {
        self.failure.row(TABLE).is_some_and(Row::is_denial)
    }

    /// Whether AWS refused the state of the secret. A scheduled deletion is one of those states.
    pub(crate) fn is_invalid_request(&self) -> bool {
        self.has("InvalidRequestException")
    }

    /// The error, still without operation, store and coordinate.
    ///
    /// `host` received the request; `denied` returns the advice of the policy table.
    pub(crate) fn explain(&self, host: &str, denied: impl FnOnce() -> (String, String)) -> Error {
        let special = |row: Option<&Row>| {
            let row = row?;
            if row.is_denial() {
                let (message, hint) = denied();
                return Some(Error::new(row.kind, message).with_hint(hint));
            }
            // If a create returns "not found", its key is missing: the secret itself does not exist
            // yet.
            (row.kind == ErrorKind::NotFound && self.action == Action::CreateSecret).then(|| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    "something that the new secret refers to does not exist: the KMS key",
                )
                .with_hint("compare kms-key-arn (AWS_KMS_KEY_ARN) with the keys of this region")
                // AWS returns the same code while a secret of the same name is being deleted.
                .with_retryable(true)
            })
        };
        self.failure
            .explain(&AWS, host, special)
            .with_source(self.clone())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.as_str(), self.failure)
    }
}

impl StdError for Fault {}

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
                assert!(seen.insert(code), "{code} occurs twice");
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

    /// The symptom table in the crate's documentation contains every code, and no unknown one.
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
            Nature::answered(Some("ResourceNotFoundException")),
        );
        let error = fault.explain("host", || unreachable!());
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.hint().unwrap().contains("kms-key-arn"));
    }

    #[test]
    fn a_refused_signature_is_blamed_on_the_clock_where_the_clock_is_wrong() {
        let mut fault = Fault::of_entry(Some("InvalidSignatureException"));
        for (skew, text) in [(900, "900 s behind"), (-900, "900 s ahead of")] {
            fault.failure.skew = Some(skew);
            let error = fault.explain("host", || unreachable!());
            assert!(error.message().contains(text), "{error}");
        }
        fault.failure.skew = Some(20);
        assert!(
            !fault
                .explain("host", || unreachable!())
                .message()
                .contains("clock")
        );
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
            assert!(fault.failure.codes().is_empty());
            let error = fault.explain("host", || unreachable!());
            assert!(code.is_empty() || !format!("{error} {error:?}").contains(code));
        }
    }
}
