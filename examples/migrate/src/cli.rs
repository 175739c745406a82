//! The command line: every command and option. Nothing here needs a store.

mod collect;
mod inventory;
mod ledger;

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use secret_persistence::{FipsModule, StoreUrl};
use secret_persistence_migrate::{
    Decisions, Expiring, External, Missing, Orphaned, OtherScope, PendingDeletion, Recoverable,
    Shared, Storage, Unfit,
};
use uuid::Uuid;

pub(crate) use self::collect::CollectArgs;
pub(crate) use self::inventory::{AffectedArgs, AgesArgs, Format, InventoryArgs, RestoreArgs};
pub(crate) use self::ledger::{LedgerArgs, LedgerCommand, QueryArgs};
use crate::figures;
use crate::status::EXIT_STATUSES;

const ENVIRONMENT: &str = "\
Stores are URLs without credentials; options of a store are query parameters:
  sqlite:///path/secrets.db?table=secrets&mode=encrypted
  postgres://host:5432/database?table=secrets&mode=encrypted     (--features postgres)

Environment (no option ever takes a secret):
  SECRETS_OWNER          the id of this installation, written with every secret; needed before anything is written
  SECRETS_KEYRING_FILE   the key ring of encrypted stores, or SECRETS_KEYRING with its text
  DATABASE_USER, DATABASE_PASSWORD
  Each may have the prefix FROM_, TO_, STORE_, CONFIG_, JOURNAL_ or LEDGER_; the prefixed variable takes precedence.";

/// The commands in the order of the help, with the heading of each group.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Begin", &["demo", "init", "check", "policy"]),
    (
        "Move between stores",
        &["plan", "copy", "verify", "rollback", "retire", "status"],
    ),
    (
        "Configurations",
        &["split", "update", "settle", "mask", "hydrate"],
    ),
    (
        "Look after a store",
        &[
            "ages",
            "affected",
            "restore",
            "collect",
            "sweep",
            "ledger",
            "prepare",
            "encrypt",
            "rotate",
            "keygen",
            "conformance",
        ],
    ),
    ("This program", &["completions", "man", "help"]),
];

/// Moves secrets of connector configurations between stores, and back.
#[derive(Debug, Parser)]
#[command(name = "secret-migrate", version = VERSION.as_str(), max_term_width = 120, after_help = AFTER_HELP.as_str())]
pub(crate) struct Cli {
    /// Print the result as one JSON object on standard output; progress goes to standard error.
    #[arg(long, global = true, help_heading = "Every command")]
    pub(crate) json: bool,
    /// Write every listed name and place to this new file, one per line; the screen shows ten of
    /// each kind.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Every command"
    )]
    pub(crate) list: Option<PathBuf>,
    /// Read options from this TOML file; an option of the command line takes precedence. `init`
    /// writes one.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Every command"
    )]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The version, and the FIPS module in a build that has one.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    FipsModule::of_process().map_or_else(
        || version.to_owned(),
        |module| format!("{version} ({module})"),
    )
});

static AFTER_HELP: LazyLock<String> = LazyLock::new(|| format!("{ENVIRONMENT}\n\n{EXIT_STATUSES}"));

/// The definition of the command line, with what derive cannot express: groups of commands, and the
/// figures of each report.
pub(crate) fn definition() -> clap::Command {
    let mut definition = Cli::command();
    let width = GROUPS
        .iter()
        .flat_map(|(_, names)| *names)
        .map(|name| name.len())
        .max()
        .unwrap_or_default();
    let mut commands = String::new();
    for (heading, names) in GROUPS {
        commands += &format!("{heading}:\n");
        for name in names {
            let about = definition
                .find_subcommand(name)
                .and_then(clap::Command::get_about)
                .map_or_else(
                    || "Print the help of a command".to_owned(),
                    ToString::to_string,
                );
            commands += &format!("  {name:width$}  {}\n", about.trim_end_matches('.'));
        }
        commands.push('\n');
    }
    definition = definition.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{commands}Options:\n{{options}}{{after-help}}"
    ));
    for name in figures::COMMANDS {
        definition =
            definition.mut_subcommand(name, |command| command.after_long_help(figures::help(name)));
    }
    definition
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show split, copy, verify and rollback on made-up connectors. Needs no store.
    Demo(DemoArgs),
    /// Write a configuration file for --config, by asking or from the environment.
    Init(InitArgs),
    /// Report what a copy would do, and what needs a decision first.
    Plan(CompareArgs),
    /// Copy every secret to the target. Resumable and repeatable; deletes nothing.
    Copy(SharedArgs),
    /// Read everything back, compare it, and hydrate every configuration from the target.
    Verify(VerifyArgs),
    /// Delete from the target what copy wrote there, after every configuration has hydrated from
    /// the source.
    Rollback(SharedArgs),
    /// Delete from the source what is equal in the target at that moment.
    Retire(RetireArgs),
    /// Show how far the processes with one journal are, from any machine.
    Status(StatusArgs),
    /// Move raw secrets out of configurations: write them to a store and leave pointers.
    Split(SplitArgs),
    /// Apply edited configurations: write new secrets, keep the masked ones, delete nothing yet.
    Update(UpdateArgs),
    /// End changes of `split -` and `update -` after the save: delete what is no longer needed.
    Settle(FilterArgs),
    /// Replace every secret of configurations with a mask. Needs no store.
    Mask(MaskArgs),
    /// Insert the values into configurations. Refuses a terminal as output unless told.
    Hydrate(HydrateArgs),
    /// Check a store end to end with a test secret: identity, write, read, list, delete.
    Check(CheckArgs),
    /// List the age, expiry and owner of each connector's secrets, without values.
    Ages(AgesArgs),
    /// List which connectors' secrets to issue again after a store, a copy or a log leaked.
    Affected(AffectedArgs),
    /// Undelete what configurations point at after they were restored from a backup, and list what is lost.
    Restore(RestoreArgs),
    /// Delete secrets of this installation that no configuration points at, and expired ones.
    Collect(CollectArgs),
    /// Delete secrets of this installation that have expired.
    Sweep(SweepArgs),
    /// Verify, search, checkpoint or prune the ledger of who read which secret.
    Ledger(LedgerArgs),
    /// Print the SQL that adds our columns to a table, and run it on request.
    Prepare(PrepareArgs),
    /// Convert a plain table to an encrypted one in place.
    ///
    /// Give the store with the settings it will have: with mode=encrypted.
    Encrypt(EncryptArgs),
    /// Wrap every data key with the active key, or generate new data keys.
    Rotate(RotateArgs),
    /// Create a key ring, add or activate a key, or remove a key that no row uses.
    Keygen(KeygenArgs),
    /// Print the minimal policy for a store's credentials.
    Policy(PolicyArgs),
    /// Run the conformance suite against a store, under random names. It cleans up after itself.
    Conformance(ConformanceArgs),
    /// Print the completions for a shell.
    Completions(CompletionsArgs),
    /// Write the manual pages to a folder.
    Man(ManArgs),
}

/// The two stores of a migration, and its configurations.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Stores")]
pub(crate) struct Route {
    /// The store to copy from.
    #[arg(long, value_name = "URL", required_unless_present = "from_settings")]
    from: Option<String>,
    /// The store to copy from, as a settings file: Helm values, the JSON for external secret
    /// management, or environment variables.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    from_settings: Option<PathBuf>,
    /// The store to copy to.
    #[arg(long, value_name = "URL", required_unless_present = "to_settings")]
    to: Option<String>,
    /// The store to copy to, as a settings file.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    to_settings: Option<PathBuf>,
    /// A Kubernetes Secret that the Helm values refer to: its manifest, or the folder where it is
    /// mounted. Repeatable.
    #[arg(long = "kubernetes-secret", value_name = "PATH")]
    kubernetes_secrets: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) configs: Configs,
}

impl Route {
    /// The store to copy from.
    pub(crate) fn source(&self) -> Place<'_> {
        self.place(self.from.as_deref(), self.from_settings.as_deref())
    }

    /// The store to copy to.
    pub(crate) fn target(&self) -> Place<'_> {
        self.place(self.to.as_deref(), self.to_settings.as_deref())
    }

    fn place<'a>(&'a self, url: Option<&'a str>, file: Option<&'a Path>) -> Place<'a> {
        Place::new(url, file, &self.kubernetes_secrets)
    }
}

/// The store of a command that uses one store.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Stores")]
pub(crate) struct OneStore {
    /// The store.
    #[arg(long, value_name = "URL", required_unless_present = "store_settings")]
    store: Option<String>,
    /// The store, as a settings file: Helm values, the JSON for external secret management, or
    /// environment variables.
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    store_settings: Option<PathBuf>,
    /// A Kubernetes Secret that the Helm values refer to: its manifest, or the folder where it is
    /// mounted. Repeatable.
    #[arg(long = "kubernetes-secret", value_name = "PATH")]
    kubernetes_secrets: Vec<PathBuf>,
}

impl OneStore {
    /// Returns the store's URL or settings file.
    pub(crate) fn place(&self) -> Place<'_> {
        Place::new(
            self.store.as_deref(),
            self.store_settings.as_deref(),
            &self.kubernetes_secrets,
        )
    }
}

/// How the operator describes a store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// A settings file, with the Kubernetes Secrets that it may refer to.
    Settings {
        /// The file.
        file: &'a Path,
        /// Manifests and folders.
        secrets: &'a [PathBuf],
    },
    /// A URL.
    Url(&'a str),
}

impl<'a> Place<'a> {
    /// Takes the URL or the file, whichever the command line has.
    fn new(url: Option<&'a str>, file: Option<&'a Path>, secrets: &'a [PathBuf]) -> Self {
        match file {
            Some(file) => Self::Settings { file, secrets },
            None => Self::Url(url.unwrap_or_default()),
        }
    }
}

/// The configurations, and the table that resolves their references.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configurations")]
pub(crate) struct Configs {
    /// Where configurations are: `<database
    /// URL>?table=…&id=…&configuration=…[&base_id=…][&prefix=…] [&specification=…][&where=…]`,
    /// `…&coordinate=<column>`, `<database URL>?query-file=…`, or a JSON lines file. Repeatable.
    #[arg(long = "configs", value_name = "URL or FILE", required = true)]
    pub(crate) sources: Vec<String>,
    /// The table that resolves reference ids: `<database URL>?table=…[&id=…][&coordinate=…]
    /// [&storage_id=…]`, or `?query-file=…`.
    #[arg(long, value_name = "URL")]
    pub(crate) references: Option<String>,
}

/// The journal option.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Run")]
pub(crate) struct JournalArgs {
    /// The journal: a file, or a Postgres URL.
    #[arg(long, value_name = "PATH or URL", default_value = "migrate-journal.db")]
    pub(crate) journal: String,
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

/// `demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Keep the databases in this folder, which must be new or empty. Default: a temporary folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
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

/// `copy` and `rollback`; the other commands that processes share have more.
#[derive(Args, Debug)]
pub(crate) struct SharedArgs {
    #[command(flatten)]
    pub(crate) moved: MoveArgs,
    #[command(flatten)]
    pub(crate) share: ShareArgs,
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

/// `init`.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// The new file.
    #[arg(long, value_name = "FILE", default_value = "secret-migrate.toml")]
    pub(crate) file: PathBuf,
}

/// `completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// The folder, which is created if it is missing.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// `check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Keep the test secret, so that you can see it in the provider's console.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Retry steps that lack permissions for this long: 90s, 10m, 1h. New permissions take minutes
    /// to take effect on Azure.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
}

/// `sweep`.
#[derive(Args, Debug)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// Report what would be deleted; delete nothing.
    #[arg(long, help_heading = "Run")]
    pub(crate) dry_run: bool,
}

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

/// `policy`.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) of: PolicyOf,
}

/// The store to print a policy for.
#[derive(Subcommand, Debug)]
pub(crate) enum PolicyOf {
    /// The IAM policy, and with --principal the trust policy of a role.
    Aws {
        /// The region of the secrets.
        #[arg(long)]
        region: String,
        /// The account of the secrets: twelve digits.
        #[arg(long)]
        account: String,
        /// The tag key whose value `true` marks our secrets, such as AirbyteManaged.
        #[arg(long)]
        tag_key: Option<String>,
        /// The ARN of the customer-managed key that encrypts the secrets.
        #[arg(long, value_name = "ARN")]
        kms: Option<String>,
        /// Allow reading external secrets whose names begin with this prefix. Repeatable.
        #[arg(long, value_name = "PREFIX")]
        external: Vec<String>,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
        /// Also print the trust policy, with this principal as the one that may assume the role.
        #[arg(long, value_name = "ARN")]
        principal: Option<String>,
        /// The external id that is required to assume the role.
        #[arg(long, value_name = "ID", requires = "principal")]
        external_id: Option<String>,
    },
    /// The role definition, the commands that assign it, and the access policy for older vaults.
    Azure {
        /// The vault's name. Use a separate vault, because Azure cannot scope permissions by a
        /// secret's name.
        #[arg(long)]
        vault: String,
        /// The id of the vault's subscription.
        #[arg(long, value_name = "ID")]
        subscription: String,
        /// The vault's resource group.
        #[arg(long, value_name = "NAME")]
        resource_group: String,
        /// The object id (not the client id) of the service principal or managed identity.
        #[arg(long, value_name = "ID")]
        principal: Option<String>,
        /// The role's name.
        #[arg(long, value_name = "NAME")]
        role_name: Option<String>,
        /// For stores that purge deleted secrets.
        #[arg(long)]
        purge: bool,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
    },
    /// Two custom roles, their bindings, the grant on a customer-managed key, and the gcloud
    /// commands.
    Gcp {
        /// The number of the project that contains the secrets; conditions use it instead of the
        /// id.
        #[arg(long, value_name = "NUMBER")]
        project_number: String,
        /// The id of that project. Default: the commands ask gcloud.
        #[arg(long, value_name = "ID")]
        project: Option<String>,
        /// The region, if secrets are regional.
        #[arg(long)]
        region: Option<String>,
        /// The resource name of the Cloud KMS key that encrypts the secrets.
        #[arg(long, value_name = "NAME")]
        kms_key: Option<String>,
        /// The member that gets the roles, such as
        /// serviceAccount:NAME@PROJECT.iam.gserviceaccount.com.
        #[arg(long)]
        member: Option<String>,
        /// Allow reading external secrets whose ids begin with this prefix. Repeatable.
        #[arg(long, value_name = "PREFIX")]
        external: Vec<String>,
        /// For credentials that only read.
        #[arg(long)]
        read_only: bool,
    },
    /// The policy in HCL.
    Vault {
        /// Mount and path together, as in the store's URL: secret/airbyte/
        #[arg(long)]
        prefix: String,
        /// The mount, if it is not the first part of the prefix.
        #[arg(long)]
        mount: Option<String>,
        /// The KV version, 1 or 2. Default: both.
        #[arg(long)]
        kv_version: Option<u8>,
        /// For a token that only reads.
        #[arg(long)]
        read_only: bool,
    },
}

/// `conformance`.
#[derive(Args, Debug)]
pub(crate) struct ConformanceArgs {
    #[command(flatten)]
    pub(crate) at: OneStore,
    /// How long a listing that may lag is waited for; cases for which it did not catch up are reported
    /// as not applicable.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub(crate) list_lag: Duration,
}

/// Parses a whole number of seconds, minutes or hours, up to a day.
fn duration(text: &str) -> Result<Duration, String> {
    whole_units(text, &[("s", 1), ("m", 60), ("h", 3600)], 86_400)
        .ok_or_else(|| "write it as 90s, 10m or 1h, up to a day".to_owned())
}

/// Parses a whole number of seconds, minutes, hours or days, up to a hundred years.
fn span(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    whole_units(text, &units, 36_500 * 86_400)
        .ok_or_else(|| "write it as 90s, 10m, 12h or 90d, up to 36500d".to_owned())
}

/// Parses a whole number with one of the units, given in seconds, from one second to `most`.
fn whole_units(text: &str, units: &[(&str, u64)], most: u64) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let (_, seconds) = units.iter().find(|(name, _)| *name == unit)?;
    let seconds = number.parse::<u64>().ok()?.checked_mul(*seconds)?;
    (1..=most)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}

/// Hides credentials in a message that clap built from these arguments: what the parser of a store's
/// URL refuses, and the query of a URL, as everywhere else.
pub(crate) fn without_passwords(message: &str, arguments: &[OsString]) -> String {
    let mut clean = message.to_owned();
    for argument in arguments {
        let argument = argument.to_string_lossy();
        // clap shows the whole argument or its value.
        let value = argument.split_once('=').map(|(_, value)| value);
        for text in [Some(&*argument), value].into_iter().flatten() {
            if let Some(shown) = shown(text) {
                clean = clean.replace(text, &shown);
            }
        }
    }
    clean
}

/// How to show an argument that may contain a credential; `None` if it cannot.
fn shown(argument: &str) -> Option<String> {
    match StoreUrl::parse(argument) {
        Ok(url) if argument.contains('?') => Some(format!("{url}?…")),
        Ok(_) => None,
        // A text without a colon is no URL, but a user and a password may stand before an @.
        Err(_) => (argument.contains('@')
            || argument.contains(':') && argument.contains(['?', '#']))
        .then(|| "…".to_owned()),
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
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        grouped.sort_unstable();
        let mut definition = definition();
        definition.build();
        let mut commands: Vec<&str> = definition
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        commands.sort_unstable();
        assert_eq!(grouped, commands);
        let help = definition.render_help().to_string();
        assert!(help.contains("\nMove between stores:\n  plan "), "{help}");
        let (_, commands) = help.split_once("Begin:").unwrap();
        let (commands, _) = commands.split_once("Options:").unwrap();
        assert!(
            commands.lines().all(|line| line.chars().count() <= 120),
            "{commands}"
        );
    }

    #[test]
    fn foreign_messages_lose_their_passwords() {
        for (argument, kept) in [
            ("postgres://user:hunter2@host/db", ""),
            ("--from=postgres://user:hunter2@host/db", ""),
            ("postgres://hunter2@host/db", ""),
            ("postgres://user:12/hunter2@host/db", ""),
            ("postgres:user:12/hunter2@host/db", ""),
            ("postgres:/\n/user:12/hunter2@host/db", ""),
            ("postgres://user:hun'ter hunter2@host/db", ""),
            ("user:hunter2@host", ""),
            ("sqlite:x.db?keyring=hunter2#y", ""),
            ("--to=sqlite:x.db?keyring=hunter2", ""),
            ("sqlite:x.db?keyring=hunter2", "sqlite:x.db?…"),
            ("vault://v.example/hunter/", "vault://v.example/hunter/"),
        ] {
            let arguments = ["secret-migrate", "copy", argument].map(OsString::from);
            let message = format!("error: unexpected argument '{argument}' found");
            let clean = without_passwords(&message, &arguments);
            assert!(!clean.contains("hunter2"), "{clean}");
            assert!(
                clean.contains(kept) && clean.ends_with("' found"),
                "{clean}"
            );
        }
        let arguments = ["copy", "--frm"].map(OsString::from);
        let message = "unexpected argument '--frm' found";
        assert_eq!(without_passwords(message, &arguments), message);
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("1h", 3600), ("24h", 86_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "m",
            "10",
            "-1m",
            "0s",
            "1.5h",
            "10 m",
            "25h",
            "1é",
            "99999999999999999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_read_with_their_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("12h", 43_200),
            ("90d", 7_776_000),
            ("36500d", 3_153_600_000),
        ] {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "d", "90", "-1d", "0d", "1.5d", "36501d", "1é"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

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

    #[test]
    fn nothing_that_contradicts_itself_is_understood() {
        for line in [
            "secret-migrate plan --from sqlite:a --configs c",
            "secret-migrate plan --from sqlite:a --to sqlite:b",
            "secret-migrate plan --from sqlite:a --from-settings f --to sqlite:b --configs c",
            "secret-migrate plan --from-settings f --configs c",
            "secret-migrate plan --from sqlite:a --to sqlite:b --configs c --unshare --shared keep",
            "secret-migrate plan --from sqlite:a --to sqlite:b --configs c --storage x",
            "secret-migrate copy --from sqlite:a --to sqlite:b --configs c --rate 0",
            "secret-migrate copy --from sqlite:a --to sqlite:b --configs c --concurrency 0",
            "secret-migrate keygen --file f --add a --activate b",
            "secret-migrate keygen --file f --remove a",
            "secret-migrate keygen --file f --store sqlite:a",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
