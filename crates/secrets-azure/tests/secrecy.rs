//! Nothing secret appears in errors, Debug or logs, at any level and of any library.
//!
//! In a separate process, because the subscriber is global.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use e2e::Logs;
use std::error::Error as _;
use std::fmt::Write as _;
use std::fs;

use secret_persistence_core::{
    CheckOptions, DeleteOptions, Error, ListOptions, SecretPersistence, SecretPersistenceExt,
    SecretValue, Write,
};
use support::{SomebodyElse, config, coordinate, open, stand_in, with_identity, workload};

const LINES: [&str; 3] = [
    "canary-line-one",
    "canary line \"two\" \\",
    "canary-line-three-é",
];

/// A secret in the encodings of JSON, Debug, forms and URLs.
fn forms(secret: &str) -> Vec<String> {
    let bytes: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    vec![
        secret.to_owned(),
        secret.escape_debug().to_string(),
        serde_json::to_string(secret)
            .unwrap()
            .trim_matches('"')
            .to_owned(),
        form,
        // As Debug shows bytes.
        bytes.join(", "),
    ]
}

fn leaks(text: &str, canaries: &[String]) -> Vec<String> {
    let found = canaries.iter().filter(|canary| text.contains(*canary));
    found.cloned().collect()
}

#[test]
fn neither_values_nor_credentials_show_anywhere() {
    let home = tempfile::tempdir().unwrap();
    e2e::in_a_process_of_its_own("child_shows_nothing", home.path(), &[]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by neither_values_nor_credentials_show_anywhere"]
async fn child_shows_nothing() {
    let logs = Logs::default();
    tracing::dispatcher::set_global_default(logs.dispatch()).unwrap();
    let azure = stand_in().await;
    let value = SecretValue::new(LINES.join("\n"));
    let federated = fs::read_to_string(azure.federated_token_file()).unwrap();
    let mut canaries: Vec<String> = LINES.iter().flat_map(|line| forms(line)).collect();
    canaries.extend(forms(azure.client_secret()));
    canaries.extend(forms(federated.trim()));
    // All tokens of the directory begin alike, and end with a unique signature.
    let token = SomebodyElse::new(&azure).token().await;
    let (head, _) = token.split_once('.').unwrap();
    canaries.push(head.to_owned());
    let before = logs.text().len();

    let mut shown = String::new();
    let identity = workload(&azure, azure.federated_token_file());
    // A vault that works, and some that fail in each way.
    for round in 0..7 {
        azure.switches(|switches| {
            switches.failure = (round == 1).then_some(500);
            switches.throttle_every = (round == 2).then_some(1);
            switches.entra_failure = (round == 3).then_some(500);
            switches.client_secret_expired = round == 4;
            if round == 5 {
                switches.allow_only(&[]);
            } else {
                switches.allow_all();
            }
        });
        let setup = if round == 6 {
            with_identity(&azure, identity.clone())
        } else {
            config(&azure)
        };
        let setup = setup
            .set("purge", "on-request")
            .set("on-deleted", "recover");
        write!(shown, "{:?}", setup.clone().build()).unwrap();
        let store = open(setup).await;
        let there = Write::new(coordinate(), value.clone());
        let mut errors: Vec<Error> = Vec::new();
        errors.extend(store.write(there.clone()).await.err());
        errors.extend(store.write(there.clone()).await.err());
        errors.extend(store.read(&there.coordinate.clone().into()).await.err());
        errors.extend(store.describe(&there.coordinate).await.err());
        errors.extend(store.list_page(&ListOptions::default(), None).await.err());
        errors.extend(store.identity().await.err());
        let other = SecretValue::new(format!("{}\nmore", value.expose()));
        let other = Write::new(there.coordinate.clone(), other);
        errors.extend(store.write(other).await.err());
        let large = SecretValue::new(value.expose().repeat(2000));
        errors.extend(store.write(Write::new(coordinate(), large)).await.err());
        let delete = store
            .delete(&there.coordinate, &DeleteOptions::default())
            .await;
        errors.extend(delete.err());
        errors.extend(store.restore(&there.coordinate).await.err());
        errors.extend(store.read(&coordinate().into()).await.err());
        assert!(errors.len() >= 2, "{round}: {errors:?}");
        for error in &errors {
            write!(shown, "{error} {error:?} {error:#?}").unwrap();
            let mut source = error.source();
            while let Some(error) = source {
                write!(shown, "{error} {error:?} {error:#?}").unwrap();
                source = error.source();
            }
        }
        let report = store.check(&CheckOptions::default()).await;
        write!(shown, "{store} {store:?} {store:#?} {report} {report:?}").unwrap();
    }
    assert_eq!(leaks(&shown, &canaries), Vec::<String>::new());

    let logged = logs.text()[before..].to_owned();
    // The subscriber was active: it received our own events, and none of the SDK's.
    assert!(
        logged.contains("secret_persistence_azure::client"),
        "{logged}"
    );
    assert!(logged.contains("SecretSet") && logged.contains("SecretGet"));
    for target in ["azure_core", "azure_identity", "typespec"] {
        assert!(!logged.contains(target), "{target}");
    }
    assert_eq!(leaks(&logged, &canaries), Vec::<String>::new());

    // And it would have detected leaks.
    tracing::trace!("{}", LINES[0]);
    assert!(!leaks(&logs.text(), &canaries).is_empty());
}
