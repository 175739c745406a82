//! Fifty clients of the connector face over a store that fails, with a gateway that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::proxy::{Answer, Fault, Rule};
use e2e::{FaultProxy, VaultServer};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::program::{Program, everything, log_of};
use crate::world::{specification, workspace};

const CLIENTS: usize = 50;
const CHANGES: usize = 6;
const KILLS: usize = 10;

/// A row of the platform's table.
#[derive(Clone)]
struct Row {
    revision: u64,
    configuration: Value,
    password: String,
}

/// The platform: its table, and the way to the gateway.
struct Platform {
    client: reqwest::Client,
    base: String,
    token: String,
    /// The table, and beside it the changes that were saved with it: one transaction.
    rows: Mutex<BTreeMap<Uuid, Row>>,
    saved: Mutex<BTreeSet<String>>,
    /// Everything that was answered but to hydrate.
    answers: Mutex<String>,
}

impl Platform {
    /// Asks until somebody answers who is not busy.
    async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        key: &str,
        body: &Value,
    ) -> (u16, Value) {
        loop {
            let mut request = self
                .client
                .request(method.clone(), format!("{}{path}", self.base))
                .header("x-vault-token", &self.token);
            if !key.is_empty() {
                request = request.header("idempotency-key", key);
            }
            if method == reqwest::Method::POST {
                request = request
                    .header("content-type", "application/json")
                    .body(body.to_string());
            }
            if let Ok(answer) = request.send().await {
                let status = answer.status().as_u16();
                if let Ok(text) = answer.text().await {
                    let body: Value = serde_json::from_str(&text).unwrap();
                    if !path.ends_with("hydrate") {
                        self.answers.lock().unwrap().push_str(&text);
                    }
                    let again = body["kind"] == "change_in_progress" || matches!(status, 429 | 503);
                    if !again {
                        return (status, body);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask(reqwest::Method::POST, path, "", body).await
    }

    /// One change: staged, saved by compare-and-swap, and ended.
    async fn change(&self, turn: usize) {
        let password = format!("canary-{}", Uuid::new_v4());
        let some = {
            let rows = self.rows.lock().unwrap();
            let at = if rows.is_empty() {
                0
            } else {
                turn % rows.len()
            };
            rows.iter().nth(at).map(|(id, row)| (*id, row.clone()))
        };
        let shared = json!({"scope": workspace(9)});
        let (id, old, mut body) = match (turn % 5, some) {
            (0 | 1, _) | (_, None) => {
                let edited = json!({"host": "h", "password": password});
                (
                    Uuid::new_v4(),
                    None,
                    json!({"kind": "create", "edited": edited}),
                )
            }
            (4, Some((id, old))) => {
                let body = json!({"kind": "delete", "saved": old.configuration});
                (id, Some(old), body)
            }
            (_, Some((id, old))) => {
                let edited = json!({"host": format!("h{turn}"), "password": password});
                let body = json!({"kind": "update", "saved": old.configuration, "edited": edited});
                (id, Some(old), body)
            }
        };
        body["scope"] = shared["scope"].clone();
        let kind = body["kind"].clone();
        if kind != "delete" {
            body["specification"] = specification();
        }
        let key = Uuid::new_v4().to_string();
        let (status, made) = self
            .ask(reqwest::Method::POST, "/api/v1/changes", &key, &body)
            .await;
        if status != 201 {
            // Somebody else's commit was faster: what the row pointed at is gone, and the row is another.
            assert!(matches!(status, 409 | 422), "{status} {made}");
            return;
        }
        let saved = {
            let mut rows = self.rows.lock().unwrap();
            let now = rows.get(&id).map(|row| row.revision);
            let moved = now != old.as_ref().map(|row| row.revision);
            if !moved && kind == "delete" {
                rows.remove(&id);
            } else if !moved {
                let row = Row {
                    revision: now.unwrap_or(0) + 1,
                    configuration: made["configuration"].clone(),
                    password,
                };
                rows.insert(id, row);
            }
            if !moved {
                let id = made["id"].as_str().unwrap().to_owned();
                self.saved.lock().unwrap().insert(id);
            }
            !moved
        };
        // Some clients crash here, and leave the change to the settle loop.
        if turn % 7 == 3 {
            return;
        }
        let how = if saved { "commit" } else { "abort" };
        let path = format!("/api/v1/changes/{}/{how}", made["id"].as_str().unwrap());
        let (status, ended) = self.post(&path, &json!({})).await;
        assert_eq!(status, 200, "{ended}");
    }

    /// Every saved configuration as the runner gets it.
    async fn hydrated(&self) -> Vec<Value> {
        let rows: Vec<Value> = {
            let rows = self.rows.lock().unwrap();
            rows.values().map(|row| row.configuration.clone()).collect()
        };
        let (status, full) = self
            .post("/api/v1/hydrate", &json!({"configurations": rows}))
            .await;
        assert_eq!(status, 200, "{full}");
        full["configurations"].as_array().unwrap().clone()
    }
}

fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(name) = members.get("_secret").and_then(Value::as_str) {
                found.insert(name.to_owned());
            }
            members.values().for_each(|member| names(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => (),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_lose_nothing_and_leave_nothing_behind() {
    let Some(vault) = VaultServer::start_or_env().await else {
        return;
    };
    let mount = vault.mount_kv(2).await;
    let proxy = FaultProxy::builder(vault.address()).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let token = everything(folder.path());
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (listen, address) = (
        format!("127.0.0.1:{port}"),
        proxy.url().replace("http://", ""),
    );
    let store = format!("vault://{address}/{mount}/?tls=off");
    let variables = [
        (
            "VAULT_AUTH_TOKEN",
            vault.create_token(&["root"], "1h").await,
        ),
        ("SECRETS_OWNER", "stories".to_owned()),
    ];
    let flags = ["--listen", &listen, "--store", &store];
    // Where the store fails just then the program ends, and is started again as by an orchestrator.
    let start = || loop {
        if let Some(gateway) = Program::try_start(folder.path(), &flags, &variables) {
            break gateway;
        }
    };
    let mut gateway = start();
    // Five requests in a hundred.
    let unavailable = Answer::vault_error(503, &["told to fail"]);
    proxy.inject(Rule::new(Fault::Respond(unavailable)).every(40));
    proxy.inject(Rule::new(Fault::CutAfterWork).every(40));

    let platform = Arc::new(Platform {
        client: reqwest::Client::builder()
            .timeout(Duration::from_secs(100))
            .build()
            .unwrap(),
        base: format!("http://{listen}"),
        token,
        rows: Mutex::default(),
        saved: Mutex::default(),
        answers: Mutex::default(),
    });
    let closing: Arc<AtomicBool> = Arc::default();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let platform = Arc::clone(&platform);
        clients.spawn(async move {
            for change in 0..CHANGES {
                platform.change(client * 13 + change * 3).await;
            }
        });
    }
    let reader = {
        let (platform, closing) = (Arc::clone(&platform), Arc::clone(&closing));
        tokio::spawn(async move {
            let mut read = 0;
            while !closing.load(Ordering::Relaxed) {
                read += platform.hydrated().await.len();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            read
        })
    };
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(400)).await;
        gateway.kill();
        gateway = start();
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    closing.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0);
    proxy.heal();

    // The callers' settle loop.
    let rows: Vec<Row> = platform.rows.lock().unwrap().values().cloned().collect();
    let mut needed = BTreeSet::new();
    rows.iter()
        .for_each(|row| names(&row.configuration, &mut needed));
    let mut left = 0;
    loop {
        let path = "/api/v1/changes?state=open&limit=500";
        let (_, open) = platform
            .ask(reqwest::Method::GET, path, "", &Value::Null)
            .await;
        let open = open["changes"].as_array().unwrap().clone();
        if open.is_empty() {
            break;
        }
        left += open.len();
        for change in open {
            let id = change["id"].as_str().unwrap();
            let is_saved = platform.saved.lock().unwrap().contains(id);
            let how = if is_saved { "commit" } else { "abort" };
            let path = format!("/api/v1/changes/{id}/{how}");
            assert_eq!(platform.post(&path, &json!({})).await.0, 200);
        }
    }
    assert!(left > 0, "somebody crashed");

    // No saved configuration points at nothing.
    for (answer, row) in platform.hydrated().await.iter().zip(&rows) {
        assert_eq!(
            answer["configuration"]["password"],
            row.password.as_str(),
            "{answer}"
        );
    }
    assert!(rows.len() > 20, "{}", rows.len());
    // No orphan is left.
    let deadline = Instant::now() + Duration::from_secs(150);
    loop {
        let path = "/v1/secret/metadata?list=true";
        let (_, listed) = platform
            .ask(reqwest::Method::GET, path, "", &Value::Null)
            .await;
        let listed: BTreeSet<String> = listed["data"]["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        if listed == needed {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "orphans {:?}, missing {:?}",
            listed.difference(&needed).collect::<Vec<_>>(),
            needed.difference(&listed).collect::<Vec<_>>()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // No answer and no log shows a secret.
    assert!(!platform.answers.lock().unwrap().contains("canary-"));
    assert!(!log_of(folder.path()).contains("canary-"));
}
