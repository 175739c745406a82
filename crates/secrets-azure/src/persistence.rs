//! Implements the trait: comparisons before every change, and the states after a delete.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use secret_persistence_core::layer::{ClassLimit, LimitOptions};
use secret_persistence_core::{
    Capabilities, Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry,
    Identity, ListOptions, Listing, ManagedCoordinate, OnPending, Operation, Page, Read, Result,
    SecretPersistence, Write, Written,
};
use tokio::time::Instant;
use tracing::warn;

use crate::client::{Client, Facts, MAX_PAGE, Stored, explain};
use crate::config::{COORDINATE_TAG, Config, OWNER_TAG, OnDeleted, Purge};
use crate::error::Fault;
use crate::naming::{SecretName, coordinate_of};
use crate::reading::{check, pending};
use crate::waiting::Readable;

/// The largest value: 25 KB.
/// <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets>
const MAX_VALUE_BYTES: usize = 25_600;

/// How long purges are not tried after a refusal. Roles change rarely, and purge protection cannot
/// be disabled.
const PURGE_DENIED_FOR: Duration = Duration::from_secs(600);

/// A [`SecretPersistence`] in a vault of Azure Key Vault.
///
/// # Requests
/// A read is one `SecretGet`, and one `SecretGetDeleted` if there is no secret, to distinguish a
/// deleted secret from a missing one. Setting a secret always adds a version in Key Vault, so a
/// write is a `SecretGet` and, only if that finds nothing, a `SecretSet`. A delete is a `SecretGet`
/// to check the owner, and a `SecretDelete`. Purges and recoveries poll the secret until its state
/// has changed or the deadline has passed. [`Capabilities::cost`] counts all of them, but only the
/// first two polls of a wait, which become as rare as one in four seconds. The vault answers the
/// first request of a client with a challenge; the client logs in and repeats it.
///
/// Two callers that write the same new name at the same time may both succeed, and reads then
/// return the newer value: Key Vault cannot refuse the second write
/// ([`Capabilities::atomic_create`]).
#[derive(Debug)]
pub struct AzureKeyVault {
    pub(crate) client: Client,
    pub(crate) config: Config,
    /// Purges are not tried until then.
    purge_denied_until: Mutex<Option<Instant>>,
}

impl AzureKeyVault {
    /// Opens the store and reads the certificate file. Sends no request; the store logs in when it
    /// needs to.
    ///
    /// # Errors
    /// `InvalidConfig` if the certificate file cannot be read or does not contain a certificate.
    pub async fn connect(config: Config) -> Result<Self> {
        Ok(Self {
            client: Client::new(&config).await?,
            config,
            purge_denied_until: Mutex::default(),
        })
    }

    /// The documented quotas of a vault, for the limit layer. Take a share of them if the vault has
    /// other users.
    ///
    /// The layer counts the minimum number of requests of a call: 400 a second. A write makes at
    /// least two, one of which creates a secret, and Azure allows 30 of those a second.
    /// <https://learn.microsoft.com/azure/key-vault/general/service-limits>
    #[must_use]
    pub fn quotas() -> LimitOptions {
        let least = least(Purge::Never);
        let class = |concurrency, calls: u32, least: u32| ClassLimit {
            concurrency,
            per_second: f64::from(calls) * f64::from(least),
        };
        LimitOptions::default()
            .with_read(class(64, 400, least.read))
            .with_write(class(32, 30, least.write))
            .with_list(class(8, 400, least.list))
    }

    async fn delete_one(
        &self,
        coordinate: &ManagedCoordinate,
        options: &DeleteOptions,
    ) -> Result<()> {
        let fail = |error: Error| {
            error
                .with_operation(Operation::Delete)
                .with_store(self.to_string())
                .with_coordinate(coordinate.shared())
        };
        let name = SecretName::managed(coordinate);
        let deleted = self.soft_delete(&name, coordinate).await.map_err(fail)?;
        if self.config.purge.applies(options.recovery) && self.purges() {
            self.purge(&name, coordinate, deleted).await.map_err(fail)?;
        }
        Ok(())
    }

    async fn write_one(&self, write: &Write) -> Result<Written> {
        let fail = |error: Error| {
            error
                .with_operation(Operation::Write)
                .with_store(self.to_string())
                .with_coordinate(write.coordinate.shared())
        };
        self.capabilities().accepts(write).map_err(fail)?;
        let name = SecretName::managed(&write.coordinate);
        match self.client.get(&name).await {
            Ok(stored) => return compare(write, &stored).map_err(fail),
            Err(fault) if fault.is_missing() => {}
            Err(fault) => return Err(fail(fault.explain(&self.config))),
        }
        let Err(fault) = self.set(&name, write).await else {
            return Ok(Written::Created);
        };
        self.write_over_deleted(&name, write, fault)
            .await
            .map_err(fail)
    }

    pub(crate) async fn set(&self, name: &SecretName, write: &Write) -> Result<(), Fault> {
        let mut tags = self.config.tags.clone();
        tags.insert(COORDINATE_TAG.to_owned(), write.coordinate.to_string());
        if let Some(owner) = &self.config.owner {
            tags.insert(OWNER_TAG.to_owned(), owner.to_string());
        }
        self.client
            .set(name, &write.value, &tags, write.expires)
            .await
    }

    /// Continues a write whose name belongs to a deleted secret.
    async fn write_over_deleted(
        &self,
        name: &SecretName,
        write: &Write,
        fault: Fault,
    ) -> Result<Written> {
        let explained = |fault: Fault| fault.explain(&self.config);
        let refuses = self.config.on_deleted == OnDeleted::Refuse;
        let found = if fault.is_ambiguous() && (refuses || !fault.is_conflict()) {
            self.deleted(name).await.unwrap_or_default()
        } else {
            None
        };
        let is_pending = fault.is_pending() || found.is_some();
        if refuses || !(is_pending || fault.is_conflict()) {
            return Err(if is_pending {
                pending(&fault).with_hint(
                    "restore it, purge it (`az keyvault secret purge`), or set `on-deleted` to \
                     recover or purge",
                )
            } else {
                explained(fault)
            });
        }
        if fault.has("ObjectIsBeingRecovered") {
            return self.compare_recovered(name, write).await;
        }
        let deleted = match found {
            Some(deleted) => Some(deleted),
            None => self.until_deleted(name).await.map_err(explained)?,
        };
        let Some(deleted) = deleted else {
            return Err(explained(fault));
        };
        check(&write.coordinate, &deleted)?;
        if self.config.on_deleted == OnDeleted::Recover {
            return match self.client.recover(name).await {
                Err(fault) if !fault.is_conflict() && !fault.is_missing() => Err(explained(fault)),
                _ => self.compare_recovered(name, write).await,
            };
        }
        match self.client.purge(name).await {
            Ok(()) => {}
            Err(fault) if fault.is_missing() => {}
            Err(fault) if fault.is_denied() || fault.is_unsupported() => {
                return Err(pending(&fault).with_hint(
                    "it cannot be purged: the vault has purge protection, or the principal lacks the \
                     permission; set `on-deleted` to recover, or wait until the vault's retention period ends",
                ));
            }
            Err(fault) => return Err(explained(fault)),
        }
        match self.set_when_free(name, write).await.map_err(explained)? {
            true => Ok(Written::Created),
            false => Err(still_changing(
                "the vault has not purged the old secret yet",
            )),
        }
    }

    async fn compare_recovered(&self, name: &SecretName, write: &Write) -> Result<Written> {
        match self.until_readable(name).await {
            Ok(Readable::Yes(stored)) => compare(write, &stored),
            Ok(Readable::NotYet) => {
                Err(still_changing("the vault has not recovered the secret yet"))
            }
            Ok(Readable::ForOthers(fault)) | Err(fault) => Err(fault.explain(&self.config)),
        }
    }

    /// Deletes the secret if it is ours. Returns its attributes, or `None` if there is no secret.
    async fn soft_delete(
        &self,
        name: &SecretName,
        coordinate: &ManagedCoordinate,
    ) -> Result<Option<Facts>> {
        let explained = |fault: Fault| fault.explain(&self.config);
        let facts = match self.client.get(name).await {
            Ok(stored) => stored.facts,
            Err(fault) if fault.is_missing() => return Ok(None),
            Err(fault) if fault.is_disabled() => {
                let newest = self.client.newest(name).await.map_err(explained)?;
                newest.unwrap_or_default()
            }
            Err(fault) => return Err(explained(fault)),
        };
        check(coordinate, &facts)?;
        match self.client.delete(name).await {
            Ok(deleted) => Ok(Some(deleted)),
            // Another caller was faster.
            Err(fault)
                if fault.is_missing()
                    || fault.is_pending()
                    || fault.has("ObjectIsBeingDeleted") =>
            {
                Ok(Some(Facts::default()))
            }
            Err(fault) => Err(explained(fault)),
        }
    }

    /// Purges a deleted secret. If purging is not allowed, the delete has still succeeded.
    async fn purge(
        &self,
        name: &SecretName,
        coordinate: &ManagedCoordinate,
        deleted: Option<Facts>,
    ) -> Result<()> {
        let explained = |fault: Fault| fault.explain(&self.config);
        let facts = match deleted {
            Some(facts) if facts.purgeable == Some(false) => {
                self.deny_purges("the vault has purge protection");
                return Ok(());
            }
            Some(facts) if !facts.is_final => {
                match self.until_deleted(name).await.map_err(explained)? {
                    Some(facts) => facts,
                    None => {
                        return Err(still_changing(
                            "the secret is deleted, but the vault does not allow \
                             purging it yet",
                        ));
                    }
                }
            }
            // There was no secret, or deletes in this vault are final: there is nothing to wait
            // for.
            _ => match self.client.get_deleted(name).await {
                Ok(facts) => facts,
                Err(fault) if fault.is_missing() || fault.is_unsupported() => return Ok(()),
                Err(fault) => return Err(explained(fault)),
            },
        };
        check(coordinate, &facts)?;
        match self.client.purge(name).await {
            // Purged, or soon: if the deadline has passed, there is nothing left to do.
            Ok(()) => self.until_gone(name).await.map(drop).map_err(explained),
            Err(fault) if fault.is_missing() => Ok(()),
            Err(fault) if fault.is_denied() || fault.is_unsupported() => {
                self.deny_purges(
                    "the principal may not purge (Microsoft.KeyVault/vaults/secrets/purge/action), \
                     or the vault has purge protection",
                );
                Ok(())
            }
            Err(fault) => Err(explained(fault)),
        }
    }

    fn purges(&self) -> bool {
        let until = self.purge_denied_until.lock();
        until.is_none_or(|until| Instant::now() >= until)
    }

    fn deny_purges(&self, reason: &'static str) {
        let until = Instant::now() + PURGE_DENIED_FOR;
        let before = self.purge_denied_until.lock().replace(until);
        if before.is_none() {
            warn!(
                store = %self,
                reason,
                "secrets are deleted and not purged: they can be recovered until the vault's \
                 retention period ends, and their names stay reserved until then"
            );
        }
    }

    fn explain(&self, fault: &Fault, operation: Operation, name: &ManagedCoordinate) -> Error {
        explain(fault, &self.config, operation, self).with_coordinate(name.shared())
    }
}

/// Shows `azure` and the vault, never a credential.
impl fmt::Display for AzureKeyVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "azure {}", self.config.place())
    }
}

#[async_trait]
impl SecretPersistence for AzureKeyVault {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            // A read of 32 or 50 secrets is one round trip.
            concurrency: 64,
            max_value_bytes: MAX_VALUE_BYTES,
            // Key Vault stores text, and does not document how it treats a NUL.
            nul: false,
            owner: true,
            recovery: self.config.purge != Purge::Always || !self.purges(),
            on_pending: match self.config.on_deleted {
                OnDeleted::Purge => OnPending::Purge,
                OnDeleted::Recover => OnPending::Restore,
                OnDeleted::Refuse => OnPending::Refuse,
            },
            expiry: Expiry::Swept,
            reads_expiry: true,
            listing: Listing::Eventual,
            cost: cost(self.config.purge, self.config.on_deleted),
            least: least(self.config.purge),
            ..Capabilities::LEAST
        }
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        join_all(
            coordinates
                .iter()
                .map(|coordinate| self.read_one(coordinate)),
        )
        .await
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
        let fail = |error: Error| {
            error
                .with_operation(Operation::Restore)
                .with_store(self.to_string())
                .with_coordinate(coordinate.shared())
        };
        let explained = |fault: Fault| fail(fault.explain(&self.config));
        let name = SecretName::managed(coordinate);
        match self.client.get_deleted(&name).await {
            Ok(facts) => check(coordinate, &facts).map_err(fail)?,
            // Its tags are not readable. Recovering it harms no one.
            Err(fault) if fault.is_disabled() => {}
            Err(fault) if fault.is_missing() => {
                return match self.client.get(&name).await {
                    Ok(stored) => check(coordinate, &stored.facts).map_err(fail),
                    Err(fault) if fault.is_disabled() => Ok(()),
                    Err(fault) => Err(explained(fault)),
                };
            }
            Err(fault) => return Err(explained(fault)),
        }
        let lost = match self.client.recover(&name).await {
            Ok(()) => None,
            // Another client is recovering it.
            Err(fault) if fault.is_conflict() => None,
            // Another client may be recovering it. Meanwhile it can neither be read nor found among
            // the deleted secrets.
            Err(fault) if fault.is_unknown() => Some(fault),
            Err(fault) => return Err(explained(fault)),
        };
        match (self.until_readable(&name).await, lost) {
            (Ok(Readable::Yes(_) | Readable::ForOthers(_)), _) => Ok(()),
            (Ok(Readable::NotYet), Some(fault)) | (Err(fault), _) => Err(explained(fault)),
            (Ok(Readable::NotYet), None) => Err(fail(still_changing(
                "the vault has not recovered the secret yet",
            ))),
        }
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let place = Position::parse(after).map_err(|error| {
            error
                .with_operation(Operation::List)
                .with_store(self.to_string())
        })?;
        let page_size = options.page_size.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let listed = if place.deleted {
            self.client.list_deleted(page_size, place.query).await
        } else {
            self.client.list(page_size, place.query).await
        };
        let listed =
            listed.map_err(|fault| explain(&fault, &self.config, Operation::List, self))?;
        let next = match (listed.next, place.deleted, options.deleted) {
            (Some(query), deleted, _) => Some(Position::cursor(deleted, &query)),
            (None, false, true) => Some(Position::cursor(true, "")),
            (None, _, _) => None,
        };
        let mut page = Page::new(Vec::new(), next);
        for (name, facts) in listed.secrets {
            let tag = facts.tags.get(COORDINATE_TAG).map(String::as_str);
            match name.and_then(|name| coordinate_of(&name, tag)) {
                Some(coordinate) if coordinate.as_str().starts_with(&options.prefix) => {
                    page.entries.push(entry(coordinate, facts, place.deleted));
                }
                // A managed name without the requested prefix: the vault lists everything.
                Some(_) => {}
                None => page.skipped += 1,
            }
        }
        Ok(page)
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        let explained = |fault: Fault| self.explain(&fault, Operation::Describe, coordinate);
        let name = SecretName::managed(coordinate);
        let (facts, is_deleted) = match self.client.get(&name).await {
            Ok(stored) => (stored.facts, false),
            Err(fault) if fault.is_disabled() => {
                let newest = self.client.newest(&name).await.map_err(explained)?;
                (newest.unwrap_or_default(), false)
            }
            Err(fault) if fault.is_missing() => {
                match self.deleted(&name).await.map_err(explained)? {
                    Some(facts) => (facts, true),
                    None => return Err(explained(fault)),
                }
            }
            Err(fault) => return Err(explained(fault)),
        };
        check(coordinate, &facts).map_err(|error| {
            error
                .with_operation(Operation::Describe)
                .with_store(self.to_string())
                .with_coordinate(coordinate.shared())
        })?;
        Ok(entry(coordinate.clone(), facts, is_deleted))
    }

    async fn identity(&self) -> Result<Identity> {
        // Key Vault does not tell who we are. If it denies the listing, it knows us, and the token
        // contains our identity.
        match self.client.list(1, None).await {
            Ok(_) => {}
            Err(fault) if fault.is_denied() && !fault.is_blocked() => {}
            Err(fault) => return Err(explain(&fault, &self.config, Operation::Identity, self)),
        }
        let configured = || match self.config.credentials.client_id() {
            Some(id) => format!("{} {id}", self.config.credentials.name()),
            None => self.config.credentials.name().to_owned(),
        };
        let principal = self.client.principal();
        Ok(Identity::new(
            "azure",
            principal.unwrap_or_else(configured),
            format!("vault {}", self.config.place()),
        ))
    }
}

/// Compares with the existing value: an earlier attempt of the same write, or another value.
fn compare(write: &Write, stored: &Stored) -> Result<Written> {
    check(&write.coordinate, &stored.facts)?;
    if stored.value == write.value {
        return Ok(Written::AlreadySame);
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        "the name already has another value",
    )
    .with_hint("use a new coordinate for a new value"))
}

fn entry(coordinate: ManagedCoordinate, facts: Facts, deleted: bool) -> Entry {
    Entry::new(coordinate)
        .with_owner(facts.tags.get(OWNER_TAG).cloned())
        .with_created(facts.created)
        .with_expires(facts.expires)
        .with_pending_deletion(deleted)
        .with_tags(facts.tags)
}

/// The error for a change that was still in progress at the deadline.
fn still_changing(message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message).with_hint("try again, or raise `wait-seconds`")
}

/// The position of a listing: the list and its cursor.
struct Position<'a> {
    deleted: bool,
    query: Option<&'a str>,
}

impl<'a> Position<'a> {
    fn parse(cursor: Option<&'a Cursor>) -> Result<Self> {
        let Some(cursor) = cursor else {
            return Ok(Self {
                deleted: false,
                query: None,
            });
        };
        let (deleted, query) = match cursor.as_str().split_once(':') {
            Some(("secrets", query)) => (false, query),
            Some(("deleted", query)) => (true, query),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidValue,
                    "this is not a cursor of a listing of this store",
                )
                .with_hint("start the listing again"));
            }
        };
        Ok(Self {
            deleted,
            query: (!query.is_empty()).then_some(query),
        })
    }

    fn cursor(deleted: bool, query: &str) -> Cursor {
        let list = if deleted { "deleted" } else { "secrets" };
        Cursor::new(format!("{list}:{query}"))
    }
}

/// The minimum number of requests per operation.
fn least(purge: Purge) -> Cost {
    Cost {
        // A read, and a set.
        write: 2,
        // A read, and a delete; with a purge, a poll and the purge.
        delete: if purge == Purge::Always { 4 } else { 2 },
        // A read of the deleted secret, and a recovery.
        restore: 2,
        ..Cost::ONE
    }
}

/// The maximum number of requests per operation; [`AzureKeyVault`] lists them.
fn cost(purge: Purge, on_deleted: OnDeleted) -> Cost {
    // Counting all polls of a wait would delay ten other calls for each one.
    let looks = 2;
    Cost {
        // A read, and a read of the deleted secret.
        read: 2,
        write: match on_deleted {
            // A read, a set, and a read of the conflicting secret.
            OnDeleted::Refuse => 3,
            // A read, a set, polls until it is deleted, a recovery, polls until it is back.
            OnDeleted::Recover => 3 + 2 * looks,
            // A read, a set, polls until it is deleted, a purge, sets until the name is free.
            OnDeleted::Purge => 3 + 2 * looks,
        },
        // A read, a listing of the versions of a disabled secret, a delete.
        delete: match purge {
            Purge::Never => 3,
            // Polls until it is deleted, a purge, polls until it is gone.
            Purge::Always | Purge::OnRequest => 4 + 2 * looks,
        },
        // A read of the deleted secret, a recovery, polls until it is back.
        restore: 2 + looks,
        list: 1,
        list_detail: 0,
        // A read, and a listing of the versions or a read of the deleted secret.
        describe: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_lets_as_many_calls_through_as_a_vault_does() {
        let quotas = AzureKeyVault::quotas();
        let least = least(Purge::Never);
        let calls = |class: ClassLimit, least: u32| class.per_second / f64::from(least);
        assert_eq!(calls(quotas.read, least.read), 400.0);
        assert_eq!(calls(quotas.write, least.write), 30.0);
        assert_eq!(calls(quotas.list, least.list), 400.0);
    }

    #[test]
    fn cost_counts_every_request_but_the_later_looks_of_waits() {
        let cautious = cost(Purge::Never, OnDeleted::Refuse);
        assert_eq!((cautious.read, cautious.write, cautious.delete), (2, 3, 3));
        assert_eq!((cautious.restore, cautious.describe), (4, 2));
        assert_eq!(cost(Purge::Always, OnDeleted::Refuse).delete, 8);
        assert_eq!(cost(Purge::Never, OnDeleted::Recover).write, 7);
        assert_eq!(cost(Purge::Never, OnDeleted::Purge).write, 7);
    }

    #[test]
    fn cursors_lead_through_both_lists() {
        for (deleted, query) in [(false, "a=b&c=d:e"), (true, "a=b"), (true, "")] {
            let cursor = Position::cursor(deleted, query);
            let place = Position::parse(Some(&cursor)).unwrap();
            assert_eq!(place.deleted, deleted);
            assert_eq!(place.query.unwrap_or_default(), query);
        }
        for text in ["", "x", "keys:a", "https://evil.example/"] {
            let cursor = Cursor::new(text);
            let error = Position::parse(Some(&cursor)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{text}");
        }
    }
}
