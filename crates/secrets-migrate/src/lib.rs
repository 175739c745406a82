#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod cancel;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod collect;
mod compare;
mod configs;
#[cfg(any(feature = "conformance", test))]
pub mod conformance;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod convert;
mod copy;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod database;
mod decisions;
mod engine;
mod error;
mod holdings;
mod hydrate;
mod independence;
mod inventory;
mod job;
mod journal;
mod left;
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
mod shared;
pub mod sources;
mod split;
#[cfg(test)]
mod tests;
mod tracker;
mod unexpected;
mod unshare;
mod verify;
mod workspaces;

pub use address::Variables;
pub use cancel::Cancellation;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use collect::{
    Collect, CollectJournal, CollectReport, CollectRules, CollectStop, Fate, Reason, Superfluous,
};
pub use configs::{Access, ConfigCursor, ConfigPage, ConfigRow, ConfigSource, Content, Update};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use convert::{Convert, ConvertJournal, ConvertReport, ConvertStop};
pub use decisions::{
    Decisions, Expiring, External, Missing, Orphaned, OtherScope, PendingDeletion, Recoverable,
    Shared, Storage, Unfit,
};
pub use engine::{AllReferences, Migration, TwoStores};
pub use error::{MigrateError, MigrateErrorKind, MigrateResult};
pub use inventory::{Inventory, InventoryReport, Reads, SecretAt, SecretFilter, Standing};
pub use job::Job;
pub use journal::{
    Claim, ConfigurationsPage, Counts, Halt, Journal, JournalEntry, Layout, Mark, Member, Mention,
    Next, Note, Position, Run, SecretsPage, Select, SharedWork, Sharing, State, Transition,
};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use journal::{JournalStatus, PassHalt, PassPhase, PassStatus, SqlJournal, WorkerStatus};
pub use memory::{MemoryConfigs, MemoryJournal};
pub use options::MigrateOptions;
pub use progress::{Difference, Event, Observer, Phase, Silent};
pub use report::{Class, Failure, Finding, Findings, Report, Stop, Tally};
pub use split::{OneStore, Split};
