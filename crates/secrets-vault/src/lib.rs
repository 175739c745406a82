#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod auth;
mod client;
mod config;
mod error;
mod mount;
mod naming;
mod persistence;
mod policy;
mod resolver;
mod walk;
mod wire;

pub use config::{Config, SETTINGS};
pub use persistence::Vault;
pub use policy::{PolicyOptions, policy};
