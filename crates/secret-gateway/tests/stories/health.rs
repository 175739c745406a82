//! What orchestrators and Prometheus see.

use std::sync::Arc;
use std::time::Duration;

use secret_gateway::{Grant, Role, probe};
use secret_persistence::layer::{CacheOptions, Layers, Stack};
use secret_persistence::{ErrorKind, Operation, Stores};
use serde_json::{Value, json};

use crate::program::{Program, token};
use crate::world::{Faulty, World, kv_path, specification, workspace, written};

/// A store that is down makes the gateway not ready only where the cache cannot serve either.
#[tokio::test]
async fn the_gateway_is_ready_while_the_store_or_the_cache_serves() {
    let store: Arc<Faulty> = Arc::default();
    let folder = tempfile::tempdir().unwrap();
    let cached = Arc::clone(&store);
    let world = World::of(Arc::clone(&store), folder, &[], move |_| {
        let cache = CacheOptions::default()
            .with_ttl(Duration::from_millis(50))
            .with_stale(Duration::from_secs(60));
        Stores::new(Layers::over(Stack::over(cached).with_cache(cache)).build())
    })
    .await;
    let ready = |status: u16| {
        let world = &world;
        async move {
            probe(&world.gateway).await;
            let answer = world.send("GET", "/health/ready", &[], None).await;
            answer.expect(status)
        }
    };
    let sealed = || async {
        let answer = world.send("GET", "/v1/sys/health", &[], None).await;
        (answer.status.as_u16(), answer.body["sealed"].clone())
    };
    assert_eq!(ready(200).await["store"], true);
    assert_eq!(sealed().await, (200, json!(false)));

    // Down, and nothing was read yet.
    let down = || {
        for operation in [Operation::Identity, Operation::Read] {
            store.fail(operation, ErrorKind::Unavailable);
        }
    };
    down();
    let body = ready(503).await;
    assert_eq!(
        body,
        json!({"ready": false, "outbox": true, "store": false})
    );
    assert_eq!(sealed().await, (503, json!(true)));
    world
        .send("GET", "/health/live", &[], None)
        .await
        .expect(200);
    let stores = world.call("GET", "/api/v1/stores", None).await.expect(200);
    let shown = &stores["stores"][0];
    assert_eq!(
        (
            &shown["healthy"],
            &shown["error"],
            &shown["answers_from_cache"]
        ),
        (&json!(false), &json!("unavailable"), &json!(false))
    );

    // It answers again, and a value is read: from now on the cache serves while the store is down.
    store.mend();
    let path = kv_path(1, 1);
    world.call("POST", &path, written("x")).await.expect(200);
    world.call("GET", &path, None).await.expect(200);
    ready(200).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    down();
    ready(200).await;
    let stores = world.call("GET", "/api/v1/stores", None).await.expect(200);
    let shown = &stores["stores"][0];
    assert_eq!(
        (&shown["healthy"], &shown["answers_from_cache"]),
        (&json!(false), &json!(true))
    );
    let read = world.call("GET", &path, None).await.expect(200);
    assert_eq!(read["data"]["data"]["value"], "x");
}

/// The metrics that an operator's alerts are built on.
#[tokio::test]
async fn metrics_count_what_an_operator_is_alerted_of() {
    // A process of its own: this one's metrics are those of every test.
    let folder = tempfile::tempdir().unwrap();
    let gateway = Program::start(folder.path(), &[]);
    let client = reqwest::Client::new();
    let call = |role: &'static str, method: &'static str, path: String, body: Option<Value>| {
        let request = client
            .request(method.parse().unwrap(), format!("{}{path}", gateway.base))
            .header("content-type", "application/json")
            .body(body.map(|body| body.to_string()).unwrap_or_default());
        let request = match role {
            "" => request,
            role => request.bearer_auth(token(folder.path(), role)),
        };
        async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let kind = answer.headers()["content-type"]
                .to_str()
                .unwrap()
                .to_owned();
            (status, kind, answer.text().await.unwrap())
        }
    };
    let kv = kv_path(1, 1);
    let create = json!({
        "kind": "create", "specification": specification(), "scope": workspace(1),
        "edited": {"host": "h", "password": "x"},
    });
    for (role, method, path, body, status) in [
        ("kv-write", "POST", &*kv, written("one"), 200),
        ("kv-write", "POST", &*kv, written("two"), 400),
        ("operate", "GET", &*kv, None, 403),
        ("change", "POST", "/api/v1/changes", Some(create), 201),
        ("", "GET", "/api/v1/stores", None, 401),
        ("kv-read", "GET", "/metrics", None, 403),
    ] {
        let (answered, _, text) = call(role, method, path.to_owned(), body).await;
        assert_eq!(answered, status, "{method} {path}: {text}");
    }
    let (status, kind, text) = call("operate", "GET", "/metrics".to_owned(), None).await;
    assert_eq!(status, 200);
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    for line in [
        r#"secret_gateway_failed_writes_total{face="kv",kind="already_exists"} 1"#,
        r#"secret_gateway_changes{state="open"} 1"#,
        r#"secret_gateway_changes{state="committed"} 0"#,
        r#"secret_gateway_oldest_change_seconds{state="open"} "#,
        r#"secret_gateway_refused_callers_total{reason="missing"} 1"#,
        r#"secret_gateway_store_up{id="default"} 1"#,
        "secret_gateway_requests_total{",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // Names are in logs and audit events, not in series.
    assert!(!text.contains("airbyte_"), "{text}");
}

#[tokio::test]
async fn metrics_are_absent_where_nothing_records_them() {
    let world = World::new().await;
    let token = world.token(Grant::new("operator", [Role::Operate]));
    world
        .call_as(Some(&token), "GET", "/metrics", None)
        .await
        .expect_kind(404, "not_found");
}
