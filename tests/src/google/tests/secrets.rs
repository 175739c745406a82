//! Secrets themselves.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::Bench;

#[tokio::test]
async fn a_secret_from_its_making_to_its_end() {
    let bench = Bench::new().await;
    let number = bench.google.project_number();
    let body = json!({
        "replication": {"automatic": {}},
        "labels": {"owner": "stories"},
        "annotations": {"Note.1": "anything at all"},
    });
    let created = bench
        .post(&bench.path("?secretId=a"), body)
        .await
        .expect(200);
    assert_eq!(created["name"], format!("projects/{number}/secrets/a"));
    assert_eq!(created["replication"], json!({"automatic": {}}));
    assert_eq!(created["labels"]["owner"], "stories");
    assert!(created.get("expireTime").is_none(), "{created}");

    assert_eq!(bench.get(&bench.path("/a")).await.expect(200), created);
    // By the number, too.
    let by_number = format!("/v1/projects/{number}/secrets/a");
    assert_eq!(bench.get(&by_number).await.expect(200), created);

    let update = json!({"labels": {"owner": "others"}, "etag": created["etag"]});
    let path = bench.path("/a?updateMask=labels");
    let updated = bench
        .send(Method::PATCH, &path, Some(update.clone()))
        .await
        .expect(200);
    assert_eq!(updated["labels"], json!({"owner": "others"}));
    assert_eq!(updated["annotations"], created["annotations"]);
    assert_ne!(updated["etag"], created["etag"]);
    bench
        .send(Method::PATCH, &path, Some(update))
        .await
        .refused(400, "FAILED_PRECONDITION", "etag");

    bench
        .send(Method::DELETE, &bench.path("/a?etag=%22123%22"), None)
        .await
        .refused(400, "FAILED_PRECONDITION", "etag");
    let deleted = bench.send(Method::DELETE, &bench.path("/a"), None).await;
    assert_eq!(deleted.expect(200), json!({}));
    let missing = format!("Secret [projects/{number}/secrets/a] not found.");
    bench
        .get(&bench.path("/a"))
        .await
        .refused(404, "NOT_FOUND", &missing);
    bench
        .send(Method::DELETE, &bench.path("/a"), None)
        .await
        .refused(404, "NOT_FOUND", &missing);
    assert_eq!(bench.google.count("DeleteSecret"), 3);
    assert!(bench.google.secrets().is_empty());
}

#[tokio::test]
async fn what_cannot_be_created() {
    let bench = Bench::new().await;
    bench.secret("taken", &[]).await;
    let automatic = json!({"automatic": {}});
    let key = |location: &str| {
        let name = format!("projects/p/locations/{location}/keyRings/r/cryptoKeys/k");
        json!({"kmsKeyName": name})
    };
    let many: serde_json::Map<_, _> = (0..65)
        .map(|number| (format!("l{number}"), json!("")))
        .collect();
    for (id, body, message) in [
        ("", json!({"replication": automatic}), "Secret ID"),
        ("a.b", json!({"replication": automatic}), "Secret ID"),
        (
            &"x".repeat(256),
            json!({"replication": automatic}),
            "Secret ID",
        ),
        ("a", json!({}), "Secret must be provided"),
        (
            "a",
            json!({"labels": {}}),
            "[secret.replication] is required",
        ),
        (
            "a",
            json!({"replication": {}}),
            "[secret.replication] is required",
        ),
        (
            "a",
            json!({"replication": {"userManaged": {}}}),
            "replicas] is required",
        ),
        (
            "a",
            json!({"replication": {"automatic": {}, "userManaged": {}}}),
            "oneof field 'replication' is already set",
        ),
        (
            "a",
            json!({"replication": {"userManaged": {"replicas": [{"location": "moon-1"}]}}}),
            "[moon-1] is not supported",
        ),
        (
            "a",
            json!({"replication": automatic, "labels": {"Owner": "a"}}),
            "Label key [Owner]",
        ),
        (
            "a",
            json!({"replication": automatic, "labels": {"1": "a"}}),
            "Label key [1]",
        ),
        (
            "a",
            json!({"replication": automatic, "labels": {"owner": "A b"}}),
            "label [owner]",
        ),
        (
            "a",
            json!({"replication": automatic, "labels": {"o": "x".repeat(64)}}),
            "label [o]",
        ),
        (
            "a",
            json!({"replication": automatic, "labels": many}),
            "No more than 64",
        ),
        (
            "a",
            json!({"replication": automatic, "annotations": {"-a": ""}}),
            "Annotation key",
        ),
        (
            "a",
            json!({"replication": automatic, "annotations": {"a": "x".repeat(16384)}}),
            "16KiB",
        ),
        (
            "a",
            json!({"replication": automatic, "ttl": "59s"}),
            "less than 60 seconds",
        ),
        (
            "a",
            json!({"replication": automatic, "expireTime": "2020-01-01T00:00:00Z"}),
            "less than 60 seconds",
        ),
        (
            "a",
            json!({"replication": automatic, "ttl": "4000000000s"}),
            "more than 100 years",
        ),
        (
            "a",
            json!({"replication": automatic, "colour": "red"}),
            "Unknown name \"colour\" at 'secret'",
        ),
        (
            "a",
            json!({"replication": {"automatic": {"customerManagedEncryption": {"kmsKeyName": "k"}}}}),
            "Resource ID [k] is not in a valid format",
        ),
        (
            "a",
            json!({"replication": {"automatic": {"customerManagedEncryption": key("us-east1")}}}),
            "in location [global]",
        ),
        (
            "a",
            json!({"replication": {"userManaged": {"replicas": [
                {"location": "us-east1", "customerManagedEncryption": key("us-west1")},
            ]}}}),
            "must be in location [us-east1]",
        ),
        (
            "a",
            json!({"replication": {"userManaged": {"replicas": [
                {"location": "us-east1", "customerManagedEncryption": key("us-east1")},
                {"location": "us-west1"},
            ]}}}),
            "for all replicas or for none",
        ),
    ] {
        let path = bench.path(&format!("?secretId={id}"));
        bench
            .post(&path, body)
            .await
            .refused(400, "INVALID_ARGUMENT", message);
    }
    let taken = bench.path("?secretId=taken");
    bench
        .post(&taken, json!({"replication": automatic}))
        .await
        .refused(409, "ALREADY_EXISTS", "/secrets/taken] already exists.");
    bench
        .post(
            &bench.path("?secretId=a"),
            json!({"replication": automatic, "topics": [{"name": "t"}]}),
        )
        .await
        .refused(501, "UNIMPLEMENTED", "topics");
    assert_eq!(bench.google.secrets().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_updated() {
    let bench = Bench::new().await;
    bench.secret("a", &["one"]).await;
    for (mask, body, message) in [
        ("", json!({}), "[update_mask] is required"),
        ("replication", json!({}), "cannot be updated"),
        ("colour", json!({}), "no field [colour]"),
        ("ttl", json!({"ttl": "1s"}), "less than 60 seconds"),
        (
            "versionAliases",
            json!({"versionAliases": {"latest": "1"}}),
            "[latest] is invalid",
        ),
        (
            "versionAliases",
            json!({"versionAliases": {"a": "2"}}),
            "does not exist",
        ),
    ] {
        let path = bench.path(&format!("/a?updateMask={mask}"));
        bench.send(Method::PATCH, &path, Some(body)).await.refused(
            400,
            "INVALID_ARGUMENT",
            message,
        );
    }
}

#[tokio::test]
async fn what_expires_is_gone() {
    let bench = Bench::new().await;
    let body = json!({"replication": {"automatic": {}}, "ttl": "3600s"});
    let created = bench
        .post(&bench.path("?secretId=a"), body)
        .await
        .expect(200);
    // An expiry is always answered as a time.
    assert!(created["expireTime"].is_string() && created.get("ttl").is_none());
    bench.add("a", b"one").await.expect(200);
    bench.google.age(Duration::from_secs(3599));
    bench
        .get(&bench.path("/a/versions/1:access"))
        .await
        .expect(200);
    bench.google.age(Duration::from_secs(2));
    bench
        .get(&bench.path("/a/versions/1:access"))
        .await
        .refused(404, "NOT_FOUND", "not found");
    let listed = bench.get(&bench.path("")).await.expect(200);
    assert_eq!(listed, json!({}));

    // One without, given one later, and then not.
    bench.secret("b", &["two"]).await;
    for (body, expires) in [(json!({"ttl": "60s"}), true), (json!({}), false)] {
        let path = bench.path("/b?updateMask=ttl");
        let updated = bench.send(Method::PATCH, &path, Some(body)).await;
        assert_eq!(updated.expect(200).get("expireTime").is_some(), expires);
    }
}

#[tokio::test]
async fn regional_secrets() {
    let bench = Bench::new().await;
    let project = bench.google.project();
    let number = bench.google.project_number();
    let base = format!("/v1/projects/{project}/locations/europe-west3/secrets");
    let with_replication = json!({"replication": {"automatic": {}}});
    bench
        .post(&format!("{base}?secretId=a"), with_replication)
        .await
        .refused(
            400,
            "INVALID_ARGUMENT",
            "Secret.replication should not be provided.",
        );
    let created = bench
        .post(
            &format!("{base}?secretId=a"),
            json!({"labels": {"owner": "x"}}),
        )
        .await
        .expect(200);
    let name = format!("projects/{number}/locations/europe-west3/secrets/a");
    assert_eq!(created["name"], name);
    assert!(created.get("replication").is_none());
    let payload = json!({"payload": {"data": "YQo="}});
    bench
        .post(&format!("{base}/a:addVersion"), payload)
        .await
        .expect(200);
    let read = bench
        .get(&format!("{base}/a/versions/latest:access"))
        .await
        .expect(200);
    assert_eq!(read["name"], format!("{name}/versions/1"));
    // A global one of the same id is another secret, and so is one of another region.
    for path in [
        bench.path("/a"),
        format!("/v1/projects/{project}/locations/us-east1/secrets/a"),
    ] {
        bench
            .get(&path)
            .await
            .refused(404, "NOT_FOUND", "not found");
    }
    assert_eq!(bench.get(&bench.path("")).await.expect(200), json!({}));

    bench
        .google
        .switches(|switches| switches.strict_endpoints = true);
    bench
        .get(&format!("{base}/a/versions/latest:access"))
        .await
        .refused(
            400,
            "INVALID_ARGUMENT",
            "/locations/europe-west3/secrets/a/versions/latest] does not match the expected format \
             [projects/*/secrets/*/versions/*]",
        );
    let regional = |path: &str| {
        let url = format!("{}{path}", bench.google.regional_endpoint());
        bench.client.get(url).bearer_auth(&bench.token)
    };
    super::Answer::of(regional(&format!("{base}/a")))
        .await
        .expect(200);
    super::Answer::of(regional(&bench.path("/a")))
        .await
        .refused(
            400,
            "INVALID_ARGUMENT",
            "[projects/*/locations/*/secrets/*]",
        );
}

#[tokio::test]
async fn what_has_another_shape() {
    let bench = Bench::new().await;
    bench.secret("a", &[]).await;
    let create = bench.path("?secretId=b");
    let url = format!("{}{create}", bench.google.endpoint());
    let send = |kind: &'static str, body: &'static str| {
        let request = bench.client.post(&url).bearer_auth(&bench.token);
        super::Answer::of(request.header("content-type", kind).body(body))
    };
    send("application/json", "{\"replication\"").await.refused(
        400,
        "INVALID_ARGUMENT",
        "Invalid JSON payload received",
    );
    send("application/json", "[]").await.refused(
        400,
        "INVALID_ARGUMENT",
        "Root element must be a message",
    );
    send("text/plain", "{}")
        .await
        .refused(400, "INVALID_ARGUMENT", "application/json");
    send("application/x-www-form-urlencoded", "a=b")
        .await
        .refused(400, "INVALID_ARGUMENT", "Unknown name \"a\"");
    bench.get(&bench.path("/a?colour=red")).await.refused(
        400,
        "INVALID_ARGUMENT",
        "Unknown name \"colour\": Cannot bind query parameter",
    );
    bench
        .get(&bench.path("/a?$alt=json;enum-encoding=int&prettyPrint=false"))
        .await
        .expect(200);
    for (verb, path) in [
        (Method::GET, "/v1/nothing".to_owned()),
        (Method::PUT, bench.path("/a")),
        (Method::GET, bench.path("/a:addVersion")),
    ] {
        let answer = bench.send(verb, &path, None).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(
            answer.text.contains("was not found on this server"),
            "{}",
            answer.text
        );
        assert!(
            answer.headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/html")
        );
    }
    bench.get(&bench.path("/a.b")).await.refused(
        400,
        "INVALID_ARGUMENT",
        "is not in a valid format",
    );
}
