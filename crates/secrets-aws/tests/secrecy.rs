//! Nothing secret appears in errors, Debug or logs, at any level and of any library.
//!
//! In a separate process, because the subscriber is global.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::error::Error as _;
use std::fmt::Write as _;

use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use e2e::Canaries;
use e2e::Logs;
use secret_persistence_aws::AwsSecretsManager;
use secret_persistence_core::{
    CheckOptions, Coordinate, DeleteOptions, Error, ListOptions, SecretPersistence,
    SecretPersistenceExt, SecretValue, Write,
};
use serde_json::json;
use support::gate::{Act, Gate};
use support::{config, coordinate};

const LINES: [&str; 3] = [
    "canary-line-one",
    "canary line \"two\" \\",
    "canary-line-three-é",
];
const SESSION: [&str; 3] = [
    "ASIACANARYSESSION",
    "canarySessionSecret",
    "canarySessionToken2",
];
const EXTERNAL_ID: &str = "canary-external-id";

/// The value and the credentials.
fn canaries() -> Canaries {
    let mut canaries = Canaries::default();
    canaries.add(&LINES.join("\n"));
    for credential in SESSION {
        canaries.add(credential);
    }
    for credential in [
        EXTERNAL_ID,
        support::KEY_ID,
        support::SECRET_KEY,
        support::SESSION_TOKEN,
    ] {
        canaries.add(credential);
    }
    canaries
}

/// With the variables that make the SDK print whole requests and responses.
#[test]
fn neither_values_nor_credentials_show_anywhere() {
    let home = std::env::temp_dir();
    e2e::in_a_process_of_its_own(
        "child_shows_nothing",
        &home,
        &[
            ("LOG_SIGNABLE_BODY", "true"),
            ("LOG_SENSITIVE_BODIES", "true"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by neither_values_nor_credentials_show_anywhere"]
async fn child_shows_nothing() {
    let logs = Logs::default();
    tracing::dispatcher::set_global_default(logs.dispatch()).unwrap();
    let value = SecretValue::new(LINES.join("\n"));
    let body =
        json!({ "SecretString": value.expose(), "__type": "Canary", "Message": value.expose() });

    let mut shown = String::new();
    // Every response contains the value: as a result, in an error, and where no value belongs.
    for status in [200, 400, 500] {
        let answer = body.to_string();
        let gate = Gate::open(None, move |seen| match seen.action.as_str() {
            "sts:AssumeRole" => session(),
            "GetSecretValue" if status == 200 => Act::ok(json!({
                "Name": seen.secret(), "SecretString": LINES.join("\n"),
            })),
            "CreateSecret" if status == 200 => Act::error("ResourceExistsException"),
            _ => Act::Answer(status, Vec::new(), answer.clone()),
        })
        .await;
        let configured = config(&gate.url)
            .set("role-arn", "arn:aws:iam::123456789012:role/x")
            .set("external-id", EXTERNAL_ID)
            .build()
            .unwrap();
        write!(shown, "{configured:?}").unwrap();
        let store = AwsSecretsManager::connect(configured).await.unwrap();
        let write = Write::new(coordinate(), value.clone());
        let names: Vec<Coordinate> = (0..3).map(|_| coordinate().into()).collect();
        let mut errors: Vec<Error> = Vec::new();
        errors.extend(store.write(write.clone()).await.err());
        errors.extend(store.read(&write.coordinate.clone().into()).await.err());
        errors.extend(
            store
                .read_batch(&names)
                .await
                .into_iter()
                .filter_map(Result::err),
        );
        errors.extend(
            store
                .delete(&write.coordinate, &DeleteOptions::default())
                .await
                .err(),
        );
        errors.extend(store.restore(&write.coordinate).await.err());
        errors.extend(store.describe(&write.coordinate).await.err());
        errors.extend(store.list_page(&ListOptions::default(), None).await.err());
        errors.extend(store.identity().await.err());
        let large = SecretValue::new(value.expose().repeat(2000));
        errors.extend(store.write(Write::new(coordinate(), large)).await.err());
        assert!(status == 200 || errors.len() == 11, "{status}: {errors:?}");
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
    let canaries = canaries();
    canaries.expect_none_in(shown.as_bytes(), "errors, Debug and reports");

    let logged = logs.text();
    // The subscriber was active: it received our own events, and those of separate connection
    // tasks.
    assert!(
        logged.contains("secret_persistence_aws::client"),
        "{logged}"
    );
    assert!(logged.contains("sts:AssumeRole") || logged.contains("secretsmanager:GetSecretValue"));
    canaries.expect_none_in(logged.as_bytes(), "the logs");

    // And it would have detected leaks: the bare SDK prints what it signs, and is not silenced with
    // ours.
    let gate = Gate::open(None, |_| Act::ok(json!({}))).await;
    let bare = aws_sdk_secretsmanager::Client::from_conf(
        aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url(&gate.url)
            .credentials_provider(Credentials::new(
                support::KEY_ID,
                support::SECRET_KEY,
                Some(support::SESSION_TOKEN.to_owned()),
                None,
                "test",
            ))
            .build(),
    );
    let create = bare.create_secret().name("x").secret_string(value.expose());
    create.send().await.unwrap();
    let heard = logs.text();
    assert!(
        canaries
            .found_in(&heard.as_bytes()[logged.len()..])
            .is_some()
    );
}

fn session() -> Act {
    let [id, secret, token] = SESSION;
    Act::Answer(
        200,
        Vec::new(),
        format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleResult><Credentials><AccessKeyId>{id}</AccessKeyId>\
             <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>\
             </AssumeRoleResponse>"
        ),
    )
}
