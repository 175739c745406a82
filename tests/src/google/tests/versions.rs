//! Versions and their payloads.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::Bench;
use crate::google::{Kms, When};

#[tokio::test]
async fn versions_are_added_and_read() {
    let bench = Bench::new().await;
    let number = bench.google.project_number();
    bench.secret("a", &[]).await;
    bench
        .get(&bench.path("/a/versions/latest:access"))
        .await
        .refused(404, "NOT_FOUND", "not found or has no versions.");
    let body = json!({"payload": {"data": "YQo=", "dataCrc32c": "163439259"}});
    let added = bench
        .post(&bench.path("/a:addVersion"), body)
        .await
        .expect(200);
    let name = format!("projects/{number}/secrets/a/versions/1");
    assert_eq!(added["name"], name);
    assert_eq!(added["state"], "ENABLED");
    assert_eq!(added["clientSpecifiedPayloadChecksum"], true);
    assert_eq!(added["replicationStatus"], json!({"automatic": {}}));
    for version in ["1", "latest"] {
        let path = bench.path(&format!("/a/versions/{version}:access"));
        let read = bench.get(&path).await.expect(200);
        let payload = json!({"data": "YQo=", "dataCrc32c": "163439259"});
        assert_eq!(read, json!({"name": name, "payload": payload}));
    }
    // Without a checksum, and the checksum of the server's own making.
    let added = bench.add("a", b"123456789").await.expect(200);
    assert!(added.get("clientSpecifiedPayloadChecksum").is_none());
    let read = bench
        .get(&bench.path("/a/versions/latest:access"))
        .await
        .expect(200);
    assert_eq!(read["payload"]["dataCrc32c"], 0xE306_9283_u32.to_string());
    let path = bench.path("/a/versions/2?$alt=json;enum-encoding=int");
    assert_eq!(bench.get(&path).await.expect(200)["state"], 1);
    bench
        .get(&bench.path("/a/versions/3:access"))
        .await
        .refused(404, "NOT_FOUND", "/secrets/a/versions/3] not found.");
    for version in ["01", "-1", "1.5"] {
        let path = bench.path(&format!("/a/versions/{version}:access"));
        bench
            .get(&path)
            .await
            .refused(400, "INVALID_ARGUMENT", "not in a valid format");
    }
}

#[tokio::test]
async fn aliases() {
    let bench = Bench::new().await;
    bench.secret("a", &["one", "two"]).await;
    let path = bench.path("/a?updateMask=version_aliases");
    let body = json!({"versionAliases": {"first": "1"}});
    let updated = bench
        .send(Method::PATCH, &path, Some(body))
        .await
        .expect(200);
    assert_eq!(updated["versionAliases"], json!({"first": "1"}));
    let read = bench
        .get(&bench.path("/a/versions/first:access"))
        .await
        .expect(200);
    assert!(read["name"].as_str().unwrap().ends_with("/versions/1"));
    bench
        .get(&bench.path("/a/versions/second:access"))
        .await
        .refused(404, "NOT_FOUND", "not found");
    // Read by alias only, change by number.
    bench
        .post(&bench.path("/a/versions/first:disable"), json!({}))
        .await
        .refused(400, "INVALID_ARGUMENT", "not in a valid format");
}

#[tokio::test]
async fn what_cannot_be_added() {
    let bench = Bench::new().await;
    bench.secret("a", &[]).await;
    for (body, message) in [
        (json!({}), "Field [payload] is required."),
        (json!({"payload": {}}), "Secret Payload cannot be empty."),
        (
            json!({"payload": {"data": ""}}),
            "Secret Payload cannot be empty.",
        ),
        (json!({"payload": {"data": "§"}}), "Base64 decoding failed"),
        (
            json!({"payload": {"data": "YQo=", "dataCrc32c": "1"}}),
            "CRC32C",
        ),
        (
            json!({"payload": {"data": "YQo=", "dataCrc32c": "x"}}),
            "TYPE_INT64",
        ),
        (
            json!({"payload": {"text": "a"}}),
            "Unknown name \"text\" at 'payload'",
        ),
    ] {
        bench
            .post(&bench.path("/a:addVersion"), body)
            .await
            .refused(400, "INVALID_ARGUMENT", message);
    }
    bench.add("a", &[b'x'; 65_536]).await.expect(200);
    bench
        .add("a", &[b'x'; 65_537])
        .await
        .refused(400, "INVALID_ARGUMENT", "too large");
    bench
        .add("b", b"x")
        .await
        .refused(404, "NOT_FOUND", "/secrets/b] not found.");
    assert_eq!(
        bench.google.versions(&bench.google.secrets()[0]),
        [(1, "ENABLED".to_owned())]
    );
}

#[tokio::test]
async fn states() {
    let bench = Bench::new().await;
    bench.secret("a", &["one", "two"]).await;
    let change = |version: u8, verb: &str, body: Value| {
        let path = bench.path(&format!("/a/versions/{version}:{verb}"));
        let bench = &bench;
        async move { bench.post(&path, body).await }
    };
    let disabled = change(2, "disable", json!({})).await.expect(200);
    assert_eq!(disabled["state"], "DISABLED");
    // `latest` is the newest version, not the newest that can be read.
    for version in ["2", "latest"] {
        bench
            .get(&bench.path(&format!("/a/versions/{version}:access")))
            .await
            .refused(
                400,
                "FAILED_PRECONDITION",
                "/secrets/a/versions/2] is in DISABLED state.",
            );
    }
    let enabled = change(2, "enable", json!({})).await.expect(200);
    assert_ne!(enabled["etag"], disabled["etag"]);
    change(2, "destroy", json!({"etag": disabled["etag"]}))
        .await
        .refused(400, "FAILED_PRECONDITION", "etag");
    let destroyed = change(2, "destroy", json!({"etag": enabled["etag"]}))
        .await
        .expect(200);
    assert_eq!(destroyed["state"], "DESTROYED");
    assert!(destroyed["destroyTime"].is_string());
    bench
        .get(&bench.path("/a/versions/latest:access"))
        .await
        .refused(
            400,
            "FAILED_PRECONDITION",
            "/versions/2] is in DESTROYED state.",
        );
    for verb in ["enable", "disable", "destroy"] {
        change(2, verb, json!({})).await.refused(
            400,
            "FAILED_PRECONDITION",
            "is in DESTROYED state.",
        );
    }
    bench
        .get(&bench.path("/a/versions/1:access"))
        .await
        .expect(200);
    change(3, "disable", json!({}))
        .await
        .refused(404, "NOT_FOUND", "/versions/3] not found");
}

#[tokio::test]
async fn lag_of_latest_and_of_metadata() {
    let bench = Bench::new().await;
    bench.google.switches(|switches| {
        switches.latest_lag = Duration::from_secs(60);
        switches.metadata_lag = Duration::from_secs(120);
    });
    bench.secret("a", &["one"]).await;
    bench
        .get(&bench.path("/a/versions/latest:access"))
        .await
        .refused(404, "NOT_FOUND", "not found or has no versions");
    // Access by number is strongly consistent.
    bench
        .get(&bench.path("/a/versions/1:access"))
        .await
        .expect(200);
    for path in ["/a", "/a/versions/1"] {
        bench
            .get(&bench.path(path))
            .await
            .refused(404, "NOT_FOUND", "not found");
    }
    bench.google.age(Duration::from_secs(61));
    bench
        .get(&bench.path("/a/versions/latest:access"))
        .await
        .expect(200);
    bench.google.age(Duration::from_secs(60));
    bench.get(&bench.path("/a")).await.expect(200);
}

#[tokio::test]
async fn payloads_that_arrive_otherwise() {
    let bench = Bench::new().await;
    bench.secret("a", &["one"]).await;
    let path = bench.path("/a/versions/1:access");
    let good = bench.get(&path).await.expect(200);
    bench
        .google
        .switches(|switches| switches.corrupt_payloads = true);
    let corrupt = bench.get(&path).await.expect(200);
    assert_ne!(corrupt["payload"]["data"], good["payload"]["data"]);
    assert_eq!(
        corrupt["payload"]["dataCrc32c"],
        good["payload"]["dataCrc32c"]
    );
    bench
        .google
        .switches(|switches| switches.omit_checksums = true);
    let bare = bench.get(&path).await.expect(200);
    assert!(bare["payload"].get("dataCrc32c").is_none());
}

#[tokio::test]
async fn keys_of_the_customer() {
    let bench = Bench::new().await;
    let key = "projects/p/locations/global/keyRings/r/cryptoKeys/k";
    let body =
        json!({"replication": {"automatic": {"customerManagedEncryption": {"kmsKeyName": key}}}});
    bench
        .google
        .switches(|switches| switches.kms = Kms::NoServiceAgent);
    bench
        .post(&bench.path("?secretId=a"), body.clone())
        .await
        .refused(400, "INVALID_ARGUMENT", "service identity");
    bench.google.switches(|switches| switches.kms = Kms::Usable);
    bench
        .post(&bench.path("?secretId=a"), body)
        .await
        .expect(200);
    let added = bench.add("a", b"one").await.expect(200);
    assert_eq!(
        added["replicationStatus"]["automatic"]["customerManagedEncryption"]["kmsKeyVersionName"],
        format!("{key}/cryptoKeyVersions/1")
    );
    for (state, message) in [(Kms::Denied, "denied"), (Kms::Disabled, "is not enabled")] {
        bench.google.switches(|switches| switches.kms = state);
        bench
            .add("a", b"two")
            .await
            .refused(400, "FAILED_PRECONDITION", message);
        bench
            .get(&bench.path("/a/versions/1:access"))
            .await
            .refused(400, "FAILED_PRECONDITION", message);
    }
}

#[tokio::test]
async fn connections_break() {
    let bench = Bench::new().await;
    bench.secret("a", &[]).await;
    let url = format!("{}{}", bench.google.endpoint(), bench.path("/a:addVersion"));
    let body = json!({"payload": {"data": "YQo="}});
    for (when, versions) in [(When::BeforeWork, 0), (When::AfterWork, 1)] {
        bench
            .google
            .switches(|switches| switches.cut("AddSecretVersion", when));
        let request = bench
            .client
            .post(&url)
            .bearer_auth(&bench.token)
            .json(&body);
        request.send().await.unwrap_err();
        let name = &bench.google.secrets()[0];
        assert_eq!(bench.google.versions(name).len(), versions, "{when:?}");
    }
    bench.add("a", b"x").await.expect(200);
    let cut = bench.google.requests();
    let cut = cut.iter().filter(|request| request.status == 0);
    assert_eq!(cut.count(), 2);
}
