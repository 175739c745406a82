//! Keeps connector secrets out of configuration databases: the one dependency that a service adds.

mod audit;
mod backend;
mod connect;
mod kind;
mod settings;
mod storage;
mod stores;

#[cfg(feature = "aws")]
pub use secrets_aws as aws;
#[cfg(feature = "azure")]
pub use secrets_azure as azure;
pub use secrets_core::settings::{Setting, Settings as Values, StoreUrl, Trust};
pub use secrets_core::{
    Capabilities, CheckOptions, CheckReport, CheckStep, Coordinate, Cost, Cursor, DeleteOptions,
    Entry, Error, ErrorKind, Expiry, ExternalName, Identity, ListOptions, Listing,
    ManagedCoordinate, Memory, OpenStore, Operation, Owner, Page, Read, Recovery, Result, Scope,
    SecretPersistence, SecretPersistenceExt, SecretValue, StepOutcome, Stores, Sweep, Timestamp,
    Write, Written, connector, layer, migrate,
};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use secrets_db as database;
#[cfg(feature = "gcp")]
pub use secrets_gcp as google;
#[cfg(feature = "vault")]
pub use secrets_vault as vault;

pub use audit::AuditFile;
pub use connect::connect;
pub use kind::Kind;
pub use settings::{COMMON, Environment, KubernetesSecrets, Settings, Tenant, Warning, key_table};
pub use storage::{Storage, Storages};
pub use stores::{StoresSettings, stores};
