//! What stands around both APIs.

use std::sync::Arc;
use std::time::Duration;

use secret_gateway::{Grant, Role};
use secret_persistence::{ErrorKind, Operation};
use serde_json::{Value, json};

use crate::world::{Faulty, World, ask, kv_path, written};

#[tokio::test]
async fn every_answer_is_kept_by_no_cache_and_embedded_by_no_page() {
    let world = World::new().await;
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/page.js"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
        ("GET", "/nothing"),
        ("DELETE", "/api/v1/changes"),
        ("GET", "/v1/sys/health"),
        ("GET", "/v1/nothing"),
        ("GET", "/api/v1/stores"),
    ] {
        let answer = world.send(method, path, &[], None).await;
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
        assert_eq!(
            answer.headers["x-content-type-options"], "nosniff",
            "{path}"
        );
        assert_eq!(answer.headers["x-frame-options"], "DENY", "{path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(
            !answer.headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
        assert!(!answer.headers.contains_key("set-cookie"), "{path}");
        assert!(answer.headers.contains_key("x-request-id"), "{path}");
    }
    world
        .call("GET", "/nothing", None)
        .await
        .expect_kind(404, "not_found");
    world
        .call("DELETE", "/api/v1/changes", None)
        .await
        .expect_kind(405, "method_not_allowed");
}

#[tokio::test]
async fn other_hosts_and_other_origins_are_refused_before_anything() {
    let world = World::new().await;
    let path = "/api/v1/stores";
    world
        .call_with(&[("host", "evil.example")], "GET", path, None)
        .await
        .expect_kind(421, "host_not_allowed");
    world
        .call_with(&[("origin", "https://evil.example")], "GET", path, None)
        .await
        .expect_kind(403, "origin_not_allowed");
    let kv = kv_path(1, 1);
    world
        .call_with(&[("host", "evil.example")], "GET", &kv, None)
        .await
        .expect(421);
    // A probe asks for a pod by its address.
    world
        .send("GET", "/health/live", &[("host", "10.0.0.7:8220")], None)
        .await
        .expect(200);
}

#[tokio::test]
async fn bodies_are_bounded_in_every_way() {
    let world = World::with(&[("max-body-bytes", "10000")]).await;
    let path = "/api/v1/hydrate";
    let token = world.token(Grant::new("t", [Role::Hydrate, Role::KvWrite]));
    let send = |kind: &'static str, body: String| {
        let world = &world;
        let token = token.clone();
        async move {
            let headers = [("x-vault-token", token.expose()), ("content-type", kind)];
            world.send("POST", path, &headers, Some(body)).await
        }
    };
    let json_type = "application/json";
    send(json_type, "{".to_owned())
        .await
        .expect_kind(400, "body_not_json");
    send(json_type, "{} x".to_owned())
        .await
        .expect_kind(400, "body_not_json");
    send(json_type, String::new())
        .await
        .expect_kind(400, "body_not_json");
    send("text/plain", "{}".to_owned())
        .await
        .expect_kind(415, "wrong_content_type");
    let limit = send(json_type, " ".repeat(10_001))
        .await
        .expect_kind(413, "body_too_large");
    assert_eq!(limit["limit"], 10_000);
    let deep = format!(
        "{{\"configurations\": [{}1{}]}}",
        "[".repeat(600),
        "]".repeat(600)
    );
    let limit = send(json_type, deep)
        .await
        .expect_kind(400, "body_too_deep");
    assert!(limit["limit"].as_u64().unwrap() > 500);
    // As deep as a configuration may be is taken.
    let deep = format!(
        "{{\"configurations\": [{}1{}]}}",
        "[".repeat(512),
        "]".repeat(512)
    );
    send(json_type, deep).await.expect(200);
    let kv = kv_path(1, 1);
    let headers = [("x-vault-token", token.expose())];
    world
        .send("POST", &kv, &headers, Some(" ".repeat(10_001)))
        .await
        .expect(413);
    world
        .send("POST", &kv, &headers, Some("[".repeat(5_000)))
        .await
        .expect(400);
    // Who has no token is refused before the body is read.
    world
        .send("POST", path, &[], Some(" ".repeat(10_001)))
        .await
        .expect(401);
}

#[tokio::test]
async fn beyond_the_limit_requests_are_told_to_come_again() {
    let store: Arc<Faulty> = Arc::default();
    let settings = [("concurrency", "1"), ("request-timeout-seconds", "1")];
    let world =
        Arc::new(World::over(Arc::clone(&store), tempfile::tempdir().unwrap(), &settings).await);
    store.hang();
    let path = kv_path(1, 1);
    let (ours, write) = (Arc::clone(&world), path.clone());
    let slow = tokio::spawn(async move { ours.call("POST", &write, written("x")).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let busy = world.call("GET", &path, None).await;
    assert_eq!(busy.headers["retry-after"], "1");
    busy.expect(503);
    world
        .call("GET", "/api/v1/stores", None)
        .await
        .expect_kind(503, "busy");
    world
        .send("GET", "/health/live", &[], None)
        .await
        .expect(200);
    let timed_out = slow.await.unwrap();
    assert_eq!(timed_out.headers["retry-after"], "1");
    timed_out.expect(503);
    world.call("GET", "/api/v1/stores", None).await.expect(200);
}

#[tokio::test]
async fn a_store_is_proven_on_demand() {
    let world = World::new().await;
    let report = world
        .call("POST", "/api/v1/stores/default/check", None)
        .await
        .expect(200);
    assert_eq!(
        (&report["works"], &report["left_behind"]),
        (&json!(true), &json!(false))
    );
    world
        .store
        .fail(Operation::Write, ErrorKind::PermissionDenied);
    let report = world
        .call("POST", "/api/v1/stores/default/check", None)
        .await
        .expect(200);
    assert_eq!(report["works"], false);
    let failed = |step: &Value| step["outcome"] == "failed";
    assert!(report["steps"].as_array().unwrap().iter().any(failed));
    world
        .call("POST", "/api/v1/stores/other/check", None)
        .await
        .expect_kind(404, "not_found");
}

#[tokio::test]
async fn a_first_start_makes_what_it_needs_and_a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let started = World::started(folder.path()).await;
    assert_eq!(started.tokens.len(), 5);
    let token =
        |role: &str| std::fs::read_to_string(folder.path().join(format!("token-{role}"))).unwrap();
    let router = secret_gateway::router(started.gateway.clone());
    let path = kv_path(1, 1);
    let body = json!({"data": {"value": "a canary in a mine"}}).to_string();
    ask(
        &router,
        "POST",
        &path,
        &[("x-vault-token", &token("kv-write"))],
        Some(body),
    )
    .await
    .expect(200);
    let read = ask(
        &router,
        "GET",
        &path,
        &[("x-vault-token", &token("kv-read"))],
        None,
    )
    .await
    .expect(200);
    assert_eq!(read["data"]["data"]["value"], "a canary in a mine");
    // It is encrypted, and everything is its owner's alone.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(
            !String::from_utf8_lossy(&bytes).contains("a canary in a mine"),
            "{}",
            path.display()
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
    let settings = crate::world::texts(folder.path(), &[]).parse().unwrap();
    let environment = secret_persistence::Environment::empty();
    let second = secret_gateway::start(settings, &environment, None)
        .await
        .unwrap_err();
    let cause = std::error::Error::source(&second).unwrap().to_string();
    assert!(cause.contains("another process"), "{cause}");
    drop((router, started));
    // The same folder again: the same tokens, the same secrets.
    let again = World::started(folder.path()).await;
    assert!(again.tokens.is_empty());
    let router = secret_gateway::router(again.gateway);
    ask(
        &router,
        "GET",
        &path,
        &[("x-vault-token", &token("kv-read"))],
        None,
    )
    .await
    .expect(200);
}
