//! The sources of credentials, each in a separate process and environment.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests are tests"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::primitives::{DateTime, DateTimeFormat};
use secret_persistence_aws::{AwsSecretsManager, Config};
use secret_persistence_core::{Error, ErrorKind, Operation, SecretPersistenceExt};
use serde_json::json;
use support::gate::{Act, Gate};
use support::{Setup, config, coordinate};

async fn store(gate: &Gate, credentials: &'static str) -> AwsSecretsManager {
    Setup::new(&gate.url)
        .set("credentials", credentials)
        .connect()
        .await
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
    // A symlink, as Kubernetes mounts secrets.
    fs::create_dir(home.path().join("first")).unwrap();
    fs::write(home.path().join("first/credentials"), keys("AKIAFIRST")).unwrap();
    std::os::unix::fs::symlink("first/credentials", home.path().join("credentials")).unwrap();
    let file = home.path().join("credentials");
    e2e::in_a_process_of_its_own(
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
    let store = store(&gate, "default").await;
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

    // Changed within the resolution of the file's time, with the same length: only AWS can tell.
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
    e2e::in_a_process_of_its_own(
        "child_has_no_credentials",
        home.path(),
        &[
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_PROFILE", "team"),
        ],
    );
}

/// With the authorities in the environment, because there is no setting for them.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_called_so() {
    let authority = e2e::Authority::new().unwrap();
    let address = authority.serve_expired().await.unwrap();
    let file = authority.ca_file().to_str().unwrap().to_owned();
    let url = format!("https://{address}");
    let home = tempfile::tempdir().unwrap();
    tokio::task::spawn_blocking(move || {
        e2e::in_a_process_of_its_own(
            "child_meets_an_expired_certificate",
            home.path(),
            &[("SSL_CERT_FILE", &file), ("TEST_EXPIRED_URL", &url)],
        );
    })
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "run by an_expired_certificate_is_called_so"]
async fn child_meets_an_expired_certificate() {
    let url = std::env::var("TEST_EXPIRED_URL").unwrap();
    let store = config(&url).connect().await;
    let error = read(&store).await;
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::InvalidConfig, false)
    );
    assert!(
        error.message().contains("certificate has expired"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "run by no_credentials_says_what_was_tried"]
async fn child_has_no_credentials() {
    let gate = Gate::open(None, |_| Act::Hang).await;
    let error = read(&store(&gate, "default").await).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(!error.is_retryable());
    let hint = error.hint().unwrap();
    for part in [
        "AWS_ACCESS_KEY_ID (not set)",
        "profile `team`",
        ".aws/credentials (does not exist)",
        "AWS_WEB_IDENTITY_TOKEN_FILE (not set)",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI (not set)",
        "disabled by AWS_EC2_METADATA_DISABLED",
    ] {
        assert!(hint.contains(part), "{hint}");
    }
    let imds = read(&store(&gate, "imds").await).await;
    assert_eq!(imds.kind(), ErrorKind::Unauthenticated, "{imds}");
    assert!(imds.hint().unwrap().contains("tried: only "), "{imds}");
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
    e2e::in_a_process_of_its_own("child_uses_a_profile", home.path(), &environment);
}

#[tokio::test]
#[ignore = "run by profiles_are_found_by_name"]
async fn child_uses_a_profile() {
    let gate = Gate::open(None, |_| Act::error("ResourceNotFoundException")).await;
    let default = Setup::new(&gate.url);
    let team = default.clone().set("profile", "team");
    for (setup, signer) in [(default, "AKIADEFAULT"), (team, "AKIATEAM")] {
        read(&setup.connect().await).await;
        assert_eq!(gate.seen().last().unwrap().signer(), signer);
    }
}

/// The gate for a child process, which finds its address in the environment.
async fn in_a_process_with_a_gate(
    test: &'static str,
    gate: &Gate,
    files: &[(&str, String)],
    environment: impl FnOnce(&Path, &str) -> Vec<(&'static str, String)>,
) {
    let home = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut environment = environment(home.path(), &gate.url);
    environment.push(("GATE", gate.url.clone()));
    tokio::task::spawn_blocking(move || {
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        e2e::in_a_process_of_its_own(test, home.path(), &environment);
    })
    .await
    .unwrap();
}

async fn child_reads(credentials: &'static str) {
    let setup = Setup::new(&std::env::var("GATE").unwrap()).set("credentials", credentials);
    let error = read(&setup.connect().await).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
#[ignore = "run by the tests of the sources of the chain"]
async fn child_reads_with_the_chain() {
    child_reads("default").await;
}

#[tokio::test]
#[ignore = "run by the_metadata_service_is_asked_alone"]
async fn child_reads_with_the_metadata_service() {
    child_reads("imds").await;
}

/// With the setting `imds`, other sources are ignored.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_service_is_asked_alone() {
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
    let files = [(".aws/credentials", keys("AKIAIGNORED"))];
    in_a_process_with_a_gate(
        "child_reads_with_the_metadata_service",
        &gate,
        &files,
        |_, url| {
            vec![
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.to_owned()),
                ("AWS_ACCESS_KEY_ID", "AKIAIGNOREDTOO".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ]
        },
    )
    .await;
    assert_eq!(gate.seen().last().unwrap().signer(), "ASIAFROMIMDS");
}

/// IRSA: STS exchanges a service account's token.
#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_is_exchanged() {
    let gate = Gate::open(None, |seen| match seen.action.as_str() {
        "sts:AssumeRoleWithWebIdentity" => {
            let Act::Answer(status, headers, text) = session("ASIAFROMIRSA", 3600) else {
                unreachable!()
            };
            Act::Answer(
                status,
                headers,
                text.replace("AssumeRole", "AssumeRoleWithWebIdentity"),
            )
        }
        _ => Act::error("ResourceNotFoundException"),
    })
    .await;
    let files = [("token", "the-token".to_owned())];
    in_a_process_with_a_gate("child_reads_with_the_chain", &gate, &files, |home, url| {
        vec![
            (
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                home.join("token").display().to_string(),
            ),
            (
                "AWS_ROLE_ARN",
                "arn:aws:iam::123456789012:role/x".to_owned(),
            ),
            ("AWS_ENDPOINT_URL_STS", url.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    })
    .await;
    let seen = gate.seen();
    assert_eq!(seen[0].body["WebIdentityToken"], "the-token");
    assert_eq!(seen.last().unwrap().signer(), "ASIAFROMIRSA");
}

/// The code of STS for a web identity determines the error.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_web_identity_says_why() {
    for code in ["AccessDenied", "InvalidIdentityToken"] {
        let gate = Gate::open(None, move |_| refusal(code)).await;
        let files = [("token", "the-token".to_owned())];
        in_a_process_with_a_gate(
            "child_has_a_refused_web_identity",
            &gate,
            &files,
            |home, url| {
                vec![
                    (
                        "AWS_WEB_IDENTITY_TOKEN_FILE",
                        home.join("token").display().to_string(),
                    ),
                    (
                        "AWS_ROLE_ARN",
                        "arn:aws:iam::123456789012:role/x".to_owned(),
                    ),
                    ("AWS_ENDPOINT_URL_STS", url.to_owned()),
                    ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
                    ("CODE", code.to_owned()),
                ]
            },
        )
        .await;
    }
}

#[tokio::test]
#[ignore = "run by a_refused_web_identity_says_why"]
async fn child_has_a_refused_web_identity() {
    let setup = Setup::new(&std::env::var("GATE").unwrap());
    let error = read(&setup.connect().await).await;
    let kind = match std::env::var("CODE").unwrap().as_str() {
        "AccessDenied" => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unauthenticated,
    };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(
        error.hint().unwrap().contains("eks.amazonaws.com/role-arn"),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("canary"));
}

/// The profile that `aws configure sso` creates.
const SSO_PROFILE: &str = "[default]\nsso_session = team\nsso_account_id = 123456789012\n\
    sso_role_name = reader\n[sso-session team]\nsso_region = us-east-1\n\
    sso_start_url = https://example.awsapps.com/start\n";

/// The file of `aws sso login` for its token: the SHA-1 of the session's name.
const SSO_CACHE: &str = ".aws/sso/cache/d25187dc137f35c88bc80ec8c3ffbdb17b5eb873.json";

/// After `aws sso login`, its token is exchanged for the role's credentials. An expired token is
/// refreshed first.
#[tokio::test(flavor = "multi_thread")]
async fn an_sso_login_is_used_and_refreshed() {
    for (expires, token) in [
        ("2099-01-01T00:00:00Z", "token-of-the-login"),
        ("2020-01-01T00:00:00Z", "refreshed-token"),
    ] {
        let gate = Gate::open(None, |seen| match seen.line.as_str() {
            "POST /token" => Act::ok(json!({
                "accessToken": "refreshed-token", "expiresIn": 3600, "tokenType": "Bearer",
                "refreshToken": "next",
            })),
            "GET /federation/credentials" => Act::ok(json!({ "roleCredentials": {
                "accessKeyId": "ASIAFROMSSO", "secretAccessKey": "secret",
                "sessionToken": "session", "expiration": 4_070_908_800_000_u64,
            }})),
            _ => Act::error("ResourceNotFoundException"),
        })
        .await;
        let cached = json!({
            "accessToken": "token-of-the-login", "expiresAt": expires, "region": "us-east-1",
            "startUrl": "https://example.awsapps.com/start", "clientId": "client",
            "clientSecret": "client-secret", "refreshToken": "refresh",
            "registrationExpiresAt": "2099-01-01T00:00:00Z",
        });
        let files = [
            (".aws/config", SSO_PROFILE.to_owned()),
            (SSO_CACHE, cached.to_string()),
        ];
        in_a_process_with_a_gate("child_reads_with_the_chain", &gate, &files, |_, url| {
            vec![
                ("AWS_ENDPOINT_URL_SSO", url.to_owned()),
                ("AWS_ENDPOINT_URL_SSO_OIDC", url.to_owned()),
                ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ]
        })
        .await;
        let seen = gate.seen();
        let exchange = seen
            .iter()
            .find(|seen| seen.line == "GET /federation/credentials")
            .unwrap();
        assert_eq!(exchange.headers["x-amz-sso_bearer_token"], token);
        assert!(
            exchange.query.contains("role_name=reader"),
            "{}",
            exchange.query
        );
        assert!(
            exchange.query.contains("account_id=123456789012"),
            "{}",
            exchange.query
        );
        assert_eq!(seen.last().unwrap().signer(), "ASIAFROMSSO");
        let refreshed = seen.iter().any(|seen| seen.line == "POST /token");
        assert_eq!(refreshed, token == "refreshed-token");
    }
}

/// An SSO profile whose login has expired or never happened.
#[test]
fn a_missing_sso_login_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".aws")).unwrap();
    fs::write(home.path().join(".aws/config"), SSO_PROFILE).unwrap();
    let environment = [("AWS_EC2_METADATA_DISABLED", "true")];
    e2e::in_a_process_of_its_own("child_has_no_sso_login", home.path(), &environment);
}

#[tokio::test]
#[ignore = "run by a_missing_sso_login_says_what_to_do"]
async fn child_has_no_sso_login() {
    let gate = Gate::open(None, |_| Act::Hang).await;
    let error = read(&store(&gate, "default").await).await;
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    assert!(
        error.message().contains("source of AWS credentials failed"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("aws sso login"), "{error}");
}

/// EKS Pod Identity and ECS: an address on loopback and a token file.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_asked() {
    let gate = Gate::open(None, |seen| match seen.line.as_str() {
        "GET /v1/credentials" => Act::ok(json!({
            "AccessKeyId": "ASIAFROMPOD",
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": "2099-01-01T00:00:00Z",
        })),
        _ => Act::error("ResourceNotFoundException"),
    })
    .await;
    let files = [("token", "the-token".to_owned())];
    in_a_process_with_a_gate("child_reads_with_the_chain", &gate, &files, |home, url| {
        let token = home.join("token").display().to_string();
        vec![
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("{url}/v1/credentials"),
            ),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    })
    .await;
    let seen = gate.seen();
    assert_eq!(seen[0].headers["authorization"], "the-token");
    assert_eq!(seen.last().unwrap().signer(), "ASIAFROMPOD");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_the_profile_is_run() {
    let gate = Gate::open(None, |_| Act::error("ResourceNotFoundException")).await;
    let output = json!({ "Version": 1, "AccessKeyId": "AKIAFROMPROCESS", "SecretAccessKey": "s" });
    let files = [
        ("output", output.to_string()),
        (
            ".aws/config",
            "[default]\ncredential_process = /bin/cat output\n".to_owned(),
        ),
    ];
    in_a_process_with_a_gate(
        "child_reads_with_the_chain_at_home",
        &gate,
        &files,
        |_, _| {
            vec![
                ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
                ("PATH", "/bin:/usr/bin".to_owned()),
            ]
        },
    )
    .await;
    assert_eq!(gate.seen().last().unwrap().signer(), "AKIAFROMPROCESS");
}

#[tokio::test]
#[ignore = "run by a_process_of_the_profile_is_run"]
async fn child_reads_with_the_chain_at_home() {
    // The profile's command cannot contain an absolute path, because it is not known in advance.
    std::env::set_current_dir(std::env::var("HOME").unwrap()).unwrap();
    child_reads("default").await;
}

fn session(key_id: &str, seconds: u64) -> Act {
    let end = DateTime::from(SystemTime::now() + Duration::from_secs(seconds));
    let end = end.fmt(DateTimeFormat::DateTime).unwrap();
    Act::Answer(
        200,
        Vec::new(),
        format!(
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleResult><Credentials><AccessKeyId>{key_id}</AccessKeyId>\
             <SecretAccessKey>canarySessionSecret</SecretAccessKey>\
             <SessionToken>canarySession</SessionToken><Expiration>{end}</Expiration></Credentials>\
             <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/x/y</Arn>\
             <AssumedRoleId>x:y</AssumedRoleId></AssumedRoleUser>\
             </AssumeRoleResult></AssumeRoleResponse>"
        ),
    )
}

fn refusal(code: &str) -> Act {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
                 <Type>Sender</Type><Code>{code}</Code><Message>canary</Message></Error>\
                 <RequestId>x</RequestId></ErrorResponse>"
    );
    Act::Answer(403, Vec::new(), body)
}

fn with_role(gate: &Gate) -> Config {
    let setup = config(&gate.url)
        .set("role-arn", "arn:aws:iam::123456789012:role/airbyte")
        .set("external-id", "ext-1");
    setup.build().unwrap()
}

/// A session is renewed before it expires. If that fails, the old one is used until it has expired.
#[tokio::test]
async fn a_session_is_renewed_and_outlives_a_failing_renewal() {
    let count = Arc::new(AtomicUsize::new(0));
    let gate = Gate::open(None, {
        let count = Arc::clone(&count);
        move |seen| {
            if seen.action != "sts:AssumeRole" {
                return Act::error("ResourceNotFoundException");
            }
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => session("ASIAFIRST", 4),
                1 => Act::status(500, "InternalFailure"),
                _ => session("ASIALATER", 3600),
            }
        }
    })
    .await;
    let store = AwsSecretsManager::connect(with_role(&gate)).await.unwrap();
    let read = async || read(&store).await.kind();
    // Any number of callers share one session.
    let many = futures::future::join_all((0..20).map(|_| read())).await;
    assert!(many.iter().all(|kind| *kind == ErrorKind::NotFound));
    assert_eq!(count.load(Ordering::Relaxed), 1);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(read().await, ErrorKind::NotFound);
    assert_eq!(gate.seen().last().unwrap().signer(), "ASIAFIRST");
    assert_eq!(count.load(Ordering::Relaxed), 2);
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_eq!(read().await, ErrorKind::NotFound);
    assert_eq!(gate.seen().last().unwrap().signer(), "ASIALATER");
}

/// A session that AWS refuses is created again, and the error is retryable.
#[tokio::test]
async fn a_refused_session_is_made_anew() {
    let count = AtomicUsize::new(0);
    let gate = Gate::open(None, move |seen| {
        if seen.action == "sts:AssumeRole" {
            return session(
                &format!("ASIA{}", count.fetch_add(1, Ordering::Relaxed)),
                3600,
            );
        }
        match seen.signer().as_str() {
            "ASIA0" => Act::error("ExpiredTokenException"),
            _ => Act::error("ResourceNotFoundException"),
        }
    })
    .await;
    let store = AwsSecretsManager::connect(with_role(&gate)).await.unwrap();
    let error = read(&store).await;
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::Unauthenticated, true)
    );
    assert_eq!(read(&store).await.kind(), ErrorKind::NotFound);
    // Unchanged keys that are refused are not retryable.
    let gate = Gate::open(None, |_| Act::error("UnrecognizedClientException")).await;
    assert!(
        !read(&config(&gate.url).connect().await)
            .await
            .is_retryable()
    );
}

/// Any number of callers with a failing source, or with refused keys, load credentials once.
#[tokio::test]
async fn a_failing_source_is_not_asked_by_every_caller() {
    let gate = Gate::open(None, |_| refusal("AccessDenied")).await;
    let store = AwsSecretsManager::connect(with_role(&gate)).await.unwrap();
    let errors = futures::future::join_all((0..30).map(|_| read(&store))).await;
    assert!(
        errors
            .iter()
            .all(|error| error.kind() == ErrorKind::PermissionDenied)
    );
    assert_eq!(gate.take_actions(), ["sts:AssumeRole"]);
    // Later callers load again. Callers that were queued elsewhere share the result for a second.
    read(&store).await;
    assert!(gate.take_actions().is_empty());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    read(&store).await;
    assert_eq!(gate.take_actions(), ["sts:AssumeRole"]);

    let gate = Gate::open(None, |seen| match seen.action.as_str() {
        "sts:AssumeRole" => session("ASIASAME", 3600),
        _ => Act::error("ExpiredTokenException"),
    })
    .await;
    let store = AwsSecretsManager::connect(with_role(&gate)).await.unwrap();
    futures::future::join_all((0..30).map(|_| read(&store))).await;
    let logins = gate
        .take_actions()
        .iter()
        .filter(|action| *action == "sts:AssumeRole")
        .count();
    assert!(logins <= 3, "{logins} logins");
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_says_why() {
    for (code, kind, part) in [
        ("AccessDenied", ErrorKind::PermissionDenied, "trust policy"),
        ("ExpiredToken", ErrorKind::Unauthenticated, "expired"),
        (
            "InvalidClientTokenId",
            ErrorKind::Unauthenticated,
            "access key",
        ),
        (
            "RegionDisabledException",
            ErrorKind::InvalidConfig,
            "region",
        ),
        ("Throttling", ErrorKind::Throttled, "lower rate"),
    ] {
        let gate = Gate::open(None, move |_| refusal(code)).await;
        let error = read(&AwsSecretsManager::connect(with_role(&gate)).await.unwrap()).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"));
        assert_eq!(error.operation(), Some(Operation::Read));
        if code == "AccessDenied" {
            assert!(
                error
                    .message()
                    .contains("sts:AssumeRole on arn:aws:iam::123456789012:role/")
            );
        }
    }
}
