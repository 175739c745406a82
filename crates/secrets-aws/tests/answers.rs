//! Responses that AWS may send and LocalStack never does, from a scripted server.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::primitives::{DateTime, DateTimeFormat};
use secret_persistence_aws::AwsSecretsManager;
use secret_persistence_core::{
    Coordinate, DeleteOptions, Error, ErrorKind, ListOptions, Operation, Recovery,
    SecretPersistence, SecretPersistenceExt, SecretValue, Write, Written,
};
use serde_json::{Value, json};
use support::gate::{Act, Gate, Seen};
use support::{config, coordinate};

async fn open(gate: &Gate) -> AwsSecretsManager {
    config(&gate.url).connect().await
}

fn names(count: usize) -> Vec<Coordinate> {
    (0..count).map(|_| coordinate().into()).collect()
}

fn entry(name: &str, value: &str) -> Value {
    let arn = format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}-AbCdEf");
    json!({ "ARN": arn, "Name": name, "SecretString": value })
}

fn ids(seen: &Seen) -> Vec<String> {
    let list = seen.body["SecretIdList"].as_array().unwrap().iter();
    list.map(|id| id.as_str().unwrap().to_owned()).collect()
}

fn refused(name: &str, code: &str) -> Value {
    json!({ "SecretId": name, "ErrorCode": code, "Message": "the message of the body: a canary" })
}

/// Every code of AWS, in each of its forms: the kind, the hint, and nothing of the body.
#[tokio::test]
async fn every_code_has_its_kind() {
    use ErrorKind as K;
    let cases: &[(u16, &str, ErrorKind, bool, &str)] = &[
        (
            400,
            "AccessDeniedException",
            K::PermissionDenied,
            false,
            "secretsmanager:GetSecretValue",
        ),
        (
            400,
            "DecryptionFailure",
            K::PermissionDenied,
            false,
            "kms:Decrypt",
        ),
        (
            400,
            "EncryptionFailure",
            K::InvalidConfig,
            false,
            "kms-key-arn",
        ),
        (
            400,
            "ExpiredTokenException",
            K::Unauthenticated,
            false,
            "aws sso login",
        ),
        (
            400,
            "IncompleteSignatureException",
            K::Unauthenticated,
            false,
            "proxy",
        ),
        (
            500,
            "InternalServiceError",
            K::Unavailable,
            true,
            "try again",
        ),
        (500, "InternalFailure", K::Unavailable, true, "try again"),
        (503, "ServiceUnavailable", K::Unavailable, true, "try again"),
        (
            400,
            "InvalidParameterException",
            K::InvalidConfig,
            false,
            "settings",
        ),
        (
            400,
            "InvalidSignatureException",
            K::Unauthenticated,
            false,
            "secret access key",
        ),
        (
            400,
            "KMSDisabledException",
            K::InvalidConfig,
            false,
            "enable the key",
        ),
        (
            400,
            "KMSNotFoundException",
            K::InvalidConfig,
            false,
            "kms-key-arn",
        ),
        (
            400,
            "LimitExceededException",
            K::Unavailable,
            false,
            "quota",
        ),
        (400, "OptInRequired", K::InvalidConfig, false, "region"),
        (400, "RequestExpired", K::Unauthenticated, false, "clock"),
        (
            400,
            "ResourceNotFoundException",
            K::NotFound,
            false,
            "region",
        ),
        (400, "ThrottlingException", K::Throttled, true, "limit"),
        (
            403,
            "UnrecognizedClientException",
            K::Unauthenticated,
            false,
            "access key",
        ),
        (
            400,
            "com.amazonaws.secretsmanager#ThrottlingException",
            K::Throttled,
            true,
            "limit",
        ),
        (
            418,
            "SomethingNewException",
            K::Unexpected,
            false,
            "endpoint-url",
        ),
        (
            500,
            "SomethingNewException",
            K::Unavailable,
            true,
            "HTTP 500",
        ),
        (
            429,
            "SomethingNewException",
            K::Throttled,
            true,
            "lower rate",
        ),
        (
            403,
            "<html>forbidden by canary</html>",
            K::Unexpected,
            false,
            "proxies",
        ),
    ];
    for (status, code, kind, retryable, part) in cases {
        let (status, code) = (*status, (*code).to_owned());
        let gate = Gate::open(None, {
            let code = code.clone();
            move |_| Act::status(status, &code)
        })
        .await;
        let name: Coordinate = coordinate().into();
        let error = open(&gate).await.read(&name).await.unwrap_err();
        assert_eq!(error.kind(), *kind, "{code}: {error}");
        assert_eq!(error.is_retryable(), *retryable, "{code}");
        assert!(error.to_string().contains(part), "{code}: {error}");
        assert_eq!(error.operation(), Some(Operation::Read));
        assert_eq!(error.store(), Some("aws us-east-1"));
        assert_eq!(error.coordinate(), Some(name.as_str()));
        let source = error.source().unwrap();
        assert!(
            source.to_string().contains("request id 7a62c49f"),
            "{source}"
        );
        for shown in [
            error.to_string(),
            format!("{error:?}"),
            format!("{source} {source:?}"),
        ] {
            assert!(!shown.contains("canary"), "{code}: {shown}");
        }
        assert_eq!(
            gate.take_actions().len(),
            1,
            "{code}: nothing is retried here"
        );
    }
}

#[tokio::test]
async fn the_wait_that_was_asked_for_is_kept() {
    let gate = Gate::open(None, |_| {
        let Act::Answer(status, _, body) = Act::error("ThrottlingException") else {
            unreachable!()
        };
        Act::Answer(status, vec![("retry-after", "7".into())], body)
    })
    .await;
    let error = open(&gate).await.read(&names(1)[0]).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_wrong_clock_is_named() {
    let gate = Gate::open(None, |_| {
        let theirs = DateTime::from(SystemTime::now() + Duration::from_secs(3600));
        let date = theirs.fmt(DateTimeFormat::HttpDate).unwrap();
        let Act::Answer(_, _, body) = Act::error("InvalidSignatureException") else {
            unreachable!()
        };
        Act::Answer(403, vec![("date", date)], body)
    })
    .await;
    let error = open(&gate).await.read(&names(1)[0]).await.unwrap_err();
    assert!(error.message().contains("s behind AWS's"), "{error}");
    assert!(error.hint().unwrap().contains("NTP"));
}

/// A batch returns results in any order, and each name gets its own.
#[tokio::test]
async fn a_batch_is_matched_by_name_with_errors_per_secret() {
    let asked = names(8);
    let id: Vec<String> = asked.iter().map(ToString::to_string).collect();
    let pending = id[4].clone();
    let gate = Gate::open(None, {
        let id = id.clone();
        move |seen| match seen.action.as_str() {
            "BatchGetSecretValue" => Act::ok(json!({
                "SecretValues": [
                    entry(&id[2], "two"),
                    entry("airbyte_not_asked_for_v1", "other"),
                    { "Name": id[5], "SecretBinary": "AAEC" },
                    entry(&id[0], ""),
                ],
                "Errors": [
                    refused(&id[3], "AccessDeniedException"),
                    refused(&id[1], "ResourceNotFoundException"),
                    refused(&id[4], "InvalidRequestException"),
                    refused(&id[6], "DecryptionFailure"),
                ],
                "NextToken": "more",
            })),
            "DescribeSecret" => Act::ok(json!({ "Name": pending, "DeletedDate": 1_700_000_000 })),
            // The ids that the batch omitted.
            "GetSecretValue" => Act::ok(entry(&id[7], "seven")),
            _ => Act::error("InternalFailure"),
        }
    })
    .await;
    let reads = open(&gate).await.read_batch(&asked).await;
    let values: Vec<Result<&str, ErrorKind>> = reads
        .iter()
        .map(|read| {
            read.as_ref()
                .map(|read| read.value.expose())
                .map_err(Error::kind)
        })
        .collect();
    assert_eq!(
        values,
        [
            Ok(""),
            Err(ErrorKind::NotFound),
            Ok("two"),
            Err(ErrorKind::PermissionDenied),
            Err(ErrorKind::PendingDeletion),
            Err(ErrorKind::Unsupported),
            Err(ErrorKind::PermissionDenied),
            Ok("seven"),
        ]
    );
    for (read, id) in reads.iter().zip(&id) {
        if let Err(error) = read {
            assert_eq!(error.coordinate(), Some(id.as_str()));
        }
    }
    let binary = reads[5].as_ref().unwrap_err();
    assert!(binary.message().contains("binary"), "{binary}");
    let mut actions = gate.take_actions();
    actions.sort();
    assert_eq!(
        actions,
        ["BatchGetSecretValue", "DescribeSecret", "GetSecretValue"]
    );
}

/// One batch may request external secrets by name and by ARN.
#[tokio::test]
async fn names_and_arns_are_answered_in_one_batch() {
    let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:team/db-AbCdEf";
    let gate = Gate::open(None, |_| {
        Act::ok(json!({ "SecretValues": [entry("team/db", "shared"), entry("team/x", "x")] }))
    })
    .await;
    let asked: Vec<Coordinate> = ["team/x", arn, &arn[..arn.len() - 7], "team/db"]
        .map(|name| Coordinate::parse(name).unwrap())
        .into();
    let reads = open(&gate).await.read_batch(&asked).await;
    let values: Vec<&str> = reads
        .iter()
        .map(|read| read.as_ref().unwrap().value.expose())
        .collect();
    assert_eq!(values, ["x", "shared", "shared", "shared"]);
    assert_eq!(gate.take_actions(), ["BatchGetSecretValue"]);
}

/// A name that Secrets Manager would refuse fails alone, and is not sent.
#[tokio::test]
async fn invalid_names_are_not_sent() {
    let gate = Gate::open(None, |seen| {
        Act::ok(json!({ "SecretValues": ids(seen).iter().map(|id| entry(id, "v")).collect::<Vec<_>>() }))
    })
    .await;
    let mut asked = names(2);
    asked.insert(1, Coordinate::parse("team db").unwrap());
    let foreign = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-AbCdEf";
    asked.push(Coordinate::parse(foreign).unwrap());
    let reads = open(&gate).await.read_batch(&asked).await;
    let kinds: Vec<Option<ErrorKind>> = reads
        .iter()
        .map(|read| read.as_ref().err().map(Error::kind))
        .collect();
    let invalid = Some(ErrorKind::InvalidCoordinate);
    assert_eq!(kinds, [None, invalid, None, invalid]);
    assert_eq!(ids(&gate.seen()[0]).len(), 2);
    let error = reads[3].as_ref().unwrap_err();
    assert!(error.message().contains("another AWS region"), "{error}");
}

/// One secret with a disabled key must not fail nineteen others.
#[tokio::test]
async fn a_batch_that_fails_for_one_secret_is_read_singly() {
    let asked = names(5);
    let broken = asked[3].to_string();
    let gate = Gate::open(None, move |seen| match seen.action.as_str() {
        "GetSecretValue" if seen.secret() != Some(&broken) => {
            Act::ok(entry(seen.secret().unwrap(), "v"))
        }
        _ => Act::error("DecryptionFailure"),
    })
    .await;
    let store = open(&gate).await;
    let reads = store.read_batch(&asked).await;
    let failed: Vec<bool> = reads.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, false, false, true, false]);
    assert_eq!(gate.take_actions().len(), 6);
    assert_eq!(
        store.capabilities().read_batch,
        20,
        "batches are not denied"
    );
}

/// If no secret may be read, batches are not the cause. If AWS is down, nothing is repeated.
#[tokio::test]
async fn only_a_denial_of_batches_is_remembered() {
    let gate = Gate::open(None, |_| Act::error("AccessDeniedException")).await;
    let store = open(&gate).await;
    for read in store.read_batch(&names(3)).await {
        let error = read.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(
            error.message().contains("secretsmanager:GetSecretValue"),
            "{error}"
        );
    }
    assert_eq!(store.capabilities().read_batch, 20);
    assert_eq!(gate.take_actions().len(), 4);

    let gate = Gate::open(None, |_| Act::error("ThrottlingException")).await;
    for read in open(&gate).await.read_batch(&names(3)).await {
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Throttled);
    }
    assert_eq!(gate.take_actions(), ["BatchGetSecretValue"]);
}

/// Ten minutes later, the policy may have changed.
#[tokio::test]
async fn a_denial_of_batches_is_forgotten_after_ten_minutes() {
    let gate = Gate::open(None, |seen| match seen.action.as_str() {
        "BatchGetSecretValue" => Act::error("AccessDeniedException"),
        _ => Act::error("ResourceNotFoundException"),
    })
    .await;
    let store = open(&gate).await;
    let full_cost = store.capabilities().cost.read;
    // A missing secret proves that single reads are allowed.
    for read in store.read_batch(&names(3)).await {
        assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(store.capabilities().read_batch, 1);
    assert!(store.capabilities().cost.read < full_cost);
    // A chunk that was created before the denial is read singly, without another batch.
    gate.take_actions();
    store.read_batch(&names(3)).await;
    assert_eq!(gate.take_actions(), ["GetSecretValue"; 3]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(599)).await;
    assert_eq!(store.capabilities().read_batch, 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(store.capabilities().read_batch, 20);
}

/// The capabilities state the cost of a call in the worst case.
#[tokio::test]
async fn the_cost_is_never_exceeded() {
    for unversioned in [false, true] {
        // The batch is denied, the full names do not exist, and the other secrets are in a bad
        // state.
        let gate = Gate::open(None, move |seen| match seen.action.as_str() {
            "BatchGetSecretValue" => Act::error("AccessDeniedException"),
            "DescribeSecret" => Act::ok(json!({ "DeletedDate": 1_700_000_000 })),
            _ if unversioned && seen.secret().unwrap().ends_with("_v1") => {
                Act::error("ResourceNotFoundException")
            }
            _ => Act::error("InvalidRequestException"),
        })
        .await;
        let config = config(&gate.url)
            .set("unversioned-names", unversioned)
            .build()
            .unwrap();
        let read = async |store: &AwsSecretsManager, size: usize| {
            let cost = store.capabilities().read_cost(size);
            for read in store.read_batch(&names(size)).await {
                assert_eq!(read.unwrap_err().kind(), ErrorKind::PendingDeletion);
            }
            let made = u32::try_from(gate.take_actions().len()).unwrap();
            assert!(made <= cost, "{made} requests for {size}, not {cost}");
            (made, cost)
        };
        for size in [1, 2, 3, 7, 19, 20] {
            let store = AwsSecretsManager::connect(config.clone()).await.unwrap();
            let (made, cost) = read(&store, size).await;
            let is_full_batch = size == 20 && !unversioned;
            assert!(!is_full_batch || made == cost, "{made} of {cost}");
            // After a denial of batches, each further read is a separate request.
            if size > 1 {
                assert_eq!(store.capabilities().read_batch, 1);
                let (made, cost) = read(&store, 1).await;
                assert_eq!(made, cost);
            }
        }
    }
}

/// Permissions that are scoped by tag deny a missing secret, because it has no tag: still
/// `NotFound`.
#[tokio::test]
async fn missing_is_not_found_under_a_policy_that_is_scoped_by_tag() {
    let foreign = coordinate();
    let gate = Gate::open(None, {
        let foreign = foreign.to_string();
        move |seen| match seen.action.as_str() {
            "BatchGetSecretValue" => Act::ok(json!({
                "Errors": ids(seen)
                    .iter()
                    .map(|id| refused(id, "AccessDeniedException"))
                    .collect::<Vec<_>>(),
            })),
            "DescribeSecret" if seen.secret() == Some(&foreign) => {
                Act::ok(json!({ "Name": foreign }))
            }
            "DescribeSecret" => Act::error("ResourceNotFoundException"),
            _ => Act::error("AccessDeniedException"),
        }
    })
    .await;
    let config = config(&gate.url)
        .set("tag-key", "AirbyteManaged")
        .build()
        .unwrap();
    let store = AwsSecretsManager::connect(config).await.unwrap();
    let missing = coordinate();
    let reads = store
        .read_batch(&[missing.clone().into(), foreign.clone().into()])
        .await;
    assert_eq!(reads[0].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    let denied = reads[1].as_ref().unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
    assert!(denied.hint().unwrap().contains("has that tag"), "{denied}");
    let options = DeleteOptions::default();
    store.delete(&missing, &options).await.unwrap();
    let denied = store.delete(&foreign, &options).await.unwrap_err();
    assert!(
        denied.message().contains("secretsmanager:DeleteSecret"),
        "{denied}"
    );
    assert_eq!(
        store.restore(&missing).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

/// The secret's own dates explain the state that AWS refuses, not the text of the message.
#[tokio::test]
async fn an_invalid_request_is_pending_deletion_only_where_the_secret_says_so() {
    for (described, kind) in [
        (
            Act::ok(json!({ "DeletedDate": 1_700_000_000 })),
            ErrorKind::PendingDeletion,
        ),
        (Act::ok(json!({ "Name": "x" })), ErrorKind::Conflict),
        (
            Act::error("AccessDeniedException"),
            ErrorKind::PendingDeletion,
        ),
        (Act::error("ResourceNotFoundException"), ErrorKind::NotFound),
        (Act::error("ThrottlingException"), ErrorKind::Throttled),
    ] {
        // For a write, a name that was deleted meanwhile will soon be free.
        let of_write = match kind {
            ErrorKind::NotFound => ErrorKind::Conflict,
            kind => kind,
        };
        let gate = Gate::open(None, move |seen| match seen.action.as_str() {
            "DescribeSecret" => described.clone(),
            _ => Act::error("InvalidRequestException"),
        })
        .await;
        let store = open(&gate).await;
        let write = Write::new(coordinate(), SecretValue::new("v".into()));
        let read = store
            .read(&write.coordinate.clone().into())
            .await
            .unwrap_err();
        assert_eq!(read.kind(), kind, "{read}");
        let written = store.write(write).await.unwrap_err();
        assert_eq!(written.kind(), of_write, "{written}");
        assert_eq!(
            written.is_retryable(),
            matches!(kind, ErrorKind::NotFound | ErrorKind::Throttled),
            "{written}"
        );
    }
}

/// A deletion without recovery continues after the response. A create meanwhile finds nothing, and
/// must not fail permanently.
#[tokio::test]
async fn a_create_in_the_wake_of_a_deletion_is_tried_again() {
    let gate = Gate::open(None, |_| Act::error("ResourceNotFoundException")).await;
    let write = Write::new(coordinate(), SecretValue::new("v".into()));
    let error = open(&gate).await.write(write.clone()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::Conflict, true)
    );
    let keyed = config(&gate.url).set("kms-key-arn", "alias/ours");
    let error = keyed.connect().await.write(write).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (ErrorKind::InvalidConfig, true)
    );
}

/// Older responses, and emulators, say that a name that is scheduled for deletion exists.
#[tokio::test]
async fn a_taken_name_that_is_scheduled_for_deletion_is_pending() {
    for unreadable in ["InvalidRequestException", "ResourceNotFoundException"] {
        let gate = Gate::open(None, move |seen| match seen.action.as_str() {
            "CreateSecret" => Act::error("ResourceExistsException"),
            "DescribeSecret" => Act::ok(json!({ "DeletedDate": 1_700_000_000 })),
            _ => Act::error(unreadable),
        })
        .await;
        let store = open(&gate).await;
        let write = Write::new(coordinate(), SecretValue::new("v".into()));
        let error = store.write(write).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::PendingDeletion,
            "{unreadable}: {error}"
        );
        let made = u32::try_from(gate.take_actions().len()).unwrap();
        assert_eq!(made, store.capabilities().cost.write);
    }
}

/// AWS documents two codes for it, which name neither replicas nor regions.
#[tokio::test]
async fn a_secret_with_replicas_cannot_be_deleted_and_says_so() {
    for code in ["InvalidParameterException", "InvalidRequestException"] {
        let gate = Gate::open(None, move |seen| match seen.action.as_str() {
            "DescribeSecret" => Act::ok(json!({
                "Name": "x",
                "ReplicationStatus": [{ "Region": "eu-west-1", "Status": "InSync" }],
            })),
            _ => Act::error(code),
        })
        .await;
        let error = open(&gate)
            .await
            .delete(&coordinate(), &DeleteOptions::default())
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (ErrorKind::Conflict, false)
        );
        assert!(error.message().contains("replicas"), "{error}");
        assert!(
            error
                .hint()
                .unwrap()
                .contains("remove-regions-from-replication")
        );
    }
}

#[tokio::test]
async fn a_taken_name_is_compared_and_never_changed() {
    for (stored, expected) in [
        (Act::ok(entry("x", "same\nvalue")), Ok(Written::AlreadySame)),
        (
            Act::ok(entry("x", "same\nvalue\n")),
            Err(ErrorKind::AlreadyExists),
        ),
        (
            Act::ok(json!({ "Name": "x", "SecretBinary": "AAEC" })),
            Err(ErrorKind::AlreadyExists),
        ),
        (
            Act::error("ResourceNotFoundException"),
            Err(ErrorKind::Conflict),
        ),
        (
            Act::error("InvalidRequestException"),
            Err(ErrorKind::Conflict),
        ),
        (
            Act::error("AccessDeniedException"),
            Err(ErrorKind::PermissionDenied),
        ),
        (
            Act::error("InternalServiceError"),
            Err(ErrorKind::Unavailable),
        ),
    ] {
        let gate = Gate::open(None, move |seen| match seen.action.as_str() {
            "GetSecretValue" => stored.clone(),
            "DescribeSecret" => Act::error("ResourceNotFoundException"),
            _ => Act::error("ResourceExistsException"),
        })
        .await;
        let write = Write::new(coordinate(), SecretValue::new("same\nvalue".into()));
        let written = open(&gate).await.write(write).await;
        let is_in_between = expected == Err(ErrorKind::Conflict);
        assert_eq!(written.map_err(|error| error.kind()), expected);
        let mut actions = vec!["CreateSecret", "GetSecretValue"];
        actions.extend(is_in_between.then_some("DescribeSecret"));
        assert_eq!(gate.take_actions(), actions);
    }
}

/// Values that are too large for AWS are not sent; a value at the limit is.
#[tokio::test]
async fn the_size_limit_is_ours_to_enforce() {
    let gate = Gate::open(None, |_| Act::ok(json!({}))).await;
    let store = open(&gate).await;
    let write = |bytes: usize| Write::new(coordinate(), SecretValue::new("é".repeat(bytes / 2)));
    assert_eq!(store.write(write(65_536)).await.unwrap(), Written::Created);
    let error = store.write(write(65_538)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PayloadTooLarge);
    assert!(
        error.message().contains("65538") && error.message().contains("65536"),
        "{error}"
    );
    assert_eq!(gate.take_actions(), ["CreateSecret"]);
}

#[tokio::test]
async fn a_delete_sends_a_window_or_force_and_never_both() {
    let gate = Gate::open(None, |_| Act::ok(json!({}))).await;
    let stores = [
        config(&gate.url).connect().await,
        config(&gate.url).set("force-delete", true).connect().await,
        config(&gate.url)
            .set("recovery-window-days", 9)
            .connect()
            .await,
    ];
    let calls = [
        Recovery::Configured,
        Recovery::Immediate,
        Recovery::Window { days: 7 },
    ];
    let name = coordinate();
    for store in &stores {
        for recovery in calls {
            let options = DeleteOptions::default().with_recovery(recovery);
            store.delete(&name, &options).await.unwrap();
        }
    }
    let sent: Vec<(Option<u64>, Option<bool>)> = gate
        .seen()
        .iter()
        .map(|seen| {
            let body = &seen.body;
            (
                body["RecoveryWindowInDays"].as_u64(),
                body["ForceDeleteWithoutRecovery"].as_bool(),
            )
        })
        .collect();
    let (none, force, week) = ((None, None), (None, Some(true)), (Some(7), None));
    assert_eq!(
        sent,
        [
            none,
            force,
            week,
            force,
            force,
            week,
            (Some(9), None),
            force,
            week
        ]
    );
    for days in [0, 6, 31] {
        let options = DeleteOptions::default().with_recovery(Recovery::Window { days });
        let error = stores[0].delete(&name, &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
    assert_eq!(gate.seen().len(), 9);
}

#[tokio::test]
async fn a_delete_or_restore_of_what_is_so_already_succeeds() {
    let described = |deleted: bool| {
        move |seen: &Seen| match seen.action.as_str() {
            "DescribeSecret" if deleted => Act::ok(json!({ "DeletedDate": 1_700_000_000 })),
            "DescribeSecret" => Act::ok(json!({})),
            _ => Act::error("InvalidRequestException"),
        }
    };
    let name = coordinate();
    let (pending, readable) = (
        Gate::open(None, described(true)).await,
        Gate::open(None, described(false)).await,
    );
    let options = DeleteOptions::default();
    open(&pending).await.delete(&name, &options).await.unwrap();
    open(&readable).await.restore(&name).await.unwrap();
    let error = open(&readable)
        .await
        .delete(&name, &options)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        open(&pending)
            .await
            .restore(&name)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Conflict
    );
}

/// AWS filters differently: other names are skipped and counted, and pages may be empty.
#[tokio::test]
async fn a_listing_shows_only_what_is_ours() {
    let ours = coordinate();
    let gate = Gate::open(None, {
        let ours = ours.to_string();
        move |seen| {
            if seen.body.get("NextToken").is_none() {
                return Act::ok(json!({ "SecretList": [], "NextToken": "second" }));
            }
            let tag = |key: &str, value: &str| json!([{ "Key": key, "Value": value }]);
            Act::ok(json!({ "SecretList": [
                { "Name": ours, "Tags": tag("AirbyteManaged", "true"), "CreatedDate": 1_700_000_000 },
                { "Name": "airbyte_x_v1", "Tags": tag("AirbyteManaged", "false") },
                { "Name": "airbyte_x_v2", "Tags": tag("AirbyteManagedToo", "true") },
                { "Name": "airbyte_x_v3" },
                { "Name": "airbyte_x_v01", "Tags": tag("AirbyteManaged", "true") },
                { "Name": "other" },
                { "Name": "airbyte_x_v4", "Tags": tag("AirbyteManaged", "true"), "DeletedDate": 1 },
                {},
            ]}))
        }
    })
    .await;
    let config = config(&gate.url)
        .set("tag-key", "AirbyteManaged")
        .build()
        .unwrap();
    let store = AwsSecretsManager::connect(config).await.unwrap();
    let options = ListOptions::default().with_page_size(1000);
    let first = store.list_page(&options, None).await.unwrap();
    assert!(first.entries.is_empty());
    let second = store
        .list_page(&options, first.next.as_ref())
        .await
        .unwrap();
    assert_eq!(
        (second.entries.len(), second.skipped, second.next),
        (1, 6, None)
    );
    assert_eq!(second.entries[0].coordinate, ours);
    assert_eq!(
        second.entries[0].created.unwrap().unix_seconds(),
        1_700_000_000
    );
    let sent = &gate.seen()[0].body;
    assert_eq!(sent["MaxResults"], 100);
    assert_eq!(
        sent["Filters"],
        json!([
            { "Key": "name", "Values": ["airbyte_"] },
            { "Key": "tag-key", "Values": ["AirbyteManaged"] },
        ])
    );
    // A prefix that no managed name can have is not sent: `!` would mean "all but these".
    for prefix in ["!airbyte_", "a b", "ключ"] {
        let page = store
            .list_page(&ListOptions::default().with_prefix(prefix), None)
            .await
            .unwrap();
        assert!(page.entries.is_empty() && page.next.is_none());
    }
    assert_eq!(gate.seen().len(), 2);
}

/// Whatever a server responds, the result is an error or a value, never a panic or a part of the
/// body.
#[tokio::test]
async fn garbage_is_an_error() {
    let bodies = [
        "",
        "canary",
        "{",
        "null",
        "[]",
        "{\"SecretString\": 12}",
        "{\"SecretString\": {\"canary\": 1}}",
        "{\"SecretValues\": {}}",
        "{\"SecretValues\": [null, {}], \"Errors\": [{}, null]}",
        "{\"SecretList\": [{\"Name\": null, \"CreatedDate\": 1e300}]}",
        "{\"Name\": \"airbyte_other_v1\", \"SecretString\": \"canary\"}",
        "{\"CreatedDate\": -1e18, \"DeletedDate\": \"never\"}",
    ];
    for status in [200, 302, 400, 404, 500] {
        for body in bodies {
            let gate =
                Gate::open(None, move |_| Act::Answer(status, Vec::new(), body.into())).await;
            let store = open(&gate).await;
            let write = Write::new(coordinate(), SecretValue::new("v".into()));
            let mut errors: Vec<Error> = Vec::new();
            errors.extend(store.read(&write.coordinate.clone().into()).await.err());
            errors.extend(
                store
                    .read_batch(&names(3))
                    .await
                    .into_iter()
                    .filter_map(Result::err),
            );
            errors.extend(store.write(write.clone()).await.err());
            errors.extend(store.describe(&write.coordinate).await.err());
            errors.extend(store.list_page(&ListOptions::default(), None).await.err());
            errors.extend(store.restore(&write.coordinate).await.err());
            errors.extend(store.identity().await.err());
            // No response contained a value for these names.
            assert!(errors.len() >= 4, "{status} {body}: {}", errors.len());
            for error in errors {
                let source = error.source().map(|source| format!("{source} {source:?}"));
                let shown = format!("{error} {error:?} {source:?}");
                assert!(!shown.contains("canary"), "{status} {body}: {shown}");
            }
        }
    }
}

#[tokio::test]
async fn connections_that_fail_say_how() {
    let cases = [
        (
            "http://127.0.0.1:1".to_owned(),
            ErrorKind::Unavailable,
            "refuses the connection",
        ),
        (
            "https://no-such-host.invalid".to_owned(),
            ErrorKind::Unavailable,
            "does not resolve",
        ),
        // A server without TLS.
        (
            Gate::open(None, |_| Act::Hang)
                .await
                .url
                .replace("http", "https"),
            ErrorKind::InvalidConfig,
            "no trusted TLS connection",
        ),
    ];
    for (url, kind, part) in cases {
        let store = config(&url).connect().await;
        let error = store.read(&names(1)[0]).await.unwrap_err();
        assert!(error.message().contains(part), "{url}: {error}");
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (kind, kind == ErrorKind::Unavailable)
        );
        assert!(error.source().is_some() && error.hint().is_some());
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let gate = Gate::open(None, |_| Act::Hang).await;
    let started = std::time::Instant::now();
    let error = open(&gate).await.read(&names(1)[0]).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(14));
    assert!(
        error.is_retryable() && error.message().contains("timed out"),
        "{error}"
    );
    assert_eq!(gate.take_actions().len(), 1);
}
