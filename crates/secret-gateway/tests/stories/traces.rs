//! Traces reach a collector, and contain no value.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use e2e::Canaries;
use serde_json::{Value, json};

use crate::program::{Program, everything};
use crate::world::{kv_path, specification, workspace, written};

const SECRET: &str = "canary-51d7-in-a-span";

/// The trace that the caller is in, as W3C's `traceparent` and as the bytes of OTLP.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

type Received = Arc<Mutex<Vec<u8>>>;

/// A collector that keeps what it is sent.
async fn collector() -> (String, Received) {
    async fn keep(State(received): State<Received>, body: Bytes) {
        received.lock().unwrap().extend_from_slice(&body);
    }
    let received = Received::default();
    let router = Router::new()
        .route("/v1/traces", post(keep))
        .with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), received)
}

// The collector answers while the test waits for the gateway to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_the_collector_and_contain_no_value() {
    let (endpoint, received) = collector().await;
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
    let gateway = Program::start_with(folder.path(), &[], &variables);
    let client = reqwest::Client::new();
    let call = |method: &'static str, path: String, body: Option<Value>| {
        let request = client
            .request(method.parse().unwrap(), format!("{}{path}", gateway.base))
            .header("x-vault-token", &token)
            .header("content-type", "application/json")
            .header("idempotency-key", SECRET)
            .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
            .body(body.map(|body| body.to_string()).unwrap_or_default());
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    };
    let kv = kv_path(1, 1);
    assert_eq!(call("POST", kv.clone(), written(SECRET)).await.0, 200);
    let (status, read) = call("GET", kv.clone(), None).await;
    assert!(status == 200 && read.contains(SECRET));
    let create = json!({
        "kind": "create", "specification": specification(), "scope": workspace(1),
        "edited": {"host": "h", "password": SECRET},
    });
    let (status, made) = call("POST", "/api/v1/changes".to_owned(), Some(create)).await;
    assert_eq!(status, 201);
    let made: Value = serde_json::from_str(&made).unwrap();
    let body = json!({"configurations": [made["configuration"]]});
    let (status, full) = call("POST", "/api/v1/hydrate".to_owned(), Some(body)).await;
    assert!(status == 200 && full.contains(SECRET));
    // A value in every place where it does not belong.
    let wrong = json!({"kind": SECRET, SECRET: SECRET});
    for (method, path, body) in [
        ("POST", "/api/v1/changes".to_owned(), Some(wrong)),
        ("POST", format!("/v1/secret/data/{SECRET}"), written(SECRET)),
        ("GET", format!("/{SECRET}"), None),
        ("GET", format!("/api/v1/changes?state={SECRET}"), None),
        ("POST", kv, Some(json!({"data": {"value": [SECRET]}}))),
    ] {
        assert!(call(method, path, body).await.0 >= 400);
    }
    // A shutdown sends what is left.
    gateway.terminate();
    assert!(gateway.wait().success());

    let received = received.lock().unwrap();
    let text = String::from_utf8_lossy(&received);
    for expected in [
        "secret-gateway",
        "POST /v1/secret/data/{*path}",
        "GET /v1/secret/data/{*path}",
        "POST /api/v1/hydrate",
        "http.response.status_code",
        "everything",
        // The store's calls are spans of ours too.
        "sqlite",
    ] {
        assert!(text.contains(expected), "{expected}");
    }
    let trace: Vec<u8> = (0..TRACE.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&TRACE[at..at + 2], 16).unwrap())
        .collect();
    assert!(
        received.windows(trace.len()).any(|bytes| bytes == trace),
        "the spans belong to the caller's trace"
    );
    let mut canaries = Canaries::default();
    canaries.add(SECRET);
    canaries.add(&token);
    canaries.expect_none_in(&received, "the traces");
}
