//! Tokens, network rules, permissions, traffic.

use std::time::Duration;

use hyper::Method;
use serde_json::json;

use super::{Setup, answer};
use crate::azure::{DATA_ACTIONS, Firewall, Options, PermissionModel};

#[tokio::test]
async fn without_a_token_there_is_a_challenge() {
    let setup = Setup::new().await;
    // Neither body nor version nor a good name is asked for before.
    for (method, path) in [
        (Method::PUT, "/secrets/alpha?api-version=7.6"),
        (Method::GET, "/secrets/not_a_name"),
        (Method::POST, "/keys/alpha/create"),
    ] {
        let url = format!("{}{path}", setup.azure.vault_url());
        let refused = answer(setup.client.request(method, url)).await;
        assert_eq!(refused.refusal(), (401, "Unauthorized", None));
        assert_eq!(
            refused.message(),
            "AKV10000: Request is missing a Bearer or PoP token."
        );
        let challenge = format!(
            "Bearer authorization=\"{}/{}\", resource=\"https://vault.localhost\"",
            setup.azure.authority_host(),
            setup.azure.tenant_id()
        );
        assert_eq!(refused.challenge, Some(challenge));
    }
    assert!(
        setup
            .azure
            .requests()
            .iter()
            .all(|request| !request.authorized)
    );
}

#[tokio::test]
async fn only_a_good_token_is_taken() {
    let mut setup = Setup::new().await;
    let (tenant, other) = (setup.azure.tenant_id(), setup.azure.other_tenant_id());
    let resource = setup.azure.resource();
    let foreign = Setup::new().await.token;
    let mut forged = setup.token.clone();
    // The first letter of a signature has six bits that count.
    let signature = forged.rfind('.').unwrap() + 1;
    let letter = if forged[signature..].starts_with('A') {
        "B"
    } else {
        "A"
    };
    forged.replace_range(signature..=signature, letter);

    let tokens = [
        (
            setup.token_of(other, resource).await,
            "AKV10032: Invalid issuer.",
        ),
        (
            setup.token_of(tenant, "https://management.azure.com").await,
            "AKV10022: Invalid audience.",
        ),
        (
            setup.token_of(tenant, &format!("{resource}/")).await,
            "AKV10022: Invalid audience.",
        ),
        (foreign, "AKV10046: Unable to resolve the key"),
        (forged, "AKV10046: Unable to validate the signature"),
        ("nonsense".into(), "Error validating token"),
    ];
    for (token, message) in tokens {
        setup.token = token;
        let refused = setup.get("/secrets").await;
        assert_eq!(refused.refusal(), (401, "Unauthorized", None), "{message}");
        assert!(
            refused.message().starts_with(message),
            "{}",
            refused.message()
        );
        assert!(refused.challenge.is_some());
    }
}

#[tokio::test]
async fn a_token_ends() {
    let mut setup = Setup::new().await;
    setup
        .azure
        .switches(|switches| switches.clock_ahead = Duration::from_secs(3600));
    let refused = setup.get("/secrets").await;
    assert_eq!(refused.refusal(), (401, "Unauthorized", None));
    assert!(refused.message().starts_with("[TokenExpired]"));

    setup
        .azure
        .switches(|switches| switches.clock_ahead = Duration::ZERO);
    setup.get("/secrets").await.ok();
    setup
        .azure
        .switches(|switches| switches.token_lifetime = Duration::ZERO);
    setup.token = setup.fresh_token().await;
    assert_eq!(setup.get("/secrets").await.status, 401);
}

#[tokio::test]
async fn the_resource_can_be_another_one() {
    let options = Options::default().with_resource("https://vault.azure.net");
    let setup = Setup::with(options).await;
    setup.get("/secrets").await.ok();
    let url = format!("{}/secrets", setup.azure.vault_url());
    let challenge = answer(setup.client.get(url)).await.challenge.unwrap();
    assert!(challenge.ends_with("resource=\"https://vault.azure.net\""));
}

#[tokio::test]
async fn network_rules_come_after_the_token() {
    let setup = Setup::new().await;
    for (rule, inner) in [
        (Firewall::AddressNotAllowed, "ForbiddenByFirewall"),
        (Firewall::PublicAccessDisabled, "ForbiddenByConnection"),
    ] {
        setup.azure.switches(|switches| switches.firewall = rule);
        let refused = setup.get("/secrets").await;
        assert_eq!(refused.refusal(), (403, "Forbidden", Some(inner)));
        assert!(refused.message().contains(setup.azure.client_id()));
        let url = format!("{}/secrets", setup.azure.vault_url());
        assert_eq!(answer(setup.client.get(url)).await.status, 401);
    }
}

#[tokio::test]
async fn each_operation_needs_its_permission() {
    let setup = Setup::new().await;
    setup
        .azure
        .switches(|switches| switches.deleting = Duration::ZERO);
    for name in ["alpha", "gone"] {
        setup.seed(name).await;
    }
    setup.delete("/secrets/gone").await.ok();

    let value = Some(json!({"value": "tr0ub4dor"}));
    let enabled = Some(json!({"attributes": {"enabled": true}}));
    let cases = [
        (
            Method::GET,
            "/secrets/alpha",
            None,
            "getSecret/action",
            "get",
        ),
        (Method::GET, "/secrets", None, "readMetadata/action", "list"),
        (
            Method::GET,
            "/secrets/alpha/versions",
            None,
            "readMetadata/action",
            "list",
        ),
        (
            Method::GET,
            "/deletedsecrets",
            None,
            "readMetadata/action",
            "list",
        ),
        (
            Method::PUT,
            "/secrets/alpha",
            value,
            "setSecret/action",
            "set",
        ),
        (
            Method::PATCH,
            "/secrets/alpha/",
            enabled,
            "update/action",
            "set",
        ),
        (Method::DELETE, "/secrets/alpha", None, "delete", "delete"),
        (
            Method::POST,
            "/deletedsecrets/gone/recover",
            None,
            "recover/action",
            "recover",
        ),
        (
            Method::DELETE,
            "/deletedsecrets/gone",
            None,
            "purge/action",
            "purge",
        ),
    ];
    for (method, path, body, action, permission) in cases {
        let action = format!("Microsoft.KeyVault/vaults/secrets/{action}");
        setup.azure.switches(|switches| {
            switches.allow_all();
            switches.permission_model = PermissionModel::Roles;
            switches.deny(&action);
        });
        let refused = setup.call(method.clone(), path, body.clone()).await;
        assert_eq!(
            refused.refusal(),
            (403, "Forbidden", Some("ForbiddenByRbac")),
            "{path}"
        );
        assert!(refused.message().contains(&format!("Action: '{action}'")));

        setup
            .azure
            .switches(|switches| switches.permission_model = PermissionModel::AccessPolicy);
        let refused = setup.call(method.clone(), path, body.clone()).await;
        assert_eq!(
            refused.refusal(),
            (403, "Forbidden", Some("ForbiddenByPolicy")),
            "{path}"
        );
        let missing = format!("does not have secrets {permission} permission");
        assert!(
            refused.message().contains(&missing),
            "{}",
            refused.message()
        );
    }

    // And nothing but its permission.
    setup.azure.switches(|switches| {
        switches.permission_model = PermissionModel::Roles;
        switches.allow_only(&["Microsoft.KeyVault/vaults/secrets/getSecret/action"]);
    });
    setup.get("/secrets/alpha").await.ok();
    assert_eq!(setup.get("/secrets").await.status, 403);
    setup
        .azure
        .switches(|switches| switches.allow_only(&DATA_ACTIONS));
    setup.get("/secrets").await.ok();
}

#[tokio::test]
#[should_panic(expected = "no data action of secrets: secrets/get")]
async fn a_misspelt_action_is_noticed() {
    let setup = Setup::new().await;
    let mut switches = setup.azure.switches(|switches| switches.clone());
    switches.deny("secrets/get");
}

#[tokio::test]
async fn a_role_assignment_takes_its_time() {
    let setup = Setup::new().await;
    setup
        .azure
        .switches(|switches| switches.assign_role_after(Duration::from_millis(200)));
    let refused = setup.get("/secrets").await;
    assert_eq!(
        refused.refusal(),
        (403, "Forbidden", Some("ForbiddenByRbac"))
    );
    tokio::time::sleep(Duration::from_millis(250)).await;
    setup.get("/secrets").await.ok();
}

#[tokio::test]
async fn traffic_has_limits() {
    let setup = Setup::new().await;
    setup.azure.switches(|switches| {
        switches.throttle_every = Some(2);
        switches.retry_after = Some(7);
    });
    setup.get("/secrets").await.ok();
    let refused = setup.get("/secrets").await;
    assert_eq!(refused.refusal(), (429, "Throttled", None));
    assert_eq!(refused.retry_after.as_deref(), Some("7"));
    setup.get("/secrets").await.ok();

    setup.azure.switches(|switches| {
        switches.throttle_every = None;
        switches.retry_after = None;
        switches.requests_per_second = Some(0);
    });
    let refused = setup.get("/secrets").await;
    assert_eq!(refused.refusal(), (429, "Throttled", None));
    assert_eq!(refused.retry_after, None);
}

#[tokio::test]
async fn the_vault_can_be_down() {
    let setup = Setup::new().await;
    setup
        .azure
        .switches(|switches| switches.failure = Some(503));
    assert_eq!(setup.get("/secrets").await.status, 503);
    setup.azure.switches(|switches| switches.failure = None);
    setup.get("/secrets").await.ok();
}
