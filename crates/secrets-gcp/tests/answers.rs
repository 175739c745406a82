//! Google's responses to failures: the kind, the hint, and nothing of the body.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::error::Error as _;
use std::time::Duration;

use e2e::google::{Google, Kms, Switches, When};
use secret_persistence_core::{
    Coordinate, DeleteOptions, Error, ErrorKind, ListOptions, ManagedCoordinate, Operation,
    SecretPersistence, SecretPersistenceExt, SecretValue, Write, Written,
};
use secret_persistence_gcp::GoogleSecretManager;
use serde_json::json;
use support::gate::{Answer, Gate};
use support::outsider::SomebodyElse;
use support::{Setup, config, coordinate, google, google_with, store, write};

async fn unread(store: &GoogleSecretManager) -> Error {
    store.read(&coordinate().into()).await.unwrap_err()
}

/// Every state that an operator may meet: the kind, whether it is retryable, and the required
/// words.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_understands_what_is_wrong() {
    type Change = fn(&mut Switches);
    let cases: [(Change, ErrorKind, bool, &[&str]); 9] = [
        (
            |switches| switches.deny("secretmanager.versions.access"),
            ErrorKind::PermissionDenied,
            false,
            &[
                "secretmanager.versions.access on projects/stand-in-project/secrets/airbyte_",
                "secret-migrate policy gcp",
            ],
        ),
        (
            |switches| switches.api_disabled = true,
            ErrorKind::InvalidConfig,
            false,
            &["API is not enabled", "gcloud services enable"],
        ),
        (
            |switches| switches.billing_disabled = true,
            ErrorKind::InvalidConfig,
            false,
            &["no billing account", "console.cloud.google.com/billing"],
        ),
        (
            |switches| switches.throttle_every = Some(1),
            ErrorKind::Throttled,
            true,
            &["request quota", "limit layer"],
        ),
        (
            |switches| switches.revoked_keys = true,
            ErrorKind::Unauthenticated,
            false,
            &["does not accept the token", "key was deleted"],
        ),
        (
            |switches| switches.clock_offset = 7_200,
            ErrorKind::Unauthenticated,
            false,
            &["clock is 7", "s behind Google's", "NTP"],
        ),
        (
            |switches| switches.clock_offset = -7_200,
            ErrorKind::Unauthenticated,
            false,
            &["s ahead of Google's", "NTP"],
        ),
        (
            |switches| switches.cut("AccessSecretVersion", When::BeforeWork),
            ErrorKind::Unavailable,
            true,
            &["is incomplete", "try again"],
        ),
        (
            |_| {},
            ErrorKind::NotFound,
            false,
            &["never written, was deleted, or has expired", "project-id"],
        ),
    ];
    for (change, kind, retryable, texts) in cases {
        let google = google_with(change).await;
        let error = unread(&store(&google).await).await;
        let shown = error.to_string();
        assert_eq!(error.kind(), kind, "{shown}");
        assert_eq!(error.is_retryable(), retryable, "{shown}");
        assert_eq!(error.operation(), Some(Operation::Read));
        assert_eq!(error.store(), Some("gcp stand-in-project"));
        assert!(error.source().is_some());
        for text in texts {
            assert!(shown.contains(text), "{text}: {shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_project_is_named() {
    let google = google().await;
    let setup = config(&google).set("project-id", "another-project");
    let store = setup.connect().await;
    let error = store.write(write("v")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(error.message().contains("does not know the project"));
    assert!(
        error
            .hint()
            .unwrap()
            .contains("SECRET_STORE_GCP_PROJECT_ID")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_request_says_how_long_to_wait() {
    let google = google_with(|switches| {
        switches.throttle_every = Some(1);
        switches.retry_after = Some(Duration::from_millis(2_500));
    })
    .await;
    let error = unread(&store(&google).await).await;
    assert_eq!(error.retry_after(), Some(Duration::from_millis(2_500)));
}

/// The states of a version, distinguished by its metadata. If the metadata may not be read, the
/// error says so.
#[tokio::test(flavor = "multi_thread")]
async fn disabled_destroyed_and_unusable_are_told_apart() {
    let google = google().await;
    let outsider = SomebodyElse::of(&google, None).await;
    let store = store(&google).await;
    let written = async || {
        let write = write("v");
        store.write(write.clone()).await.unwrap();
        write.coordinate
    };
    let (disabled, destroyed) = (written().await, written().await);
    outsider.disable(disabled.as_str(), 1).await;
    outsider.destroy(destroyed.as_str(), 1).await;
    let error =
        async |name: &ManagedCoordinate| store.read(&name.clone().into()).await.unwrap_err();
    let found = error(&disabled).await;
    assert_eq!(found.kind(), ErrorKind::Conflict, "{found}");
    assert!(found.message().contains("is disabled") && !found.is_retryable());
    let found = error(&destroyed).await;
    assert_eq!(found.kind(), ErrorKind::NotFound, "{found}");
    assert!(found.message().contains("was destroyed"), "{found}");

    google.switches(|switches| switches.deny("secretmanager.versions.get"));
    let found = error(&disabled).await;
    assert!(found.message().contains("disabled or destroyed"), "{found}");
    assert!(found.hint().unwrap().contains("secretmanager.versions.get"));
    google.switches(|switches| switches.denied.clear());

    // The same name is not written again, because the value cannot be compared.
    for name in [&disabled, &destroyed] {
        let again = Write::new(name.clone(), "v".to_owned().into());
        store.write(again).await.unwrap_err();
        assert_eq!(google.count("DestroySecretVersion"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_key_that_cannot_be_used_is_named() {
    for (state, text) in [
        (Kms::Denied, "service agent"),
        (Kms::Disabled, "KMS key"),
        (Kms::NoServiceAgent, "service agent"),
    ] {
        let google = google().await;
        let key = "projects/kms-project/locations/global/keyRings/ring/cryptoKeys/key";
        let store = config(&google).set("kms-key", key).connect().await;
        let there = write("v");
        store.write(there.clone()).await.unwrap();
        google.switches(|switches| switches.kms = state);
        let error = store.write(write("v")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        if state != Kms::NoServiceAgent {
            let error = store.read(&there.coordinate.into()).await.unwrap_err();
            assert!(error.message().contains("customer's key"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_altered_on_its_way_is_refused() {
    let google = google().await;
    let store = store(&google).await;
    let write = write("the value");
    store.write(write.clone()).await.unwrap();
    let name: Coordinate = write.coordinate.into();
    google.switches(|switches| switches.corrupt_payloads = true);
    let error = store.read(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    assert!(!format!("{error:?}").contains("the value \""));
    // A value without a checksum cannot be verified.
    google.switches(|switches| {
        switches.corrupt_payloads = false;
        switches.omit_checksums = true;
    });
    assert_eq!(store.read(&name).await.unwrap().value, write.value);
}

/// `latest` may lag for minutes; a hydrate right after a save must not.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_written_is_read() {
    let google = google_with(|switches| {
        switches.latest_lag = Duration::from_secs(600);
        switches.metadata_lag = Duration::from_secs(600);
        switches.list_lag = Duration::from_secs(600);
    })
    .await;
    let store = store(&google).await;
    let write = write("v");
    store.write(write.clone()).await.unwrap();
    google.reset();
    let read = store.read(&write.coordinate.clone().into()).await.unwrap();
    assert_eq!(read.value, write.value);
    assert_eq!(google.count("AccessSecretVersion"), 2);
    let options = ListOptions::default();
    let listed = store.list_page(&options, None).await.unwrap();
    assert!(listed.entries.is_empty());
    google.age(Duration::from_secs(601));
    let listed = store.list_page(&options, None).await.unwrap();
    assert_eq!(listed.entries.len(), 1);
    google.reset();
    store.read(&write.coordinate.into()).await.unwrap();
    assert_eq!(google.count("AccessSecretVersion"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_others_may_name_a_version() {
    let google = google().await;
    for region in [None, Some("us-central1")] {
        let outsider = SomebodyElse::of(&google, region).await;
        outsider.create("db").await;
        outsider.add("db", b"one").await;
        outsider.add("db", b"two").await;
        let mut setup = config(&google);
        if let Some(region) = region {
            setup = setup.set("region", region);
        }
        let store = setup.connect().await;
        let (project, number) = (google.project(), google.project_number());
        let place = region.map_or_else(String::new, |region| format!("/locations/{region}"));
        for (name, value) in [
            ("db".to_owned(), "two"),
            ("db/versions/1".to_owned(), "one"),
            ("db/versions/2".to_owned(), "two"),
            ("db/versions/latest".to_owned(), "two"),
            (format!("projects/{project}{place}/secrets/db"), "two"),
            (
                format!("projects/{number}{place}/secrets/db/versions/1"),
                "one",
            ),
        ] {
            let name = Coordinate::parse(&name).unwrap();
            let read = store.read(&name).await.unwrap();
            assert_eq!(read.value.expose(), value, "{name}");
        }
        google.reset();
        let missing = Coordinate::parse("db/versions/3").unwrap();
        let error = store.read(&missing).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        // A version that was requested by number is that one or none.
        assert_eq!(google.count("AccessSecretVersion"), 1);
        outsider.delete("db").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_paged_and_show_what_is_ours() {
    let google = google().await;
    let store = store(&google).await;
    let outsider = SomebodyElse::of(&google, None).await;
    for id in [
        "somebody-elses",
        "not_airbyte_either",
        "airbyte_without_version",
    ] {
        outsider.create(id).await;
    }
    let writes: Vec<_> = (0..5).map(|_| write("v")).collect();
    for written in store.write_many(&writes).await {
        written.unwrap();
    }
    let mut seen = Vec::new();
    let (mut cursor, mut pages, mut skipped) = (None, 0, 0);
    loop {
        let options = ListOptions::default().with_page_size(2);
        let page = store.list_page(&options, cursor.as_ref()).await.unwrap();
        assert!(page.entries.len() <= 2);
        seen.extend(page.entries.into_iter().map(|entry| entry.coordinate));
        skipped += page.skipped;
        pages += 1;
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    let mut expected: Vec<_> = writes.into_iter().map(|write| write.coordinate).collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
    // The filter matches names that contain the prefix. The store skips those that do not begin
    // with it.
    assert_eq!((pages >= 3, skipped), (true, 2));

    let wrong = secret_persistence_core::Cursor::new("nonsense");
    let error = store
        .list_page(&ListOptions::default(), Some(&wrong))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_restored_and_what_is_not_there_is_deleted() {
    let google = google().await;
    let store = store(&google).await;
    let name = coordinate();
    store.delete(&name, &Default::default()).await.unwrap();
    google.reset();
    let error = store.restore(&name).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(google.requests().is_empty());
}

/// Responses that Google does not send, but a substitute may.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_answers_nothing_panics_and_nothing_of_it_shows() {
    use ErrorKind as K;
    let payload =
        |name: &str| Answer::ok(&json!({ "name": name, "payload": { "data": "Y2FuYXJ5" } }));
    let redirect = || {
        let to = ("location", "http://127.0.0.1:1/canary".to_owned());
        Answer(307, vec![to], String::new())
    };
    let cases: Vec<(Answer, ErrorKind)> = vec![
        (Answer(200, vec![], "canary".into()), K::Unavailable),
        (
            Answer(200, vec![], "{\"payload\": \"canary\"}".into()),
            K::Unavailable,
        ),
        (Answer(200, vec![], String::new()), K::Unavailable),
        (Answer::ok(&json!({})), K::Unexpected),
        (
            payload("projects/1/secrets/another/versions/1"),
            K::Unexpected,
        ),
        (payload("canary"), K::Unexpected),
        (redirect(), K::Unexpected),
        (
            Answer(404, vec![], "<html>canary</html>".into()),
            K::Unexpected,
        ),
        (Answer(429, vec![], "canary".into()), K::Throttled),
        (
            Answer(502, vec![], "<html>canary</html>".into()),
            K::Unavailable,
        ),
        (Answer::error(418, "CANARY", None), K::Unexpected),
        (
            Answer::error(403, "PERMISSION_DENIED", Some("CANARY")),
            K::PermissionDenied,
        ),
        (
            Answer::error(403, "PERMISSION_DENIED", Some("SECURITY_POLICY_VIOLATED")),
            K::PermissionDenied,
        ),
        (
            Answer::error(403, "PERMISSION_DENIED", Some("CONSUMER_SUSPENDED")),
            K::PermissionDenied,
        ),
        (
            Answer::error(
                403,
                "PERMISSION_DENIED",
                Some("ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
            ),
            K::PermissionDenied,
        ),
        (
            Answer::error(401, "UNAUTHENTICATED", Some("ACCOUNT_STATE_INVALID")),
            K::Unauthenticated,
        ),
        (
            Answer::error(401, "UNAUTHENTICATED", None),
            K::Unauthenticated,
        ),
        (Answer::error(500, "INTERNAL", None), K::Unavailable),
        (Answer::error(503, "UNAVAILABLE", None), K::Unavailable),
        (Answer::error(409, "ABORTED", None), K::Conflict),
        (Answer::error(501, "UNIMPLEMENTED", None), K::InvalidConfig),
    ];
    for (answer, kind) in cases {
        let told = answer.clone();
        let gate = Gate::open(move |_| told.clone()).await;
        let store = anonymous(&gate).await;
        let error = unread(&store).await;
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        // The SDK does not retry.
        assert_eq!(gate.seen().len(), 1, "{answer:?}");
        let mut errors = vec![error];
        errors.extend(store.write(write("canary")).await.err());
        errors.extend(store.list_page(&ListOptions::default(), None).await.err());
        errors.extend(store.describe(&coordinate()).await.err());
        for error in errors {
            let shown = format!("{error} {error:?} {:?}", error.source());
            let shown = shown.to_lowercase();
            // A code with the form of codes is shown; a message is not.
            assert!(
                !shown.replace("http 418, canary", "").contains("canary"),
                "{shown}"
            );
        }
        // No redirect was followed.
        assert!(gate.seen().iter().all(|seen| !seen.line.contains("canary")));
    }
}

async fn anonymous(gate: &Gate) -> GoogleSecretManager {
    let setup = Setup::new("my-project", &gate.url).set("credentials-source", "anonymous");
    setup.connect().await
}

/// A server that uses HTTP statuses and omits everything that the documentation calls optional:
/// codes in errors, checksums, times, labels, etags, counts. It returns the project's number for
/// its id, and ignores filters.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_few_words_is_understood() {
    let there = coordinate();
    let id = there.to_string();
    let gate = Gate::open(move |seen| {
        let name = format!("projects/123456789012/secrets/{id}");
        let text = |status, text: &str| Answer(status, vec![], text.to_owned());
        match seen.line.split_once(' ').unwrap() {
            ("POST", path) if path.contains("/secrets?") && path.contains(&id) => {
                text(409, "that name is taken")
            }
            ("GET", path) if path.contains(&format!("{id}/versions/1:access")) => {
                Answer::ok(&json!({
                    "name": format!("{name}/versions/1"),
                    "payload": { "data": "dmFsdWU=" },
                }))
            }
            ("GET", path) if path.contains("/secrets?") => Answer::ok(&json!({
                "secrets": [
                    { "name": name },
                    { "name": "projects/123456789012/secrets/airbyte_other_v1", "labels": null },
                    { "name": "projects/123456789012/secrets/somebody-elses" },
                ],
            })),
            ("DELETE", path) if path.contains("page") => text(404, "<html>no such page</html>"),
            _ => text(404, "no such thing"),
        }
    })
    .await;
    let store = anonymous(&gate).await;
    let same = |value| Write::new(there.clone(), SecretValue::new(String::from(value)));
    assert_eq!(
        store.write(same("value")).await.unwrap(),
        Written::AlreadySame
    );
    let taken = store.write(same("another")).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "{taken}");
    let read = store.read(&there.clone().into()).await.unwrap();
    assert_eq!(read.value.expose(), "value");
    let missing = store.read(&coordinate().into()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    let options = ListOptions::default().with_prefix(there.as_str());
    let page = store.list_page(&options, None).await.unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!((&page.entries[0].coordinate, page.skipped), (&there, 1));
    store
        .delete(&coordinate(), &DeleteOptions::default())
        .await
        .unwrap();
    // "Not found" in an HTML page is not about a secret.
    let page = ManagedCoordinate::parse("airbyte_page_v1").unwrap();
    let error = store
        .delete(&page, &DeleteOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_explained() {
    let refused =
        Setup::new("my-project", "http://127.0.0.1:1").set("credentials-source", "anonymous");
    let error = unread(&refused.connect().await).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error
            .message()
            .contains("127.0.0.1:1 refuses the connection"),
        "{error}"
    );

    let key = google().await;
    let unknown = Setup::new("my-project", "https://secretmanager.nowhere.invalid")
        .set("region", "nowhere-north1")
        .set("credentials", key.service_account_json());
    let error = unread(&unknown.connect().await).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("does not resolve"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_store_names_its_place() {
    let google: Google = google().await;
    let setup = config(&google).set("region", "us-central1");
    let error = unread(&setup.connect().await).await;
    assert_eq!(error.store(), Some("gcp stand-in-project/us-central1"));
}
