//! The KV API, as clients of Vault use it.

use secret_persistence::{ErrorKind, Operation, SecretValue};
use serde_json::{Value, json};

use crate::world::{World, kv_path, name, written};

#[tokio::test]
async fn version_2_writes_reads_lists_and_deletes() {
    let world = World::new().await;
    let path = kv_path(1, 1);
    let answer = world.call("POST", &path, written("hunter2 ü\n")).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body = answer.expect(200);
    assert_eq!(
        (&body["data"]["version"], &body["data"]["destroyed"]),
        (&json!(1), &json!(false))
    );

    let body = world.call("GET", &path, None).await.expect(200);
    assert_eq!(body["data"]["data"], json!({"value": "hunter2 ü\n"}));
    assert_eq!(body["data"]["metadata"]["version"], 1);
    for member in [
        "request_id",
        "lease_id",
        "renewable",
        "lease_duration",
        "wrap_info",
        "warnings",
        "auth",
    ] {
        assert!(body.get(member).is_some(), "{member}");
    }
    for (version, status) in [("0", 200), ("1", 200), ("2", 404), ("x", 400)] {
        world
            .call("GET", &format!("{path}?version={version}"), None)
            .await
            .expect(status);
    }

    world
        .call("PUT", &kv_path(1, 2), written("x"))
        .await
        .expect(200);
    let names = json!({"keys": [name(1, 1), name(1, 2)]});
    for (method, path) in [
        ("LIST", "/v1/secret/metadata"),
        ("LIST", "/v1/secret/metadata/"),
        ("GET", "/v1/secret/metadata?list=true"),
        ("GET", "/v1/secret/metadata/?list=true"),
    ] {
        assert_eq!(
            world.call(method, path, None).await.expect(200)["data"],
            names,
            "{method} {path}"
        );
    }
    let metadata = world
        .call("GET", &format!("/v1/secret/metadata/{}", name(1, 1)), None)
        .await
        .expect(200);
    assert_eq!(metadata["data"]["current_version"], 1);
    assert_eq!(metadata["data"]["versions"]["1"]["destroyed"], false);

    let answer = world.call("DELETE", &path, None).await;
    assert_eq!(answer.text, "");
    answer.expect(204);
    // Deleting what is not there succeeds, as Vault has it.
    world.call("DELETE", &path, None).await.expect(204);
    let versions = Some(json!({"versions": [1]}));
    world
        .call(
            "POST",
            &format!("/v1/secret/delete/{}", name(1, 2)),
            versions,
        )
        .await
        .expect(204);
    world
        .call(
            "DELETE",
            &format!("/v1/secret/metadata/{}", name(1, 2)),
            None,
        )
        .await
        .expect(204);
    assert_eq!(
        world
            .call("LIST", "/v1/secret/metadata", None)
            .await
            .expect(404),
        json!({"errors": []})
    );
}

#[tokio::test]
async fn what_is_missing_is_404_with_vaults_body() {
    let world = World::new().await;
    for path in [
        kv_path(1, 1),
        format!("/v1/secret/metadata/{}", name(1, 1)),
        // A name of somebody else that no list allows.
        "/v1/secret/data/team/db".to_owned(),
    ] {
        assert_eq!(
            world.call("GET", &path, None).await.expect(404),
            json!({"errors": []}),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_name_has_one_value_for_ever() {
    let world = World::new().await;
    let path = kv_path(1, 1);
    world.call("POST", &path, written("one")).await.expect(200);
    // A retry of the same write is success.
    assert_eq!(
        world.call("POST", &path, written("one")).await.expect(200)["data"]["version"],
        1
    );
    let refused = world.call("POST", &path, written("two")).await.expect(400);
    assert!(
        refused["errors"][0]
            .as_str()
            .unwrap()
            .contains("one value forever")
    );
    assert_eq!(
        world.call("GET", &path, None).await.expect(200)["data"]["data"]["value"],
        "one"
    );
    assert_eq!(world.gateway.failed_writes().seen().0, 1);

    let only_new = |value: &str| Some(json!({"data": {"value": value}, "options": {"cas": 0}}));
    world
        .call("POST", &kv_path(1, 2), only_new("x"))
        .await
        .expect(200);
    let refused = world.call("POST", &path, only_new("one")).await.expect(400);
    assert!(
        refused["errors"][0]
            .as_str()
            .unwrap()
            .contains("check-and-set")
    );
}

#[tokio::test]
async fn what_cannot_be_written_says_why_and_is_counted() {
    let world = World::new().await;
    let path = kv_path(1, 1);
    for body in [
        json!({"data": {"password": "x"}}),
        json!({"data": {"value": "x", "more": "y"}}),
        json!({"data": {"value": 5}}),
        json!({"data": {"value": ""}}),
        json!({"data": {"value": "x"}, "options": {"cas": 3}}),
        json!({"value": "x"}),
        json!([]),
    ] {
        let shown = body.to_string();
        let answer = world.call("POST", &path, Some(body)).await;
        assert!(!answer.text.contains("\"errors\":[]"), "{shown}");
        answer.expect(400);
    }
    world
        .send(
            "POST",
            &path,
            &[("x-vault-token", "wrong")],
            Some("{".to_owned()),
        )
        .await
        .expect(403);
    let (failed, last) = world.gateway.failed_writes().seen();
    assert_eq!(
        (failed, last[0].coordinate.as_str()),
        (7, name(1, 1).as_str())
    );

    for name in [
        "plain",
        "airbyte_x",
        "team/x",
        "airbyte_workspace_1_secret_2_v01",
        "a%2Fb",
        "%2e%2e/x",
    ] {
        let answer = world
            .call("POST", &format!("/v1/secret/data/{name}"), written("x"))
            .await;
        assert!(
            answer.text.contains("managed names"),
            "{name}: {}",
            answer.text
        );
        answer.expect(400);
        world
            .call("DELETE", &format!("/v1/secret/data/{name}"), None)
            .await
            .expect(400);
    }
    assert!(world.store.inner.is_empty());
}

#[tokio::test]
async fn a_store_that_fails_gives_the_status_that_clients_retry_or_not() {
    let world = World::new().await;
    let path = kv_path(1, 1);
    for (kind, status, retried) in [
        (ErrorKind::Throttled, 429, true),
        (ErrorKind::Unavailable, 503, true),
        (ErrorKind::Conflict, 503, true),
        (ErrorKind::PermissionDenied, 403, false),
        (ErrorKind::NotFound, 404, false),
        (ErrorKind::Unauthenticated, 500, false),
        (ErrorKind::Integrity, 500, false),
    ] {
        world.store.fail(Operation::Read, kind);
        let answer = world.call("GET", &path, None).await;
        assert_eq!(
            answer.headers.contains_key("retry-after"),
            retried,
            "{kind}"
        );
        answer.expect(status);
    }
    world
        .store
        .fail(Operation::Read, ErrorKind::PendingDeletion);
    let body = world.call("GET", &path, None).await.expect(404);
    assert_eq!(body["data"]["data"], Value::Null);
    assert_eq!(body["data"]["metadata"]["version"], 1);
    assert_ne!(body["data"]["metadata"]["deletion_time"], "");

    world.store.fail(Operation::Write, ErrorKind::Unavailable);
    world.call("POST", &path, written("x")).await.expect(503);
    let (failed, last) = world.gateway.failed_writes().seen();
    assert_eq!(
        (failed, last[0].coordinate.as_str(), last[0].kind),
        (1, name(1, 1).as_str(), "unavailable")
    );
}

#[tokio::test]
async fn a_prefix_stands_before_every_name() {
    let world = World::with(&[("kv-prefix", "team/airbyte/"), ("kv-mount", "kv")]).await;
    let path = format!("/v1/kv/data/team/airbyte/{}", name(1, 1));
    world.call("POST", &path, written("x")).await.expect(200);
    assert!(!world.store.inner.is_empty());
    world
        .call("POST", &format!("/v1/kv/data/{}", name(1, 1)), written("x"))
        .await
        .expect(400);
    world
        .call("GET", &format!("/v1/kv/data/{}", name(1, 1)), None)
        .await
        .expect(404);
    world.call("GET", &kv_path(1, 1), None).await.expect(404);
    for (folder, keys) in [
        ("", json!(["team/"])),
        ("team", json!(["airbyte/"])),
        ("team/airbyte/", json!([name(1, 1)])),
    ] {
        let body = world
            .call("LIST", &format!("/v1/kv/metadata/{folder}"), None)
            .await
            .expect(200);
        assert_eq!(body["data"]["keys"], keys, "{folder}");
    }
}

#[tokio::test]
async fn names_of_others_are_read_where_the_operator_allows_it() {
    let world = World::with(&[("external-prefixes", "team/,arn:")]).await;
    world
        .store
        .inner
        .insert("team/db", SecretValue::new("theirs".to_owned()));
    world
        .store
        .inner
        .insert("other", SecretValue::new("hidden".to_owned()));
    let body = world
        .call("GET", "/v1/secret/data/team/db", None)
        .await
        .expect(200);
    assert_eq!(body["data"]["data"]["value"], "theirs");
    world
        .call("GET", "/v1/secret/data/other", None)
        .await
        .expect(404);
    world
        .call("POST", "/v1/secret/data/team/db", written("x"))
        .await
        .expect(400);
    world
        .call("DELETE", "/v1/secret/data/team/db", None)
        .await
        .expect(400);
}

#[tokio::test]
async fn version_1_by_setting() {
    let world = World::with(&[("kv-version", "1")]).await;
    let path = format!("/v1/secret/{}", name(1, 1));
    let answer = world.call("POST", &path, Some(json!({"value": "x"}))).await;
    assert_eq!(answer.text, "");
    answer.expect(204);
    assert_eq!(
        world.call("GET", &path, None).await.expect(200)["data"],
        json!({"value": "x"})
    );
    assert_eq!(
        world.call("LIST", "/v1/secret", None).await.expect(200)["data"]["keys"],
        json!([name(1, 1)])
    );
    assert_eq!(
        world
            .call("GET", "/v1/secret/?list=true", None)
            .await
            .expect(200)["data"]["keys"],
        json!([name(1, 1)])
    );
    world
        .call("POST", &path, Some(json!({"value": "y"})))
        .await
        .expect(400);
    world.call("DELETE", &path, None).await.expect(204);
    assert_eq!(
        world.call("GET", &path, None).await.expect(404),
        json!({"errors": []})
    );
}

#[tokio::test]
async fn clients_find_what_they_ask_before_they_begin() {
    let world = World::new().await;
    let health = world
        .send("GET", "/v1/sys/health", &[], None)
        .await
        .expect(200);
    assert_eq!(
        (&health["initialized"], &health["sealed"]),
        (&json!(true), &json!(false))
    );
    let init = world
        .send("GET", "/v1/sys/init", &[], None)
        .await
        .expect(200);
    assert_eq!(init["initialized"], true);
    let seal = world
        .send("GET", "/v1/sys/seal-status", &[], None)
        .await
        .expect(200);
    assert_eq!(seal["sealed"], false);
    let mount = world
        .call("GET", "/v1/sys/internal/ui/mounts/secret/some/name", None)
        .await
        .expect(200);
    assert_eq!(mount["data"]["path"], "secret/");
    assert_eq!(mount["data"]["options"], json!({"version": "2"}));
    world
        .call("GET", "/v1/sys/internal/ui/mounts/other", None)
        .await
        .expect(403);
    world
        .call("GET", "/v1/sys/internal/ui/mounts/secrets", None)
        .await
        .expect(403);
    let lookup = world
        .call("GET", "/v1/auth/token/lookup-self", None)
        .await
        .expect(200);
    assert!(lookup["data"]["id"].as_str().unwrap().starts_with("sgw_"));
    assert_eq!(lookup["data"]["policies"].as_array().unwrap().len(), 5);
    let renewed = world
        .call("POST", "/v1/auth/token/renew-self", Some(json!({})))
        .await
        .expect(200);
    assert_eq!(renewed["auth"]["client_token"], lookup["data"]["id"]);
    world
        .call("PATCH", &kv_path(1, 1), Some(json!({})))
        .await
        .expect(405);
    let unknown = world.call("GET", "/v1/sys/mounts", None).await;
    let error = unknown.body["errors"][0].as_str();
    assert!(error.is_some_and(|error| error.starts_with("no handler for route")));
    unknown.expect(404);
}

/// Where the store has a recovery window a deleted version answers as Vault's does, and comes back.
#[tokio::test]
async fn undeleting_brings_a_value_back() {
    let world = World::new().await;
    let path = |what: &str| format!("/v1/secret/{what}/{}", name(1, 1));
    world
        .call("POST", &path("data"), written("kept"))
        .await
        .expect(200);
    let versions = || Some(json!({"versions": [1]}));
    world
        .call("POST", &path("delete"), versions())
        .await
        .expect(204);
    let deleted = world.call("GET", &path("data"), None).await.expect(404);
    assert_eq!(deleted["data"]["data"], Value::Null);
    assert_ne!(deleted["data"]["metadata"]["deletion_time"], "");
    // Another version than the only one: nothing happens.
    let other = Some(json!({"versions": [2]}));
    world
        .call("POST", &path("undelete"), other)
        .await
        .expect(204);
    world.call("GET", &path("data"), None).await.expect(404);
    world
        .call("POST", &path("undelete"), versions())
        .await
        .expect(204);
    let read = world.call("GET", &path("data"), None).await.expect(200);
    assert_eq!(read["data"]["data"]["value"], "kept");
    // Deleted with its metadata it is gone.
    world
        .call("DELETE", &path("metadata"), None)
        .await
        .expect(204);
    let gone = world.call("POST", &path("undelete"), versions()).await;
    assert_eq!(gone.status, 404, "{}", gone.text);
}
