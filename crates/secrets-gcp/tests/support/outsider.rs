//! Another client of the same project, with the bare SDK.

use async_trait::async_trait;
use e2e::google::Google;
use google_cloud_auth::credentials::service_account;
use google_cloud_secretmanager_v1::client::SecretManagerService;
use google_cloud_secretmanager_v1::model::replication::Automatic;
use google_cloud_secretmanager_v1::model::{Replication, Secret, SecretPayload};
use secret_persistence_core::conformance::Outsider;
use secret_persistence_core::{Coordinate, Error, ErrorKind, Result, SecretValue};

/// The bare SDK, and the location of its secrets.
#[derive(Clone, Debug)]
pub(crate) struct SomebodyElse {
    service: SecretManagerService,
    parent: String,
    is_regional: bool,
}

impl SomebodyElse {
    /// For global secrets, or for those of a region.
    pub(crate) async fn of(google: &Google, region: Option<&str>) -> Self {
        let key = serde_json::from_str(&google.service_account_json()).unwrap();
        let (endpoint, parent) = match region {
            None => (google.endpoint(), format!("projects/{}", google.project())),
            Some(region) => (
                google.regional_endpoint(),
                format!("projects/{}/locations/{region}", google.project()),
            ),
        };
        let service = SecretManagerService::builder()
            .with_endpoint(endpoint)
            .with_credentials(service_account::Builder::new(key).build().unwrap())
            .build()
            .await
            .unwrap();
        Self {
            service,
            parent,
            is_regional: region.is_some(),
        }
    }

    pub(crate) fn secret(&self, id: &str) -> String {
        format!("{}/secrets/{id}", self.parent)
    }

    /// A secret without a version.
    pub(crate) async fn create(&self, id: &str) {
        let secret = if self.is_regional {
            Secret::new()
        } else {
            Secret::new().set_replication(Replication::new().set_automatic(Automatic::new()))
        };
        self.service
            .create_secret()
            .set_parent(&self.parent)
            .set_secret_id(id)
            .set_secret(secret)
            .send()
            .await
            .unwrap();
    }

    /// Adds a version, and returns its number.
    pub(crate) async fn add(&self, id: &str, value: &[u8]) -> u64 {
        let added = self
            .service
            .add_secret_version()
            .set_parent(self.secret(id))
            .set_payload(SecretPayload::new().set_data(value.to_vec()))
            .send()
            .await
            .unwrap();
        let (_, number) = added.name.rsplit_once('/').unwrap();
        number.parse().unwrap()
    }

    pub(crate) async fn disable(&self, id: &str, version: u64) {
        let name = format!("{}/versions/{version}", self.secret(id));
        let request = self.service.disable_secret_version().set_name(name);
        request.send().await.unwrap();
    }

    pub(crate) async fn destroy(&self, id: &str, version: u64) {
        let name = format!("{}/versions/{version}", self.secret(id));
        let request = self.service.destroy_secret_version().set_name(name);
        request.send().await.unwrap();
    }

    pub(crate) async fn delete(&self, id: &str) {
        let request = self.service.delete_secret().set_name(self.secret(id));
        request.send().await.unwrap();
    }

    pub(crate) async fn labels(&self, id: &str) -> Secret {
        let request = self.service.get_secret().set_name(self.secret(id));
        request.send().await.unwrap()
    }
}

#[async_trait]
impl Outsider for SomebodyElse {
    async fn insert(&self, name: &str, value: &SecretValue) -> Result<Coordinate> {
        if value.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "Google takes no empty payload, from nobody",
            ));
        }
        self.create(name).await;
        self.add(name, value.expose().as_bytes()).await;
        Coordinate::parse(name)
    }

    async fn remove(&self, coordinate: &Coordinate) -> Result<()> {
        self.delete(coordinate.as_str()).await;
        Ok(())
    }
}
