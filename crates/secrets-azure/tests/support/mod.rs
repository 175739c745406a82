//! Shared by the tests of this crate: a separate stand-in, and another client of the same vault.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use e2e::azure::{Azure, Options};
use reqwest::{Certificate, Method};
use secret_persistence_azure::{AzureKeyVault, Config, SETTINGS};
use secret_persistence_core::conformance::Outsider;
use secret_persistence_core::{
    Coordinate, Error, ErrorKind, ManagedCoordinate, Owner, Result, Scope, SecretValue, Write,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A separate vault.
pub(crate) async fn stand_in() -> Azure {
    Azure::start(Options::default()).await.unwrap()
}

/// Settings for a test.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    settings: BTreeMap<&'static str, String>,
    owner: Option<Owner>,
}

/// The settings of an identity.
pub(crate) type Identity = Vec<(&'static str, String)>;

impl Setup {
    pub(crate) fn new(vault: &str) -> Self {
        Self::default().set("vault-url", vault)
    }

    pub(crate) fn set(mut self, name: &'static str, value: impl ToString) -> Self {
        self.settings.insert(name, value.to_string());
        self
    }

    pub(crate) fn identity(mut self, identity: Identity) -> Self {
        self.settings.extend(identity);
        self
    }

    pub(crate) fn owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    pub(crate) fn build(self) -> Result<Config> {
        let config = Config::from_settings(&SETTINGS.from_pairs(self.settings)?)?;
        Ok(match self.owner {
            Some(owner) => config.with_owner(owner),
            None => config,
        })
    }
}

/// With the secret of its application.
pub(crate) fn config(azure: &Azure) -> Setup {
    with_identity(azure, application(azure))
}

/// Its application with the secret.
pub(crate) fn application(azure: &Azure) -> Identity {
    client_secret(azure.tenant_id(), azure.client_id(), azure.client_secret())
}

/// An application with a secret.
pub(crate) fn client_secret(tenant: &str, client: &str, secret: &str) -> Identity {
    vec![
        ("credentials", "client-secret".to_owned()),
        ("tenant-id", tenant.to_owned()),
        ("client-id", client.to_owned()),
        ("client-secret", secret.to_owned()),
    ]
}

/// Its application, with a service account's token.
pub(crate) fn workload(azure: &Azure, file: &Path) -> Identity {
    vec![
        ("credentials", "workload-identity".to_owned()),
        ("tenant-id", azure.tenant_id().to_owned()),
        ("client-id", azure.client_id().to_owned()),
        ("federated-token-file", file.to_str().unwrap().to_owned()),
    ]
}

/// With another identity.
pub(crate) fn with_identity(azure: &Azure, identity: Identity) -> Setup {
    Setup::new(&azure.vault_url())
        .set("ca-file", azure.ca_file().display())
        .set("authority-host", azure.authority_host())
        .set("verify-challenge", false)
        .identity(identity)
}

pub(crate) async fn open(setup: Setup) -> AzureKeyVault {
    AzureKeyVault::connect(setup.build().unwrap())
        .await
        .unwrap()
}

/// A unique name.
pub(crate) fn coordinate() -> ManagedCoordinate {
    ManagedCoordinate::new(&Scope::workspace(Uuid::new_v4()), Uuid::new_v4(), 1).unwrap()
}

/// A value under a unique name.
pub(crate) fn write() -> Write {
    Write::new(
        coordinate(),
        SecretValue::new(format!("value {}", Uuid::new_v4())),
    )
}

/// Its name in the vault.
pub(crate) fn name_of(coordinate: &ManagedCoordinate) -> String {
    coordinate.as_str().replace('_', "-")
}

/// Another client of the vault, which uses its API.
#[derive(Debug)]
pub(crate) struct SomebodyElse {
    http: reqwest::Client,
    vault: String,
    token_url: String,
    form: String,
}

impl SomebodyElse {
    pub(crate) fn new(azure: &Azure) -> Self {
        let pem = std::fs::read(azure.ca_file()).unwrap();
        let http = reqwest::Client::builder()
            .tls_certs_only(Certificate::from_pem_bundle(&pem).unwrap())
            .build()
            .unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", azure.client_id()),
            ("client_secret", azure.client_secret()),
            ("scope", &format!("{}/.default", azure.resource())),
        ];
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        Self {
            http,
            vault: azure.vault_url(),
            token_url: format!(
                "{}/{}/oauth2/v2.0/token",
                azure.authority_host(),
                azure.tenant_id()
            ),
            form,
        }
    }

    /// A token of the application.
    pub(crate) async fn token(&self) -> String {
        let login = self
            .http
            .post(&self.token_url)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(self.form.clone())
            .send()
            .await
            .unwrap();
        let login: Value = serde_json::from_slice(&login.bytes().await.unwrap()).unwrap();
        login["access_token"].as_str().unwrap().to_owned()
    }

    /// Sends one request to the vault. Returns the status and the body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let token = self.token().await;
        let mut request = self
            .http
            .request(method, format!("{}/{path}?api-version=7.4", self.vault))
            .header("Authorization", format!("Bearer {token}"));
        if let Some(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Sets a secret without our tags, like other clients.
    pub(crate) async fn set(&self, name: &str, body: Value) {
        let (status, answer) = self
            .send(Method::PUT, &format!("secrets/{name}"), Some(body))
            .await;
        assert_eq!(status, 200, "{answer}");
    }

    /// The attributes and tags of a secret.
    pub(crate) async fn look(&self, name: &str) -> Value {
        let (status, answer) = self
            .send(Method::GET, &format!("secrets/{name}"), None)
            .await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The number of versions of a secret.
    pub(crate) async fn versions(&self, name: &str) -> usize {
        let (status, answer) = self
            .send(Method::GET, &format!("secrets/{name}/versions"), None)
            .await;
        assert_eq!(status, 200, "{answer}");
        answer["value"].as_array().map_or(0, Vec::len)
    }
}

#[async_trait]
impl Outsider for SomebodyElse {
    async fn insert(&self, name: &str, value: &SecretValue) -> Result<Coordinate> {
        if value.is_empty() {
            // Key Vault refuses it from any client.
            return Err(Error::new(ErrorKind::InvalidValue, "a secret has a value"));
        }
        self.set(name, json!({ "value": value.expose() })).await;
        Coordinate::parse(name)
    }

    async fn remove(&self, coordinate: &Coordinate) -> Result<()> {
        let path = format!("secrets/{coordinate}");
        self.send(Method::DELETE, &path, None).await;
        Ok(())
    }
}
