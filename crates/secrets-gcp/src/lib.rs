#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod config;
mod credentials;
mod error;
mod key;
mod naming;
mod persistence;
pub mod policy;
mod reading;
mod settings;
mod writing;

pub use config::{Config, OWNER_LABEL};
pub use persistence::GoogleSecretManager;
pub use settings::SETTINGS;
