//! What both engines do with a table, in terms of rows. Values are exposed here and no higher up.

use std::collections::HashSet;

use async_trait::async_trait;
use secret_persistence_core::{Error, ErrorKind, Result, SecretValue};

use crate::envelope::Sealed;
use crate::schema::Layout;

/// One database and one table in it. Errors lack operation, store and coordinate, which the caller adds.
#[async_trait]
pub(crate) trait Client: Send + Sync {
    /// Which of our columns the table has.
    fn layout(&self) -> Layout;

    /// The rows of these names, in any order; none for a name that is missing.
    async fn read(&self, names: &[&str], columns: Columns) -> Result<Vec<Row>>;

    /// Inserts rows whose name is new, and says which those were. The others stay as they are.
    async fn insert(&self, rows: &Rows<'_>) -> Result<Inserted>;

    async fn delete(&self, name: &str) -> Result<()>;

    /// At most `limit` names in the table's order after `after` that begin with `prefix`.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<Head>>;

    async fn describe(&self, name: &str) -> Result<Option<Head>>;

    /// At most `limit` rows of a kind in the table's order after `after`.
    async fn scan(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Vec<Row>>;

    async fn count(&self, filter: &Filter) -> Result<u64>;

    /// Replaces each row that still is what it was, and says which those were.
    async fn swap(&self, swaps: &[Swap]) -> Result<HashSet<String>>;

    /// Everything in the second table; nothing where that is missing.
    async fn meta(&self) -> Result<Vec<(String, Vec<u8>)>>;

    /// Adds an entry, or replaces it where `replace` says so.
    async fn put_meta(&self, name: &str, value: &[u8], replace: bool) -> Result<()>;

    async fn remove_meta(&self, name: &str) -> Result<()>;

    /// Waits until no statement that began before is still writing.
    async fn barrier(&self) -> Result<()>;

    /// Rewrites the table, so that no old value lingers in its free space. SQLite does in any case;
    /// Postgres only where it is asked and the role may. Says whether it is done.
    async fn scrub(&self, asked: bool) -> Result<bool>;

    /// Where old values stay whatever we do, and what to do about it.
    fn out_of_reach(&self) -> &'static [&'static str];

    /// Who the database takes us for.
    async fn principal(&self) -> Result<String>;

    async fn close(&self);
}

/// Which columns a read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Columns {
    /// Those of the table as it may always have been, and the expiry where there is one.
    Plain,
    /// All that make up a value.
    Sealed,
}

/// One row of the table, as it is.
pub(crate) struct Row {
    pub(crate) coordinate: String,
    pub(crate) expires: Option<i64>,
    pub(crate) content: Result<Content>,
}

/// What the columns of a value hold, whatever that means.
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

    /// Whether any column of an encrypted row is filled.
    pub(crate) fn is_touched_by_encryption(&self) -> bool {
        self.ciphertext.is_some()
            || self.nonce.is_some()
            || self.wrapped_key.is_some()
            || self.key_nonce.is_some()
            || self.key_id.is_some()
    }

    /// The encrypted columns, where all of them are filled and `payload` is not; else `payload`.
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

/// Which rows were inserted.
pub(crate) enum Inserted {
    /// All of them: the usual case, in which no engine has to list them.
    All,
    /// Those of these names.
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

/// Rows to be inserted, all plain or all encrypted under one key.
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

/// What is known of a row without its value.
pub(crate) struct Head {
    pub(crate) coordinate: String,
    pub(crate) owner: Option<String>,
    pub(crate) created: Option<i64>,
    pub(crate) expires: Option<i64>,
    pub(crate) key_id: Option<String>,
}

/// Which rows a conversion goes through.
pub(crate) enum Filter {
    /// Encrypted under whatever key.
    Sealed,
    /// Encrypted under another key than this one.
    SealedNotUnder(String),
    /// Encrypted under this key.
    SealedUnder(String),
    /// With a plain value.
    Plain,
}

/// One row before and after.
pub(crate) struct Swap {
    pub(crate) coordinate: String,
    pub(crate) expires: Option<i64>,
    pub(crate) before: Before,
    pub(crate) after: Sealed,
}

pub(crate) enum Before {
    Plain(SecretValue),
    /// The wrapped key, which no two rows have in common.
    Sealed(Vec<u8>),
}

/// Decodes a row by position: coordinate, expires, payload, and for [`Columns::Sealed`] ciphertext,
/// nonce, wrapped key, key nonce, key id. A damaged value spoils its own row only.
pub(crate) fn decode<R>(row: &R, columns: Columns) -> Result<Row, sqlx::Error>
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
    Ok(Row {
        coordinate: row.try_get(0)?,
        expires: *expires.as_ref().unwrap_or(&None),
        content: expires.and_then(|_| content()).map_err(|_| {
            Error::new(
                ErrorKind::Integrity,
                "the row was altered or damaged: a column has another type than text",
            )
        }),
    })
}

/// Decodes what is known of a row without its value: coordinate, owner, created, expires, key id.
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
