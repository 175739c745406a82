//! The store: implements [`SecretPersistence`] on a table.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secret_persistence_core::{
    Capabilities, Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry,
    Identity, ListOptions, Listing, ManagedCoordinate, Operation, Owner, Page, Read, Result,
    SecretPersistence, SecretValue, Timestamp, Write, Written,
};
use tokio::sync::OnceCell;

use crate::absent::Absent;
use crate::client::{Client, Columns, Content, Head, Inserted, Rows, Values};
use crate::config::{Config, Mode, Target};
use crate::describe::Describer;
use crate::envelope::{Binding, Sealed, open_joined};
use crate::keyring::KeyRing;
use crate::ring_check;

/// Maximum names per query. One query could read more, but the result is in memory.
pub(crate) const READ_BATCH: usize = 5_000;
/// Maximum rows per insert, which is one transaction, and waits for the disk once. With the largest values it stays
/// below the limit of a Postgres message, 1 GiB.
const WRITE_BATCH: usize = 1_000;
/// Maximum names per delete. One delete is one transaction, which others wait for.
const DELETE_BATCH: usize = 1_000;
/// The largest value. Far above any key file, and far below the limits of both engines.
const MAX_VALUE_BYTES: usize = 1 << 20;
const DEFAULT_PAGE: usize = 1_000;
/// How many values are decrypted before other tasks get their turn: about a millisecond of work.
const YIELD_AFTER: usize = 256;
/// Maximum concurrent calls for SQLite; they share four readers and one writer.
#[cfg(feature = "sqlite")]
const SQLITE_CONCURRENCY: usize = 16;

/// A table of secrets in SQLite or Postgres. Clones share it. The [crate's page](crate) has an
/// example.
///
/// Calls of [`describe`](SecretPersistence::describe) that wait at the same moment share one statement
/// of up to 1,000 names; one alone has its own. A caller that gives up takes nothing from the others.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    client: Arc<dyn Client>,
    describer: Arc<Describer>,
    engine: &'static str,
    location: String,
    mode: Mode,
    ring: Option<KeyRing>,
    owner: Option<Owner>,
    capabilities: Capabilities,
    /// Whether the table is known to contain the active key's check value.
    registered: OnceCell<()>,
}

impl Database {
    /// Opens a table. If it is missing, the setting `create` decides: it is created, opening fails,
    /// or it counts as empty and refuses every change. Runs no DDL on an existing table.
    ///
    /// Opening a plain table logs a warning once: anyone who can read the database, its backups or
    /// its write-ahead log can read the secrets.
    ///
    /// # Errors
    /// If the database cannot be reached or used, each cause with its remedy; `InvalidConfig` if
    /// the table lacks columns that the mode needs (run [`prepare`](Self::prepare)), and if the key
    /// ring does not match the table.
    pub async fn connect(config: Config) -> Result<Self> {
        let store: Arc<str> = config.to_string().into();
        Self::open(config)
            .await
            .map_err(|error| error.with_operation(Operation::Open).with_store(store))
    }

    /// Returns the SQL that adds our missing columns: owner, created, expires and those of
    /// encrypted values. Runs nothing.
    ///
    /// # Errors
    /// If the database cannot be reached, or the table has another layout.
    pub async fn prepare_sql(config: &Config) -> Result<Vec<String>> {
        Self::prepared(config, false).await
    }

    /// Runs the SQL of [`prepare_sql`](Self::prepare_sql) and returns it. Open stores keep using
    /// the columns that they found when they opened.
    ///
    /// # Errors
    /// As for [`prepare_sql`](Self::prepare_sql); `PermissionDenied` if the role may not alter the
    /// table.
    pub async fn prepare(config: &Config) -> Result<Vec<String>> {
        Self::prepared(config, true).await
    }

    /// The rows that the store accepts.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.inner.mode
    }

    /// Closes all connections. SQLite then truncates its log.
    pub async fn close(&self) {
        self.inner.client.close().await;
    }

    async fn open(config: Config) -> Result<Self> {
        let (client, engine, location, concurrency): (Arc<dyn Client>, _, _, _) =
            match &config.target {
                #[cfg(feature = "sqlite")]
                Target::Sqlite(path) => (
                    match crate::sqlite::SqliteClient::open(path, &config).await? {
                        Some(client) => Arc::new(client),
                        None => absent(&config),
                    },
                    "sqlite",
                    crate::sqlite::place(path, &config),
                    SQLITE_CONCURRENCY,
                ),
                #[cfg(feature = "postgres")]
                Target::Postgres(target) => (
                    match crate::postgres::PostgresClient::open(target, &config).await? {
                        Some(client) => Arc::new(client),
                        None => absent(&config),
                    },
                    "postgres",
                    format!("{target} table {}", config.table),
                    config.pool_size as usize,
                ),
                #[allow(unreachable_patterns)]
                other => return Err(not_built_in(other)),
            };
        let layout = client.layout();
        if config.mode != Mode::Plain {
            if !(layout.sealed && layout.expires && layout.meta) {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "the table lacks the columns of encrypted values",
                )
                .with_hint("run prepare, which prints the SQL and runs it on request"));
            }
            if layout.payload_required {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "the column `payload` is NOT NULL, and is empty in encrypted rows",
                )
                .with_hint("drop its NOT NULL constraint (prepare does this on Postgres)"));
            }
        }
        ring_check::at_open(&*client, config.mode, config.ring.as_ref()).await?;
        if config.mode == Mode::Plain {
            tracing::warn!(
                store = %config,
                "secrets are stored in plain text: anyone who can read this database or its backups can read them"
            );
        }
        let capabilities = Capabilities {
            read_batch: READ_BATCH,
            write_batch: WRITE_BATCH,
            delete_batch: DELETE_BATCH,
            concurrency,
            max_value_bytes: MAX_VALUE_BYTES,
            atomic_create: true,
            // Postgres text cannot contain it; bytes and SQLite can.
            nul: config.mode != Mode::Plain || engine == "sqlite",
            owner: layout.owner,
            expiry: if layout.expires {
                Expiry::Swept
            } else {
                Expiry::None
            },
            reads_expiry: layout.expires,
            listing: Listing::Immediate,
            cost: Cost {
                // A second statement over a file, for rows that cannot be read joined, is no request.
                // The insert; where a name exists, the insert of the others and the read of existing rows for
                // comparison; and, once per process, the check value of the active key.
                write: if config.mode == Mode::Plain { 3 } else { 5 },
                ..Cost::ONE
            },
            ..Capabilities::LEAST
        };
        Ok(Self {
            inner: Arc::new(Inner {
                describer: Describer::new(Arc::clone(&client) as _, config.connect_timeout),
                client,
                engine,
                location,
                mode: config.mode,
                ring: config.ring,
                owner: config.owner,
                capabilities,
                registered: OnceCell::new(),
            }),
        })
    }

    async fn prepared(config: &Config, apply: bool) -> Result<Vec<String>> {
        let statements = match &config.target {
            #[cfg(feature = "sqlite")]
            Target::Sqlite(path) => crate::sqlite::SqliteClient::prepare(path, config, apply).await,
            #[cfg(feature = "postgres")]
            Target::Postgres(target) => {
                crate::postgres::PostgresClient::prepare(target, config, apply).await
            }
            #[allow(unreachable_patterns)]
            other => Err(not_built_in(other)),
        };
        statements.map_err(|error| {
            error
                .with_operation(Operation::Open)
                .with_store(config.to_string())
        })
    }

    pub(crate) fn client(&self) -> &dyn Client {
        &*self.inner.client
    }

    /// The key ring, if rows may be encrypted.
    pub(crate) fn ring(&self) -> Option<&KeyRing> {
        self.inner.ring.as_ref()
    }

    /// Ensures that the active key may be used for writing; checked once.
    pub(crate) async fn registered(&self, ring: &KeyRing) -> Result<()> {
        self.inner
            .registered
            .get_or_try_init(|| ring_check::register(self.client(), ring))
            .await
            .copied()
    }

    pub(crate) fn failed(&self, operation: Operation) -> impl Fn(Error) -> Error + '_ {
        move |error| error.with_operation(operation).with_store(self.to_string())
    }

    /// The value of a row, if the mode accepts it.
    fn value(&self, binding: Binding<'_>, content: Result<Content>) -> Result<Read> {
        let content = content?;
        let half = content.is_touched_by_encryption();
        let value = match (self.inner.mode, &self.inner.ring) {
            (Mode::Plain, _) | (_, None) => content.payload.ok_or_else(|| {
                altered("it does not contain a plain value")
                    .with_hint("if the table is encrypted, set its key ring and mode=encrypted")
            })?,
            (mode, Some(ring)) => match content.into_sealed() {
                Ok(sealed) => sealed.open(ring, binding)?,
                Err(Some(value)) if mode == Mode::Converting && !half => value,
                Err(Some(_)) => {
                    return Err(altered(
                        "it contains a plain value, but only encrypted ones are accepted",
                    )
                    .with_hint(
                        "if the table is being converted, set mode=converting until encrypt is done",
                    ));
                }
                Err(None) => {
                    return Err(altered("columns of its encrypted value are NULL"));
                }
            },
        };
        read(value, binding.expires)
    }

    /// The values of these names, in their order; `None` for a name without a row.
    async fn read_values(&self, names: &[&str]) -> Result<Vec<Option<Result<Read>>>> {
        let mut values: Vec<_> = names.iter().map(|_| None).collect();
        let rest = match (self.inner.mode, &self.inner.ring) {
            (Mode::Encrypted, Some(ring)) => self.read_joined(ring, names, &mut values).await?,
            _ => None,
        };
        let (columns, asked): (_, Vec<&str>) = match (self.inner.mode, &rest) {
            (Mode::Plain, _) => (Columns::Plain, names.to_vec()),
            (_, None) => (Columns::Sealed, names.to_vec()),
            (_, Some(rest)) if rest.is_empty() => return Ok(values),
            (_, Some(rest)) => (Columns::Sealed, rest.iter().map(|&at| names[at]).collect()),
        };
        let rows = self.client().read(&asked, columns).await?;
        for (index, (at, row)) in rows.into_iter().enumerate() {
            yield_between(index, columns).await;
            let at = rest.as_ref().map_or(at, |rest| rest[at]);
            let binding = Binding {
                coordinate: names[at],
                expires: row.expires,
            };
            values[at] = Some(self.value(binding, row.content));
        }
        Ok(values)
    }

    /// Reads the values under the active key where the engine joins columns. Returns the places of
    /// rows that have to be read by column, which also say what is wrong with a row, or `None` for
    /// all.
    async fn read_joined(
        &self,
        ring: &KeyRing,
        names: &[&str],
        values: &mut [Option<Result<Read>>],
    ) -> Result<Option<Vec<usize>>> {
        let active = ring.active().as_str();
        let Some(rows) = self.client().read_joined(names, active).await? else {
            return Ok(None);
        };
        let mut rest = Vec::new();
        for (index, row) in rows.into_iter().enumerate() {
            yield_between(index, Columns::Sealed).await;
            let binding = Binding {
                coordinate: names[row.place],
                expires: row.expires,
            };
            match row
                .value
                .and_then(|value| open_joined(value, ring, binding))
            {
                Some(value) => values[row.place] = Some(read(value, row.expires)),
                None => rest.push(row.place),
            }
        }
        Ok(Some(rest))
    }

    /// Inserts new rows, then compares existing ones.
    async fn write_rows(&self, writes: &[&Write]) -> Result<Vec<Result<Written>>> {
        let seconds = |write: &Write| write.expires.map(Timestamp::unix_seconds);
        let values = match (self.inner.mode, &self.inner.ring) {
            (Mode::Plain, _) | (_, None) => {
                Values::Plain(writes.iter().map(|write| &write.value).collect())
            }
            (_, Some(ring)) => {
                self.registered(ring).await?;
                let values = writes
                    .iter()
                    .map(|write| {
                        let binding = Binding {
                            coordinate: write.coordinate.as_str(),
                            expires: seconds(write),
                        };
                        Sealed::seal(ring, binding, &write.value)
                    })
                    .collect::<Result<_>>()?;
                Values::Sealed {
                    key_id: ring.active().as_str(),
                    values,
                }
            }
        };
        let rows = Rows {
            owner: self.inner.owner.as_ref().map(Owner::as_str),
            created: Timestamp::now().unix_seconds(),
            names: writes
                .iter()
                .map(|write| (write.coordinate.as_str(), seconds(write)))
                .collect(),
            values,
        };
        let inserted = self.client().insert(&rows).await?;
        if matches!(inserted, Inserted::All) {
            return Ok(vec![Ok(Written::Created); writes.len()]);
        }
        let present: Vec<&str> = writes
            .iter()
            .map(|write| write.coordinate.as_str())
            .filter(|name| !inserted.contains(name))
            .collect();
        let mut present = self.read_values(&present).await?.into_iter();
        Ok(writes
            .iter()
            .map(|write| {
                if inserted.contains(write.coordinate.as_str()) {
                    return Ok(Written::Created);
                }
                match present.next().flatten() {
                    Some(Ok(read)) if read.value == write.value => Ok(Written::AlreadySame),
                    Some(Ok(_)) => Err(Error::new(
                        ErrorKind::AlreadyExists,
                        "the name already has another value",
                    )),
                    Some(Err(error)) => Err(error),
                    None => Err(self.vanished()),
                }
            })
            .collect())
    }

    /// A row that was not inserted and does not exist.
    fn vanished(&self) -> Error {
        match &self.inner.ring {
            // An insert with a key without a check value inserts nothing.
            Some(ring) if self.inner.mode != Mode::Plain => ring_check::retired(ring.active()),
            _ => Error::new(ErrorKind::Conflict, "the name was deleted concurrently"),
        }
    }

    fn entry(head: Head, coordinate: ManagedCoordinate) -> Entry {
        // An invalid time is no reason to hide the name: a sweep then ignores it.
        let time =
            |seconds: Option<i64>| seconds.and_then(|at| Timestamp::from_unix_seconds(at).ok());
        Entry::new(coordinate)
            .with_owner(head.owner)
            .with_created(time(head.created))
            .with_expires(time(head.expires))
            .with_key(head.key_id)
    }
}

#[async_trait]
impl SecretPersistence for Database {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities
    }

    async fn read_batch(&self, coordinates: &[Coordinate]) -> Vec<Result<Read>> {
        if coordinates.is_empty() {
            return Vec::new();
        }
        let failed = self.failed(Operation::Read);
        let names: Vec<&str> = coordinates.iter().map(Coordinate::as_str).collect();
        match self.read_values(&names).await {
            Ok(values) => coordinates
                .iter()
                .zip(values)
                .map(|(coordinate, value)| {
                    value
                        .unwrap_or_else(|| {
                            Err(Error::new(
                                ErrorKind::NotFound,
                                "the store does not have a secret of this name",
                            ))
                        })
                        .map_err(|error| failed(error).with_coordinate(coordinate.shared()))
                })
                .collect(),
            Err(error) => {
                let error = failed(error);
                coordinates
                    .iter()
                    .map(|coordinate| Err(error.clone().with_coordinate(coordinate.shared())))
                    .collect()
            }
        }
    }

    async fn write_batch(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let failed = self.failed(Operation::Write);
        let refused: Vec<Result<()>> = writes
            .iter()
            .map(|write| self.inner.capabilities.accepts(write))
            .collect();
        let accepted: Vec<&Write> = writes
            .iter()
            .zip(&refused)
            .filter(|(_, refused)| refused.is_ok())
            .map(|(write, _)| write)
            .collect();
        let mut results = if accepted.is_empty() {
            Vec::new()
        } else {
            self.write_rows(&accepted)
                .await
                .unwrap_or_else(|error| vec![Err(error); accepted.len()])
        }
        .into_iter();
        writes
            .iter()
            .zip(refused)
            .map(|(write, refused)| {
                refused
                    .and_then(|()| {
                        results.next().unwrap_or_else(|| {
                            Err(Error::new(ErrorKind::Unexpected, "a result is missing"))
                        })
                    })
                    .map_err(|error| failed(error).with_coordinate(write.coordinate.shared()))
            })
            .collect()
    }

    async fn delete_batch(
        &self,
        coordinates: &[ManagedCoordinate],
        _: &DeleteOptions,
    ) -> Vec<Result<()>> {
        let names: Vec<&str> = coordinates.iter().map(ManagedCoordinate::as_str).collect();
        // One statement: all of them or none.
        let deleted = self.client().delete(&names).await;
        let deleted = deleted.map_err(self.failed(Operation::Delete));
        coordinates
            .iter()
            .map(|coordinate| {
                deleted
                    .clone()
                    .map_err(|error| error.with_coordinate(coordinate.shared()))
            })
            .collect()
    }

    async fn restore(&self, coordinate: &ManagedCoordinate) -> Result<()> {
        let error = Error::new(
            ErrorKind::Unsupported,
            "a database does not support recovery",
        )
        .with_hint("restore a backup");
        Err(self.failed(Operation::Restore)(error).with_coordinate(coordinate.shared()))
    }

    async fn list_page(&self, options: &ListOptions, after: Option<&Cursor>) -> Result<Page> {
        let limit = options.page_size.unwrap_or(DEFAULT_PAGE).max(1);
        let heads = self
            .client()
            .list(&options.prefix, after.map(Cursor::as_str), limit)
            .await
            .map_err(self.failed(Operation::List))?;
        let next = heads
            .last()
            .filter(|_| heads.len() == limit)
            .map(|head| Cursor::new(head.coordinate.as_str()));
        let mut entries = Vec::with_capacity(heads.len());
        let mut skipped = 0;
        for head in heads {
            match ManagedCoordinate::parse(&head.coordinate) {
                Ok(coordinate) => entries.push(Self::entry(head, coordinate)),
                Err(_) => skipped += 1,
            }
        }
        Ok(Page::new(entries, next).with_skipped(skipped))
    }

    async fn describe(&self, coordinate: &ManagedCoordinate) -> Result<Entry> {
        self.inner
            .describer
            .describe(coordinate.as_str())
            .await
            .and_then(|head| {
                head.ok_or_else(|| {
                    Error::new(
                        ErrorKind::NotFound,
                        "the store does not have a secret of this name",
                    )
                })
            })
            .map(|head| Self::entry(head, coordinate.clone()))
            .map_err(self.failed(Operation::Describe))
            .map_err(|error| error.with_coordinate(coordinate.shared()))
    }

    async fn identity(&self) -> Result<Identity> {
        let principal = self
            .client()
            .principal()
            .await
            .map_err(self.failed(Operation::Identity))?;
        Ok(Identity::new(
            self.inner.engine,
            principal,
            self.inner.location.clone(),
        ))
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.inner.engine, self.inner.location)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("store", &format_args!("{self}"))
            .field("mode", &self.inner.mode)
            .field("ring", &self.inner.ring)
            .field("owner", &self.inner.owner)
            .finish_non_exhaustive()
    }
}

/// A value with its expiry as in the column.
fn read(value: SecretValue, expires: Option<i64>) -> Result<Read> {
    let expires = expires
        .map(Timestamp::from_unix_seconds)
        .transpose()
        .map_err(|_| altered("its expiry is not a valid time"))?;
    Ok(Read::new(value).with_expires(expires))
}

/// Thousands of decryptions in a row would block other tasks on this thread.
async fn yield_between(index: usize, columns: Columns) {
    if index % YIELD_AFTER == YIELD_AFTER - 1 && columns == Columns::Sealed {
        tokio::task::yield_now().await;
    }
}

fn altered(what: &str) -> Error {
    Error::new(
        ErrorKind::Integrity,
        format!("the row was altered or damaged: {what}"),
    )
}

fn absent(config: &Config) -> Arc<dyn Client> {
    Arc::new(Absent {
        name: config.to_string(),
    })
}

fn not_built_in(target: &Target) -> Error {
    let (engine, feature) = match target {
        Target::Postgres(_) => ("Postgres", "postgres"),
        Target::Sqlite(_) => ("SQLite", "sqlite"),
    };
    Error::new(ErrorKind::Unsupported, format!("{engine} is not built in"))
        .with_hint(format!("build with the feature `{feature}`"))
}
