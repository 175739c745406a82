//! The trait on top of the client: batches, comparisons, and what deletion leaves behind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_secretsmanager::primitives::DateTime;
use aws_sdk_secretsmanager::types::Tag;
use futures::future::join_all;
use secrets_core::{
    Capabilities, Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry,
    Identity, ListOptions, Listing, ManagedCoordinate, Operation, Page, Read, Result,
    SecretPersistence, SecretValue, Timestamp, Write, Written,
};
use tokio::time::Instant;
use tracing::warn;

use crate::client::Client;
use crate::config::{Config, Deletion, EXPIRES_TAG, OWNER_TAG, TAG_VALUE};
use crate::error::Fault;
use crate::naming;
use crate::policy::Action;

/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_BatchGetSecretValue.html>
const MAX_BATCH: usize = 20;

/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html>
const MAX_VALUE_BYTES: usize = 65_536;

/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_ListSecrets.html>
const MAX_PAGE: usize = 100;

/// How long batches are not tried again where they were denied: policies change seldom.
const BATCH_DENIED_FOR: Duration = Duration::from_secs(600);

/// Said once per process: the denial is a matter of the installation, not of one store.
static BATCH_WARNING: AtomicBool = AtomicBool::new(false);

/// A [`SecretPersistence`] in AWS Secrets Manager.
///
/// # Requests
/// A read of up to 20 secrets is one `BatchGetSecretValue`; a read of one is a `GetSecretValue`,
/// which needs one right less and has a hundred times the quota. More requests are made only to
/// tell people what happened: a `DescribeSecret` for each name whose state AWS refuses, a
/// `GetSecretValue` for each name that a batch could not answer, one for comparing after a create
/// found the name taken. [`Capabilities::cost`] counts them all.
#[derive(Debug)]
pub struct AwsSecretsManager {
    client: Client,
    config: Config,
    /// Until when batches are not tried.
    batch_denied_until: Mutex<Option<Instant>>,
}

impl AwsSecretsManager {
    /// Sets the store up. No request is made, and credentials are looked for when they are needed.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            client: Client::new(&config),
            config,
            batch_denied_until: Mutex::default(),
        }
    }

    fn batches(&self) -> bool {
        let until = self
            .batch_denied_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| Instant::now() >= until)
    }

    fn deny_batches(&self) {
        *self
            .batch_denied_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + BATCH_DENIED_FOR);
        if !BATCH_WARNING.swap(true, Ordering::Relaxed) {
            warn!(
                store = %self,
                "the principal may not do secretsmanager:BatchGetSecretValue: secrets are read one \
                 by one, which is slower; `migrate policy aws` prints the policy that allows it"
            );
        }
    }

    /// Reads ids of any number, each with its own result; every id once.
    async fn fetch(&self, ids: &[&str]) -> Vec<Result<SecretValue, Unread>> {
        if ids.len() > 1 && self.batches() {
            let chunks = ids.chunks(MAX_BATCH).map(|chunk| self.fetch_batch(chunk));
            return join_all(chunks).await.into_iter().flatten().collect();
        }
        join_all(ids.iter().map(|id| self.fetch_one(id))).await
    }

    async fn fetch_one(&self, id: &str) -> Result<SecretValue, Unread> {
        match self.client.get(id).await {
            Ok(answer) if naming::answers(id, answer.name.as_deref(), answer.arn.as_deref()) => {
                value(answer.secret_string, answer.secret_binary.is_some())
            }
            Ok(_) => Err(Unread::Confused),
            Err(fault) => Err(self.look_closer(id, fault).await),
        }
    }

    async fn fetch_batch(&self, ids: &[&str]) -> Vec<Result<SecretValue, Unread>> {
        let asked = ids.iter().map(|&id| id.to_owned()).collect();
        let mut answer = match self.client.get_batch(asked).await {
            Ok(answer) => answer,
            Err(fault) => return self.fetch_despite(ids, fault).await,
        };
        let values = answer.secret_values.take().unwrap_or_default();
        let errors = answer.errors.take().unwrap_or_default();
        let mut found: Vec<Option<Result<SecretValue, Unread>>> = vec![None; ids.len()];
        for entry in values {
            let place = |id: &str| naming::answers(id, entry.name.as_deref(), entry.arn.as_deref());
            let read = value(entry.secret_string, entry.secret_binary.is_some());
            // A name and its ARN may both be asked for.
            for (slot, _) in found.iter_mut().zip(ids).filter(|(_, id)| place(id)) {
                *slot = Some(read.clone());
            }
        }
        for error in errors {
            let fault = Fault::of_entry(error.error_code());
            for (slot, _) in found
                .iter_mut()
                .zip(ids)
                .filter(|(slot, id)| slot.is_none() && error.secret_id() == Some(**id))
            {
                *slot = Some(Err(Unread::Refused(fault.clone())));
            }
        }
        // What a batch leaves out (a page ended, an id came back in another spelling) and what it
        // refuses for the state of the secret gets a request of its own.
        join_all(found.into_iter().zip(ids).map(|(slot, &id)| async move {
            match slot {
                None => self.fetch_one(id).await,
                Some(Err(Unread::Refused(fault))) => Err(self.look_closer(id, fault).await),
                Some(read) => read,
            }
        }))
        .await
    }

    /// A batch that failed as a whole: read one by one where that may help, and only there.
    async fn fetch_despite(&self, ids: &[&str], fault: Fault) -> Vec<Result<SecretValue, Unread>> {
        let denied = fault.is_denied();
        // One secret whose key or state is refused must not take the others with it.
        let of_one = matches!(
            fault.code(),
            Some(
                "DecryptionFailure"
                    | "InvalidParameterException"
                    | "InvalidRequestException"
                    | "ResourceNotFoundException"
            )
        );
        if !denied && !of_one {
            return ids
                .iter()
                .map(|_| Err(Unread::Refused(fault.clone())))
                .collect();
        }
        let reads = join_all(ids.iter().map(|id| self.fetch_one(id))).await;
        // Precisely batches are denied if single reads are not; else everything is.
        let alone = reads.iter().any(|read| match read {
            Err(Unread::Refused(fault)) => {
                fault.is(ErrorKind::NotFound) || fault.is_invalid_request()
            }
            _ => true,
        });
        if denied && alone {
            self.deny_batches();
        }
        reads
    }

    /// Asks what the secret says of itself, where AWS answers different things under one code: a
    /// scheduled deletion is refused like any other state; and where rights are scoped by tag, what
    /// is missing has no tag and is denied like what belongs to others.
    async fn look_closer(&self, id: &str, fault: Fault) -> Unread {
        let tagless = self.config.tag_key.is_some()
            && fault.is_denied()
            && fault.action == Action::GetSecretValue;
        if !fault.is_invalid_request() && !tagless {
            return Unread::Refused(fault);
        }
        match self.client.describe(id).await {
            Ok(secret) if secret.deleted_date.is_some() && !tagless => {
                Unread::Pending { confirmed: true }
            }
            Ok(_) => Unread::Refused(fault),
            // Reading is refused for no other state than this one, as far as AWS documents it.
            Err(described) if described.is_denied() && !tagless => {
                Unread::Pending { confirmed: false }
            }
            Err(described) if described.is_denied() => Unread::Refused(fault),
            Err(described) => Unread::Refused(described),
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
            Err(fault) => {
                let unread = self.look_closer(name, fault).await;
                Err(fail(self.explain(&unread, Operation::Write, name)))
            }
        }
    }

    /// The name is taken: by an earlier attempt at this very write, or by another value.
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
                .with_hint("a new value needs a new coordinate"))
            }
            // Taken a moment ago, and now gone or going: whoever comes again sees which.
            Err(fault) if fault.is(ErrorKind::NotFound) || fault.is_invalid_request() => {
                Err(Error::new(
                    ErrorKind::Conflict,
                    "somebody else was creating or deleting the secret",
                )
                .with_hint("try again")
                .with_source(fault))
            }
            Err(fault) => Err(self.explain(&Unread::Refused(fault), Operation::Write, name)),
        }
    }

    /// What a name is, where AWS refused to change it: for its state, or for the tag it has not.
    async fn state(&self, name: &str, fault: &Fault) -> State {
        let tagless = self.config.tag_key.is_some() && fault.is_denied();
        if fault.is(ErrorKind::NotFound) {
            return State::Missing;
        }
        if !fault.is_invalid_request() && !tagless {
            return State::Unknown;
        }
        match self.client.describe(name).await {
            Ok(secret) if secret.deleted_date.is_some() => State::Pending,
            Ok(_) => State::Readable,
            Err(described) if described.is(ErrorKind::NotFound) => State::Missing,
            Err(_) => State::Unknown,
        }
    }

    fn explain(&self, unread: &Unread, operation: Operation, name: &str) -> Error {
        let error = match unread {
            Unread::Binary => Error::new(
                ErrorKind::Unsupported,
                "the secret is binary, and only text is supported",
            )
            .with_hint("store it as SecretString, base64 for example"),
            Unread::Confused => Error::new(
                ErrorKind::Unexpected,
                "another secret than the one asked for was answered",
            )
            .with_hint("look at endpoint-url; refer to the secret by its whole ARN"),
            Unread::Empty => Error::new(
                ErrorKind::Unexpected,
                "the answer has neither text nor bytes",
            )
            .with_hint("look at endpoint-url"),
            Unread::Pending { confirmed } => Error::new(
                ErrorKind::PendingDeletion,
                "the secret is scheduled for deletion",
            )
            .with_hint(if *confirmed {
                "restore it, or wait until the recovery window has passed"
            } else {
                "most probably: that could not be confirmed without the right to \
                 secretsmanager:DescribeSecret"
            }),
            Unread::Refused(fault) => {
                return self
                    .client
                    .explain(fault, &self.config, operation, Some(name))
                    .with_store(self.to_string());
            }
        };
        error.with_operation(operation).with_store(self.to_string())
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
            // A tag that somebody has edited into something else says nothing: never swept.
            .with_expires(tags.get(EXPIRES_TAG).and_then(|text| text.parse().ok()))
            .with_pending_deletion(facts.deleted.is_some())
            .with_key(facts.key)
            .with_tags(tags)
    }
}

/// `aws` and the region; never a credential.
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
                // `fetch` answers as many as it was asked for, and was asked for the valid ones.
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

    async fn delete(&self, coordinate: &ManagedCoordinate, options: &DeleteOptions) -> Result<()> {
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
            _ => Err(self.fault(&fault, Operation::Delete, coordinate)),
        }
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let Err(fault) = self.client.restore(coordinate.as_str()).await else {
            return Ok(());
        };
        match self.state(coordinate.as_str(), &fault).await {
            State::Readable if fault.is_invalid_request() => Ok(()),
            State::Missing => Err(Error::new(
                ErrorKind::NotFound,
                "the store has nothing under this name",
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
            // AWS filters by the beginning of names and of tag keys, in its own time.
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

/// Why one secret was not read.
#[derive(Clone, Debug)]
enum Unread {
    /// Bytes instead of text.
    Binary,
    /// Another secret was answered.
    Confused,
    /// Neither bytes nor text.
    Empty,
    /// Scheduled for deletion; confirmed by the secret's own dates, or only concluded.
    Pending { confirmed: bool },
    /// AWS said no, or nothing.
    Refused(Fault),
}

impl Unread {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Refused(fault) if fault.is(ErrorKind::NotFound))
    }
}

/// What became of a name that could not be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Pending,
    Readable,
    Unknown,
}

/// What AWS tells about a secret besides its name and value.
struct Facts {
    tags: Option<Vec<Tag>>,
    created: Option<DateTime>,
    deleted: Option<DateTime>,
    key: Option<String>,
}

/// Takes the SDK's text over, without a copy.
fn value(text: Option<String>, has_bytes: bool) -> Result<SecretValue, Unread> {
    match text {
        Some(text) => Ok(SecretValue::new(text)),
        None if has_bytes => Err(Unread::Binary),
        None => Err(Unread::Empty),
    }
}

fn timestamp(time: DateTime) -> Option<Timestamp> {
    Timestamp::from_unix_seconds(time.secs()).ok()
}

/// The most requests per operation: see [`AwsSecretsManager`] for what they are.
fn cost(batch: usize, unversioned: bool) -> Cost {
    let ids = u32::try_from(batch).unwrap_or(1);
    // Per id at worst: a read of its own, which fails for its state, and a look at that state; with
    // unversioned names a read that finds nothing comes before.
    let per_id = if unversioned { 3 } else { 2 };
    let batches = match (batch, unversioned) {
        (1, _) => 0,
        (_, false) => 1,
        (_, true) => 2,
    };
    Cost {
        read: batches + ids * per_id,
        // A create, and a read to compare with or a look at the state.
        write: 2,
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
    fn cost_counts_the_worst_case() {
        assert_eq!(cost(20, false).read, 41);
        assert_eq!(cost(20, true).read, 62);
        assert_eq!(cost(1, false).read, 2);
        assert_eq!(cost(1, true).read, 3);
    }

    #[test]
    fn values_are_taken_over_and_bytes_refused() {
        let text = "line one\nline two".to_owned();
        let address = text.as_ptr();
        let read = value(Some(text), false).unwrap();
        assert_eq!(read.expose().as_ptr(), address);
        assert!(matches!(value(None, true), Err(Unread::Binary)));
        assert!(matches!(value(None, false), Err(Unread::Empty)));
        assert_eq!(value(Some(String::new()), false).unwrap().len(), 0);
    }
}
