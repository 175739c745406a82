//! Implements the trait: batches, deletes, listings, and the attributes of a secret.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use futures::future::join_all;
use google_cloud_secretmanager_v1::model::Secret;
use google_cloud_secretmanager_v1::model::replication::Replication as SdkReplication;
use google_cloud_wkt::Timestamp as SdkTimestamp;
use secret_persistence_core::layer::{ClassLimit, LimitOptions};
use secret_persistence_core::{
    Capabilities, Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry,
    Identity, ListOptions, Listing, ManagedCoordinate, Operation, Page, Read, Result,
    SecretPersistence, Timestamp, Write, Written,
};

use crate::client::Client;
use crate::config::{Config, OWNER_LABEL};
use crate::naming;
use crate::writing::Interrupted;

/// The largest value. <https://cloud.google.com/secret-manager/quotas>
const MAX_VALUE_BYTES: usize = 65_536;

/// The maximum number of entries per page. Google allows more, which take seconds.
const MAX_PAGE: usize = 1_000;

/// The maximum number of concurrent requests, far below the quota for reads.
const CONCURRENCY: usize = 50;

/// The maximum number of requests per operation; [`GoogleSecretManager`] lists them.
const COST: Cost = Cost {
    read: 3,
    write: 5,
    delete: 1,
    restore: 1,
    list: 1,
    list_detail: 0,
    describe: 1,
};

/// A write is always a create and an `addVersion`.
const LEAST: Cost = Cost {
    write: 2,
    ..Cost::ONE
};

/// A [`SecretPersistence`] in Google Secret Manager.
/// # Requests
/// A read is one `access` of the version `latest`; if that is not found, a second one of version 1,
/// because `latest` lags behind a write. A write is a create and an `addVersion`. Other requests
/// only find out what happened, or finish an interrupted write: a read of the metadata of a version
/// whose state prevents access; after a create that found the name taken, a read of `latest`, and
/// of version 1 if that is not sufficient, to compare; the missing `addVersion`; and, if another
/// writer was faster, a read of its version. [`Capabilities::cost`] counts all of them. A write
/// that stopped for a temporary reason continues where it stopped.
///
/// # Two writers
/// Google refuses a second secret of a name, but not a second version of a secret. The next write
/// completes a write whose second step is missing, so two concurrent writes may both add a version.
/// If both have the same value, which is the only case that this library causes, the result is
/// correct. Otherwise, the second one returns `AlreadyExists`, but readers see its value:
/// [`Capabilities::atomic_create`] is false.
#[derive(Debug)]
pub struct GoogleSecretManager {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) interrupted: Interrupted,
}

impl GoogleSecretManager {
    /// Opens the store. Sends no request; credentials are loaded when they are needed.
    ///
    /// # Errors
    /// None today. Every backend opens with this method, and some ask their store.
    pub async fn connect(config: Config) -> Result<Self> {
        Ok(Self {
            client: Client::new(&config),
            config,
            interrupted: Interrupted::default(),
        })
    }

    /// The documented quotas of a project, for the limit layer. Take a share of them if the project
    /// has other users.
    ///
    /// The layer counts the minimum number of requests of a call: 90,000 reads of values a minute,
    /// 600 requests that change something (a write sends two of them), and 600 others.
    /// <https://cloud.google.com/secret-manager/quotas>
    #[must_use]
    pub fn quotas() -> LimitOptions {
        let class = |concurrency, per_minute: u32| ClassLimit {
            concurrency,
            per_second: f64::from(per_minute) / 60.0,
        };
        LimitOptions::default()
            .with_read(class(256, 90_000))
            .with_write(class(64, 600))
            .with_list(class(8, 600))
    }

    async fn delete_one(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let secret = self.config.place.secret(coordinate.as_str());
        self.interrupted.forget(coordinate.as_str());
        match self.client.delete(&secret).await {
            Ok(()) => Ok(()),
            Err(fault) if fault.is(ErrorKind::NotFound) => Ok(()),
            Err(fault) => Err(self
                .client
                .explain(&fault, Operation::Delete, &secret)
                .with_store(self.to_string())
                .with_coordinate(coordinate.shared())),
        }
    }

    async fn write_one(&self, write: &Write) -> Result<Written> {
        let fail = |error: Error| {
            error
                .with_operation(Operation::Write)
                .with_store(self.to_string())
                .with_coordinate(write.coordinate.shared())
        };
        self.capabilities().accepts(write).map_err(fail)?;
        self.write_attempt(write).await.map_err(fail)
    }

    async fn read_one(&self, coordinate: &Coordinate) -> Result<Read> {
        let fail = |error: Error| {
            error
                .with_operation(Operation::Read)
                .with_store(self.to_string())
                .with_coordinate(coordinate.shared())
        };
        let version = self.config.place.version(coordinate).map_err(fail)?;
        match self.fetch(&version).await {
            Ok(found) => Ok(Read::new(found.value)),
            Err(unread) => Err(fail(self.explain(&unread, Operation::Read, &version))),
        }
    }
}

/// Shows `gcp`, the project and the region, never a credential.
impl fmt::Display for GoogleSecretManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gcp {}", self.config.place.project)?;
        match &self.config.place.region {
            None => Ok(()),
            Some(region) => write!(f, "/{region}"),
        }
    }
}

#[async_trait]
impl SecretPersistence for GoogleSecretManager {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            concurrency: CONCURRENCY,
            max_value_bytes: MAX_VALUE_BYTES,
            nul: true,
            owner: true,
            expiry: Expiry::Enforced,
            listing: Listing::Eventual,
            cost: COST,
            least: LEAST,
            ..Capabilities::LEAST
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        join_all(coordinates.iter().map(|name| self.read_one(name))).await
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        join_all(writes.iter().map(|write| self.write_one(write))).await
    }

    /// Deletes immediately, whatever the options: Google cannot restore a deleted secret.
    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        _: &DeleteOptions,
    ) -> Vec<Result<()>> {
        join_all(
            coordinates
                .iter()
                .map(|coordinate| self.delete_one(coordinate)),
        )
        .await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "Google cannot restore a deleted secret",
        )
        .with_hint("write the value again, from a backup or another store")
        .with_operation(Operation::Restore)
        .with_store(self.to_string())
        .with_coordinate(coordinate.shared()))
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        if !naming::is_name_prefix(&options.prefix) {
            return Ok(Page::default());
        }
        // <https://cloud.google.com/secret-manager/docs/filtering>: names that contain the text.
        let filter = if options.prefix.is_empty() {
            String::new()
        } else {
            format!("name:{}", options.prefix)
        };
        let page_size = options.page_size.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let answer = self
            .client
            .list(
                &filter,
                i32::try_from(page_size).unwrap_or(1),
                after.map(Cursor::as_str),
            )
            .await
            .map_err(|fault| {
                self.client
                    .explain(&fault, Operation::List, &self.config.place.parent())
                    .with_store(self.to_string())
            })?;
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty());
        let mut page = Page::new(Vec::new(), next.map(Cursor::new));
        for secret in answer.secrets {
            let coordinate =
                naming::id(&secret.name).and_then(|id| ManagedCoordinate::parse(id).ok());
            match coordinate {
                Some(coordinate) if coordinate.as_str().starts_with(&options.prefix) => {
                    page.entries.push(entry(coordinate, &secret));
                }
                // A managed name without the requested prefix: the filter finds the text anywhere
                // in a name.
                Some(_) => {}
                None => page.skipped += 1,
            }
        }
        Ok(page)
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let name = self.config.place.secret(coordinate.as_str());
        let secret = self.client.get(&name).await.map_err(|fault| {
            self.client
                .explain(&fault, Operation::Describe, &name)
                .with_store(self.to_string())
                .with_coordinate(coordinate.shared())
        })?;
        Ok(entry(coordinate.clone(), &secret))
    }

    /// Returns the identity in the credentials, after getting a token. Secret Manager has no
    /// request for the identity of the caller.
    async fn identity(&self) -> Result<Identity> {
        let principal = self.client.principal().await.map_err(|error| {
            error
                .with_operation(Operation::Identity)
                .with_store(self.to_string())
        })?;
        Ok(Identity::new(
            "gcp",
            principal,
            self.config.place.to_string(),
        ))
    }
}

fn entry(coordinate: ManagedCoordinate, secret: &Secret) -> Entry {
    let labels: BTreeMap<String, String> = secret
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Entry::new(coordinate)
        .with_owner(labels.get(OWNER_LABEL).cloned())
        .with_created(secret.create_time.as_ref().and_then(timestamp))
        .with_expires(secret.expire_time().and_then(|time| timestamp(time)))
        .with_key(key(secret))
        .with_tags(labels)
}

/// The customer-managed key. Its field depends on the form of the secret.
fn key(secret: &Secret) -> Option<String> {
    let of_replication = || match secret.replication.as_ref()?.replication.as_ref()? {
        SdkReplication::Automatic(automatic) => automatic.customer_managed_encryption.as_ref(),
        SdkReplication::UserManaged(managed) => managed
            .replicas
            .iter()
            .find_map(|replica| replica.customer_managed_encryption.as_ref()),
        _ => None,
    };
    secret
        .customer_managed_encryption
        .as_ref()
        .or_else(of_replication)
        .map(|encryption| encryption.kms_key_name.clone())
}

fn timestamp(time: &SdkTimestamp) -> Option<Timestamp> {
    Timestamp::from_unix_seconds(time.seconds()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_lets_as_many_calls_through_as_google_does() {
        let quotas = GoogleSecretManager::quotas();
        let calls = |class: ClassLimit, least: u32| class.per_second / f64::from(least);
        assert_eq!(calls(quotas.read, LEAST.read), 1500.0);
        assert_eq!(calls(quotas.write, LEAST.write), 5.0);
        assert_eq!(calls(quotas.list, LEAST.list), 10.0);
    }
}
