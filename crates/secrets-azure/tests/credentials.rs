//! Logins of every kind, valid and invalid: the error is sufficient for an operator.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use e2e::azure::{Azure, FederatedToken};
use secret_persistence_azure::AzureKeyVault;
use secret_persistence_core::{
    Coordinate, Error, ErrorKind, SecretPersistence, SecretPersistenceExt,
};
use support::{
    Identity, Setup, SomebodyElse, application, client_secret, config, coordinate, open, stand_in,
    with_identity, workload, write,
};

async fn read(store: &AzureKeyVault) -> Error {
    store.read(&coordinate().into()).await.unwrap_err()
}

/// The error of a read with other credentials: its kind, and the required words.
async fn refused(azure: &Azure, identity: Identity, says: &[&str]) {
    let store = open(with_identity(azure, identity)).await;
    let error = read(&store).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    for text in says {
        assert!(error.to_string().contains(text), "`{text}`: {error}");
    }
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
    assert!(!error.is_retryable(), "{error}");
    assert!(!format!("{error:?}").contains(azure.client_secret()));
}

#[tokio::test]
async fn a_wrong_client_secret_says_what_is_wrong_with_it() {
    let azure = stand_in().await;
    let (tenant, client, secret) = (azure.tenant_id(), azure.client_id(), azure.client_secret());
    refused(
        &azure,
        client_secret(tenant, client, "the secret's id"),
        &["refuses the client secret", "value, not its id"],
    )
    .await;
    refused(
        &azure,
        client_secret(tenant, "00000000-0000-0000-0000-000000000001", secret),
        &["no application with this client id"],
    )
    .await;
    refused(
        &azure,
        client_secret("00000000-0000-0000-0000-000000000002", client, secret),
        &["does not know this tenant", "az account show"],
    )
    .await;
    // A real directory, but not the vault's.
    let other = azure.other_tenant_id().to_owned();
    refused(
        &azure,
        client_secret(&other, client, secret),
        &["another directory", tenant, &other],
    )
    .await;
    azure.switches(|switches| switches.client_secret_expired = true);
    refused(
        &azure,
        client_secret(tenant, client, secret),
        &["has expired", "az ad app credential reset"],
    )
    .await;
}

#[tokio::test]
async fn an_authority_that_fails_is_told_from_one_that_refuses() {
    let azure = stand_in().await;
    for (status, kind) in [(503, ErrorKind::Unavailable), (429, ErrorKind::Throttled)] {
        azure.switches(|switches| switches.entra_failure = Some(status));
        let error = read(&open(config(&azure)).await).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            error.is_retryable() && error.to_string().contains("login"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_login_serves_any_number_of_callers() {
    let azure = stand_in().await;
    azure.switches(|switches| switches.latency = Duration::from_millis(50));
    let store: Arc<dyn SecretPersistence> = Arc::new(open(config(&azure)).await);
    let names: Vec<Coordinate> = (0..50).map(|_| coordinate().into()).collect();
    for result in store.read_many(&names).await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(azure.count("Token"), 1);
    // A later call makes no login and gets no challenge.
    azure.reset();
    store.read(&names[0]).await.unwrap_err();
    assert_eq!(azure.count("GetSecret"), 1);
    assert_eq!(azure.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_is_not_made_by_every_caller() {
    let azure = stand_in().await;
    azure.switches(|switches| {
        switches.latency = Duration::from_millis(100);
        switches.client_secret_expired = true;
    });
    let store: Arc<dyn SecretPersistence> = Arc::new(open(config(&azure)).await);
    let names: Vec<Coordinate> = (0..50).map(|_| coordinate().into()).collect();
    for result in store.read_many(&names).await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
    assert!(azure.count("Token") <= 3, "{} logins", azure.count("Token"));
}

#[tokio::test]
async fn a_token_that_ends_is_replaced() {
    let azure = stand_in().await;
    azure.switches(|switches| switches.token_lifetime = Duration::from_secs(2));
    let store = open(config(&azure)).await;
    let there = write();
    store.write(there.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let read = store.read(&there.coordinate.into()).await.unwrap();
    assert_eq!(read.value, there.value);
    assert!(azure.count("Token") >= 2);
}

#[tokio::test]
async fn a_token_that_the_vault_calls_expired_is_blamed_on_the_clock() {
    let azure = stand_in().await;
    azure.switches(|switches| switches.clock_ahead = Duration::from_secs(7200));
    refused(
        &azure,
        client_secret(azure.tenant_id(), azure.client_id(), azure.client_secret()),
        &["has expired", "clock"],
    )
    .await;
}

#[tokio::test]
async fn a_challenge_for_another_resource_is_not_followed() {
    let azure = stand_in().await;
    let store = open(config(&azure).set("verify-challenge", true)).await;
    let error = read(&store).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(
        error.message().contains("host does not belong to"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("verify-challenge"));
    assert_eq!(azure.count("Token"), 0);
}

/// The default: a vault below its resource's domain needs no other setting.
#[tokio::test]
async fn a_challenge_for_the_vaults_own_cloud_is_followed() {
    let azure = stand_in().await;
    let setup = Setup::new(&azure.named_vault_url())
        .set("ca-file", azure.ca_file().display())
        .set("authority-host", azure.authority_host())
        .identity(application(&azure));
    let error = read(&open(setup).await).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(azure.count("Token"), 1);
}

#[tokio::test]
async fn the_identity_is_what_the_token_says() {
    let azure = stand_in().await;
    let identity = open(config(&azure)).await.identity().await.unwrap();
    assert_eq!(identity.store, "azure");
    for part in [azure.client_id(), azure.tenant_id()] {
        assert!(identity.principal.contains(part), "{identity}");
    }
    assert!(identity.location.starts_with("vault localhost:"));
    // Without any permission, the vault still knows us. Behind a firewall it knows no one.
    azure.switches(|switches| switches.allow_only(&[]));
    open(config(&azure)).await.identity().await.unwrap();
    azure.switches(|switches| switches.firewall = e2e::azure::Firewall::AddressNotAllowed);
    let error = open(config(&azure)).await.identity().await.unwrap_err();
    assert!(error.message().contains("firewall"), "{error}");
}

#[tokio::test]
async fn a_federated_token_is_read_again_at_every_login() {
    let azure = stand_in().await;
    azure.switches(|switches| switches.token_lifetime = Duration::from_secs(2));
    let file = azure.federated_token_file().to_owned();
    let store = open(with_identity(&azure, workload(&azure, &file))).await;
    assert_eq!(read(&store).await.kind(), ErrorKind::NotFound);

    // Kubernetes has replaced the token: first with a refused one, then with a valid one.
    let mut token = FederatedToken::default();
    token.subject = "system:serviceaccount:other:secrets".to_owned();
    azure.write_federated_token(&token).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let error = read(&store).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    azure
        .write_federated_token(&FederatedToken::default())
        .unwrap();
    // A failed login is not repeated immediately.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(read(&store).await.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_wrong_federated_token_says_what_does_not_fit() {
    let azure = stand_in().await;
    let file = azure.federated_token_file().to_owned();
    let change = |change: fn(&mut FederatedToken)| {
        let mut token = FederatedToken::default();
        change(&mut token);
        token
    };
    for (token, says) in [
        (
            change(|token| token.subject = "system:serviceaccount:x:y".to_owned()),
            "issuer, subject",
        ),
        (
            change(|token| token.audience = "api://other".to_owned()),
            "issuer, subject",
        ),
        (
            change(|token| token.issuer = "https://other.example/".to_owned()),
            "issuer, subject",
        ),
        (change(|token| token.lifetime = -3600), "expired"),
    ] {
        azure.write_federated_token(&token).unwrap();
        refused(&azure, workload(&azure, &file), &[says]).await;
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, text, says) in [
        ("missing", None, "cannot be read"),
        ("empty", Some("\n"), "cannot be read"),
        (
            "garbage",
            Some("canary"),
            "cannot verify the service account's token",
        ),
    ] {
        let path = folder.path().join(name);
        if let Some(text) = text {
            fs::write(&path, text).unwrap();
        }
        refused(&azure, workload(&azure, &path), &[says, "federated"]).await;
    }
}

/// Runs a child with the environment of App Service, and what it needs to find the stand-in.
async fn in_app_service(azure: &Azure, test: &'static str, header: &str, client_id: &str) {
    let endpoint = azure.managed_identity_endpoint();
    let (vault, ca) = (
        azure.vault_url(),
        azure.ca_file().to_str().unwrap().to_owned(),
    );
    let (header, client_id) = (header.to_owned(), client_id.to_owned());
    tokio::task::spawn_blocking(move || {
        let home = tempfile::tempdir().unwrap();
        e2e::in_a_process_of_its_own(
            test,
            home.path(),
            &[
                ("IDENTITY_ENDPOINT", &endpoint),
                ("IDENTITY_HEADER", &header),
                ("TEST_VAULT", &vault),
                ("TEST_CA", &ca),
                ("TEST_CLIENT_ID", &client_id),
            ],
        );
    })
    .await
    .unwrap();
}

/// The store of a child, from the variables that its parent set.
async fn child_store(identity: Identity) -> AzureKeyVault {
    let variable = |name: &str| std::env::var(name).unwrap();
    let setup = Setup::new(&variable("TEST_VAULT"))
        .set("ca-file", variable("TEST_CA"))
        .set("verify-challenge", false)
        .identity(identity);
    open(setup).await
}

fn child_identity() -> Identity {
    let id = std::env::var("TEST_CLIENT_ID").unwrap();
    let client = (!id.is_empty()).then_some(("client-id", id));
    let managed = [("credentials", "managed-identity".to_owned())];
    managed.into_iter().chain(client).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn managed_identities_are_those_of_the_machine() {
    let azure = stand_in().await;
    let header = azure.managed_identity_header().to_owned();
    let assigned = azure.managed_identity_client_id().to_owned();
    for id in ["", &assigned] {
        in_app_service(&azure, "child_has_a_managed_identity", &header, id).await;
    }
    assert_eq!(azure.count("ManagedIdentityToken"), 2);
    let unknown = "00000000-0000-0000-0000-000000000003";
    in_app_service(&azure, "child_has_no_such_identity", &header, unknown).await;
    in_app_service(&azure, "child_is_refused_by_the_endpoint", "wrong", "").await;
}

#[tokio::test]
#[ignore = "run by managed_identities_are_those_of_the_machine"]
async fn child_has_a_managed_identity() {
    let store = child_store(child_identity()).await;
    let there = write();
    store.write(there.clone()).await.unwrap();
    let read = store.read(&there.coordinate.into()).await.unwrap();
    assert_eq!(read.value, there.value);
}

#[tokio::test]
#[ignore = "run by managed_identities_are_those_of_the_machine"]
async fn child_has_no_such_identity() {
    let error = read(&child_store(child_identity()).await).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(
        error
            .message()
            .contains("does not have this managed identity"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("az vm identity assign"));
}

#[tokio::test]
#[ignore = "run by managed_identities_are_those_of_the_machine"]
async fn child_is_refused_by_the_endpoint() {
    let error = read(&child_store(child_identity()).await).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(
        error.message().contains("metadata service refuses"),
        "{error}"
    );
}

/// No machine has a managed identity with this id.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_identity_says_what_to_do() {
    let azure = stand_in().await;
    let (vault, ca) = (
        azure.vault_url(),
        azure.ca_file().to_str().unwrap().to_owned(),
    );
    let run = move || {
        let home = tempfile::tempdir().unwrap();
        let id = "00000000-0000-0000-0000-000000000004";
        let environment = [
            ("TEST_VAULT", &*vault),
            ("TEST_CA", &ca),
            ("TEST_CLIENT_ID", id),
        ];
        e2e::in_a_process_of_its_own("child_is_not_on_azure", home.path(), &environment);
    };
    tokio::task::spawn_blocking(run).await.unwrap();
}

#[tokio::test]
#[ignore = "run by a_machine_without_identity_says_what_to_do"]
async fn child_is_not_on_azure() {
    let error = read(&child_store(child_identity()).await).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let message = error.message();
    assert!(
        message.contains("managed identity") || message.contains("metadata service"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("client id"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn developer_tools_are_asked_and_their_words_are_not_repeated() {
    let azure = stand_in().await;
    let token = SomebodyElse::new(&azure).token().await;
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_owned();
    let path = format!("{}:/usr/bin:/bin", home.display());
    let (vault, ca) = (
        azure.vault_url(),
        azure.ca_file().to_str().unwrap().to_owned(),
    );
    let run = |test: &'static str| {
        let (home, path, vault, ca) = (home.clone(), path.clone(), vault.clone(), ca.clone());
        tokio::task::spawn_blocking(move || {
            let environment = [("PATH", &*path), ("TEST_VAULT", &vault), ("TEST_CA", &ca)];
            e2e::in_a_process_of_its_own(test, &home, &environment);
        })
    };
    // Neither is installed.
    run("child_has_no_developer_tools").await.unwrap();
    let script = |text: &str| {
        let file = home.join("az");
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, mode).unwrap();
    };
    script("echo 'canary: please run az login' >&2; exit 1");
    run("child_has_no_developer_tools").await.unwrap();
    script(&format!(
        "echo '{{\"accessToken\":\"{token}\",\"expires_on\":4102444800,\"tokenType\":\"Bearer\"}}'"
    ));
    run("child_has_developer_tools").await.unwrap();
}

#[tokio::test]
#[ignore = "run by developer_tools_are_asked_and_their_words_are_not_repeated"]
async fn child_has_no_developer_tools() {
    let error = read(&child_store(vec![("credentials", "developer-tools".to_owned())]).await).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.hint().unwrap().contains("az login"), "{error}");
    assert!(!format!("{error} {error:?}").contains("canary"));
}

#[tokio::test]
#[ignore = "run by developer_tools_are_asked_and_their_words_are_not_repeated"]
async fn child_has_developer_tools() {
    let error = read(&child_store(vec![("credentials", "developer-tools".to_owned())]).await).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
