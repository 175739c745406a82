#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod audit;
mod check;
#[cfg(any(feature = "conformance", test))]
pub mod conformance;
pub mod connector;
mod coordinate;
mod error;
mod ext;
#[cfg(feature = "layers")]
pub mod layer;
mod location;
mod managed_prefix;
mod memory;
#[cfg(feature = "layers")]
mod mirror;
mod persistence;
pub mod rates;
#[cfg(feature = "redact")]
pub mod redact;
mod secret;
pub mod settings;
mod storage_id;
#[cfg(feature = "serde")]
mod stored;
mod stores;
mod timestamp;

pub use audit::{Actor, AuditEvent, AuditMode, AuditSink, LastRead, LastReads, ReadHistory};
pub use check::{CheckOptions, CheckReport, CheckStep, StepOutcome};
pub use coordinate::{
    Coordinate, ExternalName, MAX_EXTERNAL_BYTES, MAX_MANAGED_BYTES, ManagedCoordinate, Owner,
    Scope,
};
pub use error::{Error, ErrorKind, Result};
pub use ext::{SecretPersistenceExt, Sweep};
pub use location::Location;
pub use managed_prefix::ManagedPrefix;
pub use memory::Memory;
pub use persistence::{
    Capabilities, Cost, Cursor, DeleteOptions, Entry, Expiry, Identity, ListOptions, Listing,
    OnPending, Operation, Page, Read, Recovery, SecretPersistence, Write, Written,
};
pub use secret::{SecretValue, WeakSecret};
pub use storage_id::{InvalidStorageId, StorageId};
pub use stores::{OpenStore, Stores};
pub use timestamp::Timestamp;
