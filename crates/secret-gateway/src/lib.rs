#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod audited;
mod cli;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod collector;
mod configurations;
mod connector;
mod console;
mod digests;
mod failed_writes;
mod gateway;
mod health;
mod kv;
mod migration;
mod outbox;
mod page;
mod program;
mod server;
mod settings;
mod start;
mod storages;
mod tokens;
#[cfg(feature = "otlp")]
mod traces;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use collector::Collecting;
pub use configurations::Configurations;
pub use connector::heal;
pub use digests::Digests;
pub use failed_writes::{FailedWrite, FailedWrites};
pub use gateway::{Gateway, Parts};
pub use health::probe;
pub use migration::MigrationJournal;
#[cfg(feature = "postgres")]
pub use outbox::PostgresOutbox;
pub use outbox::{
    After, Change, ChangeKind, Count, Idempotency, Inserted, Outbox, OutboxError, SqliteOutbox,
    State,
};
pub use program::run;
pub use server::{Problem, ProblemKind, REQUEST_SPAN, ServeError, router, serve};
pub use settings::{
    InvalidSetting, Jwt, JwtKeys, Kv, KvVersion, Limits, Setting, Settings, TABLE, Texts, Tls,
    variable,
};
pub use start::{StartError, Started, start};
pub use storages::{StorageIds, StoragesFile};
pub use tokens::{
    Authenticator, Binding, Grant, PeerCertificate, Principal, Refusal, Role, TokenFile,
    TokenFileError, UnknownRole,
};
