//! The operations of both engines on rows. Only the implementations expose values.

use std::collections::HashSet;

use async_trait::async_trait;
use secret_persistence_core::{Error, ErrorKind, Result, SecretValue};

use crate::describe::Describe;
use crate::envelope::Sealed;
use crate::schema::Layout;

/// One table in one database. Errors lack operation, store and coordinate, which the caller adds.
#[async_trait]
pub(crate) trait Client: Describe {
    /// The columns that the table has.
    fn layout(&self) -> Layout;

    /// The rows of these names, each with the place of its name, in any order. Missing names have
    /// no row.
    async fn read(&self, names: &[&str], columns: Columns) -> Result<Vec<(usize, Row)>>;

    /// The rows of these names with the columns of an encrypted value joined to one, which costs
    /// less than half. `None` if the engine does not join: then [`read`](Self::read) is as good.
    async fn read_joined(&self, names: &[&str], key_id: &str) -> Result<Option<Vec<JoinedRow>>>;

    /// Inserts the rows with new names, and returns which ones. Existing rows stay unchanged.
    async fn insert(&self, rows: &Rows<'_>) -> Result<Inserted>;

    /// Deletes the rows of these names, all or none. A missing name is not an error.
    async fn delete(&self, names: &[&str]) -> Result<()>;

    /// At most `limit` names after `after` that begin with `prefix`, in the table's order.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Head>>;

    /// At most `limit` rows of a kind after one name and up to another, each with its name, in the
    /// table's order.
    async fn scan(
        &self,
        filter: &Filter,
        after: Option<&str>,
        upto: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>>;

    /// The last of at most `rows` names after a name, and how many there are, in the table's order.
    async fn range_end(&self, after: Option<&str>, rows: usize) -> Result<Option<(String, u64)>>;

    async fn count(&self, filter: &Filter) -> Result<u64>;

    /// Replaces each row that is unchanged, and returns which ones.
    async fn swap(&self, swaps: &[Swap]) -> Result<HashSet<String>>;

    /// All entries of the second table; none if it is missing.
    async fn meta(&self) -> Result<Vec<(String, Vec<u8>)>>;

    /// Adds an entry. Replaces an existing one only if `replace` is set.
    async fn put_meta(&self, name: &str, value: &[u8], replace: bool) -> Result<()>;

    async fn remove_meta(&self, name: &str) -> Result<()>;

    /// Waits until all statements that began earlier have stopped writing.
    async fn barrier(&self) -> Result<()>;

    /// Rewrites the table, so that its free space contains no old values. SQLite always does;
    /// Postgres only on request and if the role is allowed to. Returns whether the table was
    /// rewritten. `still` is called from time to time while that goes on, also while it waits for readers.
    async fn scrub(&self, asked: bool, still: &(dyn Fn() + Sync)) -> Result<bool>;

    /// Whether it is a file of this machine, which no process of another one has.
    fn is_file(&self) -> bool {
        false
    }

    /// Where old values remain in any case, and what to do about it.
    fn out_of_reach(&self) -> &'static [&'static str];

    /// The identity that the database knows us by.
    async fn principal(&self) -> Result<String>;

    async fn close(&self);
}

/// The columns that a read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// The columns of every table, and the expiry if the table has it.
    Plain,
    /// All columns of a value.
    Sealed,
}

/// One row of the table, as stored.
pub(crate) struct Row {
    pub(crate) expires: Option<i64>,
    pub(crate) content: Result<Content>,
}

/// One row of [`Client::read_joined`].
pub(crate) struct JoinedRow {
    /// The place of its name in the names that were asked for.
    pub(crate) place: usize,
    pub(crate) expires: Option<i64>,
    /// For [`open_joined`](crate::envelope::open_joined). `None` if the row is not encrypted under
    /// the key, or lacks a column.
    pub(crate) value: Option<Vec<u8>>,
}

/// The contents of a value's columns, not interpreted.
pub(crate) struct Content {
    pub(crate) payload: Option<SecretValue>,
    pub(crate) ciphertext: Option<Vec<u8>>,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) wrapped_key: Option<Vec<u8>>,
    pub(crate) key_nonce: Option<Vec<u8>>,
    pub(crate) key_id: Option<String>,
}

impl Content {
    pub(crate) fn plain(payload: Option<SecretValue>) -> Self {
        Self {
            payload,
            ciphertext: None,
            nonce: None,
            wrapped_key: None,
            key_nonce: None,
            key_id: None,
        }
    }

    /// Whether any column of an encrypted row has a value.
    pub(crate) fn is_touched_by_encryption(&self) -> bool {
        self.ciphertext.is_some()
            || self.nonce.is_some()
            || self.wrapped_key.is_some()
            || self.key_nonce.is_some()
            || self.key_id.is_some()
    }

    /// The encrypted columns, if all of them have a value and `payload` does not; otherwise
    /// `payload`.
    pub(crate) fn into_sealed(self) -> Result<Sealed, Option<SecretValue>> {
        match self {
            Self {
                payload: None,
                ciphertext: Some(ciphertext),
                nonce: Some(nonce),
                wrapped_key: Some(wrapped_key),
                key_nonce: Some(key_nonce),
                key_id: Some(key_id),
            } => Ok(Sealed {
                ciphertext,
                nonce,
                wrapped_key,
                key_nonce,
                key_id,
            }),
            other => Err(other.payload),
        }
    }

    /// The same as a copy.
    pub(crate) fn to_sealed(&self) -> Option<Sealed> {
        if self.payload.is_some() {
            return None;
        }
        Some(Sealed {
            ciphertext: self.ciphertext.clone()?,
            nonce: self.nonce.clone()?,
            wrapped_key: self.wrapped_key.clone()?,
            key_nonce: self.key_nonce.clone()?,
            key_id: self.key_id.clone()?,
        })
    }
}

/// The rows that were inserted.
pub(crate) enum Inserted {
    /// All: the usual case, in which the engine need not list them.
    All,
    /// Those with these names.
    Only(HashSet<String>),
}

impl Inserted {
    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Rows to insert: all plain, or all encrypted under one key.
pub(crate) struct Rows<'a> {
    pub(crate) owner: Option<&'a str>,
    pub(crate) created: i64,
    /// Name and expiry, in the order of `values`.
    pub(crate) names: Vec<(&'a str, Option<i64>)>,
    pub(crate) values: Values<'a>,
}

pub(crate) enum Values<'a> {
    Plain(Vec<&'a SecretValue>),
    Sealed {
        key_id: &'a str,
        values: Vec<Sealed>,
    },
}

/// The columns of a row besides its value.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) coordinate: String,
    pub(crate) owner: Option<String>,
    pub(crate) created: Option<i64>,
    pub(crate) expires: Option<i64>,
    pub(crate) key_id: Option<String>,
}

/// The rows that a conversion reads.
pub(crate) enum Filter {
    /// Encrypted under any key.
    Sealed,
    /// Encrypted under another key than this one.
    SealedNotUnder(String),
    /// Encrypted under this key.
    SealedUnder(String),
    /// With a plain value.
    Plain,
}

/// One row before and after a change.
pub(crate) struct Swap {
    pub(crate) coordinate: String,
    pub(crate) expires: Option<i64>,
    pub(crate) before: Before,
    pub(crate) after: Sealed,
}

pub(crate) enum Before {
    Plain(SecretValue),
    /// The wrapped key, which is unique for each row.
    Sealed(Vec<u8>),
}

/// Decodes a row by position: its name or place, expires, payload, and for [`Columns::Sealed`]
/// ciphertext, nonce, wrapped key, key nonce, key id. The caller decodes the first. A damaged value
/// affects only its own row.
pub(crate) fn decode<R>(row: &R, columns: Columns) -> Row
where
    R: sqlx::Row,
    usize: sqlx::ColumnIndex<R>,
    for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> Vec<u8>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let expires = row.try_get::<Option<i64>, _>(1);
    let content = || -> Result<Content, sqlx::Error> {
        let payload = row.try_get::<Option<String>, _>(2)?.map(SecretValue::new);
        Ok(match columns {
            Columns::Plain => Content::plain(payload),
            Columns::Sealed => Content {
                payload,
                ciphertext: row.try_get(3)?,
                nonce: row.try_get(4)?,
                wrapped_key: row.try_get(5)?,
                key_nonce: row.try_get(6)?,
                key_id: row.try_get(7)?,
            },
        })
    };
    Row {
        expires: *expires.as_ref().unwrap_or(&None),
        content: expires.and_then(|_| content()).map_err(|_| {
            Error::new(
                ErrorKind::Integrity,
                "the row was altered or damaged: a column has another type than text",
            )
        }),
    }
}

/// Decodes a row without its value, by position: coordinate, owner, created, expires, key id.
pub(crate) fn decode_head<R>(row: &R) -> Result<Head, sqlx::Error>
where
    R: sqlx::Row,
    usize: sqlx::ColumnIndex<R>,
    for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    Ok(Head {
        coordinate: row.try_get(0)?,
        owner: row.try_get(1)?,
        created: row.try_get(2)?,
        expires: row.try_get(3)?,
        key_id: row.try_get(4)?,
    })
}

/// The statement of [`Client::range_end`] for a quoted table.
pub(crate) fn range_end(table: &str) -> String {
    format!(
        "SELECT coordinate, number FROM ( \
            SELECT coordinate, row_number() OVER (ORDER BY coordinate) AS number FROM ( \
                SELECT coordinate FROM {table} WHERE coordinate > $1 ORDER BY coordinate LIMIT $2) AS next) AS numbered \
         ORDER BY number DESC LIMIT 1"
    )
}

/// Decodes the row of [`Client::range_end`], by position: coordinate, number.
pub(crate) fn decode_end<R>(row: &R) -> Result<(String, u64), sqlx::Error>
where
    R: sqlx::Row,
    usize: sqlx::ColumnIndex<R>,
    for<'r> String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    for<'r> i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?.unsigned_abs()))
}
