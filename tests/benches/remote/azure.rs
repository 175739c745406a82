//! Azure Key Vault.

use std::{fs, sync::Arc, time::Duration};

use e2e::azure::{Azure, Options};
use secret_persistence_azure::{AzureKeyVault, Config, SETTINGS};
use secret_persistence_core::{ManagedCoordinate, SecretPersistence};
use serde_json::Value;

use crate::{
    clouds::{self, Floor},
    target::Target,
};

pub(crate) async fn measure(delay: Duration) {
    let azure = Azure::start(Options::default()).await.unwrap();
    let target = || Target::with_tls(&azure.vault_url(), azure.ca_file(), delay);
    let (ours, bare) = (target(), target());
    let store = ours_at(&azure, &ours).await;
    let floor = Http::connect(&azure, &bare).await;
    clouds::measure("Azure", delay, &ours, store, &floor).await;
}

/// Logins are delayed too.
async fn ours_at(azure: &Azure, target: &Target) -> Arc<dyn SecretPersistence> {
    let ca_file = target.ca_file(azure.ca_file());
    let settings = SETTINGS.from_pairs([
        ("vault-url", &*target.url),
        ("authority-host", &*target.url),
        ("ca-file", ca_file.to_str().unwrap()),
        // The vault is called localhost, which is not below any resource.
        ("verify-challenge", "false"),
        ("tenant-id", azure.tenant_id()),
        ("client-id", azure.client_id()),
        ("client-secret", azure.client_secret()),
    ]);
    let config = Config::from_settings(&settings.unwrap()).unwrap();
    Arc::new(AzureKeyVault::connect(config).await.unwrap())
}

/// A pooled HTTP client with a token, and the vault's responses unchanged.
struct Http {
    client: reqwest::Client,
    token: String,
    url: String,
}

impl Http {
    async fn connect(azure: &Azure, target: &Target) -> Self {
        let authority = fs::read(target.ca_file(azure.ca_file())).unwrap();
        let authority = reqwest::Certificate::from_pem(&authority).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .http1_only()
            .tcp_nodelay(true)
            .build()
            .unwrap();
        let url = format!(
            "{}/{}/oauth2/v2.0/token",
            azure.authority_host(),
            azure.tenant_id()
        );
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}/.default",
            azure.client_id(),
            azure.client_secret(),
            azure.resource()
        );
        let url = url.replace(azure.authority_host(), &target.url);
        let answer = client.post(url).body(form).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        Self {
            client,
            token: answer["access_token"].as_str().unwrap().to_owned(),
            url: target.url.clone(),
        }
    }
}

impl Floor for Http {
    async fn read_one(&self, name: &ManagedCoordinate) {
        let name = name.as_str().replace('_', "-");
        let url = format!("{}/secrets/{name}?api-version=2025-07-01", self.url);
        let answer = self
            .client
            .get(url)
            .bearer_auth(&self.token)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success());
        answer.bytes().await.unwrap();
    }
}
