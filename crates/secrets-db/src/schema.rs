//! The table: its columns, and the SQL that adds missing ones.

use secret_persistence_core::{Error, ErrorKind, Result};

use crate::naming::TableName;

/// The engine whose SQL is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    #[cfg(feature = "postgres")]
    Postgres,
    #[cfg(feature = "sqlite")]
    Sqlite,
}

/// Which of our columns a table has, beside `coordinate` and `payload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) owner: bool,
    pub(crate) created: bool,
    pub(crate) expires: bool,
    /// All five of an encrypted value.
    pub(crate) sealed: bool,
    /// Whether the second table exists.
    pub(crate) meta: bool,
    /// Whether `payload` is NOT NULL, so that the table cannot store an encrypted row.
    pub(crate) payload_required: bool,
}

/// A column in the catalogue.
pub(crate) struct Found {
    pub(crate) name: String,
    /// The engine's name of the type, in lower case.
    pub(crate) kind: String,
    pub(crate) not_null: bool,
}

/// Our columns, in the order in which `prepare` adds them. Times are seconds since 1970.
const COLUMNS: &[(&str, Kind)] = &[
    ("owner", Kind::Text),
    ("created", Kind::Integer),
    ("expires", Kind::Integer),
    ("ciphertext", Kind::Bytes),
    ("nonce", Kind::Bytes),
    ("wrapped_key", Kind::Bytes),
    ("key_nonce", Kind::Bytes),
    ("key_id", Kind::Text),
];

const SEALED: &[&str] = &["ciphertext", "nonce", "wrapped_key", "key_nonce", "key_id"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bytes,
    Integer,
    Text,
}

impl Kind {
    const fn sql(self, dialect: Dialect) -> &'static str {
        match (dialect, self) {
            (_, Self::Text) => "TEXT",
            #[cfg(feature = "postgres")]
            (Dialect::Postgres, Self::Bytes) => "BYTEA",
            #[cfg(feature = "postgres")]
            (Dialect::Postgres, Self::Integer) => "BIGINT",
            #[cfg(feature = "sqlite")]
            (Dialect::Sqlite, Self::Bytes) => "BLOB",
            #[cfg(feature = "sqlite")]
            (Dialect::Sqlite, Self::Integer) => "INTEGER",
        }
    }

    /// Whether a column of this catalogue type can store it.
    fn fits(self, dialect: Dialect, found: &str) -> bool {
        match dialect {
            #[cfg(feature = "postgres")]
            Dialect::Postgres => match self {
                Self::Bytes => found == "bytea",
                Self::Integer => found == "bigint",
                Self::Text => found == "text" || found.starts_with("character varying"),
            },
            // SQLite stores any value, but the column's affinity may convert it: text must not
            // become a number.
            // <https://www.sqlite.org/datatype3.html#determination_of_column_affinity>
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite => match self {
                Self::Bytes => found.contains("blob") || found.is_empty(),
                Self::Integer => found.contains("int"),
                Self::Text => ["char", "clob", "text"]
                    .iter()
                    .any(|part| found.contains(part)),
            },
        }
    }
}

impl Layout {
    /// Everything that a complete table has.
    pub(crate) const FULL: Self = Self {
        owner: true,
        created: true,
        expires: true,
        sealed: true,
        meta: true,
        payload_required: false,
    };

    /// Reads the catalogue of an existing table.
    pub(crate) fn read(
        dialect: Dialect,
        table: &TableName,
        found: &[Found],
        meta: bool,
    ) -> Result<Self> {
        for name in ["coordinate", "payload"] {
            if !found.iter().any(|column| column.name == name) {
                return Err(
                    unsuitable(table, &format!("it has no column `{name}`")).with_hint(
                        "check `table`; the table needs coordinate TEXT PRIMARY KEY, payload TEXT",
                    ),
                );
            }
        }
        let ours = COLUMNS.iter().copied();
        for (name, kind) in ours.chain([("coordinate", Kind::Text), ("payload", Kind::Text)]) {
            if let Some(column) = found.iter().find(|column| column.name == name)
                && !kind.fits(dialect, &column.kind)
            {
                return Err(unsuitable(
                    table,
                    &format!("its column `{name}` must be {}", kind.sql(dialect)),
                ));
            }
        }
        let has = |name: &str| found.iter().any(|column| column.name == name);
        Ok(Self {
            owner: has("owner"),
            created: has("created"),
            expires: has("expires"),
            sealed: SEALED.iter().all(|name| has(name)),
            meta,
            payload_required: found
                .iter()
                .any(|column| column.name == "payload" && column.not_null),
        })
    }
}

/// The SQL that creates the whole table.
pub(crate) fn create(dialect: Dialect, table: &TableName) -> Vec<String> {
    let columns: String = COLUMNS
        .iter()
        .map(|(name, kind)| format!(",\n  {name} {}", kind.sql(dialect)))
        .collect();
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {} (\n  coordinate TEXT NOT NULL PRIMARY KEY,\n  payload TEXT{columns}\n)",
            table.quoted(),
        ),
        create_meta(dialect, table),
    ]
}

/// The SQL that adds what an existing table lacks; empty if nothing is missing.
pub(crate) fn prepare(
    dialect: Dialect,
    table: &TableName,
    found: &[Found],
    meta: bool,
) -> Vec<String> {
    let quoted = table.quoted();
    let mut statements: Vec<String> = COLUMNS
        .iter()
        .filter(|(name, _)| !found.iter().any(|column| column.name == *name))
        .map(|(name, kind)| {
            format!(
                "ALTER TABLE {quoted} ADD COLUMN {name} {}",
                kind.sql(dialect)
            )
        })
        .collect();
    #[cfg(feature = "postgres")]
    if dialect == Dialect::Postgres
        && found
            .iter()
            .any(|column| column.name == "payload" && column.not_null)
    {
        statements.push(format!(
            "ALTER TABLE {quoted} ALTER COLUMN payload DROP NOT NULL"
        ));
    }
    if !meta {
        statements.push(create_meta(dialect, table));
    }
    statements
}

fn create_meta(dialect: Dialect, table: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  name TEXT NOT NULL PRIMARY KEY,\n  value {} NOT NULL\n)",
        table.meta().quoted(),
        Kind::Bytes.sql(dialect)
    )
}

pub(crate) fn unsuitable(table: &TableName, what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the table {table} cannot be used: {what}"),
    )
}

pub(crate) fn missing(dialect: Dialect, table: &TableName) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("the table {table} is missing"),
    )
    .with_hint(format!(
        "check `table`, or let its owner run: {}",
        create(dialect, table).join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialects() -> Vec<Dialect> {
        vec![
            #[cfg(feature = "postgres")]
            Dialect::Postgres,
            #[cfg(feature = "sqlite")]
            Dialect::Sqlite,
        ]
    }

    fn found(dialect: Dialect, columns: &[(&str, Kind)]) -> Vec<Found> {
        columns
            .iter()
            .map(|(name, kind)| Found {
                name: (*name).to_owned(),
                kind: kind.sql(dialect).to_lowercase(),
                not_null: false,
            })
            .collect()
    }

    const LEGACY: &[(&str, Kind)] = &[("coordinate", Kind::Text), ("payload", Kind::Text)];

    #[test]
    fn an_existing_table_gets_each_missing_column_and_nothing_else() {
        let table: TableName = "s.secrets".parse().unwrap();
        for dialect in dialects() {
            let legacy = found(dialect, LEGACY);
            let layout = Layout::read(dialect, &table, &legacy, false).unwrap();
            assert_eq!(layout, Layout::default());
            let sql = prepare(dialect, &table, &legacy, false);
            assert_eq!(sql.len(), COLUMNS.len() + 1);
            assert!(sql[0].starts_with(r#"ALTER TABLE "s"."secrets" ADD COLUMN owner TEXT"#));
            let full = found(dialect, &[LEGACY, COLUMNS].concat());
            assert!(prepare(dialect, &table, &full, true).is_empty());
            assert_eq!(
                Layout::read(dialect, &table, &full, true).unwrap(),
                Layout::FULL
            );
        }
    }

    #[test]
    fn a_table_that_is_something_else_is_refused() {
        let table: TableName = "secrets".parse().unwrap();
        for dialect in dialects() {
            for columns in [
                &[("payload", Kind::Text)][..],
                &[("coordinate", Kind::Text)][..],
                &[("coordinate", Kind::Integer), ("payload", Kind::Text)][..],
                &[LEGACY, &[("owner", Kind::Bytes)]].concat(),
            ] {
                let error =
                    Layout::read(dialect, &table, &found(dialect, columns), false).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            }
        }
    }
}
