//! Secrets show in no answer but those that are asked for them, in no log, in no file.

use e2e::{Canaries, Logs};
use secret_persistence::{ErrorKind, Operation};
use serde_json::json;
use tracing::instrument::WithSubscriber as _;

use crate::world::{World, name, specification, workspace};

const SECRET: &str = "canary-7c1f\"ü\nsecond-line-93ab";

#[tokio::test]
async fn a_secret_shows_in_no_error_log_or_file() {
    let logs = Logs::default();
    let mut canaries = Canaries::default();
    canaries.add(SECRET);
    let folder = async {
        let world = World::new().await;
        let kv = format!("/v1/secret/data/{}", name(1, 1));
        let mut answers = Vec::new();
        for kind in [ErrorKind::Unavailable, ErrorKind::InvalidValue, ErrorKind::PermissionDenied, ErrorKind::AlreadyExists] {
            world.store.fail(Operation::Write, kind);
            answers.push(world.call("POST", &kv, Some(json!({"data": {"value": SECRET}}))).await);
            let create = json!({
                "kind": "create", "specification": specification(), "scope": workspace(1),
                "edited": {"host": "h", "password": SECRET},
            });
            let headers = [("idempotency-key", SECRET.split('"').next().unwrap())];
            answers.push(world.call_with(&headers, "POST", "/api/v1/changes", Some(create.clone())).await);
            world.store.mend();
            answers.push(world.call("POST", "/api/v1/changes", Some(create.clone())).await);
            // Wrong in every way that a secret could be quoted for.
            for body in [
                json!({"data": {"value": [SECRET]}}),
                json!({"data": SECRET}),
                json!({"data": {"value": "x"}, "options": {"cas": SECRET}}),
                json!(SECRET),
            ] {
                answers.push(world.call("POST", &kv, Some(body)).await);
            }
            for (field, value) in [("kind", json!(SECRET)), ("scope", json!(SECRET)), ("expires", json!(SECRET)), ("guarded", json!([SECRET])), ("specification", json!(SECRET)), ("saved", json!({"password": {"_secret": SECRET}}))] {
                let mut body = create.clone();
                body[field] = value;
                answers.push(world.call("POST", "/api/v1/changes", Some(body)).await);
            }
            let body = json!({"kind": "update", "specification": specification(), "scope": workspace(1), "saved": {"password": SECRET}, "edited": {"host": "h", "password": {"x": SECRET}}});
            answers.push(world.call("POST", "/api/v1/changes", Some(body)).await);
        }
        answers.push(world.send("POST", &kv, &[("x-vault-token", "canary-7c1f")], Some(format!("{{{SECRET}"))).await);
        answers.push(world.send("GET", "/api/v1/stores", &[("authorization", "Bearer second-line-93ab")], None).await);
        answers.push(world.call("GET", "/api/v1/status", None).await);
        for answer in &answers {
            canaries.expect_none_in(answer.text.as_bytes(), "an answer");
        }
        world
    }
    .with_subscriber(logs.dispatch())
    .await;
    assert!(logs.text().contains("secret_gateway"));
    canaries.expect_none_in(logs.text().as_bytes(), "the log");
    for entry in std::fs::read_dir(folder.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        canaries.expect_none_in(&std::fs::read(&path).unwrap(), &path.display().to_string());
    }
}
