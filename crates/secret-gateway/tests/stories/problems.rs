//! Every problem has a kind of its own, and one test provokes each of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use secret_gateway::{Grant, ProblemKind, Role};
use secret_persistence::{
    AuditEvent, AuditMode, AuditSink, Error, ErrorKind, Memory, Operation, Result, SecretValue,
    StorageId, Timestamp,
};
use serde_json::{Value, json};
use sqlx::Connection as _;
use tower::ServiceExt as _;

use crate::world::{
    Answer, Faulty, Known, World, configurations, kv_path, name, specification, workspace, written,
};

/// The kinds that were seen, of both APIs.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    /// The response of the connector API has this status and kind, and its type is its own.
    #[track_caller]
    fn problem(&mut self, answer: Answer, status: u16, kind: &str) -> Value {
        let body = answer.expect_kind(status, kind);
        assert_eq!(body["type"], format!("urn:secret-gateway:problem:{kind}"));
        assert!(!body["detail"].as_str().unwrap().is_empty());
        self.0.insert(kind.to_owned());
        body
    }

    /// The response of the KV API has this status, Vault's body, and the kind in a header.
    #[track_caller]
    fn error(&mut self, answer: Answer, status: u16, kind: &str) -> String {
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        let link = format!("<urn:secret-gateway:problem:{kind}>; rel=\"type\"");
        assert_eq!(answer.headers["link"], link.as_str(), "{}", answer.text);
        assert!(answer.body["errors"].is_array(), "{}", answer.text);
        self.0.insert(kind.to_owned());
        answer.body["errors"].to_string()
    }
}

fn create(password: &str) -> Option<Value> {
    Some(json!({
        "kind": "create", "specification": specification(), "scope": workspace(1),
        "edited": {"host": "h", "password": password},
    }))
}

const CHANGES: &str = "/api/v1/changes";

#[tokio::test]
async fn every_kind_of_problem_can_be_told_from_the_others() {
    let mut seen = Seen::default();
    requests(&mut seen).await;
    callers(&mut seen).await;
    changes(&mut seen).await;
    stores(&mut seen).await;
    kv(&mut seen).await;
    gateway(&mut seen).await;
    collector(&mut seen).await;
    let all: BTreeSet<String> = ProblemKind::ALL
        .iter()
        .map(|kind| kind.as_str().to_owned())
        .collect();
    // A JWT is another way in: `jwt.rs` has its story.
    let untold: Vec<_> = all.difference(&seen.0).collect();
    assert_eq!(untold, ["token_without_grant"]);
}

async fn requests(seen: &mut Seen) {
    let world = World::with(&[("max-body-bytes", "10000")]).await;
    let unknown = json!({"configurations": [], "more": 1, "and": 2});
    let unknown = world.call("POST", "/api/v1/hydrate", Some(unknown)).await;
    let unknown = seen.problem(unknown, 400, "unknown_field");
    assert_eq!(unknown["fields"], json!(["more", "and"]));
    let missing = world.call("POST", "/api/v1/hydrate", Some(json!({}))).await;
    let missing = seen.problem(missing, 400, "missing_field");
    assert_eq!(missing["field"], "configurations");
    let invalid = json!({"configurations": 1});
    let invalid = world.call("POST", "/api/v1/hydrate", Some(invalid)).await;
    seen.problem(invalid, 400, "invalid_field");

    let raw = |kind: &'static str, body: String| {
        let world = &world;
        async move {
            let token = world.token(Grant::new(format!("{}", body.len()), [Role::Hydrate]));
            let headers = [("x-vault-token", token.expose()), ("content-type", kind)];
            let path = "/api/v1/hydrate";
            world.send("POST", path, &headers, Some(body)).await
        }
    };
    let json_type = "application/json";
    seen.problem(raw(json_type, "{".into()).await, 400, "body_not_json");
    seen.problem(
        raw("text/xml", "{}".into()).await,
        415,
        "wrong_content_type",
    );
    let large = seen.problem(
        raw(json_type, " ".repeat(10_001)).await,
        413,
        "body_too_large",
    );
    assert_eq!(large["limit"], 10_000);
    let deep = seen.problem(raw(json_type, "[".repeat(600)).await, 400, "body_too_deep");
    assert_eq!(deep["limit"], world.gateway.settings().limits.depth);
    seen.problem(aborted(&world).await, 400, "body_aborted");
    let too_slow = seen.problem(slow(&world).await, 408, "body_too_slow");
    assert_eq!(too_slow["limit"], 10);

    let undecodable = world.call("GET", "/api/v1/changes/%FF", None).await;
    seen.problem(undecodable, 400, "bad_request");
    seen.problem(world.call("GET", "/x", None).await, 404, "not_found");
    let method = world.call("PUT", CHANGES, None).await;
    seen.problem(method, 405, "method_not_allowed");
    let host = [("host", "evil.example")];
    let host = world.call_with(&host, "GET", CHANGES, None).await;
    seen.problem(host, 421, "host_not_allowed");
    let origin = [("origin", "http://evil.example")];
    let origin = world.call_with(&origin, "GET", CHANGES, None).await;
    seen.problem(origin, 403, "origin_not_allowed");
}

/// Sends a body that ends before its time.
async fn aborted(world: &World) -> Answer {
    let token = world.token(Grant::new("aborted", [Role::Hydrate]));
    let parts: [std::io::Result<Bytes>; 2] = [
        Ok(Bytes::from_static(b"{")),
        Err(std::io::ErrorKind::ConnectionReset.into()),
    ];
    let request = Request::post("/api/v1/hydrate")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("x-vault-token", token.expose())
        .body(Body::from_stream(futures::stream::iter(parts)))
        .unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    Answer::of(response).await
}

/// Sends a body that does not end, while the time passes.
async fn slow(world: &World) -> Answer {
    use futures::StreamExt as _;

    let token = world.token(Grant::new("slow", [Role::Hydrate]));
    let begun = futures::stream::iter([std::io::Result::Ok(Bytes::from_static(b"{"))]);
    let request = Request::post("/api/v1/hydrate")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("x-vault-token", token.expose())
        .body(Body::from_stream(begun.chain(futures::stream::pending())))
        .unwrap();
    tokio::time::pause();
    let response = world.router.clone().oneshot(request).await.unwrap();
    tokio::time::resume();
    Answer::of(response).await
}

async fn callers(seen: &mut Seen) {
    let world = World::new().await;
    let ask = |token: Option<SecretValue>| {
        let world = &world;
        async move { world.call_as(token.as_ref(), "GET", CHANGES, None).await }
    };
    let token = |name: &str, role: Role| Some(world.token(Grant::new(name, [role])));
    seen.problem(ask(None).await, 401, "token_missing");
    let unknown = Some(SecretValue::new("sgw_unknown".to_owned()));
    seen.problem(ask(unknown).await, 401, "token_unknown");
    let past = Timestamp::from_unix_seconds(1).unwrap();
    let expired = Grant::new("past", [Role::Change]).with_expires(Some(past));
    let expired = world.token(expired);
    seen.problem(ask(Some(expired.clone())).await, 401, "token_expired");
    let twice = [("x-vault-token", "a"), ("x-vault-token", "b")];
    let twice = world.send("GET", CHANGES, &twice, None).await;
    seen.problem(twice, 400, "token_ambiguous");
    let path = kv_path(1, 1);
    let vault = world.call_as(Some(&expired), "GET", &path, None).await;
    assert!(
        seen.error(vault, 403, "token_expired")
            .contains("permission denied")
    );
    let role = seen.problem(ask(token("kv", Role::KvRead)).await, 403, "missing_role");
    assert_eq!(role["role"], "change");
    std::fs::write(world.folder.path().join("tokens.json"), "{").unwrap();
    let unreadable = ask(Some(expired)).await;
    assert_eq!(unreadable.headers["retry-after"], "5");
    seen.problem(unreadable, 503, "tokens_unavailable");
}

async fn changes(seen: &mut Seen) {
    let world = Arc::new(World::new().await);
    let with_key = |key: &'static str, password: &'static str| {
        let world = Arc::clone(&world);
        async move {
            let headers = [("idempotency-key", key)];
            world
                .call_with(&headers, "POST", CHANGES, create(password))
                .await
        }
    };
    let made = with_key("one", "x").await.expect(201);
    let reused = with_key("one", "y").await;
    seen.problem(reused, 422, "idempotency_key_reused");
    let end = |how: &str| format!("{CHANGES}/{}/{how}", made["id"].as_str().unwrap());
    world.call("POST", &end("commit"), None).await.expect(200);
    let otherwise = world.call("POST", &end("abort"), None).await;
    let otherwise = seen.problem(otherwise, 409, "change_ended_otherwise");
    assert_eq!(otherwise["state"], "committed");

    world.store.hang();
    let slow = tokio::spawn(with_key("slow", "x"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let running = with_key("slow", "x").await;
    assert_eq!(running.headers["retry-after"], "1");
    seen.problem(running, 409, "change_in_progress");
    // Its lease ends, and another replica's healer abandons it.
    sqlite(
        &world,
        "UPDATE gateway_changes SET state = 'abandoned' WHERE state = 'staging'",
    )
    .await;
    world.store.mend();
    seen.problem(slow.await.unwrap(), 409, "change_abandoned");

    let body = json!({
        "kind": "create", "specification": {"$ref": "https://example.com/x"},
        "scope": workspace(1), "edited": {},
    });
    let refused = world.call("POST", CHANGES, Some(body)).await;
    let refused = seen.problem(refused, 422, "configuration_refused");
    assert!(refused["problems"][0]["place"].is_string());
    let body = json!({"configurations": [{"password": {"_secret": name(9, 9)}}]});
    let hydrated = world.call("POST", "/api/v1/hydrate", Some(body)).await;
    let hydrated = hydrated.expect(200);
    let missing = &hydrated["configurations"][0]["problem"];
    assert_eq!(missing["kind"], "secret_missing");
    assert_eq!(missing["problems"][0]["coordinate"], name(9, 9));
    seen.0.insert("secret_missing".to_owned());
}

async fn sqlite(world: &World, statement: &'static str) {
    let path = world.folder.path().join("outbox.db");
    let url = format!("sqlite://{}", path.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
}

async fn stores(seen: &mut Seen) {
    let world = World::new().await;
    for (error, status, kind, retried) in [
        (ErrorKind::Throttled, 429, "store_throttled", true),
        (ErrorKind::Unavailable, 503, "store_unavailable", true),
        (ErrorKind::PermissionDenied, 502, "store_failed", false),
        (ErrorKind::InvalidValue, 422, "value_refused", false),
    ] {
        world.store.fail(Operation::Write, error);
        let answer = world.call("POST", CHANGES, create("x")).await;
        assert_eq!(
            answer.headers.contains_key("retry-after"),
            retried,
            "{kind}"
        );
        let problem = seen.problem(answer, status, kind);
        assert_eq!(problem["problems"][0]["store"], "faulty");
    }
}

/// The sink of an audit that is required, and fails.
#[derive(Debug)]
struct NoSink;

#[async_trait]
impl AuditSink for NoSink {
    async fn record(&self, _: &[AuditEvent]) -> Result<()> {
        Err(Error::new(ErrorKind::Unavailable, "told to fail"))
    }
}

async fn collector(seen: &mut Seen) {
    const COLLECT: &str = "/api/v1/collect";
    let folder = tempfile::tempdir().unwrap();
    let file = configurations(folder.path(), &[("1", json!({}))]);
    let lines = folder.path().join("configurations.jsonl");
    let settings = [("configurations-file", file.as_str())];
    let world = Arc::new(World::over(Faulty::owned(), folder, &settings).await);
    world.store.list_slowly();
    let begun = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.call("POST", COLLECT, Some(json!({}))).await })
    };
    while world.call("GET", COLLECT, None).await.expect(200)["run"].is_null() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let second = world.call("POST", COLLECT, Some(json!({}))).await;
    seen.problem(second, 409, "collect_running");
    let run = world.call("GET", COLLECT, None).await.expect(200);
    let id = run["run"]["id"].as_str().unwrap().to_owned();
    let stop = world
        .call("POST", &format!("{COLLECT}/{id}/stop"), None)
        .await;
    stop.expect(200);
    world.store.mend();
    begun.await.unwrap().expect(202);
    while world.call("GET", COLLECT, None).await.expect(200)["run"]["state"] == "running" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let confirmed = Some(json!({"all_references": true}));
    let path = format!("{COLLECT}/{id}/delete");
    let delete = world.call("POST", &path, confirmed).await;
    seen.problem(delete, 409, "collect_not_previewed");

    std::fs::remove_file(lines).unwrap();
    let unreadable = world.call("POST", "/api/v1/ages", Some(json!({}))).await;
    assert_eq!(unreadable.headers["retry-after"], "5");
    seen.problem(unreadable, 503, "configurations_unavailable");
}

async fn gateway(seen: &mut Seen) {
    let folder = || tempfile::tempdir().unwrap();
    let audited = World::of(Arc::default(), folder(), &[], |stores| {
        stores.with_audit(Arc::new(NoSink), AuditMode::Required)
    })
    .await;
    seen.problem(
        audited.call("POST", CHANGES, create("x")).await,
        503,
        "audit_failed",
    );
    let path = kv_path(1, 1);
    seen.error(audited.call("GET", &path, None).await, 503, "audit_failed");
    let failing = Error::new(ErrorKind::Unavailable, "it is down");
    let knowing = World::knowing(Arc::new(Known(Err(failing)))).await;
    let row = json!({"id": "1", "configuration": {"password": {"_secret": name(1, 1)}}});
    let body = Some(json!({"configurations": [row]}));
    let unknown = knowing.call("POST", "/api/v1/ages", body).await;
    seen.problem(unknown, 503, "ledger_unavailable");

    let settings = [("concurrency", "1"), ("request-timeout-seconds", "1")];
    let world = Arc::new(World::over(Arc::default(), folder(), &settings).await);
    world.store.panic();
    seen.problem(
        world.call("POST", CHANGES, create("x")).await,
        500,
        "internal",
    );
    world.store.mend();
    world.store.hang();
    let slow = Arc::clone(&world);
    let slow = tokio::spawn(async move { slow.call("POST", CHANGES, create("x")).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let busy = seen.problem(world.call("GET", CHANGES, None).await, 503, "busy");
    assert_eq!(busy["limit"], 1);
    seen.error(world.call("GET", &path, None).await, 503, "busy");
    let timeout = seen.problem(slow.await.unwrap(), 503, "timeout");
    assert_eq!(timeout["limit"], 1);
    world.store.mend();

    sqlite(&world, "DROP TABLE gateway_changes").await;
    let outbox = world.call("POST", CHANGES, create("x")).await;
    assert_eq!(outbox.headers["retry-after"], "5");
    seen.problem(outbox, 503, "outbox_unavailable");
}

async fn kv(seen: &mut Seen) {
    let world = World::new().await;
    let path = kv_path(1, 1);
    for coordinate in [
        "plain",
        "team/x",
        "airbyte_workspace_1_secret_2_v01",
        "%2e%2e/x",
    ] {
        let write = format!("/v1/secret/data/{coordinate}");
        let answer = world.call("POST", &write, written("x")).await;
        assert!(
            seen.error(answer, 400, "name_not_managed")
                .contains("managed names")
        );
    }
    world.call("POST", &path, written("x")).await.expect(200);
    let other = world.call("POST", &path, written("y")).await;
    seen.error(other, 400, "value_exists");
    let only_new = json!({"data": {"value": "x"}, "options": {"cas": 0}});
    let mismatch = world.call("POST", &path, Some(only_new)).await;
    seen.error(mismatch, 400, "version_mismatch");
    let wrapped = [("x-vault-wrap-ttl", "60")];
    let wrapped = world.call_with(&wrapped, "GET", &path, None).await;
    seen.error(wrapped, 400, "unsupported");
    let absent = kv_path(1, 2);
    seen.error(world.call("GET", &absent, None).await, 404, "not_found");
    seen.error(
        world.call("PATCH", &path, None).await,
        405,
        "method_not_allowed",
    );
    for (body, kind) in [
        (json!({"data": {"value": 1}}), "invalid_field"),
        (
            json!({"data": {"value": "x", "other": "y"}}),
            "unknown_field",
        ),
        (json!({"data": {}}), "missing_field"),
        (
            json!({"data": {"value": "x"}, "options": {"more": 0}}),
            "unknown_field",
        ),
    ] {
        let shown = body.to_string();
        let answer = world.call("POST", &path, Some(body)).await;
        assert!(!seen.error(answer, 400, kind).is_empty(), "{shown}");
    }
    for (error, status, kind) in [
        (ErrorKind::Throttled, 429, "store_throttled"),
        (ErrorKind::Unavailable, 503, "store_unavailable"),
        (ErrorKind::PermissionDenied, 403, "store_failed"),
        (ErrorKind::Integrity, 500, "store_failed"),
        (ErrorKind::PayloadTooLarge, 413, "value_refused"),
    ] {
        world.store.fail(Operation::Write, error);
        let answer = world.call("POST", &absent, written("x")).await;
        let retried = matches!(status, 429 | 503);
        assert_eq!(answer.headers.contains_key("retry-after"), retried);
        assert!(
            seen.error(answer, status, kind).contains("faulty"),
            "{kind}"
        );
    }
}

/// A store that is down is named, and callers of the others notice nothing.
#[tokio::test]
async fn a_store_that_is_down_is_named_and_the_others_go_on() {
    let (down, up): (Arc<Faulty>, Memory) = (Arc::default(), Memory::new());
    up.insert(&name(1, 2), SecretValue::new("of the tenant".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let tenant = StorageId::parse("tenant").unwrap();
    let world = World::of(Arc::clone(&down), folder, &[], |stores| {
        stores.with_store(tenant, Arc::new(up))
    })
    .await;
    let path = kv_path(1, 1);
    world.call("POST", &path, written("x")).await.expect(200);
    let ours = json!({"password": {"_secret": name(1, 1)}});
    let theirs = json!({"password": {"_secret": name(1, 2), "_secret_storage_id": "tenant"}});
    let hydrate = |configurations: Value| {
        let body = json!({"configurations": configurations});
        let world = &world;
        async move { world.call("POST", "/api/v1/hydrate", Some(body)).await }
    };
    let full = hydrate(json!([ours, theirs])).await.expect(200);
    assert_eq!(full["configurations"][0]["configuration"]["password"], "x");

    down.fail(Operation::Read, ErrorKind::Unavailable);
    let both = hydrate(json!([ours, theirs])).await.expect(200);
    let problem = &both["configurations"][0]["problem"];
    assert_eq!(
        (
            &problem["kind"],
            &problem["status"],
            &problem["problems"][0]["store"]
        ),
        (&json!("store_unavailable"), &json!(503), &json!("faulty"))
    );
    assert_eq!(
        both["configurations"][1]["configuration"]["password"],
        "of the tenant"
    );
    hydrate(json!([theirs])).await.expect(200);
    let alone = hydrate(json!([ours])).await;
    assert!(alone.headers.contains_key("retry-after"));
    let alone = alone.expect_kind(503, "store_unavailable");
    assert_eq!(alone["problems"][0]["store"], "faulty");
    let read = world.call("GET", &path, None).await;
    assert!(read.headers.contains_key("retry-after"));
    assert!(read.text.contains("faulty"), "{}", read.text);
    read.expect(503);

    down.mend();
    hydrate(json!([ours])).await.expect(200);
}
