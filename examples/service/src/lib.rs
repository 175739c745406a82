//! A connector configuration service, small enough to read in one sitting and complete enough to
//! copy.
//!
//! - [`Rows`] is the service's own database: a row per connector with its revision, and an outbox of
//!   records. Saving is one transaction: compare-and-swap on the revision and on the record.
//! - [`Connectors`] makes the changes: plan, record, stage, save, commit; and hydrates for the runner.
//! - [`router`] is the HTTP API: `If-Match` contains the revision, 412 means that it has changed.
//! - [`Connectors::refreshed`] exchanges OAuth tokens that may be used once.
//! - [`Connectors::heal`] ends crashed changes from the outbox.

mod connectors;
mod http;
mod rows;

pub use connectors::{Change, ChangeError, Connectors};
pub use http::router;
pub use rows::{Outcome, Row, Rows};

/// The example of the README, which must compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
