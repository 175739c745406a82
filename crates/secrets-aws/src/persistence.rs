//! Implements the trait: batches, comparisons, and the states after a delete.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use aws_sdk_secretsmanager::primitives::DateTime;
use aws_sdk_secretsmanager::types::Tag;
use futures::future::join_all;
use parking_lot::Mutex;
use secret_persistence_core::layer::{ClassLimit, LimitOptions};
use secret_persistence_core::{
    Capabilities, Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry,
    Identity, ListOptions, Listing, ManagedCoordinate, Operation, Page, Read, Result,
    SecretPersistence, SecretValue, Timestamp, Write, Written,
};
use tokio::time::Instant;

use crate::client::Client;
use crate::config::{Config, Deletion, EXPIRES_TAG, OWNER_TAG, TAG_VALUE};
use crate::error::Fault;
use crate::naming;
use crate::policy::Action;
use crate::reading::{MAX_BATCH, Unread};

/// The largest value.
/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>
const MAX_VALUE_BYTES: usize = 65_536;

/// The maximum number of entries per page.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html>
const MAX_PAGE: usize = 100;

/// A [`SecretPersistence`] in AWS Secrets Manager.
///
/// # Requests
/// A read of up to 20 secrets is one `BatchGetSecretValue`. A read of one secret is a
/// `GetSecretValue`, which needs one permission fewer and has a hundred times the quota. Other
/// requests only find out what happened: a `DescribeSecret` for each name whose state AWS refuses,
/// a `GetSecretValue` for each name that a batch could not return, and one to compare after a
/// create found that the name exists. [`Capabilities::cost`] counts them all: a batch of 20 that is
/// denied, with all secrets in a bad state, is 41 requests, sent concurrently in three rounds.
#[derive(Debug)]
pub struct AwsSecretsManager {
    pub(crate) client: Client,
    pub(crate) config: Config,
    /// Batches are not tried until then.
    pub(crate) batch_denied_until: Mutex<Option<Instant>>,
}

impl AwsSecretsManager {
    /// Opens the store. Sends no request; credentials are loaded when they are needed.
    ///
    /// # Errors
    /// None today. Every backend opens with this method, and some ask their store.
    pub async fn connect(config: Config) -> Result<Self> {
        Ok(Self {
            client: Client::new(&config),
            config,
            batch_denied_until: Mutex::default(),
        })
    }

    /// The documented quotas of an account in a region, for the limit layer. Take a share of them
    /// if the account has other users.
    ///
    /// The layer counts the minimum number of requests of a call, so each rate is a quota as AWS
    /// documents it: 10,000 `GetSecretValue` and 100 `BatchGetSecretValue` a second, so that a
    /// batch counts as a hundred single reads; 50 `CreateSecret` (as many as `DeleteSecret` and
    /// `RestoreSecret`, which share the class) and 100 `ListSecrets`.
    /// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>
    #[must_use]
    pub fn quotas() -> LimitOptions {
        let class = |concurrency, per_second| ClassLimit {
            concurrency,
            per_second,
        };
        LimitOptions::default()
            .with_batch_weight(100)
            .with_read(class(64, 10_000.0))
            .with_write(class(32, 50.0))
            .with_list(class(8, 100.0))
    }

    async fn delete_one(
        &self,
        coordinate: &ManagedCoordinate,
        options: &DeleteOptions,
    ) -> Result<()> {
        let deletion = Deletion::of(options.recovery, self.config.deletion).map_err(|error| {
            error
                .with_operation(Operation::Delete)
                .with_store(self.to_string())
                .with_coordinate(coordinate.shared())
        })?;
        let Err(fault) = self.client.delete(coordinate.as_str(), deletion).await else {
            return Ok(());
        };
        match self.state(coordinate.as_str(), &fault).await {
            State::Missing => Ok(()),
            State::Pending if fault.is_invalid_request() => Ok(()),
            State::Replicated if !fault.is_denied() => Err(Error::new(
                ErrorKind::Conflict,
                "the secret has replicas in other regions, which must be removed before it can be deleted",
            )
            .with_retryable(false)
            .with_hint(
                "remove them first (`aws secretsmanager remove-regions-from-replication`), or \
                 ask their creator to do so",
            )
            .with_operation(Operation::Delete)
            .with_store(self.to_string())
            .with_coordinate(coordinate.shared())
            .with_source(fault)),
            _ => Err(self.fault(&fault, Operation::Delete, coordinate)),
        }
    }

    async fn write_one(&self, write: &Write) -> Result<Written> {
        let name = write.coordinate.as_str();
        let fail = |error: Error| {
            error
                .with_operation(Operation::Write)
                .with_store(self.to_string())
                .with_coordinate(write.coordinate.shared())
        };
        self.capabilities().accepts(write).map_err(fail)?;
        let mut tags = self.config.tags.clone();
        if let Some(owner) = &self.config.owner {
            tags.insert(OWNER_TAG.to_owned(), owner.to_string());
        }
        if let Some(expires) = write.expires {
            tags.insert(EXPIRES_TAG.to_owned(), expires.to_string());
        }
        let created = self
            .client
            .create(
                name,
                &write.value,
                &self.config.description,
                self.config.kms_key.as_deref(),
                &tags,
            )
            .await;
        match created {
            Ok(()) => Ok(Written::Created),
            Err(fault) if fault.is(ErrorKind::AlreadyExists) => {
                self.compare(name, &write.value).await.map_err(fail)
            }
            // A new secret refers to nothing that could be missing. This is the previous secret of
            // the name, whose deletion without recovery is still in progress.
            Err(fault) if fault.is(ErrorKind::NotFound) && self.config.kms_key.is_none() => {
                Err(fail(changing(fault)))
            }
            Err(fault) => match self.diagnose(name, fault).await {
                // The deletion was scheduled a moment ago and has completed: the name will soon be
                // free.
                Unread::Refused(gone)
                    if gone.action == Action::DescribeSecret && gone.is(ErrorKind::NotFound) =>
                {
                    Err(fail(changing(gone)))
                }
                unread => Err(fail(self.explain(&unread, Operation::Write, name))),
            },
        }
    }

    /// Compares with the existing value: an earlier attempt of the same write, or another value.
    async fn compare(&self, name: &str, value: &SecretValue) -> Result<Written> {
        match self.client.get(name).await {
            Ok(stored) => {
                let stored = stored.secret_string.map(SecretValue::new);
                if stored.as_ref() == Some(value) {
                    return Ok(Written::AlreadySame);
                }
                Err(Error::new(
                    ErrorKind::AlreadyExists,
                    "the name already has another value",
                )
                .with_hint("use a new coordinate for a new value"))
            }
            // The secret cannot be read: it is scheduled for deletion, or was deleted meanwhile.
            Err(fault) if fault.is(ErrorKind::NotFound) || fault.is_invalid_request() => {
                let unread = match self.client.describe(name).await {
                    Ok(secret) if secret.deleted_date.is_some() => {
                        Unread::Pending { confirmed: true }
                    }
                    // According to AWS's documentation, reads are refused for no other state.
                    Err(described) if described.is_denied() && fault.is_invalid_request() => {
                        Unread::Pending { confirmed: false }
                    }
                    Err(described)
                        if !described.is_denied() && !described.is(ErrorKind::NotFound) =>
                    {
                        Unread::Refused(described)
                    }
                    _ => return Err(changing(fault)),
                };
                Err(self.explain(&unread, Operation::Write, name))
            }
            Err(fault) => Err(self.explain(&Unread::Refused(fault), Operation::Write, name)),
        }
    }

    /// The state of a name that AWS refused to change, because of its state or because of a missing
    /// tag.
    async fn state(&self, name: &str, fault: &Fault) -> State {
        let tagless = self.config.tag_key.is_some() && fault.is_denied();
        if fault.is(ErrorKind::NotFound) {
            return State::Missing;
        }
        // AWS documents both codes for a secret that cannot be deleted because of its replicas.
        let refuses_state = fault.is_invalid_request() || fault.has("InvalidParameterException");
        if !refuses_state && !tagless {
            return State::Unknown;
        }
        match self.client.describe(name).await {
            Ok(secret) if secret.deleted_date.is_some() => State::Pending,
            Ok(secret) if !secret.replication_status().is_empty() => State::Replicated,
            Ok(_) => State::Readable,
            Err(described) if described.is(ErrorKind::NotFound) => State::Missing,
            Err(_) => State::Unknown,
        }
    }

    fn fault(&self, fault: &Fault, operation: Operation, name: &ManagedCoordinate) -> Error {
        self.client
            .explain(fault, &self.config, operation, Some(name.as_str()))
            .with_store(self.to_string())
            .with_coordinate(name.shared())
    }

    fn entry(&self, coordinate: ManagedCoordinate, facts: Facts) -> Entry {
        let tags: BTreeMap<String, String> = facts
            .tags
            .unwrap_or_default()
            .into_iter()
            .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
            .collect();
        Entry::new(coordinate)
            .with_owner(tags.get(OWNER_TAG).cloned())
            .with_created(facts.created.and_then(timestamp))
            // A tag that someone has changed into something invalid is ignored: such a secret is
            // never swept.
            .with_expires(tags.get(EXPIRES_TAG).and_then(|text| text.parse().ok()))
            .with_pending_deletion(facts.deleted.is_some())
            .with_key(facts.key)
            .with_tags(tags)
    }
}

/// Shows `aws` and the region, never a credential.
impl fmt::Display for AwsSecretsManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aws {}", self.config.region)
    }
}

#[async_trait]
impl SecretPersistence for AwsSecretsManager {
    fn capabilities(&self) -> Capabilities {
        let batch = if self.batches() { MAX_BATCH } else { 1 };
        Capabilities {
            read_batch: batch,
            write_batch: 1,
            max_value_bytes: MAX_VALUE_BYTES,
            atomic_create: true,
            nul: true,
            owner: true,
            recovery: self.config.deletion != Deletion::Immediate,
            expiry: Expiry::Swept,
            listing: Listing::Eventual,
            cost: cost(batch, self.config.unversioned_names),
            ..Capabilities::LEAST
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let ids: Vec<Result<&str>> = coordinates
            .iter()
            .map(|coordinate| naming::secret_id(coordinate, &self.config.region))
            .collect();
        let valid: Vec<&str> = ids.iter().flatten().copied().collect();
        let mut reads = self.fetch(&valid).await;
        if self.config.unversioned_names {
            let missing: Vec<(usize, ManagedCoordinate)> = coordinates
                .iter()
                .zip(&ids)
                .filter(|(_, id)| id.is_ok())
                .zip(&reads)
                .enumerate()
                .filter(|(_, (_, read))| matches!(read, Err(unread) if unread.is_missing()))
                .filter_map(|(at, ((coordinate, _), _))| Some((at, coordinate.managed()?.clone())))
                .collect();
            let bases: Vec<&str> = missing
                .iter()
                .map(|(_, coordinate)| coordinate.base())
                .collect();
            for ((at, _), read) in missing.iter().zip(self.fetch(&bases).await) {
                reads[*at] = read;
            }
        }
        let mut reads = reads.into_iter();
        coordinates
            .iter()
            .zip(ids)
            .map(|(coordinate, id)| {
                let id = id.map_err(|error| {
                    error
                        .with_operation(Operation::Read)
                        .with_store(self.to_string())
                })?;
                // `fetch` returns one result per id, and it received the valid ones.
                match reads.next().unwrap_or(Err(Unread::Confused)) {
                    Ok(value) => Ok(Read::new(value)),
                    Err(unread) => Err(self
                        .explain(&unread, Operation::Read, id)
                        .with_coordinate(coordinate.shared())),
                }
            })
            .collect()
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        join_all(writes.iter().map(|write| self.write_one(write))).await
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        join_all(
            coordinates
                .iter()
                .map(|coordinate| self.delete_one(coordinate, options)),
        )
        .await
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let Err(fault) = self.client.restore(coordinate.as_str()).await else {
            return Ok(());
        };
        match self.state(coordinate.as_str(), &fault).await {
            State::Readable | State::Replicated if fault.is_invalid_request() => Ok(()),
            State::Missing => Err(Error::new(
                ErrorKind::NotFound,
                "the store does not have a secret of this name",
            )
            .with_operation(Operation::Restore)
            .with_store(self.to_string())
            .with_coordinate(coordinate.shared())
            .with_source(fault)),
            _ => Err(self.fault(&fault, Operation::Restore, coordinate)),
        }
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        if !naming::is_name_prefix(&options.prefix) {
            return Ok(Page::default());
        }
        let page_size = options.page_size.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let answer = self
            .client
            .list(
                &options.prefix,
                self.config.tag_key.as_deref(),
                options.deleted,
                i32::try_from(page_size).unwrap_or(1),
                after.map(Cursor::as_str),
            )
            .await
            .map_err(|fault| {
                self.client
                    .explain(&fault, &self.config, Operation::List, None)
                    .with_store(self.to_string())
            })?;
        let mut page = Page::new(Vec::new(), answer.next_token.map(Cursor::new));
        for secret in answer.secret_list.unwrap_or_default() {
            // AWS filters by prefixes of names and tag keys, with a delay.
            let coordinate = secret
                .name
                .as_deref()
                .filter(|name| name.starts_with(&options.prefix))
                .and_then(|name| ManagedCoordinate::parse(name).ok());
            let Some(coordinate) = coordinate else {
                page.skipped += 1;
                continue;
            };
            let entry = self.entry(
                coordinate,
                Facts {
                    tags: secret.tags,
                    created: secret.created_date,
                    deleted: secret.deleted_date,
                    key: secret.kms_key_id,
                },
            );
            let is_ours = self
                .config
                .tag_key
                .as_ref()
                .is_none_or(|key| entry.tags.get(key).is_some_and(|value| value == TAG_VALUE));
            if !is_ours {
                page.skipped += 1;
            } else if options.deleted || !entry.pending_deletion {
                page.entries.push(entry);
            }
        }
        Ok(page)
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let secret = self
            .client
            .describe(coordinate.as_str())
            .await
            .map_err(|fault| self.fault(&fault, Operation::Describe, coordinate))?;
        Ok(self.entry(
            coordinate.clone(),
            Facts {
                tags: secret.tags,
                created: secret.created_date,
                deleted: secret.deleted_date,
                key: secret.kms_key_id,
            },
        ))
    }

    async fn identity(&self) -> Result<Identity> {
        let caller = self.client.caller().await.map_err(|fault| {
            self.client
                .explain(&fault, &self.config, Operation::Identity, None)
                .with_store(self.to_string())
        })?;
        let unknown = || "unknown".to_owned();
        Ok(Identity::new(
            "aws",
            caller.arn.unwrap_or_else(unknown),
            format!(
                "account {} region {}",
                caller.account.unwrap_or_else(unknown),
                self.config.region
            ),
        ))
    }
}

/// The state of a name that could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Pending,
    Readable,
    /// Readable, with replicas in other regions.
    Replicated,
    Unknown,
}

/// The error for a name whose state is changing. A retry sees the result.
fn changing(fault: Fault) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the secret is being created or deleted concurrently",
    )
    .with_hint("try again")
    .with_source(fault)
}

/// The attributes of a secret besides its name and value.
struct Facts {
    tags: Option<Vec<Tag>>,
    created: Option<DateTime>,
    deleted: Option<DateTime>,
    key: Option<String>,
}

fn timestamp(time: DateTime) -> Option<Timestamp> {
    Timestamp::from_unix_seconds(time.secs()).ok()
}

/// The maximum number of requests per operation; [`AwsSecretsManager`] lists them.
fn cost(batch: usize, unversioned: bool) -> Cost {
    let ids = u32::try_from(batch).unwrap_or(1);
    // The worst case per id: a single read that fails because of the secret's state, and a request
    // for that state. With unversioned names, a read that finds nothing precedes them. In addition
    // the batches: one, or two for the two names, which a batch of two ids must also cover.
    let read = match (batch, unversioned) {
        (1, false) => 2,
        (1, true) => 3,
        (_, false) => 1 + 2 * ids,
        (_, true) => 4 * ids,
    };
    Cost {
        read,
        // A create, a read to compare, and a request for the state of a secret that cannot be read.
        write: 3,
        delete: 2,
        restore: 2,
        list: 1,
        list_detail: 0,
        describe: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_lets_as_many_calls_through_as_aws_does() {
        let quotas = AwsSecretsManager::quotas();
        let batches = quotas.read.per_second / f64::from(quotas.batch_weight);
        assert_eq!((batches, quotas.read.per_second), (100.0, 10_000.0));
        assert_eq!(quotas.write.per_second, 50.0);
        assert_eq!(quotas.list.per_second, 100.0);
    }

    #[test]
    fn cost_counts_the_worst_case() {
        assert_eq!(cost(20, false).read, 41);
        assert_eq!(cost(1, false).read, 2);
        assert_eq!(cost(1, true).read, 3);
        for unversioned in [false, true] {
            let store = Capabilities {
                read_batch: MAX_BATCH,
                cost: cost(MAX_BATCH, unversioned),
                ..Capabilities::LEAST
            };
            let (batches, per_id) = if unversioned { (2, 3) } else { (1, 2) };
            assert!(store.read_cost(1) >= per_id);
            for (entries, ids) in (2..=MAX_BATCH).zip(2..) {
                assert!(store.read_cost(entries) >= batches + per_id * ids);
            }
        }
    }
}
