#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod client;
mod config;
mod credentials;
mod error;
mod naming;
mod persistence;
pub mod policy;
mod reading;
mod settings;
mod transport;
mod waiting;

pub use config::{COORDINATE_TAG, Config, OWNER_TAG};
pub use persistence::AzureKeyVault;
pub use settings::SETTINGS;
