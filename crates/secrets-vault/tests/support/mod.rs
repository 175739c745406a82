//! A real Vault, and a fake one for behaviour that a real one does not show on request.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "every test binary uses its part; a failed set-up is a failed test"
)]

use std::sync::{Arc, Mutex};

use reqwest::{Client, Method};
use secret_persistence_core::settings::SettingMap;
use secret_persistence_core::{Owner, Result};
use secret_persistence_vault::{Config, SETTINGS, Vault};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

/// A variable with the address of a real server. If it is missing, the test fails in CI, and
/// elsewhere reports that it was skipped.
pub fn required(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "{name} is not set; scripts/test starts the servers");
        println!("SKIPPED: {name} is not set");
    }
    value
}

/// The administrator of a real Vault.
#[derive(Clone)]
pub struct Admin {
    pub address: String,
    pub token: String,
    client: Client,
}

impl Admin {
    /// The server that `TEST_VAULT_ADDR` and `TEST_VAULT_TOKEN` name.
    pub fn from_env() -> Option<Self> {
        let (address, token) = (required("TEST_VAULT_ADDR")?, required("TEST_VAULT_TOKEN")?);
        Some(Self::new(&address, &token))
    }

    /// The server at an address, whatever the environment says.
    pub fn new(address: &str, token: &str) -> Self {
        let client = Client::builder()
            .no_proxy()
            .tls_certs_only(Vec::new())
            .build()
            .unwrap();
        Self {
            address: address.to_owned(),
            token: token.to_owned(),
            client,
        }
    }

    /// Sends a request with the administrator's token. Returns the status and the JSON body.
    pub async fn request(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self
            .client
            .request(method, format!("{}/v1/{path}", self.address))
            .header("X-Vault-Token", &self.token)
            .body(if body.is_null() {
                String::new()
            } else {
                body.to_string()
            });
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A request that must succeed.
    pub async fn must(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.request(method, path, body).await;
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    /// A new mount of the KV engine, with a unique name.
    pub async fn mount(&self, version: u8) -> String {
        let mount = format!("kv-{}", Uuid::new_v4());
        let body = json!({"type": "kv", "options": {"version": version.to_string()}});
        self.must("POST", &format!("sys/mounts/{mount}"), body)
            .await;
        // Version 2 prepares a new mount in the background, and answers 400 until it is ready.
        for _ in 0..200 {
            let path = if version == 2 {
                format!("{mount}/data/x")
            } else {
                format!("{mount}/x")
            };
            if self.request("GET", &path, Value::Null).await.0 == 404 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        mount
    }

    /// A token with only this policy.
    pub async fn token(&self, hcl: &str, ttl: &str) -> String {
        let name = format!("test-{}", Uuid::new_v4());
        self.must(
            "PUT",
            &format!("sys/policies/acl/{name}"),
            json!({"policy": hcl}),
        )
        .await;
        let body =
            json!({"policies": [name], "no_default_policy": true, "ttl": ttl, "renewable": true});
        let answer = self.must("POST", "auth/token/create", body).await;
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// The store, opened as the administrator.
    pub async fn open(&self, pairs: &[(&str, &str)]) -> Result<Vault> {
        let token = [("token", self.token.as_str())];
        let given = pairs
            .iter()
            .any(|(name, _)| *name == "token" || *name == "auth-method");
        let token = if given { &[][..] } else { &token[..] };
        open(&self.address, &[pairs, token].concat()).await
    }
}

/// Opens a store with these settings, where `owner` is set on the configuration.
pub async fn open(address: &str, pairs: &[(&str, &str)]) -> Result<Vault> {
    let mut settings = SettingMap::new(SETTINGS.rows());
    settings.set("address", address)?;
    let mut owner = None;
    for (name, value) in pairs {
        match *name {
            "owner" => owner = Some(Owner::parse(value)?),
            name => settings.set(name, *value)?,
        }
    }
    let mut config = Config::from_settings(&settings)?;
    if let Some(owner) = owner {
        config = config.with_owner(owner);
    }
    Vault::connect_lazy(config).await
}

/// A request to a fake server.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub token: Option<String>,
    pub headers: String,
    pub body: String,
}

/// A response of a fake server: status, further header lines, body.
pub type Reply = (u16, String, String);

/// A server of a few lines, for behaviour that a real Vault does not show on request.
pub struct Fake {
    pub address: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub async fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (reply, log) = (Arc::new(reply), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (reply, log) = (Arc::clone(&reply), Arc::clone(&log));
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    let mut buffer = [0; 4096];
                    loop {
                        let Ok(read) = stream.read(&mut buffer).await else {
                            return;
                        };
                        bytes.extend_from_slice(&buffer[..read]);
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        let Some((head, body)) = text.split_once("\r\n\r\n") else {
                            if read == 0 {
                                return;
                            }
                            continue;
                        };
                        let header = |name: &str| {
                            head.lines().find_map(|line| {
                                let (key, value) = line.split_once(':')?;
                                key.eq_ignore_ascii_case(name)
                                    .then(|| value.trim().to_owned())
                            })
                        };
                        let length =
                            header("content-length").map_or(0, |text| text.parse().unwrap());
                        if body.len() < length {
                            continue;
                        }
                        let mut first = head.split_whitespace();
                        let seen = Seen {
                            method: first.next().unwrap_or("").to_owned(),
                            path: first.next().unwrap_or("").to_owned(),
                            token: header("x-vault-token"),
                            headers: head.to_owned(),
                            body: body.to_owned(),
                        };
                        let (status, headers, body) = reply(&seen);
                        log.lock().unwrap().push(seen);
                        let answer = format!(
                            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
                            body.len()
                        );
                        let _ = stream.write_all(answer.as_bytes()).await;
                        return;
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// The number of requests with this method and a path that ends like this.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|seen| seen.method == method && seen.path.ends_with(path))
            .count()
    }
}

/// A response without further headers.
pub fn reply(status: u16, body: Value) -> Reply {
    (status, String::new(), body.to_string())
}

/// The response of `lookup-self` for a token with every permission.
pub fn looked_up() -> Reply {
    reply(
        200,
        json!({"data": {"ttl": 0, "renewable": false, "display_name": "fake", "policies": []}}),
    )
}
