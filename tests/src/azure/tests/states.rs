//! The states of a secret.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::Setup;

const LONG: Duration = Duration::from_secs(60);
const NOT_FOUND: (u16, &str, Option<&str>) = (404, "SecretNotFound", None);

fn conflict(inner: &'static str) -> (u16, &'static str, Option<&'static str>) {
    (409, "Conflict", Some(inner))
}

async fn set(setup: &Setup) -> super::Answer {
    setup.set("alpha", json!({"value": "another"})).await
}

#[tokio::test]
async fn a_secret_is_deleting_before_it_is_deleted() {
    let setup = Setup::new().await;
    setup.seed("alpha").await;
    setup.azure.switches(|switches| switches.deleting = LONG);
    let deleted = setup.delete("/secrets/alpha").await.ok();
    assert_eq!(
        deleted["recoveryId"],
        format!("{}/deletedsecrets/alpha", setup.azure.vault_url())
    );
    let days = 24 * 60 * 60;
    let at = |date: &str| deleted[date].as_i64().unwrap();
    assert_eq!(at("scheduledPurgeDate") - at("deletedDate"), 90 * days);
    assert_eq!(deleted["value"], Value::Null);

    assert_eq!(setup.get("/secrets/alpha").await.refusal(), NOT_FOUND);
    assert_eq!(
        setup.get("/deletedsecrets/alpha").await.refusal(),
        NOT_FOUND
    );
    let being = conflict("ObjectIsBeingDeleted");
    assert_eq!(set(&setup).await.refusal(), being);
    assert_eq!(setup.delete("/secrets/alpha").await.refusal(), being);
    assert_eq!(setup.delete("/deletedsecrets/alpha").await.refusal(), being);
    assert_eq!(setup.recover("alpha").await.refusal(), being);
}

#[tokio::test]
async fn a_deleted_secret_keeps_its_name() {
    let setup = Setup::new().await;
    setup
        .azure
        .switches(|switches| switches.deleting = Duration::ZERO);
    setup.seed("alpha").await;
    setup.delete("/secrets/alpha").await.ok();

    assert_eq!(setup.get("/secrets/alpha").await.refusal(), NOT_FOUND);
    assert_eq!(setup.delete("/secrets/alpha").await.refusal(), NOT_FOUND);
    assert_eq!(
        set(&setup).await.refusal(),
        conflict("ObjectIsDeletedButRecoverable")
    );
    let deleted = setup.get("/deletedsecrets/ALPHA").await.ok();
    assert!(deleted["deletedDate"].is_i64());
    assert_eq!(deleted["value"], Value::Null);
}

#[tokio::test]
async fn recovering_takes_its_time() {
    let setup = Setup::new().await;
    setup.azure.switches(|switches| {
        switches.deleting = Duration::ZERO;
        switches.recovering = Duration::from_millis(300);
    });
    setup.seed("alpha").await;
    setup.delete("/secrets/alpha").await.ok();
    let recovered = setup.recover("alpha").await.ok();
    assert!(
        recovered["id"]
            .as_str()
            .unwrap()
            .contains("/secrets/alpha/")
    );

    let being = conflict("ObjectIsBeingRecovered");
    assert_eq!(setup.get("/secrets/alpha").await.refusal(), NOT_FOUND);
    assert_eq!(set(&setup).await.refusal(), being);
    assert_eq!(setup.delete("/secrets/alpha").await.refusal(), being);
    assert_eq!(setup.recover("alpha").await.refusal(), being);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(setup.get("/secrets/alpha").await.ok()["value"], "tr0ub4dor");
    set(&setup).await.ok();
}

#[tokio::test]
async fn purging_takes_its_time() {
    let setup = Setup::new().await;
    setup.azure.switches(|switches| {
        switches.deleting = Duration::ZERO;
        switches.purging = Duration::from_millis(300);
    });
    setup.seed("alpha").await;
    setup.delete("/secrets/alpha").await.ok();
    assert_eq!(setup.delete("/deletedsecrets/alpha").await.status, 204);

    assert_eq!(setup.get("/secrets/alpha").await.refusal(), NOT_FOUND);
    assert_eq!(
        setup.get("/deletedsecrets/alpha").await.refusal(),
        NOT_FOUND
    );
    assert_eq!(
        set(&setup).await.refusal(),
        conflict("ObjectIsBeingDeleted")
    );
    tokio::time::sleep(Duration::from_millis(350)).await;
    set(&setup).await.ok();
    let versions = setup.get("/secrets/alpha/versions").await.ok();
    assert_eq!(versions["value"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn protected_secrets_are_not_purged() {
    let setup = Setup::new().await;
    setup.azure.switches(|switches| {
        switches.deleting = Duration::ZERO;
        switches.purge_protection = true;
    });
    setup.seed("alpha").await;
    let deleted = setup.delete("/secrets/alpha").await.ok();
    assert_eq!(deleted["attributes"]["recoveryLevel"], "Recoverable");
    let refused = setup.delete("/deletedsecrets/alpha").await;
    assert_eq!(refused.refusal(), (403, "Forbidden", None));
    assert!(refused.message().contains("purge protection is enabled"));
    setup.get("/deletedsecrets/alpha").await.ok();
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let setup = Setup::new().await;
    let enabled = Some(json!({"attributes": {"enabled": false}}));
    assert_eq!(setup.get("/secrets/nothing").await.refusal(), NOT_FOUND);
    assert_eq!(
        setup.get("/secrets/nothing/versions").await.refusal(),
        NOT_FOUND
    );
    assert_eq!(setup.delete("/secrets/nothing").await.refusal(), NOT_FOUND);
    assert_eq!(
        setup.get("/deletedsecrets/nothing").await.refusal(),
        NOT_FOUND
    );
    assert_eq!(
        setup.delete("/deletedsecrets/nothing").await.refusal(),
        NOT_FOUND
    );
    assert_eq!(setup.recover("nothing").await.refusal(), NOT_FOUND);
    let updated = setup
        .call(Method::PATCH, "/secrets/nothing/", enabled)
        .await;
    assert_eq!(updated.refusal(), NOT_FOUND);

    setup.seed("alive").await;
    assert_eq!(setup.recover("alive").await.refusal(), NOT_FOUND);
    assert_eq!(
        setup.delete("/deletedsecrets/alive").await.refusal(),
        NOT_FOUND
    );
}

#[tokio::test]
async fn a_disabled_secret_is_not_read() {
    let setup = Setup::new().await;
    setup
        .azure
        .switches(|switches| switches.deleting = Duration::ZERO);
    setup.seed("alpha").await;
    let update = async |body: Value| {
        setup
            .call(Method::PATCH, "/secrets/alpha/", Some(body))
            .await
            .ok()
    };
    let disabled = (403, "Forbidden", Some("SecretDisabled"));
    let updated = update(json!({"attributes": {"enabled": false}, "tags": {"a": "b"}})).await;
    assert_eq!(updated["attributes"]["enabled"], false);
    assert_eq!(updated["value"], Value::Null);
    assert_eq!(setup.get("/secrets/alpha").await.refusal(), disabled);
    assert_eq!(
        setup.get("/secrets").await.ok()["value"][0]["attributes"]["enabled"],
        false
    );

    // What an update does not speak of stays.
    update(json!({"attributes": {"enabled": true}})).await;
    let read = setup.get("/secrets/alpha").await.ok();
    assert_eq!(read["tags"], json!({"a": "b"}));
    assert_eq!(read["value"], "tr0ub4dor");

    setup
        .azure
        .switches(|switches| switches.disabled.insert("alpha".into()));
    assert_eq!(setup.get("/secrets/Alpha").await.refusal(), disabled);
    setup.delete("/secrets/alpha").await.ok();
    assert_eq!(setup.get("/deletedsecrets/alpha").await.refusal(), disabled);
}
