//! Why a database failed, without a value of a row and without a credential.
//!
//! A trigger or a constraint of the table may quote a row in its message, with any code. A message
//! is therefore shown only if it cannot contain a row, that is, while a statement is being
//! prepared. All other failures are described by their code.
#[cfg(feature = "postgres")]
use secret_persistence_remote::Connect;
use sqlx::error::DatabaseError;

use crate::{MigrateError, MigrateErrorKind};

/// The failure while preparing a statement: it has not seen any row.
pub(super) fn of_preparing(place: &str, cause: &sqlx::Error) -> MigrateError {
    match cause {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            MigrateError::settings(format!(
                "a query cannot be prepared: {} (code {code})",
                database.message()
            ))
            .with_place(place)
        }
        _ => failure(place, "a query cannot be prepared", cause),
    }
}

/// The failure of a statement that may have seen rows.
pub(super) fn failure(place: &str, what: &str, cause: &sqlx::Error) -> MigrateError {
    let (kind, reason) = match cause {
        sqlx::Error::Database(database) => of_database(database.as_ref()),
        _ => (MigrateErrorKind::Unavailable, of_client(cause)),
    };
    MigrateError::new(kind, format!("{what}: {reason}")).with_place(place)
}

fn of_client(cause: &sqlx::Error) -> String {
    match cause {
        #[cfg(feature = "postgres")]
        sqlx::Error::Io(io) if Connect::of(io) == Some(Connect::NoSuchHost) => {
            Connect::NoSuchHost.to_string()
        }
        sqlx::Error::Io(io) => format!("no connection ({})", io.kind()),
        sqlx::Error::PoolTimedOut => "no connection within the time limit".into(),
        sqlx::Error::Tls(_) => "TLS failed; for a private authority, set ssl-root-cert".into(),
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} is not text"),
        sqlx::Error::PoolClosed => "it is closed".into(),
        sqlx::Error::WorkerCrashed => "the database's thread ended".into(),
        _ => "an unexpected answer".into(),
    }
}

fn of_database(error: &dyn DatabaseError) -> (MigrateErrorKind, String) {
    let code = error.code().unwrap_or_default();
    let (kind, words) = if code.len() == 5 {
        of_sqlstate(&code)
    } else {
        of_sqlite(code.parse().unwrap_or_default())
    };
    (kind, format!("{words} (code {code})"))
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn of_sqlstate(code: &str) -> (MigrateErrorKind, &'static str) {
    use MigrateErrorKind::{Configurations, Settings, Unavailable};
    match code {
        "25006" => (Unavailable, "the database is read-only or a standby"),
        "28000" | "28P01" => (Settings, "the server refuses the role or its password"),
        "3D000" => (Settings, "the database does not exist"),
        "42501" => (Settings, "the role lacks a privilege"),
        "42703" => (Settings, "a column does not exist"),
        "42P01" | "3F000" => (Settings, "a table does not exist"),
        "08P01" => (
            Settings,
            "the server or a pooler refuses the protocol; the pooler's log names what it refuses",
        ),
        "42P05" | "26000" => (
            Settings,
            "a pooler mixes up prepared statements; connect to the server itself, use the pooler's \
             session mode, or set its max_prepared_statements (PgBouncer 1.21 or later)",
        ),
        "53300" => (Unavailable, "the server has too many connections"),
        "P0001" => (
            Configurations,
            "a trigger or function of the database refuses it",
        ),
        _ => match &code[..2] {
            "08" => (Unavailable, "the connection failed"),
            "22" => (Configurations, "a value does not fit its type"),
            "23" => (Configurations, "a constraint of the table refuses it"),
            "40" => (Unavailable, "the server ended the transaction"),
            "42" => (Settings, "the server does not understand the query"),
            "53" => (Unavailable, "the server lacks resources"),
            "55" => (Unavailable, "something else has a lock on it"),
            "57" => (Unavailable, "the server cancelled it or shuts down"),
            _ => (Unavailable, "the server refuses it"),
        },
    }
}

/// <https://sqlite.org/rescode.html>; the low byte is the primary code.
fn of_sqlite(code: u32) -> (MigrateErrorKind, &'static str) {
    use MigrateErrorKind::{Configurations, Settings, Unavailable};
    match code & 0xff {
        1 => (
            Settings,
            "the database does not understand the query, or lacks a table or column of it",
        ),
        5 | 6 => (Unavailable, "another process has a lock on it"),
        8 => (Unavailable, "the database is read-only"),
        10 => (Unavailable, "the disk failed"),
        11 => (Unavailable, "the file is damaged"),
        13 => (Unavailable, "the disk is full"),
        14 => (Settings, "the file cannot be opened"),
        18 => (Configurations, "a value is too large"),
        19 => (
            Configurations,
            "a constraint or trigger of the table refuses it",
        ),
        26 => (Settings, "the file is not an SQLite database"),
        _ => (Unavailable, "the database failed"),
    }
}
