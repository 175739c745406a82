//! Moves secrets from one store to another without changing a configuration.
//!
//! [`Migration`] is the engine: [`plan`](Migration::plan), [`copy`](Migration::copy),
//! [`verify`](Migration::verify), [`rollback`](Migration::rollback) and
//! [`retire`](Migration::retire); [`Split`] takes raw secrets out of configurations that were never
//! split. It knows no command line and no store: what it works on is given to it as
//! two [`SecretPersistence`](secret_persistence_core::SecretPersistence), any number of [`ConfigSource`]s and a
//! [`Journal`].
//!
//! # What can be relied on
//!
//! - A run may be killed at any moment and started again; it may be repeated as a delta.
//! - Memory depends on the concurrency and on the size of the values, not on their number: names
//!   and states are in the journal, configurations and listings are read in pages.
//! - Nothing in a journal, a [`Report`], an [`Event`] or an error is derived from a value: no digest,
//!   no length.
//! - A value that stood in the target before is never overwritten and never deleted.

mod address;
mod cancel;
mod compare;
mod configs;
#[cfg(any(feature = "conformance", test))]
pub mod conformance;
mod copy;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod database;
mod decisions;
mod engine;
mod error;
mod holdings;
mod hydrate;
mod job;
mod journal;
mod ledger;
mod memory;
mod options;
mod outbox;
mod plan;
mod private_file;
mod progress;
mod report;
mod retire;
mod rollback;
mod scan;
mod session;
pub mod sources;
mod split;
#[cfg(test)]
mod tests;
mod unshare;
mod verify;

pub use address::Variables;
pub use cancel::Cancellation;
pub use configs::{Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, Content, Update};
pub use decisions::{
    Decisions, Expiring, External, Missing, Orphaned, PendingDeletion, Shared, Storage, Unfit,
};
pub use engine::{AllReferences, Migration, TwoStores};
pub use error::{MigrateError, MigrateErrorKind, MigrateResult};
pub use job::Job;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use journal::SqlJournal;
pub use journal::{Counts, Journal, JournalEntry, Mention, Note, Run, Select, State, Transition};
pub use memory::{MemoryConfigs, MemoryJournal};
pub use options::MigrateOptions;
pub use progress::{Event, Observer, Phase, Silent};
pub use report::{Class, Failure, Finding, Findings, Report, Stop, Tally};
pub use split::{OneStore, Split};
