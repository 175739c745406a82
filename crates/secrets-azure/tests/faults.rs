//! Malformed responses, broken connections and redirects: the result is an error that shows
//! nothing, and no redirect is followed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::time::Duration;

use e2e::FaultProxy;
use e2e::azure::Azure;
use e2e::proxy::{Answer, Fault, Rule};
use secret_persistence_azure::{AzureKeyVault, COORDINATE_TAG};
use secret_persistence_core::{
    DeleteOptions, Error, ErrorKind, ListOptions, Result, SecretPersistence, SecretPersistenceExt,
    Written,
};
use serde_json::json;
use support::{Setup, application, coordinate, name_of, open, stand_in, write};

/// A stand-in behind a proxy for the vault and for logins.
async fn behind_a_proxy() -> (Azure, FaultProxy, AzureKeyVault) {
    let azure = stand_in().await;
    let proxy = FaultProxy::builder(azure.vault_url())
        .with_tls()
        .with_upstream_ca_file(azure.ca_file())
        .start()
        .unwrap();
    let store = at(&azure, &proxy).await;
    (azure, proxy, store)
}

async fn at(azure: &Azure, proxy: &FaultProxy) -> AzureKeyVault {
    open(settings(azure, proxy)).await
}

fn settings(azure: &Azure, proxy: &FaultProxy) -> Setup {
    Setup::new(&proxy.url())
        .set("ca-file", proxy.ca_file().display())
        .set("authority-host", proxy.url())
        .set("verify-challenge", false)
        .identity(application(azure))
        .set("timeout-seconds", 1)
}

/// A response without a code, as from emulators and older APIs.
fn bare(status: u16) -> Fault {
    Fault::Respond(Answer::status(status).with_body("no code, no JSON"))
}

/// Every operation once.
async fn all(store: &AzureKeyVault) -> Vec<Result<(), Error>> {
    let name = coordinate();
    vec![
        store.read(&name.clone().into()).await.map(drop),
        store.write(write()).await.map(drop),
        store.delete(&name, &DeleteOptions::default()).await,
        store.restore(&name).await,
        store.describe(&name).await.map(drop),
        store
            .list_page(&ListOptions::default(), None)
            .await
            .map(drop),
        store.identity().await.map(drop),
    ]
}

#[tokio::test]
async fn answers_of_another_form_are_errors_without_their_text() {
    let (_azure, proxy, store) = behind_a_proxy().await;
    store.read(&coordinate().into()).await.unwrap_err();
    let html = "<html>canary</html>";
    for (answer, kinds) in [
        (
            Answer::status(200).with_body(html),
            &[ErrorKind::Unavailable][..],
        ),
        (Answer::status(200), &[ErrorKind::Unavailable]),
        (
            Answer::json(200, &json!({ "value": 7, "canary": "canary" })),
            &[ErrorKind::Unavailable],
        ),
        (
            Answer::json(200, &json!(["canary"])),
            &[ErrorKind::Unavailable],
        ),
        (
            Answer::status(500).with_body(html),
            &[ErrorKind::Unavailable],
        ),
        (
            Answer::status(502).with_body(html),
            &[ErrorKind::Unavailable],
        ),
        (
            Answer::status(400).with_body(html),
            &[ErrorKind::Unexpected],
        ),
        (
            Answer::status(403).with_body(html),
            &[ErrorKind::PermissionDenied],
        ),
        (
            Answer::json(
                418,
                &json!({ "error": { "code": "canary canary", "message": "canary" } }),
            ),
            &[ErrorKind::Unexpected],
        ),
        (
            Answer::status(401).with_body(html),
            &[ErrorKind::Unauthenticated],
        ),
        (
            Answer::status(401).with_header("WWW-Authenticate", "Bearer canary"),
            &[ErrorKind::Unauthenticated, ErrorKind::Unavailable],
        ),
    ] {
        proxy.heal();
        for method in ["GET", "PUT", "DELETE", "POST"] {
            for collection in ["secrets", "deletedsecrets"] {
                proxy.inject(
                    Rule::new(Fault::Respond(answer.clone()))
                        .on(format!("{method} /{collection}*")),
                );
            }
        }
        for result in all(&store).await {
            let Err(error) = result else {
                // The vault knows the caller and refuses: this is an identity.
                continue;
            };
            assert!(kinds.contains(&error.kind()), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (azure, proxy, store) = behind_a_proxy().await;
    let elsewhere = stand_in().await;
    let away = Answer::status(307).with_header("Location", &elsewhere.vault_url());
    proxy.inject(Rule::new(Fault::Respond(away.clone())).on("GET /*"));
    let error = store.read(&coordinate().into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error}");
    assert!(error.message().contains("not followed"), "{error}");
    proxy.heal();
    proxy.inject(Rule::new(Fault::Respond(away)).on("POST /*"));
    let store = at(&azure, &proxy).await;
    let error = store.read(&coordinate().into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error}");
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn connections_that_break_are_unavailable() {
    let (azure, proxy, _) = behind_a_proxy().await;
    for fault in [
        Fault::CutBeforeWork,
        Fault::CutAfterWork,
        Fault::HalfAnswer,
        Fault::HangBeforeWork,
    ] {
        // From the vault, and from the login.
        for pattern in ["GET /secrets*", "POST /*"] {
            proxy.heal();
            let store = at(&azure, &proxy).await;
            proxy.inject(Rule::new(fault.clone()).on(pattern));
            let error = store.read(&coordinate().into()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}: {error}");
            assert!(error.is_retryable());
        }
    }
}

/// The set was executed but its response was lost, in each way.
#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognised_as_the_same() {
    let (_azure, proxy, store) = behind_a_proxy().await;
    store.read(&coordinate().into()).await.unwrap_err();
    for fault in [Fault::CutAfterWork, Fault::HalfAnswer, Fault::HangAfterWork] {
        proxy.heal();
        proxy.inject(Rule::new(fault.clone()).on("PUT /*").times(1));
        let there = write();
        let first = store.write(there.clone()).await;
        // Half a response to a set is still a set: the response is not needed.
        assert!(
            first.is_err() || matches!(fault, Fault::HalfAnswer),
            "{fault:?}"
        );
        let again = store.write(there).await.unwrap();
        assert_eq!(again, Written::AlreadySame, "{fault:?}");
    }
}

/// A secret that is being recovered neither exists nor is deleted. A failure meanwhile must not be
/// treated as its absence.
#[tokio::test]
async fn a_restore_goes_on_whatever_its_looks_meet() {
    let (azure, proxy, store) = behind_a_proxy().await;
    azure.switches(|switches| switches.recovering = Duration::from_millis(600));
    let throttled = json!({ "error": { "code": "Throttled", "message": "x" } });
    for (pattern, fault) in [
        (
            "GET /secrets*",
            Fault::Respond(Answer::json(429, &throttled)),
        ),
        ("GET /secrets*", Fault::CutBeforeWork),
        ("POST /deletedsecrets*", Fault::CutAfterWork),
        ("POST /deletedsecrets*", Fault::HangAfterWork),
    ] {
        proxy.heal();
        let there = write();
        store.write(there.clone()).await.unwrap();
        let delete = DeleteOptions::default();
        store.delete(&there.coordinate, &delete).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.inject(Rule::new(fault).on(pattern).times(2));
        store.restore(&there.coordinate).await.unwrap();
        proxy.heal();
        let read = store.read(&there.coordinate.into()).await.unwrap();
        assert_eq!(read.value, there.value);
    }
}

/// A conflict without an inner code is examined: the name may be soft-deleted.
#[tokio::test]
async fn a_conflict_without_a_reason_is_looked_into() {
    let (_azure, proxy, store) = behind_a_proxy().await;
    let vague = json!({ "error": { "code": "Conflict", "message": "x" } });
    let vague = Fault::Respond(Answer::json(409, &vague));
    let there = write();
    store.write(there.clone()).await.unwrap();
    store
        .delete(&there.coordinate, &DeleteOptions::default())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.inject(Rule::new(vague).on("PUT /*"));
    let error = store.write(there).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PendingDeletion, "{error}");
    let error = store.write(write()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

/// A bad request may mean that the name belongs to a deleted secret.
#[tokio::test]
async fn a_refusal_without_a_code_is_looked_into() {
    let (azure, proxy, refusing) = behind_a_proxy().await;
    let recovering = settings(&azure, &proxy).set("on-deleted", "recover");
    let recovering = open(recovering).await;
    let there = write();
    refusing.write(there.clone()).await.unwrap();
    let options = DeleteOptions::default();
    refusing.delete(&there.coordinate, &options).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.inject(Rule::new(bare(400)).on("PUT /*"));
    let error = refusing.write(there.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PendingDeletion, "{error}");
    let written = recovering.write(there).await.unwrap();
    assert_eq!(written, Written::AlreadySame);
    let error = refusing.write(write()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error}");
}

/// Without soft delete, deletes are final: there is nothing to wait for, purge or read.
#[tokio::test]
async fn a_vault_without_soft_delete_deletes_at_once() {
    for (body, status) in [
        (
            json!({ "attributes": { "recoveryLevel": "Purgeable" } }),
            404,
        ),
        (json!({ "attributes": { "enabled": true } }), 400),
        (json!({}), 405),
    ] {
        let (azure, proxy, _) = behind_a_proxy().await;
        let purging = open(settings(&azure, &proxy).set("purge", "always")).await;
        let there = write();
        purging.write(there.clone()).await.unwrap();
        let deleted = Fault::Respond(Answer::json(200, &body));
        proxy.inject(Rule::new(deleted).on("DELETE /secrets*"));
        proxy.inject(Rule::new(bare(status)).on("GET /deletedsecrets*"));
        proxy.reset();
        let options = DeleteOptions::default();
        purging.delete(&there.coordinate, &options).await.unwrap();
        // A read, the delete, and one read afterwards.
        assert_eq!(proxy.requests().len(), 3, "{status}");
        let missing = purging.read(&coordinate().into()).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{status}: {missing}");
    }
}

/// An invalid link is not the end of a listing.
#[tokio::test]
async fn a_link_to_nowhere_is_an_error() {
    let (_azure, proxy, store) = behind_a_proxy().await;
    let page = |next: Option<&str>| {
        let page = json!({ "value": [], "nextLink": next });
        Rule::new(Fault::Respond(Answer::json(200, &page))).on("GET /secrets*")
    };
    for (next, expected) in [(None, true), (Some(""), true), (Some("/secrets/2"), false)] {
        proxy.heal();
        proxy.inject(page(next));
        let listed = store.list_page(&ListOptions::default(), None).await;
        assert_eq!(listed.is_ok(), expected, "{next:?}");
        assert!(listed.is_ok_and(|page| page.next.is_none()) || !expected);
    }
}

/// A server cannot keep the client reading forever.
#[tokio::test]
async fn an_answer_without_end_is_ended() {
    let (_azure, proxy, store) = behind_a_proxy().await;
    let endless = Answer::status(200).with_body(vec![b' '; 5 << 20]);
    proxy.inject(Rule::new(Fault::Respond(endless)).on("GET /secrets*"));
    let error = store.read(&coordinate().into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

/// A link to the next page only leads to our vault, and invalid entries are skipped.
#[tokio::test]
async fn listings_stay_in_the_vault_and_skip_what_they_cannot_read() {
    let (_azure, proxy, store) = behind_a_proxy().await;
    let (ours, foreign) = (coordinate(), coordinate());
    let id = |name: &str| format!("https://elsewhere.example/secrets/{name}");
    let page = json!({
        "value": [
            { "id": id(&name_of(&ours)), "tags": { COORDINATE_TAG: ours.as_str() }, "attributes": { "exp": 1 } },
            { "id": id(&name_of(&ours)), "tags": { COORDINATE_TAG: foreign.as_str() } },
            { "id": id("airbyte-x-v1"), "tags": { COORDINATE_TAG: "canary" } },
            { "id": "garbage" },
            { "id": "" },
            { "tags": null, "attributes": null },
        ],
        "nextLink": "https://elsewhere.example/secrets?api-version=7.4&$skiptoken=next%2Fpage",
    });
    proxy.inject(Rule::new(Fault::Respond(Answer::json(200, &page))).on("GET /secrets*"));
    let listed = store
        .list_page(&ListOptions::default(), None)
        .await
        .unwrap();
    assert_eq!(listed.entries.len(), 1);
    assert_eq!(listed.entries[0].coordinate, ours);
    assert_eq!(listed.skipped, 5);
    proxy.reset();
    let next = listed.next.unwrap();
    store
        .list_page(&ListOptions::default(), Some(&next))
        .await
        .unwrap();
    let requests = proxy.requests();
    assert_eq!(requests.len(), 1);
    let query = requests[0].uri.query().unwrap();
    assert!(query.contains("skiptoken=next%2Fpage"), "{query}");
}
