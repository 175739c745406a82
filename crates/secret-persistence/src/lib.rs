//! Keeps connector secrets out of configuration databases: the one dependency that a service adds.
//!
//! A platform keeps a JSON configuration for each connector; the fields that its specification marks as
//! secret go to a store (AWS Secrets Manager, Azure Key Vault, Google Secret Manager, HashiCorp Vault,
//! SQLite or Postgres), and the configuration keeps pointers. This crate opens the store from the
//! settings that operators already have, with cache, retry, limits, metrics, audit and mirror switched
//! on by settings.
//!
//! # Example
//!
//! ```
//! use secret_persistence::connector::{ConnectorOptions, ConnectorSecrets, ConnectorSpec};
//! use secret_persistence::{Actor, Environment, Scope, Settings};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let database = folder.path().join("secrets.db");
//! // In production: Settings::from_env(&Environment::of_process())?
//! let url = format!("sqlite://{}?mode=plain&owner=prod_eu&cache=true", database.display());
//! let settings = Settings::from_url(&url, &Environment::empty())?;
//! let stores = secret_persistence::stores(settings).await?;
//! let secrets = ConnectorSecrets::new(stores, ConnectorOptions::default())
//!     .acting_as(&Actor::new("user 7"));
//!
//! let spec = ConnectorSpec::compile(&json!({
//!     "properties": {"host": {"type": "string"}, "password": {"type": "string", "airbyte_secret": true}}
//! }))?;
//! let workspace = Scope::workspace("0e6a1a53-5a5e-4f4e-8c11-64a1d4b7e1f2".parse()?);
//! let config = json!({"host": "db.example.com", "password": "hunter2"});
//!
//! // What is saved holds a pointer, what the connector is given holds the password.
//! let staged = secrets.stage_create(&spec, &workspace, config.clone()).await?;
//! let saved = staged.config().clone();
//! assert!(!saved.to_string().contains("hunter2"));
//! staged.commit().await?;
//! assert_eq!(*secrets.hydrate(saved).await?, config);
//! # Ok(())
//! # }
//! ```
//!
//! # Settings
//!
//! [`Settings`] come from the environment ([`from_env`](Settings::from_env)), a Helm `values.yaml`
//! ([`from_helm`](Settings::from_helm)), the JSON for external secret management
//! ([`from_json`](Settings::from_json)), a URL without credentials ([`from_url`](Settings::from_url)),
//! or a file of any of the former ([`from_file`](Settings::from_file)). `docs/settings.md` has every
//! name, side by side, and what comes before what. Each kind of store has one key table for all of
//! them ([`key_table`]); what stands around a store has another ([`COMMON`]).
//!
//! ```
//! use secret_persistence::{Environment, KubernetesSecrets, Settings};
//!
//! let values = "
//! global:
//!   secretsManager:
//!     type: VAULT
//!     vault: {adress: 'https://vault.example.com:8200'}
//! ";
//! let error = Settings::from_helm(values, &KubernetesSecrets::none(), &Environment::empty())
//!     .unwrap_err();
//! assert_eq!(error.hint(), Some("did you mean `address`?"));
//! ```
//!
//! # One store, or several
//!
//! [`connect`] opens one store, [`stores`] a default one and others by storage id, whose own
//! credentials are secrets in the default store. Settings of other storages may come from tenants, who
//! have less trust than the operator: see [`Tenant`].
//!
//! **Audit.** Only connector calls know who acts, so only they are audited, through the sink of
//! [`stores`]. What is done with the store that [`connect`] returns is not.
//!
//! # Features
//!
//! One for each store, all on by default: `aws`, `azure`, `gcp`, `postgres`, `sqlite`, `vault`. A build
//! with one of them has no other store's SDK in it. The backends' own crates are re-exported for what
//! only one store has: policies, key rings.

mod audit;
mod backend;
mod connect;
mod kind;
mod settings;
mod storage;
mod stores;

#[cfg(feature = "aws")]
pub use secret_persistence_aws as aws;
#[cfg(feature = "azure")]
pub use secret_persistence_azure as azure;
pub use secret_persistence_core::settings::{Setting, Settings as Values, StoreUrl, Trust};
pub use secret_persistence_core::{
    Actor, AuditEvent, AuditMode, AuditSink, Capabilities, CheckOptions, CheckReport, CheckStep,
    Coordinate, Cost, Cursor, DeleteOptions, Entry, Error, ErrorKind, Expiry, ExternalName,
    Identity, InvalidStorageId, ListOptions, Listing, Location, ManagedCoordinate, Memory,
    OpenStore, Operation, Owner, Page, Read, Recovery, Result, Scope, SecretPersistence,
    SecretPersistenceExt, SecretValue, StepOutcome, StorageId, Stores, Sweep, Timestamp, Write,
    Written, connector, layer,
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
pub use kind::Kind;
pub use settings::{COMMON, Environment, KubernetesSecrets, Settings, Tenant, Warning, key_table};
pub use storage::{Storage, Storages};
pub use stores::{StoresSettings, stores};
