#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
compile_error!("secret-persistence-db needs the feature `sqlite`, `postgres`, or both");

mod absent;
mod client;
mod config;
mod database_url;
mod encrypt;
mod envelope;
mod error;
mod keyring;
mod keyring_file;
mod naming;
mod persistence;
#[cfg(feature = "postgres")]
mod postgres;
mod postgres_options;
mod ring_check;
mod rotate;
mod schema;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use config::{Config, Mode, SETTINGS};
pub use encrypt::{EncryptOptions, Encrypted, Progress};
pub use keyring::{KeyId, KeyRing};
pub use keyring_file::KeyRingFile;
pub use naming::TableName;
pub use persistence::Database;
pub use postgres_options::{POSTGRES_SCHEMES, POSTGRES_SETTINGS, PostgresOptions};
pub use rotate::{RotateOptions, Rotated};
