//! Every call that touches a secret is an audit event of the token's name and the request's id.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use secret_gateway::{Grant, Role};
use secret_persistence::{AuditEvent, AuditMode, AuditSink, ErrorKind, Operation, Result};
use serde_json::{Value, json};

use crate::world::{World, name, specification, workspace, written};

#[derive(Debug, Default)]
pub(crate) struct Sink(Mutex<Vec<AuditEvent>>);

#[async_trait]
impl AuditSink for Sink {
    async fn record(&self, events: &[AuditEvent]) -> Result<()> {
        self.0.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

impl Sink {
    /// What was recorded since the last look: operation, name, failure.
    pub(crate) fn take(&self, actor: &str) -> Vec<(Operation, String, Option<ErrorKind>)> {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        let told = |event: AuditEvent| {
            assert_eq!(event.actor.as_str(), actor);
            assert_eq!(event.request.as_deref(), Some("request-1"));
            let name = event.location.coordinate.to_string();
            (event.operation, name, event.failure)
        };
        events.into_iter().map(told).collect()
    }
}

#[tokio::test]
async fn every_secret_that_is_touched_is_an_event_of_the_caller() {
    let sink: Arc<Sink> = Arc::default();
    let recording = Arc::clone(&sink);
    let folder = tempfile::tempdir().unwrap();
    let world = World::of(Arc::default(), folder, &[], |stores| {
        stores.with_audit(recording, AuditMode::Required)
    })
    .await;
    let token = world.token(Grant::new("worker", Role::ALL));
    let call = |method: &'static str, path: String, body: Option<Value>| {
        let (world, token) = (&world, &token);
        async move {
            let headers = [
                ("x-vault-token", token.expose()),
                ("x-request-id", "request-1"),
            ];
            let body = body.map(|body| body.to_string());
            world.send(method, &path, &headers, body).await
        }
    };
    let secret = name(1, 1);
    let kv = |what: &str| format!("/v1/secret/{what}/{secret}");
    let versions = || Some(json!({"versions": [1]}));
    for (method, path, body, status, operation, failure) in [
        (
            "POST",
            kv("data"),
            written("x"),
            200,
            Operation::Write,
            None,
        ),
        (
            "POST",
            kv("data"),
            written("y"),
            400,
            Operation::Write,
            Some(ErrorKind::AlreadyExists),
        ),
        ("GET", kv("data"), None, 200, Operation::Read, None),
        ("GET", kv("metadata"), None, 200, Operation::Describe, None),
        (
            "POST",
            kv("delete"),
            versions(),
            204,
            Operation::Delete,
            None,
        ),
        (
            "GET",
            kv("data"),
            None,
            404,
            Operation::Read,
            Some(ErrorKind::PendingDeletion),
        ),
        (
            "POST",
            kv("undelete"),
            versions(),
            204,
            Operation::Restore,
            None,
        ),
        ("DELETE", kv("metadata"), None, 204, Operation::Delete, None),
    ] {
        let answer = call(method, path.clone(), body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {path}: {}",
            answer.text
        );
        assert_eq!(
            sink.take("worker"),
            [(operation, secret.clone(), failure)],
            "{method} {path}"
        );
    }

    let create = json!({
        "kind": "create", "specification": specification(), "scope": workspace(1),
        "edited": {"host": "h", "password": "x"},
    });
    let made = call("POST", "/api/v1/changes".to_owned(), Some(create)).await;
    let made = made.expect(201);
    let written = made["writes"][0]["coordinate"].as_str().unwrap().to_owned();
    let one = |operation: Operation| vec![(operation, written.clone(), None)];
    assert_eq!(sink.take("worker"), one(Operation::Write));
    let body = json!({"configurations": [made["configuration"]]});
    let hydrated = call("POST", "/api/v1/hydrate".to_owned(), Some(body)).await;
    hydrated.expect(200);
    assert_eq!(sink.take("worker"), one(Operation::Read));
    let abort = format!("/api/v1/changes/{}/abort", made["id"].as_str().unwrap());
    call("POST", abort, None).await.expect(200);
    assert_eq!(sink.take("worker"), one(Operation::Delete));
}
