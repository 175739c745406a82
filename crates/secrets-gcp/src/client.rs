//! Sends the requests: one client for all of them, without retries and logs of the SDK, and with
//! deadlines.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crc::{CRC_32_ISCSI, Crc, Table};
use google_cloud_gax::client_builder::internal::with_follow_redirects;
use google_cloud_gax::error::Error as SdkError;
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_secretmanager_v1::client::SecretManagerService;
use google_cloud_secretmanager_v1::model::replication::user_managed::Replica;
use google_cloud_secretmanager_v1::model::replication::{Automatic, UserManaged};
use google_cloud_secretmanager_v1::model::{
    AccessSecretVersionResponse, CustomerManagedEncryption, ListSecretsResponse,
    Replication as SdkReplication, Secret, SecretPayload, SecretVersion,
};
use google_cloud_wkt::Timestamp as SdkTimestamp;
use secret_persistence_core::{Error, ErrorKind, Operation, SecretValue, Timestamp};
use secret_persistence_remote::{Nature, quiet};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::config::{Config, OWNER_LABEL, Replication};
use crate::credentials::CredentialCache;
use crate::error::Fault;
use crate::naming::{Place, Version};
use crate::policy::{Action, Denial};

/// The maximum duration of one request. Secret Manager responds in tens of milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// CRC32C. Secret Manager stores one with every value. Uses the larger table, because values have
/// up to 64 KiB.
/// <https://cloud.google.com/secret-manager/docs/data-integrity>
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// The checksum of a value, as the API represents it.
pub(crate) fn checksum(data: &[u8]) -> i64 {
    i64::from(CRC32C.checksum(data))
}

/// The client of Secret Manager, created with the first request because it needs a runtime.
pub(crate) struct Client {
    service: OnceCell<SecretManagerService>,
    credentials: CredentialCache,
    endpoint: String,
    host: String,
    place: Place,
}

impl Client {
    /// Stores the configuration. Sends no request.
    pub(crate) fn new(config: &Config) -> Self {
        let endpoint = match (&config.endpoint, &config.place.region) {
            (Some(url), _) => url.as_str().trim_end_matches('/').to_owned(),
            // <https://cloud.google.com/secret-manager/regional-secrets/data-residency>
            (None, Some(region)) => {
                format!("https://secretmanager.{region}.rep.googleapis.com")
            }
            (None, None) => "https://secretmanager.googleapis.com".to_owned(),
        };
        let host = url::Url::parse(&endpoint).map_or_else(
            |_| endpoint.clone(),
            |url| {
                format!(
                    "{}:{}",
                    url.host_str().unwrap_or_default(),
                    url.port_or_known_default().unwrap_or_default()
                )
            },
        );
        Self {
            service: OnceCell::new(),
            credentials: CredentialCache::new(config),
            endpoint,
            host,
            place: config.place.clone(),
        }
    }

    pub(crate) async fn access(
        &self,
        version: &Version,
    ) -> Result<AccessSecretVersionResponse, Fault> {
        let name = version.name();
        self.send(Action::AccessVersion, |service| {
            service.access_secret_version().set_name(name).send()
        })
        .await
    }

    /// Creates a secret without a value, with all its attributes in one request.
    pub(crate) async fn create(
        &self,
        id: &str,
        config: &Config,
        expires: Option<Timestamp>,
    ) -> Result<Secret, Fault> {
        let mut labels: HashMap<String, String> = config.labels.clone().into_iter().collect();
        if let Some(owner) = &config.owner {
            labels.insert(OWNER_LABEL.to_owned(), owner.to_string());
        }
        let key = config
            .kms_key
            .as_ref()
            .map(|key| CustomerManagedEncryption::new().set_kms_key_name(key));
        let secret = Secret::new().set_labels(labels);
        let secret = match &config.replication {
            Replication::Regional => secret.set_or_clear_customer_managed_encryption(key),
            Replication::Automatic => secret.set_replication(
                SdkReplication::new()
                    .set_automatic(Automatic::new().set_or_clear_customer_managed_encryption(key)),
            ),
            Replication::UserManaged(region) => {
                let replica = Replica::new()
                    .set_location(region.as_str())
                    .set_or_clear_customer_managed_encryption(key);
                secret.set_replication(
                    SdkReplication::new()
                        .set_user_managed(UserManaged::new().set_replicas([replica])),
                )
            }
        };
        let secret = match expires {
            Some(time) => secret.set_expire_time(SdkTimestamp::clamp(time.unix_seconds(), 0)),
            None => secret,
        };
        let (parent, id) = (config.place.parent(), id.to_owned());
        self.send(Action::CreateSecret, |service| {
            service
                .create_secret()
                .set_parent(parent)
                .set_secret_id(id)
                .set_secret(secret)
                .send()
        })
        .await
    }

    /// Adds a version with a value, and a checksum that Google verifies.
    pub(crate) async fn add(
        &self,
        secret: &str,
        value: &SecretValue,
    ) -> Result<SecretVersion, Fault> {
        let secret = secret.to_owned();
        self.send(Action::AddVersion, |service| {
            let data = value.expose().as_bytes();
            let payload = SecretPayload::new()
                .set_data_crc32c(checksum(data))
                .set_data(data.to_vec());
            service
                .add_secret_version()
                .set_parent(secret)
                .set_payload(payload)
                .send()
        })
        .await
    }

    /// The metadata of a version, without its value.
    pub(crate) async fn get_version(&self, version: &Version) -> Result<SecretVersion, Fault> {
        let name = version.name();
        self.send(Action::GetVersion, |service| {
            service.get_secret_version().set_name(name).send()
        })
        .await
    }

    pub(crate) async fn get(&self, secret: &str) -> Result<Secret, Fault> {
        let secret = secret.to_owned();
        self.send(Action::GetSecret, |service| {
            service.get_secret().set_name(secret).send()
        })
        .await
    }

    pub(crate) async fn delete(&self, secret: &str) -> Result<(), Fault> {
        let secret = secret.to_owned();
        self.send(Action::DeleteSecret, |service| {
            service.delete_secret().set_name(secret).send()
        })
        .await
    }

    pub(crate) async fn list(
        &self,
        filter: &str,
        page_size: i32,
        after: Option<&str>,
    ) -> Result<ListSecretsResponse, Fault> {
        let parent = self.place.parent();
        self.send(Action::ListSecrets, |service| {
            service
                .list_secrets()
                .set_parent(parent)
                .set_filter(filter)
                .set_page_size(page_size)
                .set_page_token(after.unwrap_or_default())
                .send()
        })
        .await
    }

    /// Our identity, after checking that there are credentials.
    pub(crate) async fn principal(&self) -> Result<String, Error> {
        self.credentials.current().await?;
        Ok(self.credentials.principal())
    }

    /// The error for a failed request, with the advice of the policy table if a permission is
    /// missing.
    pub(crate) fn explain(&self, fault: &Fault, operation: Operation, resource: &str) -> Error {
        fault
            .explain(&self.host, |permission| {
                Denial {
                    action: fault.action,
                    place: &self.place,
                    resource,
                    permission,
                }
                .advice()
            })
            .with_operation(operation)
    }

    async fn send<O, F>(
        &self,
        action: Action,
        request: impl FnOnce(&SecretManagerService) -> F,
    ) -> Result<O, Fault>
    where
        F: Future<Output = Result<O, SdkError>>,
    {
        let started = Instant::now();
        // Loads credentials before the SDK does, because the SDK would wrap the error that lists
        // the sources.
        let credentials = self
            .credentials
            .current()
            .await
            .map_err(|error| Fault::new(action, Nature::Credentials(Box::new(error))))?;
        let service = self
            .service()
            .await
            .map_err(|nature| Fault::new(action, nature))?;
        let result = timeout(REQUEST_TIMEOUT, quiet(request(service))).await;
        let elapsed = started.elapsed();
        let mut fault = match result {
            Ok(Ok(answer)) => {
                debug!(action = action.as_str(), ?elapsed, "answered");
                return Ok(answer);
            }
            Ok(Err(error)) => Fault::from_sdk(action, &error),
            Err(_) => Fault::new(action, Nature::TimedOut),
        };
        if fault.is(ErrorKind::Unauthenticated) {
            fault.failure.new_credentials = self.credentials.refused(&credentials).await;
        }
        debug!(action = action.as_str(), ?elapsed, %fault, "failed");
        Err(fault)
    }

    async fn service(&self) -> Result<&SecretManagerService, Nature> {
        self.service
            .get_or_try_init(|| async {
                let builder = SecretManagerService::builder()
                    .with_endpoint(&self.endpoint)
                    .with_credentials(self.credentials.clone())
                    .with_retry_policy(NeverRetry)
                    .with_attempt_timeout(REQUEST_TIMEOUT);
                // The only way there is, though the SDK does not document it: a redirect would take
                // a value along to the host it names.
                let built = quiet(with_follow_redirects(builder, false).build()).await;
                built.map_err(|_| Nature::Unbuildable)
            })
            .await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("host", &self.host)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value in the algorithm's definition.
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(b""), 0);
    }

    #[test]
    fn the_endpoint_is_the_regions_where_secrets_are_regional() {
        let endpoint = |replication| {
            let settings = crate::SETTINGS.from_pairs([
                ("project-id", "my-project"),
                ("region", "europe-west3"),
                ("replication", replication),
            ]);
            let config = Config::from_settings(&settings.unwrap()).unwrap();
            Client::new(&config).endpoint
        };
        assert_eq!(
            endpoint("regional"),
            "https://secretmanager.europe-west3.rep.googleapis.com"
        );
        assert_eq!(
            endpoint("user-managed"),
            "https://secretmanager.googleapis.com"
        );
    }
}
