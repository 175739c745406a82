//! Where credentials come from, each in a process of its own with an environment of its own.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use secrets_aws::{AwsSecretsManager, Config, Credentials};
use secrets_core::{Error, ErrorKind, SecretPersistenceExt};
use serde_json::json;
use support::gate::{Act, Gate};
use support::{coordinate, in_a_process_of_its_own};

fn store(gate: &Gate, credentials: Credentials) -> AwsSecretsManager {
    let config = Config::builder("us-east-1")
        .with_endpoint(&gate.url)
        .with_credentials(credentials);
    AwsSecretsManager::new(config.build().unwrap())
}

async fn read(store: &AwsSecretsManager) -> Error {
    store.read(&coordinate().into()).await.unwrap_err()
}

fn keys(id: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = secret-of-{id}\n")
}

#[test]
fn files_are_read_again_when_they_change_or_are_refused() {
    let home = tempfile::tempdir().unwrap();
    // A symbolic link, as Kubernetes mounts secrets.
    fs::create_dir(home.path().join("first")).unwrap();
    fs::write(home.path().join("first/credentials"), keys("AKIAFIRST")).unwrap();
    std::os::unix::fs::symlink("first/credentials", home.path().join("credentials")).unwrap();
    let file = home.path().join("credentials");
    in_a_process_of_its_own(
        "child_reads_files_again",
        home.path(),
        &[
            ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ],
    );
}

#[tokio::test]
#[ignore = "run by files_are_read_again_when_they_change_or_are_refused"]
async fn child_reads_files_again() {
    let file = PathBuf::from(std::env::var("AWS_SHARED_CREDENTIALS_FILE").unwrap());
    let refuse = Arc::new(AtomicBool::new(false));
    let gate = Gate::open(None, {
        let refuse = Arc::clone(&refuse);
        move |seen| {
            if refuse.load(Ordering::Relaxed) && seen.signer() == "AKIASECOND" {
                Act::error("UnrecognizedClientException")
            } else {
                Act::error("ResourceNotFoundException")
            }
        }
    })
    .await;
    let store = store(&gate, Credentials::default());
    let signer = || gate.seen().last().unwrap().signer();
    assert_eq!(read(&store).await.kind(), ErrorKind::NotFound);
    assert_eq!(signer(), "AKIAFIRST");

    // The link now leads elsewhere.
    let second = file.with_file_name("second");
    fs::write(&second, keys("AKIASECOND")).unwrap();
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&second, &file).unwrap();
    assert_eq!(read(&store).await.kind(), ErrorKind::NotFound);
    assert_eq!(signer(), "AKIASECOND");

    // Changed within the resolution of the file's time, and to the same length: only AWS can tell.
    let time = fs::metadata(&second).unwrap().modified().unwrap();
    fs::write(&second, keys("AKIAOTHERS")).unwrap();
    fs::File::options()
        .write(true)
        .open(&second)
        .unwrap()
        .set_modified(time)
        .unwrap();
    refuse.store(true, Ordering::Relaxed);
    let refused = read(&store).await;
    assert_eq!(
        (refused.kind(), refused.is_retryable()),
        (ErrorKind::Unauthenticated, true)
    );
    assert_eq!(read(&store).await.kind(), ErrorKind::NotFound);
    assert_eq!(signer(), "AKIAOTHERS");
}

#[test]
fn no_credentials_says_what_was_tried() {
    let home = tempfile::tempdir().unwrap();
    in_a_process_of_its_own(
        "child_has_no_credentials",
        home.path(),
        &[
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_PROFILE", "team"),
        ],
    );
}

#[tokio::test]
#[ignore = "run by no_credentials_says_what_was_tried"]
async fn child_has_no_credentials() {
    let gate = Gate::open(None, |_| Act::Hang).await;
    let error = read(&store(&gate, Credentials::default())).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(!error.is_retryable());
    let hint = error.hint().unwrap();
    for part in [
        "AWS_ACCESS_KEY_ID (not set)",
        "profile `team`",
        ".aws/credentials (does not exist)",
        "AWS_WEB_IDENTITY_TOKEN_FILE (not set)",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI (not set)",
        "switched off by AWS_EC2_METADATA_DISABLED",
    ] {
        assert!(hint.contains(part), "{hint}");
    }
    let imds = read(&store(&gate, Credentials::InstanceMetadata)).await;
    assert_eq!(imds.kind(), ErrorKind::Unauthenticated, "{imds}");
    assert!(imds.hint().unwrap().contains("and nothing else"), "{imds}");
    assert!(
        gate.seen().is_empty(),
        "nothing is sent without credentials"
    );
}

#[test]
fn profiles_are_found_by_name() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    let text = keys("AKIADEFAULT") + &keys("AKIATEAM").replace("[default]", "[team]");
    fs::write(home.path().join(".aws/credentials"), text).unwrap();
    let environment = [("AWS_EC2_METADATA_DISABLED", "true")];
    in_a_process_of_its_own("child_uses_a_profile", home.path(), &environment);
}

#[tokio::test]
#[ignore = "run by profiles_are_found_by_name"]
async fn child_uses_a_profile() {
    let gate = Gate::open(None, |_| Act::error("ResourceNotFoundException")).await;
    for (profile, signer) in [(None, "AKIADEFAULT"), (Some("team".to_owned()), "AKIATEAM")] {
        read(&store(&gate, Credentials::DefaultChain { profile })).await;
        assert_eq!(gate.seen().last().unwrap().signer(), signer);
    }
}

#[test]
fn the_metadata_service_is_asked_alone() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    fs::write(home.path().join(".aws/credentials"), keys("AKIAIGNORED")).unwrap();
    in_a_process_of_its_own("child_asks_the_metadata_service", home.path(), &[]);
}

/// A second process inside the first: the SDK reads the address of the metadata service from the
/// environment only, and the gate's port is not known before.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the_metadata_service_is_asked_alone"]
async fn child_asks_the_metadata_service() {
    let gate = Gate::open(None, |seen| match seen.line.as_str() {
        "PUT /latest/api/token" => {
            let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "21600".to_owned());
            Act::Answer(200, vec![ttl], "token".into())
        }
        "GET /latest/meta-data/iam/security-credentials/" => {
            Act::Answer(200, Vec::new(), "the-role".into())
        }
        "GET /latest/meta-data/iam/security-credentials/the-role" => Act::ok(json!({
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIAFROMIMDS",
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": "2099-01-01T00:00:00Z",
        })),
        _ => Act::error("ResourceNotFoundException"),
    })
    .await;
    let home = PathBuf::from(std::env::var("HOME").unwrap());
    let url = gate.url.clone();
    tokio::task::spawn_blocking(move || {
        in_a_process_of_its_own(
            "grandchild_asks_the_metadata_service",
            &home,
            &[
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url),
                ("AWS_ACCESS_KEY_ID", "AKIAIGNOREDTOO"),
                ("AWS_SECRET_ACCESS_KEY", "secret"),
                ("GATE", &url),
            ],
        );
    })
    .await
    .unwrap();
    let seen = gate.seen();
    assert_eq!(seen.last().unwrap().signer(), "ASIAFROMIMDS");
    assert_eq!(seen.last().unwrap().action, "GetSecretValue");
}

#[tokio::test]
#[ignore = "run by child_asks_the_metadata_service"]
async fn grandchild_asks_the_metadata_service() {
    let config = Config::builder("us-east-1")
        .with_endpoint(std::env::var("GATE").unwrap())
        .with_credentials(Credentials::InstanceMetadata);
    let error = read(&AwsSecretsManager::new(config.build().unwrap())).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
