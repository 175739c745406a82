//! Credentials of every kind from files and servers, valid and invalid.
//!
//! Tests that depend on the environment run in separate processes.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::env;
use std::fs;
use std::time::Duration;

use e2e::google::{Google, Options};
use secret_persistence_core::{Error, ErrorKind, SecretPersistence, SecretPersistenceExt};
use secret_persistence_gcp::{Config, GoogleSecretManager, SETTINGS};
use support::{Setup, google, google_with, store, write};

/// With one setting for credentials.
async fn with(google: &Google, name: &'static str, value: &str) -> GoogleSecretManager {
    let setup = Setup::new(google.project(), &google.endpoint()).set(name, value);
    setup.connect().await
}

async fn refused(store: &GoogleSecretManager) -> Error {
    store.write(write("v")).await.unwrap_err()
}

/// The text of every kind of credentials file works, and contains the identity.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_file_works() {
    let google = google().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, google.subject_token()).unwrap();
    for (json, principal) in [
        (
            google.service_account_json(),
            google.service_account().to_owned(),
        ),
        (
            google.user_credentials_json(),
            "the user of gcloud's login".to_owned(),
        ),
        (
            google.impersonated_json(),
            google.impersonated_account().to_owned(),
        ),
        (
            google.external_account_json(&token),
            "//iam.googleapis.com/".to_owned(),
        ),
    ] {
        let store = with(&google, "credentials", &json).await;
        let write = write("v");
        store.write(write.clone()).await.unwrap();
        let read = store.read(&write.coordinate.into()).await.unwrap();
        assert_eq!(read.value, write.value);
        let identity = store.identity().await.unwrap();
        assert!(identity.principal.starts_with(&principal), "{identity}");
    }
    // A key signs tokens itself, without any request.
    google.reset();
    let store = with(&google, "credentials", &google.service_account_json()).await;
    store.write(write("v")).await.unwrap();
    assert_eq!(google.requests().len(), 2);
}

/// Each source fails in its own way, and the error contains the remedy.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_a_token_is_explained() {
    let google = google().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "canary").unwrap();
    let user = google.user_credentials_json();
    let revoked = user.replace("\"refresh_token\": \"", "\"refresh_token\": \"canary");
    assert_ne!(user, revoked);
    let mut broken: serde_json::Value =
        serde_json::from_str(&google.service_account_json()).unwrap();
    broken["private_key"] =
        "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n".into();
    let absent = folder.path().join("canary-absent");
    for (json, text) in [
        (revoked, "refuses the credentials (HTTP 4"),
        (
            google.external_account_json(&token),
            "refuses the credentials (HTTP 4",
        ),
        (
            google.external_account_json(&absent),
            "cannot produce an access token",
        ),
        (broken.to_string(), "cannot produce an access token"),
    ] {
        let error = refused(&with(&google, "credentials", &json).await).await;
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        assert!(error.message().contains(text), "{text}: {error}");
        assert!(
            error.hint().unwrap().contains("tried: the credentials"),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
    google.switches(|switches| switches.deny("iam.serviceAccounts.getAccessToken"));
    let impersonated = google.impersonated_json();
    let error = refused(&with(&google, "credentials", &impersonated).await).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("roles/iam.serviceAccountTokenCreator"),
        "{hint}"
    );
}

/// A key is rotated while the service is running: the file is read again when it changes, and when
/// Google refuses its contents.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_is_read_again_when_it_changes_or_is_refused() {
    let google = google().await;
    let path = google.service_account_file().unwrap();
    let store = with(&google, "credentials-file", path.to_str().unwrap()).await;
    store.write(write("v")).await.unwrap();

    // Changed before any refusal: no request is refused.
    let new = google.rotate_key().unwrap();
    fs::write(&path, &new).unwrap();
    store.write(write("v")).await.unwrap();

    // Revoked first: refused, and not retryable while the file is unchanged.
    let new = google.rotate_key().unwrap();
    let error = refused(&store).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(!error.is_retryable(), "{error}");
    fs::write(&path, &new).unwrap();
    store.write(write("v")).await.unwrap();

    // Changed without a visible change of the file's time and length: the refusal reveals it, and
    // is retryable.
    let padded = |json: &str| format!("{json:<8192}");
    fs::write(&path, padded(&new)).unwrap();
    store.write(write("v")).await.unwrap();
    let stamp = fs::metadata(&path).unwrap().modified().unwrap();
    let new = google.rotate_key().unwrap();
    fs::write(&path, padded(&new)).unwrap();
    let file = fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(stamp).unwrap();
    let error = refused(&store).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(error.is_retryable(), "{error}");
    store.write(write("v")).await.unwrap();

    fs::remove_file(&path).unwrap();
    let error = refused(&store).await;
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.message().contains("cannot be read"), "{error}");
}

/// Expiring tokens are renewed automatically, for any number of concurrent callers.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_end_are_renewed() {
    let google = google_with(|switches| switches.token_lifetime = Duration::from_secs(2)).await;
    let store = with(&google, "credentials", &google.user_credentials_json()).await;
    let writes: Vec<_> = (0..20).map(|_| write("v")).collect();
    for written in store.write_many(&writes).await {
        written.unwrap();
    }
    assert_eq!(google.count("Token"), 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let names: Vec<_> = writes
        .iter()
        .map(|write| write.coordinate.clone().into())
        .collect();
    for read in store.read_many(&names).await {
        read.unwrap();
    }
    assert!(google.count("Token") <= 3, "{}", google.count("Token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_may_be_asked_without_credentials() {
    let google = google().await;
    let anonymous = with(&google, "credentials-source", "anonymous").await;
    assert!(
        anonymous
            .identity()
            .await
            .unwrap()
            .principal
            .contains("anonymous")
    );
    let error = refused(&anonymous).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert!(error.message().contains("without credentials"), "{error}");
}

/// The sources in the environment, each in a process with only this one.
#[test]
fn application_default_credentials_are_found_where_google_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let google = runtime.block_on(Google::start(Options::default())).unwrap();
    let (endpoint, project) = (google.endpoint(), google.project().to_owned());
    let place = [
        ("ENDPOINT", endpoint.as_str()),
        ("PROJECT", project.as_str()),
    ];
    let home = tempfile::tempdir().unwrap();
    let run = |more: &[(&str, &str)]| {
        let environment = [&place[..], more].concat();
        e2e::in_a_process_of_its_own("child_writes", home.path(), &environment);
    };

    // A file in the variable.
    let file = google.service_account_file().unwrap();
    let file = file.to_str().unwrap();
    let email = google.service_account();
    run(&[("GOOGLE_APPLICATION_CREDENTIALS", file), ("EXPECT", email)]);
    // The metadata server, by default and exclusively.
    let metadata = google.metadata_host();
    let metadata = ("GCE_METADATA_HOST", metadata.as_str());
    let of_metadata = ("EXPECT", "the service account of the metadata server");
    run(&[metadata, of_metadata]);
    run(&[
        metadata,
        of_metadata,
        ("SECRET_STORE_GCP_CREDENTIALS_SOURCE", "metadata"),
    ]);
    // A missing file is not skipped.
    let missing = ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json");
    run(&[
        missing,
        metadata,
        ("REFUSED", "/nowhere/key.json cannot be read"),
    ]);
    // None.
    let none = ("GCE_METADATA_HOST", "metadata.invalid");
    run(&[none, ("REFUSED", "no Google credentials were found")]);
    run(&[
        none,
        (
            "REFUSED",
            "application_default_credentials.json (does not exist)",
        ),
    ]);
    // gcloud's login, in the home directory.
    let folder = home.path().join(".config/gcloud");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("application_default_credentials.json");
    fs::write(file, google.user_credentials_json()).unwrap();
    run(&[none, ("EXPECT", "the user of gcloud's login")]);
    // The text in the settings has precedence over all of them.
    let text = google.service_account_json();
    run(&[
        none,
        ("SECRET_STORE_GCP_CREDENTIALS", &text),
        ("EXPECT", email),
    ]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by application_default_credentials_are_found_where_google_says"]
async fn child_writes() {
    let variable = |name: &str| env::var(name).ok();
    let settings = SETTINGS.from_env(&|name| match name {
        "SECRET_STORE_GCP_PROJECT_ID" => variable("PROJECT"),
        "SECRET_STORE_GCP_ENDPOINT_URL" => variable("ENDPOINT"),
        _ => variable(name),
    });
    let config = Config::from_settings(&settings).unwrap();
    let store = GoogleSecretManager::connect(config).await.unwrap();
    let written = store.write(write("v")).await;
    match variable("REFUSED") {
        Some(text) => {
            let error = written.unwrap_err();
            assert!(error.to_string().contains(&text), "{error}");
        }
        None => {
            written.unwrap();
            let identity = store.identity().await.unwrap();
            assert_eq!(identity.principal, variable("EXPECT").unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_store_serves_many_callers_from_the_start() {
    let google = google().await;
    let store = store(&google).await;
    let writes: Vec<_> = (0..100).map(|_| write("v")).collect();
    for written in store.write_many(&writes).await {
        written.unwrap();
    }
}
