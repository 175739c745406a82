//! The trait on top of the client: comparisons before every change, and what deletion leaves behind.

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

/// How long purges are not tried again where they were not allowed: roles change seldom, and purge
/// protection can never be switched off.
const PURGE_DENIED_FOR: Duration = Duration::from_secs(600);

/// A [`SecretPersistence`] in a vault of Azure Key Vault.
///
/// # Requests
/// A read is one `SecretGet`, and one `SecretGetDeleted` if there is nothing, to tell what was
/// deleted from what never was. Setting a secret always adds a version in Key Vault, so a write is a
/// `SecretGet` and, only where that finds nothing, a `SecretSet`; a delete is a `SecretGet` to see
/// whose it is, and a `SecretDelete`. Purging and recovering look at the state of the secret until it
/// has changed, or the wait is over. [`Capabilities::cost`] counts them all, but of a wait, whose looks
/// become as rare as one in four seconds, the first two. The first request of a
/// client is answered with a challenge and made again, after a login.
///
/// Two callers that write the same new name at the same moment may both succeed, and the newer value
/// is read then: Key Vault cannot refuse the second ([`Capabilities::atomic_create`]).
#[derive(Debug)]
pub struct AzureKeyVault {
    pub(crate) client: Client,
    pub(crate) config: Config,
    /// Until when purges are not tried.
    purge_denied_until: Mutex<Option<Instant>>,
}

impl AzureKeyVault {
    /// Sets the store up. The certificate file is read; no request is made, and credentials are
    /// looked for when they are needed.
    ///
    /// # Errors
    /// `InvalidConfig` if the certificate file cannot be read or contains none.
    pub async fn connect(config: Config) -> Result<Self> {
        Ok(Self {
            client: Client::new(&config).await?,
            config,
            purge_denied_until: Mutex::default(),
        })
    }

    /// The documented quotas of a vault, for the limit layer; take a share of them where others use
    /// the vault too.
    ///
    /// The layer counts the requests that a call is sure to make: 400 a second. A write makes two, of
    /// which one is a new secret, and of those 30 a second are allowed.
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
        self.write_despite(&name, write, fault).await.map_err(fail)
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

    /// A write that found its name taken by what was deleted.
    async fn write_despite(
        &self,
        name: &SecretName,
        write: &Write,
        fault: Fault,
    ) -> Result<Written> {
        let explained = |fault: Fault| fault.explain(&self.config);
        let refuses = self.config.on_deleted == OnDeleted::Refuse;
        let found = if fault.is_vague() && (refuses || !fault.is_conflict()) {
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
                     right; set `on-deleted` to recover, or wait until the vault's retention ends",
                ));
            }
            Err(fault) => return Err(explained(fault)),
        }
        match self.set_when_free(name, write).await.map_err(explained)? {
            true => Ok(Written::Created),
            false => Err(unsettled("the vault has not purged the old secret yet")),
        }
    }

    async fn compare_recovered(&self, name: &SecretName, write: &Write) -> Result<Written> {
        match self.until_readable(name).await {
            Ok(Readable::Yes(stored)) => compare(write, &stored),
            Ok(Readable::NotYet) => Err(unsettled("the vault has not recovered the secret yet")),
            Ok(Readable::ForOthers(fault)) | Err(fault) => Err(fault.explain(&self.config)),
        }
    }

    /// Deletes what is there, if it is ours; what the vault said of it, or nothing where nothing is.
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
            // Somebody else was faster.
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

    /// Purges what was deleted. Where that is not allowed, the delete was one all the same.
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
                        return Err(unsettled(
                            "the secret is deleted, and the vault has not come to the point where \
                             it can be purged",
                        ));
                    }
                }
            }
            // Nothing was there, or deleting is for good in this vault: nothing to wait for.
            _ => match self.client.get_deleted(name).await {
                Ok(facts) => facts,
                Err(fault) if fault.is_missing() || fault.is_unsupported() => return Ok(()),
                Err(fault) => return Err(explained(fault)),
            },
        };
        check(coordinate, &facts)?;
        match self.client.purge(name).await {
            // Purged, or soon: nothing is left to be done where the time is up.
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
                 retention ends, and their names stay reserved until then"
            );
        }
    }

    fn explain(&self, fault: &Fault, operation: Operation, name: &ManagedCoordinate) -> Error {
        explain(fault, &self.config, operation, self).with_coordinate(name.shared())
    }
}

/// `azure` and the vault; never a credential.
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
            // Key Vault keeps text, and does not document what it makes of a NUL.
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

    async fn delete(&self, coordinate: &ManagedCoordinate, options: &DeleteOptions) -> Result<()> {
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
            // Its tags cannot be seen; recovering it takes nothing from anybody.
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
            // Somebody else recovers it at this moment.
            Err(fault) if fault.is_conflict() => None,
            // It may be on its way: while it is, it can neither be read nor be found deleted.
            Err(fault) if fault.is_unknown() => Some(fault),
            Err(fault) => return Err(explained(fault)),
        };
        match (self.until_readable(&name).await, lost) {
            (Ok(Readable::Yes(_) | Readable::ForOthers(_)), _) => Ok(()),
            (Ok(Readable::NotYet), Some(fault)) | (Err(fault), _) => Err(explained(fault)),
            (Ok(Readable::NotYet), None) => Err(fail(unsettled(
                "the vault has not recovered the secret yet",
            ))),
        }
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let place = Place::parse(after).map_err(|error| {
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
            (Some(query), deleted, _) => Some(Place::cursor(deleted, &query)),
            (None, false, true) => Some(Place::cursor(true, "")),
            (None, _, _) => None,
        };
        let mut page = Page::new(Vec::new(), next);
        for (name, facts) in listed.secrets {
            let tag = facts.tags.get(COORDINATE_TAG).map(String::as_str);
            match name.and_then(|name| coordinate_of(&name, tag)) {
                Some(coordinate) if coordinate.as_str().starts_with(&options.prefix) => {
                    page.entries.push(entry(coordinate, facts, place.deleted));
                }
                // Ours, and not asked for: the vault lists everything.
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
        // Key Vault does not say who we are; that it refuses the listing for want of a right shows
        // that it knows us, and the token says as whom.
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

/// The name is taken: by an earlier attempt at this very write, or by another value.
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

/// A change that goes on after the time for it was up.
fn unsettled(message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message).with_hint("try again, or raise `wait-seconds`")
}

/// Where a listing goes on: in which of the two lists, and how.
struct Place<'a> {
    deleted: bool,
    query: Option<&'a str>,
}

impl<'a> Place<'a> {
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

/// The requests that every call makes.
fn least(purge: Purge) -> Cost {
    Cost {
        // A read, and a set.
        write: 2,
        // A read, and a delete; with a purge, a look and the purge.
        delete: if purge == Purge::Always { 4 } else { 2 },
        // A look at what was deleted, and a recover.
        restore: 2,
        ..Cost::ONE
    }
}

/// The most requests per operation: see [`AzureKeyVault`] for what they are.
fn cost(purge: Purge, on_deleted: OnDeleted) -> Cost {
    // Counting all that a wait may take would hold back ten other calls for each of them.
    let looks = 2;
    Cost {
        // A read, and a look at what was deleted.
        read: 2,
        write: match on_deleted {
            // A read, a set, and a look at what is in its way.
            OnDeleted::Refuse => 3,
            // A read, a set, looks until it is deleted, a recover, looks until it is back.
            OnDeleted::Recover => 3 + 2 * looks,
            // A read, a set, looks until it is deleted, a purge, sets until the name is free.
            OnDeleted::Purge => 3 + 2 * looks,
        },
        // A read, a look at the versions of what is disabled, a delete.
        delete: match purge {
            Purge::Never => 3,
            // Looks until it is deleted, a purge, looks until it is gone.
            Purge::Always | Purge::OnRequest => 4 + 2 * looks,
        },
        // A look at what was deleted, a recover, looks until it is back.
        restore: 2 + looks,
        list: 1,
        list_detail: 0,
        // A read, and a look at the versions or at what was deleted.
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
            let cursor = Place::cursor(deleted, query);
            let place = Place::parse(Some(&cursor)).unwrap();
            assert_eq!(place.deleted, deleted);
            assert_eq!(place.query.unwrap_or_default(), query);
        }
        for text in ["", "x", "keys:a", "https://evil.example/"] {
            let cursor = Cursor::new(text);
            let error = Place::parse(Some(&cursor)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{text}");
        }
    }
}
