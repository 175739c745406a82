use std::collections::BTreeSet;

use azure_core::http::headers::Headers;
use azure_core::http::{RawResponse, StatusCode};

use super::codes::{challenge_tenant, vault_codes};
use super::*;

fn config() -> Config {
    of(&[])
}

fn of(more: &[(&str, &str)]) -> Config {
    let vault = [("vault-url", "my-vault")];
    let settings = crate::SETTINGS.from_pairs(vault.iter().chain(more).copied());
    Config::from_settings(&settings.unwrap()).unwrap()
}

fn fault(code: &str) -> Fault {
    Fault::new(Action::Get, Nature::Answered(vec![code.to_owned()]))
}

fn response(status: u16, body: &str) -> RawResponse {
    RawResponse::from_bytes(StatusCode::from(status), Headers::new(), body.to_owned())
}

#[test]
fn every_code_stands_once_and_has_kind_message_and_hint() {
    let mut seen = BTreeSet::new();
    for row in TABLE {
        for code in row.codes {
            assert!(seen.insert(code), "{code} occurs twice");
            let error = fault(code).explain(&config());
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
    let symptoms: BTreeSet<&str> = include_str!("../../README.md")
        .lines()
        .skip_while(|line| !line.contains("# When it does not work"))
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let codes: BTreeSet<&str> = TABLE.iter().flat_map(|row| row.codes).copied().collect();
    assert_eq!(symptoms, codes);
}

#[test]
fn only_what_waiting_can_help_is_retryable() {
    for (code, retryable) in [
        ("Throttled", true),
        ("ServiceUnavailable", true),
        ("ObjectIsBeingDeleted", true),
        ("AKV10046", true),
        ("temporarily_unavailable", true),
        ("ObjectIsDeletedButRecoverable", false),
        ("ForbiddenByRbac", false),
        ("AADSTS7000222", false),
        ("SecretManagedByKeyVault", false),
    ] {
        let error = fault(code).explain(&config());
        assert_eq!(error.is_retryable(), retryable, "{code}");
    }
}

#[test]
fn the_most_exact_code_decides() {
    for (status, body, codes, kind) in [
        (
            403,
            r#"{"error":{"code":"Forbidden","message":"x","innererror":{"code":"ForbiddenByRbac"}}}"#,
            vec!["ForbiddenByRbac", "Forbidden"],
            ErrorKind::PermissionDenied,
        ),
        (
            409,
            r#"{"error":{"code":"Conflict","message":"x","innererror":{"code":"ObjectIsDeletedButRecoverable"}}}"#,
            vec!["ObjectIsDeletedButRecoverable", "Conflict"],
            ErrorKind::PendingDeletion,
        ),
        (
            401,
            r#"{"error":{"code":"Unauthorized","message":"AKV10032: Invalid issuer. Expected x"}}"#,
            vec!["AKV10032", "Unauthorized"],
            ErrorKind::Unauthenticated,
        ),
        (
            403,
            r#"{"error":{"code":"Forbidden","message":"x","innererror":{"code":"SecretManagedByKeyVault"}}}"#,
            vec!["SecretManagedByKeyVault", "Forbidden"],
            ErrorKind::Conflict,
        ),
        (
            403,
            r#"{"error":{"code":"Forbidden","message":"x","innererror":{"code":"SecretDisabled"}}}"#,
            vec!["SecretDisabled", "Forbidden"],
            ErrorKind::PermissionDenied,
        ),
    ] {
        let response = response(status, body);
        let found = vault_codes(&response);
        assert_eq!(found, codes);
        let fault = Fault::answered(Action::Set, status, found, Some(&response));
        assert_eq!(fault.explain(&config()).kind(), kind, "{body}");
    }
}

#[test]
fn logins_are_judged_by_number_then_by_word() {
    for (body, codes, message) in [
        (
            r#"{"error":"invalid_client","error_description":"canary","error_codes":[7000215]}"#,
            vec!["AADSTS7000215", "invalid_client"],
            "refuses the client secret",
        ),
        (
            r#"{"error":"invalid_client","error_codes":[7999999]}"#,
            vec!["AADSTS7999999", "invalid_client"],
            "refuses the application's credentials",
        ),
    ] {
        let fault = Fault::from_login(&response(401, body), false);
        assert_eq!(fault.failure.codes(), codes);
        let error = fault.explain(&config());
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(error.message().contains(message), "{error}");
        assert!(!format!("{error:?}").contains("canary"));
    }
}

#[test]
fn a_refused_token_is_blamed_on_the_directory_where_that_differs() {
    let config = of(&[
        ("tenant-id", "ours"),
        ("client-id", "client"),
        ("client-secret", "x"),
    ]);
    let mut fault = fault("AKV10032");
    fault.challenge_tenant = challenge_tenant(
        r#"Bearer authorization="https://login.microsoftonline.com/theirs", resource="https://vault.azure.net""#,
    );
    let error = fault.explain(&config);
    assert!(error.message().contains("directory theirs"), "{error}");
    assert!(error.message().contains("the login is to ours"), "{error}");
}

#[test]
fn unknown_codes_are_judged_by_their_status() {
    for (status, kind) in [
        (302, ErrorKind::Unexpected),
        (400, ErrorKind::Unexpected),
        (401, ErrorKind::Unauthenticated),
        (403, ErrorKind::PermissionDenied),
        (404, ErrorKind::NotFound),
        (408, ErrorKind::Unavailable),
        (409, ErrorKind::Conflict),
        (429, ErrorKind::Throttled),
        (503, ErrorKind::Unavailable),
    ] {
        let mut fault = fault("BrandNew");
        fault.failure.status = Some(status);
        assert_eq!(fault.explain(&config()).kind(), kind, "{status}");
        fault.failure.nature = Nature::Answered(Vec::new());
        assert_eq!(fault.explain(&config()).kind(), kind, "{status}");
    }
}
