//! The options of the commands that encrypt a table, and of its key ring.

use std::path::PathBuf;

use clap::Args;

use super::{OneStore, ShareArgs};

/// `prepare`.
#[derive(Args, Debug)]
pub(crate) struct PrepareArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Run the SQL. Without this option it is only printed.
    #[arg(long)]
    pub(crate) run: bool,
}

/// `encrypt`.
#[derive(Args, Debug)]
pub(crate) struct EncryptArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Confirm that nothing else reads the table: a reader that expects plain text fails from the
    /// first converted row.
    #[arg(long)]
    pub(crate) nothing_else_reads_it: bool,
    /// On Postgres, rewrite the table with VACUUM FULL at the end. The table is locked meanwhile.
    #[arg(long)]
    pub(crate) vacuum_full: bool,
    #[command(flatten)]
    pub(crate) shared: ConvertArgs,
}

/// `rotate`.
#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Generate new data keys and encrypt all values again, after a key has leaked.
    #[arg(long)]
    pub(crate) reencrypt: bool,
    #[command(flatten)]
    pub(crate) shared: ConvertArgs,
}

/// How processes share `encrypt` or `rotate`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Run")]
pub(crate) struct ConvertArgs {
    /// Share the work with all processes that have the same Postgres URL here. A file has no effect: one
    /// process needs no journal, because each row shows whether it is done.
    #[arg(long, value_name = "URL")]
    pub(crate) journal: Option<String>,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
}

/// `keygen`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("step").multiple(false))]
pub(crate) struct KeygenArgs {
    /// The key ring's file. Without another option, the command creates it with one active key.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The id of the first key of a new ring. Default: today's date.
    #[arg(long, value_name = "ID", group = "step")]
    pub(crate) id: Option<String>,
    /// Add an inactive key. Distribute the file to every process that reads the store before you
    /// activate the key.
    #[arg(long, value_name = "ID", group = "step")]
    pub(crate) add: Option<String>,
    /// Activate a key: new values and `rotate` use it.
    #[arg(long, value_name = "ID", group = "step")]
    pub(crate) activate: Option<String>,
    /// Remove a key that no row of any --store uses.
    #[arg(long, value_name = "ID", group = "step", requires = "store")]
    pub(crate) remove: Option<String>,
    /// Every store that uses this key ring; --remove checks each. Repeatable.
    #[arg(long, value_name = "URL", requires = "remove")]
    pub(crate) store: Vec<String>,
}
