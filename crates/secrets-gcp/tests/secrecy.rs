//! Nothing secret appears in errors, Debug or logs, at any level and of any library.
//!
//! In a separate process, because the subscriber is global.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use e2e::Logs;
use std::error::Error as _;
use std::fmt::Write as _;
use std::path::Path;

use google_cloud_auth::credentials::anonymous;
use google_cloud_secretmanager_v1::client::SecretManagerService;
use google_cloud_secretmanager_v1::model::SecretPayload;
use secret_persistence_core::{
    CheckOptions, Coordinate, DeleteOptions, Error, ListOptions, SecretPersistence,
    SecretPersistenceExt, SecretValue, Write,
};
use secret_persistence_gcp::GoogleSecretManager;
use serde_json::json;
use support::gate::{Answer, Gate};
use support::{Setup, coordinate, google, store};

const LINES: [&str; 3] = [
    "canary-line-one",
    "canary line \"two\" \\",
    "canary-line-three-é",
];

/// The lines of the value, and the lines and fields of the key, in the encodings of JSON, Debug,
/// base64 and bytes.
fn canaries(key: &str) -> Vec<String> {
    let content: serde_json::Value = serde_json::from_str(key).unwrap();
    let pem = content["private_key"].as_str().unwrap();
    let of_key = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::to_owned);
    let whole = LINES.join("\n");
    let texts = LINES.iter().map(|line| (*line).to_owned());
    texts
        .chain([whole])
        .chain(of_key)
        .flat_map(|text| {
            let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
            let packed = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &text);
            [
                text.escape_debug().to_string(),
                bytes.join(", "),
                // Without its end, which depends on the following bytes.
                packed[..packed.len() - 4].to_owned(),
                text,
            ]
        })
        .collect()
}

fn leaks(text: &str, canaries: &[String]) -> Vec<String> {
    let found = canaries.iter().filter(|canary| text.contains(*canary));
    found.cloned().collect()
}

/// With the variable that makes the SDK log its requests.
#[test]
fn neither_values_nor_credentials_show_anywhere() {
    e2e::in_a_process_of_its_own(
        "child_shows_nothing",
        Path::new("/"),
        &[("GOOGLE_CLOUD_RUST_LOGGING", "true")],
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by neither_values_nor_credentials_show_anywhere"]
async fn child_shows_nothing() {
    let logs = Logs::default();
    tracing::dispatcher::set_global_default(logs.dispatch()).unwrap();
    let google = google().await;
    let json = google.service_account_json();
    let canaries = canaries(&json);
    let value = SecretValue::new(LINES.join("\n"));
    let mut shown = String::new();

    // Without faults, and with damaged payloads.
    let store = store(&google).await;
    let there = Write::new(coordinate(), value.clone());
    store.write(there.clone()).await.unwrap();
    store.read(&there.coordinate.clone().into()).await.unwrap();
    google.switches(|switches| switches.corrupt_payloads = true);
    let mut errors: Vec<Error> = Vec::new();
    errors.extend(store.read(&there.coordinate.clone().into()).await.err());
    let other = Write::new(there.coordinate.clone(), SecretValue::new("x".into()));
    errors.extend(store.write(other).await.err());
    google.switches(|switches| switches.revoked_keys = true);
    errors.extend(store.read(&there.coordinate.clone().into()).await.err());

    // Every response contains the value: as a result, in an error, and where no value belongs.
    let tokens = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    for status in [200, 400, 401, 500] {
        let body = json!({
            "name": value.expose(),
            "payload": value.expose(),
            "secrets": value.expose(),
            "labels": value.expose(),
            "error": { "code": status, "status": value.expose(), "message": value.expose() },
        })
        .to_string();
        let seen = std::sync::Arc::clone(&tokens);
        let gate = Gate::open(move |request| {
            seen.lock().unwrap().push(request.authorization.clone());
            Answer(status, Vec::new(), body.clone())
        })
        .await;
        let configured = Setup::new("my-project", &gate.url)
            .set("credentials", &json)
            .build()
            .unwrap();
        write!(shown, "{configured:?} {configured:#?}").unwrap();
        let store = GoogleSecretManager::connect(configured).await.unwrap();
        let write = Write::new(coordinate(), value.clone());
        let names: Vec<Coordinate> = vec![coordinate().into(), Coordinate::parse("db").unwrap()];
        errors.extend(store.write(write.clone()).await.err());
        let reads = store.read_batch(&names).await;
        errors.extend(reads.into_iter().filter_map(Result::err));
        let options = DeleteOptions::default();
        errors.extend(store.delete(&write.coordinate, &options).await.err());
        errors.extend(store.restore(&write.coordinate).await.err());
        errors.extend(store.describe(&write.coordinate).await.err());
        errors.extend(store.list_page(&ListOptions::default(), None).await.err());
        let large = SecretValue::new(value.expose().repeat(2000));
        errors.extend(store.write(Write::new(coordinate(), large)).await.err());
        let report = store.check(&CheckOptions::default()).await;
        write!(shown, "{store} {store:?} {store:#?} {report} {report:?}").unwrap();
    }
    assert!(errors.len() >= 3 + 4 * 6, "{}", errors.len());
    for error in &errors {
        write!(shown, "{error} {error:?} {error:#?}").unwrap();
        let mut source = error.source();
        while let Some(error) = source {
            write!(shown, "{error} {error:?} {error:#?}").unwrap();
            source = error.source();
        }
    }
    assert_eq!(leaks(&shown, &canaries), Vec::<String>::new());

    let logged = logs.text();
    // The subscriber was active: it received our own events, and those of the SDK's connections.
    assert!(
        logged.contains("secret_persistence_gcp::client"),
        "{logged}"
    );
    assert!(logged.contains("secretmanager.versions.access"));
    assert_eq!(leaks(&logged, &canaries), Vec::<String>::new());
    let mut tokens = tokens.lock().unwrap().clone();
    tokens.dedup();
    assert!(!tokens.is_empty());
    for token in tokens {
        let token = token.trim_start_matches("Bearer ").to_owned();
        assert!(token.len() > 100);
        assert!(!logged.contains(&token) && !shown.contains(&token));
    }

    // And it would have detected leaks: the SDK's representation of a value prints it, and the bare
    // SDK, which the variable makes log, is not silenced with ours.
    let payload = SecretPayload::new().set_data(value.expose().to_owned());
    assert!(!leaks(&format!("{payload:?}"), &canaries).is_empty());
    let gate = Gate::open(|_| Answer::error(400, "INVALID_ARGUMENT", None)).await;
    let bare = SecretManagerService::builder()
        .with_endpoint(&gate.url)
        .with_credentials(anonymous::Builder::new().build())
        .build()
        .await
        .unwrap();
    let before = logs.text().len();
    bare.get_secret()
        .set_name("projects/my-project/secrets/x")
        .send()
        .await
        .unwrap_err();
    let bare = logs.text()[before..].to_owned();
    assert!(bare.contains("the message of the body: a canary"), "{bare}");
    assert!(!logged.contains("the message of the body"));
}
