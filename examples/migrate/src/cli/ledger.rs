//! The options of `ledger`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use secret_persistence_core::{Operation, Timestamp};

use super::times::{span, time};

/// `ledger`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LedgerArgs {
    #[command(subcommand)]
    pub(crate) command: LedgerCommand,
}

/// What to do with a ledger.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Check every line and every chain, and compare them with checkpoints. Finds lines that were
    /// changed, removed, reordered or written without the key; what was cut off at the end of a chain,
    /// or a whole chain, only with a checkpoint.
    Verify(VerifyArgs),
    /// List lines: who read which secret, when, for which request.
    Query(QueryArgs),
    /// Verify the ledger and print a checkpoint, to be kept where those who write the ledger cannot
    /// change it.
    Checkpoint(CheckpointArgs),
    /// Verify the ledger and remove old lines from the beginning of every chain. A signed mark of what
    /// was pruned stays.
    Prune(PruneArgs),
}

/// Which ledger.
#[derive(Args, Clone, Debug)]
pub(crate) struct LedgerPlace {
    /// The ledger, as in SECRETS_LEDGER: a Postgres or SQLite database, or the folder of a file: URL.
    #[arg(long, value_name = "URL")]
    pub(crate) ledger: String,
}

/// `ledger verify`.
#[derive(Args, Clone, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) at: LedgerPlace,
    /// A file with a checkpoint: its lines must still be there. Repeatable.
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub(crate) checkpoints: Vec<PathBuf>,
}

/// `ledger query`.
#[derive(Args, Clone, Debug)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    pub(crate) at: LedgerPlace,
    /// From this time on. A date is its first second, UTC.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<Timestamp>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) until: Option<Timestamp>,
    /// Who.
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    /// The secret.
    #[arg(long, value_name = "NAME")]
    pub(crate) coordinate: Option<String>,
    /// What was done.
    #[arg(long, value_enum)]
    pub(crate) operation: Option<Done>,
    /// The id of the request.
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
}

/// An operation in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Done {
    Delete,
    Describe,
    Read,
    Restore,
    Write,
}

impl From<Done> for Operation {
    fn from(done: Done) -> Self {
        match done {
            Done::Delete => Self::Delete,
            Done::Describe => Self::Describe,
            Done::Read => Self::Read,
            Done::Restore => Self::Restore,
            Done::Write => Self::Write,
        }
    }
}

/// `ledger checkpoint`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    pub(crate) at: LedgerPlace,
    /// A file with an earlier checkpoint, which must still hold. Repeatable.
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub(crate) checkpoints: Vec<PathBuf>,
    /// Write the checkpoint to this new file instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `ledger prune`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) at: LedgerPlace,
    /// How long lines are kept: 90d, 365d.
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub(crate) keep: Duration,
    /// A file with a checkpoint, which must hold before anything is removed. Repeatable.
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub(crate) checkpoints: Vec<PathBuf>,
}
