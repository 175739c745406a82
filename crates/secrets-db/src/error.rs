//! Maps database errors to errors with remedies, with one table per engine.
//!
//! The mapping uses codes, never message texts. Database messages are not even kept: Postgres shows
//! the failing row in its details, and triggers may put anything into them.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use secret_persistence_core::{Error, ErrorKind};
#[cfg(feature = "postgres")]
use secret_persistence_remote::Connect;

/// One row of a table.
pub(crate) struct Known {
    /// Postgres: an SQLSTATE, or the first two digits of a class. SQLite: a primary result code.
    pub(crate) code: &'static str,
    /// The code's own name.
    pub(crate) name: &'static str,
    kind: ErrorKind,
    /// Overrides whether the kind is retryable.
    retryable: Option<bool>,
    pub(crate) message: &'static str,
    pub(crate) hint: &'static str,
}

const fn known(
    code: &'static str,
    name: &'static str,
    kind: ErrorKind,
    message: &'static str,
    hint: &'static str,
) -> Known {
    Known {
        code,
        name,
        kind,
        retryable: None,
        message,
        hint,
    }
}

impl Known {
    /// The same row, but not retryable although its kind is.
    const fn permanent(mut self) -> Self {
        self.retryable = Some(false);
        self
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>; exact codes before their class.
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES: &[Known] = &[
    // PgBouncer: a startup parameter that is not in its ignore_startup_parameters, or a password
    // method.
    known(
        "08P01",
        "protocol_violation",
        ErrorKind::InvalidConfig,
        "the server or a connection pooler refuses the protocol",
        "check the pooler's log for the refused parameter; in PgBouncer, add it to ignore_startup_parameters",
    ),
    // The connection was lost or never established: another attempt gets another one.
    known(
        "08",
        "connection_exception",
        ErrorKind::Unavailable,
        "the connection to the server was lost",
        "check the server and the network",
    ),
    // The character does not exist in the database's encoding, or is NUL.
    known(
        "22021",
        "character_not_in_repertoire",
        ErrorKind::InvalidValue,
        "the database cannot store a character of the value",
        "use mode=encrypted, which stores bytes",
    ),
    known(
        "22P05",
        "untranslatable_character",
        ErrorKind::InvalidValue,
        "the database's encoding lacks a character of the value",
        "use a database with the encoding UTF8, or mode=encrypted, which stores bytes",
    ),
    // `payload` must be nullable for encrypted rows.
    known(
        "23502",
        "not_null_violation",
        ErrorKind::InvalidConfig,
        "a column of the table must not be NULL, but would be",
        "run prepare, or drop the NOT NULL constraint",
    ),
    // ON CONFLICT covers the primary key: this is another constraint of the table.
    known(
        "23",
        "integrity_constraint_violation",
        ErrorKind::InvalidConfig,
        "a constraint of the table refuses the row",
        "drop the constraint",
    ),
    // A replica, or a primary that is being demoted. Waiting does not help.
    known(
        "25006",
        "read_only_sql_transaction",
        ErrorKind::Unavailable,
        "the server is read-only: a replica, or configured so",
        "connect to the primary",
    )
    .permanent(),
    // In transaction mode, a pooler uses another server connection for each transaction. That
    // connection does not know the statements that an earlier one prepared.
    known(
        "26000",
        "invalid_sql_statement_name",
        ErrorKind::InvalidConfig,
        "a pooler lost a prepared statement between two transactions",
        "in PgBouncer, set pool_mode=session, or use 1.21 or later with max_prepared_statements above 0",
    ),
    // The role is unknown, or pg_hba.conf has no line for it.
    known(
        "28000",
        "invalid_authorization_specification",
        ErrorKind::Unauthenticated,
        "the server refuses this role from this address",
        "check DATABASE_USER, and pg_hba.conf for this role, address and TLS",
    ),
    known(
        "28P01",
        "invalid_password",
        ErrorKind::Unauthenticated,
        "the server refuses the password",
        "check DATABASE_USER and DATABASE_PASSWORD",
    ),
    // A concurrent transaction won.
    known(
        "40",
        "transaction_rollback",
        ErrorKind::Conflict,
        "the database rolled back in favour of another transaction",
        "retry",
    ),
    known(
        "3D000",
        "invalid_catalog_name",
        ErrorKind::InvalidConfig,
        "the database does not exist",
        "check the database's name",
    ),
    known(
        "3F000",
        "invalid_schema_name",
        ErrorKind::InvalidConfig,
        "the schema does not exist",
        "check `table`, which may include a schema",
    ),
    known(
        "42501",
        "insufficient_privilege",
        ErrorKind::PermissionDenied,
        "the role lacks a privilege on the table",
        "grant SELECT, INSERT and DELETE on it (also UPDATE for encrypt and rotate), and SELECT, INSERT, UPDATE and DELETE on its `_meta` table",
    ),
    known(
        "42703",
        "undefined_column",
        ErrorKind::InvalidConfig,
        "the table lacks a column",
        "run prepare, or restart if it has just changed",
    ),
    known(
        "42P01",
        "undefined_table",
        ErrorKind::InvalidConfig,
        "the table is missing",
        "check `table`, or run prepare",
    ),
    // The same pooler: another client prepared a statement of this name on the connection.
    known(
        "42P05",
        "duplicate_prepared_statement",
        ErrorKind::InvalidConfig,
        "a pooler mixes the prepared statements of its clients",
        "in PgBouncer, set pool_mode=session, or use 1.21 or later with max_prepared_statements above 0",
    ),
    known(
        "42P10",
        "invalid_column_reference",
        ErrorKind::InvalidConfig,
        "the column `coordinate` is not unique",
        "make it the table's primary key",
    ),
    // The disk is full until someone frees space.
    known(
        "53100",
        "disk_full",
        ErrorKind::Unavailable,
        "the server's disk is full",
        "free space on it",
    )
    .permanent(),
    known(
        "53300",
        "too_many_connections",
        ErrorKind::Unavailable,
        "the server has no free connection slots",
        "lower `pool-size`, or raise the server's max_connections",
    ),
    known(
        "53",
        "insufficient_resources",
        ErrorKind::Unavailable,
        "the server is short of resources",
        "check the server's memory and limits",
    ),
    known(
        "54",
        "program_limit_exceeded",
        ErrorKind::PayloadTooLarge,
        "the row is larger than the server accepts",
        "store a smaller value",
    ),
    known(
        "55P03",
        "lock_not_available",
        ErrorKind::Conflict,
        "another session holds a lock on the table",
        "retry",
    ),
    // Shutting down, crashed, starting up, cancelled by a timeout.
    known(
        "57",
        "operator_intervention",
        ErrorKind::Unavailable,
        "the server is starting or stopping, or cancelled the query",
        "check the server's log",
    ),
    known(
        "58",
        "system_error",
        ErrorKind::Unavailable,
        "the server's operating system reported a failure",
        "check the server's log",
    ),
    known(
        "XX001",
        "data_corrupted",
        ErrorKind::Integrity,
        "the server found damaged data",
        "check the server's log, and restore from a backup",
    ),
    known(
        "XX002",
        "index_corrupted",
        ErrorKind::Integrity,
        "the server found a damaged index",
        "reindex the table",
    ),
];

/// <https://www.sqlite.org/rescode.html>
#[cfg(feature = "sqlite")]
pub(crate) const SQLITE: &[Known] = &[
    known(
        "3",
        "SQLITE_PERM",
        ErrorKind::PermissionDenied,
        "the operating system denies access",
        "check the owner and mode of the file and its folder",
    ),
    // Another process held the write lock for longer than the busy timeout.
    known(
        "5",
        "SQLITE_BUSY",
        ErrorKind::Conflict,
        "another process holds the database's lock",
        "retry; if it persists, find the process",
    ),
    known(
        "6",
        "SQLITE_LOCKED",
        ErrorKind::Conflict,
        "another statement holds the table's lock",
        "retry",
    ),
    known(
        "7",
        "SQLITE_NOMEM",
        ErrorKind::Unavailable,
        "the process is out of memory",
        "give the process more memory",
    ),
    known(
        "8",
        "SQLITE_READONLY",
        ErrorKind::PermissionDenied,
        "the database's file or folder is read-only",
        "check the owner and mode of the file and its folder",
    ),
    known(
        "10",
        "SQLITE_IOERR",
        ErrorKind::Unavailable,
        "the file system failed",
        "check the disk and the system's log",
    ),
    known(
        "11",
        "SQLITE_CORRUPT",
        ErrorKind::Integrity,
        "the database's file is damaged",
        "restore it from a backup",
    ),
    known(
        "13",
        "SQLITE_FULL",
        ErrorKind::Unavailable,
        "the disk is full",
        "free space on it",
    )
    .permanent(),
    known(
        "14",
        "SQLITE_CANTOPEN",
        ErrorKind::InvalidConfig,
        "the database's file cannot be opened",
        "check the path, and that its folder exists and is writable",
    ),
    known(
        "17",
        "SQLITE_SCHEMA",
        ErrorKind::Conflict,
        "the table was just changed by another connection",
        "retry",
    ),
    known(
        "18",
        "SQLITE_TOOBIG",
        ErrorKind::PayloadTooLarge,
        "the row is larger than SQLite accepts",
        "store a smaller value",
    ),
    // ON CONFLICT covers the primary key: this is another constraint of the table.
    known(
        "19",
        "SQLITE_CONSTRAINT",
        ErrorKind::InvalidConfig,
        "a constraint of the table refuses the row",
        "drop the constraint",
    ),
    known(
        "23",
        "SQLITE_AUTH",
        ErrorKind::PermissionDenied,
        "SQLite's authorizer refuses the statement",
        "check which other libraries this process loads",
    ),
    known(
        "26",
        "SQLITE_NOTADB",
        ErrorKind::InvalidConfig,
        "the file is not an SQLite database",
        "check the path",
    ),
];

/// A database error without its text. Kept as the source of an [`Error`].
#[derive(Debug)]
pub(crate) struct Cause {
    engine: &'static str,
    code: String,
    name: &'static str,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.engine, self.code)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        Ok(())
    }
}

impl StdError for Cause {}

/// An I/O or TLS error: its kind, or rustls's text, which contains no value of ours.
#[derive(Debug)]
struct Transport(String);

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Transport {}

/// Maps a failure. Callers add operation, store and coordinate.
pub(crate) fn from_sqlx(engine: &'static str, table: &[Known], error: &sqlx::Error) -> Error {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            from_code(engine, table, &code)
        }
        #[cfg(feature = "postgres")]
        sqlx::Error::Io(error) if Connect::of(error) == Some(Connect::NoSuchHost) => Error::new(
            ErrorKind::Unavailable,
            "the server's host name does not resolve",
        )
        .with_hint("check the host name, and that DNS works")
        .with_source(Transport(Connect::NoSuchHost.to_string())),
        // An untrusted certificate ends the handshake as an `InvalidData` error.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            let cause = error
                .get_ref()
                .map_or_else(|| error.kind().to_string(), ToString::to_string);
            untrusted(error, cause)
        }
        sqlx::Error::Tls(error) => untrusted(&**error, error.to_string()),
        sqlx::Error::Io(error) => Error::new(
            ErrorKind::Unavailable,
            "the database does not respond, or the connection was lost",
        )
        .with_hint("check host and port, that the server is running, and the network")
        .with_source(Transport(error.kind().to_string())),
        sqlx::Error::PoolTimedOut => Error::new(
            ErrorKind::Unavailable,
            "no connection became free in time: the pool is exhausted",
        )
        .with_hint("raise `pool-size` or `connect-timeout`, or reduce concurrent calls"),
        sqlx::Error::PoolClosed => {
            Error::new(ErrorKind::Unavailable, "the store has been closed").with_retryable(false)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Error::new(
            ErrorKind::Integrity,
            "a column contains a value of an unexpected type",
        ),
        // Server texts and arguments must not be shown.
        sqlx::Error::Protocol(_) => Error::new(
            ErrorKind::Unexpected,
            "the server sent an unexpected response",
        )
        .with_hint("check that the server on this port is Postgres"),
        sqlx::Error::WorkerCrashed => Error::new(
            ErrorKind::Unavailable,
            "the database's worker thread has ended",
        ),
        _ => Error::new(ErrorKind::Unexpected, "the database driver failed"),
    }
}

fn untrusted(error: &(dyn StdError + 'static), cause: String) -> Error {
    const MESSAGE: &str = "cannot establish a trusted TLS connection to the server";
    #[cfg(feature = "postgres")]
    let reason = Connect::of(error).filter(|connect| *connect != Connect::Tls);
    #[cfg(not(feature = "postgres"))]
    let reason = Some(error).filter(|_| false);
    let message = match reason {
        Some(reason) => format!("{MESSAGE}: {reason}").into(),
        None => Cow::from(MESSAGE),
    };
    Error::new(ErrorKind::InvalidConfig, message)
    .with_hint(
        "check that TLS is enabled on the server and its certificate is for the configured host; \
         set `ssl-root-cert` to the authority of a private certificate",
    )
    .with_source(Transport(cause))
}

fn from_code(engine: &'static str, table: &[Known], code: &str) -> Error {
    // SQLite reports extended codes, whose low byte is the primary one.
    let code = match code.parse::<u32>() {
        Ok(extended) if engine == "sqlite" => (extended & 0xff).to_string(),
        _ => code
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(5)
            .collect(),
    };
    let line = table
        .iter()
        .find(|line| line.code == code)
        .or_else(|| table.iter().find(|line| code.get(..2) == Some(line.code)));
    let cause = Cause {
        engine,
        name: line.map_or("", |line| line.name),
        code,
    };
    let error = match line {
        Some(line) => Error::new(line.kind, line.message)
            .with_hint(line.hint)
            .with_retryable(
                line.retryable
                    .unwrap_or_else(|| Error::new(line.kind, "").is_retryable()),
            ),
        None => Error::new(
            ErrorKind::Unexpected,
            "the database refuses the statement for an unknown reason",
        )
        .with_hint("look up the code, and restart if the table was changed in the meantime"),
    };
    error.with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_known_once_and_each_line_says_what_to_do() {
        let mut tables: Vec<&[Known]> = Vec::new();
        #[cfg(feature = "sqlite")]
        tables.push(SQLITE);
        #[cfg(feature = "postgres")]
        tables.push(POSTGRES);
        for table in tables {
            for (index, line) in table.iter().enumerate() {
                assert!(table[..index].iter().all(|other| other.code != line.code));
                assert!(!line.hint.is_empty() && !line.message.ends_with('.'));
            }
        }
    }

    /// The documentation lists every message verbatim.
    #[test]
    fn every_line_is_in_the_documentation() {
        let documentation = include_str!("../README.md");
        let mut messages: Vec<&str> = Vec::new();
        #[cfg(feature = "sqlite")]
        messages.extend(SQLITE.iter().map(|line| line.message));
        #[cfg(feature = "postgres")]
        messages.extend(POSTGRES.iter().map(|line| line.message));
        for error in [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into()),
            sqlx::Error::Tls("test".into()),
        ] {
            let message = from_sqlx("any", &[], &error).message().to_owned();
            assert!(
                documentation.contains(&format!("| {message} |")),
                "{message}"
            );
        }
        for message in messages {
            assert!(
                documentation.contains(&format!("| {message} |")),
                "{message}"
            );
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn postgres_codes_come_before_their_class() {
        for (code, kind, retryable) in [
            ("08P01", ErrorKind::InvalidConfig, false),
            ("08006", ErrorKind::Unavailable, true),
            ("26000", ErrorKind::InvalidConfig, false),
            ("42P05", ErrorKind::InvalidConfig, false),
            ("28P01", ErrorKind::Unauthenticated, false),
            ("42P01", ErrorKind::InvalidConfig, false),
            ("42501", ErrorKind::PermissionDenied, false),
            ("25006", ErrorKind::Unavailable, false),
            ("53100", ErrorKind::Unavailable, false),
            ("53300", ErrorKind::Unavailable, true),
            ("53200", ErrorKind::Unavailable, true),
            ("57P03", ErrorKind::Unavailable, true),
            ("40P01", ErrorKind::Conflict, true),
            ("23514", ErrorKind::InvalidConfig, false),
            ("XX000", ErrorKind::Unexpected, false),
            ("", ErrorKind::Unexpected, false),
        ] {
            let error = from_code("postgres", POSTGRES, code);
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (kind, retryable),
                "{code}"
            );
            let source = StdError::source(&error).unwrap().to_string();
            assert!(source.starts_with("postgres "), "{source}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn sqlite_codes_are_reduced_to_the_primary_one() {
        for (code, kind, retryable) in [
            ("5", ErrorKind::Conflict, true),
            ("517", ErrorKind::Conflict, true),
            ("13", ErrorKind::Unavailable, false),
            ("10", ErrorKind::Unavailable, true),
            ("1032", ErrorKind::PermissionDenied, false),
            ("11", ErrorKind::Integrity, false),
            ("1", ErrorKind::Unexpected, false),
        ] {
            let error = from_code("sqlite", SQLITE, code);
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (kind, retryable),
                "{code}"
            );
        }
    }
}
