//! The trait that every store and every layer implements, and its types.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};

use async_trait::async_trait;

use crate::{Coordinate, Error, ErrorKind, ManagedCoordinate, Result, SecretValue, Timestamp};

/// A store of secret values, addressed by coordinates.
///
/// Dyn-safe, because callers use `Arc<dyn SecretPersistence>`.
/// [`SecretPersistenceExt`](crate::SecretPersistenceExt) has the methods for callers (`read`,
/// `write_many`, `delete`, `list`, `sweep`, `check`). `Display` names the store for people. A layer displays
/// the store that it wraps (`{:#}` shows the layer too). Neither shows a credential.
///
/// # Contract
///
/// The `conformance` feature tests every sentence of it on every backend and layer.
///
/// - A managed coordinate names one value forever. Writing an equal value again is
///   [`Written::AlreadySame`], so retries are safe; another value is `AlreadyExists`. If the store
///   cannot refuse a *concurrent* second write, [`Capabilities::atomic_create`] is false.
/// - A missing name is `NotFound`, never an empty string. A name scheduled for deletion is
///   `PendingDeletion`, for reads and for writes.
/// - Writing an empty value is `InvalidValue`, and so is a NUL character if the store does not
///   support it; a value above [`Capabilities::max_value_bytes`] is `PayloadTooLarge`. All three
///   are detected before any request. An empty value written by others reads as empty. Every other
///   value is returned byte for byte.
/// - Deleting a missing name succeeds.
/// - Every error has the operation, the store and the coordinate, keeps its cause, and never shows
///   the value, a credential or a response body.
/// - No server response causes a panic. Dropping a future midway leaves at worst an unreferenced
///   secret, under a name that the caller knows.
///
/// # Batches
///
/// One batch call is one attempt at one chunk of at most [`Capabilities::read_batch`],
/// [`Capabilities::write_batch`] or [`Capabilities::delete_batch`] entries, all different. It is one request if the protocol allows
/// it; additional requests happen inside the call and are never retried there, and
/// [`Capabilities::cost`] is their maximum per operation. The result has one entry per name, in the
/// same order; backends match responses by name, never by position. Only the extension trait
/// implements chunking and concurrency, and only the retry layer retries.
///
/// # Example
///
/// A complete backend, which passes the suite:
#[cfg_attr(feature = "conformance", doc = concat!("```\n", include_str!("../examples/folder.rs"), "```"))]
#[async_trait]
pub trait SecretPersistence: Debug + Display + Send + Sync + 'static {
    /// The store's capabilities. They may change at run time, so call it again for each operation.
    fn capabilities(&self) -> Capabilities;

    /// Reads one chunk of values, managed and external.
    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>>;

    /// Writes one chunk of values. Not atomic: each entry succeeds or fails independently.
    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>>;

    /// Deletes one chunk of values, immediately or after the store's recovery window. Not atomic:
    /// each entry succeeds or fails independently. A name that is missing or already scheduled for
    /// deletion succeeds.
    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>>;

    /// Restores a value that is scheduled for deletion. Succeeds for a readable one.
    ///
    /// # Errors
    /// `NotFound` for an unknown name, `Unsupported` if the store has no recovery.
    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()>;

    /// Lists managed names, one page at a time, from the beginning or after the cursor of the
    /// previous page.
    ///
    /// # Errors
    /// `Unsupported` if [`Capabilities::listing`] is [`Listing::None`].
    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page>;

    /// Describes one name, with tags and encryption key, without its value.
    ///
    /// # Errors
    /// `NotFound` for an unknown name.
    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry>;

    /// Returns the caller's identity and the store's location, as the store reports them.
    async fn identity(&self) -> Result<Identity>;
}

/// The operation, for errors, audit events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// [`SecretPersistence::delete_batch`].
    Delete,
    /// [`SecretPersistence::describe`].
    Describe,
    /// [`SecretPersistence::identity`].
    Identity,
    /// [`SecretPersistence::list_page`].
    List,
    /// Opening a store: settings, credentials, the first connection.
    Open,
    /// [`SecretPersistence::read_batch`].
    Read,
    /// [`SecretPersistence::restore`].
    Restore,
    /// [`SecretPersistence::write_batch`].
    Write,
}

impl Operation {
    /// The operation in lower case, stable, for logs, metrics and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Describe => "describe",
            Self::Identity => "identity",
            Self::List => "list",
            Self::Open => "open",
            Self::Read => "read",
            Self::Restore => "restore",
            Self::Write => "write",
        }
    }
}

impl Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The capabilities of a store. Backends start from [`Capabilities::LEAST`] with struct update
/// syntax, so that they do not claim a capability that is added later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Maximum coordinates per [`SecretPersistence::read_batch`], at least 1.
    pub read_batch: usize,
    /// Maximum values per [`SecretPersistence::write_batch`], at least 1.
    pub write_batch: usize,
    /// Maximum coordinates per [`SecretPersistence::delete_batch`], at least 1.
    pub delete_batch: usize,
    /// Maximum batch calls that the extension trait keeps in flight, at least 1.
    pub concurrency: usize,
    /// The largest value in bytes.
    pub max_value_bytes: usize,
    /// Whether the store itself refuses a second, concurrent write of the same name.
    pub atomic_create: bool,
    /// Whether a value may contain the character NUL.
    pub nul: bool,
    /// Whether the store records the owner of every secret.
    pub owner: bool,
    /// Whether deleted secrets can be restored for a while.
    pub recovery: bool,
    /// What a write does where its name is scheduled for deletion.
    pub on_pending: OnPending,
    /// What happens to secrets that expire.
    pub expiry: Expiry,
    /// Whether a read returns the expiry; otherwise `describe` does.
    pub reads_expiry: bool,
    /// How reliable listings are.
    pub listing: Listing,
    /// Maximum requests of each operation.
    pub cost: Cost,
    /// The requests that each operation makes whatever it finds; one unless told. `read` is per batch,
    /// and `list_detail` is not used.
    pub least: Cost,
}

impl Capabilities {
    /// The minimum: single entries, no owner, no expiry, no listing, 64 KiB.
    pub const LEAST: Self = Self {
        read_batch: 1,
        write_batch: 1,
        delete_batch: 1,
        concurrency: 16,
        max_value_bytes: 65_536,
        atomic_create: false,
        nul: false,
        owner: false,
        recovery: false,
        on_pending: OnPending::Refuse,
        expiry: Expiry::None,
        reads_expiry: false,
        listing: Listing::None,
        cost: Cost::ONE,
        least: Cost::ONE,
    };

    /// Maximum requests of one [`SecretPersistence::read_batch`] with this many entries.
    ///
    /// ```
    /// use secret_persistence_core::{Capabilities, Cost};
    ///
    /// let cost = Cost { read: 41, ..Cost::ONE };
    /// let store = Capabilities { read_batch: 20, cost, ..Capabilities::LEAST };
    /// assert_eq!([1, 2, 20].map(|entries| store.read_cost(entries)), [3, 5, 41]);
    /// ```
    #[must_use]
    pub fn read_cost(&self, entries: usize) -> u32 {
        let full = self.read_batch.max(1) as u64;
        let entries = (entries as u64).min(full);
        let requests = (u64::from(self.cost.read) * entries).div_ceil(full);
        u32::try_from(requests).unwrap_or(u32::MAX)
    }

    /// Refuses values that the store does not accept. Every backend calls it first in
    /// [`SecretPersistence::write_batch`], before any request.
    ///
    /// # Errors
    /// `InvalidValue` for an empty value, or a NUL character if [`nul`](Self::nul) is false;
    /// `PayloadTooLarge` above [`max_value_bytes`](Self::max_value_bytes); `Unsupported` for an
    /// expiry if [`expiry`](Self::expiry) is [`Expiry::None`].
    pub fn accepts(&self, write: &Write) -> Result<()> {
        let error = |error: Error| {
            Err(error
                .with_operation(Operation::Write)
                .with_coordinate(write.coordinate.shared()))
        };
        if write.value.is_empty() {
            return error(Error::new(
                ErrorKind::InvalidValue,
                "a secret must not be empty",
            ));
        }
        if write.value.len() > self.max_value_bytes {
            return error(Error::new(
                ErrorKind::PayloadTooLarge,
                format!(
                    "the value has {} bytes, but this store accepts at most {}",
                    write.value.len(),
                    self.max_value_bytes
                ),
            ));
        }
        if !self.nul && write.value.expose().contains('\0') {
            return error(Error::new(
                ErrorKind::InvalidValue,
                "the value contains the character NUL, which this store does not accept",
            ));
        }
        if self.expiry == Expiry::None && write.expires.is_some() {
            return error(Error::new(
                ErrorKind::Unsupported,
                "this store does not support expiry",
            ));
        }
        Ok(())
    }
}

/// What happens to secrets that expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Expiry {
    /// A write with an expiry is `Unsupported`.
    None,
    /// Stored with the secret; [`sweep`](crate::SecretPersistenceExt::sweep) deletes it, and until
    /// then it can be read.
    Swept,
    /// The store itself deletes it.
    Enforced,
}

/// What a write does where its name is scheduled for deletion: most stores keep such a name taken, and
/// some can be told to free it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnPending {
    /// It destroys the old value and stores the new one.
    Purge,
    /// It is refused with [`PendingDeletion`](crate::ErrorKind::PendingDeletion).
    Refuse,
    /// It restores the old value, and compares the new one with it as with any value that is there.
    Restore,
}

/// How reliable listings are. Never conclude from a listing alone that a secret is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Listing {
    /// The store cannot list.
    None,
    /// A listing may lag behind: by seconds as a rule, by hours at worst.
    Eventual,
    /// A listing contains every write that has completed.
    Immediate,
}

/// The requests that one call of each operation makes: what the limit layer takes permits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Of a full [`SecretPersistence::read_batch`]. A batch with fewer entries makes at most its
    /// proportion, rounded up: [`Capabilities::read_cost`].
    pub read: u32,
    /// Of one [`SecretPersistence::write_batch`].
    pub write: u32,
    /// Of one [`SecretPersistence::delete_batch`].
    pub delete: u32,
    /// Of one [`SecretPersistence::restore`].
    pub restore: u32,
    /// Of one [`SecretPersistence::list_page`] without details.
    pub list: u32,
    /// Of each entry of a [`SecretPersistence::list_page`] with details, in addition to `list`.
    pub list_detail: u32,
    /// Of one [`SecretPersistence::describe`].
    pub describe: u32,
}

impl Cost {
    /// One request for every operation, including details.
    pub const ONE: Self = Self {
        read: 1,
        write: 1,
        delete: 1,
        restore: 1,
        list: 1,
        list_detail: 0,
        describe: 1,
    };
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Read {
    /// The value.
    pub value: SecretValue,
    /// When it may be deleted, if the store's reads return it.
    pub expires: Option<Timestamp>,
}

impl Read {
    /// Creates a value without expiry.
    #[must_use]
    pub fn new(value: SecretValue) -> Self {
        Self {
            value,
            expires: None,
        }
    }

    /// Adds when it may be removed.
    #[must_use]
    pub fn with_expires(mut self, expires: Option<Timestamp>) -> Self {
        self.expires = expires;
        self
    }
}

/// A value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Write {
    /// The name, which is new or already has this value.
    pub coordinate: ManagedCoordinate,
    /// The value.
    pub value: SecretValue,
    /// When it may be deleted.
    pub expires: Option<Timestamp>,
}

impl Write {
    /// Creates a value without expiry.
    #[must_use]
    pub fn new(coordinate: ManagedCoordinate, value: SecretValue) -> Self {
        Self {
            coordinate,
            value,
            expires: None,
        }
    }

    /// Adds when it may be removed.
    #[must_use]
    pub fn with_expires(mut self, expires: Option<Timestamp>) -> Self {
        self.expires = expires;
        self
    }
}

/// The result of a successful write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The name already had this value.
    AlreadySame,
    /// The name was new.
    Created,
}

/// Options of a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeleteOptions {
    /// The recovery window. Stores without one always delete immediately.
    pub recovery: Recovery,
}

impl DeleteOptions {
    /// Creates options with this recovery window.
    #[must_use]
    pub fn with_recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }
}

/// How long a deleted secret can be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// As the store is configured.
    #[default]
    Configured,
    /// Not at all, if the store and our permissions allow it.
    Immediate,
    /// This many days, if the store supports it.
    Window {
        /// From 7 to 30 on AWS.
        days: u16,
    },
}

/// Options of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// Only names with this prefix; by default that of all managed names, `airbyte_`.
    pub prefix: String,
    /// Whether to return owner, times, tags and key too, even if they cost [`Cost::list_detail`]
    /// requests per name.
    pub details: bool,
    /// Whether to return names that are scheduled for deletion, if the store lists them.
    pub deleted: bool,
    /// Maximum entries per page; the store may have a lower limit.
    pub page_size: Option<usize>,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self {
            prefix: crate::ManagedPrefix::current().to_string(),
            details: false,
            deleted: false,
            page_size: None,
        }
    }
}

impl ListOptions {
    /// Sets the prefix of names.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets whether to return owner, times, tags and key.
    #[must_use]
    pub fn with_details(mut self, details: bool) -> Self {
        self.details = details;
        self
    }

    /// Sets whether to return names that are scheduled for deletion.
    #[must_use]
    pub fn with_deleted(mut self, deleted: bool) -> Self {
        self.deleted = deleted;
        self
    }

    /// Sets the maximum entries per page.
    #[must_use]
    pub fn with_page_size(mut self, entries: usize) -> Self {
        self.page_size = Some(entries);
        self
    }
}

/// The position where a listing continues. Opaque, and valid only for the same store and options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// Creates a cursor from the store's own notation.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The store's own notation.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The entries, in the store's order.
    pub entries: Vec<Entry>,
    /// The cursor of the next page, unless this is the last one. A page may be empty and not the
    /// last.
    pub next: Option<Cursor>,
    /// How many names were skipped because they are not managed coordinates.
    pub skipped: u64,
}

impl Page {
    /// Creates a page.
    #[must_use]
    pub fn new(entries: Vec<Entry>, next: Option<Cursor>) -> Self {
        Self {
            entries,
            next,
            skipped: 0,
        }
    }

    /// Adds how many names were skipped.
    #[must_use]
    pub fn with_skipped(mut self, names: u64) -> Self {
        self.skipped = names;
        self
    }
}

/// A store's description of one secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name.
    pub coordinate: ManagedCoordinate,
    /// The installation that wrote it, if the store records it.
    pub owner: Option<String>,
    /// When it was created, if the store records it.
    pub created: Option<Timestamp>,
    /// When it may be deleted, if ever.
    pub expires: Option<Timestamp>,
    /// Whether it is scheduled for deletion.
    pub pending_deletion: bool,
    /// Tags, labels or custom metadata, including ours, in the store's own notation.
    pub tags: BTreeMap<String, String>,
    /// The encryption key, in the store's own notation; `None` is the store's default.
    pub key: Option<String>,
}

impl Entry {
    /// Creates an entry with only a name.
    #[must_use]
    pub fn new(coordinate: ManagedCoordinate) -> Self {
        Self {
            coordinate,
            owner: None,
            created: None,
            expires: None,
            pending_deletion: false,
            tags: BTreeMap::new(),
            key: None,
        }
    }

    /// Adds the owner.
    #[must_use]
    pub fn with_owner(mut self, owner: Option<String>) -> Self {
        self.owner = owner;
        self
    }

    /// Adds the creation time.
    #[must_use]
    pub fn with_created(mut self, created: Option<Timestamp>) -> Self {
        self.created = created;
        self
    }

    /// Adds when it may be removed.
    #[must_use]
    pub fn with_expires(mut self, expires: Option<Timestamp>) -> Self {
        self.expires = expires;
        self
    }

    /// Adds whether it is scheduled for deletion.
    #[must_use]
    pub fn with_pending_deletion(mut self, pending: bool) -> Self {
        self.pending_deletion = pending;
        self
    }

    /// Adds tags.
    #[must_use]
    pub fn with_tags(mut self, tags: BTreeMap<String, String>) -> Self {
        self.tags = tags;
        self
    }

    /// Adds the key.
    #[must_use]
    pub fn with_key(mut self, key: Option<String>) -> Self {
        self.key = key;
        self
    }
}

/// The caller's identity and the store's location, as the store reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The kind of store: `aws`, `azure`, `gcp`, `vault`, `postgres`, `sqlite`, `memory`.
    pub store: &'static str,
    /// The principal: a role ARN, a service account, a token's display name, a database role.
    pub principal: String,
    /// The location: account and region, project, vault and mount, database and table.
    pub location: String,
}

impl Identity {
    /// Creates an identity.
    pub fn new(
        store: &'static str,
        principal: impl Into<String>,
        location: impl Into<String>,
    ) -> Self {
        Self {
            store,
            principal: principal.into(),
            location: location.into(),
        }
    }
}

impl Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {} ({})",
            self.principal, self.location, self.store
        )
    }
}
