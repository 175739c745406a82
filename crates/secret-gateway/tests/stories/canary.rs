//! Secrets show in no answer but those that are asked for them, in no log, in no file.

use e2e::{Canaries, Logs};
use secret_persistence::{ErrorKind, Operation};
use serde_json::json;
use tracing::instrument::WithSubscriber as _;

#[cfg(feature = "sqlite")]
use crate::world::{Faulty, configurations};
use crate::world::{World, kv_path, specification, workspace, written};

const SECRET: &str = "canary-7c1f\"ü\nsecond-line-93ab";

/// What is in a configuration, a line that is no JSON, and a pointer that nobody understands show nowhere.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_configuration_of_the_platform_shows_in_no_answer_log_or_file() {
    let logs = Logs::default();
    let mut canaries = Canaries::default();
    canaries.add(SECRET);
    let world = async {
        let folder = tempfile::tempdir().unwrap();
        let rows = [
            (
                "1",
                json!({"password": SECRET, "broken": {"_secret": SECRET}}),
            ),
            ("2", json!({"broken": {"_secret": [SECRET]}})),
        ];
        let file = configurations(folder.path(), &rows);
        let settings = [("configurations-file", file.as_str())];
        let world = World::over(Faulty::owned(), folder, &settings).await;
        let lines = world.folder.path().join("configurations.jsonl");
        for text in [
            None,
            Some(format!("{{\"id\": \"1\", \"configuration\": {SECRET}")),
            Some(json!({"id": [SECRET]}).to_string()),
        ] {
            if let Some(text) = text {
                std::fs::write(&lines, text).unwrap();
            }
            for path in ["ages", "affected", "restore", "collect"] {
                let answer = world
                    .call("POST", &format!("/api/v1/{path}"), Some(json!({})))
                    .await;
                canaries.expect_none_in(answer.text.as_bytes(), path);
            }
            let run = world.call("GET", "/api/v1/collect", None).await;
            canaries.expect_none_in(run.text.as_bytes(), "the run");
        }
        std::fs::remove_file(lines).unwrap();
        world
    }
    .with_subscriber(logs.dispatch())
    .await;
    assert!(logs.text().contains("secret_gateway"));
    canaries.expect_none_in(logs.text().as_bytes(), "the log");
    for entry in std::fs::read_dir(world.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        canaries.expect_none_in(&std::fs::read(&path).unwrap(), &path.display().to_string());
    }
}

#[tokio::test]
async fn a_secret_shows_in_no_error_log_or_file() {
    let logs = Logs::default();
    let mut canaries = Canaries::default();
    canaries.add(SECRET);
    let folder = async {
        let world = World::new().await;
        let kv = kv_path(1, 1);
        let mut answers = Vec::new();
        for kind in [ErrorKind::Unavailable, ErrorKind::InvalidValue, ErrorKind::PermissionDenied, ErrorKind::AlreadyExists] {
            world.store.fail(Operation::Write, kind);
            answers.push(world.call("POST", &kv, written(SECRET)).await);
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
            for path in ["/api/v1/ages", "/api/v1/affected", "/api/v1/restore"] {
                let row = json!({"id": "1", "configuration": {"password": SECRET, "broken": {"_secret": SECRET}}});
                answers.push(world.call("POST", path, Some(json!({"configurations": [row]}))).await);
                for wrong in [json!(SECRET), json!([SECRET]), json!([{"id": [SECRET], "configuration": SECRET}])] {
                    answers.push(world.call("POST", path, Some(json!({"configurations": wrong}))).await);
                }
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
