//! A server in front of the stores, for platforms that are not written in Rust.
//!
//! Two interfaces: the *KV face* under `/v1` speaks the protocol of Vault's key/value engine and keeps the
//! values in any of the stores; the *connector face* under `/api/v1` splits, stages, hydrates and masks
//! connector configurations, with an outbox of its own. docs/gateway.md has both, settings, and who may do
//! what.
//!
//! [`start`] opens what [`Settings`] name, [`router`] is the whole as a service, [`serve`] listens. The
//! program `secret-gateway` is these three behind a command line.

mod connector;
mod digests;
mod failed_writes;
mod gateway;
mod health;
mod kv;
mod outbox;
mod page;
mod server;
mod settings;
mod start;
mod storages;
mod tokens;

pub use connector::heal;
pub use digests::Digests;
pub use failed_writes::{FailedWrite, FailedWrites};
pub use gateway::{Gateway, Parts};
#[cfg(feature = "postgres")]
pub use outbox::PostgresOutbox;
pub use outbox::{
    After, Change, ChangeKind, Count, Idempotency, Inserted, Outbox, OutboxError, SqliteOutbox,
    State,
};
pub use server::{Problem, ServeError, router, serve};
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
