#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod connect;
mod failure;
mod file_stamp;
mod quiet;
mod row;
mod shared;

pub use answer::{clock_skew, identifier, retry_after};
pub use connect::{Connect, Unresolved, find};
pub use failure::{Failure, Hints, Nature, Provider};
pub use file_stamp::FileStamp;
pub use quiet::quiet;
pub use row::Row;
pub use shared::Shared;
