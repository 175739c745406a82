//! The options of the commands that move secrets between stores.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum as _};
use secret_persistence_migrate::{
    Decisions, Expiring, External, Missing, Orphaned, OtherScope, PendingDeletion, Recoverable,
    Shared, Storage, Unfit,
};
use uuid::Uuid;

use super::times::duration;
use super::{JournalArgs, Pace, Route, ShareArgs};

/// `copy` and `rollback`; the other commands that processes share have more.
#[derive(Args, Debug)]
pub(crate) struct SharedArgs {
    #[command(flatten)]
    pub(crate) moved: MoveArgs,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
}

/// `verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) compared: CompareArgs,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
}

/// `plan`, and most of `verify`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) moved: MoveArgs,
    /// Write each secret that is missing or different in the target, or unexpected there, to this
    /// new file: one JSON object per line. This also lists the target.
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub(crate) differences: Option<PathBuf>,
    /// Write secrets that are equal to that file too.
    #[arg(long, requires = "differences", help_heading = "Run")]
    pub(crate) equal: bool,
}

/// `retire`.
#[derive(Args, Debug)]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    pub(crate) moved: MoveArgs,
    /// Confirm that --configs covers every place that contains coordinates.
    #[arg(long, help_heading = "Run")]
    pub(crate) all_references: bool,
    /// Delete immediately, without the source's recovery window.
    #[arg(long, help_heading = "Run")]
    pub(crate) without_recovery: bool,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
}

/// `status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) journal: JournalArgs,
    /// Show it again every two seconds, or as often as told, until the work has ended or stopped for
    /// all. Killed processes leave it: that does not end this.
    #[arg(long, value_name = "DURATION", value_parser = duration, num_args = 0..=1, default_missing_value = "2s")]
    pub(crate) watch: Option<Duration>,
}

/// What all commands between two stores have.
#[derive(Args, Debug)]
pub(crate) struct MoveArgs {
    #[command(flatten)]
    pub(crate) route: Route,
    #[command(flatten)]
    pub(crate) journal: JournalArgs,
    /// The longest delay until a store that replicates the other shows a change. Rollback and
    /// retire wait three times this long before they delete more than one secret, and once more at
    /// the end.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s", help_heading = "Run")]
    pub(crate) lag: Duration,
    /// Let rollback and retire go on where a store refuses to be written, so that nothing proves that the
    /// other one keeps what is deleted. State that neither follows the other.
    #[arg(long, help_heading = "Run")]
    pub(crate) without_probe: bool,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) decisions: DecisionArgs,
    /// Only the secrets of this workspace, by the row's base id or the secret's name. Repeatable. Give each
    /// choice of workspaces a journal of its own.
    #[arg(long = "workspace", value_name = "UUID", help_heading = "Run")]
    pub(crate) workspaces: Vec<Uuid>,
    /// Report what would be done; change nothing.
    #[arg(long, help_heading = "Run")]
    pub(crate) dry_run: bool,
}

/// What to do with each class of secrets that a plan finds. An option is required only if its class
/// is not empty.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Decisions")]
pub(crate) struct DecisionArgs {
    /// Secrets that expire, if the target does not store expiry.
    #[arg(long, value_enum)]
    expiring: Option<Expiring>,
    /// External secrets, which are never copied: the target has them too (expect), or they stay in
    /// the source (leave).
    #[arg(long, value_enum)]
    external: Option<External>,
    /// Coordinates in configurations that are missing in the source.
    #[arg(long, value_enum)]
    missing: Option<Missing>,
    /// Pointers to secrets of another scope than their configuration: of another workspace.
    #[arg(long, value_enum)]
    other_scope: Option<OtherScope>,
    /// Secrets in configurations that are scheduled for deletion in the source.
    #[arg(long, value_enum)]
    recoverable: Option<Recoverable>,
    /// Coordinates in the source that no configuration mentions.
    #[arg(long, value_enum)]
    orphaned: Option<Orphaned>,
    /// Names that are scheduled for deletion in the target.
    #[arg(long, value_enum)]
    pending_deletion: Option<PendingDeletion>,
    /// Coordinates that are in more than one configuration.
    #[arg(long, value_enum, conflicts_with = "unshare")]
    shared: Option<Shared>,
    /// Give each configuration its own copy of shared secrets; the same as --shared unshare.
    #[arg(long)]
    pub(crate) unshare: bool,
    /// Pointers with a storage id: the id is another store and they stay there (leave), or the id
    /// means the source and they move (move). Repeatable.
    #[arg(long, value_name = "ID=leave|move", value_parser = storage)]
    storage: Vec<(String, Storage)>,
    /// Values that the target cannot store: too large, empty, or with a NUL character.
    #[arg(long, value_enum)]
    unfit: Option<Unfit>,
}

impl DecisionArgs {
    /// Converts the options to the engine's decisions.
    pub(crate) fn decisions(&self) -> Decisions {
        let mut decisions = Decisions::default();
        decisions.expiring = self.expiring;
        decisions.external = self.external;
        decisions.missing = self.missing;
        decisions.other_scope = self.other_scope;
        decisions.recoverable = self.recoverable;
        decisions.orphaned = self.orphaned;
        decisions.pending_deletion = self.pending_deletion;
        decisions.shared = if self.unshare {
            Some(Shared::Unshare)
        } else {
            self.shared
        };
        decisions.unfit = self.unfit;
        for (id, choice) in &self.storage {
            decisions = decisions.with_storage(id, *choice);
        }
        decisions
    }
}

fn storage(text: &str) -> Result<(String, Storage), String> {
    text.rsplit_once('=')
        .filter(|(id, _)| !id.is_empty())
        .and_then(|(id, choice)| Some((id.to_owned(), Storage::from_str(choice, false).ok()?)))
        .ok_or_else(|| "write it as <storage id>=leave or <storage id>=move".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn decisions_are_what_was_said() {
        let cli = Cli::parse_from([
            "secret-migrate",
            "plan",
            "--from",
            "sqlite:a",
            "--to",
            "sqlite:b",
            "--configs",
            "c",
            "--unshare",
            "--missing",
            "skip",
            "--storage",
            "s1=move",
            "--storage",
            "s=2=leave",
        ]);
        let Command::Plan(plan) = cli.command else {
            panic!("not a plan");
        };
        let expected = Decisions::default()
            .with_shared(Shared::Unshare)
            .with_missing(Missing::Skip)
            .with_storage("s1", Storage::Move)
            .with_storage("s=2", Storage::Leave);
        assert_eq!(plan.moved.decisions.decisions(), expected);
    }
}
