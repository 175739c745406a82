#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod arn;
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

pub use config::{Config, EXPIRES_TAG, OWNER_TAG};
pub use persistence::AwsSecretsManager;
pub use settings::SETTINGS;
