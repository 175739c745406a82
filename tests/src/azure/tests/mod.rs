//! That the stand-in refuses what it must, asked by a bare client.

mod access;
mod entra;
mod limits;
mod listing;
mod managed;
mod states;

use std::{fs, net::SocketAddr};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::{Azure, Options};

/// An answer, as far as it matters here.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    challenge: Option<String>,
    retry_after: Option<String>,
    body: Value,
}

impl Answer {
    /// What tells refusals apart: status, code and inner code.
    fn refusal(&self) -> (u16, &str, Option<&str>) {
        let error = &self.body["error"];
        (
            self.status.as_u16(),
            error["code"].as_str().unwrap_or_default(),
            error["innererror"]["code"].as_str(),
        )
    }

    fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    #[track_caller]
    fn ok(self) -> Value {
        assert!(self.status.is_success(), "{self:?}");
        self.body
    }
}

/// A stand-in, a client that trusts it, and a token.
struct Setup {
    azure: Azure,
    client: Client,
    token: String,
}

impl Setup {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let azure = Azure::start(options).await.unwrap();
        let client = client(&azure);
        let mut setup = Self {
            azure,
            client,
            token: String::new(),
        };
        setup.token = setup.fresh_token().await;
        setup.azure.reset();
        setup
    }

    async fn fresh_token(&self) -> String {
        let tenant = self.azure.tenant_id();
        let resource = self.azure.resource();
        self.token_of(tenant, resource).await
    }

    async fn token_of(&self, tenant: &str, resource: &str) -> String {
        let scope = format!("{resource}/.default");
        let answer = self.grant(tenant, &[("scope", &scope)]).await.ok();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// Asks for a token with the client secret; `changes` replaces parameters, or removes those that are empty.
    async fn grant(&self, tenant: &str, changes: &[(&str, &str)]) -> Answer {
        let scope = format!("{}/.default", self.azure.resource());
        let mut form = std::collections::BTreeMap::from([
            ("client_id", self.azure.client_id()),
            ("client_secret", self.azure.client_secret()),
            ("grant_type", "client_credentials"),
            ("scope", &scope),
        ]);
        form.extend(changes.iter().copied());
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in form {
            body.append_pair(name, value);
        }
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.azure.authority_host());
        let request = self
            .client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.finish());
        answer(request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }

    async fn set(&self, name: &str, body: Value) -> Answer {
        self.call(Method::PUT, &format!("/secrets/{name}"), Some(body))
            .await
    }

    async fn recover(&self, name: &str) -> Answer {
        self.call(
            Method::POST,
            &format!("/deletedsecrets/{name}/recover"),
            None,
        )
        .await
    }

    /// With token and the version of the protocol, unless the path has a query already.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let query = if path.contains('?') {
            ""
        } else {
            "?api-version=7.6"
        };
        let url = format!("{}{path}{query}", self.azure.vault_url());
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    async fn seed(&self, name: &str) {
        self.set(name, json!({"value": "tr0ub4dor"})).await.ok();
    }
}

fn client(azure: &Azure) -> Client {
    let authority = fs::read(azure.ca_file()).unwrap();
    let authority = reqwest::Certificate::from_pem(&authority).unwrap();
    let address: SocketAddr = azure.address();
    Client::builder()
        .no_proxy()
        .tls_certs_only([authority])
        .resolve("standin.vault.localhost", address)
        .build()
        .unwrap()
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status();
    let header = |name| {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let (challenge, retry_after) = (header("www-authenticate"), header("retry-after"));
    let body = response.bytes().await.unwrap();
    Answer {
        status,
        challenge,
        retry_after,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

#[tokio::test]
async fn a_secret_is_written_read_and_listed() {
    let setup = Setup::new().await;
    let written = setup
        .set(
            "Alpha-1",
            json!({
                "value": "tr0ub4dor",
                "contentType": "text/plain",
                "tags": {"coordinate": "Alpha_1"},
                "attributes": {"exp": 4_102_444_800_i64, "nbf": 4_000_000_000_i64},
            }),
        )
        .await
        .ok();
    let id = written["id"].as_str().unwrap();
    let (path, version) = id.rsplit_once('/').unwrap();
    assert_eq!(path, format!("{}/secrets/Alpha-1", setup.azure.vault_url()));
    assert_eq!(version.len(), 32);

    // Neither `nbf` in the future nor another case of the name keeps it from being read.
    let read = setup.get("/secrets/ALPHA-1/").await.ok();
    assert_eq!(read, written);
    assert_eq!(read["value"], "tr0ub4dor");
    assert_eq!(read["tags"], json!({"coordinate": "Alpha_1"}));
    assert_eq!(read["contentType"], "text/plain");
    let attributes = &read["attributes"];
    assert_eq!(attributes["enabled"], true);
    assert_eq!(attributes["exp"], 4_102_444_800_i64);
    assert_eq!(attributes["nbf"], 4_000_000_000_i64);
    assert_eq!(attributes["recoveryLevel"], "Recoverable+Purgeable");
    assert_eq!(attributes["recoverableDays"], 90);
    assert_eq!(attributes["created"], attributes["updated"]);

    let listed = setup.get("/secrets").await.ok();
    assert_eq!(listed["value"][0]["id"], path);
    assert_eq!(listed["value"][0]["value"], Value::Null);
    assert_eq!(listed["nextLink"], Value::Null);
}

#[tokio::test]
async fn set_always_adds_a_version() {
    let setup = Setup::new().await;
    let first = setup.set("alpha", json!({"value": "one"})).await.ok();
    let second = setup.set("ALPHA", json!({"value": "two"})).await.ok();
    assert_ne!(first["id"], second["id"]);
    assert_eq!(setup.get("/secrets/alpha").await.ok()["value"], "two");

    let version = first["id"].as_str().unwrap().rsplit_once('/').unwrap().1;
    let read = setup.get(&format!("/secrets/alpha/{version}")).await.ok();
    assert_eq!(read["value"], "one");
    let versions = setup.get("/secrets/alpha/versions").await.ok();
    assert_eq!(versions["value"].as_array().unwrap().len(), 2);
    assert_eq!(
        setup
            .get("/secrets/alpha/00000000000000000000000000000000")
            .await
            .refusal(),
        (404, "SecretNotFound", None)
    );
}

#[tokio::test]
async fn the_certificate_is_for_names_below_the_resource_too() {
    let setup = Setup::new().await;
    let url = format!("{}/secrets?api-version=7.6", setup.azure.named_vault_url());
    let listed = answer(setup.client.get(url).bearer_auth(&setup.token)).await;
    assert_eq!(listed.status, StatusCode::OK);
}

#[tokio::test]
async fn a_change_can_be_done_without_an_answer() {
    let setup = Setup::new().await;
    setup
        .azure
        .switches(|switches| switches.drop_after_work = 1);
    let url = format!("{}/secrets/alpha?api-version=7.6", setup.azure.vault_url());
    let request = setup.client.put(&url).bearer_auth(&setup.token);
    let error = request
        .json(&json!({"value": "tr0ub4dor"}))
        .send()
        .await
        .unwrap_err();
    assert!(!error.is_status());
    assert_eq!(setup.get("/secrets/alpha").await.ok()["value"], "tr0ub4dor");

    let requests = setup.azure.requests();
    assert_eq!(requests[0].operation, "SetSecret");
    assert_eq!(requests[0].name.as_deref(), Some("alpha"));
    assert!(requests[0].authorized);
    assert_eq!(setup.azure.count("GetSecret"), 1);
}
