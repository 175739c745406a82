//! The options of `ages` and `affected`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use secret_persistence_core::Timestamp;
use uuid::Uuid;

use super::times::{span, time};
use super::{Configs, OneStore, Pace};

/// `ages`.
#[derive(Args, Clone, Debug)]
pub(crate) struct AgesArgs {
    #[command(flatten)]
    pub(crate) of: InventoryArgs,
    /// List only secrets whose value was written this long ago or longer: 12h, 90d.
    #[arg(long, value_name = "DURATION", value_parser = span, help_heading = "Which secrets")]
    pub(crate) older_than: Option<Duration>,
    /// List only secrets that expire within this time, or have expired: 12h, 14d.
    #[arg(long, value_name = "DURATION", value_parser = span, help_heading = "Which secrets")]
    pub(crate) expiring_within: Option<Duration>,
    /// List only secrets of which --ledger knows no genuine read: what nobody seems to need.
    #[arg(long, requires = "ledger", help_heading = "Which secrets")]
    pub(crate) never_read: bool,
    #[command(flatten)]
    pub(crate) history: HistoryArgs,
}

/// `affected`.
#[derive(Args, Clone, Debug)]
pub(crate) struct AffectedArgs {
    #[command(flatten)]
    pub(crate) of: InventoryArgs,
    /// List only secrets whose value was written at this time or later: what was saved since a leak
    /// began. A date is its first second, UTC.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Which secrets")]
    pub(crate) since: Option<Timestamp>,
    /// List only secrets whose value was written at this time or earlier: what a copy of that time can
    /// contain. A date is its first second, UTC.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Which secrets")]
    pub(crate) until: Option<Timestamp>,
    /// Leave out secrets in other storages: what leaked is --store.
    #[arg(long, help_heading = "Which secrets")]
    pub(crate) in_store: bool,
    #[command(flatten)]
    pub(crate) history: HistoryArgs,
}

/// `restore`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) of: InventoryArgs,
    /// Report what would be restored; change nothing.
    #[arg(long, help_heading = "Run")]
    pub(crate) dry_run: bool,
}

/// What knows who read a secret.
#[derive(Args, Clone, Debug)]
pub(crate) struct HistoryArgs {
    /// Say of each secret when it was last read and by whom, from this read ledger, given as in
    /// SECRETS_LEDGER. Without it, nothing is said about reads.
    #[arg(long, value_name = "URL", help_heading = "Stores")]
    pub(crate) ledger: Option<String>,
}

/// What all of them have.
#[derive(Args, Clone, Debug)]
pub(crate) struct InventoryArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// This storage id means --store too; secrets of other ids are listed without times. Repeatable.
    #[arg(long = "storage-id", value_name = "ID", help_heading = "Stores")]
    pub(crate) storage_ids: Vec<String>,
    #[command(flatten)]
    pub(crate) configs: Configs,
    /// List only secrets of this workspace, by the row's base id or the secret's name. Repeatable.
    #[arg(
        long = "workspace",
        value_name = "UUID",
        help_heading = "Which secrets"
    )]
    pub(crate) workspaces: Vec<Uuid>,
    /// The form of the list. With --json, it is in the field `secrets` of the object.
    #[arg(
        long,
        value_enum,
        default_value = "table",
        conflicts_with = "json",
        help_heading = "Output"
    )]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) pace: Pace,
}

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON object per line.
    JsonLines,
    /// With a header.
    Csv,
    /// Prometheus' text format, for a textfile collector.
    Prometheus,
}
