//! The trait that every store and every layer implements, and the words it is spoken in.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};

use async_trait::async_trait;

use crate::{Coordinate, Error, ErrorKind, ManagedCoordinate, Result, SecretValue, Timestamp};

/// A place that keeps secret values under coordinates.
///
/// Dyn-safe, because users hold `Arc<dyn SecretPersistence>`; the conveniences (`read`, `write_many`,
/// `list`, `sweep`, `check`) are in [`SecretPersistenceExt`](crate::SecretPersistenceExt). `Display`
/// names the store for people, and that of a layer the store that it wraps (`{:#}` shows the layer
/// too); neither shows a credential.
///
/// # Contract
///
/// The `conformance` feature proves every sentence of it on every backend and layer.
///
/// - A managed coordinate names one value for ever. Writing the same value again is
///   [`Written::AlreadySame`], so retries are safe; another value is `AlreadyExists`.
///   Where the store cannot refuse a *concurrent* second write,
///   [`Capabilities::atomic_create`] is false.
/// - Missing is `NotFound`, never an empty string. A name scheduled for deletion is
///   `PendingDeletion`, for reads and for writes.
/// - Writing an empty value is `InvalidValue`; a NUL where the store cannot hold it likewise; a
///   value above [`Capabilities::max_value_bytes`] is `PayloadTooLarge`. All before any request. An
///   empty value that somebody else stored reads as empty. Everything else comes back byte for byte.
/// - Deleting what is not there succeeds.
/// - Every failure says the operation, the store and the coordinate, keeps its cause, and never
///   shows the value, a credential or a response body.
/// - Nothing panics on what a server answers. Dropping a future midway leaves at worst a secret that
///   nobody refers to, under a name that the caller knows.
///
/// # Batches
///
/// One batch call is one attempt at one chunk of at most [`Capabilities::read_batch`] or
/// [`Capabilities::write_batch`] entries, all different. It is one request wherever the protocol
/// allows; extra requests happen inside the call, are never retried there, and
/// [`Capabilities::cost`] states the most per operation. The answer has one result per entry, in the
/// same order; backends match results by name, never by position. Chunking and fan-out are in the
/// extension trait, retries in the retry layer, and nowhere else.
///
/// # Example
///
/// A whole backend, which passes the suite:
#[cfg_attr(feature = "conformance", doc = concat!("```\n", include_str!("../examples/folder.rs"), "```"))]
#[async_trait]
pub trait SecretPersistence: Debug + Display + Send + Sync + 'static {
    /// What this store can do. May change at run time, so ask again for each call.
    fn capabilities(&self) -> Capabilities;

    /// Reads one chunk of values, managed and external.
    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>>;

    /// Writes one chunk of values. Not atomic over the chunk: each entry succeeds or fails alone.
    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>>;

    /// Deletes one value, at once or after the store's recovery window.
    ///
    /// # Errors
    /// Never for a name that is missing or already scheduled for deletion.
    async fn delete(&self, coordinate: &ManagedCoordinate, options: &DeleteOptions) -> Result<()>;

    /// Brings a value back that is scheduled for deletion. Succeeds for one that is readable.
    ///
    /// # Errors
    /// `NotFound` for a name the store does not know, `Unsupported` where it has no recovery.
    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()>;

    /// Lists managed names, one page at a time, from the beginning or after a cursor of the page before.
    ///
    /// # Errors
    /// `Unsupported` where [`Capabilities::listing`] is [`Listing::None`].
    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page>;

    /// Says what the store knows about one name, with tags and encryption key, without its value.
    ///
    /// # Errors
    /// `NotFound` for a name the store does not know.
    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry>;

    /// Says who we are and where, as the store sees us.
    async fn identity(&self) -> Result<Identity>;
}

/// What was tried, for errors, audit events and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// [`SecretPersistence::delete`].
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

/// What a store can do. Backends start from [`Capabilities::LEAST`] with struct update syntax, so that
/// an ability added later is one they do not claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The most coordinates per [`SecretPersistence::read_batch`], at least 1.
    pub read_batch: usize,
    /// The most values per [`SecretPersistence::write_batch`], at least 1.
    pub write_batch: usize,
    /// How many batch calls the extension trait keeps in flight at once, at least 1.
    pub concurrency: usize,
    /// The largest value in bytes.
    pub max_value_bytes: usize,
    /// Whether the store refuses a second, concurrent write of the same name by itself.
    pub atomic_create: bool,
    /// Whether a value may hold the character NUL.
    pub nul: bool,
    /// Whether the owner is stored with every secret.
    pub owner: bool,
    /// Whether what [`SecretPersistence::delete`] deletes can be restored for a while.
    pub recovery: bool,
    /// What a write does where its name is scheduled for deletion.
    pub on_pending: OnPending,
    /// What becomes of secrets that expire.
    pub expiry: Expiry,
    /// Whether a read tells when the secret expires; where it does not, `describe` does.
    pub reads_expiry: bool,
    /// What listing can be trusted with.
    pub listing: Listing,
    /// The most requests that each operation makes.
    pub cost: Cost,
    /// The requests that each operation makes whatever it finds; one unless told. `read` is per batch,
    /// and `list_detail` is not used.
    pub least: Cost,
}

impl Capabilities {
    /// The least that a store can do: single entries, no owner, no expiry, no listing, 64 KiB.
    pub const LEAST: Self = Self {
        read_batch: 1,
        write_batch: 1,
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

    /// The most requests that one [`SecretPersistence::read_batch`] of so many entries makes.
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

    /// Refuses what the store could not hold: what every backend asks first in
    /// [`SecretPersistence::write_batch`], before any request.
    ///
    /// # Errors
    /// `InvalidValue` for an empty value, or a NUL where [`nul`](Self::nul) is false;
    /// `PayloadTooLarge` above [`max_value_bytes`](Self::max_value_bytes); `Unsupported` for an
    /// expiry where [`expiry`](Self::expiry) is [`Expiry::None`].
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
                    "the value has {} bytes, this store takes at most {}",
                    write.value.len(),
                    self.max_value_bytes
                ),
            ));
        }
        if !self.nul && write.value.expose().contains('\0') {
            return error(Error::new(
                ErrorKind::InvalidValue,
                "the value holds the character NUL, which this store cannot keep",
            ));
        }
        if self.expiry == Expiry::None && write.expires.is_some() {
            return error(Error::new(
                ErrorKind::Unsupported,
                "this store keeps no expiry",
            ));
        }
        Ok(())
    }
}

/// What becomes of secrets that expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Expiry {
    /// A write that asks for it is `Unsupported`.
    None,
    /// Kept with the secret, which [`sweep`](crate::SecretPersistenceExt::sweep) removes; until
    /// then it may be read.
    Swept,
    /// The store itself removes it.
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

/// What listing can be trusted with. Nobody concludes from a listing alone that a secret is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Listing {
    /// The store cannot list.
    None,
    /// A listing may lag behind: by seconds as a rule, by hours at worst.
    Eventual,
    /// A listing shows every write that has been answered.
    Immediate,
}

/// The requests that one call of each operation makes: what the limit layer takes permits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Of one [`SecretPersistence::read_batch`] that is full. One with fewer entries makes at most its
    /// part of them, rounded up: [`Capabilities::read_cost`].
    pub read: u32,
    /// Of one [`SecretPersistence::write_batch`].
    pub write: u32,
    /// Of one [`SecretPersistence::delete`].
    pub delete: u32,
    /// Of one [`SecretPersistence::restore`].
    pub restore: u32,
    /// Of one [`SecretPersistence::list_page`] without details.
    pub list: u32,
    /// Of each entry of a [`SecretPersistence::list_page`] with details, besides `list`.
    pub list_detail: u32,
    /// Of one [`SecretPersistence::describe`].
    pub describe: u32,
}

impl Cost {
    /// One request for everything, details included.
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

/// A value as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Read {
    /// The value.
    pub value: SecretValue,
    /// When it may be removed, where the store says so while reading.
    pub expires: Option<Timestamp>,
}

impl Read {
    /// A value that does not expire, as far as the read tells.
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

/// A value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Write {
    /// The name, new or already of this very value.
    pub coordinate: ManagedCoordinate,
    /// The value.
    pub value: SecretValue,
    /// When it may be removed.
    pub expires: Option<Timestamp>,
}

impl Write {
    /// A value that does not expire.
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

/// How a write succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The name already had this very value.
    AlreadySame,
    /// The name is new.
    Created,
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeleteOptions {
    /// What becomes of the recovery window. Stores without one delete at once whatever it says.
    pub recovery: Recovery,
}

impl DeleteOptions {
    /// Options with this recovery.
    #[must_use]
    pub fn with_recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }
}

/// For how long a deleted secret can be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// As the store is configured.
    #[default]
    Configured,
    /// Not at all, where the store and our rights allow it.
    Immediate,
    /// This many days, where the store lets us choose.
    Window {
        /// From 7 to 30 on AWS.
        days: u16,
    },
}

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListOptions {
    /// Only names that begin with this; `airbyte_` unless told.
    pub prefix: String,
    /// Whether owner, times, tags and key are wanted too, even where they cost
    /// [`Cost::list_detail`] requests per name.
    pub details: bool,
    /// Whether names that are scheduled for deletion are wanted too, where the store lists them.
    pub deleted: bool,
    /// How many entries per page, at most; the store may have a lower limit.
    pub page_size: Option<usize>,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self {
            prefix: crate::coordinate::MANAGED_PREFIX.to_owned(),
            details: false,
            deleted: false,
            page_size: None,
        }
    }
}

impl ListOptions {
    /// Only names that begin with this.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Owner, times, tags and key too.
    #[must_use]
    pub fn with_details(mut self, details: bool) -> Self {
        self.details = details;
        self
    }

    /// Names that are scheduled for deletion too.
    #[must_use]
    pub fn with_deleted(mut self, deleted: bool) -> Self {
        self.deleted = deleted;
        self
    }

    /// At most this many entries per page.
    #[must_use]
    pub fn with_page_size(mut self, entries: usize) -> Self {
        self.page_size = Some(entries);
        self
    }
}

/// Where a listing goes on. Opaque, and only good for the store and the options it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// A cursor in the store's own terms.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The store's own terms.
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
    /// Where to go on, if this was not the last page. A page may be empty and not the last.
    pub next: Option<Cursor>,
    /// How many names were left out because they are not managed coordinates.
    pub skipped: u64,
}

impl Page {
    /// A page of entries.
    #[must_use]
    pub fn new(entries: Vec<Entry>, next: Option<Cursor>) -> Self {
        Self {
            entries,
            next,
            skipped: 0,
        }
    }

    /// Adds how many names were left out.
    #[must_use]
    pub fn with_skipped(mut self, names: u64) -> Self {
        self.skipped = names;
        self
    }
}

/// What a store knows about one secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The name.
    pub coordinate: ManagedCoordinate,
    /// The installation that wrote it, where the store has it.
    pub owner: Option<String>,
    /// When it was created, where the store has it.
    pub created: Option<Timestamp>,
    /// When it may be removed, if ever.
    pub expires: Option<Timestamp>,
    /// Whether it is scheduled for deletion.
    pub pending_deletion: bool,
    /// Tags, labels or custom metadata, ours included, in the store's own spelling.
    pub tags: BTreeMap<String, String>,
    /// The key it is encrypted with, in the store's own terms; `None` is the store's default.
    pub key: Option<String>,
}

impl Entry {
    /// An entry of which only the name is known.
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

    /// Adds when it was created.
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

/// Who we are and where, as a store sees us.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The kind of store: `aws`, `azure`, `gcp`, `vault`, `postgres`, `sqlite`, `memory`.
    pub store: &'static str,
    /// The principal: a role ARN, a service account, a token's display name, a database role.
    pub principal: String,
    /// The place: account and region, project, vault and mount, database and table.
    pub location: String,
}

impl Identity {
    /// An identity.
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
