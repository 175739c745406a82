#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod audit;
mod backend;
mod connect;
mod custom;
mod fips;
mod history;
mod hosts;
mod kind;
mod ledger;
mod limit_shared;
mod settings;
mod storage;
mod stores;

#[cfg(feature = "aws")]
pub use secret_persistence_aws as aws;
#[cfg(feature = "azure")]
pub use secret_persistence_azure as azure;
#[cfg(feature = "conformance")]
pub use secret_persistence_core::conformance;
#[cfg(feature = "redact")]
pub use secret_persistence_core::redact;
pub use secret_persistence_core::settings::{KeyTable, Setting, SettingMap, StoreUrl, Trust};
pub use secret_persistence_core::{
    Actor, AuditEvent, AuditMode, AuditSink, Capabilities, CheckOptions, CheckReport, CheckStep,
    Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry, ExternalName,
    Identity, InvalidStorageId, LastRead, LastReads, ListOptions, Listing, Location,
    ManagedCoordinate, ManagedPrefix, Memory, OpenStore, Operation, Owner, Page, Read, ReadHistory,
    Recovery, Result, Scope, SecretPersistence, SecretPersistenceExt, SecretValue, StepOutcome,
    StorageId, Stores, Sweep, Timestamp, Write, Written, connector, layer, rates,
};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use secret_persistence_db as database;
#[cfg(feature = "gcp")]
pub use secret_persistence_gcp as google;
#[cfg(feature = "migrate")]
pub use secret_persistence_migrate as migrate;
#[cfg(feature = "vault")]
pub use secret_persistence_vault as vault;

pub use audit::AuditFile;
pub use connect::connect;
pub use custom::CustomBackend;
pub use fips::FipsModule;
pub use history::read_history;
pub use hosts::AllowedHosts;
pub use kind::Kind;
pub use settings::{COMMON, Environment, KubernetesSecrets, Settings, Tenant, Warning, key_table};
pub use storage::{Storage, Storages};
pub use stores::{StoresSettings, audited, stores};

/// The code of the repository's pages, which runs with the tests of the documentation.
#[cfg(all(doctest, feature = "conformance", feature = "sqlite"))]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../../../docs/linking.md")]
struct Pages;
