//! HashiCorp Vault.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use secret_persistence_core::{ManagedCoordinate, SecretPersistence, settings::SettingMap};
use secret_persistence_vault::{Config, SETTINGS, Vault};
use serde_json::json;

use crate::{configuration::value, measure::Bare};

const POOL: usize = 32;

/// A pooled HTTP client, and Vault's responses unchanged.
pub(crate) struct Http {
    client: reqwest::Client,
    pub(crate) url: String,
    token: String,
    mount: String,
}

impl Http {
    pub(crate) fn new(url: &str, token: &str, mount: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .pool_max_idle_per_host(POOL)
            .tcp_nodelay(true);
        Self {
            client: client.build().unwrap(),
            url: url.to_owned(),
            token: token.to_owned(),
            mount: mount.to_owned(),
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) {
        let answer = request
            .header("x-vault-token", &self.token)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success());
        answer.bytes().await.unwrap();
    }

    fn path(&self, name: &ManagedCoordinate) -> String {
        format!("{}/v1/{}/data/{name}", self.url, self.mount)
    }
}

impl Bare for Http {
    async fn ours(&self) -> Arc<dyn SecretPersistence> {
        let mut settings = SettingMap::new(SETTINGS.rows());
        let prefix = format!("{}/", self.mount);
        for (name, value) in [
            ("address", &self.url),
            ("prefix", &prefix),
            ("token", &self.token),
        ] {
            settings.set(name, value).unwrap();
        }
        let config = Config::from_settings(&settings).unwrap();
        Arc::new(Vault::connect_lazy(config).await.unwrap())
    }

    fn anew(&self) -> Self {
        Self::new(&self.url, &self.token, &self.mount)
    }

    async fn read(&self, names: &[ManagedCoordinate]) {
        stream::iter(names)
            .for_each_concurrent(POOL, |name| self.read_one(name))
            .await;
    }

    async fn read_one(&self, name: &ManagedCoordinate) {
        self.send(self.client.get(self.path(name))).await;
    }

    async fn write_one(&self, name: &ManagedCoordinate) {
        let body = json!({"data": {"value": value(name)}, "options": {"cas": 0}});
        self.send(self.client.post(self.path(name)).json(&body))
            .await;
    }
}
