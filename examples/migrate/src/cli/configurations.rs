//! The options of `split` and of the filters.

use clap::Args;
use secret_persistence_migrate::OtherScope;

use super::{OneStore, Pace, ShareArgs};

/// `split`.
#[derive(Args, Debug)]
pub(crate) struct SplitArgs {
    /// `-` reads JSON lines from standard input and writes them to standard output, without a
    /// journal. Without it, --configs names the configurations.
    #[arg(value_name = "-", value_parser = ["-"])]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) at: OneStore,
    #[command(flatten)]
    pub(crate) configs: SplitConfigs,
    /// The journal of the split: a file, or a Postgres URL. It must not be the journal of a
    /// migration.
    #[arg(
        long,
        value_name = "PATH or URL",
        default_value = "migrate-split-journal.db",
        help_heading = "Run"
    )]
    pub(crate) journal: String,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// Report how many secrets would be written; change nothing.
    #[arg(long, help_heading = "Run")]
    pub(crate) dry_run: bool,
    /// Refuse secrets that are not strings, for installations that may return to Airbyte.
    #[arg(long)]
    pub(crate) strings_only: bool,
    /// Refuse properties that the specification does not define.
    #[arg(long)]
    pub(crate) refuse_unknown_properties: bool,
    /// Pointers to secrets of another scope than their configuration: of another workspace.
    #[arg(long, value_enum)]
    pub(crate) other_scope: Option<OtherScope>,
    /// Allow raw references to external secrets whose names begin with this prefix. Repeatable.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) allow_external: Vec<String>,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
}

/// The configurations of `split`, which a filter reads from standard input instead.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configurations")]
pub(crate) struct SplitConfigs {
    /// Where configurations are, as for `plan`; the specification and the base id are needed too.
    /// Repeatable.
    #[arg(
        long = "configs",
        value_name = "URL or FILE",
        required_unless_present = "filter",
        conflicts_with = "filter"
    )]
    pub(crate) sources: Vec<String>,
    /// The table that resolves reference ids, as for `plan`.
    #[arg(long, value_name = "URL")]
    pub(crate) references: Option<String>,
}

/// A filter with a store.
#[derive(Args, Clone, Debug)]
pub(crate) struct FilterArgs {
    /// Standard input: one JSON object per line. Each gives one line of standard output.
    #[arg(value_name = "-", value_parser = ["-"])]
    filter: String,
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// The table that resolves reference ids, as for `plan`.
    #[arg(long, value_name = "URL", help_heading = "Configurations")]
    pub(crate) references: Option<String>,
    #[command(flatten)]
    pub(crate) pace: Pace,
}

/// `update -`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Refuse secrets that are not strings, for installations that may return to Airbyte.
    #[arg(long)]
    pub(crate) strings_only: bool,
    /// Refuse properties that the specification does not define.
    #[arg(long)]
    pub(crate) refuse_unknown_properties: bool,
    /// Allow raw references to external secrets whose names begin with this prefix. Repeatable.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) allow_external: Vec<String>,
}

/// `mask -`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MaskArgs {
    /// Standard input: one JSON object per line. Each gives one line of standard output.
    #[arg(value_name = "-", value_parser = ["-"])]
    filter: String,
}

/// `hydrate -`.
#[derive(Args, Clone, Debug)]
pub(crate) struct HydrateArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Print secrets even if the output is a terminal, which keeps them in its scrollback.
    #[arg(long)]
    pub(crate) to_terminal: bool,
}
