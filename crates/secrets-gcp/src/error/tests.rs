use std::collections::BTreeSet;

use google_cloud_gax::error::rpc::Status;
use http::HeaderMap;

use super::*;

fn answered(action: Action, code: &str) -> Fault {
    Fault::new(action, Nature::answered(Some(code)))
}

fn explained(action: Action, code: &str) -> Error {
    answered(action, code).explain("host", |_| ("denied".into(), "grant".into()))
}

#[test]
fn every_code_stands_once_and_has_kind_message_and_hint() {
    let mut seen = BTreeSet::new();
    for row in TABLE {
        for code in row.codes {
            assert!(seen.insert(code), "{code} occurs twice");
            let error = explained(Action::AccessVersion, code);
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
    let is_code = |word: &&str| {
        word.len() > 5
            && word
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let symptoms: BTreeSet<&str> = include_str!("../../README.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(is_code)
        .collect();
    let codes: BTreeSet<&str> = TABLE.iter().flat_map(|row| row.codes).copied().collect();
    assert_eq!(symptoms, codes);
}

#[test]
fn only_what_waiting_can_help_is_retryable() {
    for (code, retryable) in [
        ("RATE_LIMIT_EXCEEDED", true),
        ("RESOURCE_EXHAUSTED", true),
        ("UNAVAILABLE", true),
        ("INTERNAL", true),
        ("ABORTED", true),
        ("RESOURCE_QUOTA_EXCEEDED", false),
        ("FAILED_PRECONDITION", false),
        ("IAM_PERMISSION_DENIED", false),
        ("UNAUTHENTICATED", false),
        ("SERVICE_DISABLED", false),
    ] {
        let error = explained(Action::AccessVersion, code);
        assert_eq!(error.is_retryable(), retryable, "{code}");
    }
}

#[test]
fn what_a_code_means_depends_on_what_was_asked() {
    for (action, code, kind, text) in [
        (
            Action::CreateSecret,
            "NOT_FOUND",
            ErrorKind::InvalidConfig,
            "KMS key",
        ),
        (
            Action::ListSecrets,
            "NOT_FOUND",
            ErrorKind::InvalidConfig,
            "region",
        ),
        (
            Action::AddVersion,
            "FAILED_PRECONDITION",
            ErrorKind::InvalidConfig,
            "KMS key",
        ),
        (
            Action::ListSecrets,
            "INVALID_ARGUMENT",
            ErrorKind::InvalidValue,
            "continued",
        ),
        (
            Action::AccessVersion,
            "NOT_FOUND",
            ErrorKind::NotFound,
            "expired",
        ),
    ] {
        let error = explained(action, code);
        assert_eq!(error.kind(), kind, "{code}");
        assert!(error.message().contains(text), "{error}");
    }
}

#[test]
fn a_refused_token_is_blamed_on_the_clock_where_the_clock_is_wrong() {
    for code in ["UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED"] {
        let mut fault = answered(Action::AccessVersion, code);
        for (skew, text) in [(900, "900 s behind"), (-900, "900 s ahead of")] {
            fault.failure.skew = Some(skew);
            let error = fault.explain("host", |_| unreachable!());
            assert!(error.message().contains(text), "{error}");
        }
        fault.failure.skew = Some(20);
        let error = fault.explain("host", |_| unreachable!());
        assert!(!error.message().contains("behind"), "{error}");
    }
}

/// Only the HTTP status is sure to be there: proxies, gateways to gRPC and emulators leave out the rest
/// of the documented body. A page for people names no secret, whatever its status.
#[test]
fn without_a_status_in_the_body_the_http_status_names_the_code() {
    use Action::{AccessVersion, AddVersion, CreateSecret};
    for (action, http, body, expected) in [
        (AccessVersion, 404, "not found", Some("NOT_FOUND")),
        (AccessVersion, 404, "", Some("NOT_FOUND")),
        (
            AccessVersion,
            404,
            r#"{"error": "Not found"}"#,
            Some("NOT_FOUND"),
        ),
        (
            AccessVersion,
            404,
            r#"{"error": {"code": 404, "message": "x"}}"#,
            Some("NOT_FOUND"),
        ),
        (
            AccessVersion,
            404,
            r#"{"error": {"code": 404, "message": "x", "status": "404"}}"#,
            Some("NOT_FOUND"),
        ),
        (AccessVersion, 400, "", Some("FAILED_PRECONDITION")),
        (AddVersion, 400, "", Some("INVALID_ARGUMENT")),
        (
            AddVersion,
            400,
            r#"{"code": 9, "message": "x", "details": []}"#,
            Some("FAILED_PRECONDITION"),
        ),
        (
            AccessVersion,
            404,
            r#"{"code": 404, "message": "x"}"#,
            Some("NOT_FOUND"),
        ),
        (CreateSecret, 409, "taken", Some("ALREADY_EXISTS")),
        (AddVersion, 409, "busy", Some("ABORTED")),
        (
            CreateSecret,
            409,
            r#"{"code": 6, "message": "x"}"#,
            Some("ALREADY_EXISTS"),
        ),
        (AccessVersion, 401, "", Some("UNAUTHENTICATED")),
        (AccessVersion, 403, "", Some("PERMISSION_DENIED")),
        (AccessVersion, 429, "", Some("RESOURCE_EXHAUSTED")),
        (AccessVersion, 404, "\n<!DOCTYPE html>", None),
        (AccessVersion, 403, "<html>blocked</html>", None),
        (AccessVersion, 500, "", None),
        (AccessVersion, 418, "", None),
    ] {
        let bytes = hyper::body::Bytes::copy_from_slice(body.as_bytes());
        // As the SDK does it.
        let error = match Status::try_from(&bytes) {
            Ok(status) => {
                SdkError::service_with_http_metadata(status, Some(http), Some(HeaderMap::new()))
            }
            Err(_) => SdkError::http(http, HeaderMap::new(), bytes),
        };
        let fault = Fault::from_sdk(action, &error);
        assert_eq!(
            fault.failure.codes().first().map(String::as_str),
            expected,
            "{http} {body}"
        );
        assert_eq!(fault.failure.status, Some(http));
    }
}

#[test]
fn what_is_no_code_is_not_repeated() {
    for code in [
        "my secret value",
        "{\"data\":1}",
        "",
        "a\nb",
        &"X".repeat(81),
    ] {
        let fault = answered(Action::AccessVersion, code);
        assert!(fault.failure.codes().is_empty());
        let error = fault.explain("host", |_| unreachable!());
        assert!(code.is_empty() || !format!("{error} {error:?}").contains(code));
    }
}
