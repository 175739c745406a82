//! Rows of the caller's database whose tokens are refreshed: leases, open records and an outbox
//! beside the caller's table.

#[cfg(feature = "postgres")]
mod postgres;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "postgres")]
pub use postgres::PostgresRefreshRows;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteRefreshRows;

use crate::naming::TableName;

/// The caller's table of connectors, and its columns.
///
/// The id may be of any type that compares with its text. The configuration is JSON: text, or
/// Postgres' `json` or `jsonb`. The revision is an integer that grows by one with every save of the
/// row, by anyone; a save that leaves it alone would be overwritten.
///
/// ```
/// use secret_persistence_db::RowTable;
///
/// let table = RowTable::new("public.connectors".parse()?).with_revision("version");
/// # Ok::<(), secret_persistence_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RowTable {
    table: TableName,
    id: String,
    configuration: String,
    revision: String,
}

impl RowTable {
    /// Creates the description of a table with the columns `id`, `configuration` and `revision`.
    #[must_use]
    pub fn new(table: TableName) -> Self {
        Self {
            table,
            id: String::from("id"),
            configuration: String::from("configuration"),
            revision: String::from("revision"),
        }
    }

    /// Sets the column with the row's id.
    #[must_use]
    pub fn with_id(mut self, column: impl Into<String>) -> Self {
        self.id = column.into();
        self
    }

    /// Sets the column with the configuration.
    #[must_use]
    pub fn with_configuration(mut self, column: impl Into<String>) -> Self {
        self.configuration = column.into();
        self
    }

    /// Sets the column with the revision.
    #[must_use]
    pub fn with_revision(mut self, column: impl Into<String>) -> Self {
        self.revision = column.into();
        self
    }
}
