//! HashiCorp Vault as a store of connector secrets: the KV engine, version 1 and 2.

mod auth;
mod client;
mod config;
mod error;
mod naming;
mod persistence;

pub use config::{SETTINGS, VaultConfig};
pub use persistence::Vault;
