#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
compile_error!("secret-persistence-db needs the feature `sqlite`, `postgres`, or both");

mod absent;
mod cipher;
mod client;
mod config;
mod conversion;
mod database_url;
#[cfg(feature = "postgres")]
mod deadline;
mod describe;
mod encrypt;
mod envelope;
mod error;
mod keyring;
mod keyring_file;
mod ledger;
mod naming;
mod persistence;
#[cfg(feature = "postgres")]
mod postgres;
mod postgres_options;
#[cfg(feature = "postgres")]
mod rates;
mod reencryption;
mod refresh;
mod ring_check;
mod rotate;
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use config::{Config, Mode, SETTINGS};
pub use conversion::{Conversion, Ended, Range, Step};
pub use encrypt::{EncryptOptions, Encrypted, Progress};
pub use keyring::{KeyId, KeyRing};
pub use keyring_file::KeyRingFile;
pub use ledger::{
    Checkpoint, Finding, FindingKind, LEDGER_SETTINGS, Ledger, LedgerConfig, LedgerLine,
    LedgerQuery, LedgerReader, Pruned, PrunedLines, Verified,
};
pub use naming::TableName;
pub use persistence::Database;
pub use postgres_options::{POSTGRES_SCHEMES, POSTGRES_SETTINGS, PostgresOptions};
#[cfg(feature = "postgres")]
pub use rates::PostgresRates;
#[cfg(feature = "postgres")]
pub use refresh::PostgresRefreshRows;
pub use refresh::RowTable;
#[cfg(feature = "sqlite")]
pub use refresh::SqliteRefreshRows;
pub use rotate::{RotateOptions, Rotated};
