//! A connector-config service, small enough to read in one sitting and complete enough to copy from.
//!
//! - [`Rows`] is the service's own database: a row per connector with its revision, and an outbox of
//!   records. Saving is one transaction: compare-and-swap on the revision and on the record.
//! - [`Connectors`] makes the changes: plan, record, stage, save, commit; and hydrates for the runner.
//! - [`router`] is the HTTP side: `If-Match` carries the revision, 412 says that it has moved.
//! - [`Connectors::heal`] ends what crashed, from the outbox.

mod connectors;
mod http;
mod rows;

pub use connectors::{Change, ChangeError, Connectors};
pub use http::router;
pub use rows::{Outcome, Row, Rows};

/// The example of the README, which has to compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
