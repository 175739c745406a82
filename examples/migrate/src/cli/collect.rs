//! The options of `collect`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::times::span;
use super::{Configs, OneStore, Pace, ShareArgs};

/// `collect`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CollectArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Every place with pointers to secrets of the store, and the outbox with the records of open
    /// changes.
    #[command(flatten)]
    pub(crate) configs: Configs,
    /// The storages-file of a gateway: further stores by storage id, whose credentials are secrets of
    /// the store. Without it, they look like orphans. Repeatable: give that of every gateway, and each
    /// time by the same path.
    #[arg(
        long = "storages-file",
        value_name = "FILE",
        help_heading = "Configurations"
    )]
    pub(crate) storages_files: Vec<PathBuf>,
    /// What the runs have seen: a file, or a Postgres URL. Keep it: without it, the waiting begins
    /// again.
    #[arg(
        long,
        value_name = "PATH or URL",
        default_value = "migrate-collect-journal.db",
        help_heading = "Run"
    )]
    pub(crate) journal: String,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// How old a secret must be, and for how long every run must have found it unreferenced: 1h or
    /// longer.
    #[arg(long, value_name = "DURATION", value_parser = span, default_value = "24h", help_heading = "Which secrets")]
    pub(crate) grace: Duration,
    /// For how long it must have been unreferenced if backups of configurations are to stay restorable:
    /// the retention of the services, like 30d.
    #[arg(long, value_name = "DURATION", value_parser = span, help_heading = "Which secrets")]
    pub(crate) retention: Option<Duration>,
    /// Only secrets of this workspace, by their names; configurations of all workspaces are read.
    /// Repeatable. The waiting of other workspaces does not count.
    #[arg(
        long = "workspace",
        value_name = "UUID",
        help_heading = "Which secrets"
    )]
    pub(crate) workspaces: Vec<Uuid>,
    /// Stop if more than this share of the installation's secrets would go, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100), default_value_t = 10, help_heading = "Run")]
    pub(crate) max_share: u8,
    /// Delete. Without this option the run only reports, and remembers what it has seen.
    #[arg(long, help_heading = "Run")]
    pub(crate) delete: bool,
    /// Confirm that --configs and --storages-file cover every place that contains coordinates.
    #[arg(long, help_heading = "Run")]
    pub(crate) all_references: bool,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
}
