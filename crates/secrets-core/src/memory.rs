//! A store in memory, for tests and demonstrations. It is the shortest complete backend.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use indexmap::IndexMap;
use indexmap::map::Entry as Place;
use parking_lot::Mutex;

use crate::{
    Capabilities, Coordinate, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry, Identity,
    ListOptions, Listing, ManagedCoordinate, OnPending, Operation, Owner, Page, Read, Recovery,
    Result, SecretPersistence, SecretValue, Timestamp, Write, Written,
};

const DEFAULT_PAGE: usize = 1000;

/// A [`SecretPersistence`] that loses everything when it drops.
///
/// It implements the whole contract of the trait, with a recovery window that never ends.
///
/// ```
/// use secret_persistence_core::{ManagedCoordinate, Memory, SecretPersistenceExt, SecretValue, Write};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = Memory::new();
/// let coordinate = ManagedCoordinate::parse("airbyte_workspace_1_secret_2_v1")?;
/// store.write(Write::new(coordinate.clone(), SecretValue::new("hunter2".to_owned()))).await?;
/// assert_eq!(store.read(&coordinate.into()).await?.value.expose(), "hunter2");
/// # Ok::<(), secret_persistence_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Memory {
    number: u64,
    capabilities: Capabilities,
    owner: Option<Owner>,
    secrets: Mutex<Secrets>,
}

/// The secrets by name. The names are those of the coordinates, shared.
#[derive(Debug, Default)]
struct Secrets {
    by_name: IndexMap<Arc<str>, Stored>,
    /// Whether they are in the order of their names, which only a listing needs.
    sorted: bool,
}

impl Secrets {
    fn remove(&mut self, name: &str) {
        // The last one takes its place.
        if self.by_name.swap_remove(name).is_some() {
            self.sorted = false;
        }
    }

    fn in_order(&mut self) -> &IndexMap<Arc<str>, Stored> {
        if !self.sorted {
            self.by_name.sort_keys();
            self.sorted = true;
        }
        &self.by_name
    }
}

#[derive(Debug)]
struct Stored {
    value: SecretValue,
    owner: Option<Owner>,
    created: Timestamp,
    expires: Option<Timestamp>,
    pending_deletion: bool,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        Self {
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            capabilities: Capabilities {
                read_batch: 1000,
                write_batch: 1000,
                delete_batch: 1000,
                atomic_create: true,
                nul: true,
                owner: true,
                recovery: true,
                expiry: Expiry::Swept,
                reads_expiry: true,
                listing: Listing::Immediate,
                ..Capabilities::LEAST
            },
            owner: None,
            secrets: Mutex::default(),
        }
    }

    /// Sets other capabilities: batch sizes, value size, concurrency, cost.
    ///
    /// Disabled abilities (recovery, owner, expiry, listing, NUL) are then refused, as in a store
    /// without them.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Sets the owner of written secrets.
    #[must_use]
    pub fn with_owner(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Stores a value as another client could have: external names, empty values, no owner.
    pub fn insert(&self, name: &str, value: SecretValue) {
        let stored = Stored {
            value,
            owner: None,
            created: Timestamp::now(),
            expires: None,
            pending_deletion: false,
        };
        let mut secrets = self.secrets.lock();
        secrets.by_name.insert(name.into(), stored);
        secrets.sorted = false;
    }

    /// Removes what [`insert`](Self::insert) stored, whatever its name.
    pub fn remove(&self, name: &str) {
        self.secrets.lock().remove(name);
    }

    /// The number of secrets, without those scheduled for deletion.
    #[must_use]
    pub fn len(&self) -> usize {
        self.secrets
            .lock()
            .by_name
            .values()
            .filter(|stored| !stored.pending_deletion)
            .count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn error(&self, operation: Operation, kind: ErrorKind, message: &'static str) -> Error {
        Error::new(kind, message)
            .with_operation(operation)
            .with_store(self.to_string())
    }

    fn read_one(&self, secrets: &Secrets, coordinate: &Coordinate) -> Result<Read> {
        let fail = |kind, message| {
            Err(self
                .error(Operation::Read, kind, message)
                .with_coordinate(coordinate.shared()))
        };
        match secrets.by_name.get(coordinate.as_str()) {
            None => fail(
                ErrorKind::NotFound,
                "the store does not have a secret of this name",
            ),
            Some(stored) if stored.pending_deletion => fail(
                ErrorKind::PendingDeletion,
                "the secret is scheduled for deletion",
            ),
            Some(stored) => Ok(Read::new(stored.value.clone()).with_expires(stored.expires)),
        }
    }

    fn write_one(&self, secrets: &mut Secrets, write: &Write) -> Result<Written> {
        let fail = |kind, message| {
            Err(self
                .error(Operation::Write, kind, message)
                .with_coordinate(write.coordinate.shared()))
        };
        if let Err(error) = self.capabilities.accepts(write) {
            return Err(error.with_store(self.to_string()));
        }
        let new = || Stored {
            value: write.value.clone(),
            owner: self.owner.clone().filter(|_| self.capabilities.owner),
            created: Timestamp::now(),
            expires: write.expires,
            pending_deletion: false,
        };
        let mut there = match secrets.by_name.entry(write.coordinate.shared()) {
            Place::Vacant(place) => {
                place.insert(new());
                secrets.sorted = false;
                return Ok(Written::Created);
            }
            Place::Occupied(there) => there,
        };
        if there.get().pending_deletion {
            match self.capabilities.on_pending {
                OnPending::Purge => {
                    there.insert(new());
                    return Ok(Written::Created);
                }
                OnPending::Refuse => {
                    return fail(
                        ErrorKind::PendingDeletion,
                        "the secret is scheduled for deletion",
                    );
                }
                OnPending::Restore => there.get_mut().pending_deletion = false,
            }
        }
        if there.get().value == write.value {
            Ok(Written::AlreadySame)
        } else {
            fail(
                ErrorKind::AlreadyExists,
                "the name already has another value",
            )
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl SecretPersistence for Memory {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        let secrets = self.secrets.lock();
        coordinates
            .iter()
            .map(|coordinate| self.read_one(&secrets, coordinate))
            .collect()
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let mut secrets = self.secrets.lock();
        writes
            .iter()
            .map(|write| self.write_one(&mut secrets, write))
            .collect()
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        options: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let mut secrets = self.secrets.lock();
        let recoverable = self.capabilities.recovery && options.recovery != Recovery::Immediate;
        for coordinate in coordinates {
            if !recoverable {
                secrets.remove(coordinate.as_str());
            } else if let Some(stored) = secrets.by_name.get_mut(coordinate.as_str()) {
                stored.pending_deletion = true;
            }
        }
        vec![Ok(()); coordinates.len()]
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let fail = |kind, message| {
            Err(self
                .error(Operation::Restore, kind, message)
                .with_coordinate(coordinate.shared()))
        };
        if !self.capabilities.recovery {
            return fail(ErrorKind::Unsupported, "this store has no recovery");
        }
        match self.secrets.lock().by_name.get_mut(coordinate.as_str()) {
            None => fail(
                ErrorKind::NotFound,
                "the store does not have a secret of this name",
            ),
            Some(stored) => {
                stored.pending_deletion = false;
                Ok(())
            }
        }
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        if self.capabilities.listing == Listing::None {
            return Err(self.error(
                Operation::List,
                ErrorKind::Unsupported,
                "this store cannot list",
            ));
        }
        let mut secrets = self.secrets.lock();
        let secrets = secrets.in_order();
        let from = secrets.partition_point(|name, _| match after {
            Some(cursor) => **name <= *cursor.as_str(),
            None => **name < *options.prefix,
        });
        let limit = options.page_size.unwrap_or(DEFAULT_PAGE).max(1);
        let mut page = Page::default();
        let mut last = None;
        for (seen, (name, stored)) in secrets[from..]
            .iter()
            .take_while(|(name, _)| name.starts_with(&options.prefix))
            .enumerate()
        {
            if seen == limit {
                page.next = last.map(|name: &Arc<str>| Cursor::new(&**name));
                break;
            }
            last = Some(name);
            match ManagedCoordinate::parse(name) {
                Err(_) => page.skipped += 1,
                Ok(_) if stored.pending_deletion && !options.deleted => {}
                Ok(coordinate) => page.entries.push(stored.entry(coordinate)),
            }
        }
        Ok(page)
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.secrets
            .lock()
            .by_name
            .get(coordinate.as_str())
            .map(|stored| stored.entry(coordinate.clone()))
            .ok_or_else(|| {
                self.error(
                    Operation::Describe,
                    ErrorKind::NotFound,
                    "the store does not have a secret of this name",
                )
                .with_coordinate(coordinate.shared())
            })
    }

    async fn identity(&self) -> Result<Identity> {
        Ok(Identity::new(
            "memory",
            "this process",
            // Two stores in one process have two locations, which a migration between them must
            // see.
            format!("store {} in this process's memory", self.number),
        ))
    }
}

impl Stored {
    fn entry(&self, coordinate: ManagedCoordinate) -> Entry {
        Entry::new(coordinate)
            .with_owner(self.owner.as_ref().map(ToString::to_string))
            .with_created(Some(self.created))
            .with_expires(self.expires)
            .with_pending_deletion(self.pending_deletion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listing_is_in_order_whatever_changes_between_its_pages() {
        let store = Memory::new();
        let name = |index: usize| format!("airbyte_workspace_{index:02}_v1");
        let insert = |index| store.insert(&name(index), SecretValue::new("value".to_owned()));
        [7, 1, 9, 3, 5].into_iter().for_each(insert);
        let options = ListOptions::default().with_page_size(2);
        let names = |page: &Page| -> Vec<String> {
            let entries = page.entries.iter();
            entries.map(|entry| entry.coordinate.to_string()).collect()
        };
        let first = store.list_page(&options, None).await.unwrap();
        assert_eq!(names(&first), [name(1), name(3)]);
        // The cursor's own name goes, another one comes before it and one after it.
        store.remove(&name(3));
        [2, 4].into_iter().for_each(insert);
        let second = store
            .list_page(&options, first.next.as_ref())
            .await
            .unwrap();
        assert_eq!(names(&second), [name(4), name(5)]);
        let third = store
            .list_page(&options, second.next.as_ref())
            .await
            .unwrap();
        assert_eq!(names(&third), [name(7), name(9)]);
        assert_eq!(third.next, None);
    }
}
