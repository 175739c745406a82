//! Tokens for managed identities.

use serde_json::json;

use super::{Answer, Setup, answer};

type Headers<'a> = &'a [(&'a str, &'a str)];

async fn metadata(setup: &Setup, query: &str, headers: Headers<'_>) -> Answer {
    let url = format!("{}?{query}", setup.azure.metadata_endpoint());
    let request = headers
        .iter()
        .fold(setup.client.get(url), |request, (name, value)| {
            request.header(*name, *value)
        });
    answer(request).await
}

async fn app_service(setup: &Setup, query: &str, header: &str) -> Answer {
    let url = format!("{}?{query}", setup.azure.managed_identity_endpoint());
    answer(setup.client.get(url).header("x-identity-header", header)).await
}

#[tokio::test]
async fn a_virtual_machine_has_two_identities() {
    let mut setup = Setup::new().await;
    let query = "api-version=2019-08-01&resource=https://vault.localhost";
    let headers = [("Metadata", "true")];
    let system = metadata(&setup, query, &headers).await.ok();
    let azure = &setup.azure;
    assert_eq!(system["resource"], "https://vault.localhost");
    assert_eq!(system["expires_in"], "3599");
    assert!(
        system["expires_on"]
            .as_str()
            .unwrap()
            .parse::<i64>()
            .is_ok()
    );
    assert_ne!(system["client_id"], azure.managed_identity_client_id());

    for (name, id) in [
        ("client_id", azure.managed_identity_client_id()),
        ("object_id", azure.managed_identity_object_id()),
        ("msi_res_id", azure.managed_identity_resource_id()),
    ] {
        let user = metadata(&setup, &format!("{query}&{name}={id}"), &headers)
            .await
            .ok();
        assert_eq!(user["client_id"], azure.managed_identity_client_id());
    }
    setup.token = system["access_token"].as_str().unwrap().to_owned();
    setup.get("/secrets").await.ok();
}

#[tokio::test]
async fn the_metadata_service_refuses() {
    let setup = Setup::new().await;
    let good = "api-version=2019-08-01&resource=https://vault.localhost";
    let header = ("Metadata", "true");
    let unknown = format!("{good}&client_id=somebody");
    let cases: [(&str, Headers<'_>, &str); 6] = [
        (good, &[], "invalid_request"),
        (
            good,
            &[header, ("X-Forwarded-For", "10.0.0.1")],
            "invalid_request",
        ),
        (
            "resource=https://vault.localhost",
            &[header],
            "invalid_request",
        ),
        ("api-version=2019-08-01", &[header], "invalid_request"),
        (&unknown, &[header], "invalid_request"),
        (
            "api-version=2019-08-01&resource=https://nowhere",
            &[header],
            "invalid_resource",
        ),
    ];
    for (query, headers, error) in cases {
        let refused = metadata(&setup, query, headers).await;
        assert_eq!(refused.status, 400, "{query}");
        assert_eq!(refused.body["error"], error, "{query}");
    }
    setup
        .azure
        .switches(|switches| switches.entra_failure = Some(503));
    assert_eq!(metadata(&setup, good, &[header]).await.status, 503);
}

#[tokio::test]
async fn app_service_asks_for_its_header() {
    let mut setup = Setup::new().await;
    let good = "api-version=2019-08-01&resource=https://vault.localhost";
    let header = setup.azure.managed_identity_header().to_owned();
    let granted = app_service(&setup, good, &header).await.ok();
    assert_eq!(granted["token_type"], "Bearer");
    for (query, header, status) in [
        (good, "guessed", 401),
        ("resource=https://vault.localhost", &header, 400),
        ("api-version=2019-08-01", &header, 400),
        (
            "api-version=2019-08-01&resource=https://nowhere",
            &header,
            400,
        ),
    ] {
        let refused = app_service(&setup, query, header).await;
        assert_eq!(refused.status, status, "{query}");
        assert_eq!(refused.body["statusCode"], json!(status));
    }
    let unknown = format!("{good}&client_id=somebody");
    assert_eq!(app_service(&setup, &unknown, &header).await.status, 400);

    setup.token = granted["access_token"].as_str().unwrap().to_owned();
    setup.get("/secrets").await.ok();
    assert_eq!(setup.azure.count("ManagedIdentityToken"), 6);
}
