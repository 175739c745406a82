//! The options that say how a command runs: its journal, its pace, and the processes that share it.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use clap::Args;

use super::times::duration;

/// The journal option.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Run")]
pub(crate) struct JournalArgs {
    /// The journal: a file, or a Postgres URL.
    #[arg(long, value_name = "PATH or URL", default_value = "migrate-journal.db")]
    pub(crate) journal: String,
}

/// The concurrency and rate options.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Run")]
pub(crate) struct Pace {
    /// Maximum concurrent requests per store. Default: the store's recommendation.
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroUsize>,
    /// Maximum requests per second per store. Default: the provider's documented quota, if it
    /// documents one.
    #[arg(long, value_name = "PER SECOND")]
    pub(crate) rate: Option<NonZeroU32>,
}

/// How processes share a command.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Run")]
pub(crate) struct ShareArgs {
    /// How long a page of a journal in Postgres belongs to a process that makes no progress. Then other
    /// processes take it over.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub(crate) lease: Duration,
    /// Start this many processes on this machine, which share the work through a journal in Postgres.
    #[arg(long, value_name = "N", overrides_with = "workers")]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Stop when standard input ends, as at Ctrl-C: how --workers stops its processes.
    #[arg(long, hide = true)]
    pub(crate) stop_at_end_of_input: bool,
}
