//! Tokens for the application.

use serde_json::{Value, json};

use super::{Answer, Setup};
use crate::azure::FederatedToken;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Status, OAuth error and code.
fn refusal(answer: &Answer) -> (u16, &str, Value) {
    let code = answer.body["error_codes"][0].clone();
    let description = answer.body["error_description"].as_str().unwrap();
    assert!(
        description.starts_with(&format!("AADSTS{code}: ")),
        "{description}"
    );
    let error = answer.body["error"].as_str().unwrap();
    (answer.status.as_u16(), error, code)
}

#[tokio::test]
async fn a_grant_is_a_token_for_the_resource() {
    let setup = Setup::new().await;
    let granted = setup.grant(setup.azure.tenant_id(), &[]).await.ok();
    assert_eq!(granted["token_type"], "Bearer");
    assert_eq!(granted["expires_in"], 3599);
    assert_eq!(granted["ext_expires_in"], 3599);
    assert_eq!(
        granted["access_token"].as_str().unwrap().split('.').count(),
        3
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_request_has_a_code() {
    let setup = Setup::new().await;
    let tenant = setup.azure.tenant_id();
    let cases: [(&[(&str, &str)], _); 9] = [
        (&[("grant_type", "")], (400, "invalid_request", 900_144)),
        (
            &[("grant_type", "password")],
            (400, "unsupported_grant_type", 70_003),
        ),
        (&[("client_id", "")], (400, "invalid_request", 900_144)),
        (
            &[("client_id", "somebody")],
            (400, "unauthorized_client", 700_016),
        ),
        (&[("client_secret", "")], (401, "invalid_client", 7_000_216)),
        (
            &[("client_secret", "guessed")],
            (401, "invalid_client", 7_000_215),
        ),
        (&[("scope", "")], (400, "invalid_request", 900_144)),
        (
            &[("scope", "https://vault.localhost")],
            (400, "invalid_scope", 1_002_012),
        ),
        (
            &[("scope", "https://vault.nowhere/.default")],
            (400, "invalid_resource", 500_011),
        ),
    ];
    for (changes, (status, error, code)) in cases {
        let refused = setup.grant(tenant, changes).await;
        assert_eq!(
            refusal(&refused),
            (status, error, json!(code)),
            "{changes:?}"
        );
    }
    let refused = setup.grant("nobody.example.com", &[]).await;
    assert_eq!(refusal(&refused), (400, "invalid_request", json!(90_002)));

    setup
        .azure
        .switches(|switches| switches.client_secret_expired = true);
    let refused = setup.grant(tenant, &[]).await;
    assert_eq!(refusal(&refused), (401, "invalid_client", json!(7_000_222)));

    setup
        .azure
        .switches(|switches| switches.entra_failure = Some(503));
    assert_eq!(setup.grant(tenant, &[]).await.status, 503);
}

#[tokio::test]
async fn a_federated_token_is_checked() {
    let setup = Setup::new().await;
    let token = |change: fn(&mut FederatedToken)| {
        let mut token = FederatedToken::default();
        change(&mut token);
        setup.azure.write_federated_token(&token).unwrap();
        std::fs::read_to_string(setup.azure.federated_token_file()).unwrap()
    };
    let exchange = async |assertion: &str| {
        let changes = [
            ("client_secret", ""),
            ("client_assertion", assertion),
            ("client_assertion_type", ASSERTION_TYPE),
        ];
        setup.grant(setup.azure.tenant_id(), &changes).await
    };
    let good = std::fs::read_to_string(setup.azure.federated_token_file()).unwrap();
    exchange(&good).await.ok();

    let foreign = Setup::new().await;
    let foreign = std::fs::read_to_string(foreign.azure.federated_token_file()).unwrap();
    for (assertion, code) in [
        (
            token(|token| token.audience = "https://cluster.localhost/".into()),
            700_212,
        ),
        (
            token(|token| token.issuer = "https://elsewhere.localhost/".into()),
            700_211,
        ),
        (token(|token| token.lifetime = -600), 700_024),
        (
            token(|token| token.subject = "system:serviceaccount:platform:Secrets".into()),
            700_213,
        ),
        (foreign, 700_211),
        ("nonsense".into(), 50_027),
    ] {
        let refused = exchange(&assertion).await;
        assert_eq!(refusal(&refused), (401, "invalid_client", json!(code)));
    }

    let changes = [
        ("client_secret", ""),
        ("client_assertion", good.as_str()),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
        ),
    ];
    let refused = setup.grant(setup.azure.tenant_id(), &changes).await;
    assert_eq!(refusal(&refused), (401, "invalid_client", json!(50_027)));
}
