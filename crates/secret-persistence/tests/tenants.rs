//! Settings that a tenant must not set: one test per refusal, through the façade.

// Clippy recognises only functions with the test attribute as tests, which helpers lack.
#![allow(clippy::unwrap_used)]

use secret_persistence::{Environment, ErrorKind, Settings, Tenant, connect};
use serde_json::{Value, json};

#[track_caller]
fn refused(settings: &Value, expected: &str) {
    let error = Settings::from_tenant_json(&settings.to_string(), &Tenant::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let text = error.to_string();
    assert!(text.contains(expected), "{expected}: {text}");
    assert!(!format!("{text} {error:?}").contains("canary"), "{error:?}");
}

#[track_caller]
fn fine(settings: &Value, tenant: &Tenant) -> Settings {
    Settings::from_tenant_json(&settings.to_string(), tenant).unwrap()
}

fn vault(address: &str) -> Value {
    json!({"address": address, "token": "canary", "prefix": "secret/"})
}

fn azure(url: &str) -> Value {
    json!({
        "vaultUrl": url,
        "tenantId": "12345678-1234-1234-1234-123456789012",
        "clientId": "87654321-4321-4321-4321-210987654321",
        "clientSecret": "canary"
    })
}

fn google(changes: &[(&str, &str)]) -> Value {
    let mut key = json!({
        "type": "service_account",
        "project_id": "cloud-proj",
        "private_key_id": "2f3b9c8e7d5a1b4f23e697c0d84af6e1",
        "private_key": "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
        "client_email": "x@cloud-proj.iam.gserviceaccount.com",
        "client_id": "9876543210987654321",
        "token_uri": "https://oauth2.googleapis.com/token"
    });
    for (name, value) in changes {
        key[*name] = json!(value);
    }
    json!({"gcpProjectId": "cloud-proj", "gcpCredentialsJson": key.to_string()})
}

fn aws(region: &str) -> Value {
    json!({
        "auth_type": "ACCESS_KEY",
        "awsAccessKey": "AKIAEXAMPLE",
        "awsSecretAccessKey": "canary",
        "awsRegion": region,
        "tagKey": "AirbyteManaged"
    })
}

#[test]
fn settings_with_credentials_of_the_tenants_own_are_taken() {
    let tenant = Tenant::new();
    fine(&aws("eu-west-1"), &tenant);
    fine(&azure("https://my-vault.vault.azure.net/"), &tenant);
    fine(&google(&[]), &tenant);
    fine(&vault("https://vault.tenant.example:8200"), &tenant);
}

#[test]
fn ambient_identity_of_aws() {
    let role = json!({
        "auth_type": "IAM_ROLE",
        "roleArn": "arn:aws:iam::123456789012:role/x",
        "awsRegion": "eu-west-1",
        "tagKey": "T"
    });
    refused(&role, "access key");
}

#[test]
fn ambient_identity_of_azure_google_and_vault() {
    let without = |mut settings: Value, key: &str| {
        settings[key] = json!("");
        settings
    };
    refused(
        &without(azure("https://my-vault.vault.azure.net"), "clientSecret"),
        "`clientSecret` is empty",
    );
    refused(
        &without(google(&[]), "gcpCredentialsJson"),
        "`gcpCredentialsJson` is empty",
    );
    refused(
        &without(vault("https://v.example"), "token"),
        "`token` is empty",
    );
}

#[test]
fn the_environment_of_the_platform() {
    let environment = Environment::from_iter([
        ("AWS_SECRET_MANAGER_ACCESS_KEY_ID", "the platform's"),
        ("AWS_ENDPOINT_URL", "https://attacker.example"),
        ("VAULT_NAMESPACE", "the platform's"),
        ("SECRETS_OWNER", "the_platform"),
    ]);
    let tenant = Tenant::new().with_environment(&environment);
    let settings = fine(&vault("https://v.example"), &tenant);
    assert_eq!(
        settings.store().names().collect::<Vec<_>>(),
        ["address", "prefix", "token"]
    );
}

#[test]
fn files_endpoints_and_authorities_have_no_place_in_the_json() {
    for (mut settings, key) in [
        (aws("eu-west-1"), "endpoint-url"),
        (aws("eu-west-1"), "profile"),
        (azure("https://my-vault.vault.azure.net"), "authorityHost"),
        (azure("https://my-vault.vault.azure.net"), "ca-file"),
        (google(&[]), "endpoint-url"),
        (google(&[]), "credentials-file"),
        (vault("https://v.example"), "token-file"),
        (vault("https://v.example"), "ca-file"),
    ] {
        settings[key] = json!("canary");
        refused(&settings, "unknown setting");
    }
    for mut settings in [
        azure("https://my-vault.vault.azure.net"),
        vault("https://v.example"),
    ] {
        settings["caFile"] = json!("/canary.pem");
        refused(&settings, "only the operator may set `ca-file`");
    }
}

#[test]
fn placeholders() {
    for canary in [
        "${CANARY}",
        "<canary>",
        "ref+vault://canary/a#/b",
        "ENC[AES256_GCM,data:canary,type:str]",
    ] {
        let mut settings = vault("https://v.example");
        settings["token"] = json!(canary);
        refused(&settings, "`token` contains a placeholder");
    }
}

#[test]
fn plain_http() {
    refused(&vault("http://vault.tenant.example"), "https");
    refused(&vault("http://127.0.0.1:8200"), "https");
    refused(&azure("http://my-vault.vault.azure.net"), "https");
}

#[test]
fn google_credentials_of_another_type() {
    let user = [
        ("type", "authorized_user"),
        ("client_secret", "canary"),
        ("refresh_token", "canary"),
    ];
    refused(&google(&user), "service account");
    for kind in ["external_account", "impersonated_service_account", "x"] {
        refused(&google(&[("type", kind)]), "");
    }
}

#[test]
fn google_credentials_with_another_token_address() {
    for address in [
        "https://attacker.example/token",
        "http://169.254.169.254/token",
        "http://oauth2.googleapis.com/token",
    ] {
        refused(&google(&[("token_uri", address)]), "token");
    }
}

#[test]
fn hosts_outside_the_providers_own() {
    for host in [
        "https://attacker.example",
        "https://my-vault.vault.azure.net.attacker.example",
        "https://localhost",
        "https://169.254.169.254",
        "https://my-vault.vault.azure.net@attacker.example",
    ] {
        refused(&azure(host), "");
    }
}

#[test]
fn addresses_of_this_network() {
    for address in [
        "https://127.0.0.1:8200",
        "https://10.0.0.1",
        "https://192.168.1.1",
        "https://169.254.169.254",
        "https://[::1]:8200",
        "https://[fe80::1]",
        "https://[::ffff:169.254.169.254]",
    ] {
        refused(&vault(address), "public internet");
    }
}

/// A name has no address before it is resolved, and the connection uses the checked address.
#[tokio::test]
async fn names_of_addresses_of_this_network() {
    let settings = fine(&vault("https://localhost:1"), &Tenant::new());
    let error = connect(settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.message().contains("public internet"), "{error}");
    // If the operator lists the host, the store connects to it, and nothing listens there.
    let listed = Tenant::new().with_allowed_hosts(["localhost"]);
    let settings = fine(&vault("https://localhost:1"), &listed)
        .with("retry-attempts", "1")
        .unwrap();
    let error = connect(settings).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn hosts_smuggled_into_a_region_or_a_project() {
    for region in [
        "attacker.example/",
        "eu-west-1.attacker.example",
        "eu-west-1#",
    ] {
        refused(&aws(region), "region");
    }
    for region in ["attacker.example/x", "us-central1.attacker.example", "../x"] {
        let mut settings = google(&[]);
        settings["region"] = json!(region);
        refused(&settings, "region");
    }
    for project in ["attacker.example/x", "../x", "a b"] {
        let mut settings = google(&[]);
        settings["gcpProjectId"] = json!(project);
        refused(&settings, "project");
    }
}

#[test]
fn databases() {
    refused(
        &json!({"url": "postgres://u:canary@10.0.0.1/d"}),
        "no known form",
    );
    refused(
        &json!({"host": "10.0.0.1", "database": "d", "user": "u", "password": "canary"}),
        "no known form",
    );
}
