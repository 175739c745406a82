//! Google Secret Manager.

use std::{sync::Arc, time::Duration};

use e2e::google::{Google, Options};
use secret_persistence_core::{ManagedCoordinate, SecretPersistence};
use secret_persistence_gcp::{Config, GoogleSecretManager, SETTINGS};
use serde_json::Value;

use crate::{
    clouds::{self, Floor},
    target::Target,
};

pub(crate) async fn measure(delay: Duration) {
    let google = Google::start(Options::default()).await.unwrap();
    let target = || Target::new(&google.endpoint(), delay);
    let (ours, bare) = (target(), target());
    let store = ours_at(&google, &ours).await;
    let floor = Http::connect(&google, &bare).await;
    clouds::measure("Google", delay, &ours, store, &floor).await;
}

/// With a key that contains the address of logins, which go to the stand-in.
async fn ours_at(google: &Google, target: &Target) -> Arc<dyn SecretPersistence> {
    let settings = SETTINGS.from_pairs([
        ("project-id", google.project()),
        ("endpoint-url", &target.url),
        ("credentials", &google.service_account_json()),
    ]);
    let config = Config::from_settings(&settings.unwrap()).unwrap();
    Arc::new(GoogleSecretManager::connect(config).await.unwrap())
}

/// A pooled HTTP client with a token, and the service's responses unchanged.
struct Http {
    client: reqwest::Client,
    project: String,
    token: String,
    url: String,
}

impl Http {
    async fn connect(google: &Google, target: &Target) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .tcp_nodelay(true)
            .build()
            .unwrap();
        let url = format!(
            "http://{}/computeMetadata/v1/instance/service-accounts/default/token",
            google.metadata_host()
        );
        let request = client.get(url).header("metadata-flavor", "Google");
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        Self {
            client,
            project: google.project().to_owned(),
            token: answer["access_token"].as_str().unwrap().to_owned(),
            url: target.url.clone(),
        }
    }
}

impl Floor for Http {
    async fn read_one(&self, name: &ManagedCoordinate) {
        let (url, project) = (&self.url, &self.project);
        let url = format!("{url}/v1/projects/{project}/secrets/{name}/versions/latest:access");
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
