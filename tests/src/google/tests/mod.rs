//! That the stand-in refuses what it must, seen by a bare HTTP client.

mod credentials;
mod listing;
mod project;
mod secrets;
mod versions;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Google, Options, accounts::CLOUD_PLATFORM};
use crate::jwt::SigningKey;

/// A server, and a token for it.
struct Bench {
    google: Google,
    client: reqwest::Client,
    token: String,
}

impl Bench {
    async fn new() -> Self {
        let google = Google::start(Options::default()).await.unwrap();
        let bench = Self {
            token: String::new(),
            client: reqwest::Client::new(),
            google,
        };
        let token = bench.signed(|_| {});
        Self { token, ..bench }
    }

    /// A token that the service account signs for itself, with claims changed.
    fn signed(&self, change: impl FnOnce(&mut Value)) -> String {
        let now = self.google.shared.now().unix_timestamp();
        let email = self.google.service_account();
        let mut claims = json!({
            "iss": email,
            "sub": email,
            "scope": CLOUD_PLATFORM,
            "iat": now,
            "exp": now + 3600,
        });
        change(&mut claims);
        self.google.shared.accounts.sign(&claims)
    }

    async fn send(&self, verb: Method, path: &str, body: Option<Value>) -> Answer {
        let url = format!("{}{path}", self.google.endpoint());
        let mut request = self.client.request(verb, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    /// The path of a secret, or of all.
    fn path(&self, rest: &str) -> String {
        format!("/v1/projects/{}/secrets{rest}", self.google.project())
    }

    /// Makes a secret with these versions.
    async fn secret(&self, id: &str, values: &[&str]) {
        let path = self.path(&format!("?secretId={id}"));
        self.post(&path, json!({"replication": {"automatic": {}}}))
            .await
            .expect(200);
        for value in values {
            self.add(id, value.as_bytes()).await.expect(200);
        }
    }

    async fn add(&self, id: &str, data: &[u8]) -> Answer {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let data = BASE64_STANDARD.encode(data);
        let path = self.path(&format!("/{id}:addVersion"));
        self.post(&path, json!({"payload": {"data": data}})).await
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    text: String,
    body: Value,
}

impl Answer {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let status = response.status();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        Self {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// A refusal with this code and status, whose message contains this.
    #[track_caller]
    fn refused(self, code: u16, status: &str, message: &str) -> Value {
        assert_eq!(self.status, code, "{}", self.text);
        let error = &self.body["error"];
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(error["status"], status, "{error}");
        let text = error["message"].as_str().unwrap();
        assert!(text.contains(message), "{text}");
        self.body
    }
}

/// The reason that the details give.
fn reason(body: &Value) -> &str {
    let details = body["error"]["details"].as_array();
    let info = details
        .into_iter()
        .flatten()
        .find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo");
    info.and_then(|info| info["reason"].as_str())
        .unwrap_or_default()
}

/// Another key than that of the service account.
fn stranger() -> SigningKey {
    SigningKey::generate().unwrap()
}
